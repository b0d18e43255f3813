"""What rooms, kitchens and microphones do to speech. All randomness comes from one generator."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.features import FFT, RATE, filters, log_mel, power

Audio = npt.NDArray[np.float32]
Generator = np.random.Generator

NOISE_SECONDS = 30
WARPS = np.linspace(0.92, 1.10, 10)


def rms(samples: Audio) -> float:
    """Root mean square, never zero."""
    return float(np.sqrt(np.mean(np.square(samples), dtype=np.float64))) + 1e-7


def coloured(samples: int, slope: float, g: Generator) -> Audio:
    """Noise whose power falls with frequency: 0 white, 1 pink, 2 brown."""
    spectrum = np.fft.rfft(g.standard_normal(samples))
    spectrum /= np.maximum(1, np.arange(len(spectrum))) ** (slope / 2)
    return np.asarray(np.fft.irfft(spectrum, samples), np.float32)


def hum(samples: int, g: Generator) -> Audio:
    """A fridge or a mains loop: harmonics of 50 or 60 Hz and a little hiss."""
    t = np.arange(samples) / RATE
    base = g.choice([50.0, 60.0, 100.0, 120.0])
    waves = [
        g.uniform(0.1, 1) / k * np.sin(2 * np.pi * base * k * t + g.uniform(0, 6))
        for k in range(1, 9)
    ]
    return np.asarray(np.sum(waves, axis=0) + 0.05 * g.standard_normal(samples), np.float32)


def kitchen(samples: int, g: Generator) -> Audio:
    """Clinking dishes, running water and a rumble."""
    rumble, water = coloured(samples, 1.8, g), coloured(samples, 0.3, g)
    swell = np.interp(np.arange(samples), np.linspace(0, samples, 20), g.uniform(0, 1, 20))
    sound = rumble / rms(rumble) + water / rms(water) * swell * g.uniform(0.1, 1.0)
    for _ in range(int(samples / RATE * g.uniform(0.5, 3))):
        length = int(RATE * g.uniform(0.03, 0.4))
        start, t = int(g.integers(0, max(1, samples - length))), np.arange(length) / RATE
        tones = sum(np.sin(2 * np.pi * g.uniform(700, 7000) * t) for _ in range(4))
        clink = tones * np.exp(-t * g.uniform(10, 80)) * g.uniform(0.5, 4)
        sound[start : start + length] += clink[: samples - start]
    return np.asarray(sound, np.float32)


def babble(speech: list[npt.NDArray[np.int16]], samples: int, voices: int, g: Generator) -> Audio:
    """Several people talking at once."""
    mixed = np.zeros(samples, np.float32)
    for _ in range(voices):
        position = -int(g.integers(0, RATE * 2))
        while position < samples:
            said = speech[int(g.integers(len(speech)))].astype(np.float32)
            first, position = position, position + len(said) + int(g.integers(0, RATE))
            start, end = max(0, first), min(samples, first + len(said))
            if end <= start:
                continue
            mixed[start:end] += said[start - first : end - first]
    return mixed


class NoiseBank:
    """Half a minute of many noises, made once."""

    def __init__(self, speech: list[npt.NDArray[np.int16]], g: Generator) -> None:
        n = NOISE_SECONDS * RATE
        noises = [coloured(n, slope, g) for slope in (0, 0, 0.5, 1, 1, 1.5, 2)]
        noises += [hum(n, g) for _ in range(3)] + [kitchen(n, g) for _ in range(4)]
        self.babbles = [babble(speech, n, voices, g) for voices in (3, 4, 6, 8)]
        self._noises = [noise / rms(noise) for noise in noises + self.babbles]

    def take(self, samples: int, g: Generator) -> Audio:
        """Noise of level 1, at most NOISE_SECONDS long."""
        noise = self._noises[int(g.integers(len(self._noises)))]
        start = int(g.integers(0, len(noise)))
        if start + samples <= len(noise):
            return noise[start : start + samples]
        return np.concatenate([noise[start:], noise])[:samples]


def faster(samples: Audio, factor: float) -> Audio:
    """Speech sped up, and raised in pitch, by `factor`."""
    size = int(len(samples) / factor)
    moved = torch.nn.functional.interpolate(
        torch.from_numpy(samples)[None, None], size, mode="linear", align_corners=True
    )
    return np.asarray(moved[0, 0])


def echo(samples: Audio, g: Generator) -> Audio:
    """The samples as a room of 0.05 to 0.3 s reverberation passes them on."""
    seconds = g.uniform(0.05, 0.3)
    n = int(RATE * seconds)
    decay = np.exp(-6.9 * np.arange(n) / n) * g.uniform(0.02, 0.15)
    response = g.standard_normal(n, dtype=np.float32) * decay.astype(np.float32)
    response[0] = 1.0
    size = 1 << (len(samples) + n - 1).bit_length()
    spectrum = torch.fft.rfft(torch.from_numpy(samples), size)
    spectrum *= torch.fft.rfft(torch.from_numpy(response), size)
    return np.asarray(torch.fft.irfft(spectrum, size)[: len(samples)])


def with_noise(samples: Audio, noise: Audio, decibels: float, speech_rms: float) -> Audio:
    """Samples with noise (of level 1) that many decibels below their speech."""
    return samples + noise * np.float32(speech_rms * 10 ** (-decibels / 20))


def degraded(samples: Audio, speech_rms: float, bank: NoiseBank, g: Generator) -> Audio:
    """A microphone across the room: echo, noise of 5 to 40 dB, any gain."""
    if g.random() < 0.25:
        samples = echo(samples, g)
    if g.random() < 0.85:
        noise = bank.take(len(samples), g)
        samples = with_noise(samples, noise, g.uniform(5, 40), speech_rms)
    gain = g.uniform(0.05, 1.0) / max(float(np.abs(samples).max()), 1e-6)
    return np.asarray(samples * np.float32(gain), np.float32)


def degraded_mel(samples: Audio, g: Generator) -> Tensor:
    """Log-mel (80, frames) of another vocal tract and microphone."""
    spectrum = power(torch.from_numpy(samples))
    knots = torch.from_numpy(g.standard_normal(6, dtype=np.float32)) * g.uniform(0, 3)
    curve = torch.nn.functional.interpolate(
        knots[None, None], FFT // 2 + 1, mode="linear", align_corners=True
    )
    spectrum = spectrum * (10 ** (curve[0, 0] / 10))[:, None]
    return log_mel(spectrum, filters(float(g.choice(WARPS))))
