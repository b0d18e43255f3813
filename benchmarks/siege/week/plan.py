"""What happens in a household's week, and when: drawn from a seed, the same every time; its clock.

Times are seconds of the household since its first morning, at seven. A day lasts until the next
morning, so that a night is its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass

HOUR = 3600.0
DAY = 24 * HOUR
MORNING = 7

COMMANDS_A_DAY = 200
COMMANDS_AN_EPISODE = 5
SATELLITES = 3
BESIDE = 0.3
"""Share of the episodes in which somebody in another room speaks at the same time."""

BUSYNESS: Sequence[tuple[int, int, float]] = (
    (7, 9, 3.0),
    (9, 12, 1.0),
    (12, 14, 2.0),
    (14, 17, 1.0),
    (17, 22, 3.0),
    (22, 23, 1.0),
)
"""First hour, last hour, and how much is said in each hour between; at night nobody speaks."""


@dataclass(frozen=True)
class Episode:
    """Some commands in one room, each after the answer to the one before."""

    at: float
    satellite: int
    clips: tuple[int, ...]
    """Which clips, by number."""


@dataclass(frozen=True)
class Event:
    """Something that goes wrong, or is put right again."""

    at: float
    name: str


DAILY = (
    ("17:30", "upstream starts"),
    ("12:40", "client vanishes"),
    ("19:10", "client vanishes"),
    ("20:00", "upstream is killed"),
    ("20:30", "upstream starts"),
    ("22:30", "upstream stops"),
)

WEEKLY = (
    (0, "08:00", "at rest"),
    (1, "14:00", "disk is full"),
    (1, "15:00", "disk has room"),
    (1, "04:30", "Home Assistant restarts"),
    (2, "10:00", "hub is unreachable"),
    (2, "10:01", "server restarts"),
    (3, "11:00", "clock a day ahead"),
    (3, "11:30", "clock two hours back"),
    (3, "12:30", "clock a year back"),
    (3, "13:30", "clock is right"),
    (3, "16:00", "power is cut"),
    (3, "17:00", "at rest"),
    (4, "18:30", "Home Assistant restarts"),
    (4, "06:00", "hub is reachable"),
    (5, "21:00", "address changes"),
)
"""Day, time, event; a shorter week has all of them on the days that it has.

After each start of the server that a figure is taken from, an hour passes until it is at rest.
"""


def clock_time(text: str) -> float:
    """Return the seconds from the day's beginning, in the morning, to HH:MM."""
    hours, _, minutes = text.partition(":")
    return ((int(hours) - MORNING) % 24) * HOUR + int(minutes) * 60


def when(at: float) -> str:
    """Return a time of the household as people say it."""
    day, seconds = divmod(at + MORNING * HOUR, DAY)
    return f"day {day + 1:.0f}, {seconds // HOUR:02.0f}:{seconds % HOUR // 60:02.0f}"


def events(days: int) -> list[Event]:
    """Return all that goes wrong, in order."""
    daily = [Event(day * DAY + clock_time(at), name) for day in range(days) for at, name in DAILY]
    weekly = [Event(day % days * DAY + clock_time(at), name) for day, at, name in WEEKLY]
    return sorted(daily + weekly, key=lambda event: event.at)


def episodes(days: int, n_clips: int, commands_a_day: int, seed: int = 0) -> list[Episode]:
    """Return all that is said, in order; each clip about as often as every other."""
    choose = random.Random(seed)
    clips = _clips(n_clips, choose)
    said = [episode for day in range(days) for episode in _day(day, commands_a_day, clips, choose)]
    return sorted(said, key=lambda episode: episode.at)


def _clips(n_clips: int, choose: random.Random) -> Iterator[int]:
    while True:
        yield from choose.sample(range(n_clips), n_clips)


def _day(day: int, commands: int, clips: Iterator[int], choose: random.Random) -> Iterator[Episode]:
    hours = [hour for first, last, _ in BUSYNESS for hour in range(first, last)]
    weights = [weight for first, last, weight in BUSYNESS for _ in range(first, last)]
    while commands > 0:
        at = day * DAY + (choose.choices(hours, weights)[0] - MORNING + choose.random()) * HOUR
        rooms = choose.sample(range(SATELLITES), 2 if choose.random() < BESIDE else 1)
        for room in rooms:
            count = min(commands, choose.randint(1, 2 * COMMANDS_AN_EPISODE - 1))
            commands -= count
            if count:
                yield Episode(at, room, tuple(next(clips) for _ in range(count)))


class HouseholdClock:
    """Seconds of the household since its first morning, `factor` of them in a second."""

    def __init__(self, factor: float, real: Callable[[], float] = time.monotonic) -> None:
        self.factor = factor
        self._real = real
        self._start = real()
        self._stopped_at: float | None = None
        self._running = asyncio.Event()
        self._running.set()

    @property
    def now(self) -> float:
        real = self._real() if self._stopped_at is None else self._stopped_at
        return (real - self._start) * self.factor

    async def until(self, at: float) -> None:
        """Return when it is so late."""
        while (left := at - self.now) > 0:
            await self._running.wait()
            # A clock that is stopped meanwhile must be noticed.
            await asyncio.sleep(min(left / self.factor, 0.25))

    @contextlib.asynccontextmanager
    async def stopped(self) -> AsyncIterator[None]:
        """Have no time pass for the household while the block runs."""
        self._stopped_at = self._real()
        self._running.clear()
        try:
            yield
        finally:
            self._start += self._real() - self._stopped_at
            self._stopped_at = None
            self._running.set()
