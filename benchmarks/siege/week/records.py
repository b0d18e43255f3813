"""What came of the week, and whether that is as promised."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from benchmarks.lib import report
from benchmarks.siege.week.plan import DAY

MAX_GROWTH_BYTES = 5_000_000
"""Of what the process has allocated (mallinfo2), from rest after its first hour to the end."""

MAX_KEPT_BYTES = 64_000_000
"""Of its own memory in RAM (RssAnon), likewise. glibc keeps up to 64 MB that are free at the top of
a thread's arena, where malloc_trim doesn't reach: with the same that is allocated, RssAnon of a
server that has unloaded its model was 51 MB or 90 MB, from one time to the next."""

MAX_MORE_BLOCKS = 50_000
"""Of Python's memory, likewise, which is not in mallinfo2's: some 5 MB."""

TOLERATED = {
    "descriptors": 1,  # an upstream that is away is asked every now and then
    "tasks": 1,  # the same
    "threads": 4,  # asyncio's pool grows to cores + 4 as many are needed at once
}
"""How much more than after the first hour."""


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
    allocated: int | None = None
    """Bytes that are allocated by malloc, by mallinfo2; None where glibc has none."""
    blocks: int | None = None
    """Of Python's allocator."""


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
    of_commands: bool = True
    """Whether it excuses commands, or other requests alone."""
    end: float = float("inf")


class Excuses:
    """All of them, as they begin and end."""

    def __init__(self) -> None:
        self._excuses: list[Excuse] = []
        self.used: Counter[str] = Counter()

    def begin(self, excuse: Excuse) -> None:
        self._excuses.append(excuse)

    def end(self, name: str, now: float) -> None:
        self._excuses = [
            replace(one, end=now) if one.name == name and one.end == float("inf") else one
            for one in self._excuses
        ]

    def excuse(self, begin: float, end: float, error: str, *, is_command: bool = True) -> bool:
        """Whether a request that failed so, begun and ended then, was bound to."""
        for one in self._excuses:
            if is_command and not one.of_commands:
                continue
            overlaps = begin <= one.end and end >= one.begin
            was_begun = is_command and one.spares_begun and begin < one.begin
            if overlaps and not was_begun and re.search(one.errors, error, re.IGNORECASE):
                self.used[one.name] += 1
                return True
        return False


ALLOWED_LINES: Mapping[str, str] = {
    r"WARNING tcp://\S+ is not asked for now: ": "the upstream comes and goes",
    r"WARNING can't get names from Home Assistant \(.*\); trying again": (
        "Home Assistant restarts"
    ),
    r"WARNING \S+ can't be downloaded from .*; asking pip's index": "no hub at first",
    r"ERROR NOT READY: .*\(trying again in the background\)": "no hub at first",
    r"WARNING 127\.0\.0\.1: a request failed: \S+ can't be downloaded": "no hub at first",
    r"WARNING \d+ still (spoke|waited for an answer) .*\(--drain-seconds \d+\)": (
        "the server restarts"
    ),
    r"WARNING 127\.0\.0\.1: a request failed: the server is shutting down": "the server restarts",
    r"WARNING 127\.0\.0\.66: ": "a client sends garbage",
    r"WARNING not announced (until this machine has an address|on the network)": (
        "the address changes"
    ),
    r"WARNING Error with socket \d+ .*unreachable": "the address changes",
}
"""Lines of the log at WARNING or above, as patterns, and what in the week asks for them."""


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
    requests: dict[str, int] = field(default_factory=dict)
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

    def judge_log(self, log: str) -> None:
        """Take in what a log has that something asks for, that nothing does, and past the log:
        exceptions, warnings of Python, cries of libraries.
        """
        logged = re.compile(r"(?:DEBUG|INFO|WARNING|ERROR|CRITICAL) |tasks: |allocated: |\s|$")
        self.unhandled = [line for line in log.splitlines() if not logged.match(line)]
        self.allowed = dict.fromkeys(ALLOWED_LINES.values(), 0)
        for line in re.findall(r"^(?:WARNING|ERROR|CRITICAL) .*", log, re.MULTILINE):
            causes = [ALLOWED_LINES[p] for p in ALLOWED_LINES if re.match(p, line)]
            if causes:
                self.allowed[causes[0]] += 1
            else:
                self.unexpected.append(line)

    def answered(self, kind: str) -> None:
        """Count a request, which is no command."""
        self.requests[kind] = self.requests.get(kind, 0) + 1

    def day(self, at: float) -> Day:
        """Return the day of a time of the household."""
        return self.days[min(int(at // DAY), len(self.days) - 1)]

    def details(self, most: int) -> list[str]:
        """Return what went wrong, at most so many of each kind."""
        kinds = (self.lost, self.wrong, self.failed, self.unexpected)
        return [line for kind in kinds for line in kind[:most]]

    @property
    def failures(self) -> list[str]:
        """Promises that were broken, a sentence each."""
        told = report.counted(
            {
                "commands were lost": self.lost,
                "commands had another text than in quiet": self.wrong,
                "other requests failed": self.failed,
                "lines of the log are of exceptions that nobody handled": self.unhandled,
                "lines of the log at WARNING or above were not asked for": self.unexpected,
                "things did not happen as they should": self.missing,
            }
        )
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
    first = next((held for held in rest[:-1] if held.pid == end.pid), None)
    if first is None:
        yield "what the last process holds at rest was measured once only"
        return
    for what, before, after, most in _sizes(first, end):
        if after - before > most:
            yield f"{what} at rest grew from {before / 1e6:.1f} to {after / 1e6:.1f} million"
    for name, more in TOLERATED.items():
        before, after = getattr(first, name), getattr(end, name)
        if after > before + more:
            yield f"{name} at rest grew from {before} to {after}"


def _sizes(first: Held, end: Held) -> Iterator[tuple[str, int, int, int]]:
    """Yield what is measured, how much it was and is, and by how much it may grow."""
    yield "bytes of memory", first.own, end.own, MAX_KEPT_BYTES
    if first.allocated is not None and end.allocated is not None:
        yield "bytes allocated", first.allocated, end.allocated, MAX_GROWTH_BYTES
    if first.blocks is not None and end.blocks is not None:
        yield "Python's blocks", first.blocks, end.blocks, MAX_MORE_BLOCKS


# -- tables --------------------------------------------------------------------------------


def show(week: Week) -> str:
    """Return the tables: of the days, of what was held at rest, of what happened."""
    days = [day_row(number, day) for number, day in enumerate(week.days, 1)]
    return "\n\n".join([report.table(DAY_HEAD, days), _rest(week.rest), _happened(week)])


DAY_HEAD = (
    *("day", "commands", "right", "excused", "vanished", "median", "95 %", "describe", "95 %"),
    *("wakes", "own memory", "descriptors", "threads", "tasks"),
)


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


def _rest(rest: Sequence[Held]) -> str:
    head = ("at rest", "own memory", "Pss", "allocated", "Python's blocks")
    rows = [
        [
            str(number),
            *map(report.megabytes, (held.own, held.proportional)),
            report.NOTHING if held.allocated is None else f"{held.allocated / 1e6:.1f} MB",
            report.NOTHING if held.blocks is None else str(held.blocks),
            *map(str, (held.descriptors, held.threads, held.tasks, held.pid)),
        ]
        for number, held in enumerate(rest, 1)
    ]
    return report.table((*head, "descriptors", "threads", "tasks", "process"), rows)


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
