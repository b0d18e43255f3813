"""The end of what a client sends is not the end of the client; a lost one takes its work along."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from wyoming.asr import Transcribe, Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.event import Event, async_read_event, async_write_event
from wyoming.info import Describe
from wyoming.ping import Ping

from tests.support import (
    LOUD,
    TIMEOUT_SECONDS,
    FakeTranscriber,
    SteppingTranscriber,
    run_server,
)
from wyoming_whisper.errors import BusyError
from wyoming_whisper.serving.handler import _is_lost
from wyoming_whisper.serving.server import Server
from wyoming_whisper.transcriber import Transcriber
from wyoming_whisper.wire import MAX_HEADER_BYTES

pytestmark = pytest.mark.usefixtures("_hear_loudness")


@dataclass
class Peer:
    """The client's end of one connection."""

    server: Server
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, *events: Event) -> None:
        for event in events:
            await async_write_event(event, self.writer)

    async def say(self, n_chunks: int = 1) -> None:
        chunks = [AudioChunk(16000, 2, 1, 10 * LOUD).event()] * n_chunks
        await self.send(Transcribe(language="en").event(), AudioStart(16000, 2, 1).event(), *chunks)
        await self.send(AudioStop().event())

    async def receive(self) -> Event | None:
        return await asyncio.wait_for(async_read_event(self.reader), TIMEOUT_SECONDS)

    async def texts(self) -> list[str]:
        """Return all that comes until the server closes."""
        texts = []
        while (event := await self.receive()) is not None:
            assert Transcript.is_type(event.type), event
            texts.append(Transcript.from_event(event).text)
        return texts

    def half_close(self) -> None:
        self.writer.write_eof()

    def reset(self) -> None:
        """Close at once, as a process does that is killed with data unread."""
        connection = self.writer.get_extra_info("socket")
        linger = struct.pack("ii", 1, 0)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()

    async def is_let_go(self) -> None:
        await asyncio.wait_for(no_connection(self.server), TIMEOUT_SECONDS)


async def no_connection(server: Server) -> None:
    while server.connections:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def peer(tmp_path: Path, kind: str, transcriber: Transcriber) -> AsyncIterator[Peer]:
    async with run_server(tmp_path, lambda _: transcriber, deadline=0) as server:
        await asyncio.wrap_future(server.scheduler.opened)
        if kind == "unix":
            reader, writer = await asyncio.open_unix_connection(tmp_path / "socket")
            yield Peer(server, reader, writer)
        else:
            listening = await asyncio.start_server(
                server.connections.take, "127.0.0.1", 0, limit=MAX_HEADER_BYTES
            )
            address = listening.sockets[0].getsockname()
            reader, writer = await asyncio.open_connection(*address)
            yield Peer(server, reader, writer)
            listening.close()
        writer.close()


KINDS = pytest.mark.parametrize("kind", ["tcp", "unix"])


@KINDS
async def test_who_half_closes_gets_what_it_asked_for(tmp_path: Path, kind: str) -> None:
    fake = FakeTranscriber()
    fake.gate.clear()
    async with peer(tmp_path, kind, fake) as client:
        await client.say()
        await client.say(2)
        client.half_close()
        assert await asyncio.to_thread(fake.started.wait, TIMEOUT_SECONDS)
        fake.gate.set()
        assert await client.texts() == ["1600 samples in en", "3200 samples in en"]
        await client.is_let_go()


@KINDS
async def test_more_than_may_wait_are_answered_after_the_end(tmp_path: Path, kind: str) -> None:
    fake = FakeTranscriber()
    fake.gate.clear()
    async with peer(tmp_path, kind, fake) as client:
        for _ in range(5):  # one is at work, four wait: the queue is full
            await client.say()
        client.half_close()
        assert await asyncio.to_thread(fake.started.wait, TIMEOUT_SECONDS)
        fake.gate.set()
        assert await client.texts() == ["1600 samples in en"] * 5


@KINDS
@pytest.mark.parametrize("event", [Describe().event(), Ping("here").event()])
async def test_questions_are_answered_after_the_end(
    tmp_path: Path, kind: str, event: Event
) -> None:
    async with peer(tmp_path, kind, FakeTranscriber()) as client:
        await client.send(event)
        client.half_close()
        answer = await client.receive()
        assert answer is not None
        assert answer.type in ("info", "pong")
        assert await client.receive() is None


@KINDS
async def test_an_utterance_without_its_end_is_dropped_with_its_early_work(
    tmp_path: Path, kind: str
) -> None:
    fake = FakeTranscriber()
    async with peer(tmp_path, kind, fake) as client:
        before = client.server.held_audio.free
        await client.send(AudioChunk(16000, 2, 1, 10 * LOUD).event())
        client.half_close()
        assert await client.texts() == []
        await client.is_let_go()
        assert client.server.held_audio.free == before
    assert fake.requests == []


@KINDS
async def test_an_error_arrives_after_the_end(tmp_path: Path, kind: str) -> None:
    fake = FakeTranscriber(error=BusyError("not now"))
    async with peer(tmp_path, kind, fake) as client:
        await client.say()
        client.half_close()
        event = await client.receive()
        assert event is not None
        assert (event.type, event.data["code"]) == ("error", "busy")
        assert await client.receive() is None


@KINDS
async def test_a_reset_takes_the_work_along(tmp_path: Path, kind: str) -> None:
    stepping = SteppingTranscriber()
    async with peer(tmp_path, kind, stepping) as client:
        await client.say()
        assert await asyncio.to_thread(stepping.started.wait, TIMEOUT_SECONDS)
        client.reset()
        assert await asyncio.to_thread(stepping.ended.wait, TIMEOUT_SECONDS)
        await client.is_let_go()


@KINDS
async def test_who_half_closes_and_is_lost_then_takes_the_work_along(
    tmp_path: Path, kind: str
) -> None:
    stepping = SteppingTranscriber()
    async with peer(tmp_path, kind, stepping) as client:
        await client.say()
        client.half_close()
        assert await asyncio.to_thread(stepping.started.wait, TIMEOUT_SECONDS)
        client.reset()
        assert await asyncio.to_thread(stepping.ended.wait, TIMEOUT_SECONDS)
        await client.is_let_go()


async def test_who_closes_a_tcp_connection_wastes_what_it_asked_for_and_no_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It can't be told from one that half-closes before something is sent to it."""
    fake = FakeTranscriber()
    fake.gate.clear()
    async with peer(tmp_path, "tcp", fake) as client:
        await client.say()
        await client.send(AudioChunk(16000, 2, 1, 10 * LOUD).event())
        assert await asyncio.to_thread(fake.started.wait, TIMEOUT_SECONDS)
        client.writer.close()
        fake.gate.set()
        await client.is_let_go()
    assert len(fake.requests) == 1
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_the_end_of_a_pipe_is_not_the_end_of_who_reads_the_other(tmp_path: Path) -> None:
    """As stdio is served; a reader that has gone is lost."""
    fake = FakeTranscriber()
    fake.gate.clear()
    async with run_server(tmp_path, lambda _: fake) as server:
        reader, writer, ends = await _pipes()
        requests, answers = ends
        for event in (AudioChunk(16000, 2, 1, 10 * LOUD).event(), AudioStop().event()):
            os.write(requests, event_bytes(event))
        os.close(requests)
        server.connections.take(reader, writer)
        assert await asyncio.to_thread(fake.started.wait, TIMEOUT_SECONDS)
        os.close(answers)
        await asyncio.wait_for(no_connection(server), TIMEOUT_SECONDS)
        fake.gate.set()


def event_bytes(event: Event) -> bytes:
    payload = event.payload or b""
    header = {**event.to_dict(), "payload_length": len(payload)}
    return json.dumps(header).encode() + b"\n" + payload


async def _pipes() -> tuple[asyncio.StreamReader, asyncio.StreamWriter, tuple[int, int]]:
    loop = asyncio.get_running_loop()
    (their_in, requests), (answers, our_out) = os.pipe(), os.pipe()
    reader = asyncio.StreamReader(limit=MAX_HEADER_BYTES)
    await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(their_in, "rb", buffering=0)
    )
    transport, protocol = await loop.connect_write_pipe(
        lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()),
        os.fdopen(our_out, "wb", buffering=0),
    )
    writer = asyncio.StreamWriter(transport, protocol, None, loop)
    return reader, writer, (requests, answers)


def test_a_half_closed_socket_is_not_lost() -> None:
    here, there = socket.socketpair()
    with here:
        assert not _is_lost(here)
        there.shutdown(socket.SHUT_WR)
        assert not _is_lost(here)
        there.close()
        assert _is_lost(here)
    assert _is_lost(here)
    assert not _is_lost(None)
