"""Several channels to one, as they arrive: averaged, unless they cancel each other.

A stereo microphone with one channel wired the wrong way round (or a balanced line taken for stereo)
has the voice twice with opposite signs, and its average is silence. Whether channels cancel is
judged by the energy of their average, block by block and from what came before alone.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ..transcriber import Samples

Frames = npt.NDArray[np.float32]
"""Interleaved channels at one rate, shape = (n_samples, n_channels)."""


class Downmix:
    """Mixes one stream of several channels; how the stream is cut into calls changes nothing."""

    BLOCK_SECONDS = 0.01
    MEMORY_SECONDS = 1.0  # the time constant of the energies

    # The average of n unrelated channels has the n-th part of their mean energy, that of equal ones
    # all of it. With less than this fraction of what unrelated ones would have, channels cancel:
    # two of equal loudness, say, whose correlation is below -0.75.
    CANCELLED = 0.25

    # Once one channel was chosen it is kept, until another one is so many times as loud: within an
    # utterance nothing flaps. One channel of several is never worse than one microphone.
    LOUDER = 2.0

    def __init__(self, rate: int) -> None:
        """`rate` is in hertz."""
        self._block_samples = max(1, round(self.BLOCK_SECONDS * rate))
        self._decay = math.exp(-self._block_samples / rate / self.MEMORY_SECONDS)
        self._energies = np.zeros(1)  # of each channel
        self._average_energy = 0.0
        self._channel: int | None = None  # None is the average of all
        self._n_in_block = 0

    def mix(self, frames: Frames) -> Samples:
        """Return mono samples, as many as there are frames."""
        average: Samples = frames.mean(axis=1, dtype=np.float32)
        if frames.shape[1] == 1:
            return average
        if frames.shape[1] != len(self._energies):
            self._forget(frames.shape[1])
        mixed = average.copy()
        start = 0
        while start < len(frames):
            end = min(len(frames), start + self._block_samples - self._n_in_block)
            if self._channel is not None:
                mixed[start:end] = frames[start:end, self._channel]
            self._hear(frames[start:end], average[start:end])
            start = end
        return mixed

    def _forget(self, n_channels: int) -> None:
        self._energies = np.zeros(n_channels)
        self._average_energy, self._channel, self._n_in_block = 0.0, None, 0

    def _hear(self, frames: Frames, average: Samples) -> None:
        channels = frames.astype(np.float64)
        self._energies += np.einsum("ij,ij->j", channels, channels)
        self._average_energy += float(np.dot(average.astype(np.float64), average))
        self._n_in_block += len(frames)
        if self._n_in_block >= self._block_samples:
            self._choose()
            self._energies *= self._decay
            self._average_energy *= self._decay
            self._n_in_block = 0

    def _choose(self) -> None:
        """Decide on the channel of the next block."""
        loudest = int(np.argmax(self._energies))
        if self._channel is not None:
            if self._energies[loudest] > self.LOUDER * self._energies[self._channel]:
                self._channel = loudest
        elif self._average_energy < self.CANCELLED * self._unrelated_energy:
            self._channel = loudest

    @property
    def _unrelated_energy(self) -> float:
        """What the average would have if no channel had anything to do with another."""
        return float(self._energies.sum()) / len(self._energies) ** 2
