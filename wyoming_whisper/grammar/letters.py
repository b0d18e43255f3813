"""Letters as the grammar compares them: capital letters and variants of signs folded.

Folded as Home Assistant's matcher compares (re.IGNORECASE), letter by letter: what is equal
here is equal there.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache

CLOSING = ".,!?;:\u2026\u3002\uff0c\uff01\uff1f\uff1b\uff1a\u061f"
"""Marks that may follow a word; Home Assistant's matcher drops them there."""

OPENING = "¿¡"
"""Marks that may stand before a word."""

HYPHENS = "-\u2010\u2011"
APOSTROPHES = "'\u2019\u2018"

_FOLDS = {
    **dict.fromkeys(APOSTROPHES, "'"),
    **dict.fromkeys(HYPHENS, "-"),
    **dict.fromkeys("\u0130\u0131", "i"),
    "\u03c2": "\u03c3",
    "\u00a0": " ",
    "_": "-",
}

_BLANK = re.compile(r"\s+")
_MARKS_AT_EDGES = re.compile(rf"(?<!\S)[{CLOSING}{OPENING}]+|[{CLOSING}{OPENING}]+(?!\S)")


@cache
def fold(letter: str) -> str:
    """Return the letter that stands for this one and its variants; one letter always."""
    if letter in _FOLDS:
        return _FOLDS[letter]
    small = letter.lower()
    return small if len(small) == 1 else letter


@cache
def variants(folded: str) -> tuple[str, ...]:
    """Return every letter that `fold` makes this one of."""
    cases = {folded, folded.upper(), folded.title(), folded.swapcase()}
    cases |= {letter for letter, to in _FOLDS.items() if to == folded}
    return tuple(sorted(letter for letter in cases if len(letter) == 1 and fold(letter) == folded))


def words_of(text: str) -> str:
    """Return a text as the grammar spells it: folded, single blanks, no marks around words."""
    text = unicodedata.normalize("NFC", text)
    text = _BLANK.sub(" ", _MARKS_AT_EDGES.sub(" ", text)).strip()
    return "".join(map(fold, text))
