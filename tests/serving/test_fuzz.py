"""Mutated conversations: the server answers in whole events or hangs up, and goes on.

`pytest tests/serving/test_fuzz.py tests/web/test_fuzz.py --hypothesis-profile long` sends some
hundred times as many.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wyoming.asr import Transcribe, Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.event import Event, async_read_event, write_event
from wyoming.info import Describe, SelectProgram
from wyoming.ping import Ping

from tests.mutations import mutated, systematic
from tests.support import LOUD, TIMEOUT_SECONDS, FakeTranscriber, run_server

LIVE = ("transcript-start", "transcript-chunk")  # before a transcript, with live text
OPTIONS: dict[str, dict[str, object]] = {
    "as it comes": {},
    "endpointing and live text": {"endpointing": 0.3, "live_text": True},
}


def as_bytes(*events: Event) -> bytes:
    sent = BytesIO()
    for event in events:
        write_event(event, sent)
    return sent.getvalue()


COMMAND = (
    Transcribe(language="en").event(),
    AudioStart(rate=16_000, width=2, channels=1).event(),
    *[AudioChunk(rate=16_000, width=2, channels=1, audio=LOUD).event()] * 3,
    AudioStop().event(),
)
QUESTIONS = (Describe().event(), Ping("x").event(), SelectProgram("wyoming-whisper").event())
SATELLITE = (
    Transcribe(name="tiny", language=None, context={"id": 1}).event(),
    AudioStart(rate=44_100, width=2, channels=2).event(),
    AudioChunk(rate=44_100, width=2, channels=2, audio=LOUD * 2).event(),
    AudioChunk(rate=8_000, width=1, channels=1, audio=bytes(range(256))).event(),
    AudioStop(timestamp=30).event(),
)
NAMES = Transcribe(language="de-DE", transcript_names=["Anna"], transcript_terms=["Flur"]).event()
CONVERSATIONS = (
    as_bytes(*COMMAND),
    as_bytes(*QUESTIONS, NAMES),
    as_bytes(*SATELLITE),
    as_bytes(*COMMAND, *QUESTIONS, *SATELLITE, *COMMAND),
)
HONEST = as_bytes(*COMMAND[:2], *[COMMAND[2]] * 100, COMMAND[-1])


@pytest.fixture
def _linger_shortly(monkeypatch: pytest.MonkeyPatch) -> None:
    # Nobody here reads slowly: an error need not wait for its reader.
    monkeypatch.setattr("wyoming_whisper.serving.handler.Handler.LINGER_SECONDS", 0.01)


async def survive(
    tmp_path: Path, streams: Iterable[tuple[bytes, bool]], options: dict[str, object]
) -> None:
    """Send streams, each abruptly left or not; then an honest command is answered as ever."""
    async with run_server(tmp_path, lambda _: FakeTranscriber(), **options):
        for stream, abruptly in streams:
            check(await answer(tmp_path / "socket", stream, abruptly=abruptly))
        reader, writer = await asyncio.open_unix_connection(tmp_path / "socket")
        writer.write(HONEST)
        event = await asyncio.wait_for(async_read_event(reader), TIMEOUT_SECONDS)
        while event and event.type in LIVE:
            event = await asyncio.wait_for(async_read_event(reader), TIMEOUT_SECONDS)
        assert event
        assert Transcript.is_type(event.type)
        assert "samples in en" in Transcript.from_event(event).text
        writer.close()


async def answer(path: Path, stream: bytes, *, abruptly: bool) -> bytes:
    """Return all that the server says until it closes; nothing where the client leaves abruptly."""
    reader, writer = await asyncio.open_unix_connection(path)
    sending = asyncio.create_task(send(writer, stream, abruptly=abruptly))
    try:
        return await asyncio.wait_for(reader.read(), TIMEOUT_SECONDS)
    except ConnectionError:  # it hung up before it had read everything
        return b""
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        writer.close()


async def send(writer: asyncio.StreamWriter, stream: bytes, *, abruptly: bool) -> None:
    writer.write(stream)
    await writer.drain()
    if abruptly:
        writer.transport.abort()
    else:
        writer.write_eof()


def check(answer: bytes) -> None:
    """Check that an answer consists of whole events, and that nothing follows an error."""
    types: list[str] = []
    while answer:
        line, newline, answer = answer.partition(b"\n")
        header = json.loads(line)
        length = header.get("data_length") or 0
        assert newline
        assert not header.get("payload_length")
        assert len(answer) >= length
        if length:
            json.loads(answer[:length])
        answer = answer[length:]
        types.append(header["type"])
    assert "error" not in types[:-1]


@given(streams=st.lists(st.tuples(mutated(CONVERSATIONS), st.booleans()), min_size=1, max_size=8))
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.usefixtures("_hear_loudness", "_linger_shortly")
def test_mutated_conversations_bring_nothing_down(
    tmp_path_factory: pytest.TempPathFactory,
    caplog: pytest.LogCaptureFixture,
    options: dict[str, object],
    streams: list[tuple[bytes, bool]],
) -> None:
    caplog.clear()
    with caplog.at_level(logging.ERROR):
        asyncio.run(survive(tmp_path_factory.mktemp("fuzz"), streams, options))
    assert not caplog.records, caplog.text


@pytest.mark.parametrize(
    "conversation", CONVERSATIONS[:3], ids=["command", "questions", "satellite"]
)
@pytest.mark.usefixtures("_hear_loudness", "_linger_shortly")
def test_every_beginning_every_lie_and_every_other_value_brings_nothing_down(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, conversation: bytes
) -> None:
    streams = ((stream, False) for stream in systematic(conversation))
    with caplog.at_level(logging.ERROR):
        asyncio.run(survive(tmp_path, streams, {}))
    assert not caplog.records, caplog.text
