"""What was made of one audio: its features, the decoder's caches, and what these were fed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .audio import Array


@dataclass
class Rows:
    """A cache and what it was fed: `pasts`, of one length, shape = (batch, n_tokens)."""

    cache: Any
    n_slots: int
    pasts: list[list[int]] = field(default_factory=list)

    def common(self, pasts: list[list[int]]) -> int:
        """Return how many positions of `pasts` are in the cache already."""
        if not self.pasts:
            return 0
        lengths = (common_prefix(had, want) for had, want in zip(self.pasts, pasts, strict=True))
        return min(lengths)


@dataclass
class EncodedAudio:
    """Audio features and what was found out about them."""

    features: Any
    rows: dict[int, Rows] = field(default_factory=dict)
    sot_past: list[int] | None = None
    sot_logits: Array = field(default_factory=lambda: np.zeros(0, np.float32))
    scores: dict[tuple[tuple[int, ...] | int, ...], Array] = field(default_factory=dict)
    """By the prompt, and the tokens of a text after it."""


def common_prefix(left: list[int], right: list[int]) -> int:
    """Return how many tokens two texts begin with alike."""
    for position, (a, b) in enumerate(zip(left, right, strict=False)):
        if a != b:
            return position
    return min(len(left), len(right))


def batches(texts: Sequence[Sequence[int]], n_tokens: int) -> Iterator[Sequence[Sequence[int]]]:
    """Yield the texts in turn, so many at once as have no more tokens when all are as long."""
    first = 0
    for i in range(1, len(texts) + 1):
        more = texts[first : i + 1]
        if i == len(texts) or len(more) * max(map(len, more)) > n_tokens:
            yield texts[first:i]
            first = i
