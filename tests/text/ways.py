"""Ways to write measures, and sentences of Home Assistant's templates, before and after rewording.

The commands of written.yaml are recognised by Home Assistant's matcher in the households of
benchmarks/lib/homes. A command is understood if it gives the intent and the slots of the sentence
that it is another way to write; durations are compared in seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from benchmarks.lib.understood import Meaning, meaning
from tests.text.drawn import draw
from wyoming_whisper.text.style import TextStyle

SECONDS = {"hour": 3600, "minute": 60, "second": 1}
BEFORE, AFTER = TextStyle(hass_wording=False), TextStyle()


@dataclass(frozen=True)
class Way:
    """One way to write a command."""

    language: str
    sentence: str
    """That means the same, and is understood."""

    text: str

    def is_understood(self) -> bool:
        """Whether it is, as it is sent."""
        meant = in_seconds(meaning(BEFORE.tidy(self.sentence, self.language), self.language))
        assert meant is not None, self.sentence
        sent = AFTER.tidy(self.text, self.language)
        return in_seconds(meaning(sent, self.language)) == meant


def ways() -> Iterator[Way]:
    """Yield all ways to write commands."""
    written = Path(__file__).with_name("written.yaml").read_text(encoding="utf-8")
    for language, kinds in yaml.safe_load(written).items():
        for sentences in kinds.values():
            for sentence, texts in sentences.items():
                yield from (Way(language, sentence, text) for text in texts)


def in_seconds(meant: Meaning | None) -> tuple[str, Mapping[str, str], float] | None:
    """Return a meaning for comparing: 90 minutes are an hour and 30 minutes."""
    if meant is None:
        return None
    slots = dict(meant.slots)
    lengths = ((float(slots.pop(f"{unit}s", 0)), length) for unit, length in SECONDS.items())
    return meant.intent, slots, sum(count * length for count, length in lengths)


@dataclass(frozen=True)
class Kept:
    """What a sentence that is understood became."""

    language: str
    text: str
    sent: str
    same: bool


def kept(languages: Sequence[str], count: int, seed: int) -> Iterator[Kept]:
    """Yield what so many sentences of each language become, in digits and in words."""
    for one in draw(languages, count, seed):
        for text in dict.fromkeys((one.plain, one.in_words)):
            meant, sent = meaning(text, one.language), AFTER.tidy(text, one.language)
            if meant is not None:
                yield Kept(one.language, text, sent, meaning(sent, one.language) == meant)
