"""The week as it is lived: everybody at work, and what goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from subprocess import SubprocessError
from typing import Any

from benchmarks.lib.clips import Clip, with_silence
from benchmarks.lib.errors import BenchmarkError
from benchmarks.siege.week import plan, records, surroundings
from benchmarks.siege.week.house import AREAS, NOBODY, House, Options, house
from benchmarks.siege.week.people import Dictation, Household, Page, Rooms, Vandal
from benchmarks.siege.week.plan import DAY, HOUR, HouseholdClock, when
from benchmarks.siege.week.records import Excuse, Week

LONGEST_START = 300.0  # of the household: so much is lost of its day when a server starts

DOWN = (
    r"refused|reset|broken pipe|closed the connection|connection was closed|shutting down|"
    r"IncompleteRead|Disconnected|\b503\b|no answer|Connection lost|Cannot (?:write|connect)"
)
"""What requests may fail with while the server is away."""

IDLE = "INFO idle: the model is unloaded"

Tell = Callable[[str], None]


# -- the week --------------------------------------------------------------------------------


class Life:
    """One week in one house."""

    def __init__(self, house: House, household: Household, rooms: Rooms, tell: Tell) -> None:
        self._house = house
        self._household = household
        self._rooms = rooms
        self._tell = tell
        self._clock = household.clock
        self._choose = random.Random(1)
        self._homes = list(AREAS)
        self._n_idle = house.server.log.count(IDLE)
        self._still = asyncio.Lock()
        self._at_work: list[asyncio.Task[None]] = []
        self._returns: list[asyncio.Task[None]] = []
        self._happen: Mapping[str, Callable[[], Awaitable[None]]] = {
            "at rest": self._rest,
            "upstream starts": self._start_upstream,
            "upstream is killed": self._kill_upstream,
            "upstream stops": self._stop_upstream,
            "client vanishes": self._vanish,
            "disk is full": self._fill_disk,
            "disk has room": self._empty_disk,
            "Home Assistant restarts": self._restart_home_assistant,
            "hub is unreachable": house.hub.close,
            "hub is reachable": house.hub.listen,
            "server restarts": self._restart,
            "power is cut": self._cut_power,
            "clock a day ahead": self._shift(DAY),
            "clock two hours back": self._shift(-2 * HOUR),
            "clock a year back": self._shift(-365 * DAY),
            "clock is right": self._shift(0.0),
            "address changes": self._change_address,
        }

    async def live(self, dictation: Dictation, clip: str) -> None:
        """Live the week. Raises BenchmarkError where it can't go on."""
        house, household = self._house, self._household
        page, vandal = Page(household.http), Vandal(household.uri, household.http)
        requests = (
            (house.options.describe_every, "describe", household.ask_what_it_is),
            (2 * house.options.describe_every, "the page's state", page.state),
            (2 * house.options.describe_every, "metrics", page.metrics),
            (300.0, "health", page.health),
            (1200.0, "garbage sent", vandal.send),
            (2 * HOUR, "recordings, as OpenAI's API", dictation.ask),
        )
        lives = [household.every(*request) for request in requests]
        lives += [household.keep_connection(clip), self._suffer(), self._progress()]
        self._at_work = [asyncio.create_task(life) for life in lives]
        rooms = asyncio.create_task(self._rooms.run())
        days = asyncio.create_task(self._days())
        try:
            await _first_failure([*self._at_work, rooms, days], until=days)
            await self._rest()
        finally:
            await _end([*self._at_work, *self._returns, rooms, days])

    async def _days(self) -> None:
        for number, day in enumerate(self._house.week.days, 1):
            await self._clock.until(number * DAY - HOUR / 2)
            async with self._standing_still(number * DAY - HOUR / 2):
                day.held = await self._house.server.held()
                n_idle = self._house.server.log.count(IDLE)
                day.wakes, self._n_idle = n_idle - self._n_idle, n_idle
            row = zip(records.DAY_HEAD, records.day_row(number, day), strict=True)
            self._tell("; ".join(f"{name} {value}" for name, value in row))

    async def _progress(self) -> None:
        week = self._house.week
        while True:
            await asyncio.sleep(30.0)
            right = sum(day.right for day in week.days)
            bad = len(week.lost) + len(week.wrong) + len(week.failed)
            at = when(self._clock.now)
            self._tell(f"  {at}: {right} commands right, {bad} requests lost or wrong")

    @contextlib.asynccontextmanager
    async def _standing_still(self, at: float) -> AsyncIterator[None]:
        """Have no time pass in the block, which begins when all is said until `at`."""
        begin = time.monotonic()
        async with self._still, self._clock.stopped():
            await self._rooms.caught_up(at)
            yield
        self._house.week.stopped_seconds += time.monotonic() - begin

    async def _suffer(self) -> None:
        for event in plan.events(self._house.options.days):
            await self._clock.until(event.at)
            self._tell(f"  {when(event.at)}: {event.name}")
            await self._happen[event.name]()

    async def _rest(self) -> None:
        async with self._standing_still(self._clock.now):
            await asyncio.gather(*self._returns)
            await asyncio.sleep(self._house.options.rest_seconds)
            self._house.week.rest.append(await self._house.server.held())

    # Clients, Home Assistant.

    async def _vanish(self) -> None:
        await self._household.vanish_while_speaking(self._choose)

    async def _restart_home_assistant(self) -> None:
        """It goes with all commands that are under way, and comes back with other names."""
        self._rooms.home_assistant.clear()
        self._rooms.vanish()
        await self._house.home_assistant.close()
        n_asked = self._house.n_asked_for_names()
        self._homes.reverse()
        name = self._homes[-1]
        self._house.rename(name)
        self._household.expectations.known(*self._homes)
        await asyncio.sleep(max(300.0 / self._clock.factor, 0.5))
        await self._house.home_assistant.listen()
        self._rooms.home_assistant.set()
        self._return(self._until_known(name, n_asked))

    async def _until_known(self, name: str, n_asked: int) -> None:
        """Expect the texts of a home alone as soon as the server knows its names."""
        await self._house.until_names(n_asked + 1)
        if self._homes[-1] == name:  # and Home Assistant has not restarted again
            self._household.expectations.known(name)

    def _return(self, coming_back: Awaitable[None]) -> None:
        """Go on, and take in when something is as it was again, or that it never is."""

        async def note() -> None:
            try:
                await coming_back
            except BenchmarkError as error:
                self._house.week.missing.append(str(error).partition("\n")[0])

        self._returns.append(asyncio.create_task(note()))

    async def _within(self, seconds: float, happening: Coroutine[Any, Any, None]) -> None:
        """Have something happen in so many seconds of the household: then its clock waits."""
        task = asyncio.create_task(happening)
        await asyncio.wait({task}, timeout=seconds / self._clock.factor)
        begin = time.monotonic()
        async with self._still, self._clock.stopped():
            await task
        self._house.week.stopped_seconds += time.monotonic() - begin

    # The upstream.

    async def _start_upstream(self) -> None:
        await self._within(LONGEST_START, self._house.upstream.start())

    async def _kill_upstream(self) -> None:
        await self._rooms.spoken_to()
        await self._house.upstream.kill()

    async def _stop_upstream(self) -> None:
        await self._house.upstream.terminate()

    # The machine.

    async def _fill_disk(self) -> None:
        self._house.disk.fill()
        self._house.week.happened["a full disk for an hour"] = self._house.disk.how_full

    async def _empty_disk(self) -> None:
        self._house.disk.empty()

    def _shift(self, seconds: float) -> Callable[[], Awaitable[None]]:
        async def shift() -> None:
            self._house.shifted.set(seconds)
            happened, name = self._house.week.happened, "the clock jumped"
            if seconds:
                happened[name] = f"{happened.get(name, '')} {seconds:+.0f} s"

        return shift

    async def _change_address(self) -> None:
        if surroundings.has_own_network():
            await asyncio.to_thread(surroundings.change_address)
            self._house.week.happened["the address changed"] = "announced anew"

    # The server itself.

    async def _restart(self) -> None:
        """SIGTERM, as an update: what is under way is answered."""
        await self._rooms.spoken_to()
        server = self._house.server
        now = time.monotonic() - 0.3  # what is in the kernel's queue then was begun too late
        excuse = Excuse("the server restarts", now, DOWN, spares_begun=True)
        self._house.excuses.begin(excuse)
        status = await server.terminate()
        if status:
            self._house.week.missing.append(f"SIGTERM ended it with exit status {status}")
        await self._start_again("the server restarts")

    async def _cut_power(self) -> None:
        """SIGKILL: what is under way is lost."""
        await self._rooms.spoken_to()
        self._house.excuses.begin(Excuse("a power cut", time.monotonic(), DOWN))
        await self._house.server.kill()
        await self._start_again("a power cut")

    async def _start_again(self, name: str) -> None:
        house, begin = self._house, time.monotonic()
        n_asked = house.n_asked_for_names()
        # Home Assistant is asked for its names again, in the background.
        self._household.expectations.known(*AREAS, NOBODY)
        house.excuses.begin(Excuse(f"{name}: its page", begin, DOWN, of_commands=False))
        await self._within(LONGEST_START, house.server.start())
        now = time.monotonic()
        house.excuses.end(name, now)
        house.week.happened[name] = f"it answers after {now - begin:.1f} s"
        self._return(self._until_known(self._homes[-1], n_asked))
        self._return(self._until_page(f"{name}: its page"))

    async def _until_page(self, name: str) -> None:
        """The page comes a little later, and well it is when the model is there."""
        await self._house.server.until_ready()
        await Page(self._house.http).until_well()
        self._house.excuses.end(name, time.monotonic())


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel tasks until they are: wait_for may swallow a cancellation (Python before 3.12)."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=0.1)


async def _first_failure(tasks: Sequence[asyncio.Task[None]], *, until: asyncio.Task[None]) -> None:
    """Return when `until` is done; raise what any of the tasks raises before."""
    waiting = set(tasks)
    while not until.done():
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    until.result()


# -- all of it -------------------------------------------------------------------------------


async def lived(
    folder: Path, options: Options, model: Path, clips: Sequence[Clip], tell: Tell
) -> Week:
    """Live the week in a house of its own. Raises BenchmarkError where it can't go on."""
    samples = {clip.file: with_silence(clip.samples) for clip in clips}
    async with house(folder, options, model) as home:
        tell("moving in: a first start without a hub, then every clip in quiet")
        await home.move_in(clips[0].samples)
        expectations = await home.learn(clips)
        dictation = await home.learn_as_openai(samples, expectations)
        household = Household(
            uri=home.server.address,
            http=home.http,
            clock=HouseholdClock(options.factor),
            clips={name: samples[name] for name in expectations.clips},
            expectations=expectations,
            week=home.week,
            excuses=home.excuses,
            pace=options.pace(list(samples.values())),
        )
        said = plan.episodes(options.days, len(household.clips), options.commands_a_day)
        tell(
            f"{len(household.clips)} of {len(samples)} clips; a second is {options.factor:.0f} of "
            f"the household, speech {household.pace:.1f} times as fast, the model unloaded after "
            f"{options.idle_unload} s without work"
        )
        life = Life(home, household, Rooms(household, said, plan.SATELLITES), tell)
        shortest = min(household.clips, key=lambda name: len(household.clips[name]))
        try:
            await life.live(Dictation(household, dictation), shortest)
            home.week.exit_status = await home.server.terminate()
        except (BenchmarkError, OSError, SubprocessError) as error:  # what came before counts
            home.week.missing.append(f"the week ended before its time: {error}")
        home.week.judge_log(home.server.log)
        home.week.excused = dict(home.excuses.used)
        evidence = {
            "commands that the upstream answered": home.server.log.count(" s after its end by "),
            "wakes of the model": home.server.log.count(IDLE),
            "logins at Home Assistant": home.home.logins,
        }
        if surroundings.has_own_network():
            evidence["announcements by zeroconf"] = home.server.log.count("announced as ")
        home.week.happened |= {name: str(count) for name, count in evidence.items()}
        home.week.missing += [f"{name}: none" for name, count in evidence.items() if not count]
    return home.week
