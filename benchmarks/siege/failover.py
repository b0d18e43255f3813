"""A front end whose upstreams fail in every way, while people speak: what is lost, and how late.

`python -m benchmarks.siege.failover [FAULT...]` starts three servers with `tiny.en`: one that is asked
over Wyoming, one that is asked as OpenAI's API is, and the front end, whose own model is the last.
Between them are gates, which do what faulty machines and networks do. Speakers talk in real time
all the while, and each fault begins in the middle of their commands.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import re
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aiohttp import ClientError, ClientSession, ClientTimeout, FormData, web
from wyoming.asr import Transcript
from wyoming.audio import AudioStop
from wyoming.error import Error
from wyoming.event import Event, async_read_event, async_write_event
from wyoming.info import Describe

from benchmarks.lib import models, report
from benchmarks.lib.client import Heard, say
from benchmarks.lib.clips import Clip, ClipError, with_silence
from benchmarks.lib.servers import BenchmarkError
from benchmarks.lib.watched import Watched, free_port
from benchmarks.siege.hostile import speak
from benchmarks.speed.responsiveness import BUNDLED_CLIPS, short_clips
from wyoming_whisper.transcriber import Samples
from wyoming_whisper.upstreams.openai import wav

FLAGS = ("--cpu-threads", "2")
SPEAKERS = 4
STAGGER_SECONDS = 0.7  # people don't begin at once
INJECT_SECONDS = 1.2  # after the first has begun: all are in the middle of a command
SLOW_SECONDS = 2.5
RECOVERY_SECONDS = 60.0  # only who is never asked again takes so long
LIE = "ERROR: CUDA out of memory"


# -- gates ---------------------------------------------------------------------------------


async def _answer_text(writer: asyncio.StreamWriter, text: str) -> None:
    await async_write_event(Transcript(text).event(), writer)


async def _hang(_: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def _pour(writer: asyncio.StreamWriter) -> None:
    while True:
        await async_write_event(Event("pong", {"text": "x" * 1000}), writer)


async def _garbage(writer: asyncio.StreamWriter) -> None:
    writer.write(b"\xff\xfe\x00 no event \n" * 10)
    await writer.drain()


async def _half(writer: asyncio.StreamWriter) -> None:
    writer.write(b'{"type": "transcript", "data_length": 20}\n{"te')
    await writer.drain()
    writer.close()


WYOMING_ANSWERS: dict[str, Callable[[asyncio.StreamWriter], Awaitable[None]]] = {
    "error event": lambda writer: async_write_event(Error("no GPU", "x").event(), writer),
    "error as text": lambda writer: _answer_text(writer, LIE),
    "endless text": lambda writer: _answer_text(writer, "turn on " * 10_000),
    "empty text": lambda writer: _answer_text(writer, ""),
    "garbage": _garbage,
    "half an answer": _half,
    "endless events": _pour,
    "no answer": _hang,
}


class WyomingGate:
    """Passes events on to a Wyoming server, or does what `fault` says."""

    def __init__(self, to: str) -> None:
        self.port = free_port()
        self.fault = ""
        self._to = urlsplit(to)
        self._server: asyncio.Server | None = None
        self._holes: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def set(self, fault: str) -> None:
        """Begin a fault, or end it with ""."""
        self.fault = fault
        for hole in self._holes:
            hole.close()
        self._holes.clear()
        if fault in ("refused", "black hole"):
            await self.close()
            if fault == "black hole":
                self._holes = _black_hole(self.port)
        elif self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        if fault in ("reset", "black hole"):
            for task in self._tasks:
                task.cancel()

    async def close(self) -> None:
        if self._server:
            self._server.close()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task  # noqa: S101
        self._tasks.add(task)
        try:
            await self._converse(reader, writer)
        except (OSError, asyncio.CancelledError, asyncio.IncompleteReadError, ValueError):
            pass  # what a fault does to it
        finally:
            self._tasks.discard(task)
            if self.fault in ("reset", "refused", "black hole"):
                writer.transport.abort()
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.fault == "hang":
            await reader.read()
            return
        behind, to_behind = await asyncio.open_connection(self._to.hostname, self._to.port)
        try:
            while (event := await async_read_event(reader)) is not None:
                if self.fault == "hang":
                    await reader.read()
                    return
                await async_write_event(event, to_behind)
                if Describe.is_type(event.type):
                    await self._pass_back(behind, writer)
                if AudioStop.is_type(event.type):
                    await self._answer(behind, writer)
        finally:
            to_behind.close()

    async def _answer(self, behind: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.fault in WYOMING_ANSWERS:
            await WYOMING_ANSWERS[self.fault](writer)
            return
        if self.fault == "slow":
            await asyncio.sleep(SLOW_SECONDS)
        await self._pass_back(behind, writer)

    async def _pass_back(self, behind: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        event = await async_read_event(behind)
        if event is None:
            raise ConnectionError("nobody is behind the gate")
        await async_write_event(event, writer)


def _black_hole(port: int) -> list[socket.socket]:
    """Take the port so that nobody is refused and nobody accepted: Linux then drops what comes."""
    hole = socket.socket()
    hole.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    hole.bind(("127.0.0.1", port))
    hole.listen(0)
    waiting = [socket.socket() for _ in range(2)]
    for connection in waiting:
        connection.setblocking(False)
        connection.connect_ex(("127.0.0.1", port))
    return [*waiting, hole]


HTTP_ANSWERS: dict[str, tuple[int, bytes]] = {
    "HTTP 500": (500, b"{}"),
    "HTTP 429": (429, b"{}"),
    "HTTP 401": (401, b"{}"),
    "no JSON": (200, b"<html>502 Bad Gateway</html>"),
    "no text": (200, b'{"txt": "turn on"}'),
    "error as text": (200, json.dumps({"text": LIE}).encode()),
    "endless text": (200, json.dumps({"text": "turn on " * 10_000}).encode()),
    "empty text": (200, b'{"text": ""}'),
}


class HttpGate:
    """Passes requests on to an endpoint like OpenAI's, or does what `fault` says."""

    def __init__(self, to: str) -> None:
        self.port = free_port()
        self.fault = ""
        self._to = to
        self._runner: web.AppRunner | None = None
        self._session: ClientSession | None = None

    async def set(self, fault: str) -> None:
        """Begin a fault, or end it with ""."""
        self.fault = fault
        if self._session is None:
            self._session = ClientSession(timeout=ClientTimeout(total=60))
        if fault == "refused":
            await self._stop()
        elif self._runner is None:
            app = web.Application(client_max_size=64 * 2**20)
            app.router.add_route("*", "/v1/{path:.*}", self._serve)
            self._runner = web.AppRunner(
                app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True
            )
            await self._runner.setup()
            await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True).start()

    async def close(self) -> None:
        await self._stop()
        if self._session:
            await self._session.close()

    async def _stop(self) -> None:
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if self.fault == "hang":
            await asyncio.Event().wait()
        if request.method == "POST":
            if self.fault == "reset" and request.transport:
                request.transport.abort()
            if self.fault == "garbage" and request.transport:
                request.transport.write(b"\x00\xff no HTTP \r\n\r\n")
            if self.fault == "slow":
                await asyncio.sleep(SLOW_SECONDS)
            if self.fault in HTTP_ANSWERS:
                status, content = HTTP_ANSWERS[self.fault]
                return web.Response(status=status, body=content, content_type="application/json")
        return await self._passed_on(request, body)

    async def _passed_on(self, request: web.Request, body: bytes) -> web.Response:
        assert self._session  # noqa: S101
        headers = {k: v for k, v in request.headers.items() if k.lower() == "content-type"}
        url = self._to + request.match_info["path"]
        try:
            async with self._session.request(
                request.method, url, data=body or None, headers=headers
            ) as answer:
                content = await answer.read()
                return web.Response(status=answer.status, body=content)
        except ClientError:
            raise web.HTTPBadGateway from None


# -- the house -----------------------------------------------------------------------------


class House:
    """The front end and its upstreams; each is its own process."""

    def __init__(self, folder: Path, hedge_seconds: float) -> None:
        self._folder = folder
        self._stack = contextlib.ExitStack()
        self._gpu_uri = f"tcp://127.0.0.1:{free_port()}"
        http_port, self._page = free_port(), free_port()
        self.gpu = self._start_gpu()
        self.cloud = self._start(
            "cloud", f"tcp://127.0.0.1:{free_port()}", "--http-port", str(http_port), "--openai-api"
        )
        self.endpoint = f"http://127.0.0.1:{http_port}/v1/"
        self.wyoming, self.http = WyomingGate(self._gpu_uri), HttpGate(self.endpoint)
        self._upstreams = (
            f"tcp://127.0.0.1:{self.wyoming.port}",
            f"http://127.0.0.1:{self.http.port}/v1",
        )
        self._hedge_seconds = hedge_seconds
        self.front: Watched

    def _start(self, name: str, uri: str = "", *flags: str) -> Watched:
        flags = (*models.serving(), *FLAGS, *flags)
        return self._stack.enter_context(Watched(self._folder / name, *flags, uri=uri))

    def _start_gpu(self) -> Watched:
        return self._start("gpu", self._gpu_uri)

    def restart_gpu(self) -> None:
        self.gpu = self._start_gpu()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[House]:
        with self._stack:
            await self.wyoming.set("")
            await self.http.set("")
            self.front = self._start(
                "front",
                "",
                *("--upstreams", ",".join(self._upstreams)),
                *("--upstream-hedge", str(self._hedge_seconds)),
                *("--http-port", str(self._page)),
            )
            for server in (self.gpu, self.cloud, self.front):
                await asyncio.to_thread(server.ready)
            try:
                yield self
            finally:
                await self.wyoming.close()
                await self.http.close()

    async def circuits(self) -> list[str]:
        """Return whether each upstream is asked, says the front end."""
        with contextlib.suppress(ClientError, OSError):
            async with (
                ClientSession() as session,
                session.get(f"http://127.0.0.1:{self._page}/state") as answer,
            ):
                return [upstream["circuit"] for upstream in (await answer.json())["upstreams"]]
        return []

    def n_by(self) -> Counter[str]:
        """Return how many commands each has answered so far, by the front end's log."""
        found = re.findall(r"s of audio answered \S+ s after its end( by \S+)?", self.front.log)
        names = {f" by {self._upstreams[0]}": "wyoming", f" by {self._upstreams[1]}": "openai"}
        return Counter(names.get(who, "here") for who in found)

    async def transcribe_http(self, samples: Samples) -> str:
        form = FormData({"model": "whisper-1", "language": "en"})
        form.add_field("file", wav(samples), filename="a.wav", content_type="audio/wav")
        async with (
            ClientSession() as session,
            session.post(f"{self.endpoint}audio/transcriptions", data=form) as answer,
        ):
            return str((await answer.json())["text"])


# -- faults --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """What happens, in the middle of commands."""

    name: str
    wyoming: str = ""
    http: str = ""
    kill: bool = False
    """Kill -9 the Wyoming upstream; it is started again when the speakers have finished."""


FAULTS = (
    Fault("nothing"),
    *(
        Fault(f"wyoming: {name}", wyoming=name)
        for name in ("refused", "black hole", "hang", "reset", "slow", *WYOMING_ANSWERS)
    ),
    Fault("wyoming: kill -9", kill=True),
    Fault("openai: nothing", wyoming="refused"),
    *(
        Fault(f"openai: {name}", wyoming="refused", http=name)
        for name in ("refused", "hang", "reset", "slow", "garbage", *HTTP_ANSWERS)
    ),
    Fault("both: no answer", wyoming="no answer", http="hang"),
    Fault("both: error as text", wyoming="error as text", http="error as text"),
)


@dataclass
class Found:
    """What came of the commands during one fault."""

    fault: str
    seconds: list[float] = field(default_factory=list)
    """From the end of the audio to the text, of each command."""
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    by: dict[str, int] = field(default_factory=dict)
    """How many each server answered."""
    recovered_seconds: float | None = None
    """From the fault's end until all may be asked again; None when that never was."""


class Rehearsal:
    """One fault after the other."""

    def __init__(self, house: House, clips: Sequence[Clip], answers: dict[str, str]) -> None:
        self._house = house
        self._clips = itertools.cycle(clips)
        self._answers = answers

    async def run(self, fault: Fault, commands: int) -> Found:
        """Have all speakers say so many commands, in the middle of which the fault begins."""
        found = Found(fault.name)
        if fault.name.startswith("openai"):  # the second is asked first
            await self._house.wyoming.set("refused")
            await self._until(lambda circuits: circuits == ["open", "closed"])
        before = self._house.n_by()
        speaking = [
            asyncio.create_task(self._speak(found, number, commands)) for number in range(SPEAKERS)
        ]
        await asyncio.sleep(INJECT_SECONDS)
        await self._house.wyoming.set(fault.wyoming)
        await self._house.http.set(fault.http)
        if fault.kill:
            self._house.gpu.send(signal.SIGKILL)
        await asyncio.gather(*speaking)
        found.by = dict(self._house.n_by() - before)
        if fault.kill:
            self._house.restart_gpu()
            await asyncio.to_thread(self._house.gpu.ready)
        await self._house.wyoming.set("")
        await self._house.http.set("")
        # The second need not prove itself while the first answers.
        found.recovered_seconds = await self._until(
            lambda circuits: circuits[:1] == ["closed"] and "open" not in circuits
        )
        return found

    async def _speak(self, found: Found, number: int, commands: int) -> None:
        await asyncio.sleep(number * STAGGER_SECONDS)
        for clip in itertools.islice(self._clips, commands):
            heard = await _heard(speak(self._house.front.uri, clip))
            if heard.error or not heard.text:
                found.lost.append(f"{clip.file}: {heard.error or 'an empty text'}")
            elif heard.text != self._answers[clip.file]:
                found.wrong.append(f"{clip.file}: {heard.text!r}, not {self._answers[clip.file]!r}")
            found.seconds.append(heard.seconds)

    async def _until(self, wanted: Callable[[list[str]], bool]) -> float | None:
        """Wait for this; somebody speaks now and then, as trials need utterances."""
        start = time.perf_counter()
        while time.perf_counter() - start < RECOVERY_SECONDS:
            if wanted(await self._house.circuits()):
                return time.perf_counter() - start
            await _heard(say(self._house.front.uri, with_silence(next(self._clips).samples)))
            await asyncio.sleep(0.5)
        return None


async def _heard(saying: Awaitable[Heard]) -> Heard:
    try:
        return await saying
    except (OSError, asyncio.TimeoutError, EOFError, ValueError) as error:
        return Heard("", 0.0, repr(error))


async def agreed(house: House, clips: Sequence[Clip]) -> dict[str, str]:
    """Return the text of each clip that both ways give, and not an empty one."""
    texts: dict[str, str] = {}
    for clip in clips:
        samples = with_silence(clip.samples)
        text = (await say(house.gpu.uri, samples)).text
        if text and text == (await house.transcribe_http(samples)).strip().rstrip("."):
            texts[clip.file] = text
    return texts


# -- reporting -----------------------------------------------------------------------------


def rows(found: Sequence[Found]) -> Iterator[list[str]]:
    """Yield the table's rows; extra is against the median of "nothing"."""
    calm = report.percentile(found[0].seconds, 50)
    for one in found:
        slowest, median = max(one.seconds), report.percentile(one.seconds, 50)
        yield [
            one.fault,
            str(len(one.seconds)),
            str(len(one.lost)),
            str(len(one.wrong)),
            report.milliseconds(median),
            report.milliseconds(slowest),
            report.milliseconds(slowest - calm),
            ", ".join(f"{who} {n}" for who, n in sorted(one.by.items())),
            "never" if one.recovered_seconds is None else f"{one.recovered_seconds:.0f} s",
        ]


HEAD = (
    "fault",
    "commands",
    "lost",
    "wrong",
    "median",
    "slowest",
    "extra, slowest",
    "answered by",
    "asked again after",
)


def failures(found: Sequence[Found]) -> list[str]:
    """Return what was promised and is not so, a sentence each."""
    said = [f"{one.fault}: lost {what}" for one in found for what in one.lost]
    said += [f"{one.fault}: wrong {what}" for one in found for what in one.wrong]
    return said + [
        f"{one.fault}: not asked again within {RECOVERY_SECONDS:g} s"
        for one in found
        if one.recovered_seconds is None
    ]


async def rehearse(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return everything that was found. Raises BenchmarkError."""
    chosen = [f for f in FAULTS if not args.faults or any(n in f.name for n in args.faults)]
    chosen = [FAULTS[0], *(fault for fault in chosen if fault is not FAULTS[0])]
    clips = short_clips(BUNDLED_CLIPS)
    async with House(folder, args.hedge).running() as house:
        answers = await agreed(house, clips)
        spoken = [clip for clip in clips if clip.file in answers]
        if not spoken:
            raise BenchmarkError("no clip has the same text both ways")
        note = f"{len(spoken)} of {len(clips)} clips are spoken: both upstreams write them alike"
        print(note, file=sys.stderr, flush=True)
        rehearsal, found = Rehearsal(house, spoken, answers), list[Found]()
        for number, fault in enumerate(chosen, 1):
            found.append(await rehearsal.run(fault, args.commands))
            line = f"{number} of {len(chosen)}: {' | '.join(list(rows([found[0], found[-1]]))[1])}"
            print(line, file=sys.stderr, flush=True)
        trouble = house.front.trouble
        status = await asyncio.to_thread(house.front.stopped)
    return {"found": found, "trouble": trouble, "exit_status": status, "clips": len(spoken)}


def main(argv: Sequence[str] | None = None) -> int:
    """Rehearse, print a table, return 1 when something was lost or wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.siege.failover", description=__doc__
    )
    parser.add_argument("faults", nargs="*", help="parts of the faults' names (default: all)")
    parser.add_argument(
        "--commands", type=int, default=2, help="of each of four speakers, for each fault"
    )
    parser.add_argument("--hedge", type=float, default=1.0, help="--upstream-hedge of the server")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there, too")
    args = parser.parse_args(argv)
    machine = report.machine()
    try:
        with tempfile.TemporaryDirectory() as folder:
            result = asyncio.run(rehearse(args, Path(folder)))
    except (BenchmarkError, ClipError) as error:
        print(error, file=sys.stderr)
        return 1
    found: list[Found] = result["found"]
    print(report.machine_line(machine))
    print(f"{SPEAKERS} speakers in real time; the next one is asked after {args.hedge:g} s\n")
    print(report.table(HEAD, list(rows(found))))
    broken = failures(found)
    if result["trouble"] or result["exit_status"]:
        broken.append(f"the front end's log or end: {result['trouble']} {result['exit_status']}")
    print("\n".join(broken) or f"\n{sum(len(f.seconds) for f in found)} commands: 0 lost, 0 wrong")
    result["found"] = [asdict(one) for one in found]
    report.write_json(args.json, {"machine": machine, "hedge": args.hedge, **result})
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
