"""Sentences of a home that are spelled much like what was written: the ones that may be meant.

Tried before a search of the audio, and all there is for runtimes that can score a sentence, but
not be kept inside a grammar. A beam over the automaton and the text together, by edit distance;
letters that sound alike cost less.
"""

from __future__ import annotations

import math
import unicodedata
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

    def find(self, text: str, n_best: int) -> list[tuple[float, str]]:
        """Return (cost, folded sentence) of those spelled most like `text`, nearest first."""
        spelled = words_of(text)
        if not 0 < len(spelled) <= self.MAX_LETTERS:
            return []
        limit = self.MAX_COST_SHARE * len(spelled)
        frontier: Frontier = {self._letters.starts[0]: (0.0, "")}
        for letter in spelled:
            frontier = self._cheapest(self._after(self._with_missing(frontier), letter))
            if min(frontier.values(), default=(math.inf, ""))[0] > limit:
                return []
        ends: dict[str, float] = {}
        for state, (cost, sentence) in self._with_missing(frontier).items():
            if cost <= limit and self._letters.is_end(state):
                key = sentence.strip()
                ends[key] = min(cost, ends.get(key, cost))
        return sorted((cost, sentence) for sentence, cost in ends.items())[:n_best]

    def _with_missing(self, frontier: Frontier) -> Frontier:
        """Return the states as well that are reached by one or two letters that the text lacks."""
        limit = min(frontier.values())[0] + self.MAX_BEHIND
        reached = dict(frontier)
        todo = [*frontier]
        for _ in range(2):
            following = []
            for state in todo:
                cost, sentence = reached[state]
                if cost + self.GAP > limit:
                    continue
                for letter, target in self._letters.spoken(state):
                    total = cost + (self.GAP if letter == " " else self.MISSING)
                    if total <= limit and (target not in reached or total < reached[target][0]):
                        reached[target] = (total, sentence + letter)
                        following.append(target)
            todo = following
        return reached

    def _after(self, frontier: Frontier, written: str) -> Frontier:
        """Return the states after one letter of the text."""
        after: Frontier = {}
        extra = self.GAP if written in " -'" else self.EXTRA
        differences = _Differences.from_letter(written)
        is_letter = written != " "
        for state, (cost, sentence) in frontier.items():
            total = cost + extra
            if state not in after or total < after[state][0]:
                after[state] = (total, sentence)
            for letter, target in self._letters.spoken(state):
                total = cost + differences[letter]
                if target not in after or total < after[target][0]:
                    after[target] = (total, sentence + letter)
            if is_letter:
                states, other = self._letters.following(state)
                total = cost + self.FREE
                if (
                    other != REFUSED
                    and written not in states
                    and (other not in after or total < after[other][0])
                ):
                    after[other] = (total, sentence + written)
        return after

    def _cheapest(self, frontier: Frontier) -> Frontier:
        if not frontier:
            return frontier
        limit = min(cost for cost, _ in frontier.values()) + self.MAX_BEHIND
        ranked = sorted(frontier.items(), key=lambda item: item[1][0])[: self.MAX_STATES]
        return {state: way for state, way in ranked if way[0] <= limit}


class _Differences(dict[str, float]):
    """What it costs to read a letter that was written for another one, by that one."""

    ALIKE = ("aeiouy", "bp", "dt", "gkcqx", "fvw", "szcx", "mn", "lr", "jiy")

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
        return 0.4 if alike else 1.0
