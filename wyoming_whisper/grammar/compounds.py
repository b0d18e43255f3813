"""Names of the home that were written as several words: "Garage Licht" for Garagenlicht.

Nobody hears the difference, and Home Assistant takes the words for an area and a kind of device.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .letters import CLOSING, words_of

LINKS = ("", "n", "en", "s", "es", "e", "er")
"""What may stand between the parts of a compound in Germanic languages."""


class Compounds:
    """Names of one word or more, found again where they were written with other blanks."""

    MIN_LETTERS = 6
    """Of a name; shorter ones are too like parts of sentences."""

    MAX_PARTS = 4

    def __init__(self, names: Iterable[str], *, links: bool) -> None:
        self._names: dict[str, str] = {}
        for name in names:
            letters = _letters(name)
            if len(letters) >= self.MIN_LETTERS:
                self._names.setdefault(letters, name)
        self._links = LINKS if links else LINKS[:1]

    def joined(self, text: str) -> Iterator[str]:
        """Yield the text with one of the names in place of its parts, for each that there is."""
        words = text.split()
        for start in range(len(words)):
            for end in range(start + 2, min(start + self.MAX_PARTS, len(words)) + 1):
                parts = words[start:end]
                name = self._name_of(parts)
                if name and words_of(name) != words_of(" ".join(parts)):
                    marks = parts[-1][len(parts[-1].rstrip(CLOSING)) :]
                    yield " ".join([*words[:start], name + marks, *words[end:]])

    def _name_of(self, parts: list[str]) -> str | None:
        spelled = [_letters(part) for part in parts]
        if not all(spelled):
            return None
        for link in self._links:
            if name := self._names.get(link.join(spelled)):
                return name
        return None


def _letters(text: str) -> str:
    return "".join(letter for letter in words_of(text) if letter.isalnum())
