"""Who asks the server for something: rooms, Home Assistant, pages, programs, and who sends garbage.

Every one of them writes into the Week what came of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from aiohttp import ClientError, ClientSession, ClientTimeout
from wyoming.audio import AudioStop
from wyoming.client import AsyncClient
from wyoming.ping import Ping, Pong

from benchmarks.lib.client import (
    SATELLITE_CHUNK_MS,
    command_events,
    connected,
    describe,
    transcript,
)
from benchmarks.lib.openai import transcribe
from benchmarks.siege.week.plan import HOUR, Episode, HouseholdClock, when
from benchmarks.siege.week.records import Excuses, Week
from wyoming_whisper.transcriber import Samples

ANSWER_SECONDS = 60.0  # far more than anything here takes
AGAIN_SECONDS = 0.3  # before a connection that broke is made again
FAILURES = (OSError, EOFError, ValueError, asyncio.TimeoutError, ClientError)


@dataclass
class Expectations:
    """What each clip's text has to be, as the names of the home change."""

    texts: Mapping[str, Mapping[str, str]]
    """Of each home, by its name, and each clip."""
    homes: list[tuple[float, frozenset[str]]] = field(default_factory=list)
    """Which home's names the server may know, and since when (monotonic)."""

    @property
    def clips(self) -> list[str]:
        return sorted(next(iter(self.texts.values())))

    def known(self, *homes: str) -> None:
        """From now on the server knows the names of one of these."""
        self.homes.append((time.monotonic(), frozenset(homes)))

    def right(self, clip: str, begin: float, end: float) -> frozenset[str]:
        """Return the texts that are right for a clip that was said then."""
        since = [at for at, _ in self.homes[1:]] + [float("inf")]
        known = [
            homes
            for (at, homes), until in zip(self.homes, since, strict=True)
            if at <= end and until >= begin
        ]
        return frozenset(self.texts[home][clip] for home in frozenset().union(*known))


@dataclass(frozen=True)
class Household:
    """What all of them share."""

    uri: str
    http: str
    clock: HouseholdClock
    clips: Mapping[str, Samples]
    """With the silence around them that a server hears."""
    expectations: Expectations
    week: Week
    excuses: Excuses
    pace: float
    """Times as fast as speech."""

    def failed(self, what: str, begin: float, error: BaseException) -> None:
        """Take in that a request failed, which is no command."""
        if not self.excuses.excuse(begin, time.monotonic(), f"{error!r} {error}", is_command=False):
            complaint = f"{what}: {error or type(error).__name__}"
            self.week.failed.append(f"{when(self.clock.now)}, {complaint}")

    async def converse(self, client: AsyncClient, clip: str, at: float) -> None:
        """Say a command on a connection, which counts for a time of the household; judge its text.

        Raises OSError where the connection ends before, ValueError with the server's own error.
        """
        begin, start = time.monotonic(), time.perf_counter()
        events = command_events(self.clips[clip], chunk_ms=SATELLITE_CHUNK_MS)
        for number, event in enumerate(events, -1):
            if self.pace < 20.0:  # what would have to be faster is sent all at once
                due = start + max(number, 0) * SATELLITE_CHUNK_MS / 1000 / self.pace
                await asyncio.sleep(due - time.perf_counter())
            await client.write_event(event)
        ended = time.perf_counter()
        await client.write_event(AudioStop().event())
        text, came = await asyncio.wait_for(transcript(client), ANSWER_SECONDS)
        day, right = self.week.day(at), self.expectations.right(clip, begin, time.monotonic())
        day.commands += 1
        if text in right:
            day.right += 1
            day.seconds.append(came - ended)
        else:
            said = f"{text!r}, not {' or '.join(map(repr, sorted(right)))}"
            self.week.wrong.append(f"{when(self.clock.now)}, {clip}: {said}")

    async def every(
        self, seconds: float, name: str, request: Callable[[], Awaitable[None]]
    ) -> None:
        """Do it again and again, whether or not the one before is done; `seconds` of the clock."""
        under_way: set[asyncio.Task[None]] = set()
        try:
            for number in itertools.count(1):
                await self.clock.until(number * seconds)
                task = asyncio.create_task(self._counted(name, request))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
        finally:
            for task in list(under_way):
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def _counted(self, name: str, request: Callable[[], Awaitable[None]]) -> None:
        begin = time.monotonic()
        try:
            await asyncio.wait_for(request(), ANSWER_SECONDS)
            self.week.answered(name)
        except FAILURES as error:
            self.failed(name, begin, error)

    async def ask_what_it_is(self) -> None:
        """Ask as Home Assistant does to see whether the server is there."""
        day = self.week.day(self.clock.now)
        day.describes += 1
        day.describe_seconds.append(await describe(self.uri))

    async def vanish_while_speaking(self, choose: random.Random) -> None:
        """Begin a command, and be gone in the middle of a word."""
        samples = self.clips[choose.choice(sorted(self.clips))]
        chunks = list(command_events(samples, chunk_ms=SATELLITE_CHUNK_MS))
        with contextlib.suppress(OSError):
            async with connected(self.uri) as client:
                for event in chunks[: choose.randint(2, len(chunks) - 1)]:
                    await client.write_event(event)
        self.week.day(self.clock.now).vanished += 1

    async def keep_connection(self, clip: str) -> None:
        """Be a satellite whose connection stays for days: it pings, and speaks once a day."""
        while True:
            begin = time.monotonic()
            try:
                async with connected(self.uri) as client:
                    while True:
                        await client.write_event(Ping("x").event())
                        event = await asyncio.wait_for(client.read_event(), ANSWER_SECONDS)
                        if event is None or not Pong.is_type(event.type):
                            raise ConnectionError("a ping had no answer")
                        self.week.answered("pings on a connection that stays")
                        if int(self.clock.now // HOUR) % 24 == 3:
                            await self.converse(client, clip, self.clock.now)
                        begin = time.monotonic()  # it was well until then
                        await self.clock.until((self.clock.now // HOUR + 1) * HOUR)
            except FAILURES as error:
                self.failed("a connection that stays", begin, error)
                await asyncio.sleep(AGAIN_SECONDS)


# -- rooms -----------------------------------------------------------------------------------


class Rooms:
    """Satellites, behind one Home Assistant: when that goes, their commands go with it."""

    def __init__(self, house: Household, episodes: Sequence[Episode], satellites: int) -> None:
        self._house = house
        self._names = sorted(house.clips)
        self._episodes = [
            [episode for episode in episodes if episode.satellite == number]
            for number in range(satellites)
        ]
        self._speaking: set[asyncio.Task[None]] = set()
        self._said = [-1.0] * satellites  # the last episode of each that is over
        self._changed = asyncio.Condition()  # of _speaking and _said
        self.home_assistant = asyncio.Event()
        """Set as long as Home Assistant is there."""
        self.home_assistant.set()

    async def run(self) -> None:
        await asyncio.gather(*(self._live(number) for number in range(len(self._episodes))))

    async def caught_up(self, at: float) -> None:
        """Return when all is said that was to begin until `at`, and nobody speaks."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._is_caught_up(at))

    def _is_caught_up(self, at: float) -> bool:
        return not self._speaking and all(
            all(episode.at > at or episode.at <= said for episode in episodes)
            for said, episodes in zip(self._said, self._episodes, strict=True)
        )

    async def spoken_to(self) -> None:
        """Return when somebody speaks, or after a second: what is to happen is in the middle."""
        async with self._changed:
            speaking = self._changed.wait_for(lambda: bool(self._speaking))
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(speaking, 1.0)

    async def _live(self, number: int) -> None:
        for episode in self._episodes[number]:
            await self._house.clock.until(episode.at)
            for clip in episode.clips:
                await self.home_assistant.wait()
                task = asyncio.create_task(self.say(self._names[clip], episode.at))
                await self._note(self._speaking.add, task)
                await asyncio.wait({task})
                await self._note(self._speaking.discard, task)
                if not task.cancelled():
                    task.result()
                await asyncio.sleep(20.0 / self._house.clock.factor)
            await self._note(self._said.__setitem__, number, episode.at)

    async def _note(self, change: Callable[..., None], *arguments: object) -> None:
        """Change what others wait for."""
        async with self._changed:
            change(*arguments)
            self._changed.notify_all()

    def vanish(self) -> None:
        """Home Assistant goes, in the middle of all that is being said."""
        for task in self._speaking:
            task.cancel()

    async def say(self, clip: str, at: float) -> None:
        """Say a clip; `at` is the time of the household that it counts for."""
        house, begin = self._house, time.monotonic()
        day = house.week.day(at)
        try:
            async with connected(house.uri) as client:
                await house.converse(client, clip, at)
        except asyncio.CancelledError:
            day.vanished += 1
            raise
        except FAILURES as error:
            day.commands += 1
            if house.excuses.excuse(begin, time.monotonic(), repr(error)):
                day.excused += 1
            else:
                house.week.lost.append(f"{when(house.clock.now)}, {clip}: {error!r}")


# -- programs --------------------------------------------------------------------------------


class Page:
    """A browser that shows the page, and Prometheus, and who watches /health."""

    def __init__(self, http: str) -> None:
        self._http = http
        self._etag = ""

    async def state(self) -> None:
        headers = {"If-None-Match": self._etag} if self._etag else {}
        self._etag = await self._get("/state", headers)

    async def metrics(self) -> None:
        await self._get("/metrics", contains="# TYPE")

    async def health(self) -> None:
        await self._get("/health")

    async def _get(
        self, path: str, headers: Mapping[str, str] | None = None, contains: str = ""
    ) -> str:
        """Return the ETag of an answer. Raises ConnectionError where it is no good one."""
        close = {"Connection": "close", **(headers or {})}
        timeout = ClientTimeout(total=ANSWER_SECONDS)
        async with (
            ClientSession(timeout=timeout) as session,
            session.get(self._http + path, headers=close) as answer,
        ):
            text = await answer.text()
            if answer.status not in (200, 304) or contains not in text:
                raise ConnectionError(f"{path} was answered with {answer.status}: {text[:300]}")
            return answer.headers.get("ETag", self._etag)

    async def until_well(self) -> None:
        """Return when /health is answered as it should be."""
        while True:
            try:
                return await self.health()
            except FAILURES:
                await asyncio.sleep(AGAIN_SECONDS)


class Dictation:
    """A program that asks now and then as OpenAI's clients do, for one clip after the other."""

    def __init__(self, house: Household, texts: Mapping[str, str]) -> None:
        """`texts` are those that are right."""
        self._house = house
        self._texts = texts
        self._clips = itertools.cycle(sorted(texts))

    async def ask(self) -> None:
        clip = next(self._clips)
        text = await transcribe(self._house.http, self._house.clips[clip])
        if text != self._texts[clip]:
            raise ValueError(f"{clip} was heard as {text!r}, not {self._texts[clip]!r}")


class Vandal:
    """Sends what is no Wyoming, and no HTTP, and goes; any answer will do.

    From an address of its own, so that the log tells it from others.
    """

    def __init__(self, *urls: str) -> None:
        self._ports = [urlsplit(url).port for url in urls]
        self._garbage = _garbage(random.Random(0))

    async def send(self) -> None:
        for port in self._ports:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, local_addr=("127.0.0.66", 0)
            )
            try:
                writer.write(next(self._garbage))
                await writer.drain()
                with contextlib.suppress(asyncio.TimeoutError, OSError):
                    await asyncio.wait_for(reader.read(1000), AGAIN_SECONDS)
            finally:
                writer.transport.abort()


def _garbage(choose: random.Random) -> Iterator[bytes]:
    while True:
        yield choose.randbytes(choose.randint(1, 3000))
        yield b'{"type": "audio-chunk", "data_length": 4294967296}\n' + b"x" * 5000
        yield b'{"type": "audio-chunk", "payload_length": 7, "data": {"rate": 1e400}}\nabcdefg'
        yield b'{"type": "transcribe", "data": {"language": ["en"]}}\n{"type": "audio-stop"}\n'
        yield b'{"type": "describe", "junk": "'
        yield b"GET / HTTP/1.1\r\nHost: " + b"a" * 9000 + b"\r\n\r\n"
        yield b"\n" * 500
        yield b"[" * 5000
