"""When to begin before the audio ends: what each silence to wait for costs and gains.

`python -m benchmarks.begin` hears clips with the rules of the server, in this process and in no
particular time. The silence that has passed when work begins is also what is kept after speech, so
a shorter one may cost words, and has work begin for nothing in a pause. Recordings with real pauses
(`--pauses DIR`, whose words need not be known) show how often.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks import models
from benchmarks.clips import Clip, ClipError, noisy, read_clips, with_silence
from benchmarks.report import machine, machine_line, milliseconds, percent, table, write_json
from benchmarks.words import WordErrors, word_errors
from wyoming_whisper.backends import open_transcriber
from wyoming_whisper.client import read_audio
from wyoming_whisper.errors import WyomingWhisperError
from wyoming_whisper.settings import Settings
from wyoming_whisper.speech import PAD_AFTER_SECONDS, Speech, span_options, transcribe_speech
from wyoming_whisper.transcriber import SAMPLE_RATE, Samples, TranscribeOptions, Transcriber
from wyoming_whisper.utterance import HEAR_SAMPLES, MAX_EAGER_JOBS
from wyoming_whisper.vad import FRAME_SAMPLES, SileroVad, SpanOptions, Vad

CLIPS = Path(__file__).parents[1] / "tests" / "audio"
SILENCES = (0.1, 0.13, 0.16, PAD_AFTER_SECONDS, 0.25, 0.3, 0.4)
NOISE_DB = 10.0
SECONDS_AFTER = 1.5  # of silence, so that every wait ends
SOUNDS = (".flac", ".wav")


@dataclass(frozen=True)
class Starts:
    """Of one recording."""

    jobs: int
    wasted: int
    """Samples that were transcribed for nothing."""
    speech: int
    """Samples of what counts in the end."""
    delay: float
    """Seconds from the last frame of speech to the last beginning."""


def starts(samples: Samples, vad: Vad, options: SpanOptions) -> Starts | None:
    """Follow one recording as utterance.py does; None where nobody speaks."""
    quiet = np.zeros(round(SECONDS_AFTER * SAMPLE_RATE), np.float32)
    samples = np.concatenate([samples, quiet])
    speech, voiced, jobs, wasted, under_way, began = Speech(vad, options), -1, 0, 0, 0, 0
    for start in range(0, len(samples), HEAR_SAMPLES):
        speech.add(samples[start : start + HEAR_SAMPLES])
        if speech.last_voiced == voiced:
            continue
        wasted, under_way = wasted + under_way, 0
        if speech.has_paused and jobs < MAX_EAGER_JOBS and (spans := speech.spans()):
            voiced, jobs = speech.last_voiced, jobs + 1
            under_way = spans[-1][1] - spans[0][0]
            began = start + HEAR_SAMPLES
    spans = speech.spans()
    if not spans:
        return None
    delay = (began - (speech.last_voiced + 1) * FRAME_SAMPLES) / SAMPLE_RATE
    return Starts(jobs, wasted, spans[-1][1] - spans[0][0], delay)


def words(
    clips: Sequence[Clip], transcriber: Transcriber, vad: Vad, options: SpanOptions, noise: bool
) -> WordErrors:
    """Return the word errors of all clips."""
    found = WordErrors()
    for clip in clips:
        samples = noisy(clip.samples, NOISE_DB, clip.file) if noise else clip.samples
        asked = TranscribeOptions(language="en")
        answer = transcribe_speech(with_silence(samples), transcriber, asked, vad, options)
        found += word_errors(clip.text, answer.text)
    return found


def recordings(folder: Path) -> Iterator[Samples]:
    """Yield every recording of a folder."""
    for path in sorted(folder.iterdir()):
        if path.suffix in SOUNDS:
            yield read_audio(path)


def mixed(samples: Samples, noise: Samples, number: int) -> Samples:
    """Return speech with noise NOISE_DB below it, each recording with another part of it."""
    part = np.resize(np.roll(noise, -number * SAMPLE_RATE), len(samples))
    level = np.sqrt(np.mean(samples**2) / np.mean(part**2)) * 10 ** (-NOISE_DB / 20)
    return np.asarray(samples + level * part, np.float32)


def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return one row for each silence."""
    settings = Settings(model=arguments.model, beam_size=arguments.beam_size)
    clips = [clip for clip in read_clips(arguments.clips, limit=arguments.limit) if clip.text]
    pauses = list(recordings(arguments.pauses)) if arguments.pauses else [c.samples for c in clips]
    if arguments.noise:
        noise = read_audio(arguments.noise)
        pauses += [mixed(samples, noise, number) for number, samples in enumerate(pauses)]
    transcriber, vad = open_transcriber(settings), SileroVad()
    rows = []
    for silence in SILENCES:
        options = replace(span_options(settings), pad_after_seconds=silence)
        found = [one for samples in pauses if (one := starts(samples, vad, options))]
        rows.append(
            {
                "silence": silence,
                "clean": asdict(words(clips, transcriber, vad, options, noise=False)),
                "noisy": asdict(words(clips, transcriber, vad, options, noise=True)),
                "recordings": len(found),
                "jobs": sum(one.jobs for one in found),
                "wasted": sum(one.wasted for one in found),
                "speech": sum(one.speech for one in found),
                "delay": median(one.delay for one in found),
            }
        )
        print(f"{silence:g} s of silence heard", file=sys.stderr, flush=True)
    transcriber.close()
    return rows


def shown(rows: Sequence[dict[str, Any]]) -> str:
    """Return the table."""
    head = ("silence", "WER", "WER, noise", "begun", "for nothing", "begins after speech")
    return table(
        head,
        [
            (
                f"{row['silence']:.2f} s",
                *(_rate(WordErrors(**row[kind])) for kind in ("clean", "noisy")),
                f"{row['jobs'] / row['recordings']:.2f}",
                percent(row["wasted"], row["speech"]),
                milliseconds(row["delay"]),
            )
            for row in rows
        ],
    )


def _rate(errors: WordErrors) -> str:
    return percent(errors.errors, errors.words)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--model",
        type=lambda name: str(models.model_folder(name)),
        default=models.BASE,
        help="default: base",
    )
    parser.add_argument("--beam-size", type=int, default=1, help="default: 1")
    parser.add_argument("--clips", type=Path, default=CLIPS, help="default: tests/audio")
    parser.add_argument("--limit", type=int, help="clips of each kind")
    parser.add_argument("--pauses", type=Path, help="folder of recordings; default: the clips")
    parser.add_argument("--noise", type=Path, help="a recording mixed into those, too")
    parser.add_argument("--json", type=Path, help="write everything there, too")
    options = parser.parse_args(arguments)
    facts = machine()
    try:
        rows = measure(options)
    except (ClipError, WyomingWhisperError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{machine_line(facts)}\n\n{shown(rows)}")
    write_json(options.json, {"machine": facts, "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
