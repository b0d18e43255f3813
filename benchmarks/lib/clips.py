"""Recordings with what is said in them, and what is done to them before a server hears them."""

from __future__ import annotations

import json
import wave
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.lib.errors import ClipError
from wyoming_whisper.commands.client import read_audio
from wyoming_whisper.transcriber import SAMPLE_RATE, Samples

LABELS = "labels.json"
BUNDLED_CLIPS = Path(__file__).parents[2] / "tests" / "audio"
SHORT_SECONDS = 8.0  # a command; longer clips are something else

# Around a command there is always room: satellites keep what came just before the first word, and
# Home Assistant waits at least this long after the last one.
SECONDS_BEFORE = 0.2
SECONDS_AFTER = 0.8

FRAME = SAMPLE_RATE // 50
SPEECH_DECIBELS = 30.0  # a frame this far below the loudest is no speech


@dataclass(frozen=True)
class Clip:
    """One recording."""

    file: str
    text: str
    """Empty where nobody speaks, or nothing that a model could know."""

    kind: str
    """Clips of a kind are counted together."""

    samples: Samples


def read_clips(folder: Path, limit: int | None = None) -> list[Clip]:
    """Read a folder's clips, by its labels.json; at most `limit` of a kind. Raises ClipError.

    That is `[{"file": ..., "text": ..., "kind": ...}]`.
    """
    path = folder / LABELS
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        labels = [(str(row["file"]), str(row["text"]), str(row["kind"])) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ClipError(f"{path} can't be read: {error!r}") from error
    counts = Counter[str]()
    clips: list[Clip] = []
    for file, text, kind in labels:
        counts[kind] += 1
        if limit is None or counts[kind] <= limit:
            clips.append(Clip(file, text, kind, read_audio(folder / file)))
    return clips


def short_clips(folder: Path = BUNDLED_CLIPS) -> list[Clip]:
    """Return the clips that are short commands in quiet. Raises ClipError where none is."""
    clips = [
        clip
        for clip in read_clips(folder)
        if clip.text and clip.kind != "noisy" and len(clip.samples) < SHORT_SECONDS * SAMPLE_RATE
    ]
    if not clips:
        raise ClipError(f"{folder} holds no short commands")
    return clips


def with_silence(samples: Samples) -> Samples:
    """Return the samples with the silence around them that a server gets to hear."""
    before, after = round(SECONDS_BEFORE * SAMPLE_RATE), round(SECONDS_AFTER * SAMPLE_RATE)
    return np.pad(samples, (before, after))


def as_pcm(samples: Samples) -> bytes:
    """Return samples with 16 bits each."""
    return np.clip(np.round(samples * 32768), -32768, 32767).astype("<i2").tobytes()


def write_wav(path: Path, samples: Samples) -> None:
    """Write mono samples of 16 kHz with 16 bits each."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(as_pcm(samples))


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
