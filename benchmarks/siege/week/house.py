"""The house: the server and all that is around it, and what it says before the week begins."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.lib import models
from benchmarks.lib.client import TIMES_ALIKE, say
from benchmarks.lib.errors import BenchmarkError
from benchmarks.lib.servers import free_port
from benchmarks.siege.week import people, plan, surroundings
from benchmarks.siege.week.people import Expectations
from benchmarks.siege.week.plan import DAY
from benchmarks.siege.week.records import Day, Excuses, Week
from benchmarks.siege.week.server import HouseServer
from benchmarks.siege.week.surroundings import Disk, Gate, ShiftedClock
from tests.home_standin import TOKEN, Home
from tests.home_standin import serving as serving_home
from tests.models.hub_standin import serve as serve_hub
from wyoming_whisper.serving.server import Server
from wyoming_whisper.transcriber import Samples

MODEL = models.TINY
REPO = "Systran/faster-whisper-tiny.en"
OUR_OWN = "wyoming_whisper.json"  # the hub has none

IDLE_SECONDS = 600.0  # of the household, until the model is unloaded
REST_SECONDS = Server.TIDY_SECONDS + 3  # until the server has given back what is free
SHARE_SPOKEN = 0.35
"""Of the hours in which people are awake: how long each satellite speaks."""
AWAKE = 16 / 24

AREAS: Mapping[str, Sequence[str]] = {
    "before": ("Kitchen", "Living room", "Monstera", "Conservatory"),
    "after": ("Roborock", "Attic", "Garage", "Driveway"),
}
"""The areas that Home Assistant knows before it restarts, and after: in turns."""

NO_INDEX = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0"}
"""Without the hub, the model's files must not come from elsewhere."""

CHOICE_SECONDS = 120.0

LAST_OF_NAMES = "config/floor_registry/list"
"""What the server asks Home Assistant for last, where no entity is exposed."""

KNOWN_SECONDS = 1.0  # from that question until every command is compared with the names

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
    """Until the model is unloaded, real; None for IDLE_SECONDS of the household."""
    rest_seconds: float = REST_SECONDS
    opens: str = ""
    """Stands in for `backends.open_transcriber`, as MODULE:FUNCTION: for tests."""

    @property
    def factor(self) -> float:
        return self.days * DAY / (self.minutes * 60)

    @property
    def idle_unload(self) -> int:
        if self.idle_seconds is not None:
            return round(self.idle_seconds)
        return max(1, round(IDLE_SECONDS / self.factor))

    def pace(self, clips: Sequence[Samples]) -> float:
        """Return how many times as fast as speech commands are said, so that they fit."""
        seconds = sum(map(len, clips)) / 16_000 / len(clips) * self.commands_a_day
        room = DAY / self.factor * AWAKE * SHARE_SPOKEN * plan.SATELLITES
        return max(1.0, seconds / room)


@dataclass
class House:
    """The server and all that is around it, started."""

    options: Options
    server: HouseServer
    upstream: HouseServer
    http: str
    hub: Gate
    home_assistant: Gate
    home: Home
    disk: Disk
    shifted: ShiftedClock
    excuses: Excuses
    week: Week


@contextlib.asynccontextmanager
async def house(folder: Path, options: Options, model: Path) -> AsyncIterator[House]:
    """Give a house whose server is not started yet, and whose hub can't be reached."""
    files = await asyncio.to_thread(_read, model)
    async with contextlib.AsyncExitStack() as stack:
        disk = stack.enter_context(surroundings.data_disk(folder / "data"))
        hub = stack.enter_context(serve_hub({REPO: files}))
        home = await stack.enter_async_context(serving_home(Home(areas=areas("before"))))
        port = urlsplit(hub.url).port or 0
        hub_gate = await stack.enter_async_context(surroundings.gate_to(port, is_open=False))
        home_gate = await stack.enter_async_context(
            surroundings.gate_to(urlsplit(home.url).port or 0)
        )
        clock = ShiftedClock(folder)
        ports = [free_port() for _ in range(3)]
        environment = {
            **clock.environment,
            "HF_ENDPOINT": f"http://127.0.0.1:{hub_gate.port}",
            "WYOMING_WHISPER_HASS_TOKEN": TOKEN,
            **NO_INDEX,
        }
        server = HouseServer(
            folder / "server",
            f"tcp://{_listens_at()}:{ports[0]}",
            (*_flags(options, disk.folder), *_flags_of_the_front(home_gate.port, ports)),
            environment,
            options.opens,
        )
        upstream = HouseServer(
            folder / "upstream",
            f"tcp://127.0.0.1:{ports[1]}",
            _flags(options, folder / "upstream-data"),
            {"HF_ENDPOINT": environment["HF_ENDPOINT"], **NO_INDEX},
            options.opens,
        )
        stack.callback(upstream.close)
        stack.callback(server.close)
        week = Week([Day() for _ in range(options.days)])
        http = f"http://127.0.0.1:{ports[2]}"
        yield House(
            options, server, upstream, http, hub_gate, home_gate, home, disk, clock, Excuses(), week
        )


def _read(model: Path) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in model.iterdir() if f.name != OUR_OWN and f.is_file()}


def _listens_at() -> str:
    """Everywhere in a network of its own, where it can be announced."""
    return "0.0.0.0" if surroundings.has_own_network() else "127.0.0.1"  # noqa: S104


def _flags(options: Options, data: Path) -> tuple[str, ...]:
    flags = ("--model", MODEL, "--language", "en", "--data-dir", str(data))
    return *flags, "--idle-unload", str(options.idle_unload)


def _flags_of_the_front(home_assistant: int, ports: Sequence[int]) -> tuple[str, ...]:
    flags = ["--upstreams", f"tcp://127.0.0.1:{ports[1]}", "--openai-api"]
    flags += ["--http-port", str(ports[2]), "--http-text"]
    flags += ["--hass-api", f"http://127.0.0.1:{home_assistant}/api"]
    if surroundings.has_own_network():
        flags += ["--zeroconf", "week"]
    return tuple(flags)


def areas(names_of: str) -> list[dict[str, object]]:
    """Return Home Assistant's areas, with the names that are so called."""
    return [
        {"area_id": str(number), "name": name, "aliases": []}
        for number, name in enumerate(AREAS[names_of])
    ]


# -- before the week -------------------------------------------------------------------------


def address(uri: str) -> str:
    """Return where a server that listens at `uri` is asked."""
    return uri.replace("0.0.0.0", "127.0.0.1")  # noqa: S104


async def move_in(house: House, samples: Samples) -> None:
    """Start for the first time, without a hub at first. Raises BenchmarkError."""
    server, week = house.server, house.week
    await server.start()
    if house.options.opens:
        await house.hub.open()
        await server.until_ready()
        return
    await server.until(lambda: "NOT READY" in server.log, "it does not say that the hub is away")
    heard = await say(address(server.uri), samples)
    if not heard.error:
        week.missing.append("a command that came before there was a model had an answer")
    week.happened["without a hub at the first start, a command is answered with"] = str(heard.error)
    await house.hub.open()
    await server.until_ready()
    await _until_chosen(server, samples)


async def _until_chosen(server: HouseServer, samples: Samples) -> None:
    """Wait until it has chosen what runs the model; where it is unloaded before, wake it."""
    end = time.monotonic() + CHOICE_SECONDS
    while not server.has_chosen():
        if time.monotonic() > end:
            raise BenchmarkError(f"it does not choose what runs its model:\n{server.log[-2000:]}")
        await say(address(server.uri), samples)
        await asyncio.sleep(0.2)


async def learn(house: House, clips: Mapping[str, Samples]) -> Expectations:
    """Say every clip in quiet, with the names of each home, and none. Raises BenchmarkError.

    The upstream, which knows no names, is heard too, and stopped again. Clips whose text the model
    draws at random are not among the texts.
    """
    texts: dict[str, dict[str, str]] = {}
    for number, name in enumerate(AREAS, 1):
        house.home.areas = areas(name)
        if number > 1:
            await house.home.changed("area_registry_updated")
        await until_names(house, number)
        texts[name] = await _alike(address(house.server.uri), clips)
    furnish_upstream(house)
    await house.upstream.start()
    await house.upstream.until_ready()
    await _until_chosen(house.upstream, next(iter(clips.values())))
    texts[NOBODY] = await _alike(house.upstream.uri, clips)
    await house.upstream.terminate()
    certain = set.intersection(*(set(of_home) for of_home in texts.values()))
    if not certain:
        raise BenchmarkError("the server transcribes none of the clips alike every time")
    expectations = Expectations(
        {name: {clip: of_home[clip] for clip in certain} for name, of_home in texts.items()}
    )
    expectations.known(*AREAS)
    return expectations


def n_asked_for_names(house: House) -> int:
    """Return how often Home Assistant has told the server all names of the home."""
    return house.home.count(LAST_OF_NAMES)


async def until_names(house: House, n_asked: int) -> None:
    """Wait until the server has asked so often, and knows. Raises BenchmarkError."""
    await house.server.until(
        lambda: n_asked_for_names(house) >= n_asked, "it does not ask for Home Assistant's names"
    )
    await asyncio.sleep(KNOWN_SECONDS)


async def _alike(uri: str, clips: Mapping[str, Samples]) -> dict[str, str]:
    texts: dict[str, set[str]] = {name: set() for name in clips}
    for _ in range(TIMES_ALIKE):
        for name, samples in clips.items():
            heard = await say(uri, samples)
            if heard.error:
                raise BenchmarkError(f"in quiet, {name} is answered with: {heard.error}")
            texts[name].add(heard.text)
    return {name: min(heard) for name, heard in texts.items() if len(heard) == 1}


async def learn_as_openai(
    house: House, clips: Mapping[str, Samples], expectations: Expectations
) -> dict[str, frozenset[str]]:
    """Return what the endpoint like OpenAI's writes of clips whose text no name changes."""
    texts: dict[str, frozenset[str]] = {}
    for name, samples in clips.items():
        if len({of_home.get(name) for of_home in expectations.texts.values()}) == 1:
            written = [await people.transcribe_as_openai(house.http, samples) for _ in range(2)]
            if len(set(written)) == 1:
                texts[name] = frozenset(written)
    return texts


def furnish_upstream(house: House) -> None:
    """Give the upstream what the server has, and has chosen: it is to write the same texts."""
    source = house.disk.folder
    target = source.parent / "upstream-data"
    shutil.copytree(source, target, symlinks=True)
