"""False transcripts per hour of noise, of whole servers side by side.

`python -m benchmarks.noise [--noise FILE]...` sends what is no speech as commands, as a satellite
does after its wake word was heard by mistake: sounds made here, and recordings. Columns: ours, the
official server as it comes, and that with `--vad-filter`. A false transcript is any text at all.

`python -m benchmarks.noise --words` is the other side of it: whether the shortest commands there
are, spoken by espeak-ng, are taken for speech, in quiet and in noise.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import report
from benchmarks.client import say
from benchmarks.clips import noisy
from benchmarks.servers import (
    BenchmarkError,
    Program,
    Server,
    add_arguments,
    asked,
    install_official,
    official,
    ours,
    running,
)
from training import speak
from wyoming_whisper.client import read_audio
from wyoming_whisper.errors import WyomingWhisperError
from wyoming_whisper.settings import Settings
from wyoming_whisper.speech import Speech, span_options
from wyoming_whisper.transcriber import SAMPLE_RATE, Samples
from wyoming_whisper.vad import SileroVad, Vad, speech_spans

PROGRESS_EVERY = 25
LEVELS = (-50.0, -35.0, -20.0)
"""Decibels of full scale (root mean square), in turn: across the room to beside the microphone."""

Sound = npt.NDArray[np.float64]
Maker = Callable[[int, np.random.Generator], Sound]

# -- sounds --------------------------------------------------------------------------------


def silence(length: int, generator: np.random.Generator) -> Sound:
    """The hiss of a microphone."""
    return generator.standard_normal(length)


def fan(length: int, generator: np.random.Generator) -> Sound:
    """Moving air, which is louder the lower it is, and blades that pass."""
    blades = _tone(length, generator.uniform(60, 180), 6)
    breath = 1 + 0.2 * np.sin(2 * np.pi * generator.uniform(0.2, 2) * _times(length))
    return (_coloured(length, generator, 1.4) + 0.3 * _unit(blades)) * breath


def hum(length: int, generator: np.random.Generator) -> Sound:
    """A transformer, or a refrigerator."""
    return _tone(length, float(generator.choice([50.0, 60.0])), 12) + 0.1 * _coloured(
        length, generator, 1.0
    )


def music(length: int, generator: np.random.Generator) -> Sound:
    """Chords, a melody and a beat; nobody sings."""
    sound = np.zeros(length)
    beat = SAMPLE_RATE * 60 / generator.uniform(80, 140)
    root = generator.uniform(110, 220)
    for number in range(int(length / beat) + 1):
        at = round(number * beat)
        chord = root * 2 ** (generator.choice([0, 5, 7, 9]) / 12)
        for step in (0, 4, 7):
            _add(sound, at, _note(chord * 2 ** (step / 12), 4 * beat, generator))
        melody = 2 * root * 2 ** (generator.choice([0, 2, 4, 5, 7, 9, 11, 12]) / 12)
        _add(sound, at, 1.5 * _note(melody, beat, generator))
        _add(sound, at, 2.0 * _click(generator, 120 if number % 2 else 1500, 0.06))
    return sound


def keyboard(length: int, generator: np.random.Generator) -> Sound:
    """Somebody types: each key is heard going down and coming up."""
    sound = 0.01 * _coloured(length, generator, 1.0)
    at = 0.0
    while at < length:
        key = generator.uniform(1500, 5000)
        _add(sound, round(at), generator.uniform(0.5, 1) * _click(generator, key, 0.004))
        up = at + SAMPLE_RATE * generator.uniform(0.05, 0.1)
        _add(sound, round(up), 0.3 * _click(generator, key, 0.003))
        at += SAMPLE_RATE * generator.gamma(3.0, 0.06)
    return sound


def coughs(length: int, generator: np.random.Generator) -> Sound:
    """Air bursts out of a throat, once or a few times on end, then it is quiet."""
    sound = 0.003 * _coloured(length, generator, 1.0)
    at = SAMPLE_RATE * generator.uniform(0.2, 1)
    while at < length:
        throat = generator.uniform(0.85, 1.2)
        for _ in range(generator.integers(1, 4)):
            _add(sound, round(at), _cough(generator, throat))
            at += SAMPLE_RATE * generator.uniform(0.35, 0.6)
        at += SAMPLE_RATE * generator.uniform(1, 4)
    return sound


def dishes(length: int, generator: np.random.Generator) -> Sound:
    """Plates, pans and cutlery, over water that runs."""
    sound = 0.05 * _coloured(length, generator, 0.0)
    at = 0.0
    while at < length:
        ringing = _times(round(SAMPLE_RATE * 0.8))
        decay = generator.uniform(8, 40)
        struck = sum(
            generator.uniform(0.2, 1)
            * np.sin(2 * np.pi * pitch * ringing)
            * np.exp(-decay * ringing)
            for pitch in generator.uniform(600, 7000, 6)
        )
        _add(sound, round(at), generator.uniform(0.2, 1) * np.asarray(struck))
        at += SAMPLE_RATE * generator.exponential(0.5)
    return sound


SOUNDS: Mapping[str, Maker] = {
    "silence": silence,
    "fan": fan,
    "hum": hum,
    "music": music,
    "keyboard": keyboard,
    "coughs": coughs,
    "dishes": dishes,
}


def make(name: str, seconds: float, decibels: float, seed: int) -> Samples:
    """Return so much of a sound, at a level below full scale; the same for the same seed."""
    generator = np.random.default_rng([zlib.crc32(name.encode()), seed])
    length = round(seconds * SAMPLE_RATE)
    sound = _unit(SOUNDS[name](length, generator)) * 10 ** (decibels / 20)
    return np.clip(sound, -1, 1).astype(np.float32)


def _times(length: int) -> Sound:
    return np.arange(length) / SAMPLE_RATE


def _unit(sound: Sound) -> Sound:
    return sound / max(float(np.sqrt(np.mean(np.square(sound)))), 1e-12)


def _coloured(length: int, generator: np.random.Generator, slope: float) -> Sound:
    """Return noise of unit power whose power falls with the frequency to the power of `slope`."""
    spectrum = np.fft.rfft(generator.standard_normal(length))
    return _unit(
        np.fft.irfft(spectrum / np.maximum(1, np.arange(len(spectrum))) ** (slope / 2), length)
    )


def _tone(length: int, pitch: float, n_harmonics: int) -> Sound:
    times = _times(length)
    waves = [np.sin(2 * np.pi * pitch * n * times) / n for n in range(1, n_harmonics + 1)]
    return np.sum(waves, axis=0)  # type: ignore[no-any-return]


def _note(pitch: float, length: float, generator: np.random.Generator) -> Sound:
    times = _times(round(length))
    swell = np.minimum(times / generator.uniform(0.005, 0.05), 1)
    return _tone(len(times), pitch, 8) * swell * np.exp(-3 * times)


def _click(generator: np.random.Generator, pitch: float, seconds: float) -> Sound:
    times = _times(round(SAMPLE_RATE * seconds * 5))
    ring = np.sin(2 * np.pi * pitch * times) + generator.standard_normal(len(times))
    return ring * np.exp(-times / seconds)


def _cough(generator: np.random.Generator, throat: float) -> Sound:
    """Noise through the resonances of a throat: a burst, then the rest of the breath."""
    length = round(SAMPLE_RATE * generator.uniform(0.25, 0.4))
    times = _times(length)
    frequencies = np.fft.rfftfreq(length, 1 / SAMPLE_RATE)
    resonance = sum(
        gain / (1 + ((frequencies - throat * formant) / width) ** 2)
        for formant, width, gain in ((500, 150, 1.0), (1500, 250, 0.7), (2600, 400, 0.4))
    )
    noise = np.fft.irfft(np.fft.rfft(generator.standard_normal(length)) * resonance, length)
    breath = np.minimum(times / 0.01, 1) * (np.exp(-times / 0.03) + 0.25 * np.exp(-times / 0.12))
    return _unit(noise) * breath


def _add(sound: Sound, at: int, part: Sound) -> None:
    end = min(at + len(part), len(sound))
    if at < end:
        sound[at:end] += part[: end - at]


# -- commands of noise ---------------------------------------------------------------------


@dataclass(frozen=True)
class Noise:
    """One command in which nobody speaks."""

    sound: str
    name: str
    samples: Samples


def made(seconds: float, minutes: float) -> Iterator[Noise]:
    """Return commands of `seconds` with so many minutes of each sound, at all levels in turn."""
    for sound in SOUNDS:
        for number in range(round(minutes * 60 / seconds)):
            level = LEVELS[number % len(LEVELS)]
            name = f"{sound} {number} at {level:g} dB"
            yield Noise(sound, name, make(sound, seconds, level, number))


def recorded(path: Path, seconds: float) -> Iterator[Noise]:
    """Return a recording in commands of `seconds`; what is left over is left out."""
    samples, length = read_audio(path), round(seconds * SAMPLE_RATE)
    for start in range(0, len(samples) - length + 1, length):
        name = f"{path.name} from {start / SAMPLE_RATE:g} s"
        yield Noise(path.stem, name, samples[start : start + length])


def heard_as_speech(noise: Noise, vad: Vad) -> bool:
    """Return whether our server would ask its model about it."""
    speech = Speech(vad, span_options(Settings(data_dir=())))
    speech.add(noise.samples)
    speech.finish()
    return bool(speech.spans())


@dataclass(frozen=True)
class Result:
    """What one server made of one command."""

    sound: str
    name: str
    seconds: float
    server: str
    written: str
    error: str | None


def transcribe_all(
    servers: Sequence[Server], noises: Sequence[Noise], chunk_ms: int
) -> list[Result]:
    """Have every server hear every command; who hears it first takes turns."""
    results = []
    for number, noise in enumerate(noises, 1):
        for place in range(len(servers)):
            server = servers[(number + place) % len(servers)]
            heard = asyncio.run(say(server.uri, noise.samples, chunk_ms=chunk_ms))
            seconds = len(noise.samples) / SAMPLE_RATE
            written = " ".join(heard.text.split())
            results.append(
                Result(noise.sound, noise.name, seconds, server.name, written, heard.error)
            )
        if number % PROGRESS_EVERY == 0 or number == len(noises):
            print(f"{number} of {len(noises)} commands", file=sys.stderr, flush=True)
    return results


def measure(args: argparse.Namespace, noises: Sequence[Noise]) -> list[Result]:
    """Start all servers, and have them hear all commands."""
    with (
        tempfile.TemporaryDirectory() as folder,
        running(_programs(args), Path(folder)) as servers,
    ):
        return transcribe_all(servers, noises, args.chunk_ms)


def _programs(args: argparse.Namespace) -> list[Program]:
    programs = [ours(args)]
    if not args.no_official:
        plain = official(args)
        command = (*plain.command, "--vad-filter")
        programs += [plain, dataclasses.replace(plain, name="official, VAD", command=command)]
    return programs


# -- the shortest commands -----------------------------------------------------------------

WORDS: Mapping[str, tuple[str, ...]] = {
    "en-us": ("yes", "no", "on", "off", "stop", "pause"),
    "de": ("ja", "nein", "aus", "stopp"),
    "fr": ("oui", "non"),
    "it": ("sì", "no"),
    "pl": ("tak", "nie"),
}
VOICES = ("", "+f4", "+Mike")
WORD_NOISE: tuple[float | None, ...] = (None, 20.0, 10.0, 5.0)  # decibels below the word
CANDIDATES = (1, 3, 5)
"""How many frames may be asked for as evidence of speech."""


def words() -> list[tuple[str, Samples]]:
    """Return words of one syllable, spoken, with silence around them. Raises BenchmarkError."""
    jobs = [
        speak.Job(word, "espeak", language + voice)
        for language, spoken in WORDS.items()
        for word in spoken
        for voice in VOICES
    ]
    try:
        said = [(job.label + " " + job.text, speak.say_espeak(job)) for job in jobs]
    except OSError as error:
        raise BenchmarkError(f"--words needs espeak-ng: {error}") from error
    loud = [(name, (s / np.abs(s).max() / 4).astype(np.float32)) for name, s in said]
    return [(name, np.pad(samples, SAMPLE_RATE)) for name, samples in loud]


def words_table(spoken: Sequence[tuple[str, Samples]], vad: SileroVad) -> str:
    """Return how many words are heard, by noise and by the evidence asked for."""
    usual = span_options(Settings(data_dir=()))
    rows = []
    for decibels in WORD_NOISE:
        name = "quiet" if decibels is None else f"noise {decibels:g} dB"
        heard = Counter[int]()
        for word, samples in spoken:
            sound = samples if decibels is None else noisy(samples, decibels, word)
            probabilities = vad.probabilities(sound)
            for frames in CANDIDATES:
                options = dataclasses.replace(usual, min_sure_frames=frames)
                heard[frames] += bool(speech_spans(probabilities, len(sound), options))
        rows.append([name, str(len(spoken)), *(str(heard[frames]) for frames in CANDIDATES)])
    columns = [
        f"{n} frame{'s' * (n > 1)}{' (ours)' * (n == usual.min_sure_frames)}" for n in CANDIDATES
    ]
    return report.table(["spoken in", "words", *columns], rows)


# -- report --------------------------------------------------------------------------------


def table(
    servers: Sequence[str],
    noises: Sequence[Noise],
    asked_about: Counter[str],
    results: Sequence[Result],
) -> str:
    """Return false transcripts per hour, for each sound and all."""
    sounds = list(dict.fromkeys(noise.sound for noise in noises))
    head = ["sound", "commands", "minutes", "our model asked"]
    head += [f"{server}: false" for server in servers]
    head += [f"{server}: per hour" for server in servers]
    rows = []
    for sound in [*sounds, "all"]:
        own = [noise for noise in noises if sound in (noise.sound, "all")]
        hours = sum(len(noise.samples) for noise in own) / SAMPLE_RATE / 3600
        n_asked = asked_about.total() if sound == "all" else asked_about[sound]
        false = [
            sum(
                r.server == server and sound in (r.sound, "all") and bool(r.written)
                for r in results
            )
            for server in servers
        ]
        rows.append(
            [sound, str(len(own)), f"{hours * 60:.1f}", str(n_asked)]
            + [str(count) for count in false]
            + [f"{count / hours:.0f}" for count in false]
        )
    return report.table(head, rows)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.noise", description=__doc__)
    add_arguments(parser)
    parser.add_argument(
        "--noise",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="a recording in which nobody speaks; repeatable",
    )
    parser.add_argument("--seconds", type=float, default=6.0, help="of one command (default: 6)")
    parser.add_argument(
        "--minutes", type=float, default=3.0, help="of each sound made here (default: 3)"
    )
    parser.add_argument("--words", action="store_true", help="short commands instead of noise")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    args = _arguments(argv)
    facts = report.machine()
    try:
        if args.words:
            print(words_table(words(), SileroVad()))
            return 0
        noises = [*made(args.seconds, args.minutes)]
        noises += [noise for path in args.noise for noise in recorded(path, args.seconds)]
        runtime: dict[str, Any] = {} if args.no_official else install_official()
        results = measure(args, noises)
    except (BenchmarkError, WyomingWhisperError) as error:
        print(f"benchmarks.noise: {error}", file=sys.stderr)
        return 1
    vad = SileroVad()
    asked_about = Counter(noise.sound for noise in noises if heard_as_speech(noise, vad))
    servers = [program.name for program in _programs(args)]
    print(report.machine_line(facts), table(servers, noises, asked_about, results), sep="\n\n")
    failed = sum(result.error is not None for result in results)
    if failed:
        print(f"\n{failed} commands ended in an error, which counts as no transcript.")
    written = {
        "machine": facts,
        "official": runtime,
        "asked": asked(args),
        "model_asked": dict(asked_about),
        "results": [asdict(result) for result in results],
    }
    report.write_json(args.json, written)
    return 0


if __name__ == "__main__":
    sys.exit(main())
