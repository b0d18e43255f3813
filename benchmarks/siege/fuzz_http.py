"""Mutated HTTP requests against the page and the OpenAI-compatible endpoint: nothing may break.

`python -m benchmarks.siege.fuzz_http` sends every beginning of real requests, and random mutations of
them, to a server whose model is a stand-in; who sends them leaves soon, as half a request is waited
for. No answer may be a failure of ours (500), nothing may be left, honest requests and commands
between them are answered as before. A request is known by its number, as in `benchmarks.siege.fuzz`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import io
import random
import re
import sys
import tempfile
import time
import wave
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.lib import report
from benchmarks.lib.client import say
from benchmarks.lib.clips import ClipError, with_silence
from benchmarks.lib.servers import BenchmarkError
from benchmarks.lib.watched import Watched, free_port
from benchmarks.siege.fuzz import SETTLE_SECONDS, mutated, traces
from benchmarks.speed.responsiveness import BUNDLED_CLIPS, short_clips
from wyoming_whisper.transcriber import SAMPLE_RATE, Samples

REQUESTS = 20_000
WORKERS = 6  # fewer than requests may be there at once, so that honest ones have room
HONEST_EVERY = 200
ANSWER_SECONDS = 0.3  # for an answer to come, where there is to be one
HANG_SECONDS = 30.0
BOUNDARY = "lineofdashes"
PATHS = ("/", "/state", "/health", "/metrics", "/v1/models", "/v1/models/whisper-1", "/../x")
STATUS = re.compile(rb"^HTTP/\d\.\d (\d{3}) ")
HEADERS = "Host: 127.0.0.1\r\nConnection: close\r\n"


# -- requests ------------------------------------------------------------------------------


def wav(samples: Samples) -> bytes:
    """Return samples as a file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(SAMPLE_RATE)
        writer.writeframes(np.round(samples * 32767).astype("<i2").tobytes())
    return file.getvalue()


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


@dataclass
class Found:
    """What came of the requests."""

    statuses: dict[str, int] = field(default_factory=dict)
    failed: list[int] = field(default_factory=list)
    """Numbers of requests answered with 500."""
    broken: list[int] = field(default_factory=list)
    """Numbers of requests answered with something that is not HTTP."""
    honest: int = 0
    wrong: list[int] = field(default_factory=list)
    """Numbers of requests after which an honest one was answered otherwise."""


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


class Fuzzer:
    """Sends requests over several connections at once."""

    def __init__(self, port: int, honest: bytes) -> None:
        self._port = port
        self._honest = honest
        self._expected = b""
        self.found = Found()

    async def run(self, numbered: Iterator[tuple[int, bytes]], workers: int, total: int) -> None:
        self._expected = await self._honest_answer()
        if b"samples" not in self._expected:
            raise BenchmarkError(f"an honest request is answered with {self._expected!r}")
        bar = importlib.import_module("tqdm").tqdm  # untyped
        with bar(total=total, unit=" requests", mininterval=5) as progress:

            async def work() -> None:
                for number, request in numbered:
                    await self._try(number, request)
                    progress.update()

            await asyncio.gather(*(work() for _ in range(workers)))

    async def _try(self, number: int, request: bytes) -> None:
        answer = await ask(self._port, request)
        status = STATUS.match(answer)
        name, statuses = status[1].decode() if status else "none", self.found.statuses
        statuses[name] = statuses.get(name, 0) + 1
        if status and status[1] == b"500":
            self.found.failed.append(number)
        if answer and not status:
            self.found.broken.append(number)
        if number % HONEST_EVERY == 0:
            self.found.honest += 1
            if await self._honest_answer() != self._expected:
                self.found.wrong.append(number)

    async def _honest_answer(self) -> bytes:
        answer = await ask(self._port, self._honest, HANG_SECONDS)
        return answer.partition(b"\r\n\r\n")[2]


# -- the command ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """Everything that was found, as it is reported."""

    found: Found
    trouble: list[str]
    growth_bytes: int
    leaked: dict[str, int]
    exit_status: int

    @property
    def failures(self) -> list[str]:
        """Promises that were broken, a sentence each."""
        found = self.found
        said = [
            f"{len(numbers)} {what}: requests {numbers[:10]}"
            for numbers, what in (
                (found.failed, "answers were failures of ours"),
                (found.broken, "answers were not HTTP"),
                (found.wrong, "honest requests were not answered as before"),
            )
            if numbers
        ]
        return said + traces(self.trouble, self.growth_bytes, self.leaked, self.exit_status)


def fuzz(folder: Path, first: int, count: int, workers: int) -> Outcome:
    """Send `count` requests to a server of its own. Raises BenchmarkError."""
    speech = short_clips(BUNDLED_CLIPS)[0].samples
    honest = transcription(wav(speech), response_format="text")
    port, uri = free_port(), f"tcp://127.0.0.1:{free_port()}"
    flags = ["--model", "tiny", "--language", "en", "--zeroconf", "off", "--openai-api"]
    flags += ["--http-port", str(port)]
    opens = "benchmarks.lib.watched:standin"
    with Watched(folder, *flags, uri=uri, opens=opens) as server:
        server.answering()
        server.ready()
        _until_open(port)
        _warm(uri, port, honest, speech)
        time.sleep(SETTLE_SECONDS)
        before = server.counts()
        fuzzer = Fuzzer(port, honest)
        asyncio.run(fuzzer.run(streams(requests(speech), first, count), workers, count))
        if asyncio.run(say(uri, with_silence(speech))).error:
            raise BenchmarkError("a command is not answered after the requests")
        time.sleep(SETTLE_SECONDS)
        after = server.counts()
        return Outcome(
            found=fuzzer.found,
            exit_status=server.stopped(),
            trouble=server.trouble,
            growth_bytes=after.resident - before.resident,
            leaked=after.left_behind(before),
        )


def _until_open(port: int) -> None:
    end = time.perf_counter() + HANG_SECONDS
    while time.perf_counter() < end:
        with contextlib.suppress(OSError):
            asyncio.run(ask(port, b"GET /health HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n"))
            return
        time.sleep(0.1)
    raise BenchmarkError("the page does not open")


def _warm(uri: str, port: int, honest: bytes, speech: Samples) -> None:
    """Have everything loaded that is loaded once."""
    asyncio.run(say(uri, with_silence(speech)))
    for _ in range(WORKERS):
        asyncio.run(ask(port, honest, HANG_SECONDS))


def show(outcome: Outcome) -> str:
    found = outcome.found
    rows = [
        ["requests", str(sum(found.statuses.values()))],
        *([f"answered: {name}", str(count)] for name, count in sorted(found.statuses.items())),
        ["exceptions and errors in the log", str(len(outcome.trouble))],
        ["answers that are not HTTP", str(len(found.broken))],
        ["honest requests between them", str(found.honest)],
        ["of these answered otherwise than before", str(len(found.wrong))],
        ["growth of memory (VmRSS)", report.megabytes(outcome.growth_bytes)],
        *([f"{name} left behind", str(count)] for name, count in outcome.leaked.items()),
        ["exit status after SIGTERM", str(outcome.exit_status)],
    ]
    return report.table(["", "fuzz of HTTP"], rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Send, print, write; return 1 if a promise was broken."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=REQUESTS, help=f"default: {REQUESTS}")
    parser.add_argument("--first", type=int, default=0, help="number of the first (default: 0)")
    parser.add_argument("--workers", type=int, default=WORKERS, help="connections at once")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there, too")
    args = parser.parse_args(argv)
    facts = report.machine()
    try:
        with tempfile.TemporaryDirectory() as folder:
            outcome = fuzz(Path(folder), args.first, args.requests, args.workers)
    except (BenchmarkError, ClipError) as error:
        print(f"benchmarks.siege.fuzz_http: {error}", file=sys.stderr)
        return 1
    print(report.machine_line(facts), show(outcome), sep="\n\n")
    report.write_json(args.json, {"machine": facts, **asdict(outcome)})
    for sentence in outcome.failures:
        print(f"benchmarks.siege.fuzz_http: {sentence}", file=sys.stderr)
    return 1 if outcome.failures else 0


if __name__ == "__main__":
    sys.exit(main())
