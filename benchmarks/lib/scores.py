"""What servers made of recordings, counted: a result for each recording, and tables of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from statistics import median
from typing import Any

from benchmarks.lib import report
from benchmarks.lib.servers import Memory
from benchmarks.lib.understood import meaning
from benchmarks.lib.words import WordErrors, normalised, paired, word_errors

NOISE = "noise"
COMMAND = "command"


@dataclass(frozen=True)
class Result:
    """What one server made of one recording."""

    model: str
    condition: str
    server: str
    file: str
    lang: str
    """Empty where nobody speaks."""

    kind: str
    said: str
    written: str
    seconds: float
    """From the end of the audio to the transcript."""

    error: str | None = None
    """Why there is no transcript."""

    @property
    def recording(self) -> tuple[str, str, str]:
        return self.model, self.condition, self.file

    @cached_property
    def errors(self) -> WordErrors:
        return word_errors(self.said, self.written, self.lang)

    @property
    def exact(self) -> bool:
        return not self.errors.errors

    @property
    def has_text(self) -> bool:
        return bool(normalised(self.written))

    @property
    def is_meant(self) -> bool:
        """Whether what is said is a command that Home Assistant recognises."""
        return self.kind == COMMAND and meaning(self.said, self.lang) is not None

    @property
    def is_understood(self) -> bool:
        return self.is_meant and meaning(self.written, self.lang) == meaning(self.said, self.lang)

    @property
    def is_another(self) -> bool:
        """Whether Home Assistant would do something else than what it was told."""
        return self.is_meant and meaning(self.written, self.lang) not in (
            None,
            meaning(self.said, self.lang),
        )


class Score:
    """The results of one server, counted."""

    def __init__(self, results: Sequence[Result]) -> None:
        self.results = results
        self.spoken = [one for one in results if one.kind != NOISE]
        self.noises = [one for one in results if one.kind == NOISE]
        self.commands = [one for one in results if one.is_meant]

    @property
    def errors(self) -> WordErrors:
        return sum((one.errors for one in self.spoken), WordErrors())

    @property
    def exact(self) -> int:
        return sum(one.exact for one in self.spoken)

    @property
    def understood(self) -> int:
        return sum(one.is_understood for one in self.commands)

    @property
    def another(self) -> int:
        return sum(one.is_another for one in self.commands)

    @property
    def invented(self) -> int:
        """Noises that gave any text."""
        return sum(one.has_text for one in self.noises)

    @property
    def failed(self) -> int:
        return sum(one.error is not None for one in self.results)

    @property
    def seconds(self) -> list[float]:
        """Of what was said: noise is often answered without asking the model."""
        return [one.seconds for one in self.spoken if one.error is None]


@dataclass(frozen=True)
class Report:
    """All that a run found."""

    results: Sequence[Result]
    memories: Mapping[tuple[str, str], Memory]
    """By model and server, after its last recording."""

    @property
    def groups(self) -> list[tuple[str, str]]:
        """Return each model with each condition, in the order that they were heard in."""
        return list(dict.fromkeys((one.model, one.condition) for one in self.results))

    def of(self, model: str, condition: str) -> dict[str, list[Result]]:
        """Return a group's results by server."""
        found: dict[str, list[Result]] = {}
        for one in self.results:
            if (one.model, one.condition) == (model, condition):
                found.setdefault(one.server, []).append(one)
        return found


# -- tables --------------------------------------------------------------------------------


def tables(found: Report) -> Iterator[str]:
    """Yield headings and tables, for each model under each condition."""
    for model, condition in found.groups:
        by_server = found.of(model, condition)
        yield f"## {model}, {condition}"
        yield summary(by_server, {s: m for (of, s), m in found.memories.items() if of == model})
        for head, by in (("language", lambda one: one.lang), ("kind", lambda one: one.kind)):
            yield from breakdown(by_server, head, by)
        if len(by_server) > 1:
            yield beside(by_server)


def summary(by_server: Mapping[str, Sequence[Result]], memories: Mapping[str, Memory]) -> str:
    """Return a table with a row for each server."""
    head = ["server", "word errors", "words", "exact", "of", "understood", "of", "another command"]
    head += ["noise with text", "of", "failed", "median s", "95 % s", "resident", "peak"]
    rows = []
    for server, results in by_server.items():
        score, memory = Score(results), memories.get(server)
        errors, seconds = score.errors, score.seconds
        counts = (score.exact, len(score.spoken), score.understood, len(score.commands))
        more = (score.another, score.invented, len(score.noises), score.failed)
        rows.append(
            [
                server,
                report.percent(errors.errors, errors.words),
                str(errors.words),
                *map(str, counts + more),
                f"{median(seconds):.3f}" if seconds else report.NOTHING,
                f"{report.percentile(seconds, 95):.3f}" if seconds else report.NOTHING,
                report.megabytes(memory.resident) if memory else report.NOTHING,
                report.megabytes(memory.peak) if memory else report.NOTHING,
            ]
        )
    return report.table(head, rows)


def breakdown(
    by_server: Mapping[str, Sequence[Result]], head: str, by: Callable[[Result], str]
) -> Iterator[str]:
    """Yield word errors, and commands understood, in a row for each value of `by`."""
    scores = {
        server: {
            name: Score([one for one in results if by(one) == name])
            for name in sorted({by(one) for one in results if one.kind != NOISE})
        }
        for server, results in by_server.items()
    }
    first = next(iter(scores.values()))
    rows = [
        [name, str(len(score.spoken)), str(score.errors.words)]
        + [
            report.percent(own[name].errors.errors, own[name].errors.words)
            for own in scores.values()
        ]
        for name, score in first.items()
    ]
    yield f"Word errors by {head}:"
    yield report.table([head, "recordings", "words", *scores], rows)
    rows = [
        [name, str(len(score.commands)), *(str(own[name].understood) for own in scores.values())]
        for name, score in first.items()
        if score.commands
    ]
    if rows:
        yield f"Commands understood by {head}:"
        yield report.table([head, "commands", *scores], rows)


def beside(by_server: Mapping[str, Sequence[Result]]) -> str:
    """Return how every server but the first compares with that, recording by recording."""
    reference, *others = by_server
    head = [f"beside {reference}", "fewer word errors", "more", "points", "95 % of draws"]
    head += ["understood instead", "not understood instead"]
    rows = []
    for server in others:
        pairs = list(_pairs(by_server[server], by_server[reference]))
        spoken = [(one.errors, other.errors) for one, other in pairs if one.kind != NOISE]
        if not spoken:
            continue
        found = paired([one for one, _ in spoken], [other for _, other in spoken])
        gained = sum(one.is_understood > other.is_understood for one, other in pairs)
        lost = sum(one.is_understood < other.is_understood for one, other in pairs)
        interval = f"{found.low:+.1f} to {found.high:+.1f}"
        counts = [str(found.better), str(found.worse), f"{found.points:+.2f}", interval]
        rows.append([server, *counts, str(gained), str(lost)])
    return report.table(head, rows)


def _pairs(one: Sequence[Result], other: Sequence[Result]) -> Iterator[tuple[Result, Result]]:
    by_recording = {result.recording: result for result in other}
    for result in one:
        if result.recording in by_recording:
            yield result, by_recording[result.recording]


def shown(results: Sequence[Result]) -> Iterator[str]:
    """Yield lines of what is worth reading: failures, noise with text, and other commands."""
    for one in results:
        where = f"{one.model}, {one.condition}, {one.server}: {one.file}"
        if one.error is not None:
            yield f"{where} failed: {one.error}"
        elif one.kind == NOISE and one.has_text:
            yield f"{where} is noise: {one.written!r}"
        elif one.is_another:
            done = meaning(one.written, one.lang)
            yield f"{where} is {one.said!r}: {one.written!r}, {done}"


# -- files ---------------------------------------------------------------------------------


def as_json(found: Report) -> dict[str, Any]:
    """Return what --json writes of a report."""
    return {
        "results": [asdict(one) for one in found.results],
        "memory": [
            {"model": model, "server": server, **asdict(memory)}
            for (model, server), memory in found.memories.items()
        ],
    }
