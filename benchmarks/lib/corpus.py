"""Recordings to measure with: a folder of them, and `manifest.jsonl` that says what is in each.

Each line of the manifest is an object:

file     path of the recording, from the folder
text     what is said; "" where nobody speaks, null where the words are not known
lang     code of its language; "" where nobody speaks
kind     command, speech or noise
source   where it is from: decides which part it belongs to
voice    human, neural or unknown (optional)
vocals   true in noise in which somebody sings: neither speech nor noise, and not heard (optional)

Whatever is fitted to recordings is fitted to those of the part `fit`; what is reported is measured
on those of the part `report`.
"""

from __future__ import annotations

import argparse
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.lib.clips import noisy, speech_level, with_silence
from benchmarks.lib.errors import ClipError
from wyoming_whisper.commands.client import read_audio
from wyoming_whisper.transcriber import Samples

MANIFEST = "manifest.jsonl"
KINDS = ("command", "speech", "noise")
PARTS = ("fit", "report", "all")
SUFFIXES = (".flac", ".wav", ".ogg", ".mp3")

CLEAN = "clean"
CONDITION = re.compile(r"clean|(noise|quiet)(\d+)")


@dataclass(frozen=True)
class Recording:
    """One line of a manifest."""

    folder: Path
    file: str
    text: str | None
    lang: str
    kind: str
    source: str
    voice: str = "unknown"
    has_vocals: bool = False

    @property
    def part(self) -> str:
        return part_of(self.source)

    def samples(self) -> Samples:
        """Read the recording: mono, 16 kHz. Raises AudioError."""
        return read_audio(self.folder / self.file)


def part_of(source: str) -> str:
    """Return `fit` or `report`, by the source alone, so that it never changes sides."""
    return PARTS[zlib.crc32(source.encode()) % 2]


# -- reading -------------------------------------------------------------------------------


def read_corpus(folder: Path) -> list[Recording]:
    """Read a folder's manifest. Raises ClipError, which names the first line that is wrong."""
    path = folder / MANIFEST
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ClipError(f"{path} can't be read: {error}") from error
    recordings: dict[str, Recording] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            recording = _recording(folder, json.loads(line))
        except (ClipError, ValueError) as error:
            raise ClipError(f"{path}, line {number}: {error}") from error
        if recording.file in recordings:
            raise ClipError(f"{path}, line {number}: {recording.file} is there twice")
        recordings[recording.file] = recording
    if not recordings:
        raise ClipError(f"{path} names no recording")
    return list(recordings.values())


def _recording(folder: Path, row: object) -> Recording:
    if not isinstance(row, dict):
        raise ClipError("no JSON object")
    fields = {"voice": "unknown", "vocals": False, **row}
    for name, types in _TYPES.items():
        if name not in fields:
            raise ClipError(f"has no {name}")
        if not isinstance(fields[name], types):
            raise ClipError(f"{name} can't be {json.dumps(fields[name])}")
    recording = Recording(folder, *(fields[name] for name in _TYPES))
    _check(recording)
    return recording


_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "file": str,
    "text": (str, type(None)),
    **dict.fromkeys(("lang", "kind", "source", "voice"), str),
    "vocals": bool,
}


def _check(recording: Recording) -> None:
    """Raise ClipError for what contradicts itself or isn't there."""
    if recording.kind not in KINDS:
        raise ClipError(f"kind must be {', '.join(KINDS)}, not {recording.kind!r}")
    if not recording.source:
        raise ClipError("source must say where the recording is from")
    if recording.kind == "noise" and recording.text:
        raise ClipError('text must be "" in noise, where nobody speaks')
    if recording.kind != "noise" and recording.text is not None and not recording.text.strip():
        raise ClipError("text must be what is said, or null")
    if recording.kind != "noise" and not recording.lang:
        raise ClipError("lang must be the code of what is spoken, such as en")
    root = recording.folder.resolve()
    if root not in (recording.folder / recording.file).resolve().parents:
        raise ClipError(f"file must be inside {recording.folder}, not {recording.file}")
    if not (recording.folder / recording.file).is_file():
        raise ClipError(f"{recording.file} is not there")


def read_recordings(folders: Sequence[Path], part: str) -> Iterator[tuple[Path, Samples]]:
    """Yield the recordings of a part of folders without a manifest. Raises ClipError."""
    for folder in folders:
        files = sorted(file for file in folder.glob("*") if file.suffix in SUFFIXES)
        if not files:
            raise ClipError(f"{folder} holds no recordings")
        for file in files:
            if part in (part_of(file.name), "all"):
                yield file, read_audio(file)


# -- choosing ------------------------------------------------------------------------------


def chosen(args: argparse.Namespace) -> list[Recording]:
    """Return the recordings that are asked for and whose words are known. Raises ClipError."""
    if not args.corpus:
        raise ClipError(f"--corpus must name a folder of recordings with a {MANIFEST}")
    everything = [one for folder in args.corpus for one in read_corpus(folder)]
    if missing := set(args.without) - {one.file for one in everything}:
        raise ClipError(f"--without names {min(missing)}, which is no recording")
    everything = [one for one in everything if one.file not in args.without]
    found = list(select(everything, args.part, args.kinds, args.languages, args.limit))
    if not found:
        raise ClipError(f"none of {len(everything)} recordings is what was asked for")
    return found


def select(
    recordings: Sequence[Recording],
    part: str = "report",
    kinds: Sequence[str] = KINDS,
    languages: Sequence[str] = (),
    limit: int | None = None,
) -> Iterator[Recording]:
    """Yield those whose words are known; noise has no language, and is in all of them."""
    counts: dict[tuple[str, str], int] = {}
    for one in recordings:
        if one.text is None or one.has_vocals or one.kind not in kinds:
            continue
        if part not in (one.part, "all"):
            continue
        if languages and one.lang and one.lang not in languages:
            continue
        counts[one.kind, one.lang] = counts.get((one.kind, one.lang), 0) + 1
        if limit is None or counts[one.kind, one.lang] <= limit:
            yield one


# -- what a server hears -------------------------------------------------------------------


def condition(text: str) -> str:
    """Return the name of a condition, as an option. Raises ArgumentTypeError."""
    if not CONDITION.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is none of clean, noiseN (N dB below the speech), quietN (speech at -N dB)"
        )
    return text


def as_heard(recording: Recording, under: str = CLEAN) -> Samples:
    """Return a recording with the silence around it, under a condition; noise stays as it is.

    noiseN adds the noise of a room, N dB below the speech; quietN turns the gain so that the speech
    is N dB below full scale. Raises AudioError.
    """
    samples = with_silence(recording.samples())
    found = CONDITION.fullmatch(under)
    if found is None:
        raise ValueError(f"no condition: {under}")
    if recording.kind == "noise" or under == CLEAN:
        return samples
    decibels = float(found[2])
    if found[1] == "noise":
        return noisy(samples, decibels, recording.file)
    gain = 10 ** (-decibels / 20) / max(speech_level(samples), 1e-9)
    quieter: Samples = np.clip(samples * gain, -1, 1).astype(np.float32)
    return quieter
