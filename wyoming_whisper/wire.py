"""Reading Wyoming events from a peer: every length it names is bounded, and the time it takes.

The format is the wyoming library's (README, "Format"): a JSON header line, then `data_length`
bytes of more JSON data, then `payload_length` bytes of payload.
"""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

from wyoming.event import Event

from .errors import ProtocolError

MAX_HEADER_BYTES = 64 * 1024
MAX_DATA_BYTES = 128 * 1024  # names and terms for a large house
MAX_PAYLOAD_BYTES = 2 * 1024 * 1024  # a minute of 16 kHz in one chunk
MAX_NESTING = 32  # of lists and objects, which is more than Wyoming's own five
MAX_EVENT_SECONDS = 30.0  # from the first byte of an event to its last, over the worst Wi-Fi


async def read_event(reader: asyncio.StreamReader) -> Event | None:
    """Return the next event, None when the peer has closed (also in the middle of an event).

    A peer may be silent between events for as long as it likes.
    Raises ProtocolError for what is not Wyoming or out of bounds; the stream is of no use then.
    """
    first = await reader.read(1)
    # Not wait_for, which makes a task of every event; the reader raises what it is given.
    late = asyncio.get_running_loop().call_later(
        MAX_EVENT_SECONDS,
        reader.set_exception,
        ProtocolError(f"an event must arrive whole within {MAX_EVENT_SECONDS:g} seconds"),
    )
    try:
        return await _read_event(first, reader)
    except asyncio.IncompleteReadError:
        return None
    finally:
        late.cancel()


async def _read_event(first: bytes, reader: asyncio.StreamReader) -> Event | None:
    try:
        line = first if first in (b"", b"\n") else first + await reader.readline()
    except ValueError as error:  # what it raises for a line over the reader's limit
        raise ProtocolError(f"a header may have {MAX_HEADER_BYTES} bytes at most") from error
    if not line.endswith(b"\n"):
        return None
    header = _json_object(line, "the header")
    event_type = header.get("type")
    if not isinstance(event_type, str):
        raise ProtocolError('an event\'s header needs a "type" that is a string')
    data = _data(header)
    length = _length(header, "data_length", MAX_DATA_BYTES)
    if length:
        data |= _json_object(await reader.readexactly(length), "the data")
    _normalize_format(data)
    length = _length(header, "payload_length", MAX_PAYLOAD_BYTES)
    payload = await reader.readexactly(length) if length else None
    return Event(event_type, data, payload)


def _json_object(text: bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
        if rb"\u" in text:  # half a surrogate pair is no text, and could not be sent back
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"{what} of an event is not JSON") from error
    if not isinstance(value, dict):
        raise ProtocolError(f"{what} of an event must be a JSON object")
    # What is nested deeply could be read, but not be sent back.
    if text.count(b"[") + text.count(b"{") > MAX_NESTING and _is_deep(value):
        raise ProtocolError(f"{what} of an event may be nested {MAX_NESTING} deep at most")
    return value


def _is_deep(value: dict[str, Any]) -> bool:
    level: list[Any] = [value]
    for _ in range(MAX_NESTING):
        level = [
            item
            for inner in level
            for item in (inner.values() if isinstance(inner, dict) else inner)
            if isinstance(item, dict | list)
        ]
        if not level:
            return False
    return True


def _data(header: dict[str, Any]) -> dict[str, Any]:
    data = header.get("data")
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ProtocolError('"data" of an event must be a JSON object')
    return data


def _length(header: dict[str, Any], key: str, limit: int) -> int:
    length = header.get(key)
    if length is None:
        return 0
    if not isinstance(length, int) or isinstance(length, bool) or not 0 <= length <= limit:
        raise ProtocolError(f'"{key}" must be a whole number from 0 to {limit}')
    return length


def _normalize_format(data: dict[str, Any]) -> None:
    """Make integral numbers of an audio format integers: some clients write "16000" or 16000.0.

    What is no number is left for the caller to refuse.
    """
    for key in ("rate", "width", "channels"):
        value = data.get(key)
        if (isinstance(value, float) and value.is_integer()) or (
            isinstance(value, str) and re.fullmatch(r"[0-9]{1,6}", value)
        ):
            data[key] = int(value)
