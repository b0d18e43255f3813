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
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.lib import report
from benchmarks.lib.client import command_bytes
from benchmarks.lib.clips import short_clips, with_silence
from benchmarks.lib.errors import BenchmarkError
from benchmarks.lib.options import add_number
from benchmarks.lib.report import Outcome
from benchmarks.lib.servers import ROOT, Remains, free_port, watched
from benchmarks.lib.speakers import Speakers, Toll

MAX_SLOWDOWN = 2.0
SETTLE_SECONDS = 3.0
ANSWER_SECONDS = 60.0

ATTACKER = "127.0.0.66"  # another address than the honest ones', as in a home
N_CROWD, N_SLOW_WRITERS, N_SLOW_READERS = 500, 8, 4
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
        await asyncio.sleep(0.05)

    async def _leave(self) -> None:
        """Say some of a command, now and then all of it, and go."""
        async with self._connection() as (_, writer):
            n_bytes = self._choose.randint(0, len(self._command))
            if self._choose.random() < 0.3:
                n_bytes = len(self._command)
            writer.write(self._command[:n_bytes])
            await writer.drain()
            await asyncio.sleep(self._choose.random() / 5)
            self.counts["commands left"] += 1
        await asyncio.sleep(0.1)

    async def _write_slowly(self) -> None:
        async with self._connection() as (_, writer):
            for byte in self._command:
                writer.write(bytes([byte]))
                await writer.drain()
                self.counts["bytes written slowly"] += 1
                await asyncio.sleep(0.2)

    async def _never_read(self) -> None:
        """Ask and ask, and never read an answer."""
        async with self._connection() as (reader, writer):
            reader._transport.pause_reading()  # noqa: SLF001 - there is no other way to be rude
            for _ in range(500):
                writer.write(b'{"type": "describe"}\n' * 200)
                self.counts["questions whose answers nobody reads"] += 200
                await asyncio.wait_for(writer.drain(), ANSWER_SECONDS)
                await asyncio.sleep(0.05)


async def attack(uri: str) -> None:
    """Lay siege until stdin is closed; then print the counts as JSON."""
    os.nice(19)  # this would be another machine's work, and is not what is measured
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


# -- the suite -----------------------------------------------------------------------------


@dataclass
class Found:
    """What came of all turns."""

    quiet: Toll = field(default_factory=Toll)
    siege: Toll = field(default_factory=Toll)
    processor_seconds: list[float] = field(default_factory=lambda: [0.0, 0.0])
    """Of the server, in quiet and in a siege."""
    attacks: dict[str, int] = field(default_factory=dict)
    remains: Remains = field(default_factory=Remains)

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
        said = [f"honest commands in quiet: {what}" for what in self.quiet.failures]
        said += [f"honest commands in a siege: {what}" for what in self.siege.failures]
        if self.slowdown > MAX_SLOWDOWN:
            said.append(f"95 % took {self.slowdown:.1f} times as long in a siege")
        return said + self.remains.failures()

    def show(self) -> str:
        turns = (self.quiet, self.siege)
        times = zip(*(turn.times for turn in turns), strict=True)
        rows = [
            ["honest commands", *(str(len(turn.seconds)) for turn in turns)],
            ["without the right text", *(str(len(turn.lost + turn.wrong)) for turn in turns)],
            *(
                [f"audio-stop to transcript, {name}", *of_turns]
                for name, of_turns in zip(("median", "95 %"), times, strict=True)
            ),
            [
                "seconds of processor time, the server",
                *(f"{seconds:.0f}" for seconds in self.processor_seconds),
            ],
            *([name, "", str(count)] for name, count in sorted(self.attacks.items())),
            *([name, "", value] for name, value in self.remains.rows()),
        ]
        table = report.table(["", "in quiet", "in a siege"], rows)
        how = f"95 % of the honest commands: {self.slowdown:.2f} times as long in a siege."
        return f"{table}\n\n{how}"


def measure(folder: Path, seconds: float, rounds: int, speakers: int) -> Found:
    """Speak in turns of quiet and siege to a server of its own. Raises BenchmarkError."""
    found, uri = Found(), f"tcp://127.0.0.1:{free_port()}"
    with watched(folder, "--zeroconf", "off", uri=uri) as server:
        honest = asyncio.run(Speakers.who_know(uri, short_clips()))

        def turn(number: int, toll: Toll) -> None:
            before = server.processor_seconds()
            asyncio.run(_turn(honest, toll, speakers, seconds))
            found.processor_seconds[number] += server.processor_seconds() - before

        time.sleep(SETTLE_SECONDS)
        before = server.counts()
        for _ in range(rounds):
            turn(0, found.quiet)
            with besieged(uri) as counts:
                turn(1, found.siege)
            found.attacks = dict(Counter(found.attacks) + counts)
            time.sleep(SETTLE_SECONDS)
        found.remains = server.remains(before, SETTLE_SECONDS)
    return found


async def _turn(honest: Speakers, toll: Toll, speakers: int, seconds: float) -> None:
    """Have people say the clips that are begun within so many seconds; not all begin at once."""
    end = time.perf_counter() + seconds
    turns = (
        itertools.islice(itertools.cycle(honest.clips), number, None, speakers)
        for number in range(speakers)
    )
    speaking = (
        honest.speak(
            itertools.takewhile(lambda _: time.perf_counter() <= end, clips),
            toll,
            in_time=True,
            after=0.7 * number,
        )
        for number, clips in enumerate(turns)
    )
    await asyncio.gather(*speaking)


def add_options(parser: argparse.ArgumentParser) -> None:
    add_number(parser, "--seconds", 60.0, "of each turn")
    add_number(parser, "--rounds", 2)
    add_number(parser, "--speakers", 4)


def run(args: argparse.Namespace) -> Outcome:
    """Speak; what the siege did to the honest is a failure."""
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), args.seconds, args.rounds, args.speakers)
    return Outcome([found.show()], asdict(found), found.failures)


if __name__ == "__main__":
    asyncio.run(attack(sys.argv[1]))
