"""--replace: words of a text that the user wants written otherwise.

Whole words, whatever their capitals; in scripts without blanks wherever the letters stand. All at
once, the longest first: what one replacement writes no other one changes.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..settings.text_files import read_text_file
from .scripts import UNPARTED

MAX_REPLACEMENTS = 1000
MAX_LENGTH = 200  # characters, of either side

_LETTER = re.compile(rf"[^\W{UNPARTED}]")  # of scripts with blanks between words
_MARK_IN_NUMBER = re.compile(r"\d[.,:/\u066b]\d")
_APOSTROPHES = "'’"  # noqa: RUF001


@dataclass(frozen=True)
class Replacement:
    """What is written instead of what; an empty `new` drops the words."""

    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.old}={self.new}"


# -- reading -------------------------------------------------------------------------------


def read_replacements(items: Sequence[str]) -> tuple[Replacement, ...]:
    """Return the replacements of items FROM=TO and @FILE; of two for the same words the last.

    Raises ValueError, which says what is wrong and in which line of which file.
    """
    found: dict[str, Replacement] = {}
    for item in items:
        lines = _of_file(item[1:]) if _is_file(item) else [read_replacement(item)]
        for one in lines:
            found[one.old.casefold()] = one
            if len(found) > MAX_REPLACEMENTS:
                raise ValueError(f"there may be {MAX_REPLACEMENTS} of them at most")
    return tuple(found.values())


def read_replacement(line: str) -> Replacement:
    r"""Return what FROM=TO says; \= is a sign of equality, \\ a backslash, \# and \@ those signs.

    Raises ValueError.
    """
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
        raise ValueError(f"{line!r} must be FROM=TO, the words to be replaced and what to write")
    if max(map(len, sides)) > MAX_LENGTH:
        raise ValueError(f"{line[:20]!r}... is longer than {MAX_LENGTH} characters on one side")
    return Replacement(*sides)


def _is_file(item: str) -> bool:
    return item.startswith("@") and "=" not in item


def _of_file(name: str) -> list[Replacement]:
    """Return what a file's lines say; empty ones and those with # at their start say nothing."""
    if not name.strip():
        raise ValueError("@ must be followed by a file's name, such as @replacements.txt")
    try:
        path = Path(name).expanduser()
    except RuntimeError:
        raise ValueError(f"{name} can't be read (there is no such home folder)") from None
    text = read_text_file(path, plain_only=True)
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            try:
                found.append(read_replacement(line))
            except ValueError as error:
                raise ValueError(f"in line {number} of {name} {error}") from None
    return found


# -- replacing -----------------------------------------------------------------------------


class Replacer:
    """Writes texts with the replacements made; equal to one that has the same."""

    def __init__(self, replacements: Iterable[Replacement] = ()) -> None:
        self.replacements = tuple(replacements)
        # What begins with another letter is not even tried: there may be a thousand.
        self._by_letter: dict[str, list[tuple[re.Pattern[str], str]]] = {}
        for one in sorted(self.replacements, key=lambda one: len(one.old), reverse=True):
            self._by_letter.setdefault(_first(one.old), []).append((_pattern(one.old), one.new))

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
                parts += [text[start:place], new or _GAP]
                start = place = end
            else:
                place += 1
        return _without_gaps("".join([*parts, text[start:]])) if parts else text

    def _match(self, text: str, place: int) -> tuple[int, str]:
        """Return where the words end that begin at a place, and what to write instead."""
        if _is_within_word(text, place):
            return place, ""
        for pattern, new in self._by_letter.get(_first(text[place]), ()):
            match = pattern.match(text, place)
            if match and not _is_within_word(text, match.end()):
                return match.end(), new
        return place, ""


def _first(text: str) -> str:
    letter = text[:1].casefold()[:1]
    return _APOSTROPHES[0] if letter in _APOSTROPHES else letter


NO_REPLACEMENTS = Replacer()

_GAP = "\0"  # in place of words that are dropped


def _pattern(old: str) -> re.Pattern[str]:
    words = (
        "".join(f"[{_APOSTROPHES}]" if c in _APOSTROPHES else re.escape(c) for c in word)
        for word in old.split()
    )
    return re.compile(r"\s+".join(words), re.IGNORECASE)


def _is_within_word(text: str, place: int) -> bool:
    """Whether a place is between two letters of one word, in a script that has blanks.

    A number is one word, with the mark between two of its digits: "5.5", "1/2", "7:30".
    """
    if not 0 < place < len(text):
        return False
    if all(map(_LETTER.match, text[place - 1 : place + 1])):
        return True
    return bool(_MARK_IN_NUMBER.match(text, max(place - 2, 0), place + 1)) or bool(
        _MARK_IN_NUMBER.match(text, place - 1, place + 2)
    )


def _without_gaps(text: str) -> str:
    """Return the text without the commas that stood beside dropped words, and single blanks."""
    marks = r",;:、，；："  # noqa: RUF001
    text = re.sub(rf"\A\s*(?:{_GAP}[\s{marks}.!?…]*)+", "", text)
    text = re.sub(rf"[\s{marks}]*{_GAP}\s*(?=[.!?…。！？]*\Z)", "", text)  # noqa: RUF001
    text = re.sub(rf"[{marks}]?\s*{_GAP}\s*(?=[{marks}.!?…])", "", text)
    return " ".join(text.replace(_GAP, " ").split())
