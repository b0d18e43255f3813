"""A front end whose upstreams fail in every way, while people speak: what is lost, and how late.

Three servers run `tiny.en`: one that is asked over Wyoming, one that is asked as OpenAI's API is,
and the front end, whose own model is the last. Between them are gates (lib/proxy.py), which do what
faulty machines and networks do. Speakers talk in real time all the while, and each fault begins in
the middle of their commands.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import re
import signal
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import ClientError, ClientSession, FormData
from wyoming.asr import Transcript
from wyoming.error import Error
from wyoming.event import Event

from benchmarks.lib import models, report
from benchmarks.lib.client import SATELLITE_CHUNK_MS, Heard, as_bytes, say, steady_texts
from benchmarks.lib.clips import Clip, short_clips, with_silence
from benchmarks.lib.errors import BenchmarkError
from benchmarks.lib.options import add_number
from benchmarks.lib.proxy import Answers, Gate
from benchmarks.lib.report import Outcome, progress
from benchmarks.lib.servers import Watched, free_port
from wyoming_whisper.transcriber import Samples
from wyoming_whisper.upstreams.openai import wav

FLAGS = ("--cpu-threads", "2")
SPEAKERS = 4
STAGGER_SECONDS = 0.7  # people don't begin at once
INJECT_SECONDS = 1.2  # after the first has begun: all are in the middle of a command
RECOVERY_SECONDS = 60.0  # only who is never asked again takes so long
LIE = "ERROR: CUDA out of memory"


# -- what fails ----------------------------------------------------------------------------

WYOMING_ANSWERS: Answers = {
    "error event": [as_bytes([Error("no GPU", "x").event()])],
    "error as text": [as_bytes([Transcript(LIE).event()])],
    "endless text": [as_bytes([Transcript("turn on " * 10_000).event()])],
    "empty text": [as_bytes([Transcript("").event()])],
    "garbage": [b"\xff\xfe\x00 no event \n" * 10],
    "half an answer": [b'{"type": "transcript", "data_length": 20}\n{"te'],
    "endless events": itertools.repeat(as_bytes([Event("pong", {"text": "x" * 1000})])),
}


def _http(status: int, body: str) -> list[bytes]:
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nConnection: close\r\n"
    return [f"{head}Content-Length: {len(body.encode())}\r\n\r\n{body}".encode()]


HTTP_ANSWERS: Answers = {
    "reset": None,
    "garbage": [b"\x00\xff no HTTP \r\n\r\n"],
    "HTTP 500": _http(500, "{}"),
    "HTTP 429": _http(429, "{}"),
    "HTTP 401": _http(401, "{}"),
    "no JSON": _http(200, "<html>502 Bad Gateway</html>"),
    "no text": _http(200, '{"txt": "turn on"}'),
    "error as text": _http(200, json.dumps({"text": LIE})),
    "endless text": _http(200, json.dumps({"text": "turn on " * 10_000})),
    "empty text": _http(200, '{"text": ""}'),
}


def wyoming_gate(to: int) -> Gate:
    """Return a gate before a Wyoming server at this port."""
    return Gate(to, b'"audio-stop"', WYOMING_ANSWERS)


def http_gate(to: int) -> Gate:
    """Return a gate before an endpoint like OpenAI's at this port."""
    return Gate(to, b"POST ", HTTP_ANSWERS)


# -- the house -----------------------------------------------------------------------------


class House:
    """The front end and its upstreams; each is its own process."""

    def __init__(self, folder: Path, hedge_seconds: float) -> None:
        self._folder = folder
        self._stack = contextlib.ExitStack()
        self._gpu_port, self._http_port, self._page = free_port(), free_port(), free_port()
        self.gpu = self._start_gpu()
        api = ("--http-port", str(self._http_port), "--openai-api")
        self.cloud = self._start("cloud", f"tcp://127.0.0.1:{free_port()}", *api)
        self.wyoming, self.http = wyoming_gate(self._gpu_port), http_gate(self._http_port)
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
        return self._start("gpu", f"tcp://127.0.0.1:{self._gpu_port}")

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
        url = f"http://127.0.0.1:{self._http_port}/v1/audio/transcriptions"
        async with ClientSession() as session, session.post(url, data=form) as answer:
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
        for name in ("refused", "black hole", "hang", "reset", "slow", "no answer")
    ),
    *(Fault(f"wyoming: {name}", wyoming=name) for name in WYOMING_ANSWERS),
    Fault("wyoming: kill -9", kill=True),
    Fault("openai: nothing", wyoming="refused"),
    *(
        Fault(f"openai: {name}", wyoming="refused", http=name)
        for name in ("refused", "hang", "slow", *HTTP_ANSWERS)
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
            heard = await self._say(clip, in_time=True)
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
            await self._say(next(self._clips), in_time=False)
            await asyncio.sleep(0.5)
        return None

    async def _say(self, clip: Clip, *, in_time: bool) -> Heard:
        uri, samples = self._house.front.uri, with_silence(clip.samples)
        return await say(uri, samples, chunk_ms=SATELLITE_CHUNK_MS, in_time=in_time)


async def agreed(house: House, clips: Sequence[Clip]) -> dict[str, str]:
    """Return the text of each clip that both ways give, every time, and not an empty one."""
    texts = await steady_texts(house.gpu.uri, clips)
    for clip in clips:
        text = (await house.transcribe_http(with_silence(clip.samples))).strip().rstrip(".")
        if texts.get(clip.file) != text:
            texts.pop(clip.file, None)
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
    clips = short_clips()
    async with House(folder, args.hedge).running() as house:
        answers = await agreed(house, clips)
        spoken = [clip for clip in clips if clip.file in answers]
        if not spoken:
            raise BenchmarkError("no clip has the same text both ways")
        progress(f"{len(spoken)} of {len(clips)} clips are spoken: both upstreams write them alike")
        rehearsal, found = Rehearsal(house, spoken, answers), list[Found]()
        for number, fault in enumerate(chosen, 1):
            found.append(await rehearsal.run(fault, args.commands))
            row = list(rows([found[0], found[-1]]))[1]
            progress(f"{number} of {len(chosen)}: {' | '.join(row)}")
        trouble = house.front.trouble
        status = await asyncio.to_thread(house.front.stopped)
    return {"found": found, "trouble": trouble, "exit_status": status, "clips": len(spoken)}


# -- the suite -----------------------------------------------------------------------------


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("faults", nargs="*", help="parts of the faults' names (default: all)")
    add_number(parser, "--commands", 2, "of each of four speakers, for each fault")
    add_number(parser, "--hedge", 1.0, "--upstream-hedge of the server")


def run(args: argparse.Namespace) -> Outcome:
    """Rehearse; what was lost or wrong is a failure."""
    with tempfile.TemporaryDirectory() as folder:
        result = asyncio.run(rehearse(args, Path(folder)))
    found: list[Found] = result["found"]
    broken = failures(found)
    if result["trouble"] or result["exit_status"]:
        broken.append(f"the front end's log or end: {result['trouble']} {result['exit_status']}")
    how = f"{SPEAKERS} speakers in real time; the next one is asked after {args.hedge:g} s"
    count = f"{sum(len(one.seconds) for one in found)} commands"
    lost, wrong = sum(len(one.lost) for one in found), sum(len(one.wrong) for one in found)
    shown = [how, report.table(HEAD, list(rows(found))), f"{count}: {lost} lost, {wrong} wrong"]
    return Outcome(shown, {**result, "found": [asdict(one) for one in found]}, broken)
