"""What servers made of what is said to a household, counted."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from statistics import median

from benchmarks.hearing.household.clips import COMMAND, NEAR, NOISE, OTHER, PARTS
from benchmarks.lib import report
from benchmarks.lib.understood import Meaning, meaning
from benchmarks.lib.words import normalised

GRAMMAR, ENCODE = "grammar", "encode"  # stages in our server's log
STAGES = re.compile(r"audio answered .* after its end.*?\((?:begun early: )?([\w. ,]+)")

FREE: Mapping[str, str] = {
    **{f"ours{backend}-home": f"ours{backend}" for backend in ("", "-fw", "-ort")},
    "official": "official-plain",
}
"""The server that hears the same without knowing the home."""


@dataclass(frozen=True)
class Answer:
    """What one server made of one clip."""

    model: str
    server: str
    clip: str
    lang: str
    kind: str
    said: str
    """Empty where the words are not known."""

    written: str
    seconds: float
    """From the end of the audio to the transcript."""

    stages: Mapping[str, float] = field(default_factory=dict)
    """Seconds of each stage of the work, as our server logs them."""

    error: str | None = None
    part: str = "test"
    """Of the lists (clips.PARTS)."""

    @cached_property
    def meaning(self) -> Meaning | None:
        return meaning(self.written, self.lang, PARTS[self.part])

    @cached_property
    def meant(self) -> Meaning | None:
        is_command = self.kind == COMMAND
        return meaning(self.said, self.lang, PARTS[self.part]) if is_command else None

    @property
    def is_understood(self) -> bool:
        return self.meant is not None and self.meaning == self.meant

    @property
    def is_another(self) -> bool:
        """Whether Home Assistant would do something else than what it was told."""
        return self.meant is not None and self.meaning not in (None, self.meant)

    @property
    def is_far(self) -> bool:
        """Whether it was heard from the other end of a room."""
        return "+room" in self.clip

    @property
    def place(self) -> tuple[str, str]:
        return self.model, self.clip


def stages(log: str) -> dict[str, float]:
    """Return the stages of the last answer in our server's log, in seconds; none without one."""
    answers = STAGES.findall(log)
    pairs = re.findall(r"(\w+) ([\d.]+)", answers[-1]) if answers else []
    return {name: float(seconds) for name, seconds in pairs}


class Count:
    """The answers of one server, and of the one that does not know the home, if that ran, too."""

    def __init__(self, answers: Sequence[Answer], free: Sequence[Answer] = ()) -> None:
        self.answers = answers
        self._free = {one.place: one for one in free}

    def of(self, kind: str) -> list[Answer]:
        return [one for one in self.answers if one.kind == kind]

    @property
    def changed(self) -> list[Answer]:
        """What is no command, and is written otherwise for the home's sake."""
        return [
            one
            for one in (*self.of(OTHER), *self.of(NOISE))
            if (free := self._free.get(one.place)) and one.written != free.written
        ]

    @property
    def has_free(self) -> bool:
        return bool(self._free)

    @property
    def made_up(self) -> list[Answer]:
        """What is no command, and became one that Home Assistant carries out."""
        return [one for one in self.answers if one.kind != COMMAND and one.meaning]

    def added(self, understood: bool) -> list[float]:
        """Return the seconds that the grammar took, of commands whose free text was, or wasn't."""
        return [
            one.stages.get(GRAMMAR, 0.0)
            for one in self.of(COMMAND)
            if (free := self._free.get(one.place)) and free.is_understood == understood
            if one.stages
        ]


# -- tables --------------------------------------------------------------------------------


def counts(answers: Sequence[Answer]) -> dict[tuple[str, str], Count]:
    """Return the counts of each (model, server)."""
    groups: dict[tuple[str, str], list[Answer]] = {}
    for one in answers:
        groups.setdefault((one.model, one.server), []).append(one)
    return {
        (model, server): Count(own, groups.get((model, FREE.get(server, "")), ()))
        for (model, server), own in groups.items()
    }


def tables(answers: Sequence[Answer]) -> Iterator[str]:
    """Yield a table of all, one of each language, and one of the grammar's time."""
    found = counts(answers)
    yield _summary(found)
    for model in dict.fromkeys(one.model for one in answers):
        yield f"Commands understood, {model}:"
        yield _by_language({server: one for (of, server), one in found.items() if of == model})
    if any(GRAMMAR in one.stages for one in answers):
        yield "Time that the grammar takes, and the encoder's (medians):"
        yield _times(found)


SUMMARY: Mapping[str, Callable[[Count], str]] = {
    "understood": lambda one: _share(sum(a.is_understood for a in one.of(COMMAND)), one, COMMAND),
    "another": lambda one: str(sum(a.is_another for a in one.of(COMMAND))),
    "near: a command": lambda one: _of_kind(one, NEAR),
    "other: changed": lambda one: _changed(one, OTHER),
    "other: a command": lambda one: _of_kind(one, OTHER),
    "noise: text": lambda one: str(sum(bool(normalised(a.written)) for a in one.of(NOISE))),
    "noise: a command": lambda one: _of_kind(one, NOISE),
    "failed": lambda one: str(sum(a.error is not None for a in one.answers)),
    "median": lambda one: report.milliseconds(median(a.seconds for a in one.answers)),
}


def _share(count: int, of: Count, kind: str) -> str:
    whole = len(of.of(kind))
    return f"{count} of {whole} ({report.percent(count, whole)})"


def _of_kind(one: Count, kind: str) -> str:
    return f"{sum(a.kind == kind for a in one.made_up)} of {len(one.of(kind))}"


def _changed(one: Count, kind: str) -> str:
    if not one.has_free:
        return report.NOTHING
    return _share(sum(a.kind == kind for a in one.changed), one, kind)


def _summary(found: Mapping[tuple[str, str], Count]) -> str:
    rows = [[*key, *(cell(one) for cell in SUMMARY.values())] for key, one in found.items()]
    return report.table(["model", "server", *SUMMARY], rows)


def _by_language(found: Mapping[str, Count]) -> str:
    commands = {server: one.of(COMMAND) for server, one in found.items()}
    everything = [a for own in commands.values() for a in own]
    languages = sorted({a.lang for a in everything})
    rows = [_row(language, commands, partial(_is_of, language)) for language in languages]
    rows.append(_row("all", commands, lambda a: True))
    rows.append(_row("far away", commands, lambda a: a.is_far))
    return report.table(["language", "commands", *commands], rows)


def _is_of(language: str, answer: Answer) -> bool:
    return answer.lang == language


def _row(
    head: str, commands: Mapping[str, Sequence[Answer]], belongs: Callable[[Answer], bool]
) -> list[str]:
    own = [[a for a in answers if belongs(a)] for answers in commands.values()]
    return [head, str(max(map(len, own))), *(str(sum(a.is_understood for a in c)) for c in own)]


def _times(found: Mapping[tuple[str, str], Count]) -> str:
    rows = []
    for key, one in found.items():
        encoding = [a.stages[ENCODE] for a in one.of(COMMAND) if ENCODE in a.stages]
        if not one.has_free or not encoding:
            continue
        usual = median(encoding)
        cells = []
        for seconds in (one.added(understood=True), one.added(understood=False)):
            added = median(seconds) if seconds else 0.0
            cells += [report.milliseconds(added), report.percent(added, usual)]
        rows.append([*key, report.milliseconds(usual), *cells])
    head = ["model", "server", "encoder", "free text understood", "of it", "not", "of it "]
    return report.table(head, rows)


def shown(answers: Sequence[Answer]) -> Iterator[str]:
    """Yield a line for each answer that is another command, made up, or changed."""
    for (model, server), one in counts(answers).items():
        wrong = {
            "another": [a for a in one.of(COMMAND) if a.is_another],
            "made up": one.made_up,
            "changed": one.changed,
            "not understood": [a for a in one.of(COMMAND) if a.meant and not a.meaning],
        }
        for what, own in wrong.items():
            for a in own:
                yield f"{model}, {server}, {what}: {a.clip} ({a.said!r}): {a.written!r}"
