"""Mutated HTTP requests against the page and the OpenAI-compatible endpoint: nothing may break.

Sends every beginning of real requests, and random mutations of them, to a server whose model is a
stand-in; who sends them leaves soon, as half a request is waited for. No answer may be a failure of
ours (500, or 503 of a server that is not busy), nothing may be left, honest requests and commands
between them are answered as before. A request is known by its number, as in the suite fuzz.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.lib import fuzzing
from benchmarks.lib.client import say
from benchmarks.lib.clips import short_clips, with_silence
from benchmarks.lib.errors import BenchmarkError
from benchmarks.lib.fuzzing import HANG_SECONDS, Fuzzer, Result, mutated
from benchmarks.lib.inside import STANDIN
from benchmarks.lib.options import add_number
from benchmarks.lib.report import Outcome
from benchmarks.lib.servers import Watched, free_port
from wyoming_whisper.transcriber import SAMPLE_RATE, Samples
from wyoming_whisper.upstreams.openai import wav

WORKERS = 6  # fewer than requests may be there at once, so that honest ones have room
ANSWER_SECONDS = 0.3  # for an answer to come, where there is to be one
BOUNDARY = "lineofdashes"
PATHS = ("/", "/state", "/health", "/metrics", "/v1/models", "/v1/models/whisper-1", "/../x")
STATUS = re.compile(rb"^HTTP/\d\.\d (\d{3}) ")
BUSY = b'"code": "busy"'
HEADERS = "Host: 127.0.0.1\r\nConnection: close\r\n"


# -- requests ------------------------------------------------------------------------------


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
    file, pcm = wav(short), np.round(short * 32767).astype("<i2").tobytes()
    clip = f"POST /transcribe HTTP/1.1\r\n{HEADERS}X-Wyoming-Whisper: 1\r\n"
    return [
        *(f"GET {path} HTTP/1.1\r\n{HEADERS}\r\n".encode() for path in PATHS),
        f"{clip}Content-Length: {len(pcm)}\r\n\r\n".encode() + pcm,
        transcription(file, language="en", response_format="verbose_json"),
        transcription(file, chunked=True, stream="true", temperature="0.5", prompt="x"),
    ]


def streams(seeds: Sequence[bytes], first: int, count: int) -> Iterator[tuple[int, bytes]]:
    """Return `count` numbered requests from number `first` on: beginnings, then mutations."""
    beginnings = [seed[:length] for seed in seeds for length in range(0, len(seed) + 1, 3)]
    for number in range(first, first + count):
        if number < len(beginnings):
            yield number, beginnings[number]
        else:
            yield number, _lied(mutated(seeds, seeds[-1], number), number)


def _lied(request: bytes, number: int) -> bytes:
    """Now and then lie about the length of the body."""
    choose = random.Random(f"length of {number}")  # not what its mutations are drawn from
    if choose.random() > 0.2:
        return request
    lie = choose.choice((b"0", b"-1", b"99999999999", b"1e3", b"", b"7, 8", b"0x10"))
    return re.sub(rb"(?<=Content-Length: )\d+", lie, request)


# -- sending -------------------------------------------------------------------------------


async def ask(port: int, request: bytes, seconds: float = ANSWER_SECONDS) -> bytes:
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


def ending(answer: bytes) -> str:
    """Return what an answer is counted as; 503 alone has another reason than too many requests.

    Two clips are taken at once, and half of one is waited for: of six workers most are refused.
    """
    status = STATUS.match(answer)
    if not status:
        return "none"
    is_busy = status[1] == b"503" and BUSY in answer
    return "503 (busy: the page hears two clips at once)" if is_busy else status[1].decode()


class HttpFuzzer(Fuzzer):
    """Sends requests to a port."""

    unit = "requests"
    honest_every = 200
    failed, not_http = "answers were failures of ours", "answers were not HTTP"
    deaf = "commands were not answered after the requests"

    def __init__(self, port: int, honest: bytes, expected: bytes, uri: str) -> None:
        super().__init__(expected, self.failed, self.not_http, self.deaf)
        self._port = port
        self._honest = honest
        self._uri = uri

    async def run(self, numbered: Iterator[tuple[int, bytes]], workers: int, total: int) -> None:
        await super().run(numbered, workers, total)
        if (await say(self._uri, with_silence(short_clips()[0].samples))).error:
            self.result.broken[self.deaf].append(total)

    async def honest(self) -> object:
        return await content(self._port, self._honest)

    async def send(self, number: int, data: bytes) -> None:
        answer = await ask(self._port, data)
        status = STATUS.match(answer)
        self.answered(ending(answer))
        if status and (status[1] == b"500" or ending(answer) == "503"):
            self.result.broken[self.failed].append(number)
        if answer and not status:
            self.result.broken[self.not_http].append(number)


async def content(port: int, request: bytes) -> bytes:
    """Return the body of the answer to an honest request."""
    return (await ask(port, request, HANG_SECONDS)).partition(b"\r\n\r\n")[2]


# -- the suite -----------------------------------------------------------------------------


def fuzz(folder: Path, first: int, count: int, workers: int) -> Result:
    """Send `count` requests to a server of its own. Raises BenchmarkError."""
    speech = short_clips()[0].samples
    honest = transcription(wav(speech), response_format="text")
    port, uri = free_port(), f"tcp://127.0.0.1:{free_port()}"
    flags = ["--model", "tiny", "--language", "en", "--zeroconf", "off", "--openai-api"]
    with Watched(folder, *flags, "--http-port", str(port), uri=uri, opens=STANDIN) as server:
        server.answering()
        server.ready()
        _until_open(port)
        fuzzer = HttpFuzzer(port, honest, _warm(uri, port, honest, speech), uri)
        numbered = streams(requests(speech), first, count)
        return fuzzing.fuzz(server, fuzzer, numbered, workers, count)


def _until_open(port: int) -> None:
    end = time.perf_counter() + HANG_SECONDS
    while time.perf_counter() < end:
        with contextlib.suppress(OSError):
            asyncio.run(ask(port, b"GET /health HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n"))
            return
        time.sleep(0.1)
    raise BenchmarkError("the page does not open")


def _warm(uri: str, port: int, honest: bytes, speech: Samples) -> bytes:
    """Return the answer to an honest request, when all that is loaded once is there."""
    asyncio.run(say(uri, with_silence(speech)))
    answers = [asyncio.run(content(port, honest)) for _ in range(WORKERS)]
    if b"samples" not in answers[-1]:
        raise BenchmarkError(f"an honest request is answered with {answers[-1]!r}")
    return answers[-1]


def add_options(parser: argparse.ArgumentParser) -> None:
    add_number(parser, "--requests", 20_000)
    add_number(parser, "--first", 0, "number of the first")
    add_number(parser, "--workers", WORKERS, "connections at once")


def run(args: argparse.Namespace) -> Outcome:
    """Send; what is left or is answered wrongly is a failure."""
    with tempfile.TemporaryDirectory() as folder:
        result = fuzz(Path(folder), args.first, args.requests, args.workers)
    return result.outcome(HttpFuzzer.unit)
