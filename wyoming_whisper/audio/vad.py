"""Where speech is: Silero VAD (the network that faster-whisper ships) and spans made from it."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from ..transcriber import SAMPLE_RATE, Samples

if TYPE_CHECKING:
    from ..settings.options import Settings

FRAME_SAMPLES = 512  # Silero's only frame length at 16 kHz: 32 ms

Span = tuple[int, int]
"""First sample, and the one after the last."""


@dataclass(frozen=True)
class SpanOptions:
    """How probabilities become spans; seconds."""

    HYSTERESIS = 0.15  # a started span ends this much below the threshold (Silero's own default)

    # Coughs and clatter rise to the threshold for a moment; the shortest words stay above it for
    # twice as long as this, and more certainly (docs/benchmarks.md, Noise).
    SURE_FRAMES = 3
    SURER = 0.2  # of what the threshold lacks to certainty

    threshold: float = 0.5
    min_speech_seconds: float = 0.0
    min_silence_seconds: float = float("inf")
    """A pause shorter than this doesn't split a span."""
    pad_before_seconds: float = 0.4
    pad_after_seconds: float = 0.4
    min_sure_frames: int = SURE_FRAMES
    """With fewer frames that are evidence, nobody speaks at all."""

    @classmethod
    def of(cls, settings: Settings) -> SpanOptions:
        """Return how this user wants silence treated.

        One span from the first word to the last, unless `--vad-filter` cuts pauses out of it.
        """
        # Kept around speech. Before: soft onsets come late to the network. After: what a window
        # that fits needs to be sure of the end. The sooner this much silence has passed, the sooner
        # work can begin: six of the network's frames. Five cost as few words, but work begins in
        # vain more often (docs/benchmarks.md, When to begin).
        before, after = 0.4, 0.19
        if settings.vad_filter:
            return cls(
                threshold=settings.vad_threshold,
                min_speech_seconds=settings.vad_min_speech_ms / 1000,
                min_silence_seconds=settings.vad_min_silence_ms / 1000,
                pad_before_seconds=before,
                pad_after_seconds=after,
            )
        if settings.vad_clip:
            pad = settings.vad_clip_pad_ms / 1000
            return cls(settings.vad_clip_threshold, pad_before_seconds=pad, pad_after_seconds=pad)
        return cls(pad_before_seconds=before, pad_after_seconds=after)

    @property
    def low(self) -> float:
        """Below this, speech that had begun has ended."""
        return max(self.threshold - self.HYSTERESIS, 0.01)

    @property
    def sure(self) -> float:
        """From here on a frame is evidence that somebody speaks."""
        return self.threshold + self.SURER * (1 - self.threshold)

    def spans(self, probabilities: npt.NDArray[np.float32], n_samples: int) -> list[Span]:
        """Return padded spans of speech in samples, in order, without overlap."""
        if np.count_nonzero(probabilities >= self.sure) < self.min_sure_frames:
            return []
        spans = _merge(_runs(probabilities, self), self.min_silence_seconds)
        shortest = self.min_speech_seconds * SAMPLE_RATE
        return _pad(
            [(start, end) for start, end in spans if end - start >= shortest], n_samples, self
        )


class _VadStream(Protocol):
    """Follows one utterance. Not for several threads at once."""

    def push(self, samples: Samples) -> Samples:
        """Return the probability of speech of each frame that `samples` complete."""

    def finish(self) -> Samples:
        """Return the probability of the last, incomplete frame, if there is one."""


class Vad(Protocol):
    """Tells speech from what is none."""

    def stream(self) -> _VadStream:
        """Return a stream that has heard nothing yet."""


class SileroVad:
    """The network, loaded once. Its streams may be used from several threads."""

    def __init__(self) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False  # the network is small, its arena is not
        options.log_severity_level = 4
        self._session: Any = onnxruntime.InferenceSession(
            str(_silero_path()), options, providers=["CPUExecutionProvider"]
        )

    def stream(self) -> _SileroStream:
        """Return a stream that has heard nothing yet."""
        return _SileroStream(self._session)


class _SileroStream:
    """Silero as a VadStream: its memory, and what is left of a frame."""

    CONTEXT_SAMPLES = 64  # of the frame before, seen again

    def __init__(self, session: Any) -> None:
        self._session = session
        self._h = self._c = np.zeros((1, 1, 128), np.float32)
        self._context = np.zeros(self.CONTEXT_SAMPLES, np.float32)
        self._rest = np.zeros(0, np.float32)

    def push(self, samples: Samples) -> Samples:
        samples = np.concatenate([self._rest, samples]) if len(self._rest) else samples
        n_frames = len(samples) // FRAME_SAMPLES
        self._rest = samples[n_frames * FRAME_SAMPLES :].copy()
        if not n_frames:
            return np.zeros(0, np.float32)
        frames = samples[: n_frames * FRAME_SAMPLES].reshape(n_frames, FRAME_SAMPLES)
        contexts = np.vstack([self._context, frames[:-1, -self.CONTEXT_SAMPLES :]])
        self._context = frames[-1, -self.CONTEXT_SAMPLES :].copy()
        inputs = {"input": np.hstack([contexts, frames]), "h": self._h, "c": self._c}
        probabilities, self._h, self._c = self._session.run(None, inputs)
        return np.asarray(probabilities, np.float32)

    def finish(self) -> Samples:
        """See VadStream; the frame is filled up with silence."""
        if not len(self._rest):
            return np.zeros(0, np.float32)
        return self.push(np.zeros(FRAME_SAMPLES - len(self._rest), np.float32))


def _runs(probabilities: npt.NDArray[np.float32], options: SpanOptions) -> list[Span]:
    """Runs that rise to the threshold and last until they fall clearly below it."""
    threshold, low = options.threshold, options.low
    runs: list[Span] = []
    start: int | None = None
    for index, probability in enumerate(probabilities.tolist()):
        if start is None and probability >= threshold:
            start = index
        elif start is not None and probability < low:
            runs.append((start * FRAME_SAMPLES, index * FRAME_SAMPLES))
            start = None
    if start is not None:
        runs.append((start * FRAME_SAMPLES, len(probabilities) * FRAME_SAMPLES))
    return runs


def _merge(runs: list[Span], min_silence_seconds: float) -> list[Span]:
    merged: list[Span] = []
    for start, end in runs:
        if merged and start - merged[-1][1] < min_silence_seconds * SAMPLE_RATE:
            merged[-1] = (merged[-1][0], end)
        else:
            merged.append((start, end))
    return merged


def _pad(spans: list[Span], n_samples: int, options: SpanOptions) -> list[Span]:
    """Widen each span; neighbours share a gap that is too narrow for both."""
    before = round(options.pad_before_seconds * SAMPLE_RATE)
    after = round(options.pad_after_seconds * SAMPLE_RATE)
    padded = [(start - before, end + after) for start, end in spans]
    for i in range(1, len(spans)):
        if padded[i][0] < padded[i - 1][1]:
            middle = (spans[i - 1][1] + spans[i][0]) // 2
            padded[i - 1] = (padded[i - 1][0], min(padded[i - 1][1], middle))
            padded[i] = (max(padded[i][0], middle), padded[i][1])
    return [(max(0, start), min(n_samples, end)) for start, end in padded]


def _silero_path() -> Path:
    """Return the network's file without importing faster_whisper, which would load PyAV."""
    spec = importlib.util.find_spec("faster_whisper")
    if spec is None or spec.origin is None:
        raise ImportError("faster-whisper is not installed")
    return Path(spec.origin).parent / "assets" / "silero_vad_v6.onnx"
