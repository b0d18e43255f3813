"""How alike texts are, by letters and by sound.

Imported only where names are to be compared: its libraries take their time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import jellyfish
import numpy as np
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cdist


class Likeness:
    """Folded names, ready to be compared with folded texts."""

    def __init__(self, names: Sequence[str]) -> None:
        self._letters = [name.replace(" ", "") for name in names]
        self._sounds = [_sound(name) for name in names]

    def alike(
        self, spans: Sequence[str], min_similarity: float
    ) -> Iterator[tuple[float, str, int]]:
        """Yield (similarity 0..1, span, number of the name), most alike first."""
        if not spans:
            return
        scorer = Levenshtein.normalized_similarity
        letters = [span.replace(" ", "") for span in spans]
        sounds = [_sound(span) for span in spans]
        by_letter = cdist(letters, self._letters, scorer=scorer, dtype=np.float32)
        by_sound = cdist(sounds, self._sounds, scorer=scorer, dtype=np.float32)
        similar = (by_letter + by_sound) / 2
        rows, columns = np.nonzero(similar >= min_similarity)
        for place in np.argsort(-similar[rows, columns], kind="stable").tolist():
            row, column = int(rows[place]), int(columns[place])
            yield float(similar[row, column]), spans[row], column

    @staticmethod
    def of(folded: str, other: str) -> float:
        """Return how alike two folded texts are, 0..1."""
        scorer = Levenshtein.normalized_similarity
        by_letter = scorer(folded.replace(" ", ""), other.replace(" ", ""))
        return (by_letter + scorer(_sound(folded), _sound(other))) / 2


def _sound(folded: str) -> str:
    """Return what a folded text sounds like, roughly; itself where it isn't written in Latin."""
    letters = folded.replace(" ", "")
    if not folded.isascii():
        return letters
    return jellyfish.metaphone(folded).replace(" ", "") or letters
