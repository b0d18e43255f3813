"""Mutated input of any protocol: how it is made, sent, and what it may leave: nothing."""

from __future__ import annotations

import asyncio
import importlib
import random
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.lib import report
from benchmarks.lib.report import Outcome
from benchmarks.lib.servers import Remains, Watched
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


def replaced(seed: bytes, place: re.Match[bytes], value: bytes) -> bytes:
    """Return the seed with another value in a place."""
    return seed[: place.start(2)] + value + seed[place.end(2) :]


def refitted(seed: bytes, place: re.Match[bytes], value: bytes) -> bytes:
    """Replace a value, and say the right length of its data, so that the value is what is read."""
    changed = replaced(seed, place, value)
    headers = [m for m in LENGTHS.finditer(seed, 0, place.start()) if m[1] == b"data_length"]
    line_end = seed.find(b"\n", headers[-1].end()) + 1 if headers else 0
    if not line_end or place.start() - line_end >= int(headers[-1][2]) or place.start() < line_end:
        return changed
    length = int(headers[-1][2]) + len(value) - len(place[2])
    return replaced(changed, headers[-1], str(length).encode())


class Mutator:
    """Changes streams at random, the same way for the same seeds."""

    def __init__(self, seeds: Sequence[bytes], whole: bytes) -> None:
        """`whole` is a stream that is rarely taken: it is long."""
        self._seeds, self._whole = seeds, whole
        self._draw = random.Random(0)
        self._mutations: tuple[Callable[[bytes], bytes], ...] = (
            *(self._cut, self._repeat, self._flip, self._insert, self._shuffle, self._splice),
            *(self._lie, self._replace),
        )

    def stream(self, number: int) -> bytes:
        """Return the random stream `number`."""
        self._draw = draw = random.Random(number)
        data = self._whole if draw.random() < 0.01 else draw.choice(self._seeds)
        for _ in range(draw.randint(1, 4)):
            data = draw.choice(self._mutations)(data)
        return data

    def _at(self, data: bytes) -> int:
        return self._draw.randint(0, len(data))

    def _cut(self, data: bytes) -> bytes:
        at = self._at(data)
        return data[:at] + data[at + self._draw.randint(1, 400) :]

    def _repeat(self, data: bytes) -> bytes:
        at = self._at(data)
        return data[:at] + data[at : at + self._draw.randint(1, 400)] + data[at:]

    def _flip(self, data: bytes) -> bytes:
        at = self._at(data[1:])
        flipped = bytes(byte ^ self._draw.randint(1, 255) for byte in data[at : at + 1])
        return data[:at] + flipped + data[at + 1 :]

    def _insert(self, data: bytes) -> bytes:
        at = self._at(data)
        return data[:at] + self._draw.randbytes(self._draw.randint(1, 8)) + data[at:]

    def _shuffle(self, data: bytes) -> bytes:
        """Change the order of events, roughly: a payload may hold a newline, too."""
        lines = data.split(b'{"type"')
        self._draw.shuffle(lines)
        return b'{"type"'.join(lines)

    def _splice(self, data: bytes) -> bytes:
        other = self._draw.choice(self._seeds)
        return data[: self._at(data)] + other[self._at(other) :]

    def _lie(self, data: bytes) -> bytes:
        if not (places := list(LENGTHS.finditer(data))):
            return data
        place = self._draw.choice(places)
        near = str(int(place[2]) + self._draw.randint(-3, 3)).encode()
        return replaced(data, place, self._draw.choice((*LIES, near, near)))

    def _replace(self, data: bytes) -> bytes:
        if not (places := list(VALUES.finditer(data))):
            return data
        return refitted(data, self._draw.choice(places), self._draw.choice(REPLACEMENTS))


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
    remains: Remains = field(default_factory=Remains)

    def answered(self, how: str) -> None:
        self.answers[how] = self.answers.get(how, 0) + 1

    def outcome(self, unit: str) -> Outcome:
        """Return what is shown and written; `unit` is what was sent."""
        rows = [
            [unit, str(self.sent)],
            *([f"ended in: {name}", str(count)] for name, count in sorted(self.answers.items())),
            [f"{unit} a second", f"{self.sent / max(self.seconds, 1e-9):.0f}"],
            *([what, str(len(numbers))] for what, numbers in self.broken.items()),
            ["honest ones between them", str(self.honest)],
            *self.remains.rows(),
        ]
        failures = report.counted({f"{what}: numbers": n for what, n in self.broken.items()})
        failures += self.remains.failures(MAX_GROWTH_BYTES)
        return Outcome([report.table(["", "fuzz"], rows)], asdict(self), failures)


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

    def fuzz(
        self, server: Watched, numbered: Iterator[tuple[int, bytes]], workers: int, total: int
    ) -> Outcome:
        """Send everything, and see what it left; the server is warm, and ends with it."""
        time.sleep(SETTLE_SECONDS)
        before, start = server.counts(), time.perf_counter()
        asyncio.run(self.run(numbered, workers, total))
        self.result.sent, self.result.seconds = total, time.perf_counter() - start
        time.sleep(SETTLE_SECONDS)
        self.result.remains = server.remains(before)
        return self.result.outcome(self.unit)
