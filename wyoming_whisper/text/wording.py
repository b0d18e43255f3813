"""A command's text in the words of Home Assistant's sentences: no "uh" at its start, no "½ hour".

Texts in languages without a file in `languages/` stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache

from ..languages.words import LanguageWords, language_words
from .measures import Measures, words_pattern


def reworded(
    text: str, language: str | None, names: Iterable[str] = (), max_length: int = 1000
) -> str:
    """Return a command as Home Assistant's sentences have it; `language` is Whisper's code.

    `names` are the home's: a word that one of them begins with is no filler. A text of more
    characters than `max_length` is no command.
    """
    wording = _wording(language)
    if wording is None or len(text) > max_length:
        return text
    names = tuple(names)
    text = wording.without_fillers(text, names)
    return text if _names_change(text, names, wording) else wording.measures.rewritten(text)


def is_filler(text: str, language: str | None) -> bool:
    """Return whether the text has nothing but fillers so far: what follows may begin the text."""
    wording = _wording(language)
    return wording is not None and wording.is_filler(text)


class _Wording:
    """What one language's file says."""

    def __init__(self, words: LanguageWords) -> None:
        fillers = _drawn_out(words["fillers"])
        # A hyphen or an apostrophe makes it part of a word: "uh-huh".
        self._filler = re.compile(rf"\W*(?P<word>{fillers})(?!['’-]?\w)(?P<end>\W*)", re.IGNORECASE)  # noqa: RUF001
        self.measures = Measures(words["measures"])

    def without_fillers(self, text: str, names: Iterable[str] = ()) -> str:
        """Return the text without fillers at its start, unless nothing else is in it."""
        rest = text
        while (filler := self._filler.match(rest)) and not (
            _is_word(filler) or _begins_with(rest, names)
        ):
            rest = rest[filler.end() :]
        if rest == text or not any(letter.isalnum() for letter in rest):
            return text
        word = rest.split(maxsplit=1)[0]
        is_capital = text.lstrip()[:1].isupper()
        return rest[:1].upper() + rest[1:] if is_capital and word.islower() else rest

    def is_filler(self, text: str) -> bool:
        while filler := self._filler.match(text):
            text = text[filler.end() :]
        return not any(letter.isalnum() for letter in text)


@cache
def _wording(language: str | None) -> _Wording | None:
    words = language_words(language)
    return _Wording(words) if words else None


def _drawn_out(fillers: Sequence[str]) -> str:
    """Return a pattern of fillers, each letter as long as it may be: "uhhh", "äääh"."""
    return "|".join("".join(f"{re.escape(letter)}+" for letter in filler) for filler in fillers)


def _is_word(filler: re.Match[str]) -> bool:
    """Whether it may be a word or a name: "ER", and "oh" or "ah" without a mark behind it."""
    word = filler["word"]
    is_exclamation = re.fullmatch("o+h+|a+h+", word, re.IGNORECASE)
    return (len(word) > 1 and word.isupper()) or bool(is_exclamation and filler["end"].isspace())


def _names_change(text: str, names: Iterable[str], wording: _Wording) -> bool:
    """Whether one of the names is in the text, and no longer once it is rewritten."""
    rewritten = wording.measures.rewritten(text)
    if rewritten == text:
        return False
    patterns = (rf"(?<!\w){words_pattern([name])}(?!\w)" for name in names)
    return any(
        re.search(pattern, text, re.IGNORECASE) and not re.search(pattern, rewritten, re.IGNORECASE)
        for pattern in patterns
    )


def _begins_with(text: str, names: Iterable[str]) -> bool:
    """Whether the text begins with one of the names, whole words of it."""
    return any(
        re.match(rf"\W*{words_pattern([name])}(?!\w)", text, re.IGNORECASE) for name in names
    )
