"""Word errors between what was said and what was written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class WordErrors:
    """Counts of one transcript, or the sum of many."""

    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    words: int = 0
    """Of the reference."""

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    def __add__(self, other: WordErrors) -> WordErrors:
        return WordErrors(
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
            self.words + other.words,
        )


def normalised(text: str) -> list[str]:
    """Return the words that are compared: lower case, only the letters a to z and apostrophes."""
    kept = re.sub(r"[^a-z' ]", " ", text.lower().replace("’", "'"))  # noqa: RUF001
    return kept.split()


def word_errors(reference: str, written: str) -> WordErrors:
    """Return the fewest edits that make `written` of `reference`."""
    wanted, got = normalised(reference), normalised(written)
    substitutions, deletions, insertions = _edits(wanted, got)
    return WordErrors(substitutions, deletions, insertions, len(wanted))


def _edits(wanted: Sequence[str], got: Sequence[str]) -> tuple[int, int, int]:
    """Return (substitutions, deletions, insertions); with equally few, most substitutions."""
    # (cost, substitutions, deletions, insertions); the cheapest is the least of the tuples but for
    # the substitutions, which are to be the most: they count down.
    row = [(n, 0, 0, n) for n in range(len(got) + 1)]
    for count, word in enumerate(wanted, 1):
        above, row = row, [(count, 0, count, 0)]
        for n, other in enumerate(got, 1):
            row.append(_cheapest(above[n - 1], above[n], row[n - 1], word == other))
    _, substitutions, deletions, insertions = row[-1]
    return -substitutions, deletions, insertions


_Path = tuple[int, int, int, int]


def _cheapest(diagonal: _Path, above: _Path, left: _Path, same: bool) -> _Path:
    cost, swapped, dropped, added = diagonal
    kept = (cost, swapped, dropped, added) if same else (cost + 1, swapped - 1, dropped, added)
    cost, swapped, dropped, added = above
    without = (cost + 1, swapped, dropped + 1, added)
    cost, swapped, dropped, added = left
    return min(kept, without, (cost + 1, swapped, dropped, added + 1))
