"""Hostile clients, as data: what each sends, how fast, and whether it reads what it is answered.

Alone, until its stdin is closed: `python -m benchmarks.lib.attackers URI` prints "begun", and in
the end its counts as JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from urllib.parse import urlsplit

from benchmarks.lib.client import command_bytes
from benchmarks.lib.clips import short_clips, with_silence
from benchmarks.lib.errors import BenchmarkError
from benchmarks.lib.servers import ROOT

ADDRESS = "127.0.0.66"  # another one than the honest ones', as in a home
PROCESSOR = "milliseconds of processor time, the attackers"


@dataclass(frozen=True)
class Attack:
    """One kind of hostile client."""

    name: str
    """Of what is counted: its connections."""
    sends: Callable[[random.Random, bytes], Iterable[bytes]]
    """What is written one after the other, of a random generator and a whole command's bytes."""
    clients: int = 1
    """At once; each connects again when it is thrown out, or has finished."""
    again_seconds: float = 0.1
    """Before it does."""
    pause_seconds: float = 0.0
    """After each write."""
    stays_seconds: float = 0.0
    """How long it reads after the last write, unless the server closes before."""
    reads: bool = True
    """Whether it reads while it writes."""


def _nothing(_: random.Random, __: bytes) -> list[bytes]:
    return []


def _lie(choose: random.Random, _: bytes) -> list[bytes]:
    """Name a length of 4 GB, or never end a header; send as much as is taken."""
    lies = (
        b'{"type": "audio-chunk", "data_length": 4294967296}\n',
        b'{"type": "audio-chunk", "payload_length": 4294967296}\n',
        b'{"type": "describe", "junk": "',
    )
    return [choose.choice(lies) + b"x" * 200_000]


def _part(choose: random.Random, command: bytes) -> list[bytes]:
    """Say some of a command, now and then all of it."""
    whole = choose.random() < 0.3
    return [command if whole else command[: choose.randint(0, len(command))]]


def _bytes(_: random.Random, command: bytes) -> Iterator[bytes]:
    return (command[at : at + 1] for at in range(len(command)))


def _questions(_: random.Random, __: bytes) -> list[bytes]:
    return [b'{"type": "describe"}\n' * 200] * 500


def _garbage(choose: random.Random, _: bytes) -> list[bytes]:
    """Send what is no Wyoming, or hardly."""
    kinds = (
        choose.randbytes(choose.randint(1, 3000)),
        b'{"type": "audio-chunk", "payload_length": 7, "data": {"rate": 1e400}}\nabcdefg',
        b'{"type": "transcribe", "data": {"language": ["en"]}}\n{"type": "audio-stop"}\n',
        b"GET / HTTP/1.1\r\nHost: " + b"a" * 9000 + b"\r\n\r\n",
        b"\n" * 500,
        b"[" * 5000,
    )
    return [choose.choice(kinds)]


ATTACKS = (
    Attack("silent connections", _nothing, clients=500, again_seconds=5.0, stays_seconds=5.0),
    Attack("lengths lied about", _lie, stays_seconds=60.0),
    Attack("commands left", _part, stays_seconds=0.1),
    Attack("bytes one by one", _bytes, clients=8, pause_seconds=0.2),
    Attack(
        "questions whose answers nobody reads",
        _questions,
        clients=4,
        pause_seconds=0.05,
        reads=False,
    ),
    Attack("garbage", _garbage, stays_seconds=0.3),
)


async def attack(uri: str, kind: Attack, choose: random.Random) -> None:
    """Be such a client once. Raises OSError where the server has thrown it out."""
    where = urlsplit(uri)
    reader, writer = await asyncio.open_connection(
        where.hostname, where.port, local_addr=(ADDRESS, 0)
    )
    reading = asyncio.ensure_future(reader.read() if kind.reads else asyncio.Event().wait())
    if not kind.reads:
        reader._transport.pause_reading()  # type: ignore[attr-defined]  # noqa: SLF001 - no other way
    try:
        for data in kind.sends(choose, _command()):
            writer.write(data)
            await asyncio.wait_for(writer.drain(), 60.0)
            if kind.pause_seconds:
                await asyncio.sleep(kind.pause_seconds)
        await asyncio.wait({reading}, timeout=kind.stays_seconds)
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        writer.transport.abort()


@cache
def _command() -> bytes:
    return command_bytes(with_silence(short_clips()[0].samples))


async def _again(uri: str, kind: Attack, counts: Counter[str]) -> None:
    choose = random.Random(kind.name)
    while True:
        counts[kind.name] += 1
        try:
            await attack(uri, kind, choose)
        except (OSError, asyncio.TimeoutError):
            counts["times thrown out"] += 1
        await asyncio.sleep(kind.again_seconds)


async def attack_until_closed(uri: str) -> None:
    """Attack in all ways at once until stdin is closed; then print the counts as JSON."""
    os.nice(19)  # this would be another machine's work, and is not what is measured
    counts = Counter[str]()
    clients = [
        asyncio.create_task(_again(uri, kind, counts))
        for kind in ATTACKS
        for _ in range(kind.clients)
    ]
    print("begun", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    pending = set(clients)
    while pending:  # wait_for may swallow a cancellation (Python before 3.12)
        for client in pending:
            client.cancel()
        _, pending = await asyncio.wait(pending, timeout=0.1)
    counts[PROCESSOR] = round(1000 * time.process_time())
    print(json.dumps(counts))


@contextlib.contextmanager
def besieged(uri: str) -> Iterator[Counter[str]]:
    """Attack from another process while the block runs; then the counter is filled."""
    counts: Counter[str] = Counter()
    command = [sys.executable, "-m", "benchmarks.lib.attackers", uri]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        if process.stdout is None or process.stdout.readline() != "begun\n":
            raise BenchmarkError("the siege does not begin")
        yield counts
        output, _ = process.communicate()
    if process.returncode:
        raise BenchmarkError("the siege ended badly")
    counts.update(json.loads(output))


if __name__ == "__main__":
    asyncio.run(attack_until_closed(sys.argv[1]))
