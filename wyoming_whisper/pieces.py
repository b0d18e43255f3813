"""Where long speech is cut: in its pauses, into pieces that Whisper hears at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .text import Voicing
from .transcriber import SAMPLE_RATE, Samples
from .vad import FRAME_SAMPLES, Span, SpanOptions, clear_frames, speech_spans

MAX_PIECE_SECONDS = 30
"""What Whisper hears at once."""
MIN_PIECE_SECONDS = 10
"""Cut sooner than this, a piece says too little of what it is about."""

MAX_PIECE_SAMPLES = MAX_PIECE_SECONDS * SAMPLE_RATE
MAX_PIECE_FRAMES = MAX_PIECE_SAMPLES // FRAME_SAMPLES
MIN_PIECE_FRAMES = MIN_PIECE_SECONDS * SAMPLE_RATE // FRAME_SAMPLES


@dataclass(frozen=True)
class Section:
    """A stretch of audio that ends in a pause, or where the recording does."""

    start: int
    """Samples before it."""
    samples: Samples
    probabilities: Samples
    """That each frame is speech; the last frame may be incomplete."""

    def spans(self, options: SpanOptions) -> list[Span]:
        """Return where speech is in `samples`."""
        return speech_spans(self.probabilities, len(self.samples), options)

    def voicing(self, options: SpanOptions, span: Span | None = None) -> Voicing:
        """Return the evidence of a voice in it, or in one of its spans."""
        start, end = span or (0, len(self.samples))
        heard = self.probabilities[start // FRAME_SAMPLES : -(-end // FRAME_SAMPLES)]
        n_voiced = int(np.count_nonzero(heard >= options.threshold))
        return Voicing(n_voiced * FRAME_SAMPLES / SAMPLE_RATE, clear_frames(heard))


def cut_frame(probabilities: Samples, low: float) -> int:
    """Return the frame to cut before, of more than a piece that begins with speech.

    It is the middle of the longest pause from MIN_PIECE_SECONDS to MAX_PIECE_SECONDS; without a
    pause, the frame that is speech least.
    """
    among = probabilities[MIN_PIECE_FRAMES:MAX_PIECE_FRAMES]
    quiet = np.concatenate([[False], among < low, [False]]).astype(np.int8)
    starts, ends = (np.flatnonzero(np.diff(quiet) == step) for step in (1, -1))
    if not len(starts):
        return MIN_PIECE_FRAMES + int(np.argmin(among))
    longest = int(np.argmax(ends - starts))
    return MIN_PIECE_FRAMES + int(starts[longest] + ends[longest]) // 2
