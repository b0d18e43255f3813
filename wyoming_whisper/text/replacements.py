"""--replace: words of a text that the user wants written otherwise.

Whole words, whatever their capitals; in scripts without blanks wherever the letters stand. All at
once, the longest first: what one replacement writes no other one changes.
"""

# ruff: noqa: RUF001  (letters and marks of all scripts)

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import TYPE_CHECKING

from .scripts import UNPARTED

if TYPE_CHECKING:
    from ..settings.replacements import Replacement


class Replacer:
    """Writes texts with the replacements made; equal to one that has the same."""

    APOSTROPHES = "'’"
    LETTER = re.compile(rf"[^\W{UNPARTED}]")  # of scripts with blanks between words
    MARK_IN_NUMBER = re.compile(r"\d[.,:/\u066b]\d")
    GAP = "\0"  # in place of words that are dropped

    def __init__(self, replacements: Iterable[Replacement] = ()) -> None:
        self.replacements = tuple(replacements)
        # What begins with another letter is not even tried: there may be a thousand.
        self._by_letter: dict[str, list[tuple[re.Pattern[str], str]]] = {}
        for one in sorted(self.replacements, key=lambda one: len(one.old), reverse=True):
            patterns = self._by_letter.setdefault(self._first_letter(one.old), [])
            patterns.append((self._pattern(one.old), one.new))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Replacer) and self.replacements == other.replacements

    def __hash__(self) -> int:
        return hash(self.replacements)

    def __call__(self, text: str) -> str:
        """Return the text with every replacement made, with single blanks."""
        if not self._by_letter:
            return text
        text = unicodedata.normalize("NFC", text)
        parts: list[str] = []
        start = place = 0
        while place < len(text):
            end, new = self._match(text, place)
            if end > place:
                parts += [text[start:place], new or self.GAP]
                start = place = end
            else:
                place += 1
        return self._without_gaps("".join([*parts, text[start:]])) if parts else text

    def _match(self, text: str, place: int) -> tuple[int, str]:
        """Return where the words end that begin at a place, and what to write instead."""
        if self._is_within_word(text, place):
            return place, ""
        for pattern, new in self._by_letter.get(self._first_letter(text[place]), ()):
            match = pattern.match(text, place)
            if match and not self._is_within_word(text, match.end()):
                return match.end(), new
        return place, ""

    def _first_letter(self, text: str) -> str:
        letter = text[:1].casefold()[:1]
        return self.APOSTROPHES[0] if letter in self.APOSTROPHES else letter

    def _pattern(self, old: str) -> re.Pattern[str]:
        words = (
            "".join(
                f"[{self.APOSTROPHES}]" if letter in self.APOSTROPHES else re.escape(letter)
                for letter in word
            )
            for word in old.split()
        )
        return re.compile(r"\s+".join(words), re.IGNORECASE)

    def _is_within_word(self, text: str, place: int) -> bool:
        """Whether a place is between two letters of one word, in a script that has blanks.

        A number is one word, with the mark between two of its digits: "5.5", "1/2", "7:30".
        """
        if not 0 < place < len(text):
            return False
        if all(map(self.LETTER.match, text[place - 1 : place + 1])):
            return True
        return bool(self.MARK_IN_NUMBER.match(text, max(place - 2, 0), place + 1)) or bool(
            self.MARK_IN_NUMBER.match(text, place - 1, place + 2)
        )

    def _without_gaps(self, text: str) -> str:
        """Return the text without the commas that stood beside dropped words, and single blanks."""
        gap, marks = self.GAP, r",;:、，；："
        text = re.sub(rf"\A\s*(?:{gap}[\s{marks}.!?…]*)+", "", text)
        text = re.sub(rf"[\s{marks}]*{gap}\s*(?=[.!?…。！？]*\Z)", "", text)
        text = re.sub(rf"[{marks}]?\s*{gap}\s*(?=[{marks}.!?…])", "", text)
        return " ".join(text.replace(gap, " ").split())
