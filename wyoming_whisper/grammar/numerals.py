"""Numbers of a range as people say and Whisper writes them: digits, and words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .letters import words_of

MAX_NUMBERS = 2_000
_FRACTIONS = {"halves": (0, 0.5), "tenths": tuple(tenth / 10 for tenth in range(10))}


def numerals(its: Mapping[str, Any], language: str) -> list[str]:
    """Return all numbers of a list's `range`, folded. At most MAX_NUMBERS numbers are taken."""
    texts: dict[str, None] = {}
    as_words = (
        _words(str(its.get("words_language") or language)) if its.get("words", True) else None
    )
    for number in _numbers(its):
        if its.get("digits", True):
            texts[f"{number:g}" if number < 1e6 else str(int(number))] = None
            if number % 1:
                texts[f"{number:g}".replace(".", ",")] = None
        for words in as_words(number) if as_words else ():
            texts[words] = None
    return [text for text in texts if text]


def _numbers(its: Mapping[str, Any]) -> Iterator[float]:
    start, stop, step = int(its["from"]), int(its["to"]), max(int(its.get("step", 1)), 1)
    fractions = _FRACTIONS.get(str(its.get("fractions")), (0,))
    for whole in range(start, stop + 1, step)[: MAX_NUMBERS // len(fractions)]:
        for fraction in fractions:
            yield whole + fraction


def _words(language: str) -> Callable[[float], Iterator[str]] | None:
    """Return what spells a number in a language; None where nobody knows how."""
    from hassil.numbers import get_rbnf_engine

    try:
        engine = get_rbnf_engine(language)
        engine.format_number(0)  # Bokmål is one that it has without any rules
    except ValueError:
        return None

    def words(number: float) -> Iterator[str]:
        for text in engine.format_number(
            int(number) if number % 1 == 0 else number
        ).text_by_ruleset.values():
            for spelling in (text, text.replace("ß", "ss"), text.replace("-", " ")):
                yield words_of(spelling)

    return words
