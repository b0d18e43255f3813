"""The server of the house, and the one that is its upstream: processes that come and go."""

from __future__ import annotations

import asyncio
import re
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.lib.errors import BenchmarkError
from benchmarks.lib.servers import DECIDED, READY, UNDECIDED, Watched
from benchmarks.siege.week.records import Held

WAIT_SECONDS = 120.0  # only what never happens takes so long
POLL_SECONDS = 0.05

ALLOCATED = re.compile(r"^allocated: (-?\d+) (\d+)$", re.MULTILINE)
"""What SIGUSR2 is answered with: bytes of malloc, blocks of Python."""

IDLE = "INFO idle: the model is unloaded"


class HouseServer:
    """A server that is started again and again, in the same place."""

    def __init__(
        self,
        folder: Path,
        uri: str,
        flags: tuple[str, ...],
        environment: Mapping[str, str],
        opens: str = "",
    ) -> None:
        """`opens` stands in for `backends.open_transcriber`, as MODULE:FUNCTION."""
        self.uri = uri
        self._folder = folder
        self._flags = flags
        self._environment = environment
        self._opens = opens
        self._process: Watched | None = None
        self.starts = 0

    @property
    def process(self) -> Watched:
        if self._process is None:
            raise BenchmarkError("the server was not started")
        return self._process

    async def start(self) -> None:
        """Start it, and wait until it answers `describe`. Raises BenchmarkError."""
        self.starts += 1
        self._process = Watched(
            self._folder,
            *self._flags,
            uri=self.uri,
            opens=self._opens,
            environment=self._environment,
        )
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

    def count(self, line: str) -> int:
        """Return how often `line` is in the log."""
        return self.log.count(line)

    async def until_ready(self) -> None:
        """Wait until this process has its model. Raises BenchmarkError."""
        await self.until(lambda: bool(READY.search(self.process.log)), "the model is not there")

    def has_chosen(self) -> bool:
        """Whether this process has chosen what runs its model, or has no choice."""
        log = self.process.log
        return UNDECIDED not in log or any(line in log for line in DECIDED)

    async def until(self, happened: Callable[[], bool], otherwise: str) -> None:
        """Wait until `happened`. Raises BenchmarkError."""
        end = time.monotonic() + WAIT_SECONDS
        while not happened():
            if time.monotonic() > end or not self.process.alive:
                raise BenchmarkError(f"{otherwise}:\n{self.process.log[-2000:]}")
            await asyncio.sleep(POLL_SECONDS)

    async def held(self) -> Held:
        """Return what it holds now. Raises BenchmarkError."""
        counts = await asyncio.to_thread(self.process.counts)
        allocated, blocks = await self._allocated()
        memory = self.process.memory()
        return Held(
            own=memory.own,
            proportional=memory.proportional,
            descriptors=counts.descriptors,
            threads=counts.threads,
            tasks=counts.tasks,
            pid=self.process.pid,
            allocated=allocated if allocated >= 0 else None,
            blocks=blocks,
        )

    async def _allocated(self) -> tuple[int, int]:
        n_before = len(ALLOCATED.findall(self.process.log))
        self.process.send(signal.SIGUSR2)
        await self.until(
            lambda: len(ALLOCATED.findall(self.process.log)) > n_before,
            "it does not say what it has allocated",
        )
        allocated, blocks = ALLOCATED.findall(self.process.log)[-1]
        return int(allocated), int(blocks)
