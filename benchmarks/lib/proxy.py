"""What stands between a client and a server: a bad network, or a server that fails in some way.

Proxies for TCP on 127.0.0.1. A `Proxy` passes everything on, or refuses. `Weather` is for kernels
without `netem`: it never reorders and never loses a byte, as TCP does not either: a segment that is
lost arrives later, and all after it wait. A `Gate` does what a fault says that it is told.
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
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from benchmarks.lib.servers import free_port

SEGMENT_BYTES = 1448  # what one packet of Ethernet carries
MAX_SEGMENTS = 256  # under way in one direction: then its sender has to wait, as for a window
SLOW_SECONDS = 2.5


class Proxy:
    """Listens on `port` as long as it is open, and connects everybody to the port `to`."""

    def __init__(self, to: int, port: int = 0) -> None:
        self.port = port or free_port()
        self._to = to
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    def refuse(self) -> None:
        """Listen no more; what is connected goes on."""
        if self._server:
            self._server.close()
            self._server = None

    async def close(self) -> None:
        """Listen no more, and cut what is connected."""
        self.refuse()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(self, reader: Reader, writer: Writer) -> None:
        task = asyncio.create_task(self._connect(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _connect(self, reader: Reader, writer: Writer) -> None:
        writers = [writer]
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to)
            writers.append(far_writer)
            await self._carry((reader, writer), (far_reader, far_writer))
        except (OSError, asyncio.CancelledError):  # one end has gone, or was cut: the other hears
            for one in writers:
                self._end(one)
        finally:
            for one in writers:
                one.close()
                with contextlib.suppress(OSError):
                    await one.wait_closed()

    def _end(self, writer: Writer) -> None:
        """End a connection before its time."""
        _reset(writer)

    async def _carry(self, client: tuple[Reader, Writer], server: tuple[Reader, Writer]) -> None:
        """Carry bytes both ways, until both ends have finished; an OSError resets both."""
        await _together(
            asyncio.create_task(self._one_way(client[0], server[1])),
            asyncio.create_task(self._one_way(server[0], client[1])),
        )

    async def _one_way(self, reader: Reader, writer: Writer) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.write_eof()


P = TypeVar("P", bound=Proxy)


@contextlib.asynccontextmanager
async def standing(proxy: P, *, is_open: bool = True) -> AsyncIterator[P]:
    """Give a proxy, and close it in the end."""
    if is_open:
        await proxy.listen()
    try:
        yield proxy
    finally:
        await proxy.close()


async def _together(*ways: asyncio.Task[None], until: str = asyncio.FIRST_EXCEPTION) -> None:
    """Wait for tasks as asyncio.wait does, end what is left of them, and raise what one raised."""
    try:
        done, _ = await asyncio.wait(ways, return_when=until)
        for task in done:
            task.result()
    finally:
        for task in ways:
            task.cancel()
        await asyncio.gather(*ways, return_exceptions=True)


def _reset(writer: Writer) -> None:
    connection = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


# -- a bad network -------------------------------------------------------------------------


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
    async with standing(_Network(port, weather, random.Random(seed))) as network:
        yield network.port


class _Network(Proxy):
    def __init__(self, to: int, weather: Weather, choose: random.Random) -> None:
        super().__init__(to)
        self._weather = weather
        self._choose = choose

    async def _one_way(self, reader: Reader, writer: Writer) -> None:
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


async def _arrive(under_way: asyncio.Queue[tuple[float, bytes]], writer: Writer) -> None:
    while True:
        arrival, segment = await under_way.get()
        await asyncio.sleep(arrival - time.monotonic())
        if not segment:
            writer.write_eof()
            return
        writer.write(segment)
        await writer.drain()


# -- a server that fails -------------------------------------------------------------------

Answers = Mapping[str, Iterable[bytes] | None]
"""What comes instead of the server's answer, by the fault; None is a reset."""


@dataclass
class _Exchange:
    """What is under way on one connection."""

    is_busy: bool = False
    """Whether the client has sent something that is not answered."""

    is_final: bool = False
    """Whether that was the request whose answer is falsified."""


class Gate(Proxy):
    """Passes everything on, or does what `fault` says.

    refused     nobody can connect; connections on which nothing is under way end
    black hole  the same, but nobody is told
    reset       all connections end at once; new ones are as ever
    hang        nothing passes any more
    slow        what follows a request that has `marker` in it comes later
    no answer   what follows never comes
    others      what follows is what `answers` says, and the connection ends
    """

    def __init__(self, to: int, marker: bytes, answers: Answers) -> None:
        super().__init__(to)
        self.fault = ""
        self._marker = marker
        self._answers = answers
        self._exchanges: dict[asyncio.Task[None], _Exchange] = {}
        self._holes: list[socket.socket] = []

    async def set(self, fault: str) -> None:
        """Begin a fault, or end it with ""."""
        self.fault = fault
        for hole in self._holes:
            hole.close()
        self._holes.clear()
        if fault in ("refused", "black hole"):
            self.refuse()
        else:
            await self.listen()
        if fault == "black hole":
            self._holes = _black_hole(self.port)
        ending = [
            task
            for task, exchange in self._exchanges.items()
            if fault in ("reset", "black hole") or (fault == "refused" and not exchange.is_busy)
        ]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)

    def _end(self, writer: Writer) -> None:
        if self.fault == "refused":  # as a server does that is stopped
            writer.close()
        else:
            super()._end(writer)

    async def _carry(self, client: tuple[Reader, Writer], server: tuple[Reader, Writer]) -> None:
        task, exchange = asyncio.current_task(), _Exchange()
        assert task  # noqa: S101
        self._exchanges[task] = exchange
        try:
            up = asyncio.create_task(self._ask(exchange, client[0], server[1]))
            down = asyncio.create_task(self._answer(exchange, server[0], client[1]))
            await _together(up, down, until=asyncio.FIRST_COMPLETED)
        finally:
            del self._exchanges[task]

    async def _ask(self, exchange: _Exchange, reader: Reader, writer: Writer) -> None:
        tail = b""
        while data := await reader.read(1 << 16):
            if self.fault == "hang":
                continue
            if not exchange.is_busy:
                exchange.is_final, tail = False, b""
            tail = (tail + data)[-(len(data) + len(self._marker)) :]
            exchange.is_busy = True
            exchange.is_final |= self._marker in tail
            writer.write(data)
            await writer.drain()

    async def _answer(self, exchange: _Exchange, reader: Reader, writer: Writer) -> None:
        while data := await reader.read(1 << 16):
            if self.fault == "hang" or (self.fault == "no answer" and exchange.is_final):
                await asyncio.Event().wait()
            if exchange.is_final and self.fault in self._answers:
                answer = self._answers[self.fault]
                if answer is None:
                    raise ConnectionResetError("the fault says so")
                for part in answer:
                    writer.write(part)
                    await writer.drain()
                return
            if exchange.is_final and self.fault == "slow":
                await asyncio.sleep(SLOW_SECONDS)
            exchange.is_busy = exchange.is_final = False
            writer.write(data)
            await writer.drain()


def _black_hole(port: int) -> list[socket.socket]:
    """Take the port so that nobody is refused and nobody accepted: Linux then drops what comes."""
    hole = socket.socket()
    hole.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    hole.bind(("127.0.0.1", port))
    hole.listen(0)
    waiting = [socket.socket() for _ in range(2)]
    for connection in waiting:
        connection.setblocking(False)
        connection.connect_ex(("127.0.0.1", port))
    return [*waiting, hole]
