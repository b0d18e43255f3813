"""Hostile clients, all kinds at once, beside honest ones who speak: nobody honest may notice.

Our server runs `tiny.en`, and four speakers say the clips of tests/audio at the pace of speech, in
turns of quiet and siege. In a siege another process writes slowly, doesn't read, opens 500
connections, names lengths of 4 GB, and leaves at every stage of a command. Every honest command
must be answered with the text it had in quiet, and 95 % of them in at most twice the time.

What attackers do on other machines costs this one nothing; here it does: they run at the lowest
priority, and the processor time that they and the server took is shown. The attacker alone, until
its stdin is closed: `python -m benchmarks.siege.hostile URI`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

from benchmarks.lib import models, report
from benchmarks.lib.client import SATELLITE_CHUNK_MS, command_bytes, say, steady_texts
from benchmarks.lib.clips import Clip, short_clips, with_silence
from benchmarks.lib.errors import BenchmarkError
from benchmarks.lib.options import add_number
from benchmarks.lib.report import Outcome
from benchmarks.lib.servers import ROOT, Counts, Watched, free_port

MAX_SLOWDOWN = 2.0
SETTLE_SECONDS = 3.0
POLL_SECONDS = 0.1
ANSWER_SECONDS = 60.0

ATTACKER = "127.0.0.66"  # another address than the honest ones', as in a home
NICE = 19  # the attackers' own work, which would be another machine's, is not what is measured
N_CROWD = 500
N_SLOW_WRITERS = 8
N_SLOW_READERS = 4
LEAVES_A_SECOND = 5
LIES_A_SECOND = 20
BYTE_SECONDS = 0.2  # between the bytes of a slow writer
QUESTIONS = b'{"type": "describe"}\n' * 200
PROCESSOR = "milliseconds of processor time, the attackers"


# -- the hostile ---------------------------------------------------------------------------


class Siege:
    """All attacks at once, until it is cancelled; `counts` says what was done."""

    def __init__(self, host: str, port: int, command: bytes) -> None:
        self._host, self._port = host, port
        self._command = command
        self._choose = random.Random(0)
        self.counts: Counter[str] = Counter()

    async def run(self) -> None:
        attacks = [self._crowd, self._lie, self._leave]
        attacks += [self._write_slowly] * N_SLOW_WRITERS + [self._never_read] * N_SLOW_READERS
        await asyncio.gather(*(self._again(attack) for attack in attacks))

    async def _again(self, attack: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await attack()
            except (OSError, asyncio.IncompleteReadError):  # thrown out: at it again
                self.counts["times thrown out"] += 1
            await asyncio.sleep(0.1)

    @contextlib.asynccontextmanager
    async def _connection(self) -> Any:
        streams = await asyncio.open_connection(self._host, self._port, local_addr=(ATTACKER, 0))
        self.counts["connections"] += 1
        try:
            yield streams
        finally:
            streams[1].transport.abort()

    async def _crowd(self) -> None:
        """Hold 500 connections, and open others for those that are closed."""
        async with contextlib.AsyncExitStack() as stack:
            waiting = []
            for _ in range(N_CROWD):
                reader, _writer = await stack.enter_async_context(self._connection())
                waiting.append(asyncio.ensure_future(reader.read()))
            self.counts["crowds of 500 connections"] += 1
            await asyncio.wait(waiting, return_when=asyncio.ALL_COMPLETED, timeout=5)
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _lie(self) -> None:
        """Name a length of 4 GB, or never end a header; send as much as is taken."""
        lies = (
            b'{"type": "audio-chunk", "data_length": 4294967296}\n',
            b'{"type": "audio-chunk", "payload_length": 4294967296}\n',
            b'{"type": "describe", "junk": "',
        )
        async with self._connection() as (reader, writer):
            self.counts["lengths lied about"] += 1
            writer.write(self._choose.choice(lies) + b"x" * 200_000)
            await asyncio.wait_for(reader.read(), ANSWER_SECONDS)
        await asyncio.sleep(1 / LIES_A_SECOND)

    async def _leave(self) -> None:
        """Say some of a command, now and then all of it, and go."""
        async with self._connection() as (_, writer):
            n_bytes = self._choose.randint(0, len(self._command))
            if self._choose.random() < 0.3:
                n_bytes = len(self._command)
            writer.write(self._command[:n_bytes])
            await writer.drain()
            await asyncio.sleep(self._choose.random() / LEAVES_A_SECOND)
            self.counts["commands left"] += 1
        await asyncio.sleep(0.5 / LEAVES_A_SECOND)

    async def _write_slowly(self) -> None:
        async with self._connection() as (_, writer):
            for byte in self._command:
                writer.write(bytes([byte]))
                await writer.drain()
                self.counts["bytes written slowly"] += 1
                await asyncio.sleep(BYTE_SECONDS)

    async def _never_read(self) -> None:
        """Ask and ask, and never read an answer."""
        async with self._connection() as (reader, writer):
            reader._transport.pause_reading()  # noqa: SLF001 - there is no other way to be rude
            for _ in range(500):
                writer.write(QUESTIONS)
                self.counts["questions whose answers nobody reads"] += 200
                await asyncio.wait_for(writer.drain(), ANSWER_SECONDS)
                await asyncio.sleep(0.05)


async def attack(uri: str) -> None:
    """Lay siege until stdin is closed; then print the counts as JSON."""
    os.nice(NICE)
    parts = urlsplit(uri)
    command = command_bytes(with_silence(short_clips()[0].samples))
    siege = Siege(parts.hostname or "", parts.port or 0, command)
    running = asyncio.create_task(siege.run())
    print("begun", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    while not running.done():  # wait_for may swallow a cancellation (Python before 3.12)
        running.cancel()
        await asyncio.wait({running}, timeout=0.1)
    siege.counts[PROCESSOR] = round(1000 * time.process_time())
    print(json.dumps(siege.counts))


@contextlib.contextmanager
def besieged(uri: str) -> Iterator[Counter[str]]:
    """Lay siege from another process while the block runs; then the counter is filled."""
    counts: Counter[str] = Counter()
    command = [sys.executable, "-m", "benchmarks.siege.hostile", uri]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        if process.stdout is None or process.stdout.readline() != "begun\n":
            raise BenchmarkError("the siege does not begin")
        yield counts
        told, _ = process.communicate()
    if process.returncode:
        raise BenchmarkError("the siege ended badly")
    counts.update(json.loads(told))


# -- the honest ----------------------------------------------------------------------------


@dataclass
class Turn:
    """What came of the honest commands of one turn."""

    seconds: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """Commands with another text than in quiet, or none."""
    processor: float = 0.0
    """Seconds of processor time that the server took."""


class Speakers:
    """Honest clients who speak, each one command after the other."""

    def __init__(self, uri: str, clips: Sequence[Clip]) -> None:
        self._uri = uri
        self._clips = clips
        self._answers: dict[str, str] = {}

    async def learn(self) -> None:
        """Hear what the right answers are. Raises BenchmarkError."""
        self._answers = await steady_texts(self._uri, self._clips)
        self._clips = [clip for clip in self._clips if clip.file in self._answers]

    async def speak(self, speakers: int, seconds: float) -> Turn:
        """Return what came of the commands begun within `seconds`."""
        turn, end = Turn(), time.perf_counter() + seconds
        await asyncio.gather(
            *(self._one(number, speakers, turn, end) for number in range(speakers))
        )
        return turn

    async def _one(self, number: int, speakers: int, turn: Turn, end: float) -> None:
        await asyncio.sleep(number * 0.7)  # people don't begin at once
        for clip in itertools.islice(itertools.cycle(self._clips), number, None, speakers):
            if time.perf_counter() > end:
                return
            samples = with_silence(clip.samples)
            heard = await say(self._uri, samples, chunk_ms=SATELLITE_CHUNK_MS, in_time=True)
            if heard.error:
                turn.wrong.append(f"{clip.file}: {heard.error}")
                continue
            turn.seconds.append(heard.seconds)
            if heard.text != self._answers[clip.file]:
                expected = self._answers[clip.file]
                turn.wrong.append(f"{clip.file}: {heard.text!r}, not {expected!r}")


# -- the suite -----------------------------------------------------------------------------


@dataclass
class Found:
    """What came of all turns."""

    quiet: Turn = field(default_factory=Turn)
    siege: Turn = field(default_factory=Turn)
    attacks: dict[str, int] = field(default_factory=dict)
    growth_bytes: int = 0
    leaked: dict[str, int] = field(default_factory=dict)
    trouble: list[str] = field(default_factory=list)
    exit_status: int = 0

    @property
    def slowdown(self) -> float:
        """How many times longer 95 % of the honest commands take in a siege."""
        if not self.siege.seconds:
            return float("inf")
        quiet = report.percentile(self.quiet.seconds, 95)
        return report.percentile(self.siege.seconds, 95) / quiet

    @property
    def failures(self) -> list[str]:
        """Promises that were broken, a sentence each."""
        said = [
            f"{len(what)} {name}, such as {what[0]}"
            for name, what in (
                ("honest commands went wrong in quiet", self.quiet.wrong),
                ("honest commands went wrong in a siege", self.siege.wrong),
                ("exceptions or errors in the log", self.trouble),
            )
            if what
        ]
        if self.slowdown > MAX_SLOWDOWN:
            said.append(f"95 % took {self.slowdown:.1f} times as long in a siege")
        if any(count > 0 for count in self.leaked.values()):
            said.append(f"left behind: {self.leaked}")
        if self.exit_status:
            said.append(f"SIGTERM ended it with exit status {self.exit_status}")
        return said


def measure(folder: Path, seconds: float, rounds: int, speakers: int) -> Found:
    """Speak in turns of quiet and siege to a server of its own. Raises BenchmarkError."""
    found, attacks = Found(), Counter[str]()
    uri = f"tcp://127.0.0.1:{free_port()}"
    flags = (*models.serving(), "--zeroconf", "off")
    with Watched(folder, *flags, uri=uri) as server:
        server.answering()
        server.ready()
        honest = Speakers(uri, short_clips())
        asyncio.run(honest.learn())
        time.sleep(SETTLE_SECONDS)
        before = server.counts()
        for _ in range(rounds):
            _add(found.quiet, _watched_turn(server, honest, speakers, seconds))
            with besieged(uri) as counts:
                _add(found.siege, _watched_turn(server, honest, speakers, seconds))
            attacks += counts
            time.sleep(SETTLE_SECONDS)
        server.answering()
        after = _settled(server, before)
        found.attacks = dict(attacks)
        found.growth_bytes = after.resident - before.resident
        found.leaked = after.left_behind(before)
        found.exit_status = server.stopped()
        found.trouble = server.trouble
    return found


def _settled(server: Watched, before: Counts) -> Counts:
    """Return what the server holds when it holds no more than `before`, or after a while."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        after = server.counts()
        left = after.left_behind(before)
        if time.monotonic() > deadline or not any(count > 0 for count in left.values()):
            return after
        time.sleep(POLL_SECONDS)


def _watched_turn(server: Watched, honest: Speakers, speakers: int, seconds: float) -> Turn:
    before = server.processor_seconds()
    turn = asyncio.run(honest.speak(speakers, seconds))
    turn.processor = server.processor_seconds() - before
    return turn


def _add(sum_of: Turn, turn: Turn) -> None:
    sum_of.processor += turn.processor
    sum_of.seconds += turn.seconds
    sum_of.wrong += turn.wrong


def show(found: Found) -> str:
    turns = (found.quiet, found.siege)
    rows = [
        ["honest commands", *(str(len(turn.seconds)) for turn in turns)],
        ["without the right text", *(str(len(turn.wrong)) for turn in turns)],
        ["audio-stop to transcript, median", *(_shown(turn, median) for turn in turns)],
        ["audio-stop to transcript, 95 %", *(_shown(turn, _most) for turn in turns)],
        ["seconds of processor time, the server", *(f"{turn.processor:.0f}" for turn in turns)],
        *([name, "", str(count)] for name, count in sorted(found.attacks.items())),
        ["exceptions and errors in the log", "", str(len(found.trouble))],
        ["growth of memory (VmRSS)", "", report.megabytes(found.growth_bytes)],
        *([f"{name} left behind", "", str(count)] for name, count in found.leaked.items()),
        ["exit status after SIGTERM", "", str(found.exit_status)],
    ]
    table = report.table(["", "in quiet", "in a siege"], rows)
    return f"{table}\n\n95 % of the honest commands: {found.slowdown:.2f} times as long in a siege."


def _most(values: Sequence[float]) -> float:
    return report.percentile(values, 95)


def _shown(turn: Turn, of: Callable[[Sequence[float]], float]) -> str:
    return report.milliseconds(of(turn.seconds)) if turn.seconds else report.NOTHING


def add_options(parser: argparse.ArgumentParser) -> None:
    add_number(parser, "--seconds", 60.0, "of each turn")
    add_number(parser, "--rounds", 2)
    add_number(parser, "--speakers", 4)


def run(args: argparse.Namespace) -> Outcome:
    """Speak; what the siege did to the honest is a failure."""
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), args.seconds, args.rounds, args.speakers)
    return Outcome([show(result)], asdict(result), result.failures)


if __name__ == "__main__":
    asyncio.run(attack(sys.argv[1]))
