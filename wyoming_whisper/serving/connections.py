"""All connections that are there: taken a few at a time, judged where there are too many.

Nobody can make an iteration of the event loop long: neither by opening hundreds of connections at
once, nor by having hundreds refused. No address is banned, nor slowed down: Home Assistant, its
satellites and what misbehaves may well share one (Docker's bridge, a proxy), and a ban would be the
attack.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import ipaddress
import logging
import socket
import time
from collections import Counter
from collections.abc import Iterator, Sequence

from ..errors import BusyError, ProtocolError
from ..peers import Allowed, address_of
from ..tasks import start_task
from ..utterance.service import Service
from .handler import Handler

_LOGGER = logging.getLogger(__name__)


class Connections:
    """Every connection has a Handler, whose task is watched until it ends."""

    # Taking a connection and refusing one each cost half a millisecond; an answer takes the event
    # loop some iterations, each of which is longer by so much. Ranking hundreds costs more: one for
    # many.
    ACCEPTED_AT_ONCE = 1
    REFUSED_AT_ONCE = 32  # one in every iteration, before they are ranked again
    SETTLE_SECONDS = 0.1
    """Those beyond --max-connections are judged after this: who has something to say has begun by
    then."""
    MAX_PENDING = 512  # wait in the kernel to be accepted
    MAX_UNSETTLED = 512  # more than that are not even heard
    SPEAKER_SECONDS = 5.0  # silent for so long, who began to speak is as idle as others
    SPEAKING_SHARE = 0.75  # of the time to drain; then what was said by then is transcribed
    PARTING_SECONDS = 0.5  # at its end, for what is sent then

    def __init__(self, service: Service, allowed: Allowed, max_connections: int) -> None:
        self._service = service
        self._allowed = allowed
        self._max = max_connections
        self._tasks: dict[Handler, asyncio.Task[None]] = {}
        self._judging: asyncio.Task[None] | None = None
        self.n_taken = 0
        """How many there have been."""

    def __len__(self) -> int:
        return len(self._tasks)

    @classmethod
    def let_many_wait(cls, server: asyncio.Server) -> None:
        """Let MAX_PENDING wait in the kernel; to asyncio `backlog` is ACCEPTED_AT_ONCE as well."""
        for listener in server.sockets:
            with listener.dup() as same:
                same.listen(cls.MAX_PENDING)

    def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve who has connected, or tell why not."""
        if len(self._tasks) >= self._max + self.MAX_UNSETTLED:
            self._service.peer_log.warn("everybody", "far too many connections: the newest are cut")
            writer.transport.abort()
            return
        address = _tune(writer.get_extra_info("socket"), writer.get_extra_info("peername"))
        peer = address or "a unix socket"
        handler = Handler(self._service, reader, writer, peer, _origin(address))
        self.track(handler)
        if address not in self._allowed:
            about = f"{address} is not among those in --allow"
            handler.refuse(ProtocolError(about, "access-denied"))
        elif len(self._tasks) > self._max and self._judging is None:
            self._judging = start_task(self._judge(), "choosing whom to refuse")

    def track(self, handler: Handler) -> asyncio.Task[None]:
        """Run a Handler; what it fails of is logged."""
        task = start_task(handler.run(), "a connection")
        self.n_taken += 1
        self._tasks[handler] = task
        task.add_done_callback(lambda _: self._tasks.pop(handler))
        return task

    @property
    def is_spoken_to(self) -> bool:
        """Whether somebody is speaking, or waits for an answer."""
        too_long_ago = time.monotonic() - self.SPEAKER_SECONDS
        return any(
            one.is_waiting or (one.is_busy and one.last_event > too_long_ago)
            for one in self._there()
        )

    async def drain(self, seconds: float) -> None:
        """Let what is being spoken or transcribed finish, for a while.

        Then who speaks is cut short; at last everybody gets what there is, or an error.
        """
        tasks = list(self._tasks.values())
        for handler in list(self._tasks):
            handler.drain()
        ends = time.monotonic() + seconds
        speaking = self.SPEAKING_SHARE * max(0.0, seconds - self.PARTING_SECONDS)
        await self._wait_for(tasks, speaking)
        if n_cut := sum(handler.cut_short() for handler in list(self._tasks)):
            _LOGGER.warning(
                "%d still spoke %.1f s after the server was told to stop, and are cut short "
                "(--drain-seconds %g)",
                n_cut,
                speaking,
                seconds,
            )
        await self._wait_for(tasks, ends - self.PARTING_SECONDS - time.monotonic())
        if n_late := sum(handler.hurry() for handler in list(self._tasks)):
            _LOGGER.warning(
                "%d still waited for an answer when the server had to end: they get what is "
                "transcribed by now, or an error (--drain-seconds %g)",
                n_late,
                seconds,
            )
        await self._wait_for(tasks, max(ends - time.monotonic(), self.PARTING_SECONDS))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._judging:
            self._judging.cancel()

    async def _wait_for(self, tasks: Sequence[asyncio.Task[None]], seconds: float) -> None:
        under_way = [task for task in tasks if not task.done()]
        if under_way:
            await asyncio.wait(under_way, timeout=max(0.0, seconds))

    async def _judge(self) -> None:
        """As long as there are too many, refuse one in every iteration of the event loop."""
        try:
            while sum(1 for _ in self._there()) > self._max:
                long_ago = time.monotonic() - self.SETTLE_SECONDS
                settled = [one for one in self._there() if one.since <= long_ago]
                n_too_many = len(settled) - self._max
                ranked = self._least_missed(settled, min(n_too_many, self.REFUSED_AT_ONCE))
                last_events = [one.last_event for one in ranked]
                for handler, then in zip(ranked, last_events, strict=True):
                    # Who has gone, or said something since, is another case.
                    if handler in self._tasks and handler.last_event == then:
                        handler.refuse(
                            BusyError(
                                f"there are more than {self._max} connections, which is all that "
                                "--max-connections allows"
                            )
                        )
                        await asyncio.sleep(0)
                await asyncio.sleep(0 if n_too_many > 0 else self.SETTLE_SECONDS / 4)
        finally:
            self._judging = None

    def _there(self) -> Iterator[Handler]:
        return (handler for handler in self._tasks if not handler.is_refused)

    def _least_missed(self, settled: Sequence[Handler], count: int) -> list[Handler]:
        """Return those who were silent for longest; where all speak, the newest.

        Of these, first who comes from where most come from.
        """
        too_long_ago = time.monotonic() - self.SPEAKER_SECONDS
        idle = [
            one
            for one in settled
            if not one.is_busy or (not one.is_waiting and one.last_event < too_long_ago)
        ]
        n_from = Counter(one.origin for one in self._there())
        if idle:
            return heapq.nsmallest(
                count, idle, key=lambda one: (-n_from[one.origin], one.last_event)
            )
        return heapq.nlargest(count, settled, key=lambda one: (n_from[one.origin], one.since))


def _tune(connection: socket.socket | None, peer: object) -> str | None:
    """Set up a TCP connection and return the address of its peer; None for a unix socket."""
    keepalive_seconds = 60  # of silence; then who has lost its power is found out
    if connection is None or connection.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    with contextlib.suppress(OSError):  # the peer has gone already
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, keepalive_seconds)
    return str(peer[0]) if isinstance(peer, tuple) else "0.0.0.0"  # noqa: S104  (gone: nobody)


def _origin(address: str | None) -> str:
    """Return what all addresses of one IPv6 network share; its machines give themselves many."""
    ipv6_network_bits = 64
    ip = address_of(address)
    if isinstance(ip, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((ip, ipv6_network_bits), strict=False))
    return str(ip or "")
