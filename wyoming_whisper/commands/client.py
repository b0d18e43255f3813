"""The other end of the wire, for the commands: audio files, and questions to a running server.

Knows nothing of models. Importing this loads numpy and wyoming; what decodes files only once one
is read.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from socket import socket as Socket  # noqa: N812  (a type here)
from typing import TypeVar
from urllib.parse import urlsplit

import numpy as np
from wyoming.asr import Transcribe, Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.error import Error
from wyoming.event import Event, Eventable, async_read_event, write_event
from wyoming.info import Describe, Info

from ..audio.recording import AudioFile
from ..errors import (
    AudioError,
    ProtocolError,
    ServerUnavailableError,
    SettingsError,
    TranscribeError,
)
from ..tasks import end_tasks, start_task
from ..transcriber import SAMPLE_RATE, Samples, Transcription

T = TypeVar("T")


_LISTENING_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104


# -- audio files ---------------------------------------------------------------------------


def read_audio(path: str | Path) -> Samples:
    """Return the first audio track of a file, resampled, its channels averaged; "-" is stdin.

    Raises AudioError, naming the file, when it can't be read or holds no audio.
    """
    try:
        data = sys.stdin.buffer.read() if str(path) == "-" else Path(path).read_bytes()
    except OSError as error:
        raise AudioError(f"{path} can't be read as audio ({error.strerror})") from None
    try:
        samples = np.concatenate([np.zeros(0, np.float32), *AudioFile(data).blocks()])
    except AudioError as error:
        raise AudioError(f"{path} can't be read as audio ({error})") from None
    if not len(samples):
        raise AudioError(f"{path} holds no audio")
    return samples


# -- a running server ----------------------------------------------------------------------


def dial_address(uri: str) -> str:
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
    return f"tcp://{_LISTENING_EVERYWHERE[host]}:{port}" if host in _LISTENING_EVERYWHERE else uri


@dataclass(frozen=True)
class _Connection:
    reader: asyncio.StreamReader

    socket: Socket
    """To send on. Not a StreamWriter: when sending fails, asyncio also drops what is yet to be
    read, such as why the server hung up."""

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
        raise ServerUnavailableError("The server closed the connection without an answer")


async def describe(uri: str, timeout: float = 15.0) -> Info:
    """Ask a server what it is. Raises as describe_event does."""
    return (await describe_event(uri, timeout))[0]


async def describe_event(uri: str, timeout: float = 15.0) -> tuple[Info, Event]:
    """Ask a server what it is; return that, and the event, which may say more (info.serving_in).

    Raises ServerUnavailableError when there is no answer within `timeout` seconds, ProtocolError
    when the answer is not Wyoming, SettingsError when `uri` is no address.
    """

    async def ask(connection: _Connection) -> tuple[Info, Event]:
        await connection.send(Describe())
        event = await connection.receive(Info.is_type)
        return Info.from_event(event), event

    return await _talk(uri, timeout, ask)


async def transcribe_remote(
    uri: str, samples: Samples, *, language: str | None = None, timeout: float = 60.0
) -> Transcription:
    """Have a server transcribe `samples`; stages["total"] is the wait for it, upload included.

    Raises TranscribeError with the server's words when it answers with an error, otherwise as
    describe() does.
    """

    async def ask(connection: _Connection) -> Transcript:
        # A server may answer, or fail, before it has heard everything.
        upload = start_task(_upload(connection, samples, language), "uploading", is_awaited=True)
        try:
            return Transcript.from_event(await connection.receive(Transcript.is_type))
        finally:
            await end_tasks(upload)

    start = time.perf_counter()
    transcript = await _talk(uri, timeout, ask)
    return Transcription(
        text=transcript.text,
        language=transcript.language or language,
        seconds=len(samples) / SAMPLE_RATE,
        stages={"total": time.perf_counter() - start},
    )


async def _talk(uri: str, timeout: float, ask: Callable[[_Connection], Awaitable[T]]) -> T:
    """Connect, ask, and close, with every failure turned into the project's errors."""
    uri = dial_address(uri)
    try:
        return await asyncio.wait_for(_connect_and_ask(uri, ask), timeout)
    except asyncio.TimeoutError:
        raise ServerUnavailableError(f"{uri} did not answer within {timeout:g} s") from None
    except (OSError, EOFError) as error:
        raise ServerUnavailableError(f"{uri} can't be reached ({_reason(error)})") from None
    except (ValueError, TypeError, KeyError, AttributeError):  # what wyoming raises for nonsense
        raise ProtocolError(f"{uri} answered with something that is not Wyoming") from None


async def _connect_and_ask(uri: str, ask: Callable[[_Connection], Awaitable[T]]) -> T:
    parts = urlsplit(uri)
    if parts.scheme == "unix":
        reader, writer = await asyncio.open_unix_connection(parts.path)
    else:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        with writer.get_extra_info("socket").dup() as socket:
            return await ask(_Connection(reader, socket))
    finally:
        writer.close()
        with contextlib.suppress(OSError):  # of a connection that was lost
            await writer.wait_closed()


def _reason(error: OSError | EOFError) -> str:
    number = getattr(error, "errno", None)
    if number is not None and number > 0:  # asyncio's own text repeats the address
        return os.strerror(number)
    return getattr(error, "strerror", None) or "the connection was lost"


async def _upload(connection: _Connection, samples: Samples, language: str | None) -> None:
    await connection.send(Transcribe(language=language))
    await connection.send(AudioStart(rate=SAMPLE_RATE, width=2, channels=1))
    for audio in _chunks(samples):
        await connection.send(AudioChunk(rate=SAMPLE_RATE, width=2, channels=1, audio=audio))
    await connection.send(AudioStop())


def _chunks(samples: Samples) -> Iterator[bytes]:
    # As Home Assistant's satellites send them.
    samples_per_chunk = 1024
    for start in range(0, len(samples), samples_per_chunk):
        scaled = np.round(samples[start : start + samples_per_chunk] * 32768)
        yield np.clip(scaled, -32768, 32767).astype("<i2").tobytes()
