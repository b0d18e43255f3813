"""Thousands of commands beside all who ask for something else: none lost, none wrong, no growth.

Speakers say the clips of tests/audio to our server with `tiny.en`, all at once rather than at the
pace of speech (real time would take hours, and adds nothing but waiting). Meanwhile Home Assistant
asks what the server is, the page and Prometheus ask, clients leave in the middle of a command, and
some send garbage. The first answer to a clip, with nobody else there, is what every later one must
be. All the while it is read what the process holds: memory, file
descriptors, threads, tasks. At rest is when the server has given back what was free; every clip has
been said by then: the warm-up.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import itertools
import random
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from aiohttp import ClientError, ClientSession

from benchmarks.lib import report
from benchmarks.lib.attackers import ATTACKS, Attack, attack
from benchmarks.lib.client import describe
from benchmarks.lib.clips import BUNDLED_CLIPS, Clip, read_clips
from benchmarks.lib.options import add_number
from benchmarks.lib.report import Outcome
from benchmarks.lib.servers import Counts, Remains, Watched, free_port, watched
from benchmarks.lib.speakers import Speakers, Toll
from wyoming_whisper.serving.server import Server

REST_SECONDS = Server.TIDY_SECONDS + 3  # until the server has given back what is free
MAX_GROWTH_BYTES = 5_000_000
"""Of the memory, from rest before to rest after."""
MAX_SLOPE_BYTES = 1_000_000
"""Of the memory held under load, per 1,000 utterances; what chance may do to it is granted."""


# -- who else is there ---------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """Where a server is asked."""

    uri: str
    http: str


async def _fetch(place: Place, path: str) -> None:
    async with ClientSession(place.http) as session, session.get(path) as answer:
        if answer.status != 200:
            raise ConnectionError(f"{path} was answered with {answer.status}")


NEIGHBOURS: dict[str, tuple[float, Callable[[Place], Awaitable[object]]]] = {
    "describe": (0.2, lambda place: describe(place.uri)),
    "the page's state": (1.0, lambda place: _fetch(place, "/state")),
    "metrics": (1.0, lambda place: _fetch(place, "/metrics")),
    "health": (1.0, lambda place: _fetch(place, "/health")),
}
"""How many seconds apart each asks, and what it does; every failure counts."""

RUDE = tuple(kind for kind in ATTACKS if kind.name in ("commands left", "garbage"))
RUDE_SECONDS = 1.0


class Neighbours:
    """All who ask beside the speakers, until they are cancelled."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.answered: Counter[str] = Counter()
        self.failed: list[str] = []

    async def run(self) -> None:
        asking = [self._ask(name, *how) for name, how in NEIGHBOURS.items()]
        await asyncio.gather(*asking, *(self._be_rude(kind) for kind in RUDE))

    async def _ask(
        self, name: str, seconds: float, request: Callable[[Place], Awaitable[object]]
    ) -> None:
        while True:
            try:
                await request(self.place)
                self.answered[name] += 1
            except (OSError, ClientError, ValueError, asyncio.TimeoutError) as error:
                self.failed.append(f"{name}: {error!r}")
            await asyncio.sleep(seconds)

    async def _be_rude(self, kind: Attack) -> None:
        choose = random.Random(kind.name)
        while True:
            try:
                await attack(self.place.uri, kind, choose)
            except OSError:  # thrown out, as it should be
                self.answered[f"{kind.name}, thrown out"] += 1
            self.answered[kind.name] += 1
            await asyncio.sleep(RUDE_SECONDS)


# -- what comes of it ----------------------------------------------------------------------


@dataclass(frozen=True)
class Moment:
    """What the process held when so many utterances were answered."""

    seconds: float
    utterances: int
    counts: Counts


@dataclass
class Result:
    """What came of the utterances."""

    toll: Toll = field(default_factory=Toll)
    moments: list[Moment] = field(default_factory=list)
    remains: Remains = field(default_factory=Remains)
    answered: dict[str, int] = field(default_factory=dict)
    """Requests of neighbours, by what they are."""
    failed: list[str] = field(default_factory=list)
    """Requests of neighbours without the right answer."""

    @property
    def slope_bytes(self) -> tuple[float, float]:
        """The growth under load per 1,000 utterances, and its standard error, of a line fitted.

        Fitted to the second half: until then allocators find their size.
        """
        loaded = self.moments[len(self.moments) // 2 : -1]
        if len(loaded) < 8:
            return 0.0, float("inf")
        at = np.array([moment.utterances / 1000 for moment in loaded])
        held = np.array([float(moment.counts.resident) for moment in loaded])
        (slope, _), covariance = np.polyfit(at, held, 1, cov=True)
        return float(slope), float(covariance[0, 0] ** 0.5)

    @property
    def slope(self) -> str:
        slope, error = self.slope_bytes
        return f"{slope / 1e6:.1f} ± {error / 1e6:.1f} MB per 1,000 utterances"

    @property
    def failures(self) -> list[str]:
        """Promises that were broken, a sentence each."""
        said = self.toll.failures + report.counted({"other requests failed": self.failed})
        said += self.remains.failures(MAX_GROWTH_BYTES)
        slope, error = self.slope_bytes
        if slope - 2 * error >= MAX_SLOPE_BYTES:
            said.append(f"memory under load grew by {self.slope}")
        threads = [self.moments[at].counts.threads for at in (0, -1)]
        if threads[1] > threads[0]:
            said.append(f"threads at rest grew from {threads[0]} to {threads[1]}")
        return said

    def tables(self) -> list[str]:
        median, most = self.toll.times
        rows = [
            ["utterances", str(len(self.toll.seconds))],
            ["lost", str(len(self.toll.lost))],
            ["wrong: another text than the first time", str(len(self.toll.wrong))],
            ["minutes", f"{self.moments[-1].seconds / 60:.1f}"],
            ["audio-stop to transcript, median", median],
            ["audio-stop to transcript, 95 %", most],
            *([f"answered: {name}", str(count)] for name, count in self.answered.items()),
            ["other requests failed", str(len(self.failed))],
            ["growth of memory under load, second half", self.slope],
            *self.remains.rows(),
        ]
        held = []
        for name in ("resident", "descriptors", "threads", "tasks"):
            values = [getattr(moment.counts, name) for moment in self.moments]
            shown = report.megabytes if name == "resident" else str
            held.append([name, *map(shown, (values[0], max(values), values[-1]))])
        head = ["held by the process", "at rest before", "most", "at rest after"]
        return [report.table(["", "soak"], rows), report.table(head, held)]


class Soak:
    """Speakers, who each wait for their answer, and one who looks at the process meanwhile."""

    def __init__(self, server: Watched, http: str, total: int) -> None:
        self._server = server
        self._http = http
        self._total = total
        self.result = Result()

    async def run(self, speakers: int) -> None:
        """Say everything; at rest before and after, the process is looked at, too."""
        people = await Speakers.who_know(self._server.uri, read_clips(BUNDLED_CLIPS))
        neighbours = Neighbours(Place(self._server.uri, self._http))
        # All at once, so that every thread there can be is there before they are counted.
        await asyncio.gather(*(people.say(clip) for clip in people.clips[:speakers]))
        await asyncio.gather(*(ask(neighbours.place) for _, ask in NEIGHBOURS.values()))
        await asyncio.sleep(REST_SECONDS)
        start = time.perf_counter()
        await self._look(start)
        beside = asyncio.create_task(neighbours.run())
        await self._speak(people, speakers, start)
        beside.cancel()
        await asyncio.gather(beside, return_exceptions=True)
        self.result.answered, self.result.failed = dict(neighbours.answered), neighbours.failed
        await asyncio.sleep(REST_SECONDS)
        await self._look(start)

    async def _speak(self, people: Speakers, speakers: int, start: float) -> None:
        clips, toll = self._clips(people), self.result.toll
        speaking = [asyncio.create_task(people.speak(clips, toll)) for _ in range(speakers)]
        every = max(1, self._total // 200)
        while not all(task.done() for task in speaking):
            await asyncio.wait(speaking, timeout=0.2)
            if len(toll.seconds) >= self.result.moments[-1].utterances + every:
                await self._look(start)
        await asyncio.gather(*speaking)

    def _clips(self, people: Speakers) -> Iterator[Clip]:
        bar = importlib.import_module("tqdm").tqdm  # untyped
        clips = itertools.islice(itertools.cycle(people.clips), self._total)
        yield from bar(clips, total=self._total, unit=" utterances", mininterval=5)

    async def _look(self, start: float) -> None:
        counts = await asyncio.to_thread(self._server.counts)
        seconds = time.perf_counter() - start
        self.result.moments.append(Moment(seconds, len(self.result.toll.seconds), counts))


# -- the suite -----------------------------------------------------------------------------


def add_options(parser: argparse.ArgumentParser) -> None:
    add_number(parser, "--utterances", 5000)
    add_number(parser, "--speakers", 4)


def run(args: argparse.Namespace) -> Outcome:
    """Speak; what is lost, wrong or grows is a failure."""
    port, uri = free_port(), f"tcp://127.0.0.1:{free_port()}"
    flags = ("--zeroconf", "off", "--http-port", str(port))
    with tempfile.TemporaryDirectory() as folder, watched(Path(folder), *flags, uri=uri) as server:
        server.until_open(port)
        soak = Soak(server, f"http://127.0.0.1:{port}", args.utterances)
        asyncio.run(soak.run(args.speakers))
        result = soak.result
        result.remains = server.remains(result.moments[0].counts)
    return Outcome(result.tables(), asdict(result), result.failures)
