"""What a peer sends, whole and byte by byte."""

from __future__ import annotations

import asyncio
import json

import pytest
from wyoming.event import Event

from wyoming_whisper.errors import ProtocolError
from wyoming_whisper.wire import (
    MAX_DATA_BYTES,
    MAX_HEADER_BYTES,
    MAX_NESTING,
    MAX_PAYLOAD_BYTES,
    read_event,
)


async def read_all(data: bytes, step: int) -> list[Event]:
    reader = asyncio.StreamReader(limit=MAX_HEADER_BYTES)

    async def feed() -> None:
        for start in range(0, len(data), step):
            reader.feed_data(data[start : start + step])
            await asyncio.sleep(0)
        reader.feed_eof()

    feeding = asyncio.create_task(feed())
    events = []
    try:
        while (event := await read_event(reader)) is not None:
            events.append(event)
    finally:
        await feeding
    return events


_LISTS = Event("x", {"a": [*([] for _ in range(999)), 1]})

GOOD = {
    "bare": (b'{"type":"describe"}\n', [Event("describe")]),
    "null data": (b'{"type":"describe","data":null}\n', [Event("describe")]),
    "inline data": (b'{"type":"ping","data":{"text":"a"}}\n', [Event("ping", {"text": "a"})]),
    "data after": (b'{"type":"ping","data_length":10}\n{"text":1}', [Event("ping", {"text": 1})]),
    "null data with data after": (
        b'{"type":"ping","data":null,"data_length":10}\n{"text":1}',
        [Event("ping", {"text": 1})],
    ),
    "data after wins": (
        b'{"type":"x","data":{"a":1,"b":2},"data_length":7}\n{"a":3}',
        [Event("x", {"a": 3, "b": 2})],
    ),
    "payload": (b'{"type":"x","payload_length":3}\nabc', [Event("x", {}, b"abc")]),
    "payload with newlines": (
        b'{"type":"x","payload_length":3}\n\n\n\n',
        [Event("x", {}, b"\n\n\n")],
    ),
    "zero lengths": (b'{"type":"x","data_length":0,"payload_length":0}\n', [Event("x")]),
    "null lengths": (b'{"type":"x","data_length":null,"payload_length":null}\n', [Event("x")]),
    "two": (
        b'{"type":"x","data_length":2,"payload_length":1}\n{}a{"type":"y"}\n',
        [Event("x", {}, b"a"), Event("y")],
    ),
    "as deep as may be": (
        b'{"type":"x","data":' + b'{"a":' * (MAX_NESTING - 1) + b"1" + b"}" * MAX_NESTING + b"\n",
        [Event("x", json.loads(b'{"a":' * (MAX_NESTING - 1) + b"1" + b"}" * (MAX_NESTING - 1)))],
    ),
    "many brackets": (
        b'{"type":"x","data":{"a":"' + b"[" * 1000 + b'"}}\n',
        [Event("x", {"a": "[" * 1000})],
    ),
    "many lists": (b'{"type":"x","data":{"a":[' + 999 * b"[]," + b"1]}}\n", [_LISTS]),
    "nothing": (b"", []),
    "closed in the header": (b'{"type":"describe"}\n{"typ', [Event("describe")]),
    "closed in the data": (b'{"type":"x","data_length":9}\n{"a"', []),
    "closed in the payload": (b'{"type":"x","payload_length":9}\nabc', []),
}

BAD = {
    "no json": (b"hello\n", "not JSON"),
    "a get request": (b"GET / HTTP/1.1\r\n\r\n", "not JSON"),
    "not utf-8": (b"\xff\xfe\n", "not JSON"),
    "a list": (b"[]\n", "JSON object"),
    "a number": (b"7\n", "JSON object"),
    "no type": (b"{}\n", '"type"'),
    "type is a number": (b'{"type":1}\n', '"type"'),
    "data is a list": (b'{"type":"x","data":[]}\n', '"data"'),
    "data after is a list": (b'{"type":"x","data_length":2}\n[]', "JSON object"),
    "data after is no json": (b'{"type":"x","data_length":2}\nab', "not JSON"),
    "length is text": (b'{"type":"x","payload_length":"1"}\na', "payload_length"),
    "length is true": (b'{"type":"x","payload_length":true}\na', "payload_length"),
    "length is a fraction": (b'{"type":"x","payload_length":1.5}\na', "payload_length"),
    "length is negative": (b'{"type":"x","data_length":-1}\n', "data_length"),
    "too much data": (
        json.dumps({"type": "x", "data_length": MAX_DATA_BYTES + 1}).encode() + b"\n",
        str(MAX_DATA_BYTES),
    ),
    "too much payload": (
        json.dumps({"type": "x", "payload_length": MAX_PAYLOAD_BYTES + 1}).encode() + b"\n",
        str(MAX_PAYLOAD_BYTES),
    ),
    "too deep": (
        b'{"type":"x","data":' + b'{"a":' * MAX_NESTING + b"1" + b"}" * MAX_NESTING + b"}\n",
        str(MAX_NESTING),
    ),
    "too deep in lists": (
        b'{"type":"x","data":{"a":' + b"[" * 40 + b"]" * 40 + b"}}\n",
        str(MAX_NESTING),
    ),
    "an empty line": (b"\n", "not JSON"),
    "a number too long for Python": (b'{"type":"x","data":{"a":' + b"9" * 5000 + b"}}\n", ""),
    "deeper than Python goes": (b'{"type":"x","data":' + b'{"a":' * 10_000 + b"\n", "not JSON"),
    "header too long": (
        b'{"type":"' + b"x" * 2 * MAX_HEADER_BYTES + b'"}\n',
        str(MAX_HEADER_BYTES),
    ),
}


@pytest.mark.parametrize("step", [1, 7, 1 << 20])
@pytest.mark.parametrize(("data", "events"), GOOD.values(), ids=GOOD.keys())
async def test_good_events_are_read(data: bytes, events: list[Event], step: int) -> None:
    assert await read_all(data, step) == events


@pytest.mark.parametrize("step", [1, 7, 1 << 20])
@pytest.mark.parametrize(("data", "words"), BAD.values(), ids=BAD.keys())
async def test_bad_events_are_refused_in_one_sentence(data: bytes, words: str, step: int) -> None:
    step = max(step, len(data) // 10_000)  # the long ones need not come byte by byte
    with pytest.raises(ProtocolError) as caught:
        await read_all(data, step)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def _short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wyoming_whisper.wire.MAX_EVENT_SECONDS", 0.1)


@pytest.mark.usefixtures("_short_patience")
@pytest.mark.parametrize("sent", [b"{", b'{"type":"x","data_length":9}\n{', b'{"type":"x",'])
async def test_an_event_that_was_begun_must_end(sent: bytes) -> None:
    reader = asyncio.StreamReader(limit=MAX_HEADER_BYTES)
    reader.feed_data(b'{"type":"y"}\n' + sent)
    assert await read_event(reader) == Event("y")
    with pytest.raises(ProtocolError, match="within"):
        await asyncio.wait_for(read_event(reader), 10)


@pytest.mark.usefixtures("_short_patience")
async def test_silence_between_events_may_last() -> None:
    reader = asyncio.StreamReader(limit=MAX_HEADER_BYTES)
    reading = asyncio.create_task(read_event(reader))
    await asyncio.sleep(0.3)
    assert not reading.done()
    reader.feed_data(b'{"type":"x"}\n')
    assert await reading == Event("x")
    await asyncio.sleep(0.3)  # nothing is left behind that would end what is whole
    reader.feed_data(b'{"type":"y"}\n')
    assert await read_event(reader) == Event("y")
