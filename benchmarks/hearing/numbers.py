"""Which ways to write a number Home Assistant understands, without --hass-wording and with it.

Home Assistant's matcher recognises the commands of written.yaml in the households of lib/homes. A
command is understood if it gives the intent and the slots of the sentence that it is another way to
write; durations are compared in seconds. Then sentences are drawn from Home Assistant's own
templates, numbers in digits and in words: those that are understood have to give the very same
intent and slots with --hass-wording.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import yaml

from benchmarks.lib import report
from benchmarks.lib.errors import BenchmarkError
from benchmarks.lib.options import add_number, names, one_of
from benchmarks.lib.report import Outcome
from benchmarks.lib.sentences import draw
from benchmarks.lib.understood import Meaning, meaning
from wyoming_whisper.text.measures import SECONDS
from wyoming_whisper.text.style import TextStyle, tidy

WRITTEN = Path(__file__).parent / "written.yaml"
BEFORE, AFTER = TextStyle(hass_wording=False), TextStyle()


@dataclass(frozen=True)
class Way:
    """One way to write a command."""

    language: str
    kind: str
    sentence: str
    """That means the same, and is understood."""

    text: str


@dataclass(frozen=True)
class Result:
    """Whether one was understood."""

    language: str
    kind: str
    text: str
    sent: str
    before: bool
    after: bool


@dataclass(frozen=True)
class Kept:
    """What a sentence that is understood became."""

    language: str
    text: str
    sent: str
    same: bool


def ways(languages: Sequence[str] | None = None) -> Iterator[Way]:
    """Yield all ways to write commands, of these languages or all."""
    content = yaml.safe_load(WRITTEN.read_text(encoding="utf-8"))
    for language, kinds in content.items():
        for kind, sentences in kinds.items() if not languages or language in languages else ():
            for sentence, texts in sentences.items():
                yield from (Way(language, kind, sentence, text) for text in texts)


def in_seconds(meant: Meaning | None) -> tuple[str, Mapping[str, str], float] | None:
    """Return a meaning for comparing: 90 minutes are an hour and 30 minutes."""
    if meant is None:
        return None
    slots = dict(meant.slots)
    lengths = ((float(slots.pop(f"{unit}s", 0)), length) for unit, length in SECONDS.items())
    return meant.intent, slots, sum(count * length for count, length in lengths)


def judge(way: Way) -> Result:
    """Have one matched as it is and as it is sent. Raises BenchmarkError."""
    meant = in_seconds(meaning(tidy(way.sentence, BEFORE, way.language), way.language))
    if meant is None:
        raise BenchmarkError(f"{way.language}: {way.sentence!r} is not understood")
    before, sent = (tidy(way.text, style, way.language) for style in (BEFORE, AFTER))
    was, now = (in_seconds(meaning(text, way.language)) == meant for text in (before, sent))
    return Result(way.language, way.kind, way.text, sent, was, now)


def kept(languages: Sequence[str], count: int, seed: int) -> Iterator[Kept]:
    """Yield what so many sentences of each language become, in digits and in words."""
    for one in draw(languages, count, seed):
        for text in dict.fromkeys((one.plain, one.in_words)):
            meant, sent = meaning(text, one.language), tidy(text, AFTER, one.language)
            if meant is not None:
                yield Kept(one.language, text, sent, meaning(sent, one.language) == meant)


def table(results: Sequence[Result]) -> str:
    """Return how many are understood before and after, kinds by languages."""
    languages = list(dict.fromkeys(result.language for result in results))
    rows = []
    for kind in [*dict.fromkeys(result.kind for result in results), "all"]:
        own = [result for result in results if kind in (result.kind, "all")]
        cells = [[r for r in own if r.language == language] for language in languages]
        rows.append([kind, *map(_cell, [*cells, own])])
    return report.table(["written", *languages, "all"], rows)


def _cell(results: Sequence[Result]) -> str:
    if not results:
        return report.NOTHING
    before, after = sum(r.before for r in results), sum(r.after for r in results)
    return f"{before} > {after} of {len(results)}"


# -- the suite -----------------------------------------------------------------------------


def add_options(parser: argparse.ArgumentParser) -> None:
    known = list(dict.fromkeys(way.language for way in ways()))
    parser.add_argument(
        "--languages",
        type=lambda text: tuple(map(one_of(known), names(text))),
        default=tuple(known),
        metavar="LIST",
        help="default: all there are",
    )
    add_number(parser, "--sentences", 100, "of each language")
    add_number(parser, "--seed", 2026)


def run(args: argparse.Namespace) -> Outcome:
    """Have everything matched; a sentence that no longer means what it did is a failure."""
    packages = {name: version(name) for name in ("hassil", "home-assistant-intents")}
    results = [judge(way) for way in ways(args.languages)]
    sentences = list(kept(args.languages, args.sentences, args.seed))
    changed = Counter(one.text != one.sent for one in sentences)[True]
    lost = [
        f"{one.language}: {one.text!r} is sent as {one.sent!r}, which means something else"
        for one in sentences
        if not one.same
    ]
    wrong = [
        f"{one.language}: {one.text!r} is sent as {one.sent!r}" for one in results if not one.after
    ]
    shown = [
        ", ".join(f"{name} {number}" for name, number in packages.items()),
        "Understood without --hass-wording > with it:",
        table(results),
        "\n".join(wrong),
        (
            f"{len(sentences)} sentences of the templates: {changed} are written otherwise, "
            f"{len(lost)} mean something else"
        ),
    ]
    facts = {
        "packages": packages,
        "results": [asdict(one) for one in results],
        "sentences": [asdict(one) for one in sentences],
    }
    return Outcome([part for part in shown if part], facts, lost)
