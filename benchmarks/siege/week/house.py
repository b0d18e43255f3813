"""The house: servers that come and go, all that is around, and what is said before the week."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.lib import models
from benchmarks.lib.client import steady_texts
from benchmarks.lib.clips import Clip
from benchmarks.lib.errors import BenchmarkError
from benchmarks.lib.openai import transcribe
from benchmarks.lib.proxy import Proxy, standing
from benchmarks.lib.servers import DECIDED, READY, UNDECIDED, Watched, free_port
from benchmarks.lib.speakers import Speakers
from benchmarks.siege.week import plan, surroundings
from benchmarks.siege.week.people import Expectations
from benchmarks.siege.week.plan import DAY
from benchmarks.siege.week.records import Day, Excuses, Held, Week
from benchmarks.siege.week.surroundings import Disk, ShiftedClock
from tests.home_standin import TOKEN, Home
from tests.home_standin import serving as serving_home
from tests.models.hub_standin import serve as serve_hub
from wyoming_whisper.serving.server import Server
from wyoming_whisper.transcriber import Samples

MODEL = models.TINY

AREAS: Mapping[str, Sequence[str]] = {
    "before": ("Kitchen", "Living room", "Monstera", "Conservatory"),
    "after": ("Roborock", "Attic", "Garage", "Driveway"),
}
"""The areas that Home Assistant knows before it restarts, and after: in turns."""
NOBODY = "nobody"
"""The home of a server that knows no names."""


@dataclass(frozen=True)
class Options:
    """How the week is to be."""

    days: int = 7
    minutes: float = 45.0
    commands_a_day: int = plan.COMMANDS_A_DAY
    describe_every: float = 30.0
    """Seconds of the household."""
    idle_seconds: float | None = None
    """Until the model is unloaded, real; None for ten minutes of the household."""
    rest_seconds: float = Server.TIDY_SECONDS + 3
    """Until the server has given back what is free."""
    opens: str = ""
    """Stands in for `backends.open_transcriber`, as MODULE:FUNCTION: for tests."""

    @property
    def factor(self) -> float:
        return self.days * DAY / (self.minutes * 60)

    @property
    def idle_unload(self) -> int:
        seconds = 600.0 / self.factor if self.idle_seconds is None else self.idle_seconds
        return max(1, round(seconds))

    def pace(self, clips: Sequence[Samples]) -> float:
        """Return how many times as fast as speech commands are said, so that they fit.

        Of the 16 hours in which people are awake each satellite speaks for a third, at most.
        """
        seconds = sum(map(len, clips)) / 16_000 / len(clips) * self.commands_a_day
        return max(1.0, seconds / (DAY / self.factor * 16 / 24 * 0.35 * plan.SATELLITES))


class HouseServer:
    """A server that is started again and again, in the same place."""

    def __init__(
        self,
        folder: Path,
        uri: str,
        flags: Sequence[str],
        environment: Mapping[str, str],
        opens: str = "",
    ) -> None:
        """`opens` stands in for `backends.open_transcriber`, as MODULE:FUNCTION."""
        self.uri = uri
        self._folder = folder
        self._flags = flags
        self._how = {"environment": environment, "opens": opens}
        self._process: Watched | None = None

    @property
    def process(self) -> Watched:
        if self._process is None:
            raise BenchmarkError("the server was not started")
        return self._process

    @property
    def address(self) -> str:
        """Where it is asked."""
        return self.uri.replace("0.0.0.0", "127.0.0.1")  # noqa: S104

    async def start(self) -> None:
        """Start it, and wait until it answers `describe`. Raises BenchmarkError."""
        self._process = Watched(self._folder, *self._flags, uri=self.uri, **self._how)  # type: ignore[arg-type]
        await asyncio.to_thread(self._process.answering)

    async def terminate(self) -> int:
        """Stop it as systemd does; return the exit status. Raises BenchmarkError."""
        return await asyncio.to_thread(self.process.stopped)

    async def kill(self) -> None:
        """End it as a power cut does. Raises BenchmarkError."""
        self.process.send(signal.SIGKILL)
        await asyncio.to_thread(self.process.ended)

    def close(self) -> None:
        """Leave nothing running."""
        if self._process is not None:
            self._process.__exit__(None, None, None)

    @property
    def log(self) -> str:
        """What all its processes have written."""
        file = self._folder / "server.log"
        return file.read_text(errors="replace") if file.exists() else ""

    async def until_ready(self) -> None:
        """Wait until this process has its model. Raises BenchmarkError."""
        await self.until(lambda: bool(READY.search(self.process.log)), "the model is not there")

    async def until_chosen(self, samples: Samples) -> None:
        """Wait until it has chosen what runs the model; where it is unloaded before, wake it."""
        people = Speakers(self.address, [], {})
        waking = Clip("", "", "", samples)
        deadline = time.monotonic() + 120.0
        while UNDECIDED in self.process.log and not any(x in self.process.log for x in DECIDED):
            if time.monotonic() > deadline:
                raise BenchmarkError(f"it does not choose a backend:\n{self.log[-2000:]}")
            await people.say(waking)
            await asyncio.sleep(0.2)

    async def until(self, happened: Callable[[], bool], otherwise: str) -> None:
        """Wait until `happened`. Raises BenchmarkError."""
        deadline = time.monotonic() + 120.0  # only what never happens takes so long
        while not happened():
            if time.monotonic() > deadline or not self.process.alive:
                raise BenchmarkError(f"{otherwise}:\n{self.process.log[-2000:]}")
            await asyncio.sleep(0.05)

    async def held(self) -> Held:
        """Return what it holds now. Raises BenchmarkError."""
        process = self.process
        counts = await asyncio.to_thread(process.counts)
        answers: list[tuple[str, str]] = []

        def answered() -> bool:
            """What SIGUSR2 is answered with: bytes of malloc, blocks of Python."""
            answers[:] = re.findall(r"^allocated: (-?\d+) (\d+)$", process.log, re.MULTILINE)
            return len(answers) > n_before

        n_before = -1
        answered()
        n_before = len(answers)
        process.send(signal.SIGUSR2)
        await self.until(answered, "it does not say what it has allocated")
        allocated, blocks = map(int, answers[-1])
        memory = process.memory()
        return Held(
            own=memory.own,
            proportional=memory.proportional,
            descriptors=counts.descriptors,
            threads=counts.threads,
            tasks=counts.tasks,
            pid=process.pid,
            allocated=allocated if allocated >= 0 else None,
            blocks=blocks,
        )


@dataclass
class House:
    """The server and all that is around it, started."""

    options: Options
    server: HouseServer
    upstream: HouseServer
    http: str
    hub: Proxy
    home_assistant: Proxy
    home: Home
    disk: Disk
    shifted: ShiftedClock
    excuses: Excuses
    week: Week

    def rename(self, names_of: str) -> None:
        """Give Home Assistant the areas of a home."""
        self.home.areas = [
            {"area_id": str(number), "name": name, "aliases": []}
            for number, name in enumerate(AREAS[names_of])
        ]

    def n_asked_for_names(self) -> int:
        """Return how often Home Assistant has told the server all names of the home.

        The floors are what it is asked for last, where no entity is exposed.
        """
        return self.home.count("config/floor_registry/list")

    async def until_names(self, n_asked: int) -> None:
        """Wait until the server has asked so often, and knows. Raises BenchmarkError."""
        await self.server.until(
            lambda: self.n_asked_for_names() >= n_asked, "it does not ask for the home's names"
        )
        await asyncio.sleep(1.0)  # until every command is compared with the names

    # What is said before the week.

    async def move_in(self, samples: Samples) -> None:
        """Start for the first time, without a hub at first. Raises BenchmarkError."""
        server, week = self.server, self.week
        await server.start()
        if not self.options.opens:
            await server.until(lambda: "NOT READY" in server.log, "it misses no hub")
            answer = await Speakers(server.address, [], {}).say(Clip("", "", "", samples))
            if not answer.error:
                week.missing.append("a command that came before there was a model had an answer")
            name = "without a hub at the first start, a command is answered with"
            week.happened[name] = str(answer.error)
        await self.hub.listen()
        await server.until_ready()
        await server.until_chosen(samples)

    async def learn(self, clips: Sequence[Clip]) -> Expectations:
        """Say every clip in quiet, with the names of each home, and none. Raises BenchmarkError.

        The upstream, which knows no names, is heard too, and stopped again. Clips whose text the
        model draws at random are not among the texts.
        """
        texts: dict[str, Mapping[str, str]] = {}
        for number, name in enumerate(AREAS, 1):
            self.rename(name)
            if number > 1:
                await self.home.changed("area_registry_updated")
            await self.until_names(number)
            texts[name] = await steady_texts(self.server.address, clips)
        # It is to write the same texts, so it has what the server has, and has chosen.
        data = self.disk.folder
        await asyncio.to_thread(shutil.copytree, data, data.parent / "upstream-data", symlinks=True)
        await self.upstream.start()
        await self.upstream.until_ready()
        await self.upstream.until_chosen(clips[0].samples)
        texts[NOBODY] = await steady_texts(self.upstream.uri, clips)
        await self.upstream.terminate()
        certain = set.intersection(*(set(of_home) for of_home in texts.values()))
        if not certain:
            raise BenchmarkError("the servers transcribe none of the clips alike every time")
        expectations = Expectations(
            {name: {clip: of_home[clip] for clip in certain} for name, of_home in texts.items()}
        )
        expectations.known(*AREAS)
        return expectations

    async def learn_as_openai(
        self, clips: Mapping[str, Samples], expectations: Expectations
    ) -> dict[str, str]:
        """Return what the endpoint like OpenAI's writes of clips whose text no name changes."""
        texts: dict[str, str] = {}
        for name, samples in clips.items():
            if len({of_home.get(name) for of_home in expectations.texts.values()}) == 1:
                written = [await transcribe(self.http, samples) for _ in range(2)]
                if written[0] == written[1]:
                    texts[name] = written[0]
        return texts


@contextlib.asynccontextmanager
async def house(folder: Path, options: Options, model: Path) -> AsyncIterator[House]:
    """Give a house whose server is not started yet, and whose hub can't be reached."""
    files = await asyncio.to_thread(_read, model)
    async with contextlib.AsyncExitStack() as stack:
        disk = stack.enter_context(surroundings.data_disk(folder / "data"))
        hub = stack.enter_context(serve_hub({"Systran/faster-whisper-tiny.en": files}))
        home = await stack.enter_async_context(serving_home(Home()))
        to_hub, to_home = (Proxy(urlsplit(one.url).port or 0) for one in (hub, home))
        await stack.enter_async_context(standing(to_hub, is_open=False))
        await stack.enter_async_context(standing(to_home))
        clock, ports = ShiftedClock(folder), [free_port() for _ in range(3)]
        environment = {
            "HF_ENDPOINT": f"http://127.0.0.1:{to_hub.port}",
            # Without the hub, the model's files must not come from elsewhere.
            "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
            "PIP_RETRIES": "0",
        }
        flags = ("--model", MODEL, "--language", "en", "--idle-unload", str(options.idle_unload))
        listens_at = "127.0.0.1"
        front = [*flags, "--data-dir", str(disk.folder), "--openai-api", "--http-text"]
        front += ["--upstreams", f"tcp://127.0.0.1:{ports[1]}", "--http-port", str(ports[2])]
        front += ["--hass-api", f"http://127.0.0.1:{to_home.port}/api"]
        if surroundings.has_own_network():  # everywhere in it, where it can be announced
            listens_at = "0.0.0.0"  # noqa: S104
            front += ["--zeroconf", "week"]
        server = HouseServer(
            folder / "server",
            f"tcp://{listens_at}:{ports[0]}",
            front,
            {**environment, **clock.environment, "WYOMING_WHISPER_HASS_TOKEN": TOKEN},
            options.opens,
        )
        upstream = HouseServer(
            folder / "upstream",
            f"tcp://127.0.0.1:{ports[1]}",
            (*flags, "--data-dir", str(folder / "upstream-data")),
            environment,
            options.opens,
        )
        stack.callback(upstream.close)
        stack.callback(server.close)
        week, http = Week([Day() for _ in range(options.days)]), f"http://127.0.0.1:{ports[2]}"
        home_of = House(
            options, server, upstream, http, to_hub, to_home, home, disk, clock, Excuses(), week
        )
        home_of.rename("before")
        yield home_of


def _read(model: Path) -> dict[str, bytes]:
    """Return a model's files but for our own, which the hub has not."""
    ours = "wyoming_whisper.json"
    return {f.name: f.read_bytes() for f in model.iterdir() if f.name != ours and f.is_file()}
