"""A bad network between a client and a server: a proxy for TCP on 127.0.0.1, in user space.

For kernels without `netem`. It never reorders and never loses a byte, as TCP does not either: a
segment that is lost arrives later, and all after it wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import time
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
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
    choose, connections = random.Random(seed), set[asyncio.Task[None]]()

    def accept(reader: Reader, writer: Writer) -> None:
        task = asyncio.create_task(_connect(reader, writer, port, weather, choose))
        connections.add(task)
        task.add_done_callback(connections.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await _end(*connections)


async def _connect(
    reader: Reader, writer: Writer, port: int, weather: Weather, choose: random.Random
) -> None:
    """Carry bytes both ways, until both ends have finished; where one fails, both are reset."""
    writers = [writer]
    try:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        writers.append(far_writer)
        ways = [
            asyncio.create_task(_one_way(reader, far_writer, Line(weather, choose))),
            asyncio.create_task(_one_way(far_reader, writer, Line(weather, choose))),
        ]
        try:
            await asyncio.gather(*ways)
        finally:
            await _end(*ways)
    except (OSError, asyncio.CancelledError):
        for one in writers:
            _reset(one)
    finally:
        for one in writers:
            one.close()
            with contextlib.suppress(OSError):
                await one.wait_closed()


async def _one_way(reader: Reader, writer: Writer, line: Line) -> None:
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
        await _end(arriving)


async def _arrive(under_way: asyncio.Queue[tuple[float, bytes]], writer: Writer) -> None:
    while True:
        arrival, segment = await under_way.get()
        await asyncio.sleep(arrival - time.monotonic())
        if not segment:
            writer.write_eof()
            return
        writer.write(segment)
        await writer.drain()


async def _end(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _reset(writer: Writer) -> None:
    connection = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
