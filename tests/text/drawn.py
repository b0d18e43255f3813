"""Sentences drawn from Home Assistant's own templates, with what each means to its matcher."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.lib.errors import BenchmarkError
from benchmarks.lib.understood import Matcher, Meaning, matcher
from benchmarks.lib.words import spelled

MAX_DRAWS = 40  # for one sentence that is recognised: most ask for a device that isn't there
NUMBER = re.compile(r"<(-?\d+)>")  # as it is drawn: how it is written comes later


@dataclass(frozen=True)
class Sentence:
    """One that is understood."""

    drawn: str
    """With its numbers in angle brackets."""

    meaning: Meaning
    language: str

    @property
    def plain(self) -> str:
        return digits(self.drawn)

    @property
    def in_words(self) -> str:
        """With its numbers in words, where anybody knows them."""
        return NUMBER.sub(lambda number: spelled(int(number[1]), self.language), self.drawn)


def draw(chosen: Sequence[str], count: int, seed: int) -> Iterator[Sentence]:
    """Yield so many sentences of each language, no two alike. Raises BenchmarkError."""
    for language in chosen:
        home, r = matcher(language), random.Random(seed)
        if home is None:
            raise BenchmarkError(f"there is no household of {language!r} in lib/homes")
        drawer = Drawer(language, home)
        sentences: dict[str, Meaning] = {}
        for _ in range(MAX_DRAWS * count):
            if len(sentences) == count:
                break
            sentences.update([drawer.draw(r)])
        yield from (Sentence(drawn, meant, language) for drawn, meant in sentences.items())


class Drawer:
    """Draws sentences from the templates of a household's language."""

    def __init__(self, language: str, home: Matcher) -> None:
        self.language = language
        self.home = home

    def draw(self, r: random.Random) -> tuple[str, Meaning]:
        """Return a sentence, its numbers in angle brackets, and what it means.

        Raises BenchmarkError where none is found that means anything.
        """
        for _ in range(MAX_DRAWS):
            data = r.choice(r.choice(list(self.home.intents.intents.values())).data)
            drawn = self._expand(r.choice(list(data.sentences)).expression, data, r)
            drawn = " ".join(drawn.split())
            if meant := self.home.understand(digits(drawn)):
                return drawn, meant
        raise BenchmarkError(f"{self.language}: none of {MAX_DRAWS} sentences is understood")

    def _expand(self, part: object, data: Any, r: random.Random) -> str:
        from hassil import expression as ex

        if isinstance(part, ex.TextChunk):
            return str(part.original_text)
        if isinstance(part, ex.Alternative):
            return self._expand(r.choice(part.items), data, r)
        if isinstance(part, ex.Permutation):
            items = r.sample(part.items, len(part.items))
            return " ".join(self._expand(item, data, r) for item in items)
        if isinstance(part, ex.Group):
            return "".join(self._expand(item, data, r) for item in part.items)
        if isinstance(part, ex.RuleReference):
            rules = {**self.home.intents.expansion_rules, **data.expansion_rules}
            return self._expand(rules[part.rule_name].expression, data, r)
        if isinstance(part, ex.ListReference):
            return self._slot(part.list_name, data, r)
        raise TypeError(f"unexpected part of a template: {part}")

    def _slot(self, name: str, data: Any, r: random.Random) -> str:
        """Return something for a slot; a wildcard is a name of the household, too."""
        from hassil.intents import RangeSlotList, TextSlotList

        lists = {**self.home.intents.slot_lists, **data.slot_lists, **self.home.lists}
        values = lists.get(name)
        if isinstance(values, RangeSlotList):
            return f"<{r.randrange(values.start, values.stop + 1, values.step)}>"
        if not isinstance(values, TextSlotList) or not values.values:
            values = self.home.lists["name"]
        return self._expand(r.choice(values.values).text_in, data, r)


def digits(drawn: str) -> str:
    """Return a drawn sentence with its numbers in digits."""
    return NUMBER.sub(r"\1", drawn)
