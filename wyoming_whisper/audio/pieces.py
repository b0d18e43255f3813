"""Where long speech is cut: in its pauses, into pieces that Whisper hears at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..text.evidence import Voicing
from ..transcriber import SAMPLE_RATE, Samples
from .vad import FRAME_SAMPLES, Span, SpanOptions


@dataclass(frozen=True)
class Section:
    """A stretch of audio that ends in a pause, or where the recording does."""

    # Of windows of half a minute Whisper now and then skips sentences, of one sentence it seldom
    # does (docs/benchmarks.md, Where long speech is cut).
    SHORTEST_SECONDS = 2.0
    LONGEST_SECONDS = 12.0
    PAUSE_SECONDS = 0.3
    """The first pause of this length is cut in, from the shortest on; else the longest there is."""
    WHOLE_SECONDS = 30
    """What Whisper hears at once; what is no longer than this in all is not cut."""

    start: int
    """Samples before it."""
    samples: Samples
    probabilities: Samples
    """That each frame is speech; the first and the last frame may be incomplete."""

    def spans(self, options: SpanOptions) -> list[Span]:
        """Return where speech is in `samples`."""
        return options.spans(self.probabilities, len(self.samples))

    def cut(self, spans: list[Span]) -> Samples:
        """Return only what lies within `spans` of its samples."""
        if len(spans) == 1:
            return self.samples[spans[0][0] : spans[0][1]]
        nothing = np.zeros(0, np.float32)
        return np.concatenate([nothing, *(self.samples[start:end] for start, end in spans)])

    def parts(self, options: SpanOptions) -> Iterator[Section]:
        """Yield each span of speech in it."""
        for start, end in self.spans(options):
            within = self.probabilities[start // FRAME_SAMPLES : -(-end // FRAME_SAMPLES)]
            yield Section(self.start + start, self.samples[start:end], within)

    def voicing(self, options: SpanOptions) -> Voicing:
        """Return the evidence of a voice in it."""
        n_voiced = int(np.count_nonzero(self.probabilities >= options.threshold))
        # Cries and clatter hardly have any frames that are as clear.
        n_clear = int(np.count_nonzero(self.probabilities >= 0.8))
        return Voicing(n_voiced * FRAME_SAMPLES / SAMPLE_RATE, n_clear)

    def place_to_cut(self, low: float) -> int:
        """Return the frame to cut before, of more than a piece that begins with speech.

        It is the middle of a pause, of probabilities below `low`; without any, the frame that is
        speech least.
        """
        first, last = _frames(self.SHORTEST_SECONDS), _frames(self.LONGEST_SECONDS)
        among = self.probabilities[first:last]
        quiet = np.concatenate([[False], among < low, [False]]).astype(np.int8)
        starts, ends = (np.flatnonzero(np.diff(quiet) == step) for step in (1, -1))
        if not len(starts):
            return first + int(np.argmin(among))
        lengths = ends - starts
        is_long = lengths * FRAME_SAMPLES >= self.PAUSE_SECONDS * SAMPLE_RATE
        chosen = int(np.argmax(is_long)) if is_long.any() else int(np.argmax(lengths))
        return first + int(starts[chosen] + ends[chosen]) // 2


def _frames(seconds: float) -> int:
    return int(seconds * SAMPLE_RATE) // FRAME_SAMPLES
