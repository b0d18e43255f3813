"""A connection to a running server, for the commands that ask one.

Loads no numpy: `health` runs every half minute in a container.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from io import BytesIO
from socket import socket as Socket  # noqa: N812  (a type here)
from typing import TypeVar
from urllib.parse import urlsplit

from wyoming.error import Error
from wyoming.event import Event, Eventable, async_read_event, write_event
from wyoming.info import Describe, Info

from ..errors import ProtocolError, SettingsError, TranscribeError, UpstreamError

Reply = TypeVar("Reply")


def _dial_address(uri: str) -> str:
    """Return the address to connect to for a server's own: one that listens everywhere is here.

    Raises SettingsError for what can't be connected to.
    """
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    else:
        if parts.scheme == "unix" and parts.path:
            return uri
    if not uri.startswith("tcp://") or host is None or port is None:
        raise SettingsError(f"{uri!r} is no server's address: tcp://HOST:PORT or unix:///PATH")
    here = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host)  # noqa: S104
    return f"tcp://{here}:{port}" if here else uri


@dataclass(frozen=True)
class Connection:
    """An open connection: sends messages, receives events."""

    reader: asyncio.StreamReader

    socket: Socket
    """To send on. Not a StreamWriter: when sending fails, asyncio also drops what is yet to be
    read, such as why the server hung up."""

    @classmethod
    async def describe(cls, uri: str, timeout: float = 15.0) -> tuple[Info, Event]:
        """Ask a server what it is; return that, and the event, which may say more (ServingInfo).

        Raises what `talk` does.
        """

        async def ask(connection: Connection) -> tuple[Info, Event]:
            await connection.send(Describe())
            event = await connection.receive(Info.is_type)
            return Info.from_event(event), event

        return await cls.talk(uri, timeout, ask)

    @classmethod
    async def talk(
        cls, uri: str, timeout: float, ask: Callable[[Connection], Awaitable[Reply]]
    ) -> Reply:
        """Connect to `uri`, return what `ask` does, and close.

        Raises UpstreamError when there is no answer within `timeout` seconds,
        ProtocolError when the answer is not Wyoming, SettingsError when `uri` is no address.
        """
        uri = _dial_address(uri)
        try:
            return await asyncio.wait_for(_connect_and_ask(uri, ask), timeout)
        except asyncio.TimeoutError:
            raise UpstreamError(f"{uri} did not answer within {timeout:g} s") from None
        except (OSError, EOFError) as error:
            raise UpstreamError(f"{uri} can't be reached ({UpstreamError.reason(error)})") from None
        except (ValueError, TypeError, KeyError, AttributeError):  # wyoming's, of nonsense
            raise ProtocolError(f"{uri} answered with something that is not Wyoming") from None

    async def send(self, message: Eventable) -> None:
        line = BytesIO()
        write_event(message.event(), line)
        await asyncio.get_running_loop().sock_sendall(self.socket, line.getvalue())

    async def receive(self, is_wanted: Callable[[str], bool]) -> Event:
        """Return the next event that is wanted; others are passed over, except an error."""
        while (event := await async_read_event(self.reader)) is not None:
            if is_wanted(event.type):
                return event
            if Error.is_type(event.type):
                raise TranscribeError(Error.from_event(event).text)
        raise UpstreamError("The server closed the connection without an answer")


async def _connect_and_ask(uri: str, ask: Callable[[Connection], Awaitable[Reply]]) -> Reply:
    parts = urlsplit(uri)
    if parts.scheme == "unix":
        reader, writer = await asyncio.open_unix_connection(parts.path)
    else:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        with writer.get_extra_info("socket").dup() as socket:
            return await ask(Connection(reader, socket))
    finally:
        writer.close()
        with contextlib.suppress(OSError):  # of a connection that was lost
            await writer.wait_closed()
