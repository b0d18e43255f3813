"""Where long speech is cut: in its pauses, into pieces that Whisper hears at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..text.evidence import Voicing
from ..transcriber import SAMPLE_RATE, Samples
from .vad import FRAME_SAMPLES, Span, SpanOptions

MAX_PIECE_SECONDS = 30
"""What Whisper hears at once; what is no longer is not cut."""


@dataclass(frozen=True)
class Cutting:
    """How long pieces are, in seconds: about a sentence, unless it is said otherwise.

    Of windows of half a minute Whisper now and then skips sentences, and of one it seldom does
    (docs/benchmarks.md, Where long speech is cut).
    """

    shortest: float = 2.0
    longest: float = 12.0
    pause: float = 0.3
    """The first pause of this length is cut in, from `shortest` on; else the longest there is."""
    whole: float = MAX_PIECE_SECONDS
    """What is no longer than this in all is not cut."""

    @property
    def longest_samples(self) -> int:
        return round(self.longest * SAMPLE_RATE)

    @property
    def whole_samples(self) -> int:
        return round(self.whole * SAMPLE_RATE)

    def frame(self, probabilities: Samples, low: float) -> int:
        """Return the frame to cut before, of more than a piece that begins with speech.

        It is the middle of a pause; without any, the frame that is speech least.
        """
        first, last = _frames(self.shortest), _frames(self.longest)
        among = probabilities[first:last]
        quiet = np.concatenate([[False], among < low, [False]]).astype(np.int8)
        starts, ends = (np.flatnonzero(np.diff(quiet) == step) for step in (1, -1))
        if not len(starts):
            return first + int(np.argmin(among))
        lengths = ends - starts
        is_long = lengths * FRAME_SAMPLES >= self.pause * SAMPLE_RATE
        chosen = int(np.argmax(is_long)) if is_long.any() else int(np.argmax(lengths))
        return first + int(starts[chosen] + ends[chosen]) // 2


def _frames(seconds: float) -> int:
    return int(seconds * SAMPLE_RATE) // FRAME_SAMPLES


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
        return options.spans(self.probabilities, len(self.samples))

    def voicing(self, options: SpanOptions, span: Span | None = None) -> Voicing:
        """Return the evidence of a voice in it, or in one of its spans."""
        start, end = span or (0, len(self.samples))
        within = self.probabilities[start // FRAME_SAMPLES : -(-end // FRAME_SAMPLES)]
        n_voiced = int(np.count_nonzero(within >= options.threshold))
        n_clear = int(np.count_nonzero(within >= 0.8))  # cries and clatter hardly have any
        return Voicing(n_voiced * FRAME_SAMPLES / SAMPLE_RATE, n_clear)
