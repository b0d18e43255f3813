"""A bad network between clients and a server, in user space: late, slow, lossy, stalled, cut.

A proxy for TCP, for kernels without `netem`. It never reorders and never loses a byte, as TCP does
not either: a segment that is lost arrives later, and all after it wait. `Weather` says how bad.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

SEGMENT_BYTES = 1448  # what one packet of Ethernet carries
MAX_SEGMENTS = 256  # under way in one direction: then its sender has to wait, as for a window


@dataclass(frozen=True)
class Weather:
    """What happens to each direction of every connection."""

    delay_seconds: float = 0.0
    jitter_seconds: float = 0.0
    """At most so much more, of each segment its own."""
    loss: float = 0.0
    """Share of the segments that have to be sent again."""
    resend_seconds: float = 0.2
    """How late those are: Linux's shortest wait before it sends again."""
    bytes_per_second: float = float("inf")
    stall_after_bytes: float = float("inf")
    """When so many have passed, nothing does for `stall_seconds`, once."""
    stall_seconds: float = 0.0
    cut_after_bytes: float = float("inf")
    """When so many have passed, both ends are reset."""


class Line:
    """When what one end sends arrives at the other: in order, each segment after the one before."""

    def __init__(self, weather: Weather, choose: random.Random) -> None:
        self._weather = weather
        self._choose = choose
        self._free = 0.0  # when the line has sent all that is under way
        self._last = 0.0
        self._n_bytes = 0

    @property
    def is_cut(self) -> bool:
        return self._n_bytes > self._weather.cut_after_bytes

    def arrival(self, now: float, n_bytes: int) -> float:
        """Return when a segment that is sent now arrives."""
        weather, before = self._weather, self._n_bytes
        self._n_bytes += n_bytes
        self._free = max(self._free, now) + n_bytes / weather.bytes_per_second
        late = weather.delay_seconds + self._choose.random() * weather.jitter_seconds
        if self._choose.random() < weather.loss:
            late += weather.resend_seconds
        if before <= weather.stall_after_bytes < self._n_bytes:
            late += weather.stall_seconds
        self._last = max(self._last, self._free + late)
        return self._last


@contextlib.asynccontextmanager
async def bad_network(port: int, weather: Weather, seed: int = 0) -> AsyncIterator[int]:
    """Give a port of 127.0.0.1 behind which is `port`, and the weather in between."""
    network = _Network(port, weather, random.Random(seed))
    server = await asyncio.start_server(network.connected, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await network.close()


class _Network:
    def __init__(self, port: int, weather: Weather, choose: random.Random) -> None:
        self._port = port
        self._weather = weather
        self._choose = choose
        self._tasks: set[asyncio.Task[None]] = set()

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._carry(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        ways = [
            asyncio.create_task(self._carry_one_way(*way))
            for way in ((reader, far_writer), (far_reader, writer))
        ]
        try:
            await asyncio.gather(*ways)
        except OSError:  # cut, or one end has gone: the other hears of it
            _reset(writer)
            _reset(far_writer)
        finally:
            for task in ways:
                task.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            writer.close()
            far_writer.close()

    async def _carry_one_way(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        line = Line(self._weather, self._choose)
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(MAX_SEGMENTS)
        arriving = asyncio.create_task(_arrive(under_way, writer))
        try:
            segment = b"-"
            while segment and not arriving.done():
                segment = await reader.read(SEGMENT_BYTES)
                await under_way.put((line.arrival(time.monotonic(), len(segment)), segment))
                if line.is_cut:
                    raise ConnectionResetError("the line was cut")
            await arriving
        finally:
            arriving.cancel()
            await asyncio.gather(arriving, return_exceptions=True)


async def _arrive(
    under_way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter
) -> None:
    while True:
        arrival, segment = await under_way.get()
        await asyncio.sleep(arrival - time.monotonic())
        if not segment:
            writer.write_eof()
            return
        writer.write(segment)
        await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
