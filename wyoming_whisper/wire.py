"""Reading Wyoming events from a peer: every length it names is bounded.

The format is the wyoming library's (README, "Format"): a JSON header line, then `data_length`
bytes of more JSON data, then `payload_length` bytes of payload.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from wyoming.event import Event

from .errors import ProtocolError

MAX_HEADER_BYTES = 64 * 1024  # names and terms for a large house fit several times
MAX_DATA_BYTES = 1024 * 1024
MAX_PAYLOAD_BYTES = 16 * 1024 * 1024  # a minute of 44.1 kHz stereo in one chunk


async def read_event(reader: asyncio.StreamReader) -> Event | None:
    """Return the next event, None when the peer has closed (also in the middle of an event).

    Raises ProtocolError for what is not Wyoming or out of bounds; the stream is of no use then.
    """
    try:
        line = await reader.readline()
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
        length = _length(header, "payload_length", MAX_PAYLOAD_BYTES)
        payload = await reader.readexactly(length) if length else None
    except asyncio.IncompleteReadError:
        return None
    except ValueError as error:  # what readline raises for a line over the reader's limit
        raise ProtocolError(f"a header may have {MAX_HEADER_BYTES} bytes at most") from error
    return Event(event_type, data, payload)


def _json_object(text: bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"{what} of an event is not JSON") from error
    if not isinstance(value, dict):
        raise ProtocolError(f"{what} of an event must be a JSON object")
    return value


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
