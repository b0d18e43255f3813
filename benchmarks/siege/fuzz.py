"""Mutated conversations and HTTP requests against a server: nothing may bring it down.

Records real conversations, then sends the server every beginning of each, every length in them lied
about, every value replaced, and random mutations until there are enough. Every answer must be whole
Wyoming events and end; between them honest commands must be answered as ever. A stream is known by
its number: `--first N --streams 1` sends it again.

With --http every beginning of real requests to the page and the OpenAI-compatible endpoint, and
mutations of them; who sends them leaves soon, as half a request is waited for. No answer may be a
failure of ours (500, or 503 of a server that is not busy).

The server is the real one, with a stand-in for the model, which answers at once. Flags of it may
follow: `python -m benchmarks fuzz -- --endpointing 0.3 --live-text`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import random
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from wyoming.asr import Transcribe, Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.event import async_read_event
from wyoming.info import Describe, SelectProgram
from wyoming.ping import Ping

from benchmarks.lib.client import as_bytes, command_bytes, command_events, say
from benchmarks.lib.clips import short_clips, with_silence
from benchmarks.lib.errors import BenchmarkError
from benchmarks.lib.fuzzing import (
    HANG_SECONDS,
    LENGTHS,
    LIES,
    REPLACEMENTS,
    VALUES,
    Fuzzer,
    Mutator,
    refitted,
    replaced,
)
from benchmarks.lib.inside import STANDIN
from benchmarks.lib.options import add_number
from benchmarks.lib.report import Outcome
from benchmarks.lib.servers import free_port, watched
from wyoming_whisper.transcriber import SAMPLE_RATE, Samples
from wyoming_whisper.upstreams.exchange import Recording

LIVE = ("transcript-start", "transcript-chunk")  # before a transcript, with --live-text
HTTP_ANSWER_SECONDS = 0.3  # for an answer to come, where there is to be one
BOUNDARY = "lineofdashes"
PATHS = ("/", "/state", "/health", "/metrics", "/v1/models", "/v1/models/whisper-1", "/../x")
STATUS = re.compile(rb"^HTTP/\d\.\d (\d{3}) ")
HEADERS = "Host: 127.0.0.1\r\nConnection: close\r\n"


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
            yield replaced(seed, place, lie)
        for place, value in itertools.product(VALUES.finditer(seed), REPLACEMENTS):
            yield refitted(seed, place, value)


def streams(
    seeds: Sequence[bytes], whole: bytes, first: int, count: int
) -> Iterator[tuple[int, bytes]]:
    """Yield `count` numbered streams from number `first` on."""
    ordered, mutator = list(systematic(seeds)), Mutator(seeds, whole)
    for number in range(first, first + count):
        yield number, ordered[number] if number < len(ordered) else mutator.stream(number)


LATER, ABRUPTLY = "later", "abruptly"
WAYS = ("at once", LATER, "at once", ABRUPTLY)
"""How clients go in turn after their last byte; abruptly is without having read what there is."""


async def ask(path: str, data: bytes, leave: str) -> bytes:
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


async def _send(writer: asyncio.StreamWriter, data: bytes, leave: str) -> None:
    with contextlib.suppress(OSError):
        writer.write(data)
        await writer.drain()
        if leave == ABRUPTLY:
            writer.transport.abort()
            return
        if leave == LATER:
            await asyncio.sleep(0.05)  # in which the stand-in answers
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
        self._path, self._honest = path, honest

    async def honest(self) -> object:
        try:
            return await command(self._path, self._honest)
        except (OSError, asyncio.TimeoutError) as error:
            return f"no answer: {error!r}"

    async def send(self, number: int, data: bytes) -> None:
        leave = WAYS[number % len(WAYS)]
        try:
            answer = await ask(self._path, data, leave)
            self.result.answered("left" if leave == ABRUPTLY else ending(answer))
        except asyncio.TimeoutError:
            self.result.broken[self.hung].append(number)
        except (ValueError, KeyError, TypeError, AttributeError):
            self.result.broken[self.not_wyoming].append(number)


def fuzz_wyoming(folder: Path, args: argparse.Namespace) -> Outcome:
    """Send streams to a server of its own. Raises BenchmarkError."""
    speech = short_clips()[0].samples
    honest, path = command_bytes(with_silence(speech)), str(folder / "socket")
    count = args.count or 200_000
    numbered = streams(conversations(speech), honest, args.first, count)
    with watched(folder, *args.flags, opens=STANDIN) as server:
        answers = asyncio.run(_warm(path, honest))
        if not answers[0] or len(set(answers)) != 1:
            raise BenchmarkError(f"an honest command is answered with {set(answers)}")
        fuzzer = WyomingFuzzer(path, honest, answers[0])
        return fuzzer.fuzz(server, numbered, args.workers or 16, count)


async def _warm(path: str, honest: bytes) -> list[str]:
    """Return the answers to honest commands, after which all that is loaded once is there."""
    return await asyncio.gather(*(command(path, honest) for _ in range(16)))


# -- HTTP ----------------------------------------------------------------------------------


def transcription(file: bytes, *, chunked: bool = False, **fields: str) -> bytes:
    """Return the request for a file's transcription."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in {"model": "whisper-1", **fields}.items()
    ]
    head = 'Content-Disposition: form-data; name="file"; filename="a.wav"'
    parts += [f"--{BOUNDARY}\r\n{head}\r\n\r\n".encode(), file, f"\r\n--{BOUNDARY}--\r\n".encode()]
    body = b"".join(parts)
    length = f"Content-Length: {len(body)}"
    if chunked:
        length, body = "Transfer-Encoding: chunked", b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    kind = f"Content-Type: multipart/form-data; boundary={BOUNDARY}"
    line = "POST /v1/audio/transcriptions HTTP/1.1"
    return f"{line}\r\n{HEADERS}{kind}\r\n{length}\r\n\r\n".encode() + body


def requests(samples: Samples) -> list[bytes]:
    """Return one of every kind, with 100 ms of `samples` where audio is sent."""
    short = samples[: SAMPLE_RATE // 10]
    file, pcm = Recording.wav(short), np.round(short * 32767).astype("<i2").tobytes()
    clip = f"POST /transcribe HTTP/1.1\r\n{HEADERS}X-Wyoming-Whisper: 1\r\n"
    return [
        *(f"GET {path} HTTP/1.1\r\n{HEADERS}\r\n".encode() for path in PATHS),
        f"{clip}Content-Length: {len(pcm)}\r\n\r\n".encode() + pcm,
        transcription(file, language="en", response_format="verbose_json"),
        transcription(file, chunked=True, stream="true", temperature="0.5", prompt="x"),
    ]


def http_streams(seeds: Sequence[bytes], first: int, count: int) -> Iterator[tuple[int, bytes]]:
    """Yield `count` numbered requests from number `first` on: beginnings, then mutations."""
    beginnings = [seed[:length] for seed in seeds for length in range(0, len(seed) + 1, 3)]
    mutator = Mutator(seeds, seeds[-1])
    for number in range(first, first + count):
        if number < len(beginnings):
            yield number, beginnings[number]
        else:
            yield number, _lied(mutator.stream(number), number)


def _lied(request: bytes, number: int) -> bytes:
    """Now and then lie about the length of the body."""
    choose = random.Random(f"length of {number}")  # not what its mutations are drawn from
    if choose.random() > 0.2:
        return request
    lie = choose.choice((b"0", b"-1", b"99999999999", b"1e3", b"", b"7, 8", b"0x10"))
    return re.sub(rb"(?<=Content-Length: )\d+", lie, request)


async def ask_http(port: int, request: bytes, seconds: float = HTTP_ANSWER_SECONDS) -> bytes:
    """Send a request; return what comes until the server closes, or `seconds` have passed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = bytearray()
    with contextlib.suppress(OSError, asyncio.TimeoutError):
        writer.write(request)
        end = time.perf_counter() + seconds
        while data := await asyncio.wait_for(reader.read(65536), end - time.perf_counter()):
            answer += data
    writer.transport.abort()
    return bytes(answer)


def http_ending(answer: bytes) -> str:
    """Return what an answer is counted as; 503 alone has another reason than too many requests.

    Two clips are taken at once, and half of one is waited for: of six workers most are refused.
    """
    status = STATUS.match(answer)
    if not status:
        return "none"
    is_busy = status[1] == b"503" and b'"code": "busy"' in answer
    return "503 (busy: the page hears two clips at once)" if is_busy else status[1].decode()


class HttpFuzzer(Fuzzer):
    """Sends requests to a port."""

    unit = "requests"
    honest_every = 200
    failed, not_http = "answers were failures of ours", "answers were not HTTP"
    deaf = "commands were not answered after the requests"

    def __init__(self, port: int, honest: bytes, expected: bytes, uri: str) -> None:
        super().__init__(expected, self.failed, self.not_http, self.deaf)
        self._port, self._honest, self._uri = port, honest, uri

    async def run(self, numbered: Iterator[tuple[int, bytes]], workers: int, total: int) -> None:
        await super().run(numbered, workers, total)
        if (await say(self._uri, with_silence(short_clips()[0].samples))).error:
            self.result.broken[self.deaf].append(total)

    async def honest(self) -> object:
        return await content(self._port, self._honest)

    async def send(self, number: int, data: bytes) -> None:
        answer = await ask_http(self._port, data)
        how = http_ending(answer)
        self.result.answered(how)
        if how in ("500", "503"):
            self.result.broken[self.failed].append(number)
        if answer and how == "none":
            self.result.broken[self.not_http].append(number)


async def content(port: int, request: bytes) -> bytes:
    """Return the body of the answer to an honest request."""
    return (await ask_http(port, request, HANG_SECONDS)).partition(b"\r\n\r\n")[2]


def fuzz_http(folder: Path, args: argparse.Namespace) -> Outcome:
    """Send requests to a server of its own. Raises BenchmarkError."""
    speech, count = short_clips()[0].samples, args.count or 20_000
    honest = transcription(Recording.wav(speech), response_format="text")
    port, uri = free_port(), f"tcp://127.0.0.1:{free_port()}"
    flags = ("--zeroconf", "off", "--openai-api", "--http-port", str(port), *args.flags)
    with watched(folder, *flags, uri=uri, opens=STANDIN) as server:
        server.until_open(port)
        asyncio.run(say(uri, with_silence(speech)))
        # Fewer workers than requests may be there at once, so that honest ones have room.
        workers = args.workers or 6
        answers = [asyncio.run(content(port, honest)) for _ in range(workers)]
        if b"samples" not in answers[-1]:
            raise BenchmarkError(f"an honest request is answered with {answers[-1]!r}")
        fuzzer = HttpFuzzer(port, honest, answers[-1], uri)
        numbered = http_streams(requests(speech), args.first, count)
        return fuzzer.fuzz(server, numbered, workers, count)


# -- the suite -----------------------------------------------------------------------------


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--http", action="store_true", help="requests, not conversations")
    about = "how many (default: 200000, of requests 20000)"
    parser.add_argument("--streams", dest="count", type=int, metavar="N", help=about)
    add_number(parser, "--first", 0, "number of the first")
    about = "connections at once (default: 16, of requests 6)"
    parser.add_argument("--workers", type=int, metavar="N", help=about)
    parser.add_argument("flags", nargs="*", help="of the server, after --")


def run(args: argparse.Namespace) -> Outcome:
    """Send; what is left, hangs or is answered wrongly is a failure."""
    with tempfile.TemporaryDirectory() as folder:
        return (fuzz_http if args.http else fuzz_wyoming)(Path(folder), args)
