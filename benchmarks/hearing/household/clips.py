"""What is said to a household, and what else is to be heard there: lists of clips.

Each line of fresh.jsonl, test.jsonl and fit.jsonl is an object:

file       recording, from one of the folders with voices; joe/, fit-*/, fresh-*/, made/ are made
lang       language that the server is told; the household's whose sentences are to be understood
kind       command, near, other or noise: see KINDS
text       what is said; "" where nobody speaks, null where the words are not known
voice      human, neural, unknown, or a voice of lib/synthesizers.py, which speaks the text
pace       of such a voice
spoken     language that is spoken where the server is told another one
condition  room (the other end of it, in noise), noiseN (N dB below the speech), fastN (N times)
start, seconds  what of the recording is heard

What is fitted is fitted to fit.jsonl. No voice, no sentence, no recording and no name of a device
in a command is in two lists. test.jsonl was looked at while the rules were written; fresh.jsonl, of
other households (homes/), was laid down before anything was measured with it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from benchmarks.hearing.household.noises import noise
from benchmarks.lib.clips import noisy, with_silence, write_wav
from benchmarks.lib.errors import ClipError
from benchmarks.lib.report import progress
from benchmarks.lib.spoken import in_a_room, synthesize
from benchmarks.lib.synthesizers import VOICES
from benchmarks.lib.understood import HOMES
from wyoming_whisper.commands.client import read_audio
from wyoming_whisper.transcriber import SAMPLE_RATE, Samples

PARTS = {"test": HOMES, "fresh": Path(__file__).with_name("homes"), "fit": HOMES}
"""The lists, and where the households of each are."""
COMMAND, NEAR, OTHER, NOISE = "command", "near", "other", "noise"
KINDS = {
    COMMAND: "Home Assistant understands it as it is said",
    NEAR: "a wish to the household that its sentences do not know",
    OTHER: "questions, small talk, dictation, orders of coffee, words, songs, other languages",
    NOISE: "nobody speaks",
}
CONDITION = re.compile(r"room|(noise|fast)([\d.]+)")


@dataclass(frozen=True)
class Clip:
    """One line of a list."""

    file: str
    lang: str
    kind: str
    text: str | None
    voice: str = ""
    pace: float = 1.0
    spoken: str = ""
    condition: str = ""
    start: float | None = None
    seconds: float | None = None

    @cached_property
    def name(self) -> str:
        """Of this clip alone in its list."""
        parts = [self.file.rpartition(".")[0], self.condition, self.spoken and self.lang]
        if self.start is not None:
            parts.append(f"{self.start:g}s")
        return "+".join(part for part in parts if part)

    def samples(self, folders: Sequence[Path]) -> Samples:
        """Return what a server hears, silence around it. Raises ClipError, AudioError."""
        path = next((path for folder in folders if (path := folder / self.file).is_file()), None)
        if path is None:
            raise ClipError(f"{self.file} is in none of {', '.join(map(str, folders))}")
        samples = read_audio(path)
        if self.start is not None:
            first = round(self.start * SAMPLE_RATE)
            samples = samples[first : first + round((self.seconds or 0.0) * SAMPLE_RATE)]
        return with_silence(under(samples, self.condition, self.name))


def under(samples: Samples, condition: str, seed: str) -> Samples:
    """Return samples under a condition, the same for the same seed. Raises ClipError."""
    if not condition:
        return samples
    known = CONDITION.fullmatch(condition)
    if known is None:
        raise ClipError(f"{condition!r} is none of room, noiseN, fastN")
    if condition == "room":
        return in_a_room(samples, seed)
    amount = float(known[2])
    if known[1] == "noise":
        return noisy(samples, amount, seed)
    places = np.arange(0, len(samples) - 1, amount)
    faster: Samples = np.interp(places, np.arange(len(samples)), samples).astype(np.float32)
    return faster


def read_list(part: str, folder: Path = Path(__file__).parent) -> list[Clip]:
    """Read a part's list. Raises ClipError, which names the first line that is wrong."""
    path, clips = folder / f"{part}.jsonl", dict[str, Clip]()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            clip = Clip(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise ClipError(f"{path.name}, line {number}: {error}") from error
        if clip.kind not in KINDS:
            raise ClipError(f"{path.name}, line {number}: {clip.kind!r} is no kind")
        if clip.name in clips:
            raise ClipError(f"{path.name}, line {number}: {clip.name} is there twice")
        clips[clip.name] = clip
    return list(clips.values())


# -- what is made --------------------------------------------------------------------------


def make(folder: Path, clips: Sequence[Clip], python: str) -> None:
    """Write into `folder` what of the clips is made and not there yet.

    `python` runs lib/synthesizers.py. Raises ClipError.
    """
    made = {clip.file: clip for clip in clips if is_made(clip)}
    missing = {file: clip for file, clip in made.items() if not (folder / file).exists()}
    for file in missing:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
    for file, kind in _noises(missing):
        write_wav(folder / file, noise(file, kind))
    spoken = [clip for clip in missing.values() if clip.voice in VOICES]
    if spoken:
        progress(f"having {len(spoken)} sentences spoken")
        synthesize([_job(folder, clip) for clip in spoken], python)


def is_made(clip: Clip) -> bool:
    """Whether `make` makes it, rather than that it is a recording."""
    return clip.voice in VOICES or clip.file.startswith("made/")


def _noises(files: Iterable[str]) -> Iterator[tuple[str, int]]:
    for file in files:
        if number := re.fullmatch(r"made/\w+-(\d+)\.wav", file):
            yield file, int(number[1])


def _job(folder: Path, clip: Clip) -> dict[str, object]:
    file = str(folder / clip.file)
    fields = {"text": clip.text, "lang": clip.lang, "pace": clip.pace, "file": file}
    return {"voice": clip.voice, **fields}
