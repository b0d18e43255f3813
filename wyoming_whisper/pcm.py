"""Any PCM in, 16 kHz mono samples out, as it arrives. Nothing touches a disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from .errors import AudioError
from .transcriber import SAMPLE_RATE, Samples

if TYPE_CHECKING:
    import soxr

MIN_RATE, MAX_RATE = 1_000, 384_000
MAX_CHANNELS = 32

# Above this much audio at once, conversion belongs on a thread: resampling runs at some hundred
# times real time, so half a second costs a few milliseconds at most.
COSTLY_SECONDS = 0.5


class Pcm(Protocol):
    """What a chunk says of its bytes (Wyoming's audio-chunk)."""

    rate: int
    width: int
    channels: int
    audio: bytes


@dataclass(frozen=True)
class PcmFormat:
    """A checked format: little-endian; 8-bit is unsigned, as in WAV."""

    rate: int
    width: int
    channels: int

    def __post_init__(self) -> None:
        rate, width, channels = self.rate, self.width, self.channels
        if not (type(rate) is type(width) is type(channels) is int) or not (
            MIN_RATE <= rate <= MAX_RATE and 1 <= width <= 4 and 1 <= channels <= MAX_CHANNELS
        ):
            self._refuse()

    def _refuse(self) -> None:
        for name, lowest, highest in (
            ("rate", MIN_RATE, MAX_RATE),
            ("width", 1, 4),
            ("channels", 1, MAX_CHANNELS),
        ):
            value = getattr(self, name)
            if type(value) is not int or not lowest <= value <= highest:
                raise AudioError(
                    f"audio with {name} {repr(value)[:50]} is not possible: "
                    f"{lowest} to {highest} is"
                )

    def to_mono(self, audio: bytes) -> Samples:
        """Return float32 samples at the format's own rate, channels averaged."""
        if len(audio) % (self.width * self.channels):
            raise AudioError(
                f"{len(audio)} bytes are not whole frames of {self.channels} channels "
                f"with {self.width} bytes"
            )
        samples = _to_float(audio, self.width)
        if self.channels > 1:
            samples = samples.reshape(-1, self.channels).mean(axis=1, dtype=np.float32)
        return samples


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
    """Converts chunk after chunk, each of which may have its own format."""

    def __init__(self) -> None:
        self._rate = SAMPLE_RATE
        self._resampler: soxr.ResampleStream | None = None

    @staticmethod
    def is_costly(chunk: Pcm) -> bool:
        """Whether converting this chunk takes longer than the event loop should wait."""
        bytes_per_second = max(1, chunk.rate * chunk.width * chunk.channels)
        return len(chunk.audio) / bytes_per_second > COSTLY_SECONDS

    def convert(self, chunk: Pcm) -> Samples:
        """Return what `chunk` adds, mono at SAMPLE_RATE, -1..1; a filter may hold some back.

        Raises AudioError for a format that is out of bounds.
        """
        chunk_format = PcmFormat(chunk.rate, chunk.width, chunk.channels)
        return self.resample(chunk_format.to_mono(chunk.audio), chunk_format.rate)

    def resample(self, samples: Samples, rate: int) -> Samples:
        """Return what mono `samples` at `rate` add; a filter may hold some back."""
        held_back = np.zeros(0, np.float32)
        if rate != self._rate:
            held_back = self.flush()
            self._rate, self._resampler = rate, _resampler(rate)
        if self._resampler:
            samples = self._resampler.resample_chunk(samples)
        return np.concatenate([held_back, samples]) if len(held_back) else samples

    def flush(self) -> Samples:
        """Return what the filter still holds back."""
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
