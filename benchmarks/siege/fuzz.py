"""Mutated conversations against a server in another process: nothing may bring it down.

Records real conversations, then sends the server every beginning of each, every length in them lied
about, every value replaced, and random mutations until there are enough. Every answer must be whole
Wyoming events and end; between them honest commands must be answered as ever. A stream is known by
its number: `--first N --streams 1` sends it again.

The server is the real one on a unix socket, with a stand-in for the model, which answers at once.
Flags of the server may follow: `python -m benchmarks fuzz -- --endpointing 0.3 --live-text`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import tempfile
from collections.abc import Iterator, Sequence
from enum import Enum, auto
from pathlib import Path

import numpy as np
from wyoming.asr import Transcribe, Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.event import async_read_event
from wyoming.info import Describe, SelectProgram
from wyoming.ping import Ping

from benchmarks.lib import fuzzing
from benchmarks.lib.client import as_bytes, command_bytes, command_events
from benchmarks.lib.clips import short_clips, with_silence
from benchmarks.lib.errors import BenchmarkError
from benchmarks.lib.fuzzing import (
    HANG_SECONDS,
    LENGTHS,
    LIES,
    REPLACEMENTS,
    VALUES,
    Fuzzer,
    Result,
    mutated,
    refitted,
)
from benchmarks.lib.inside import STANDIN
from benchmarks.lib.options import add_number
from benchmarks.lib.report import Outcome
from benchmarks.lib.servers import Watched
from wyoming_whisper.transcriber import Samples

WORKERS = 16
LATER_SECONDS = 0.05  # in which the stand-in answers
LIVE = ("transcript-start", "transcript-chunk")  # before a transcript, with --live-text


# -- conversations -------------------------------------------------------------------------


def conversations(samples: Samples) -> list[bytes]:
    """Return short ones of every kind, with 30 ms of `samples` where audio is sent."""
    short = samples[:480]
    stereo = np.repeat((short * 32767).astype("<i2"), 2).tobytes()
    names = Transcribe(language="de-DE", transcript_names=["Anna"], transcript_terms=["Flur"])
    questions = [Describe().event(), Ping("x").event(), SelectProgram("wyoming-whisper").event()]
    command = [*command_events(short), AudioStop().event()]
    satellite = [
        Transcribe(name="tiny", language=None, context={"id": 1}).event(),
        AudioStart(rate=44_100, width=2, channels=2).event(),
        AudioChunk(rate=44_100, width=2, channels=2, audio=stereo).event(),
        AudioChunk(rate=8_000, width=1, channels=1, audio=bytes(range(256))).event(),
        AudioStop(timestamp=30).event(),
    ]
    return [
        as_bytes(command),
        as_bytes([*questions, names.event()]),
        as_bytes(satellite),
        as_bytes([*command, *questions, *satellite, *command]),
    ]


def systematic(seeds: Sequence[bytes]) -> Iterator[bytes]:
    """Return every beginning of every seed, and all of them with one lie or one other value."""
    for seed in seeds:
        for length in range(len(seed) + 1):
            yield seed[:length]
        for place, lie in itertools.product(LENGTHS.finditer(seed), LIES):
            yield seed[: place.start(2)] + lie + seed[place.end(2) :]
        for place, value in itertools.product(VALUES.finditer(seed), REPLACEMENTS):
            yield refitted(seed, place, value)


def streams(seeds: Sequence[bytes], whole: bytes, first: int, count: int) -> Iterator[bytes]:
    """Return `count` streams from number `first` on."""
    ordered = list(systematic(seeds))
    for number in range(first, first + count):
        yield ordered[number] if number < len(ordered) else mutated(seeds, whole, number)


# -- sending -------------------------------------------------------------------------------


class Leave(Enum):
    """How a client goes after its last byte."""

    AT_ONCE = auto()
    LATER = auto()
    ABRUPTLY = auto()
    """Without having read what there is."""


WAYS = (Leave.AT_ONCE, Leave.LATER, Leave.AT_ONCE, Leave.ABRUPTLY)


async def ask(path: str, data: bytes, leave: Leave) -> bytes:
    """Send a stream and leave; return everything the server says until it closes, too."""
    reader, writer = await asyncio.open_unix_connection(path)
    sending = asyncio.ensure_future(_send(writer, data, leave))
    try:
        return await asyncio.wait_for(reader.read(-1), HANG_SECONDS)
    except ConnectionError:  # it hung up before it had read everything
        return b""
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        writer.close()


async def _send(writer: asyncio.StreamWriter, data: bytes, leave: Leave) -> None:
    with contextlib.suppress(OSError):
        writer.write(data)
        await writer.drain()
        if leave is Leave.ABRUPTLY:
            writer.transport.abort()
            return
        if leave is Leave.LATER:
            await asyncio.sleep(LATER_SECONDS)
        writer.write_eof()


async def command(path: str, data: bytes) -> str:
    """Return the transcript of an honest command. Raises OSError, asyncio.TimeoutError."""
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(data)
        event = await asyncio.wait_for(async_read_event(reader), HANG_SECONDS)
        while event is not None and event.type in LIVE:
            event = await asyncio.wait_for(async_read_event(reader), HANG_SECONDS)
        if event is None or not Transcript.is_type(event.type):
            raise ConnectionError(f"an honest command is answered with {event}")
        return Transcript.from_event(event).text
    finally:
        writer.close()


def event_types(answer: bytes) -> list[str]:
    """Return the types of the events that an answer consists of. Raises ValueError."""
    types: list[str] = []
    while answer:
        line, newline, answer = answer.partition(b"\n")
        header = json.loads(line)
        length = header.get("data_length") or 0
        if not newline or header.get("payload_length") or len(answer) < length:
            raise ValueError("not a whole event")
        if length:
            json.loads(answer[:length])
        answer = answer[length:]
        types.append(header["type"])
    return types


def ending(answer: bytes) -> str:
    """Return how a conversation ended. Raises ValueError where that is no Wyoming."""
    types = event_types(answer)
    if "error" in types[:-1]:
        raise ValueError("an error, and then more")
    if not types:
        return "closed"
    return types[-1] if types[-1] in ("error", "transcript") else "other"


class WyomingFuzzer(Fuzzer):
    """Sends streams to a socket."""

    unit = "streams"
    honest_every = 500
    hung, not_wyoming = "connections hung", "answers were not Wyoming"

    def __init__(self, path: str, honest: bytes, expected: str) -> None:
        super().__init__(expected, self.hung, self.not_wyoming)
        self._path = path
        self._honest = honest

    async def honest(self) -> object:
        try:
            return await command(self._path, self._honest)
        except (OSError, asyncio.TimeoutError) as error:
            return f"no answer: {error!r}"

    async def send(self, number: int, data: bytes) -> None:
        leave = WAYS[number % len(WAYS)]
        try:
            answer = await ask(self._path, data, leave)
            self.answered("left" if leave is Leave.ABRUPTLY else ending(answer))
        except asyncio.TimeoutError:
            self.result.broken[self.hung].append(number)
        except (ValueError, KeyError, TypeError, AttributeError):
            self.result.broken[self.not_wyoming].append(number)


# -- the suite -----------------------------------------------------------------------------


def fuzz(
    folder: Path, first: int, count: int, workers: int, server_flags: Sequence[str] = ()
) -> Result:
    """Send `count` streams to a server of its own. Raises BenchmarkError."""
    speech = short_clips()[0].samples
    seeds, honest = conversations(speech), command_bytes(with_silence(speech))
    numbered = zip(itertools.count(first), streams(seeds, honest, first, count), strict=False)
    flags = ("--model", "tiny", "--language", "en", *server_flags)
    with Watched(folder, *flags, opens=STANDIN) as server:
        server.answering()
        server.ready()
        path = str(folder / "socket")
        fuzzer = WyomingFuzzer(path, honest, asyncio.run(_warm(path, honest)))
        return fuzzing.fuzz(server, fuzzer, numbered, workers, count)


async def _warm(path: str, honest: bytes) -> str:
    """Return the answer to an honest command, when all that is loaded once is there."""
    answers = await asyncio.gather(*(command(path, honest) for _ in range(WORKERS)))
    if not answers[0] or len(set(answers)) != 1:
        raise BenchmarkError(f"an honest command is answered with {set(answers)}")
    return answers[0]


def add_options(parser: argparse.ArgumentParser) -> None:
    add_number(parser, "--streams", 200_000)
    add_number(parser, "--first", 0, "number of the first")
    add_number(parser, "--workers", WORKERS, "connections at once")
    parser.add_argument("flags", nargs="*", help="of the server, after --")


def run(args: argparse.Namespace) -> Outcome:
    """Send; what is left, hangs or is answered wrongly is a failure."""
    with tempfile.TemporaryDirectory() as folder:
        result = fuzz(Path(folder), args.first, args.streams, args.workers, args.flags)
    return result.outcome(WyomingFuzzer.unit)
