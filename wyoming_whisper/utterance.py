"""One voice command as it arrives: any PCM in, 16 kHz mono samples out. Nothing touches a disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from .errors import AudioError
from .transcriber import SAMPLE_RATE, Samples

if TYPE_CHECKING:
    import soxr

MAX_UTTERANCE_SECONDS = 300.0  # a command has 8; this bounds what a peer makes us hold: 19 MB
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
        for name, lowest, highest in (
            ("rate", MIN_RATE, MAX_RATE),
            ("width", 1, 4),
            ("channels", 1, MAX_CHANNELS),
        ):
            value = getattr(self, name)
            if type(value) is not int or not lowest <= value <= highest:
                raise AudioError(
                    f"audio with {name} {value!r} is not possible: {lowest} to {highest} is"
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


class Utterance:
    """Grows by chunks, each of which may have its own format; gives one array at the end."""

    def __init__(self) -> None:
        self._rate = SAMPLE_RATE
        self._resampler: soxr.ResampleStream | None = None
        self._parts: list[Samples] = []
        self._n_samples = 0

    @property
    def seconds(self) -> float:
        """Length of what has come out of conversion so far."""
        return self._n_samples / SAMPLE_RATE

    @staticmethod
    def is_costly(chunk: Pcm) -> bool:
        """Whether `add` of this chunk takes longer than the event loop should wait."""
        bytes_per_second = max(1, chunk.rate * chunk.width * chunk.channels)
        return len(chunk.audio) / bytes_per_second > COSTLY_SECONDS

    def add(self, chunk: Pcm) -> None:
        """Append a chunk. Raises AudioError for a format or an amount that is out of bounds."""
        chunk_format = PcmFormat(chunk.rate, chunk.width, chunk.channels)
        samples = chunk_format.to_mono(chunk.audio)
        if self.seconds + len(samples) / chunk_format.rate > MAX_UTTERANCE_SECONDS:
            raise AudioError(f"an utterance may last {MAX_UTTERANCE_SECONDS:.0f} seconds at most")
        self._switch_to(chunk_format.rate)
        self._append(self._resampler.resample_chunk(samples) if self._resampler else samples)

    def finish(self) -> Samples:
        """Return all of it, shape = (n_samples,), mono at SAMPLE_RATE, -1..1."""
        self._flush()
        return np.concatenate(self._parts) if self._parts else np.zeros(0, np.float32)

    def _switch_to(self, rate: int) -> None:
        if rate != self._rate:
            self._flush()
            self._rate, self._resampler = rate, _resampler(rate)

    def _flush(self) -> None:
        """Take what the filter still holds back."""
        if self._resampler:
            self._append(self._resampler.resample_chunk(np.zeros(0, np.float32), last=True))
            self._rate, self._resampler = SAMPLE_RATE, None

    def _append(self, samples: Samples) -> None:
        if len(samples):
            self._parts.append(samples)
            self._n_samples += len(samples)


def _resampler(rate: int) -> soxr.ResampleStream | None:
    """Return an anti-aliasing stream resampler (libsoxr, high quality), None if none is needed."""
    if rate == SAMPLE_RATE:
        return None
    import soxr

    return soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
