"""Asking a running server, for the commands that do.

Loads no numpy: `health` runs every half minute in a container.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from io import BytesIO
from socket import socket as Socket  # noqa: N812  (a type here)
from typing import Any
from urllib.parse import urlsplit

from wyoming.error import Error
from wyoming.event import Event, Eventable, async_read_event, write_event

from ..errors import ProtocolError, SettingsError, TranscribeError, UpstreamError
from ..tasks import end_tasks, start_task


async def ask_server(
    uri: str, messages: Iterable[Eventable], kind: Any, timeout: float = 15.0
) -> Event:
    """Send messages to a server; return its first event of a kind, which is one of wyoming's types.

    Raises TranscribeError with the server's words when it answers with an error, UpstreamError
    when there is no answer within `timeout` seconds, ProtocolError when the answer is not Wyoming,
    SettingsError when `uri` is no address.
    """
    uri = _dial_address(uri)
    try:
        return await asyncio.wait_for(_ask(uri, messages, kind), timeout)
    except asyncio.TimeoutError:
        raise UpstreamError(f"{uri} did not answer within {timeout:g} s") from None
    except (OSError, EOFError) as error:
        raise UpstreamError(f"{uri} can't be reached ({UpstreamError.reason(error)})") from None
    except (ValueError, TypeError, KeyError, AttributeError):  # wyoming's, of nonsense
        raise ProtocolError(f"{uri} answered with something that is not Wyoming") from None


async def _ask(uri: str, messages: Iterable[Eventable], kind: Any) -> Event:
    parts = urlsplit(uri)
    if parts.scheme == "unix":
        reader, writer = await asyncio.open_unix_connection(parts.path)
    else:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    with writer.get_extra_info("socket").dup() as socket:
        # A server may answer, or fail, before it has heard everything.
        sending = start_task(_send(socket, messages), "asking a server", is_awaited=True)
        try:
            while (event := await async_read_event(reader)) is not None:
                if kind.is_type(event.type):
                    kind.from_event(event)  # raises what it can't understand
                    return event
                if Error.is_type(event.type):
                    raise TranscribeError(Error.from_event(event).text)
            raise UpstreamError("The server closed the connection without an answer")
        finally:
            await end_tasks(sending)
            writer.close()
            with contextlib.suppress(OSError):  # of a connection that was lost
                await writer.wait_closed()


async def _send(socket: Socket, messages: Iterable[Eventable]) -> None:
    """Send on the socket, not on a StreamWriter.

    When sending fails, asyncio also drops what is yet to be read, such as why the server hung up.
    """
    for message in messages:
        data = BytesIO()
        write_event(message.event(), data)
        await asyncio.get_running_loop().sock_sendall(socket, data.getvalue())


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
