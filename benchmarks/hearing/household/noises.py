"""Sounds of a household in which nobody speaks, computed: the same for the same name always."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from wyoming_whisper.transcriber import SAMPLE_RATE, Samples

Sound = npt.NDArray[np.float64]
Make = Callable[[int, np.random.Generator], Sound]

SECONDS = (1.5, 5.0)
PEAKS = (0.02, 0.5)
HISS = 0.02  # of the peak, under everything


def noise(name: str, kind: int) -> Samples:
    """Return a sound of a kind (of KINDS, modulo their number) that `name` varies."""
    r = np.random.default_rng(zlib.crc32(name.encode()))
    length = round(SAMPLE_RATE * r.uniform(*SECONDS))
    sound = _peak(KINDS[kind % len(KINDS)](length, r)) + HISS * _peak(_pink(length, r))
    return (_peak(sound) * r.uniform(*PEAKS)).astype(np.float32)


def _peak(sound: Sound) -> Sound:
    return sound / max(1e-9, float(np.abs(sound).max()))


def _times(length: int) -> Sound:
    return np.arange(length) / SAMPLE_RATE


def _between(sound: Sound, low: float, high: float) -> Sound:
    """Return what of a sound lies between two frequencies."""
    spectrum = np.fft.rfft(sound)
    frequencies = np.fft.rfftfreq(len(sound), 1 / SAMPLE_RATE)
    spectrum[(frequencies < low) | (frequencies > high)] = 0
    return np.fft.irfft(spectrum, len(sound))


def _pink(length: int, r: np.random.Generator) -> Sound:
    spectrum = np.fft.rfft(r.standard_normal(length))
    return np.fft.irfft(spectrum / np.sqrt(np.maximum(1, np.arange(len(spectrum)))), length)


def _hit(length: int, at: int, frequencies: Sequence[float], decay: float) -> Sound:
    """Return something struck at sample `at` that rings at these frequencies."""
    sound = np.zeros(length)
    times = _times(length - at)
    for frequency in frequencies:
        sound[at:] += np.exp(-times / decay) * np.sin(2 * np.pi * frequency * times)
    return sound


def _hum(length: int, r: np.random.Generator) -> Sound:
    times = _times(length)
    return sum(
        (r.uniform(0.2, 1) / n * np.sin(2 * np.pi * 50 * n * times) for n in range(1, 9)),
        np.zeros(length),
    )


def _fan(length: int, r: np.random.Generator) -> Sound:
    turning = np.sin(2 * np.pi * r.uniform(3, 12) * _times(length))
    return _between(_pink(length, r), 60, r.uniform(400, 1500)) * (1 + 0.3 * turning)


def _water(length: int, r: np.random.Generator) -> Sound:
    splashing = _peak(_between(r.standard_normal(length), 0.5, 8))
    return _between(r.standard_normal(length), 800, 7000) * (1 + 0.5 * splashing)


def _dishes(length: int, r: np.random.Generator) -> Sound:
    sound = np.zeros(length)
    for _ in range(int(r.integers(3, 12))):
        at = int(r.uniform(0, 0.9) * length)
        sound += _hit(length, at, r.uniform(1200, 6500, 4).tolist(), r.uniform(0.02, 0.15))
    return sound


def _knocks(length: int, r: np.random.Generator) -> Sound:
    sound, apart = np.zeros(length), r.uniform(0.15, 0.3)
    for n in range(int(r.integers(2, 5))):
        at = round((0.3 + n * apart) * SAMPLE_RATE)
        sound += _hit(length, at, r.uniform(80, 350, 3).tolist(), 0.04)
    return sound


def _beeps(length: int, r: np.random.Generator) -> Sound:
    times, every = _times(length), r.uniform(0.16, 0.8)
    return np.sin(2 * np.pi * r.uniform(700, 3000) * times) * (times % every < every / 2)


def _vacuum(length: int, r: np.random.Generator) -> Sound:
    times, motor = _times(length), r.uniform(180, 260)
    tones = sum((np.sin(2 * np.pi * motor * n * times) / n for n in range(1, 12)), np.zeros(length))
    return _between(r.standard_normal(length), 150, 5000) + 2 * tones


def _wail(length: int, r: np.random.Generator) -> Sound:
    """Return a voice without words, such as a cat's or a siren's."""
    rising = 1 + 0.3 * np.sin(2 * np.pi * r.uniform(0.5, 3) * _times(length))
    phase = 2 * np.pi * np.cumsum(r.uniform(200, 700) * rising) / SAMPLE_RATE
    return (np.sin(phase) + 0.5 * np.sin(2 * phase) + 0.3 * np.sin(3 * phase)) * np.hanning(length)


def _crackle(length: int, r: np.random.Generator) -> Sound:
    clicks = (r.random(length) < r.uniform(0.0005, 0.01)) * r.standard_normal(length)
    return _between(clicks, 300, 7000)


def _melody(length: int, r: np.random.Generator) -> Sound:
    sound, ground = np.zeros(length), r.uniform(220, 440)
    for at in range(0, length - 1, round(SAMPLE_RATE * r.uniform(0.2, 0.5))):
        pitch = ground * 2 ** (r.choice([0, 2, 4, 5, 7, 9, 11, 12]) / 12)
        sound += _hit(length, at, [pitch * n for n in (1, 2, 3)], 0.25)
    return sound


KINDS: tuple[Make, ...] = (
    *(_hum, _fan, _water, _dishes, _knocks),
    *(_beeps, _vacuum, _wail, _crackle, _melody),
)
