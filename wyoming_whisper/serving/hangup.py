"""Whether who sends no more still listens: what tells a half-closed connection from a lost one.

A client that closes its writing side and one that closes, or vanishes, look alike at first: nothing
more can be read. On a unix socket the kernel knows which it is. On TCP it learns of a client that
has closed when something is sent to it, or a keepalive finds nobody; a reset it knows at once.
"""

from __future__ import annotations

import asyncio
import select
import socket
from typing import Any


async def until_lost(writer: asyncio.StreamWriter, poll_seconds: float = 0.25) -> None:
    """Return when whoever has sent its last byte doesn't listen any more, as far as can be told."""
    connection: Any = writer.get_extra_info("socket")
    # asyncio watches no connection at whose end it has read.
    while not (writer.transport.is_closing() or _is_lost(connection)):  # noqa: ASYNC110
        await asyncio.sleep(poll_seconds)


def _is_lost(connection: socket.socket | None) -> bool:
    """Whether both directions of a socket are closed, or it was reset; None is no socket."""
    if connection is None or not hasattr(select, "poll"):  # not on every system
        return False
    if connection.fileno() < 0:
        return True
    poll = select.poll()
    poll.register(connection.fileno(), 0)  # a hang-up is reported whatever is asked for
    return any(events & (select.POLLHUP | select.POLLERR) for _, events in poll.poll(0))
