"""Any PCM in, 16 kHz mono samples out, as it arrives. Nothing touches a disk."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import AudioError
from ..transcriber import SAMPLE_RATE, Samples

if TYPE_CHECKING:
    import soxr

Frames = npt.NDArray[np.float32]
"""Interleaved channels at one rate, shape = (n_samples, n_channels)."""


@dataclass(frozen=True)
class PcmFormat:
    """A checked format: little-endian; 8-bit is unsigned, as in WAV."""

    MIN_RATE, MAX_RATE = 1_000, 384_000
    MAX_CHANNELS = 32

    rate: int
    width: int
    channels: int

    def __post_init__(self) -> None:
        for name, lowest, highest in (
            ("rate", self.MIN_RATE, self.MAX_RATE),
            ("width", 1, 4),
            ("channels", 1, self.MAX_CHANNELS),
        ):
            value = getattr(self, name)
            is_whole = type(value) is int
            if not (is_whole and lowest <= value <= highest):
                bounds = f"{lowest} to {highest}"
                raise AudioError(
                    f"audio with {name} {repr(value)[:50]} is not possible: "
                    f"{bounds if is_whole else f'a whole number from {bounds}'} is"
                )

    @property
    def frame_bytes(self) -> int:
        """Length of one sample of every channel."""
        return self.width * self.channels

    def n_bytes(self, seconds: float) -> int:
        """Return the length of so many seconds, in whole frames."""
        return math.ceil(seconds * self.rate) * self.frame_bytes

    @staticmethod
    def encoded(samples: Samples) -> bytes:
        """Return 16-bit little-endian PCM; samples that came from such are the very same again."""
        return np.clip(np.round(samples * 32768), -32768, 32767).astype("<i2").tobytes()

    def frames(self, audio: bytes) -> Frames:
        """Return whole frames as float32 at the format's own rate, -1..1."""
        return _to_float(audio, self.width).reshape(-1, self.channels)


def _to_float(audio: bytes, width: int) -> Samples:
    integers: npt.NDArray[Any]
    if width == 1:
        return (np.frombuffer(audio, np.uint8).astype(np.float32) - 128.0) / np.float32(128.0)
    if width == 3:
        # Three bytes become the upper three of a 32-bit integer, whose sign is then right.
        wide = np.zeros((len(audio) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(audio, np.uint8).reshape(-1, 3)
        integers, bits = wide.view("<i4").ravel(), 32
    else:
        integers, bits = np.frombuffer(audio, f"<i{width}"), 8 * width
    return integers.astype(np.float32) * np.float32(2.0 ** (1 - bits))


class PcmStream:
    """Converts chunk after chunk, each of which may have its own format.

    Chunks are parts of a stream, no messages: one may end within a sample.
    """

    COSTLY_SECONDS = 0.5
    """Above this much audio at once, conversion belongs on a thread: resampling runs at some
    hundred times real time, so half a second costs a few milliseconds at most."""

    def __init__(self) -> None:
        self._format: PcmFormat | None = None
        self._downmix = _Downmix(SAMPLE_RATE)
        self._cut_off = b""  # the beginning of a frame whose end has not come yet
        self._rate = SAMPLE_RATE
        self._resampler: soxr.ResampleStream | None = None

    @classmethod
    def is_costly(cls, pcm: PcmFormat, audio: bytes) -> bool:
        """Whether converting so much takes longer than the event loop should wait."""
        return len(audio) > pcm.n_bytes(cls.COSTLY_SECONDS)

    def convert(self, pcm: PcmFormat, audio: bytes) -> Samples:
        """Return what `audio` adds, mono at SAMPLE_RATE, -1..1; a filter may hold some back.

        The beginning of a frame at its end is kept for the next chunk.
        """
        before, self._format = self._format, pcm
        # Part of a frame goes on in frames of the same kind alone, at whatever rate.
        if before and (before.width, before.channels) != (pcm.width, pcm.channels):
            self._cut_off = b""
        audio = self._cut_off + audio if self._cut_off else audio
        n_whole = len(audio) - len(audio) % pcm.frame_bytes
        self._cut_off = audio[n_whole:]
        return self.mix(pcm.frames(audio[:n_whole]), pcm.rate)

    def mix(self, frames: Frames, rate: int) -> Samples:
        """Return what `frames` at `rate` add, as `convert` does."""
        held_back = np.zeros(0, np.float32)
        if rate != self._rate:
            held_back = self._filtered()
            self._rate, self._resampler = rate, _resampler(rate)
            self._downmix = _Downmix(rate)
        samples = self._downmix.mix(frames)
        if self._resampler:
            samples = self._resampler.resample_chunk(samples)
        return np.concatenate([held_back, samples]) if len(held_back) else samples

    def flush(self) -> Samples:
        """Return what the filter still holds back; part of a frame is dropped."""
        self._cut_off = b""
        return self._filtered()

    def _filtered(self) -> Samples:
        if not self._resampler:
            return np.zeros(0, np.float32)
        samples: Samples = self._resampler.resample_chunk(np.zeros(0, np.float32), last=True)
        self._rate, self._resampler = SAMPLE_RATE, None
        return samples


def _resampler(rate: int) -> soxr.ResampleStream | None:
    """Return an anti-aliasing stream resampler (libsoxr, high quality), None if none is needed."""
    if rate == SAMPLE_RATE:
        return None
    import soxr

    return soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")


class _Downmix:
    """Several channels to one, as they arrive: averaged, unless they cancel each other.

    A stereo microphone with one channel wired the wrong way round (or a balanced line taken for
    stereo) has the voice twice with opposite signs, and its average is silence. Whether channels
    cancel is judged by the energy of their average, block by block and from what came before alone.
    How the stream is cut into calls changes nothing.
    """

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
        if frames.shape[1] == 1:
            return frames[:, 0]
        average: Samples = frames.mean(axis=1, dtype=np.float32)
        if frames.shape[1] != len(self._energies):
            self._energies = np.zeros(frames.shape[1])
            self._average_energy, self._channel, self._n_in_block = 0.0, None, 0
        mixed = average.copy()
        start = 0
        while start < len(frames):
            end = min(len(frames), start + self._block_samples - self._n_in_block)
            if self._channel is not None:
                mixed[start:end] = frames[start:end, self._channel]
            self._hear(frames[start:end], average[start:end])
            start = end
        return mixed

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
        else:
            unrelated = self._energies.sum() / len(self._energies) ** 2
            if self._average_energy < self.CANCELLED * unrelated:
                self._channel = loudest
