"""Upstreams on loopback, which behave well or badly as a test wants it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from wyoming.asr import Transcribe, Transcript
from wyoming.audio import AudioChunk, AudioStop
from wyoming.error import Error
from wyoming.event import Event, async_read_event, async_write_event
from wyoming.info import AsrModel, AsrProgram, Attribution, Describe, Info

Answer = Callable[["FakeWyoming", asyncio.StreamWriter], Awaitable[None]]

_NOBODY = Attribution(name="nobody", url="")


@contextlib.asynccontextmanager
async def _closing(server: asyncio.Server, tasks: set[asyncio.Task[None]]) -> AsyncIterator[None]:
    """End a server and what it does when the block ends."""
    try:
        yield
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def info(*languages: str, installed: bool = True) -> Info:
    model = AsrModel("m", _NOBODY, installed, "a fake model", None, list(languages))
    return Info([AsrProgram("p", _NOBODY, True, "a fake", None, [model])])


def says(text: str, language: str | None = None) -> Answer:
    async def answer(_: FakeWyoming, writer: asyncio.StreamWriter) -> None:
        await async_write_event(Transcript(text, language=language).event(), writer)

    return answer


def sends(data: bytes, *, again: bool = False) -> Answer:
    async def answer(_: FakeWyoming, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        while again:
            writer.write(data)
            await writer.drain()

    return answer


def fails(text: str = "no", code: str | None = "model-error") -> Answer:
    async def answer(_: FakeWyoming, writer: asyncio.StreamWriter) -> None:
        await async_write_event(Error(text, code).event(), writer)

    return answer


async def hangs(_: FakeWyoming, __: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def hangs_up(_: FakeWyoming, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


@dataclass
class FakeWyoming:
    """A server that keeps what it hears, and answers as it is told."""

    answer: Answer
    info: Info = field(default_factory=lambda: info("en", "de"))
    after_chunks: int | None = None
    """Answer when so many chunks have come, not at audio-stop."""
    uri: str = ""
    requests: list[Transcribe] = field(default_factory=list)
    audio: list[bytes] = field(default_factory=list)
    """What was heard, of each request."""
    n_open: int = 0
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    """Audio has come."""

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[FakeWyoming]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()[:2]
        self.uri = f"tcp://{host}:{port}"
        self._tasks: set[asyncio.Task[None]] = set()
        async with _closing(server, self._tasks):
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        self.n_open += 1
        try:
            await self._converse(reader, writer)
        except (OSError, asyncio.CancelledError, asyncio.IncompleteReadError):
            pass
        finally:
            self.n_open -= 1
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        n_chunks = 0
        while (event := await async_read_event(reader)) is not None:
            if Describe.is_type(event.type):
                await async_write_event(self.info.event(), writer)
            elif Transcribe.is_type(event.type):
                self.requests.append(Transcribe.from_event(event))
                self.audio.append(b"")
            elif AudioChunk.is_type(event.type):
                self.audio[-1] += AudioChunk.from_event(event).audio
                self.heard.set()
                n_chunks += 1
                if n_chunks == self.after_chunks:
                    await self.answer(self, writer)
            elif AudioStop.is_type(event.type) and self.after_chunks is None:
                await self._answer_or_leave(reader, writer)

    async def _answer_or_leave(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        answering = asyncio.ensure_future(self.answer(self, writer))
        leaving = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                answering.result()
                await leaving
        finally:
            answering.cancel()
            leaving.cancel()
            await asyncio.gather(answering, leaving, return_exceptions=True)


def event_bytes(event: Event) -> bytes:
    data = json.dumps(event.data).encode()
    header = json.dumps({"type": event.type, "data_length": len(data)}).encode()
    return header + b"\n" + data


@dataclass
class FakeHttp:
    """An endpoint that answers with bytes; `models` and `answer` are whole HTTP responses."""

    answer: bytes = b""
    models: bytes = b""
    hang: bool = False
    endless: bool = False
    uri: str = ""
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    """First line, headers, body."""

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[FakeHttp]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        self.uri = f"http://127.0.0.1:{port}/v1"
        self._tasks: set[asyncio.Task[None]] = set()
        async with _closing(server, self._tasks):
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        with contextlib.suppress(OSError, asyncio.CancelledError, asyncio.IncompleteReadError):
            while await self._exchange(reader, writer):
                pass
        writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        headers = {name.lower(): value for name, _, value in (x.partition(": ") for x in lines[1:])}
        if "chunked" in headers.get("transfer-encoding", ""):
            body = await self._chunked(reader)
        else:
            body = await reader.readexactly(int(headers.get("content-length", 0)))
        self.requests.append((lines[0], headers, body))
        is_models = lines[0].startswith("GET")
        if self.hang and not is_models:
            await asyncio.Event().wait()
        writer.write(self.models or http({"data": []}) if is_models else self.answer)
        while self.endless and not is_models:
            writer.write(b"x" * 65536)
            await writer.drain()
        await writer.drain()
        return True

    async def _chunked(self, reader: asyncio.StreamReader) -> bytes:
        body = b""
        while size := int(await reader.readline(), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readline()
        return body


def http(body: object, status: int = 200, **headers: str) -> bytes:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(text)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + text
