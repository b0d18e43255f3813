"""Where speech is: Silero VAD (the network that faster-whisper ships) and spans made from it."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .transcriber import SAMPLE_RATE, Samples

FRAME_SAMPLES = 512  # Silero's only frame length at 16 kHz: 32 ms
CONTEXT_SAMPLES = 64  # of the frame before, seen again
HYSTERESIS = 0.15  # a started span ends this much below the threshold (Silero's own default)

Span = tuple[int, int]
"""First sample, and the one after the last."""


@dataclass(frozen=True)
class SpanOptions:
    """How probabilities become spans; seconds and defaults are Silero's unless said otherwise."""

    threshold: float = 0.5
    min_speech_seconds: float = 0.0
    min_silence_seconds: float = 2.0
    """A pause shorter than this doesn't split a span."""
    pad_seconds: float = 0.4
    """Kept before and after each span."""


class SileroVad:
    """Speech probability of each 32 ms frame. Not for several threads at once."""

    def __init__(self) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False  # the network is small, its arena is not
        options.log_severity_level = 4
        self._session: Any = onnxruntime.InferenceSession(
            str(_silero_path()), options, providers=["CPUExecutionProvider"]
        )

    def probabilities(self, samples: Samples) -> npt.NDArray[np.float32]:
        """Return the probability of speech per frame, shape = (ceil(n_samples / 512),)."""
        if not len(samples):
            return np.zeros(0, np.float32)
        padded = np.pad(samples, (0, -len(samples) % FRAME_SAMPLES))
        frames = padded.reshape(-1, FRAME_SAMPLES)
        contexts = np.zeros((len(frames), CONTEXT_SAMPLES), np.float32)
        contexts[1:] = frames[:-1, -CONTEXT_SAMPLES:]
        state = np.zeros((1, 1, 128), np.float32)
        outputs = self._session.run(
            None, {"input": np.concatenate([contexts, frames], axis=1), "h": state, "c": state}
        )
        return np.asarray(outputs[0], np.float32)


def speech_spans(
    probabilities: npt.NDArray[np.float32], n_samples: int, options: SpanOptions
) -> list[Span]:
    """Return padded spans of speech in samples, in order, without overlap."""
    spans = _merge(_runs(probabilities, options.threshold), options.min_silence_seconds)
    shortest = options.min_speech_seconds * SAMPLE_RATE
    return _pad(
        [(start, end) for start, end in spans if end - start >= shortest],
        round(options.pad_seconds * SAMPLE_RATE),
        n_samples,
    )


def cut(samples: Samples, spans: Sequence[Span]) -> Samples:
    """Return only what lies within `spans`."""
    if len(spans) == 1:
        return samples[spans[0][0] : spans[0][1]]
    return np.concatenate([samples[start:end] for start, end in spans])


def _runs(probabilities: npt.NDArray[np.float32], threshold: float) -> list[Span]:
    """Runs that rise to the threshold and last until they fall clearly below it."""
    low = max(threshold - HYSTERESIS, 0.01)
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


def _pad(spans: list[Span], pad: int, n_samples: int) -> list[Span]:
    """Widen each span; neighbours share a gap that is too narrow for both."""
    padded: list[Span] = []
    for index, (start, end) in enumerate(spans):
        before = spans[index - 1][1] if index else -start - 2 * pad
        after = spans[index + 1][0] if index + 1 < len(spans) else end + 2 * pad
        first = start - min(pad, (start - before) // 2)
        last = end + min(pad, (after - end) - (after - end) // 2)
        padded.append((max(0, first), min(n_samples, last)))
    return padded


def _silero_path() -> Path:
    """Return the network's file without importing faster_whisper, which would load PyAV."""
    spec = importlib.util.find_spec("faster_whisper")
    if spec is None or spec.origin is None:
        raise ImportError("faster-whisper is not installed")
    return Path(spec.origin).parent / "assets" / "silero_vad_v6.onnx"
