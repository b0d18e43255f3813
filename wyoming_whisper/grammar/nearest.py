"""Sentences of a home that are spelled much like what was written: the ones that may be meant.

Tried before a search of the audio, and all there is for runtimes that can score a sentence, but
not be kept inside a grammar. A beam over the automaton and the text together, by edit distance;
letters that sound alike cost less.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import NamedTuple

from .letters import words_of
from .positions import REFUSED, Letters, is_spoken


class _Ways(NamedTuple):
    """The cheapest ways into some states."""

    costs: dict[int, float]
    sentences: dict[int, str]
    """What was read on the way to each of these states; there may be others."""


class Nearest:
    """Finds sentences by their spelling. Costs are in letters."""

    MAX_LETTERS = 80
    MAX_STATES = 40
    """Followed from one letter of the text to the next."""
    MAX_BEHIND = 2.2
    """By which a way may cost more than the best one at the same letter."""
    MAX_COST_SHARE = 0.34
    """Of the text's letters: what is less alike was hardly said."""

    MISSING = 0.9
    EXTRA = 0.8
    GAP = 0.3
    FREE = 0.05
    """Of a letter of free text, so that fixed words are preferred."""

    def __init__(self, letters: Letters) -> None:
        self._letters = letters

    def find(
        self, texts: Sequence[str], n_best: int, checkpoint: Callable[[], None] = lambda: None
    ) -> dict[str, float]:
        """Return folded sentences spelled most like one of `texts`, n_best of each, and the costs.

        `checkpoint` is called at every letter; what it raises ends the work.
        """
        costs: dict[str, float] = {}
        start = self._letters.starts[0]
        steps = [_Ways({start: 0.0}, {start: ""})]
        before = ""
        for text in texts:
            spelled = words_of(text)
            if not 0 < len(spelled) <= self.MAX_LETTERS:
                continue
            # Hypotheses begin alike: what was found for the letters that they share holds.
            n_shared = _n_shared(before, spelled)
            del steps[n_shared + 1 :]
            before = spelled[: len(steps) - 1]
            limit = self.MAX_COST_SHARE * len(spelled)
            for letter in spelled[len(before) :]:
                if _least(steps[-1]) > limit:
                    break
                checkpoint()
                steps.append(self._after(steps[-1], letter))
                before += letter
            if before == spelled:
                for cost, sentence in self._ends(steps[-1], limit)[:n_best]:
                    costs[sentence] = min(cost, costs.get(sentence, cost))
        return costs

    def _ends(self, ways: _Ways, limit: float) -> list[tuple[float, str]]:
        """Return (cost, sentence) of those that end here for no more than `limit`, least first."""
        ends: dict[str, float] = {}
        ways = self._with_missing(ways, limit)
        for state, cost in ways.costs.items():
            if cost <= limit and self._letters.is_end(state):
                sentence = ways.sentences[state].strip()
                ends[sentence] = min(cost, ends.get(sentence, cost))
        return sorted((cost, sentence) for sentence, cost in ends.items())

    def _after(self, ways: _Ways, written: str) -> _Ways:
        """Return the cheapest states after one letter of the text, in order of their costs.

        The cheapest ways go first: what costs more than all that would be kept is not followed.
        """
        extra = self.GAP if written in " -'" else self.EXTRA
        bound = self._bound_after(ways, written, extra)
        above, differences = math.nextafter(bound, math.inf), _Differences.from_letter(written)
        spoken = self._letters.spoken
        costs: dict[int, float] = {}
        sentences: dict[int, str] = {}
        ways = self._with_missing(ways, bound)
        for state, cost in ways.costs.items():
            sentence = ways.sentences[state]
            if cost + extra < costs.get(state, above):
                costs[state], sentences[state] = cost + extra, sentence
            letters, other = spoken[state]
            if cost + _Differences.SOUNDING_ALIKE <= bound:
                for letter, target in letters.items():
                    total = cost + differences[letter]
                    if total < costs.get(target, above):
                        costs[target], sentences[target] = total, sentence + letter
            elif written in letters and cost < costs.get(target := letters[written], above):
                costs[target], sentences[target] = cost, sentence + written
            free = cost + self.FREE
            if (
                other != REFUSED
                and free < costs.get(other, above)
                and self._is_free(state, written)
            ):
                costs[other], sentences[other] = free, sentence + written
        return _Ways(self._cheapest(costs), sentences)

    def _cheapest(self, costs: dict[int, float]) -> dict[int, float]:
        """Return the states that are followed, and what they cost."""
        ranked = sorted(costs.items(), key=itemgetter(1))[: self.MAX_STATES]
        limit = ranked[0][1] + self.MAX_BEHIND if ranked else 0.0
        return {state: cost for state, cost in ranked if cost <= limit}

    def _is_free(self, state: int, written: str) -> bool:
        """Return whether a letter is one of free text in a state that has some."""
        if is_spoken(written):
            return written != " " and written not in self._letters.spoken[state][0]
        return written not in self._letters.following[state][0]

    def _bound_after(self, ways: _Ways, written: str, extra: float) -> float:
        """Return the cost above which no way is kept after one more letter.

        It is that of the ways that have the letter itself, or where it is one too many.
        """
        spoken = self._letters.spoken
        costs: dict[int, float] = {}
        for state, cost in ways.costs.items():
            if cost + extra < costs.get(state, math.inf):
                costs[state] = cost + extra
            letters, other = spoken[state]
            if written in letters:
                target = letters[written]
            elif other != REFUSED and self._is_free(state, written):
                target, cost = other, cost + self.FREE
            else:
                continue
            if cost < costs.get(target, math.inf):
                costs[target] = cost
        ranked = sorted(costs.values())[: self.MAX_STATES]
        if not ranked:
            return math.inf
        behind = ranked[0] + self.MAX_BEHIND
        return min(behind, ranked[-1]) if len(ranked) == self.MAX_STATES else behind

    def _with_missing(self, ways: _Ways, bound: float) -> _Ways:
        """Return the ways, and those with one or two letters more that the text lacks."""
        limit = min(bound, _least(ways) + self.MAX_BEHIND)
        above, spoken = math.nextafter(limit, math.inf), self._letters.spoken
        costs, sentences = ways.costs.copy(), ways.sentences.copy()
        todo = ways
        for _ in range(2):
            following: dict[int, float] = {}
            for state, cost in todo.costs.items():
                if cost + self.GAP > limit:
                    continue
                letters, sentence = spoken[state][0], todo.sentences[state]
                if cost + self.MISSING <= limit:
                    for letter, target in letters.items():
                        total = cost + (self.GAP if letter == " " else self.MISSING)
                        if total < costs.get(target, above):
                            costs[target] = following[target] = total
                            sentences[target] = sentence + letter
                elif " " in letters and cost + self.GAP < costs.get(target := letters[" "], above):
                    costs[target] = following[target] = cost + self.GAP
                    sentences[target] = sentence + " "
            todo = _Ways(following, sentences.copy())
        return _Ways(costs, sentences)


def _n_shared(one: str, other: str) -> int:
    """Return how many letters two texts begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def _least(ways: _Ways) -> float:
    return min(ways.costs.values(), default=math.inf)


class _Differences(dict[str, float]):
    """What it costs to read a letter that was written for another one, by that one."""

    ALIKE = ("aeiouy", "bp", "dt", "gkcqx", "fvw", "szcx", "mn", "lr", "jiy")

    SOUNDING_ALIKE = 0.4

    def __init__(self, written: str) -> None:
        self._written = written

    @classmethod
    @lru_cache(maxsize=1_000)
    def from_letter(cls, written: str) -> _Differences:
        """Return those of a letter; kept."""
        return cls(written)

    def __missing__(self, letter: str) -> float:
        self[letter] = difference = self._difference(letter)
        return difference

    def _difference(self, letter: str) -> float:
        if self._written == letter:
            return 0.0
        if " " in (self._written, letter):
            return 1.3
        one, other = (unicodedata.normalize("NFD", c)[0] for c in (self._written, letter))
        alike = one == other or any(one in sounds and other in sounds for sounds in self.ALIKE)
        return self.SOUNDING_ALIKE if alike else 1.0
