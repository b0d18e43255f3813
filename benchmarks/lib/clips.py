"""Recordings with what is said in them, and what is done to them before a server hears them."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wyoming_whisper.client import read_audio
from wyoming_whisper.transcriber import SAMPLE_RATE, Samples

LABELS = "labels.json"

# Around a command there is always room: satellites keep what came just before the first word, and
# Home Assistant waits at least this long after the last one.
SECONDS_BEFORE = 0.2
SECONDS_AFTER = 0.8

FRAME = SAMPLE_RATE // 50
SPEECH_DECIBELS = 30.0  # a frame this far below the loudest is no speech


class ClipError(ValueError):
    """A folder of clips can't be used as one."""


@dataclass(frozen=True)
class Clip:
    """One recording."""

    file: str
    text: str
    """Empty where nobody speaks, or nothing that a model could know."""

    kind: str
    """Clips of a kind are counted together."""

    samples: Samples


def read_clips(
    folder: Path, labels: Path | None = None, kind: str | None = None, limit: int | None = None
) -> list[Clip]:
    """Read a folder's clips, by its labels.json or the file `labels`; at most `limit` of a kind.

    `kind` is for labels that say none. Raises ClipError.
    """
    clips: list[Clip] = []
    counts: dict[str, int] = {}
    for file, text, labelled in read_labels(labels or folder / LABELS):
        found = labelled or kind or folder.name
        counts[found] = counts.get(found, 0) + 1
        if limit is None or counts[found] <= limit:
            clips.append(Clip(file, text, found, read_audio(folder / file)))
    return clips


def read_labels(path: Path) -> list[tuple[str, str, str | None]]:
    """Return (file, text, kind) from `[{"file": ..., "text": ..., "kind": ...}]`.

    Raises ClipError.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ClipError(f"{path} can't be read: {error}") from error
    if not isinstance(rows, list) or not rows:
        raise ClipError(f"{path} holds no list of clips")
    return [_label(path, number, row) for number, row in enumerate(rows)]


def _label(path: Path, number: int, row: object) -> tuple[str, str, str | None]:
    if not isinstance(row, dict):
        raise ClipError(f"{path}: entry {number} is no clip")
    file, text, kind = row.get("file"), row.get("text"), row.get("kind")
    if not isinstance(file, str) or not isinstance(text, str):
        raise ClipError(f"{path}: entry {number} needs a file and a text")
    if kind is not None and not isinstance(kind, str):
        raise ClipError(f"{path}: the kind of {file} must be text")
    return file, text, kind


def with_silence(samples: Samples) -> Samples:
    """Return the samples with the silence around them that a server gets to hear."""
    before, after = round(SECONDS_BEFORE * SAMPLE_RATE), round(SECONDS_AFTER * SAMPLE_RATE)
    return np.pad(samples, (before, after))


def speech_level(samples: Samples) -> float:
    """Return the root mean square of the frames that speech may be in; 0 for silence."""
    frames = samples[: len(samples) // FRAME * FRAME].astype(np.float64).reshape(-1, FRAME)
    powers = np.mean(np.square(frames), axis=1)
    if not powers.any():
        return 0.0
    return float(np.sqrt(np.mean(powers[powers > powers.max() * 10 ** (-SPEECH_DECIBELS / 10)])))


def noisy(samples: Samples, decibels: float, seed: str) -> Samples:
    """Return the samples with noise this far below their speech; the same for the same seed."""
    noise = room_noise(len(samples), np.random.default_rng(zlib.crc32(seed.encode())))
    mixed = samples + noise * (speech_level(samples) * 10 ** (-decibels / 20))
    # A microphone would turn its gain down rather than clip.
    mixed /= max(1.0, float(np.abs(mixed).max(initial=0)))
    return mixed.astype(np.float32)


def room_noise(length: int, generator: np.random.Generator) -> Samples:
    """Return white and pink noise, as much of each, with a root mean square of 1."""
    white = generator.standard_normal(length)
    spectrum = np.fft.rfft(generator.standard_normal(length))
    pink = np.fft.irfft(spectrum / np.sqrt(np.maximum(1, np.arange(len(spectrum)))), length)
    sound = _unit(white) + _unit(pink)
    return _unit(sound).astype(np.float32)


def _unit(sound: np.typing.NDArray[np.float64]) -> np.typing.NDArray[np.float64]:
    return sound / max(float(np.sqrt(np.mean(np.square(sound)))), 1e-12)
