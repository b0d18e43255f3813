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

from aiohttp import ClientError, ClientSession, ClientTimeout, FormData
from wyoming.asr import Transcript
from wyoming.audio import AudioStop
from wyoming.client import AsyncClient
from wyoming.error import Error
from wyoming.ping import Ping, Pong

from benchmarks.lib.client import command_events, connected, describe
from benchmarks.lib.clips import with_silence
from benchmarks.siege.week.pace import HouseholdClock
from benchmarks.siege.week.plan import HOUR, Episode
from benchmarks.siege.week.records import Excuses, Week
from wyoming_whisper.transcriber import Samples
from wyoming_whisper.upstreams.openai import wav

ANSWER_SECONDS = 60.0  # far more than anything here takes
CHUNK_MS = 32  # as satellites send
FASTEST = 20.0
"""Times the pace of speech; what would have to be faster is sent all at once."""

VANDAL = "127.0.0.66"
"""Where garbage comes from, so that the log tells it from others."""

PAUSE = 20.0  # of the household, between the commands of an episode
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
        told = f"{what}: {error or type(error).__name__}"
        if not self.excuses.excuse(begin, time.monotonic(), f"{error!r} {error}", is_command=False):
            self.week.failed.append(f"{when(self.clock.now)}, {told}")


def when(at: float) -> str:
    """Return a time of the household as people say it."""
    day, seconds = divmod(at + 7 * HOUR, 24 * HOUR)
    return f"day {day + 1:.0f}, {seconds // HOUR:02.0f}:{seconds % HOUR // 60:02.0f}"


# -- rooms -----------------------------------------------------------------------------------


async def converse(client: AsyncClient, samples: Samples, pace: float) -> tuple[str, float]:
    """Say a command on a connection; return its text, and the seconds that took after its end.

    Raises OSError where the connection ends before, ValueError with the server's own error.
    """
    start = time.perf_counter()
    for number, event in enumerate(command_events(samples, chunk_ms=CHUNK_MS), -1):
        if pace < FASTEST:
            at = start + max(number, 0) * CHUNK_MS / 1000 / pace
            await asyncio.sleep(at - time.perf_counter())
        await client.write_event(event)
    ended = time.perf_counter()
    await client.write_event(AudioStop().event())
    text = await asyncio.wait_for(_transcript(client), ANSWER_SECONDS)
    return text, time.perf_counter() - ended


async def _transcript(client: AsyncClient) -> str:
    while (event := await client.read_event()) is not None:
        if Transcript.is_type(event.type):
            return Transcript.from_event(event).text
        if Error.is_type(event.type):
            raise ValueError(Error.from_event(event).text)
    raise ConnectionError("the connection was closed without a transcript")


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

    async def spoken_to(self, seconds: float) -> None:
        """Return when somebody speaks, or after so many seconds."""
        async with self._changed:
            speaking = self._changed.wait_for(lambda: bool(self._speaking))
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(speaking, seconds)

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
                await asyncio.sleep(PAUSE / self._house.clock.factor)
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
                text, seconds = await converse(client, house.clips[clip], house.pace)
        except asyncio.CancelledError:
            day.vanished += 1
            raise
        except FAILURES as error:
            day.commands += 1
            if house.excuses.excuse(begin, time.monotonic(), repr(error)):
                day.excused += 1
            else:
                house.week.lost.append(f"{when(house.clock.now)}, {clip}: {error!r}")
            return
        judge(house, at, clip, text, seconds, begin)


def judge(house: Household, at: float, clip: str, text: str, seconds: float, begin: float) -> None:
    """Take in the text of a command that was begun at `begin` (monotonic)."""
    day = house.week.day(at)
    day.commands += 1
    right = house.expectations.right(clip, begin, time.monotonic())
    if text in right:
        day.right += 1
        day.seconds.append(seconds)
    else:
        said = f"{text!r}, not {' or '.join(map(repr, sorted(right)))}"
        house.week.wrong.append(f"{when(house.clock.now)}, {clip}: {said}")


async def vanish_while_speaking(house: Household, choose: random.Random) -> None:
    """Begin a command, and be gone in the middle of a word."""
    samples = house.clips[choose.choice(sorted(house.clips))]
    chunks = list(command_events(samples, chunk_ms=CHUNK_MS))
    with contextlib.suppress(OSError):
        async with connected(house.uri) as client:
            for event in chunks[: choose.randint(2, len(chunks) - 1)]:
                await client.write_event(event)
    house.week.day(house.clock.now).vanished += 1


async def keep_connection(house: Household, clip: str) -> None:
    """Be a satellite whose connection stays for days: it pings, and speaks once a day."""
    while True:
        begin = time.monotonic()
        try:
            async with connected(house.uri) as client:
                while True:
                    await _ping(client)
                    house.week.answered("pings on a connection that stays")
                    if int(house.clock.now // HOUR) % 24 == 3:
                        said, spoken_from = house.clock.now, time.monotonic()
                        text, seconds = await converse(client, house.clips[clip], house.pace)
                        judge(house, said, clip, text, seconds, spoken_from)
                    begin = time.monotonic()  # it was well until then
                    await house.clock.until((house.clock.now // HOUR + 1) * HOUR)
        except FAILURES as error:
            house.failed("a connection that stays", begin, error)
            await asyncio.sleep(AGAIN_SECONDS)


async def _ping(client: AsyncClient) -> None:
    await client.write_event(Ping("x").event())
    event = await asyncio.wait_for(client.read_event(), ANSWER_SECONDS)
    if event is None or not Pong.is_type(event.type):
        raise ConnectionError("a ping had no answer")


# -- programs --------------------------------------------------------------------------------


async def every(
    house: Household, seconds: float, name: str, request: Callable[[], Awaitable[None]]
) -> None:
    """Do it again and again, whether or not the one before is done; `seconds` of the household."""
    under_way: set[asyncio.Task[None]] = set()
    try:
        for number in itertools.count(1):
            await house.clock.until(number * seconds)
            task = asyncio.create_task(_counted(house, name, request))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
    finally:
        for task in list(under_way):
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)


async def _counted(house: Household, name: str, request: Callable[[], Awaitable[None]]) -> None:
    begin = time.monotonic()
    try:
        await asyncio.wait_for(request(), ANSWER_SECONDS)
        house.week.answered(name)
    except FAILURES as error:
        house.failed(name, begin, error)


async def ask_what_it_is(house: Household) -> None:
    """Ask as Home Assistant does to see whether the server is there."""
    day = house.week.day(house.clock.now)
    day.describes += 1
    day.describe_seconds.append(await describe(house.uri))


class Page:
    """A browser that shows the page, and Prometheus, and who watches /health."""

    def __init__(self, house: Household) -> None:
        self._house = house
        self._etag = ""

    async def state(self) -> None:
        headers = {"If-None-Match": self._etag} if self._etag else {}
        status, _, self._etag = await self._get("/state", headers)
        if status not in (200, 304):
            raise ConnectionError(f"/state was answered with {status}")

    async def metrics(self) -> None:
        status, text, _ = await self._get("/metrics", {})
        if status != 200 or "# TYPE" not in text:
            raise ConnectionError(f"/metrics was answered with {status}: {text[:80]}")

    async def health(self) -> None:
        status, text, _ = await self._get("/health", {})
        if status != 200:
            raise ConnectionError(f"/health was answered with {status}: {text[:300]}")

    async def _get(self, path: str, headers: Mapping[str, str]) -> tuple[int, str, str]:
        close = {"Connection": "close", **headers}
        timeout = ClientTimeout(total=ANSWER_SECONDS)
        async with (
            ClientSession(timeout=timeout) as session,
            session.get(self._house.http + path, headers=close) as answer,
        ):
            return answer.status, await answer.text(), answer.headers.get("ETag", self._etag)


async def until_well(house: Household) -> None:
    """Return when /health is answered as it should be."""
    page = Page(house)
    while True:
        try:
            await page.health()
        except FAILURES:
            await asyncio.sleep(AGAIN_SECONDS)
        else:
            return


async def transcribe_as_openai(http: str, samples: Samples) -> str:
    """Ask as programs for OpenAI's API do. Raises ConnectionError."""
    form = FormData({"model": "whisper-1", "language": "en"})
    form.add_field("file", wav(samples), filename="a.wav", content_type="audio/wav")
    async with (
        ClientSession(timeout=ClientTimeout(total=ANSWER_SECONDS)) as session,
        session.post(f"{http}/v1/audio/transcriptions", data=form) as answer,
    ):
        if answer.status != 200:
            raise ConnectionError(f"HTTP {answer.status}: {(await answer.text())[:300]}")
        return str((await answer.json())["text"])


class Dictation:
    """A program that asks now and then as OpenAI's clients do, for one clip after the other."""

    def __init__(self, house: Household, texts: Mapping[str, frozenset[str]]) -> None:
        """`texts` are those that are right."""
        self._house = house
        self._texts = texts
        self._clips = itertools.cycle(sorted(texts))

    async def ask(self) -> None:
        clip = next(self._clips)
        text = await transcribe_as_openai(self._house.http, self._house.clips[clip])
        if text not in self._texts[clip]:
            raise ValueError(f"{clip} was heard as {text!r}, not {sorted(self._texts[clip])}")


# -- who sends garbage -----------------------------------------------------------------------


class Vandal:
    """Sends what is no Wyoming, and no HTTP, and goes; any answer will do."""

    def __init__(self, house: Household) -> None:
        self._addresses = [urlsplit(url) for url in (house.uri, house.http)]
        self._garbage = _garbage(random.Random(0))

    async def send(self) -> None:
        for parts in self._addresses:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", parts.port, local_addr=(VANDAL, 0)
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


def as_heard(clips: Mapping[str, Samples]) -> dict[str, Samples]:
    """Return the clips as a server hears them."""
    return {name: with_silence(samples) for name, samples in clips.items()}
