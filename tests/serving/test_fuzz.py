"""Mutated conversations: whatever arrives, the server answers or hangs up, and goes on."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wyoming.event import async_read_event

from tests.support import LOUD, TIMEOUT_SECONDS, FakeTranscriber, LoudnessVad, run_server

CONVERSATION = [
    b'{"type":"describe"}\n',
    b'{"type":"ping","data":{"text":"x"}}\n',
    b'{"type":"transcribe","data_length":17}\n{"language":"en"}',
    b'{"type":"audio-start","data_length":37}\n{"rate":16000,"width":2,"channels":1}',
    b'{"type":"audio-chunk","data_length":37,"payload_length":320}\n'
    b'{"rate":16000,"width":2,"channels":1}' + LOUD,
    b'{"type":"audio-chunk","data_length":37,"payload_length":320}\n'
    b'{"rate":16000,"width":2,"channels":1}' + bytes(320),
    b'{"type":"audio-stop"}\n',
    b'{"type":"select-program","data":{"name":"wyoming-whisper"}}\n',
]

MUTATIONS = st.one_of(
    st.tuples(st.just("cut"), st.integers(0, 2000), st.integers(1, 400)),
    st.tuples(st.just("flip"), st.integers(0, 2000), st.integers(1, 255)),
    st.tuples(st.just("repeat"), st.integers(0, 2000), st.integers(1, 400)),
    st.tuples(st.just("insert"), st.integers(0, 2000), st.binary(min_size=1, max_size=8)),
)
EVENTS = st.lists(st.sampled_from(CONVERSATION), min_size=1, max_size=12)


def mutated(data: bytes, mutations: list[tuple[str, int, int | bytes]]) -> bytes:
    for kind, place, how in mutations:
        at = place % (len(data) + 1)
        if isinstance(how, bytes):
            data = data[:at] + how + data[at:]
        elif kind == "cut":
            data = data[:at] + data[at + how :]
        elif kind == "repeat":
            data = data[:at] + data[at : at + how] + data[at:]
        elif at < len(data):
            data = data[:at] + bytes([data[at] ^ how]) + data[at + 1 :]
    return data


@pytest.fixture
def _hear_loudness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wyoming_whisper.utterance.service.SileroVad", LoudnessVad)
    # Nobody here reads slowly: an error need not wait for its reader.
    monkeypatch.setattr("wyoming_whisper.serving.handler.Handler.LINGER_SECONDS", 0.01)


async def survive(tmp_path: Path, streams: list[bytes]) -> None:
    async with run_server(tmp_path, lambda _: FakeTranscriber()):
        for data in streams:
            reader, writer = await asyncio.open_unix_connection(tmp_path / "socket")
            writer.write(data)
            writer.write_eof()
            answer = await asyncio.wait_for(reader.read(), TIMEOUT_SECONDS)
            assert answer == b"" or answer.startswith(b"{")
            writer.close()
        reader, writer = await asyncio.open_unix_connection(tmp_path / "socket")
        writer.write(CONVERSATION[0])
        event = await asyncio.wait_for(async_read_event(reader), TIMEOUT_SECONDS)
        assert event is not None
        assert event.type == "info"
        writer.close()


@given(
    streams=st.lists(
        st.builds(mutated, EVENTS.map(b"".join), st.lists(MUTATIONS, max_size=4)),
        min_size=1,
        max_size=8,
    )
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.usefixtures("_hear_loudness")
def test_mutated_conversations_bring_nothing_down(
    tmp_path_factory: pytest.TempPathFactory, caplog: pytest.LogCaptureFixture, streams: list[bytes]
) -> None:
    caplog.clear()
    with caplog.at_level(logging.ERROR):
        asyncio.run(survive(tmp_path_factory.mktemp("fuzz"), streams))
    assert not caplog.records, caplog.text
