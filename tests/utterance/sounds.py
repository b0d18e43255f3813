"""Sounds that are no speech, computed: what is heard in homes and must never reach a model."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from wyoming_whisper.transcriber import SAMPLE_RATE, Samples

LEVELS = (-50.0, -35.0, -20.0)
"""Decibels of full scale (root mean square), in turn: across the room to beside the microphone."""

Sound = npt.NDArray[np.float64]
Maker = Callable[[int, np.random.Generator], Sound]


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
    noise = _breath(round(SAMPLE_RATE * generator.uniform(0.25, 0.4)), throat, generator)
    times = _times(len(noise))
    breath = np.minimum(times / 0.01, 1) * (np.exp(-times / 0.03) + 0.25 * np.exp(-times / 0.12))
    return noise * breath


def _breath(length: int, throat: float, generator: np.random.Generator) -> Sound:
    return _resonant(generator.standard_normal(length), throat)


def _resonant(sound: Sound, throat: float) -> Sound:
    """Return what a throat makes of a sound: three formants, higher in a smaller one."""
    frequencies = np.fft.rfftfreq(len(sound), 1 / SAMPLE_RATE)
    resonance = sum(
        gain / (1 + ((frequencies - throat * formant) / width) ** 2)
        for formant, width, gain in ((500, 150, 1.0), (1500, 250, 0.7), (2600, 400, 0.4))
    )
    return _unit(np.fft.irfft(np.fft.rfft(sound) * resonance, len(sound)))


def _add(sound: Sound, at: int, part: Sound) -> None:
    end = min(at + len(part), len(sound))
    if at < end:
        sound[at:end] += part[: end - at]
