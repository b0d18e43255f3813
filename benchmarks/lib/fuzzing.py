"""What mutated input of any protocol is sent with, and what it may leave: nothing."""

from __future__ import annotations

import asyncio
import importlib
import random
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.lib import report
from benchmarks.lib.report import Outcome
from benchmarks.lib.servers import Watched
from wyoming_whisper.serving.server import Server

HANG_SECONDS = 30.0  # far more than an answer takes; only a hang reaches it
SETTLE_SECONDS = Server.TIDY_SECONDS + 3  # until all are gone, and their memory has been given back
MAX_GROWTH_BYTES = 20_000_000

LENGTHS = re.compile(rb'"((?:data|payload)_length)": (\d{1,9})\b')
LIES = (
    *(b"0", b"1", b"-1", b"65536", b"16777216", b"16777217", b"2147483648", b"4294967296"),
    *(b"9223372036854775808", b"1e3", b"1.5", b"true", b"null", b'"7"', b"[7]", b"{}", b"NaN"),
)
VALUES = re.compile(rb'(": )("[^"]*"|\d+|null|\[[^]]*\])')
REPLACEMENTS = (
    *(b"null", b"true", b"0", b"-1", b"1", b"7", b"1000000000", b"1e400", b"-0.0", b"NaN", b'""'),
    *(b"[]", b"{}", b"[null]", b'{"a": {}}', b'"\\ud800"', b'"' + b"x" * 70_000 + b'"'),
    *(b"[" * 3000 + b"]" * 3000, b"9" * 5000, b'"../../etc/passwd"', b'"\xff\xfe"'),
)


# -- mutations -----------------------------------------------------------------------------


def refitted(seed: bytes, place: re.Match[bytes], value: bytes) -> bytes:
    """Replace a value, and say the right length of its data, so that the value is what is read."""
    changed = seed[: place.start(2)] + value + seed[place.end(2) :]
    headers = [m for m in LENGTHS.finditer(seed, 0, place.start()) if m[1] == b"data_length"]
    line_end = seed.find(b"\n", headers[-1].end()) + 1 if headers else 0
    if not line_end or place.start() - line_end >= int(headers[-1][2]) or place.start() < line_end:
        return changed
    length = int(headers[-1][2]) + len(value) - len(place[2])
    start, end = headers[-1].span(2)
    return changed[:start] + str(length).encode() + changed[end:]


def mutated(seeds: Sequence[bytes], whole: bytes, number: int) -> bytes:
    """Return the random stream `number`: the same for the same seeds."""
    choose = random.Random(number)
    data = whole if choose.random() < 0.01 else choose.choice(seeds)
    for _ in range(choose.randint(1, 4)):
        data = choose.choice(_MUTATIONS)(data, choose, seeds)
    return data


def _cut(data: bytes, choose: random.Random, _: Sequence[bytes]) -> bytes:
    at = choose.randint(0, len(data))
    return data[:at] + data[at + choose.randint(1, 400) :]


def _repeat(data: bytes, choose: random.Random, _: Sequence[bytes]) -> bytes:
    at = choose.randint(0, len(data))
    return data[:at] + data[at : at + choose.randint(1, 400)] + data[at:]


def _flip(data: bytes, choose: random.Random, _: Sequence[bytes]) -> bytes:
    if not data:
        return data
    at = choose.randrange(len(data))
    return data[:at] + bytes([data[at] ^ choose.randint(1, 255)]) + data[at + 1 :]


def _insert(data: bytes, choose: random.Random, _: Sequence[bytes]) -> bytes:
    at = choose.randint(0, len(data))
    return data[:at] + choose.randbytes(choose.randint(1, 8)) + data[at:]


def _shuffle(data: bytes, choose: random.Random, _: Sequence[bytes]) -> bytes:
    """Change the order of events, roughly: a payload may hold a newline, too."""
    lines = data.split(b'{"type"')
    choose.shuffle(lines)
    return b'{"type"'.join(lines)


def _splice(data: bytes, choose: random.Random, seeds: Sequence[bytes]) -> bytes:
    other = choose.choice(seeds)
    return data[: choose.randint(0, len(data))] + other[choose.randint(0, len(other)) :]


def _lie(data: bytes, choose: random.Random, _: Sequence[bytes]) -> bytes:
    places = list(LENGTHS.finditer(data))
    if not places:
        return data
    place = choose.choice(places)
    near = str(int(place[2]) + choose.randint(-3, 3)).encode()
    lie = choose.choice((*LIES, near, near))
    return data[: place.start(2)] + lie + data[place.end(2) :]


def _replace(data: bytes, choose: random.Random, _: Sequence[bytes]) -> bytes:
    places = list(VALUES.finditer(data))
    return refitted(data, choose.choice(places), choose.choice(REPLACEMENTS)) if places else data


_MUTATIONS = (_cut, _repeat, _flip, _insert, _shuffle, _splice, _lie, _replace)


# -- sending -------------------------------------------------------------------------------


@dataclass
class Result:
    """What came of all that was sent."""

    sent: int = 0
    seconds: float = 0.0
    answers: dict[str, int] = field(default_factory=dict)
    """How many were answered how."""
    broken: dict[str, list[int]] = field(default_factory=dict)
    """By what should not be: the numbers of what was sent."""
    honest: int = 0
    """Honest requests in between."""
    trouble: list[str] = field(default_factory=list)
    """Exceptions and errors in the server's log."""
    growth_bytes: int = 0
    """Of the server's resident memory, from the first to the last."""
    leaked: dict[str, int] = field(default_factory=dict)
    """What the server holds more than before: descriptors, tasks."""
    exit_status: int = 0

    @property
    def failures(self) -> list[str]:
        """Promises that were broken, a sentence each."""
        said = [f"{len(n)} {what}: numbers {n[:10]}" for what, n in self.broken.items() if n]
        if self.trouble:
            said.append(f"{len(self.trouble)} exceptions or errors in the log: {self.trouble[:3]}")
        if self.growth_bytes >= MAX_GROWTH_BYTES:
            said.append(f"memory grew by {report.megabytes(self.growth_bytes)}")
        if any(count > 0 for count in self.leaked.values()):
            said.append(f"left behind: {self.leaked}")
        if self.exit_status:
            said.append(f"SIGTERM ended it with exit status {self.exit_status}")
        return said

    def outcome(self, unit: str) -> Outcome:
        """Return what is shown and written; `unit` is what was sent."""
        rows = [
            [unit, str(self.sent)],
            *([f"ended in: {name}", str(count)] for name, count in sorted(self.answers.items())),
            [f"{unit} a second", f"{self.sent / max(self.seconds, 1e-9):.0f}"],
            ["exceptions and errors in the log", str(len(self.trouble))],
            *([what, str(len(numbers))] for what, numbers in self.broken.items()),
            ["honest ones between them", str(self.honest)],
            ["growth of memory (VmRSS)", report.megabytes(self.growth_bytes)],
            *([f"{name} left behind", str(count)] for name, count in self.leaked.items()),
            ["exit status after SIGTERM", str(self.exit_status)],
        ]
        return Outcome([report.table(["", "fuzz"], rows)], asdict(self), self.failures)


class Fuzzer(ABC):
    """Sends over several connections at once."""

    unit: str
    honest_every: int
    wrong = "honest ones were not answered as before"

    def __init__(self, expected: object, *broken: str) -> None:
        """`expected` is the answer to what is honest; `broken` is what should not be."""
        self._expected = expected
        self.result = Result(broken={what: [] for what in (*broken, self.wrong)})

    @abstractmethod
    async def send(self, number: int, data: bytes) -> None:
        """Send one, and note in `result` what came of it."""

    @abstractmethod
    async def honest(self) -> object:
        """Return the answer to something honest."""

    async def run(self, numbered: Iterator[tuple[int, bytes]], workers: int, total: int) -> None:
        bar = importlib.import_module("tqdm").tqdm  # untyped
        with bar(total=total, unit=f" {self.unit}", mininterval=5, smoothing=0.05) as progress:
            await asyncio.gather(*(self._work(numbered, progress) for _ in range(workers)))

    async def _work(self, numbered: Iterator[tuple[int, bytes]], progress: Any) -> None:
        for number, data in numbered:
            await self.send(number, data)
            if number % self.honest_every == 0:
                self.result.honest += 1
                if await self.honest() != self._expected:
                    self.result.broken[self.wrong].append(number)
            progress.update()

    def answered(self, how: str) -> None:
        self.result.answers[how] = self.result.answers.get(how, 0) + 1


def fuzz(
    server: Watched,
    fuzzer: Fuzzer,
    numbered: Iterator[tuple[int, bytes]],
    workers: int,
    total: int,
) -> Result:
    """Send everything, and see what it left; the server is warm, and ends with it."""
    time.sleep(SETTLE_SECONDS)
    before, start = server.counts(), time.perf_counter()
    asyncio.run(fuzzer.run(numbered, workers, total))
    result = fuzzer.result
    result.sent, result.seconds = total, time.perf_counter() - start
    server.answering()
    time.sleep(SETTLE_SECONDS)
    after = server.counts()
    result.growth_bytes = after.resident - before.resident
    result.leaked = after.left_behind(before)
    result.exit_status = server.stopped()
    result.trouble = server.trouble
    return result
