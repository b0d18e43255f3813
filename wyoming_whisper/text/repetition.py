"""Texts that repeat themselves: what Whisper does where it loses its way, and people now and then.

Pure text: knows neither models nor audio.
"""

from __future__ import annotations

import itertools
import re
import zlib
from collections.abc import Sequence

from .scripts import UNPARTED

# Words; in scripts without blanks, letters.
_WORD = re.compile(rf"[{UNPARTED}]|[^\W_]+(?:['\u2019][^\W_]+)*")


def words(text: str) -> list[str]:
    """Return the words as they are compared: without case and punctuation."""
    return [match[0].casefold() for match in _WORD.finditer(text)]


def compression_ratio(text: str) -> float:
    """Return how many times smaller zlib makes the text: loops compress well."""
    data = text.encode()
    return len(data) / len(zlib.compress(data))


def loops(tokens: Sequence[int], repeats: int = 5, max_size: int = 4) -> bool:
    """Return whether the text ends in the same few tokens over and over.

    That is too short for zlib to notice, and typical of a window cut too tight.
    """
    for size in range(1, max_size + 1):
        tail = list(tokens[-size * repeats :])
        if len(tail) == size * repeats and tail == tail[:size] * repeats:
            return True
    return False


def said_once(text: str, max_words: int = 500, max_steps: int = 8) -> str:
    """Return the text with every phrase that follows itself written once.

    Longer texts are gone through in steps, so that only what repeats itself within `max_words`
    words, which no window's text has, is noticed; what comes after `max_steps` of them stays.

    >>> said_once("Thank you. Thank you. Bye."), said_once("no, no, no")
    ('Thank you. Bye.', 'no')
    """
    starts = [match.start() for match in _WORD.finditer(text)]
    if len(starts) <= max_words:
        return _said_once(text)
    size = max_words // 2
    bounds = [0, *starts[size : max_steps * size + 1 : size], len(text)]
    steps = [text[start:end] for start, end in itertools.pairwise(bounds)]
    settled, last = "", ""
    for step in steps[:max_steps]:
        if len(words(last)) > size:
            settled, last = settled + last, ""
        last = _said_once(_joined(last, step))
    return _joined(settled + last, "".join(steps[max_steps:]))


def _joined(text: str, rest: str) -> str:
    return f"{text} {rest}" if text and rest and not text[-1].isspace() else text + rest


def _said_once(text: str) -> str:
    while (repetition := _longest_repetition(words(text))) is not None:
        first, last = repetition
        places = [match.start() for match in _WORD.finditer(text)]
        before = text[: places[first]]
        if last < len(places):
            text = before + text[places[last] :]
        else:  # without what may stand between a word and its repetition
            text = before.rstrip(" \n\t,;:-\u2013\u2014\u3001\uff0c")
    return text


def _longest_repetition(units: Sequence[str]) -> tuple[int, int] | None:
    """Return (first, last + 1) of what only repeats the phrase before it, or None.

    A loop that is broken off, within a word even, is one to its end.
    """
    n_units = len(units)
    best: tuple[int, int] | None = None
    for size in range(1, n_units // 2 + 1):
        run = 0
        for at in range(size, n_units + 1):
            if at < n_units and _is_again(units, at, size):
                run += 1
                continue
            length = run if at == n_units else run - run % size
            if run >= size and (best is None or length > best[1] - best[0]):
                best = (at - run, at - run + length)
            run = 0
    return best


def _is_again(units: Sequence[str], at: int, size: int) -> bool:
    is_last = at == len(units) - 1
    before = units[at - size]
    return before.startswith(units[at]) if is_last and at >= 2 * size else before == units[at]
