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

from .letters import words_of
from .positions import REFUSED, Letters

Frontier = dict[int, tuple[float, str]]
"""By state: the least cost of coming there, and the sentence that has it."""


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
        frontiers: list[Frontier] = [{self._letters.starts[0]: (0.0, "")}]
        before = ""
        for text in texts:
            spelled = words_of(text)
            if not 0 < len(spelled) <= self.MAX_LETTERS:
                continue
            # Hypotheses begin alike: what was found for the letters that they share holds.
            n_shared = _n_shared(before, spelled)
            del frontiers[n_shared + 1 :]
            before = spelled[: len(frontiers) - 1]
            limit = self.MAX_COST_SHARE * len(spelled)
            for letter in spelled[len(before) :]:
                if _least(frontiers[-1]) > limit:
                    break
                checkpoint()
                frontiers.append(self._after(frontiers[-1], letter))
                before += letter
            if before == spelled:
                for cost, sentence in self._ends(frontiers[-1], limit)[:n_best]:
                    costs[sentence] = min(cost, costs.get(sentence, cost))
        return costs

    def _ends(self, frontier: Frontier, limit: float) -> list[tuple[float, str]]:
        """Return (cost, sentence) of those that end here for no more than `limit`, least first."""
        ends: dict[str, float] = {}
        reached = frontier | self._with_missing(frontier, limit)
        for state, (cost, sentence) in reached.items():
            if cost <= limit and self._letters.is_end(state):
                key = sentence.strip()
                ends[key] = min(cost, ends.get(key, cost))
        return sorted((cost, sentence) for sentence, cost in ends.items())

    def _after(self, frontier: Frontier, written: str) -> Frontier:
        """Return the cheapest states after one letter of the text.

        The cheapest ways go first: what costs more than all that would be kept is not followed.
        """
        bound = self._bound(self._same(frontier, written))
        extra = self.GAP if written in " -'" else self.EXTRA
        differences = _Differences.from_letter(written)
        after: Frontier = {}
        for state, (cost, sentence) in (frontier | self._with_missing(frontier, bound)).items():
            _reach(after, state, cost + extra, sentence)
            if cost + _Differences.SOUNDING_ALIKE <= bound:
                for letter, target in self._letters.spoken(state):
                    total = cost + differences[letter]
                    if total <= bound:
                        _reach(after, target, total, sentence + letter)
            self._reach_same(after, state, cost, sentence, written)
        bound = self._bound(after)
        ranked = sorted(after.items(), key=_cost)[: self.MAX_STATES]
        return {state: way for state, way in ranked if way[0] <= bound}

    def _same(self, frontier: Frontier, written: str) -> Frontier:
        """Return the states after the letter itself, and those where it is one too many."""
        extra = self.GAP if written in " -'" else self.EXTRA
        after: Frontier = {}
        for state, (cost, sentence) in frontier.items():
            _reach(after, state, cost + extra, sentence)
            self._reach_same(after, state, cost, sentence, written)
        return after

    def _reach_same(
        self, after: Frontier, state: int, cost: float, sentence: str, written: str
    ) -> None:
        states, other = self._letters.following(state)
        if written in states:
            if written in " '" or written.isalnum():
                _reach(after, states[written], cost, sentence + written)
        elif other != REFUSED and written != " ":
            _reach(after, other, cost + self.FREE, sentence + written)

    def _with_missing(self, frontier: Frontier, bound: float) -> Frontier:
        """Return the states that are reached by one or two letters that the text lacks."""
        limit = min(bound, _least(frontier) + self.MAX_BEHIND)
        reached: Frontier = {}
        todo = frontier
        for _ in range(2):
            following: Frontier = {}
            for state, (cost, sentence) in todo.items():
                if cost + self.GAP > limit:
                    continue
                for letter, target in self._letters.spoken(state):
                    total = cost + (self.GAP if letter == " " else self.MISSING)
                    before = reached.get(target) or frontier.get(target)
                    if total <= limit and (before is None or total < before[0]):
                        reached[target] = following[target] = (total, sentence + letter)
            todo = following
        return reached

    def _bound(self, after: Frontier) -> float:
        """Return the cost above which a way would not be kept."""
        if not after:
            return math.inf
        costs = sorted(cost for cost, _ in after.values())
        last = costs[self.MAX_STATES - 1] if len(costs) >= self.MAX_STATES else math.inf
        return min(costs[0] + self.MAX_BEHIND, last)


def _n_shared(one: str, other: str) -> int:
    """Return how many letters two texts begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def _reach(after: Frontier, state: int, cost: float, sentence: str) -> None:
    if state not in after or cost < after[state][0]:
        after[state] = (cost, sentence)


def _cost(item: tuple[int, tuple[float, str]]) -> float:
    return item[1][0]


def _least(frontier: Frontier) -> float:
    return min((cost for cost, _ in frontier.values()), default=math.inf)


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
