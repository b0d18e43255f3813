"""--replace: words of a text that the user wants written otherwise."""

# ruff: noqa: RUF001  (letters and marks of all scripts)

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from ..machine.files import read_text_file
from .scripts import UNPARTED


class Replacements(tuple[tuple[str, str], ...]):
    """Pairs of words and what is written instead, empty where they are dropped.

    Whole words, whatever their capitals; in scripts without blanks wherever the letters stand. All
    at once, the longest first: what one replacement writes no other one changes.
    """

    MAX_LENGTH = 200  # characters, of either side
    MAX_REPLACEMENTS = 1000
    APOSTROPHES = "'’"
    LETTERS = rf"[^\W{UNPARTED}]{{2}}"  # of scripts with blanks between words
    MARK_IN_NUMBER = re.compile(r"\d[.,:/\u066b]\d")
    GAP = "\0"  # in place of words that are dropped

    @classmethod
    def read(cls, items: Sequence[str]) -> Replacements:
        r"""Return the replacements of items FROM=TO and @FILE; of two for the same words the last.

        \= is an equals sign, \\ a backslash, \# and \@ those signs. Raises ValueError, which says
        what is wrong and in which line of which file.
        """
        replacements: dict[str, tuple[str, str]] = {}
        for item in items:
            is_file = item.startswith("@") and "=" not in item
            for old, new in cls._of_file(item[1:]) if is_file else [cls._sides(item)]:
                replacements[old.casefold()] = old, new
                if len(replacements) > cls.MAX_REPLACEMENTS:
                    raise ValueError(f"there may be {cls.MAX_REPLACEMENTS} of them at most")
        return cls(replacements.values())

    @classmethod
    def _of_file(cls, name: str) -> list[tuple[str, str]]:
        """Return what a file's lines say; empty ones, and those that begin with #, say nothing."""
        if not name.strip():
            raise ValueError("@ must be followed by a file's name, such as @replacements.txt")
        try:
            path = Path(name).expanduser()
        except RuntimeError:
            raise ValueError(f"{name} can't be read (there is no such home folder)") from None
        replacements = []
        for number, line in enumerate(read_text_file(path, plain_only=True).splitlines(), 1):
            if line.strip() and not line.lstrip().startswith("#"):
                try:
                    replacements.append(cls._sides(line))
                except ValueError as error:
                    raise ValueError(f"in line {number} of {name} {error}") from None
        return replacements

    @classmethod
    def _sides(cls, line: str) -> tuple[str, str]:
        sides = [""]
        signs = iter(unicodedata.normalize("NFC", line))
        for sign in signs:
            if sign == "\\":
                escaped = next(signs, "")
                if not escaped or escaped not in "=\\#@":
                    raise ValueError(rf"{line!r} has a backslash before none of = \ # @")
                sides[-1] += escaped
            elif sign == "=" and len(sides) == 1:
                sides.append("")
            elif sign == "=":
                raise ValueError(rf"{line!r} has more than one =; one that is meant is written \=")
            else:
                sides[-1] += sign
        sides = [" ".join(side.split()) for side in sides]
        if len(sides) == 1 or not sides[0]:
            raise ValueError(
                f"{line!r} must be FROM=TO, the words to be replaced and what to write"
            )
        if max(map(len, sides)) > cls.MAX_LENGTH:
            raise ValueError(
                f"{line[:20]!r}... is longer than {cls.MAX_LENGTH} characters on one side"
            )
        return sides[0], sides[1]

    def __call__(self, text: str) -> str:
        """Return the text with every replacement made, with single blanks."""
        if not self:
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

    @cached_property
    def _by_letter(self) -> dict[str, list[tuple[re.Pattern[str], str]]]:
        # What begins with another letter is not even tried: there may be a thousand.
        by_letter: dict[str, list[tuple[re.Pattern[str], str]]] = {}
        for old, new in sorted(self, key=lambda pair: len(pair[0]), reverse=True):
            patterns = by_letter.setdefault(self._first_letter(old), [])
            patterns.append((self._pattern(old), new))
        return by_letter

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
        if re.fullmatch(self.LETTERS, text[place - 1 : place + 1]):
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
