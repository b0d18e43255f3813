"""When each word was said: text tokens aligned with the audio by the decoder's attention to it.

Some heads of the cross-attention look at where the token to come is spoken. Their weights are
smoothed, and the cheapest path that goes through all tokens in order says where each begins (the
method of openai/whisper, timing.py). Numpy only; the weights are a runtime's.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..transcriber import Word
from .audio import FRAMES_PER_POSITION, FRAMES_PER_SECOND, Array
from .tokenizer import Tokenizer

# -- from attention to positions -----------------------------------------------------------


def first_positions(weights: Array, rows: slice = slice(None)) -> list[int]:
    """Return at which position each of `rows` begins on the cheapest path through all of them.

    `weights`, shape = (n_heads, n_tokens, n_positions), are the attention of each token, which is
    that of the one to come. Those of all tokens say how much of it is the position's own.
    """
    spread = weights.std(axis=1, keepdims=True)
    even = (weights - weights.mean(axis=1, keepdims=True)) / np.maximum(spread, 1e-10)
    return _cheapest_path(-_median_filtered(even[:, rows]).mean(axis=0))


def _median_filtered(values: Array, width: int = 7) -> Array:
    """Return the medians of so many neighbours along the last axis, which ends in its reflection.

    `width` is openai/whisper's. What is shorter than half of it is left as it is.
    """
    half = width // 2
    if values.shape[-1] <= half:
        return values
    padded = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(half, half)], mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, width, axis=-1)
    return np.asarray(np.median(windows, axis=-1), values.dtype)


def _cheapest_path(costs: Array) -> list[int]:
    """Return the first column of each row on the cheapest path from one corner to the other.

    `costs`, shape = (n_rows, n_columns); a step goes to the next row, the next column, or both
    (dynamic time warping).
    """
    n_rows, n_columns = costs.shape
    totals = np.full((n_rows + 1, n_columns + 1), np.inf)
    totals[0, 0] = 0.0
    for row in range(n_rows):
        above = np.minimum(totals[row, :-1], totals[row, 1:])
        # Along a row each total is the least of all ways to enter it, and what lies between.
        along = np.cumsum(costs[row], dtype=np.float64)
        before = np.concatenate([[0.0], along[:-1]])
        totals[row + 1, 1:] = along + np.minimum.accumulate(above - before)
    row, column = n_rows, n_columns
    firsts = [0] * row
    while row > 0:
        firsts[row - 1] = column - 1
        steps = ((row - 1, column - 1), (row - 1, column), (row, column - 1))
        row, column = min(steps, key=lambda step: totals[step])
    return firsts


# -- from tokens to words ------------------------------------------------------------------


@dataclass(frozen=True)
class _Unit:
    """The fewest tokens that are whole characters."""

    text: str
    first: int
    end: int
    """Indices of tokens."""

    @property
    def is_spoken(self) -> bool:
        return any(_is_spoken(letter) for letter in self.text)


def timed_words(
    tokens: Sequence[int],
    positions: Sequence[int],
    tokenizer: Tokenizer,
    language: str | None,
    mel: Array,
) -> list[Word]:
    """Return the words of text tokens that begin, and end, at these positions of the window.

    `positions`, shape = (n_tokens + 1,); `mel`, shape = (n_mels, n_frames), is what they were heard
    in. Punctuation is left out, with the time it takes, and so are pauses.
    """
    seconds = FRAMES_PER_POSITION / FRAMES_PER_SECOND
    words = []
    for units in _by_word(_units(tokens, tokenizer), language):
        spoken = [unit for unit in units if unit.is_spoken]
        if spoken:
            start, end = positions[spoken[0].first], positions[spoken[-1].end]
            text = "".join(unit.text for unit in units)
            letters = [i for i, letter in enumerate(text) if _is_spoken(letter)]
            bare = text[letters[0] : letters[-1] + 1]  # of blanks and punctuation at its ends
            words.append(Word(start * seconds, end * seconds, bare))
    return _without_pauses(words, mel)


def _units(tokens: Sequence[int], tokenizer: Tokenizer) -> Iterable[_Unit]:
    unfinished = "\N{REPLACEMENT CHARACTER}"  # of a character whose bytes are several tokens
    first = 0
    for end in range(1, len(tokens) + 1):
        text = tokenizer.decode(tokens[first:end])
        if unfinished not in text or end == len(tokens):
            yield _Unit(text, first, end)
            first = end


def _by_word(units: Iterable[_Unit], language: str | None) -> list[list[_Unit]]:
    # Languages whose words are not parted by blanks: each character counts (openai/whisper).
    without_blanks = ("zh", "ja", "th", "lo", "my", "yue")
    words: list[list[_Unit]] = []
    for unit in units:
        begins = unit.text[:1].isspace() or not words
        if not begins and language in without_blanks:
            begins = not (unit.text.isascii() and words[-1][-1].text.isascii())
        if begins:
            words.append([])
        words[-1].append(unit)
    return words


def _is_spoken(letter: str) -> bool:
    read_out = "%&#@*/§"  # punctuation to Unicode
    is_mark = unicodedata.category(letter).startswith("P") and letter not in read_out
    return not (is_mark or letter.isspace())


# -- pauses --------------------------------------------------------------------------------


def _without_pauses(words: Sequence[Word], mel: Array) -> list[Word]:
    """Return the words without the pauses before, after or within them.

    A pause without punctuation is
    in no token's own time: the path gives it to one of its neighbours, and the beginning to the
    first.
    """
    # Between the quietest and the loudest of a window, what is below this share is a pause.
    quiet_share = 0.2
    loudness = mel.mean(axis=0)
    if not len(loudness):
        return list(words)
    low, high = np.quantile(loudness, (0.02, 0.98))
    loud = loudness > low + quiet_share * (high - low)
    return [_without_pause(word, loud) for word in words]


def _without_pause(word: Word, loud: npt.NDArray[np.bool_]) -> Word:
    min_word_frames = 4
    pause_frames = 25  # longer than a consonant's stop
    first, end = (round(at * FRAMES_PER_SECOND) for at in (word.start, word.end))
    sounds = first + np.flatnonzero(loud[first:end])
    if not len(sounds):
        return word
    parts = np.split(sounds, np.flatnonzero(np.diff(sounds) > pause_frames) + 1)
    # The path leaves a word early rather than late: what precedes a pause is the word's before.
    longest = max(map(len, parts))
    kept = next(part for part in reversed(parts) if 4 * len(part) >= longest)
    start = int(kept[0])
    end = max(int(kept[-1]) + 1, min(start + min_word_frames, end))
    return Word(start / FRAMES_PER_SECOND, end / FRAMES_PER_SECOND, word.text)
