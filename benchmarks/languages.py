"""Homes with several languages: how often one is taken for another, with and without memory.

`python -m benchmarks.languages --corpus DIR` has a model detect the language of each
recording once, among all that it knows. Homes are then drawn from these: they speak in spells, the
next command is in the language of the last one with a probability (`stays`), a day has 24 commands
at random times, and nobody speaks for eight hours of it. The server's own rules decide, among the
languages of the home alone (`--languages`).
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import models, report
from benchmarks.clips import ClipError
from benchmarks.corpus import PARTS, as_heard, read_corpus, select
from benchmarks.model import Model
from wyoming_whisper.languages import SpokenLanguages
from wyoming_whisper.transcriber import Transcription
from wyoming_whisper.whisper.decoding import likeliest_language

LEAST_RECORDINGS = 8
"""Of a language, that a home with it is drawn."""

COMMANDS_A_DAY = 24
WAKING_SECONDS = 16 * 3600.0
NIGHT_SECONDS = 8 * 3600.0


Detected = list[tuple[str, float]]
"""(code, probability) of every language, as the model says of one recording."""

Pool = Mapping[str, Sequence[Detected]]
"""What is known of all recordings, by the language that is spoken."""


@dataclass(frozen=True)
class Home:
    """How a home speaks the first of its two languages and the second."""

    name: str
    share: float
    """Of the first language."""
    stays: float
    """Probability that a command is in the language of the last one, whichever it was."""

    def commands(
        self, languages: Sequence[str], count: int, r: random.Random
    ) -> Iterator[tuple[str, float]]:
        """Yield (language, seconds since the last command)."""
        first, second = languages
        spoken = first if r.random() < self.share else second
        for number in range(count):
            if number and r.random() > self.stays:
                spoken = first if r.random() < self.share else second
            night = NIGHT_SECONDS if number % COMMANDS_A_DAY == 0 else 0.0
            yield spoken, night + r.expovariate(COMMANDS_A_DAY / WAKING_SECONDS)


HOMES = (
    Home("one language, the other allowed", 1.0, 0.0),
    Home("nine of ten, at random", 0.9, 0.0),
    Home("nine of ten, in spells", 0.9, 0.8),
    Home("half and half, in spells", 0.5, 0.8),
    Home("half and half, at random", 0.5, 0.0),
)


def among(found: Detected, languages: Sequence[str]) -> Detected:
    """Return the shares of these languages alone, as `--languages` has it."""
    allowed = [(code, probability) for code, probability in found if code in languages]
    total = sum(probability for _, probability in allowed) or 1.0
    return [(code, probability / total) for code, probability in allowed]


def wrong_answers(
    home: Home, languages: Sequence[str], pool: Pool, count: int, seed: int, *, remembers: bool
) -> list[bool]:
    """Return for each command whether it was taken for the other language."""
    r = random.Random(seed)
    now = 0.0
    memory = SpokenLanguages(remembers, lambda: now)
    wrong = []
    for spoken, seconds in home.commands(languages, count, r):
        now += seconds
        found = among(r.choice(pool[spoken]), languages)
        code, share = likeliest_language(found, memory.prior())
        memory.note(Transcription("something", code, share))
        wrong.append(code != spoken)
    return wrong


def detections_table(pool: Pool) -> str:
    """Return how often each language is taken for another, among all and among few."""
    many = sorted(pool)
    rows = []
    for language in many:
        found = pool[language]
        wrong = sum(max(one, key=lambda item: item[1])[0] != language for one in found)
        allowed = [among(one, many) for one in found]
        fewer = sum(max(one, key=lambda item: item[1])[0] != language for one in allowed)
        rows.append([language, str(len(found)), str(wrong), str(fewer)])
    totals = [sum(int(row[column]) for row in rows) for column in (1, 2, 3)]
    rows.append(["all", *map(str, totals)])
    return report.table(
        ["spoken", "recordings", "wrong among all", f"wrong among these {len(many)}"], rows
    )


def homes_table(pool: Pool, count: int, seed: int) -> str:
    """Return wrong shares of all homes, over all pairs of languages, without and with memory."""
    pairs = [(one, two) for one in pool for two in pool if one != two]
    rows = []
    for home in HOMES:
        without, remembering = (
            sum(
                sum(wrong_answers(home, pair, pool, count, seed, remembers=remembers))
                for pair in pairs
            )
            for remembers in (False, True)
        )
        saved = f"{100 * (1 - remembering / without):.0f} %" if without else report.NOTHING
        total = count * len(pairs)
        shares = [report.percent(number, total) for number in (without, remembering)]
        rows.append([home.name, str(len(pairs)), *shares, saved])
    return report.table(["home", "pairs", "wrong without", "wrong with", "fewer"], rows)


def detected(model: Model, args: argparse.Namespace) -> dict[str, list[Detected]]:
    """Return what the model says of every recording. Raises ClipError."""
    pool: dict[str, list[Detected]] = {}
    recordings = read_corpus(args.corpus)
    for one in select(recordings, args.part, args.kinds.split(",")):
        if one.lang in model.languages and (found := model.detect(as_heard(one))):
            pool.setdefault(one.lang, []).append(found)
    enough = {code: found for code, found in pool.items() if len(found) >= LEAST_RECORDINGS}
    if len(enough) < 2:
        raise ClipError(
            f"{args.corpus} has no two languages with {LEAST_RECORDINGS} recordings each"
        )
    return enough


def main() -> int:
    """Print both tables; exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    models.add_model(parser)
    parser.add_argument("--graphs", type=Path, metavar="DIR", help="ask onnxruntime, see model.py")
    parser.add_argument("--threads", type=int, default=1, metavar="N")
    parser.add_argument("--corpus", type=Path, required=True, metavar="DIR")
    parser.add_argument("--part", choices=PARTS, default="report", help="(default: report)")
    parser.add_argument("--kinds", default="command,speech", help="(default: command,speech)")
    parser.add_argument("--count", type=int, default=2_000, help="commands of a home (2000)")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    facts = report.machine()
    try:
        pool = detected(Model(args.model, 1, args.threads, args.graphs), args)
    except ClipError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(report.machine_line(facts))
    print(f"\n{detections_table(pool)}\n\n{homes_table(pool, args.count, args.seed)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
