"""How many texts Home Assistant understands, as Whisper writes them and with our text options.

`python -m benchmarks.intents` draws sentences from Home Assistant's own templates
(home-assistant-intents), writes them in the ways that Whisper does, and has Home Assistant's
matcher recognise them in the households of benchmarks/homes. A text is right if it gives the intent
and the slots of the sentence itself.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.servers import BenchmarkError
from benchmarks.understood import HomeError, Matcher, Meaning, languages, matcher
from benchmarks.words import spelled
from wyoming_whisper.text import TextStyle, tidy

PROGRESS_EVERY = 25
MAX_DRAWS = 40  # for one sentence that is recognised: most ask for a device that isn't there
NUMBER = re.compile(r"<(-?\d+)>")  # as it is drawn: how it is written comes later

OPTIONS: Mapping[str, TextStyle] = {
    "as written": TextStyle(strip_punctuation=False, hass_wording=False),
    "strip": TextStyle(hass_wording=False),
    "lowercase": TextStyle(strip_punctuation=False, hass_wording=False, lowercase=True),
    "both": TextStyle(hass_wording=False, lowercase=True),
}


@dataclass(frozen=True)
class Marks:
    """How a language is written."""

    quotes: str = "“”"
    """An opening and a closing one."""

    end: str = "."
    comma: str = ", "
    question: str = "?"
    """One, or an opening and a closing one."""


MARKS: Mapping[str, Marks] = {
    "de": Marks("„“"),
    "es": Marks("«»", question="¿?"),
    "fr": Marks("«»"),
    "ru": Marks("«»"),
    "zh": Marks("「」", "。", "，", "？"),  # noqa: RUF001
}


# -- drawing -------------------------------------------------------------------------------


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


# -- how Whisper writes --------------------------------------------------------------------


@dataclass(frozen=True)
class Sentence:
    """One that is understood, in all that its ways of writing need."""

    drawn: str
    meaning: Meaning
    home: Matcher
    language: str

    @property
    def plain(self) -> str:
        return digits(self.drawn)

    @property
    def marks(self) -> Marks:
        return MARKS.get(self.language, Marks())

    @property
    def in_words(self) -> str:
        """With its numbers in words, where anybody knows them."""
        return NUMBER.sub(lambda found: spelled(int(found[1]), self.language), self.drawn)

    @property
    def written(self) -> str:
        """As Whisper writes it: a capital letter, digits, a mark at the end."""
        text = self.plain[:1].upper() + self.plain[1:]
        if not self.meaning.intent.startswith("HassGet"):
            return text + self.marks.end
        return self.marks.question[:-1] + text + self.marks.question[-1]

    @property
    def slot(self) -> str:
        """The longest words of a slot that stand in it as they are; empty where none do."""
        found = self.home.found(self.plain)
        words = (entity.text.strip() for entity in found.entities.values())
        return max((text for text in words if text in self.plain), key=len, default="")


def _quoted(sentence: Sentence) -> str:
    return sentence.marks.quotes[0] + sentence.written + sentence.marks.quotes[1]


def _slot_quoted(sentence: Sentence) -> str:
    words, quotes = sentence.slot, sentence.marks.quotes
    if not words:
        return sentence.written
    return sentence.written.replace(words, quotes[0] + words + quotes[1], 1)


def _comma(sentence: Sentence) -> str:
    at = sentence.written.find(sentence.slot) if sentence.slot else 0
    if at <= 0:
        return sentence.written
    return sentence.written[:at].rstrip() + sentence.marks.comma + sentence.written[at:]


WAYS: Mapping[str, Callable[[Sentence], str]] = {
    "as in the templates": lambda sentence: sentence.plain,
    "numbers in words": lambda sentence: sentence.in_words,
    "capital, mark at the end": lambda sentence: sentence.written,
    "and exclamation mark": lambda sentence: sentence.written[:-1] + "!",
    "and ellipsis": lambda sentence: sentence.written[:-1] + "...",
    "and a comma inside": _comma,
    "and a dash before": lambda sentence: "- " + sentence.written,
    "all in quotes": _quoted,
    "a name in quotes": _slot_quoted,
}


def draw(chosen: Sequence[str], count: int, seed: int) -> Iterator[Sentence]:
    """Yield so many sentences of each language, no two alike. Raises BenchmarkError, HomeError."""
    for language in chosen:
        home, r = matcher(language), random.Random(seed)
        if home is None:
            raise BenchmarkError(f"there is no household of {language!r} in benchmarks/homes")
        drawer = Drawer(language, home)
        found: dict[str, Meaning] = {}
        for _ in range(MAX_DRAWS * count):
            if len(found) == count:
                break
            found.update([drawer.draw(r)])
        print(f"{language}: {len(found)} sentences", file=sys.stderr, flush=True)
        yield from (Sentence(drawn, meant, home, language) for drawn, meant in found.items())


@dataclass(frozen=True)
class Result:
    """What became of one text."""

    language: str
    way: str
    option: str
    text: str
    matched: bool
    right: bool


def judge(
    way: str, sentence: Sentence, text: str, options: Mapping[str, TextStyle]
) -> Iterator[Result]:
    """Have a text matched with each of the options."""
    for option, style in options.items():
        given = tidy(text, style, sentence.language)
        meant = sentence.home.understand(given)
        right = meant == sentence.meaning
        yield Result(sentence.language, way, option, given, meant is not None, right)


def written(sentences: Sequence[Sentence]) -> list[Result]:
    """Have every sentence matched in every way it may be written."""
    results: list[Result] = []
    for number, sentence in enumerate(sentences, 1):
        for way, write in WAYS.items():
            results += judge(way, sentence, write(sentence), OPTIONS)
        if number % PROGRESS_EVERY == 0 or number == len(sentences):
            print(f"{number} of {len(sentences)} sentences", file=sys.stderr, flush=True)
    return results


# -- report --------------------------------------------------------------------------------


def table(results: Sequence[Result], head: str, by: Callable[[Result], str]) -> str:
    """Return the share that is right with each option, in a row for each value of `by`."""
    options = list(dict.fromkeys(result.option for result in results))
    rows = []
    for name in dict.fromkeys(map(by, results)):
        own = [result for result in results if by(result) == name]
        per_option = [[result for result in own if result.option == option] for option in options]
        shares = [report.percent(sum(x.right for x in some), len(some)) for some in per_option]
        rows.append([name, str(max(map(len, per_option))), *shares])
    return report.table([head, "texts", *options], rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="benchmarks.intents", description=__doc__)
    known = languages()
    parser.add_argument(
        "--languages", nargs="+", choices=known, default=known, help="default: all there are"
    )
    parser.add_argument(
        "--sentences", type=int, default=100, metavar="N", help="of each language (default: 100)"
    )
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there, too")
    args = parser.parse_args(argv)
    packages = {name: version(name) for name in ("hassil", "home-assistant-intents")}
    try:
        results = written(list(draw(args.languages, args.sentences, args.seed)))
    except (BenchmarkError, HomeError) as error:
        print(f"benchmarks.intents: {error}", file=sys.stderr)
        return 1
    print(", ".join(f"{name} {number}" for name, number in packages.items()))
    print("", table(results, "written", lambda result: result.way), sep="\n")
    print("", table(results, "language", lambda result: result.language), sep="\n")
    rows = [asdict(result) for result in results]
    report.write_json(args.json, {"packages": packages, "results": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
