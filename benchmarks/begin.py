"""When to begin before the audio ends: what each silence to wait for costs and gains.

`python -m benchmarks.begin --corpus DIR [--recordings DIR]` hears people with the
rules of the server, in this process and in no particular time. The silence that has passed when
work begins is also what is kept after speech, so a shorter one may cost words, and has work begin
for nothing in a pause. `--recordings` are spoken commands with real pauses, whose words nobody
wrote down: they show how often.
"""

from __future__ import annotations

import argparse
import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks import models
from benchmarks.clips import ClipError
from benchmarks.corpus import CLEAN, PARTS, Recording, as_heard, read_corpus, select
from benchmarks.report import machine, machine_line, milliseconds, percent, table, write_json
from benchmarks.words import WordErrors, word_errors
from wyoming_whisper.backends import open_transcriber
from wyoming_whisper.client import read_audio
from wyoming_whisper.early import MAX_EAGER_JOBS
from wyoming_whisper.errors import WyomingWhisperError
from wyoming_whisper.settings import Settings
from wyoming_whisper.speech import PAD_AFTER_SECONDS, Speech, span_options, transcribe_speech
from wyoming_whisper.transcriber import SAMPLE_RATE, Samples, TranscribeOptions, Transcriber
from wyoming_whisper.utterance import HEAR_SAMPLES
from wyoming_whisper.vad import FRAME_SAMPLES, SileroVad, SpanOptions, Vad

SILENCES = (0.1, 0.13, 0.16, PAD_AFTER_SECONDS, 0.25, 0.4)
NOISE = "noise10"
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
    recordings: Sequence[Recording],
    transcriber: Transcriber,
    vad: Vad,
    options: SpanOptions,
    under: str,
) -> WordErrors:
    """Return the word errors of all recordings, under a condition of corpus.py."""
    found = WordErrors()
    for one in recordings:
        asked = TranscribeOptions(language=one.lang)
        answer = transcribe_speech(as_heard(one, under), transcriber, asked, vad, options)
        found += word_errors(one.text or "", answer.text, one.lang)
    return found


def read_recordings(folders: Sequence[Path], part: str) -> Iterator[Samples]:
    """Yield every recording of a part of some folders."""
    for folder in folders:
        for path in sorted(folder.iterdir()):
            half = PARTS[zlib.crc32(path.name.encode()) % 2]
            if path.suffix in SOUNDS and part in (half, "all"):
                yield read_audio(path)


def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return one row for each silence. Raises ClipError and WyomingWhisperError."""
    settings = Settings(
        model=str(arguments.model),
        data_dir=(arguments.data_dir,),
        backend=arguments.backend,
        strict_backend=True,
        beam_size=arguments.beam_size,
        cpu_threads=arguments.threads,
    )
    people = [one for one in read_corpus(arguments.corpus) if one.voice == "human"]
    transcriber, vad = open_transcriber(settings), SileroVad()
    told = select(people, arguments.part, ("command", "speech"), limit=arguments.limit)
    clips = [one for one in told if one.lang in transcriber.languages]
    pauses = [as_heard(one) for one in clips]
    pauses += read_recordings(arguments.recordings, arguments.part)
    rows = []
    for silence in SILENCES:
        options = replace(span_options(settings), pad_after_seconds=silence)
        found = [one for samples in pauses if (one := starts(samples, vad, options))]
        rows.append(
            {
                "silence": silence,
                "clean": asdict(words(clips, transcriber, vad, options, CLEAN)),
                "noisy": asdict(words(clips, transcriber, vad, options, NOISE)),
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
    models.add_model(parser)
    parser.add_argument("--data-dir", type=Path, default=Path("data"), metavar="DIR")
    parser.add_argument("--backend", default="faster-whisper", metavar="NAME")
    parser.add_argument("--beam-size", type=int, default=0, metavar="N")
    parser.add_argument("--threads", type=int, default=0, metavar="N")
    parser.add_argument("--corpus", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--recordings", type=Path, action="append", default=[], metavar="DIR", help="for pauses"
    )
    parser.add_argument("--part", choices=PARTS, default="report", help="(default: report)")
    parser.add_argument("--limit", type=int, help="recordings of a kind and language")
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
