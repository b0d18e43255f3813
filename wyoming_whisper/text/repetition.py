"""Texts that repeat themselves: what Whisper does where it loses its way, and people now and then.

Pure text: knows neither models nor audio, and imports nothing of this package.
"""

from __future__ import annotations

import itertools
import re
import zlib
from collections.abc import Sequence

# A few tokens over and over: too short for zlib to notice, typical of a window cut too tight.
MAX_LOOP_TOKENS = 4
MAX_LOOP_REPEATS = 5

MAX_WORDS = 500  # that repetitions are looked for among: more than one window's tokens

# Words; in scripts without blanks, letters: Thai, Lao, Burmese, Khmer, Japanese, Chinese.
_WORD = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]"
    r"|[^\W_]+(?:['\u2019][^\W_]+)*"
)
_SEPARATORS = (
    " \n\t,;:-\u2013\u2014\u3001\uff0c"  # what may stand between a word and its repetition
)


def words(text: str) -> list[str]:
    """Return the words as they are compared: without case and punctuation."""
    return [match[0].casefold() for match in _WORD.finditer(text)]


def compression_ratio(text: str) -> float:
    """Return how many times smaller zlib makes the text: loops compress well."""
    data = text.encode()
    return len(data) / len(zlib.compress(data))


def loops(tokens: Sequence[int], repeats: int = MAX_LOOP_REPEATS) -> bool:
    """Return whether the text ends in the same few tokens over and over."""
    for size in range(1, MAX_LOOP_TOKENS + 1):
        tail = list(tokens[-size * repeats :])
        if len(tail) == size * repeats and tail == tail[:size] * repeats:
            return True
    return False


def is_doubled(text: str) -> bool:
    """Return whether the text is one phrase written over again: what a window cut short often does.

    People do say a thing twice; then the full window says so, too.
    """
    letters = "".join(re.findall(r"\w", text.casefold()))
    return re.fullmatch(r"(.{4,}?)\1+", letters) is not None


def said_once(text: str) -> str:
    """Return the text with every phrase that follows itself written once.

    Longer texts are gone through in steps, so that only what repeats itself within MAX_WORDS words
    is noticed; what comes after `max_steps` of them stays as it is.

    >>> said_once("Thank you. Thank you. Bye."), said_once("no, no, no")
    ('Thank you. Bye.', 'no')
    """
    max_steps = 8  # of half as many words each, in which longer texts are gone through
    starts = [match.start() for match in _WORD.finditer(text)]
    if len(starts) <= MAX_WORDS:
        return _said_once(text)
    size = MAX_WORDS // 2
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
        text = before + text[places[last] :] if last < len(places) else before.rstrip(_SEPARATORS)
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
