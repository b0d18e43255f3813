"""One audio as the decoder attends to it: its features, the caches, and what these were fed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from .audio import Array
from .options import N_TEXT_CTX
from .session import ElasticSession, Session, StepOutput


@dataclass
class _Rows:
    """A cache and what it was fed: `pasts`, of one length, shape = (batch, n_tokens)."""

    cache: Any
    n_slots: int
    pasts: list[list[int]] = field(default_factory=list)

    def common(self, pasts: list[list[int]]) -> int:
        """Return how many positions of `pasts` are in the cache already."""
        if not self.pasts:
            return 0
        return min(_common(had, want) for had, want in zip(self.pasts, pasts, strict=True))


class EncodedAudio:
    """Audio features, and the decoder that attends to them: fed only what it has not had yet."""

    # Positions of the self-attention cache: few, since each set of shapes is compiled and captured.
    SLOTS = (64, 128, 256, N_TEXT_CTX)
    ROOM = 40  # positions free after the prompt at first: nearly every command fits

    def __init__(self, session: Session, sot: int, features: Any) -> None:
        self.features = features
        self.scores: dict[tuple[tuple[int, ...] | int, ...], Array] = {}
        """By the prompt, and the tokens of a text after it."""
        self.is_gone = False
        """Whether the session has lost the features."""
        self._session = session
        self._elastic = cast("ElasticSession", session) if session.is_elastic else None
        self._sot = sot
        self._rows: dict[int, _Rows] = {}
        self._sot_past: list[int] = []
        self._sot_logits = np.zeros(0, np.float32)

    def advance(
        self, pasts: list[list[int]], bias: Any, parents: list[int] | None = None
    ) -> StepOutput:
        """Run the decoder over what the rows' cache lacks of `pasts`, the last token at least.

        `parents` say which row of the step before each row continues.
        """
        rows = self._rows_for(len(pasts), len(pasts[0]))
        if parents is not None and rows.pasts:
            rows.pasts = [rows.pasts[parent] for parent in parents]
        else:
            parents = None
        known = min(rows.common(pasts), len(pasts[0]) - 1)
        rows.pasts = [list(past) for past in pasts]
        step = (
            rows.cache,
            np.array([past[known:] for past in pasts], np.int32),
            known,
            bias,
            None if parents is None else np.array(parents, np.int32),
        )
        if self._elastic is None or self._sot not in pasts[0][known:-1]:
            return self._session.step(*step)
        sot = pasts[0].index(self._sot)  # what follows it comes along, where it is not known yet
        if self._sot_past == pasts[0][: sot + 1]:
            return self._session.step(*step)
        output = self._elastic.step(*step, wanted=[sot - known])
        self._sot_past = pasts[0][: sot + 1]
        self._sot_logits = output.wanted_logits()[0, 0].copy()
        return output

    def logits_at_once(self, pasts: list[list[int]], first: int) -> Array:
        """Return the logits after each position from `first` on, shape = (batch, n, n_vocab).

        Only of an elastic session. The pasts are of one length, and begin alike.
        """
        # The first row of any cache will do: what it has of the beginning goes for all of them.
        rows = next(iter(self._rows.values()), None) or self._rows_for(1, len(pasts[0]))
        n_past = _common(rows.pasts[0], pasts[0][:first]) if rows.pasts else 0
        self._rows = {}  # until the cache has what is fed now
        output = cast("ElasticSession", self._session).step(
            rows.cache,
            np.array([past[n_past:] for past in pasts], np.int32),
            n_past,
            self._session.bias(()),
            np.zeros(len(pasts), np.int32),
            wanted=range(first - n_past, len(pasts[0]) - n_past),
        )
        self._rows = {len(pasts): _Rows(rows.cache, rows.n_slots, pasts)}
        return output.wanted_logits()

    def logits_at_sot(self, past: list[int]) -> Array:
        """Return the logits after `past`, shape = (n_vocab,); computed once."""
        if self._sot_past != past:
            output = self.advance([past], self._session.bias(()))
            self._sot_past, self._sot_logits = past, output.logits()[0].copy()
        return self._sot_logits

    def cache(self, batch: int) -> Any:
        """Return the cache of so many rows, which have had something."""
        return self._rows[batch].cache

    def cache_to_fill(self, batch: int, n_positions: int) -> Any:
        """Return a cache of so many rows whose content is the caller's."""
        rows = self._rows_for(batch, n_positions)
        rows.pasts = []
        return rows.cache

    def spread(self, batch: int) -> None:
        """Have the one row become so many with the next step. Only of an elastic session."""
        self._rows[batch] = self._rows.pop(1)

    def _rows_for(self, batch: int, n_positions: int) -> _Rows:
        """Return the cache of so many rows: an empty one where there is none large enough."""
        if self.is_gone:
            raise RuntimeError("these audio features were replaced by a later encode")
        rows = self._rows.get(batch)
        if rows is None or n_positions > rows.n_slots:
            wanted = N_TEXT_CTX if self._elastic else min(n_positions + self.ROOM, N_TEXT_CTX)
            n_slots = next(size for size in self.SLOTS if size >= wanted)
            cache = self._session.open_cache(self.features, batch, n_slots)
            rows = self._rows[batch] = _Rows(cache, n_slots)
        return rows


def _common(left: Sequence[int], right: Sequence[int]) -> int:
    """Return how many tokens two texts begin with alike."""
    for position, (a, b) in enumerate(zip(left, right, strict=False)):
        if a != b:
            return position
    return min(len(left), len(right))
