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
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from aiohttp import ClientError, ClientSession
from wyoming.asr import Transcript
from wyoming.error import Error
from wyoming.event import Event

from benchmarks.lib import models, report
from benchmarks.lib.client import as_bytes, steady_texts
from benchmarks.lib.clips import Clip, short_clips, with_silence
from benchmarks.lib.errors import BenchmarkError
from benchmarks.lib.openai import transcribe
from benchmarks.lib.options import add_number
from benchmarks.lib.proxy import Answers, Gate
from benchmarks.lib.report import Outcome, progress
from benchmarks.lib.servers import Watched, free_port
from benchmarks.lib.speakers import Speakers, Toll

SPEAKERS = 4
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

    front: Watched

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

    def _start(self, name: str, uri: str = "", *flags: str) -> Watched:
        flags = (*models.serving(), "--cpu-threads", "2", *flags)
        return self._stack.enter_context(Watched(self._folder / name, *flags, uri=uri))

    def _start_gpu(self) -> Watched:
        return self._start("gpu", f"tcp://127.0.0.1:{self._gpu_port}")

    async def restart_gpu(self) -> None:
        self.gpu = self._start_gpu()
        await asyncio.to_thread(self.gpu.ready)

    async def set(self, wyoming: str = "", http: str = "") -> None:
        """Begin faults, or end them with ""."""
        await self.wyoming.set(wyoming)
        await self.http.set(http)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[House]:
        with self._stack:
            await self.set()
            flags = ["--upstreams", ",".join(self._upstreams)]
            flags += ["--upstream-hedge", str(self._hedge_seconds), "--http-port", str(self._page)]
            self.front = self._start("front", "", *flags)
            for server in (self.gpu, self.cloud, self.front):
                await asyncio.to_thread(server.ready)
            try:
                yield self
            finally:
                await self.wyoming.close()
                await self.http.close()

    async def circuits(self) -> list[str]:
        """Return whether each upstream is asked, says the front end."""
        url = f"http://127.0.0.1:{self._page}/state"
        with contextlib.suppress(ClientError, OSError):
            async with ClientSession() as session, session.get(url) as answer:
                return [upstream["circuit"] for upstream in (await answer.json())["upstreams"]]
        return []

    def n_by(self) -> Counter[str]:
        """Return how many commands each has answered so far, by the front end's log."""
        answers = re.findall(r"s of audio answered \S+ s after its end( by \S+)?", self.front.log)
        names = {f" by {self._upstreams[0]}": "wyoming", f" by {self._upstreams[1]}": "openai"}
        return Counter(names.get(who, "here") for who in answers)

    async def agreed(self, clips: Sequence[Clip]) -> dict[str, str]:
        """Return the text of each clip that both ways give, every time, and not an empty one."""
        texts = await steady_texts(self.gpu.uri, clips)
        for clip in clips:
            written = await transcribe(
                f"http://127.0.0.1:{self._http_port}", with_silence(clip.samples)
            )
            if texts.get(clip.file) != written.strip().rstrip("."):
                texts.pop(clip.file, None)
        if not texts:
            raise BenchmarkError("no clip has the same text both ways")
        return texts


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
class Found(Toll):
    """What came of the commands during one fault."""

    fault: str = ""
    by: dict[str, int] = field(default_factory=dict)
    """How many each server answered."""
    recovered_seconds: float | None = None
    """From the fault's end until all may be asked again; None when that never was."""

    @property
    def failures(self) -> list[str]:
        """What was promised and is not so, a sentence each."""
        said = [f"{self.fault}: lost {what}" for what in self.lost]
        said += [f"{self.fault}: wrong {what}" for what in self.wrong]
        if self.recovered_seconds is None:
            said.append(f"{self.fault}: not asked again within {RECOVERY_SECONDS:g} s")
        return said

    def row(self, calm: float) -> list[str]:
        """Return a row of the table; extra is against the median of "nothing"."""
        slowest, median = max(self.seconds), report.percentile(self.seconds, 50)
        again = self.recovered_seconds
        return [
            self.fault,
            *(str(len(what)) for what in (self.seconds, self.lost, self.wrong)),
            *map(report.milliseconds, (median, slowest, slowest - calm)),
            ", ".join(f"{who} {n}" for who, n in sorted(self.by.items())),
            "never" if again is None else f"{again:.0f} s",
        ]


class Rehearsal:
    """One fault after the other."""

    def __init__(self, house: House, speakers: Speakers) -> None:
        self._house = house
        self._speakers = speakers
        self._clips = itertools.cycle(speakers.clips)

    async def run(self, fault: Fault, commands: int) -> Found:
        """Have all speakers say so many commands, in the middle of which the fault begins."""
        house, found = self._house, Found(fault=fault.name)
        if fault.name.startswith("openai"):  # the second is asked first
            await house.wyoming.set("refused")
            await self._until(lambda circuits: circuits == ["open", "closed"])
        before = house.n_by()
        speaking = [  # people don't begin at once
            asyncio.create_task(
                self._speakers.speak(
                    itertools.islice(self._clips, commands), found, in_time=True, after=0.7 * number
                )
            )
            for number in range(SPEAKERS)
        ]
        await asyncio.sleep(1.2)  # all are in the middle of a command
        await house.set(fault.wyoming, fault.http)
        if fault.kill:
            house.gpu.send(signal.SIGKILL)
        await asyncio.gather(*speaking)
        found.by = dict(house.n_by() - before)
        if fault.kill:
            await house.restart_gpu()
        await house.set()
        # The second need not prove itself while the first answers.
        found.recovered_seconds = await self._until(
            lambda circuits: circuits[:1] == ["closed"] and "open" not in circuits
        )
        return found

    async def _until(self, reached: Callable[[list[str]], bool]) -> float | None:
        """Wait for this; somebody speaks now and then, as trials need utterances."""
        start = time.perf_counter()
        while time.perf_counter() - start < RECOVERY_SECONDS:
            if reached(await self._house.circuits()):
                return time.perf_counter() - start
            await self._speakers.say(next(self._clips))
            await asyncio.sleep(0.5)
        return None


# -- the suite -----------------------------------------------------------------------------


def table(results: Iterable[Found]) -> str:
    """Return the table of all faults; the first is none."""
    first, *others = results
    calm = report.percentile(first.seconds, 50)
    head = ("fault", "commands", "lost", "wrong", "median", "slowest", "extra, slowest")
    rows = [one.row(calm) for one in (first, *others)]
    return report.table((*head, "answered by", "asked again after"), rows)


async def rehearse(args: argparse.Namespace, folder: Path) -> Outcome:
    """Return everything that came of it. Raises BenchmarkError."""
    chosen = [f for f in FAULTS[1:] if not args.faults or any(n in f.name for n in args.faults)]
    clips, results = short_clips(), list[Found]()
    async with House(folder, args.hedge).running() as house:
        speakers = Speakers(house.front.uri, clips, await house.agreed(clips))
        count = f"{len(speakers.clips)} of {len(clips)} clips are spoken"
        progress(f"{count}: both upstreams write them alike")
        before, rehearsal = await asyncio.to_thread(house.front.counts), Rehearsal(house, speakers)
        for fault in (FAULTS[0], *chosen):
            results.append(await rehearsal.run(fault, args.commands))
            progress(table([results[0], results[-1]]).splitlines()[-1])
        remains = await asyncio.to_thread(house.front.remains, before)
    remains = replace(remains, leaked={})  # connections to upstreams are kept
    broken = [failure for one in results for failure in one.failures]
    broken += [f"the front end: {failure}" for failure in remains.failures()]
    how = f"{SPEAKERS} speakers in real time; the next one is asked after {args.hedge:g} s"
    n_all, n_lost, n_wrong = (
        sum(len(getattr(one, what)) for one in results) for what in ("seconds", "lost", "wrong")
    )
    shown = [how, table(results), f"{n_all} commands: {n_lost} lost, {n_wrong} wrong"]
    return Outcome(shown, {"faults": [asdict(one) for one in results], **asdict(remains)}, broken)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("faults", nargs="*", help="parts of the faults' names (default: all)")
    add_number(parser, "--commands", 2, "of each of four speakers, for each fault")
    add_number(parser, "--hedge", 1.0, "--upstream-hedge of the server")


def run(args: argparse.Namespace) -> Outcome:
    """Rehearse; what was lost or wrong is a failure."""
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(rehearse(args, Path(folder)))
