"""Bilingual homes, simulated: how often the language is taken for another, with and without memory.

`python -m benchmarks.languages` draws what a home says and what a model would make of it, and lets
the server's own rules decide. It is a simulation: no multilingual weights were at hand to measure
with. What it assumes:

- The model's log-odds of the language spoken are normal, with the variance (twice the mean) that
  honest probabilities have; `claims` multiplies them: at 2 the model is surer than it should be.
- Homes speak in spells: the next command is in the language of the last one with a probability
  (`stays`), a day has 24 commands at random times, and nobody speaks for eight hours of it.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from benchmarks import report
from wyoming_whisper.languages import SpokenLanguages
from wyoming_whisper.transcriber import Transcription
from wyoming_whisper.whisper.decoding import likeliest_language

LANGUAGES = ("de", "en")
COMMANDS_A_DAY = 24
WAKING_SECONDS = 16 * 3600.0
NIGHT_SECONDS = 8 * 3600.0


@dataclass(frozen=True)
class Home:
    """How a home speaks the first of LANGUAGES and the second."""

    name: str
    share: float
    """Of the first language."""
    stays: float
    """Probability that a command is in the language of the last one, whichever it was."""

    def commands(self, count: int, r: random.Random) -> Iterator[tuple[str, float]]:
        """Yield (language, seconds since the last command)."""
        spoken = LANGUAGES[0] if r.random() < self.share else LANGUAGES[1]
        for number in range(count):
            if number and r.random() > self.stays:
                spoken = LANGUAGES[0] if r.random() < self.share else LANGUAGES[1]
            night = NIGHT_SECONDS if number % COMMANDS_A_DAY == 0 else 0.0
            yield spoken, night + r.expovariate(COMMANDS_A_DAY / WAKING_SECONDS)


HOMES = (
    Home("one language, the other allowed", 1.0, 0.0),
    Home("nine of ten, at random", 0.9, 0.0),
    Home("nine of ten, in spells", 0.9, 0.8),
    Home("half and half, in spells", 0.5, 0.8),
    Home("half and half, at random", 0.5, 0.0),
)


@dataclass(frozen=True)
class Detector:
    """A model that takes this share of commands for the other language."""

    wrong: float
    claims: float = 1.0

    def detect(self, spoken: str, r: random.Random) -> list[tuple[str, float]]:
        """Return (code, probability), as a model would."""
        spread = -2 * NormalDist().inv_cdf(self.wrong)  # P(odds < 0) = wrong, variance = 2 mean
        odds = self.claims * r.gauss(spread**2 / 2, spread)
        right = 1 / (1 + math.exp(-odds))
        return [(code, right if code == spoken else 1 - right) for code in LANGUAGES]


DETECTORS = tuple(Detector(wrong, claims) for claims in (1.0, 2.0) for wrong in (0.02, 0.05, 0.1))


def wrong_answers(
    home: Home, detector: Detector, count: int, seed: int, *, remembers: bool
) -> list[bool]:
    """Return for each command whether it was taken for the other language."""
    r = random.Random(seed)
    now = 0.0
    memory = SpokenLanguages(remembers, lambda: now)
    wrong = []
    for spoken, seconds in home.commands(count, r):
        now += seconds
        code, share = likeliest_language(detector.detect(spoken, r), memory.prior())
        memory.note(Transcription("something", code, share))
        wrong.append(code != spoken)
    return wrong


def after_a_change(detector: Detector, n_homes: int, seed: int, *, remembers: bool) -> list[float]:
    """Return the share of homes that get each command wrong after changing languages for good."""
    counts = [0] * AFTER
    for number in range(n_homes):
        r = random.Random(seed + number)
        memory = SpokenLanguages(remembers, lambda: 0.0)  # no time passes: the hardest case
        for place in range(BEFORE + AFTER):
            spoken = LANGUAGES[place >= BEFORE]
            code, share = likeliest_language(detector.detect(spoken, r), memory.prior())
            memory.note(Transcription("something", code, share))
            if place >= BEFORE:
                counts[place - BEFORE] += code != spoken
    return [count / n_homes for count in counts]


BEFORE, AFTER = 40, 10


def homes_table(count: int, seed: int) -> str:
    """Return wrong shares of all homes and detectors, without and with memory."""
    rows = []
    for detector in DETECTORS:
        for home in HOMES:
            without, remembering = (
                sum(wrong_answers(home, detector, count, seed, remembers=remembers))
                for remembers in (False, True)
            )
            kind = "honest" if detector.claims == 1 else f"claims x {detector.claims:g}"
            saved = f"{100 * (1 - remembering / without):.0f} %" if without else ""
            rows.append(
                [
                    kind,
                    home.name,
                    report.percent(without, count),
                    report.percent(remembering, count),
                    saved,
                ]
            )
    return report.table(["model", "home", "wrong without", "wrong with", "fewer"], rows)


def change_table(n_homes: int, seed: int) -> str:
    """Return how a home fares that speaks one language, and then the other for good."""
    detector = Detector(0.05)
    rows = []
    for remembers in (False, True):
        shares = after_a_change(detector, n_homes, seed, remembers=remembers)
        cells = [f"{100 * shares[place]:.1f} %" for place in PLACES]
        rows.append(["with" if remembers else "without", *cells])
    return report.table(["memory", *(f"command {place + 1}" for place in PLACES)], rows)


PLACES: Sequence[int] = (0, 1, 2, 4, 9)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=20_000, help="commands of a home (20000)")
    parser.add_argument("--homes", type=int, default=4_000, help="that change languages (4000)")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    print("A simulation, see --help for what it assumes.\n")
    print(homes_table(args.count, args.seed))
    print("\nA home that changes languages for good, 5 % wrong without memory:\n")
    print(change_table(args.homes, args.seed))


if __name__ == "__main__":
    main()
