"""Mutated conversations against a server in another process: nothing may bring it down.

`python -m benchmarks.siege.fuzz` records real conversations, then sends the server every beginning of
each, every length in them lied about, every value replaced, and random mutations until there are
enough. Every answer must be whole Wyoming events and end; between them honest commands must be
answered as ever. A stream is known by its number: `--first N --streams 1` sends it again.

The server is the real one on a unix socket, with a stand-in for the model, which answers at once.
Flags of the server may follow: `python -m benchmarks.siege.fuzz -- --endpointing 0.3 --live-text`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import io
import itertools
import json
import random
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import Enum, auto
from pathlib import Path
from typing import Any

import numpy as np
from wyoming.asr import Transcribe, Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.event import Event, async_read_event, write_event
from wyoming.info import Describe, SelectProgram
from wyoming.ping import Ping

from benchmarks.lib import report
from benchmarks.lib.client import command_events
from benchmarks.lib.clips import ClipError, with_silence
from benchmarks.lib.servers import BenchmarkError
from benchmarks.lib.watched import Watched
from benchmarks.speed.responsiveness import BUNDLED_CLIPS, short_clips
from wyoming_whisper.server import TIDY_SECONDS
from wyoming_whisper.transcriber import Samples

STREAMS = 200_000
WORKERS = 16
HONEST_EVERY = 500
LATER_SECONDS = 0.05  # in which the stand-in answers
HANG_SECONDS = 30.0  # far more than an answer takes; only a hang reaches it
SETTLE_SECONDS = TIDY_SECONDS + 3  # until all are gone, and their memory has been given back
LIVE = ("transcript-start", "transcript-chunk")  # before a transcript, with --live-text
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


# -- conversations -------------------------------------------------------------------------


def recorded(events: Sequence[Event]) -> bytes:
    """Return what a client sends for these events."""
    sent = io.BytesIO()
    for event in events:
        write_event(event, sent)
    return sent.getvalue()


def honest_command(samples: Samples) -> bytes:
    """Return a whole command as Home Assistant sends it."""
    return recorded([*command_events(samples), AudioStop().event()])


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
        recorded(command),
        recorded([*questions, names.event()]),
        recorded(satellite),
        recorded([*command, *questions, *satellite, *command]),
    ]


# -- mutations -----------------------------------------------------------------------------


def systematic(seeds: Sequence[bytes]) -> Iterator[bytes]:
    """Return every beginning of every seed, and all of them with one lie or one other value."""
    for seed in seeds:
        for length in range(len(seed) + 1):
            yield seed[:length]
        for found, lie in itertools.product(LENGTHS.finditer(seed), LIES):
            yield seed[: found.start(2)] + lie + seed[found.end(2) :]
        for found, value in itertools.product(VALUES.finditer(seed), REPLACEMENTS):
            yield _refitted(seed, found, value)


def _refitted(seed: bytes, found: re.Match[bytes], value: bytes) -> bytes:
    """Replace a value, and say the right length of its data, so that the value is what is read."""
    changed = seed[: found.start(2)] + value + seed[found.end(2) :]
    headers = [m for m in LENGTHS.finditer(seed, 0, found.start()) if m[1] == b"data_length"]
    line_end = seed.find(b"\n", headers[-1].end()) + 1 if headers else 0
    if not line_end or found.start() - line_end >= int(headers[-1][2]) or found.start() < line_end:
        return changed
    length = int(headers[-1][2]) + len(value) - len(found[2])
    place = headers[-1].span(2)
    return changed[: place[0]] + str(length).encode() + changed[place[1] :]


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
    found = list(LENGTHS.finditer(data))
    if not found:
        return data
    place = choose.choice(found)
    near = str(int(place[2]) + choose.randint(-3, 3)).encode()
    lie = choose.choice((*LIES, near, near))
    return data[: place.start(2)] + lie + data[place.end(2) :]


def _replace(data: bytes, choose: random.Random, _: Sequence[bytes]) -> bytes:
    found = list(VALUES.finditer(data))
    return _refitted(data, choose.choice(found), choose.choice(REPLACEMENTS)) if found else data


_MUTATIONS = (_cut, _repeat, _flip, _insert, _shuffle, _splice, _lie, _replace)


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


@dataclass
class Found:
    """What came of the streams."""

    answers: dict[str, int] = field(default_factory=dict)
    """How the streams ended: in a transcript, an error, another answer, or without a word."""
    hung: list[int] = field(default_factory=list)
    """Numbers of streams to which the server did not close the connection."""
    broken: list[int] = field(default_factory=list)
    """Numbers of streams answered with something that is not Wyoming."""
    honest: int = 0
    wrong: list[int] = field(default_factory=list)
    """Numbers of streams after which an honest command was answered otherwise."""


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
    found: list[str] = []
    while answer:
        line, newline, answer = answer.partition(b"\n")
        header = json.loads(line)
        length = header.get("data_length") or 0
        if not newline or header.get("payload_length") or len(answer) < length:
            raise ValueError("not a whole event")
        if length:
            json.loads(answer[:length])
        answer = answer[length:]
        found.append(header["type"])
    return found


def ending(answer: bytes) -> str:
    """Return how a conversation ended. Raises ValueError where that is no Wyoming."""
    types = event_types(answer)
    if "error" in types[:-1]:
        raise ValueError("an error, and then more")
    if not types:
        return "closed"
    return types[-1] if types[-1] in ("error", "transcript") else "other"


class Fuzzer:
    """Sends streams over several connections at once."""

    def __init__(self, path: str, honest: bytes, expected: str) -> None:
        self._path = path
        self._honest = honest
        self._expected = expected
        self.found = Found()

    async def run(self, numbered: Iterator[tuple[int, bytes]], workers: int, total: int) -> None:
        bar = importlib.import_module("tqdm").tqdm  # untyped
        with bar(total=total, unit=" streams", mininterval=5, smoothing=0.05) as progress:
            await asyncio.gather(*(self._work(numbered, progress) for _ in range(workers)))

    async def _work(self, numbered: Iterator[tuple[int, bytes]], progress: Any) -> None:
        for number, data in numbered:
            await self._try(number, data)
            if number % HONEST_EVERY == 0:
                self.found.honest += 1
                if await self._honest_answer() != self._expected:
                    self.found.wrong.append(number)
            progress.update()

    async def _honest_answer(self) -> str:
        try:
            return await command(self._path, self._honest)
        except (OSError, asyncio.TimeoutError) as error:
            return f"no answer: {error!r}"

    async def _try(self, number: int, data: bytes) -> None:
        leave = WAYS[number % len(WAYS)]
        try:
            answer = await ask(self._path, data, leave)
            how = "left" if leave is Leave.ABRUPTLY else ending(answer)
            self.found.answers[how] = self.found.answers.get(how, 0) + 1
        except asyncio.TimeoutError:
            self.found.hung.append(number)
        except (ValueError, KeyError, TypeError, AttributeError):
            self.found.broken.append(number)


# -- the command ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """Everything that was found, as it is reported."""

    streams: int
    seconds: float
    found: Found
    trouble: list[str]
    """Exceptions and errors in the server's log."""
    growth_bytes: int
    """Of the server's resident memory, from the first stream to the last."""
    leaked: dict[str, int]
    """What the server holds more than before: descriptors, threads, tasks."""
    exit_status: int

    @property
    def failures(self) -> list[str]:
        """Promises that were broken, a sentence each."""
        found, said = self.found, []
        for numbers, what in (
            (found.hung, "connections hung"),
            (found.broken, "answers were not Wyoming"),
            (found.wrong, "honest commands were not answered as before"),
        ):
            if numbers:
                said.append(f"{len(numbers)} {what}: streams {numbers[:10]}")
        return said + traces(self.trouble, self.growth_bytes, self.leaked, self.exit_status)


def traces(
    trouble: Sequence[str], growth_bytes: int, leaked: Mapping[str, int], exit_status: int
) -> list[str]:
    """Return what a fuzz left on its server that it should not have, a sentence each."""
    said = []
    if trouble:
        said.append(f"{len(trouble)} exceptions or errors in the log: {trouble[:3]}")
    if growth_bytes >= MAX_GROWTH_BYTES:
        said.append(f"memory grew by {report.megabytes(growth_bytes)}")
    if any(count > 0 for count in leaked.values()):
        said.append(f"left behind: {leaked}")
    if exit_status:
        said.append(f"SIGTERM ended it with exit status {exit_status}")
    return said


def fuzz(
    folder: Path, first: int, count: int, workers: int, server_flags: Sequence[str] = ()
) -> Outcome:
    """Send `count` streams to a server of its own. Raises BenchmarkError."""
    speech = short_clips(BUNDLED_CLIPS)[0].samples
    seeds, honest = conversations(speech), honest_command(with_silence(speech))
    numbered = zip(itertools.count(first), streams(seeds, honest, first, count), strict=False)
    flags = ("--model", "tiny", "--language", "en", *server_flags)
    with Watched(folder, *flags, opens="benchmarks.lib.watched:standin") as server:
        server.answering()
        server.ready()
        path = str(folder / "socket")
        expected = asyncio.run(_settled(path, honest))
        time.sleep(SETTLE_SECONDS)
        before, start = server.counts(), time.perf_counter()
        fuzzer = Fuzzer(path, honest, expected)
        asyncio.run(fuzzer.run(numbered, workers, count))
        seconds = time.perf_counter() - start
        server.answering()
        time.sleep(SETTLE_SECONDS)
        after = server.counts()
        return Outcome(
            streams=count,
            seconds=seconds,
            found=fuzzer.found,
            exit_status=server.stopped(),
            trouble=server.trouble,
            growth_bytes=after.resident - before.resident,
            leaked=after.left_behind(before),
        )


async def _settled(path: str, honest: bytes) -> str:
    """Return the answer to an honest command, when all that is loaded once is there."""
    answers = await asyncio.gather(*(command(path, honest) for _ in range(WORKERS)))
    if not answers[0] or len(set(answers)) != 1:
        raise BenchmarkError(f"an honest command is answered with {set(answers)}")
    return answers[0]


def show(outcome: Outcome) -> str:
    found = outcome.found
    rows = [
        ["streams", str(outcome.streams)],
        *([f"ended in: {name}", str(count)] for name, count in sorted(found.answers.items())),
        ["streams a second", f"{outcome.streams / outcome.seconds:.0f}"],
        ["exceptions and errors in the log", str(len(outcome.trouble))],
        ["connections that hung", str(len(found.hung))],
        ["answers that are not Wyoming", str(len(found.broken))],
        ["honest commands between them", str(found.honest)],
        ["of these answered otherwise than before", str(len(found.wrong))],
        ["growth of memory (VmRSS)", report.megabytes(outcome.growth_bytes)],
        *([f"{name} left behind", str(count)] for name, count in outcome.leaked.items()),
        ["exit status after SIGTERM", str(outcome.exit_status)],
    ]
    return report.table(["", "fuzz"], rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Send, print, write; return 1 if a promise was broken."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=int, default=STREAMS, help=f"default: {STREAMS}")
    parser.add_argument("--first", type=int, default=0, help="number of the first (default: 0)")
    parser.add_argument("--workers", type=int, default=WORKERS, help="connections at once")
    parser.add_argument("flags", nargs="*", help="of the server, after --")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there, too")
    args = parser.parse_args(argv)
    facts = report.machine()
    try:
        with tempfile.TemporaryDirectory() as folder:
            outcome = fuzz(Path(folder), args.first, args.streams, args.workers, args.flags)
    except (BenchmarkError, ClipError) as error:
        print(f"benchmarks.siege.fuzz: {error}", file=sys.stderr)
        return 1
    print(report.machine_line(facts), show(outcome), sep="\n\n")
    written: dict[str, Any] = {"machine": facts, **asdict(outcome)}
    report.write_json(args.json, written)
    for sentence in outcome.failures:
        print(f"benchmarks.siege.fuzz: {sentence}", file=sys.stderr)
    return 1 if outcome.failures else 0


if __name__ == "__main__":
    sys.exit(main())
