"""Word errors between what was said and what was written."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from rapidfuzz.distance import Levenshtein


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


def normalised(text: str, language: str = "") -> list[str]:
    """Return the words that are compared, the same way whoever wrote the text.

    1. NFKC, small letters (casefold), every kind of apostrophe as ', no dots on the Russian e.
    2. What is no letter, accent or digit parts words; an apostrophe inside a word stays.
    3. Digits become the words of `language`, where its numbers are known ("21" is "twenty one").
    4. In scripts that put no blanks between words, each character is a word.

    Words are not translated otherwise: "%" is dropped, "what's" is not "what is".
    """
    text = unicodedata.normalize("NFKC", text.translate(_APOSTROPHES)).casefold()
    text = unicodedata.normalize("NFKC", text).translate(_LETTERS)
    text = _DIGITS.sub(lambda found: f" {spelled(int(found[0]), language)} ", text)
    text = "".join(char if _is_kept(char) else " " for char in text)
    words = (word.strip("'") for word in text.split())
    return [part for word in words for part in _parts(word)]


_APOSTROPHES = str.maketrans(dict.fromkeys("’‘ʼ´`＇", "'"))  # noqa: RUF001
_LETTERS = str.maketrans({"ё": "е"})  # noqa: RUF001  (people write either)
_DIGITS = re.compile(r"\d{1,9}")  # more is nothing that is said as one number
_NO_BLANKS = ("CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")


def _is_kept(char: str) -> bool:
    return char == "'" or unicodedata.category(char)[0] in "LMN"


def _parts(word: str) -> Iterator[str]:
    """Return a word, or each of its characters, with their marks, where none stand apart."""
    run = ""
    for char in word:
        if unicodedata.category(char)[0] == "M":
            run += char
            continue
        if run and (_stands_alone(char) or _stands_alone(run[0])):
            yield run
            run = ""
        run += char
    if run:
        yield run


def _stands_alone(char: str) -> bool:
    return unicodedata.name(char, "").startswith(_NO_BLANKS)


@cache
def spelled(value: int, language: str) -> str:
    """Return a number in words; in digits where nobody knows the words of the language."""
    engine = _numbers(language)
    if engine is None:
        return str(value)
    text = str(engine.format_number(value).text)
    # Soft hyphens show where a German number may be broken; a word it is all the same.
    return "".join(char for char in text if unicodedata.category(char) != "Cf")


@cache
def _numbers(language: str) -> Any:
    """Return what spells the numbers of a language; None where nobody knows them."""
    from unicode_rbnf import RbnfEngine

    known = language in RbnfEngine.get_supported_languages()
    return RbnfEngine.for_language(language) if known else None


def word_errors(reference: str, written: str, language: str = "") -> WordErrors:
    """Return the fewest edits that make `written` of `reference`."""
    words = normalised(reference, language)
    edits = Counter(edit.tag for edit in Levenshtein.editops(words, normalised(written, language)))
    return WordErrors(edits["replace"], edits["delete"], edits["insert"], len(words))


@dataclass(frozen=True)
class Paired:
    """One transcriber beside another on the same recordings."""

    better: int
    """Recordings with fewer word errors than the other's."""

    worse: int
    points: float
    """Difference of the word error rates: above 0 is worse than the other."""

    low: float
    high: float
    """Where the difference lies for 95 % of the draws of as many recordings (bootstrap)."""


RESAMPLES = 2000


def paired(one: Sequence[WordErrors], other: Sequence[WordErrors]) -> Paired:
    """Compare word errors of the same recordings, in the same order; each has words."""
    ours = np.array([errors.errors for errors in one], dtype=np.float64)
    theirs = np.array([errors.errors for errors in other], dtype=np.float64)
    words = np.array([errors.words for errors in other], dtype=np.float64)
    if len(ours) != len(theirs) or not words.sum():
        raise ValueError("paired needs the same recordings, with words")
    apart = ours - theirs
    drawn = np.random.default_rng(0).integers(len(words), size=(RESAMPLES, len(words)))
    rates = 100 * apart[drawn].sum(axis=1) / np.maximum(words[drawn].sum(axis=1), 1)
    low, high = np.percentile(rates, [2.5, 97.5])
    return Paired(
        better=int(np.count_nonzero(apart < 0)),
        worse=int(np.count_nonzero(apart > 0)),
        points=float(100 * apart.sum() / words.sum()),
        low=float(low),
        high=float(high),
    )
