"""The household's clock: it runs faster than the world's, and can be stopped."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable

LONGEST_NAP_SECONDS = 0.25  # a clock that is stopped meanwhile must be noticed


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
            await asyncio.sleep(min(left / self.factor, LONGEST_NAP_SECONDS))

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
