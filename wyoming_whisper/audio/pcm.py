"""Any PCM in, 16 kHz mono samples out, as it arrives. Nothing touches a disk."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import AudioError
from ..transcriber import SAMPLE_RATE, Samples
from .channels import Downmix, Frames

if TYPE_CHECKING:
    import soxr


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
        self._downmix: Downmix | None = None
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
        if pcm != self._format:
            self._change_to(pcm)
        audio = self._cut_off + audio if self._cut_off else audio
        n_whole = len(audio) - len(audio) % pcm.frame_bytes
        self._cut_off = audio[n_whole:]
        frames = pcm.frames(audio[:n_whole])
        mono = self._downmix.mix(frames) if self._downmix else frames[:, 0]
        return self.resample(mono, pcm.rate)

    def _change_to(self, pcm: PcmFormat) -> None:
        """Part of a frame goes on in frames of the same kind alone, at whatever rate."""
        before = self._format
        if before and (before.width, before.channels) != (pcm.width, pcm.channels):
            self._cut_off = b""
        self._format = pcm
        self._downmix = Downmix(pcm.rate) if pcm.channels > 1 else None

    def resample(self, samples: Samples, rate: int) -> Samples:
        """Return what mono `samples` at `rate` add; a filter may hold some back."""
        held_back = np.zeros(0, np.float32)
        if rate != self._rate:
            held_back = self._filtered()
            self._rate, self._resampler = rate, _resampler(rate)
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
