"""Bytes that no client would send: real streams, with lies, other values and random changes."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence

from hypothesis import strategies as st

LENGTHS = re.compile(rb'"((?:data|payload)_length)": (\d{1,9})\b')
LIES = (
    *(b"0", b"1", b"-1", b"65536", b"16777216", b"16777217", b"2147483648", b"4294967296"),
    *(b"9223372036854775808", b"1e3", b"1.5", b"true", b"null", b'"7"', b"[7]", b"{}", b"NaN"),
)
VALUES = re.compile(rb'(": )("[^"]*"|\d+|null|\[[^]]*\])')
REPLACEMENTS = (
    *(b"null", b"true", b"0", b"-1", b"1", b"7", b"1000000000", b"1e400", b"-0.0", b"NaN", b'""'),
    *(b"[]", b"{}", b"[null]", b'{"a": {}}', b'"\\ud800"', b'"' + b"x" * 70_000 + b'"'),
    *(b"[" * 3000 + b"]" * 3000, b"9" * 5000, b'"../../etc/passwd"', b'"\xff\xfe"'),
)

Change = Callable[[st.DrawFn, bytes], bytes]


def replaced(stream: bytes, place: re.Match[bytes], value: bytes) -> bytes:
    """Return the stream with another value at a place."""
    return stream[: place.start(2)] + value + stream[place.end(2) :]


def refitted(stream: bytes, place: re.Match[bytes], value: bytes) -> bytes:
    """Replace a value and correct the length of its event's data, so that the value is read."""
    changed = replaced(stream, place, value)
    headers = [m for m in LENGTHS.finditer(stream, 0, place.start()) if m[1] == b"data_length"]
    line_end = stream.find(b"\n", headers[-1].end()) + 1 if headers else 0
    if not line_end or place.start() - line_end >= int(headers[-1][2]) or place.start() < line_end:
        return changed
    length = int(headers[-1][2]) + len(value) - len(place[2])
    return replaced(changed, headers[-1], str(length).encode())


def systematic(stream: bytes) -> Iterator[bytes]:
    """Yield every beginning of a stream, every length lied about, and every value replaced."""
    for length in range(len(stream) + 1):
        yield stream[:length]
    for place, lie in itertools.product(LENGTHS.finditer(stream), LIES):
        yield replaced(stream, place, lie)
    for place, value in itertools.product(VALUES.finditer(stream), REPLACEMENTS):
        yield refitted(stream, place, value)


@st.composite
def mutated(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """Draw one of the streams, changed up to four times."""
    stream = draw(st.sampled_from(seeds))
    for change in draw(st.lists(st.sampled_from(CHANGES), max_size=4)):
        stream = change(draw, stream)
    return stream


def _span(draw: st.DrawFn, stream: bytes) -> slice:
    start = draw(st.integers(0, len(stream)))
    return slice(start, start + draw(st.integers(1, 400)))


def _cut(draw: st.DrawFn, stream: bytes) -> bytes:
    span = _span(draw, stream)
    return stream[: span.start] + stream[span.stop :]


def _repeat(draw: st.DrawFn, stream: bytes) -> bytes:
    span = _span(draw, stream)
    return stream[: span.stop] + stream[span] + stream[span.stop :]


def _flip(draw: st.DrawFn, stream: bytes) -> bytes:
    at = draw(st.integers(0, len(stream)))
    flipped = bytes(byte ^ draw(st.integers(1, 255)) for byte in stream[at : at + 1])
    return stream[:at] + flipped + stream[at + 1 :]


def _insert(draw: st.DrawFn, stream: bytes) -> bytes:
    at = draw(st.integers(0, len(stream)))
    return stream[:at] + draw(st.binary(min_size=1, max_size=8)) + stream[at:]


def _reorder(draw: st.DrawFn, stream: bytes) -> bytes:
    """Change the order of events, roughly: a payload may hold the mark, too."""
    return b'{"type"'.join(draw(st.permutations(stream.split(b'{"type"'))))


def _lie(draw: st.DrawFn, stream: bytes) -> bytes:
    if not (places := list(LENGTHS.finditer(stream))):
        return stream
    return replaced(stream, draw(st.sampled_from(places)), draw(st.sampled_from(LIES)))


def _replace(draw: st.DrawFn, stream: bytes) -> bytes:
    if not (places := list(VALUES.finditer(stream))):
        return stream
    return refitted(stream, draw(st.sampled_from(places)), draw(st.sampled_from(REPLACEMENTS)))


CHANGES: tuple[Change, ...] = (_cut, _repeat, _flip, _insert, _reorder, _lie, _replace)
