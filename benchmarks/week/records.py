"""What came of the week, and whether that is as promised."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from benchmarks import report
from benchmarks.week.plan import DAY

MAX_GROWTH_BYTES = 10_000_000
"""Of the process's own memory (RssAnon), from rest after its first hour to rest at the end."""

MAX_MORE_THREADS = 4
"""asyncio's pool has as many threads as were needed at once, cores + 4 at most: not each is there
after an hour."""


@dataclass(frozen=True)
class Held:
    """What the server process holds at one moment."""

    own: int
    """Bytes of memory that are its own and in no file (RssAnon)."""
    proportional: int
    """Bytes of memory, what is shared divided among those who share it (Pss)."""
    descriptors: int
    threads: int
    tasks: int
    pid: int


@dataclass
class Day:
    """One row."""

    commands: int = 0
    """Those whose client waited for the answer."""
    right: int = 0
    excused: int = 0
    """Answered with an error that something asked for."""
    vanished: int = 0
    """Begun by clients that then went away."""
    seconds: list[float] = field(default_factory=list)
    """From audio-stop to transcript, of those that were right."""
    describes: int = 0
    describe_seconds: list[float] = field(default_factory=list)
    wakes: int = 0
    held: Held | None = None
    """In its last hour."""


@dataclass(frozen=True)
class Excuse:
    """A time in which some requests may fail: from `begin` to `end`, of a monotonic clock."""

    name: str
    begin: float
    errors: str
    """What a failure must say, a regular expression."""
    spares_begun: bool = False
    """Whether requests that were begun before it must be answered all the same."""
    end: float = float("inf")


class Excuses:
    """All of them, as they begin and end."""

    def __init__(self) -> None:
        self._excuses: list[Excuse] = []
        self.used: Counter[str] = Counter()

    def begin(self, name: str, now: float, errors: str, *, spares_begun: bool = False) -> None:
        self._excuses.append(Excuse(name, now, errors, spares_begun))

    def end(self, name: str, now: float) -> None:
        self._excuses = [
            Excuse(one.name, one.begin, one.errors, one.spares_begun, now)
            if one.name == name and one.end == float("inf")
            else one
            for one in self._excuses
        ]

    def excuse(self, begin: float, end: float, error: str) -> bool:
        """Whether a request that failed so, begun and ended then, was bound to."""
        for one in self._excuses:
            overlaps = begin <= one.end and end >= one.begin
            was_begun = one.spares_begun and begin < one.begin
            if overlaps and not was_begun and re.search(one.errors, error, re.IGNORECASE):
                self.used[one.name] += 1
                return True
        return False


@dataclass(frozen=True)
class AllowedLine:
    """A line of the log at WARNING or above that something in the week asks for."""

    pattern: str
    because: str


ALLOWED_LINES = (
    AllowedLine(r"WARNING tcp://\S+ is not asked for now: ", "the upstream comes and goes"),
    AllowedLine(
        r"WARNING Home Assistant's names can't be had now \(.*\); it is tried again",
        "Home Assistant restarts",
    ),
    AllowedLine(r"ERROR NOT READY: .*\(trying again in the background\)", "no hub at first"),
    AllowedLine(
        r"WARNING 127\.0\.0\.1: a request failed: \S+ can't be downloaded", "no hub at first"
    ),
    AllowedLine(r"WARNING 127\.0\.0\.66: ", "a client sends garbage"),
    AllowedLine(
        r"WARNING not announced (until this machine has an address|on the network)",
        "the address changes",
    ),
)

_GRAVE = re.compile(r"^(?:WARNING|ERROR|CRITICAL) .*", re.MULTILINE)
_UNHANDLED = re.compile(
    r"^(?:Traceback .*|.*\b(?:never retrieved|never awaited|was destroyed)\b.*|"
    r"(?:Fatal Python error|Segmentation fault).*|\S*Warning: .*|.*: \w+Warning: .*)",
    re.MULTILINE,
)


def unhandled(log: str) -> list[str]:
    """Return the lines of exceptions that nobody handled."""
    return [line.strip() for line in _UNHANDLED.findall(log)]


def unexpected(log: str) -> list[str]:
    """Return the lines at WARNING or above that nothing asks for."""
    lines = _GRAVE.findall(log)
    return [line for line in lines if not any(re.match(a.pattern, line) for a in ALLOWED_LINES)]


def allowed(log: str) -> dict[str, int]:
    """Return how often each allowed line is there, by its cause."""
    lines = _GRAVE.findall(log)
    return {
        one.because: sum(bool(re.match(one.pattern, line)) for line in lines)
        for one in ALLOWED_LINES
    }


@dataclass
class Week:
    """Everything that came of it."""

    days: list[Day]
    lost: list[str] = field(default_factory=list)
    """Commands without a text, or an error that nothing asked for."""
    wrong: list[str] = field(default_factory=list)
    """Commands with another text than in quiet."""
    failed: list[str] = field(default_factory=list)
    """Other requests that failed, though nothing asked for it."""
    excused: dict[str, int] = field(default_factory=dict)
    """Requests that failed as something asked for, by what."""
    requests: Counter[str] = field(default_factory=Counter)
    """How many of each kind were answered, commands aside."""
    happened: dict[str, str] = field(default_factory=dict)
    """What is known to have happened."""
    missing: list[str] = field(default_factory=list)
    """What should have happened, and didn't: then nothing is proven of it."""
    rest: list[Held] = field(default_factory=list)
    """At rest: after an hour of a process, and at the end."""
    unhandled: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    allowed: dict[str, int] = field(default_factory=dict)
    exit_status: int = 0
    stopped_seconds: float = 0.0
    """For how long in all the household's clock stood still."""

    def day(self, at: float) -> Day:
        """Return the day of a time of the household."""
        return self.days[min(int(at // DAY), len(self.days) - 1)]

    @property
    def failures(self) -> list[str]:
        """Promises that were broken, a sentence each."""
        kinds = (
            ("commands were lost", self.lost),
            ("commands had another text than in quiet", self.wrong),
            ("other requests failed", self.failed),
            ("lines of the log are of exceptions that nobody handled", self.unhandled),
            ("lines of the log at WARNING or above were not asked for", self.unexpected),
            ("things did not happen as they should", self.missing),
        )
        told = [f"{len(what)} {name}, such as: {what[0]}" for name, what in kinds if what]
        told += _grown(self.rest)
        if not sum(day.right for day in self.days):
            told.append("no command was answered")
        if self.exit_status:
            told.append(f"SIGTERM ended the server with exit status {self.exit_status}")
        return told


def _grown(rest: Sequence[Held]) -> Iterator[str]:
    """Yield what the last process holds at the end more than after its first hour."""
    if len(rest) < 2:
        yield "what is held at rest was not measured twice"
        return
    end = rest[-1]
    first = next((held for held in rest if held.pid == end.pid and held is not end), None)
    if first is None:
        yield "what the last process holds at rest was measured once only"
        return
    if end.own - first.own > MAX_GROWTH_BYTES:
        before, after = report.megabytes(first.own), report.megabytes(end.own)
        yield f"memory at rest grew from {before} to {after}"
    for name, more in (("descriptors", 0), ("tasks", 0), ("threads", MAX_MORE_THREADS)):
        before, after = getattr(first, name), getattr(end, name)
        if after > before + more:
            yield f"{name} at rest grew from {before} to {after}"


# -- tables --------------------------------------------------------------------------------


def show(week: Week) -> str:
    """Return the tables: of the days, of what was held at rest, of what happened."""
    return "\n\n".join([_days(week.days), _rest(week.rest), _happened(week)])


DAY_HEAD = (
    *("day", "commands", "right", "excused", "vanished", "median", "95 %", "describe", "95 %"),
    *("wakes", "own memory", "descriptors", "threads", "tasks"),
)


def _days(days: Sequence[Day]) -> str:
    rows = [day_row(number, day) for number, day in enumerate(days, 1)]
    return report.table(DAY_HEAD, rows)


def day_row(number: int, day: Day) -> list[str]:
    """Return one row of the table of days."""
    held = day.held
    return [
        *(str(number), str(day.commands), str(day.right), str(day.excused), str(day.vanished)),
        *(_time(day.seconds, 50), _time(day.seconds, 95)),
        *(str(day.describes), _time(day.describe_seconds, 95), str(day.wakes)),
        report.megabytes(held.own) if held else report.NOTHING,
        *(str(getattr(held, name, report.NOTHING)) for name in ("descriptors", "threads", "tasks")),
    ]


def _time(seconds: Sequence[float], percent: float) -> str:
    return report.milliseconds(report.percentile(seconds, percent)) if seconds else report.NOTHING


def _rest(rest: Iterable[Held]) -> str:
    head = ["at rest", "own memory", "Pss", "descriptors", "threads", "tasks", "process"]
    rows = [
        [
            str(number),
            report.megabytes(held.own),
            report.megabytes(held.proportional),
            *(str(value) for value in (held.descriptors, held.threads, held.tasks, held.pid)),
        ]
        for number, held in enumerate(rest, 1)
    ]
    return report.table(head, rows)


def _happened(week: Week) -> str:
    rows = [
        ["commands lost", str(len(week.lost))],
        ["commands with another text than in quiet", str(len(week.wrong))],
        ["other requests failed", str(len(week.failed))],
        *([f"answered: {name}", str(count)] for name, count in week.requests.items()),
        *([f"excused: {name}", str(count)] for name, count in week.excused.items()),
        *([f"in the log: {name}", str(count)] for name, count in week.allowed.items()),
        ["in the log, not asked for", str(len(week.unexpected))],
        ["in the log, of exceptions that nobody handled", str(len(week.unhandled))],
        *([name, how] for name, how in week.happened.items()),
        ["minutes in which the household's clock stood still", f"{week.stopped_seconds / 60:.1f}"],
        ["exit status after SIGTERM", str(week.exit_status)],
    ]
    return report.table(["", "the week"], rows)
