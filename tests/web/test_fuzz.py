"""Mutated requests to the page and the OpenAI endpoint: no failure of ours, and it goes on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.mutations import mutated
from tests.support import TIMEOUT_SECONDS, FakeTranscriber, loud, wav
from tests.web.test_transcriptions import asked, post, serving

HEADERS = b"Host: 127.0.0.1\r\nConnection: close\r\n"
PATHS = (b"/", b"/state", b"/health", b"/metrics", b"/v1/models", b"/v1/models/whisper-1", b"/../x")
BUSY = b'"code": "busy"'  # the page hears two clips at once
SOON_SECONDS = 0.1
STATUS = re.compile(rb"HTTP/\d\.\d (\d{3}) ")


def transcription(*, chunked: bool = False, **fields: str) -> bytes:
    """Return the request for a file's transcription."""
    part = '--x\r\nContent-Disposition: form-data; name="{}"\r\n\r\n{}\r\n'
    parts = [part.format(*field).encode() for field in {"model": "whisper-1", **fields}.items()]
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    body = b"".join([*parts, head, wav(loud(0.1)), b"\r\n--x--\r\n"])
    length = b"Content-Length: %d" % len(body)
    if chunked:
        length, body = b"Transfer-Encoding: chunked", b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    kind = b"Content-Type: multipart/form-data; boundary=x"
    line = b"POST /v1/audio/transcriptions HTTP/1.1"
    return b"\r\n".join([line, HEADERS + kind, length, b"", body])


CLIP = b"POST /transcribe HTTP/1.1\r\n" + HEADERS + b"X-Wyoming-Whisper: 1\r\n"
REQUESTS = (
    *(b"GET %s HTTP/1.1\r\n%s\r\n" % (path, HEADERS) for path in PATHS),
    CLIP + b"Content-Length: 3200\r\n\r\n" + bytes(3200),
    transcription(language="en", response_format="verbose_json"),
    transcription(chunked=True, stream="true", temperature="0.5", prompt="x"),
)
BODY_LENGTHS = (b"0", b"-1", b"99999999999", b"1e3", b"", b"7, 8", b"0x10")


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Draw a mutated request, one of five with another length of its body."""
    request = draw(mutated(REQUESTS))
    if draw(st.integers(0, 4)):
        return request
    return re.sub(rb"(?<=Content-Length: )\d+", draw(st.sampled_from(BODY_LENGTHS)), request)


async def answer(port: int, request: bytes, *, leaves: bool = False) -> bytes:
    """Send a request; return what comes until the server closes.

    A client that `leaves` has sent its last byte; of half a request the server waits for the rest,
    which the others do not send: their answer, if there is one, comes soon.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = bytearray()
    writer.write(request)
    if leaves:
        writer.write_eof()

    async def read() -> None:
        while data := await reader.read(1 << 16):
            answer.extend(data)

    with contextlib.suppress(asyncio.TimeoutError, ConnectionError):
        await asyncio.wait_for(read(), TIMEOUT_SECONDS if leaves else SOON_SECONDS)
    writer.transport.abort()
    return bytes(answer)


pytestmark = [
    pytest.mark.usefixtures("_hear_loudness"),
    # aiohttp's words about headers that are none; here warnings are errors.
    pytest.mark.filterwarnings("ignore::aiohttp.BadContentDispositionHeader"),
    pytest.mark.filterwarnings("ignore::aiohttp.BadContentDispositionParam"),
]


async def survive(tmp_path: Path, sent: list[bytes], *, leaves: bool) -> None:
    async with serving(tmp_path, FakeTranscriber()) as (_, session):
        port = session._base_url.port
        for said in await asyncio.gather(*(answer(port, one, leaves=leaves) for one in sent)):
            status = STATUS.match(said)
            assert status or not said
            assert not status or status[1] < b"500" or BUSY in said, said
        code, told = await post(session, asked())
        assert code == 200
        assert "samples" in told["text"]


def test_wrong_headers_of_a_form_are_not_printed() -> None:
    code = (
        "import warnings, aiohttp, wyoming_whisper.web.form\n"
        "for kind in aiohttp.BadContentDispositionHeader, aiohttp.BadContentDispositionParam:\n"
        "    warnings.warn(kind('a peer says so'))\n"
        "print(getattr(warnings, '__warningregistry__', {}), globals().get('__warningregistry__'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stderr, "a peer says so" in done.stdout) == ("", False)


async def test_what_is_mutated_is_answered_as_it_is(tmp_path: Path) -> None:
    async with serving(tmp_path, FakeTranscriber()) as (_, session):
        port = session._base_url.port
        answers = [await answer(port, request) for request in REQUESTS]
    codes = [status[1] for said in answers if (status := STATUS.match(said))]
    assert codes == [b"200"] * (len(PATHS) - 1) + [b"404"] + [b"200"] * 3


WRONG_HEADERS = pytest.mark.filterwarnings(
    "ignore::aiohttp.BadContentDispositionHeader", "ignore::aiohttp.BadContentDispositionParam"
)
"""As the server does; pytest's own filters come before."""


@WRONG_HEADERS
@given(sent=st.lists(requests(), min_size=1, max_size=8))
def test_mutated_requests_bring_nothing_down(
    tmp_path_factory: pytest.TempPathFactory,
    caplog: pytest.LogCaptureFixture,
    sent: list[bytes],
) -> None:
    caplog.clear()
    with caplog.at_level(logging.ERROR):
        asyncio.run(survive(tmp_path_factory.mktemp("fuzz"), sent, leaves=False))
    assert not caplog.records, caplog.text


@pytest.mark.parametrize("request_", REQUESTS[:1] + REQUESTS[-2:], ids=["page", "form", "chunks"])
async def test_every_beginning_of_a_request_brings_nothing_down(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, request_: bytes
) -> None:
    caplog.set_level(logging.ERROR)
    ends = [*range(0, min(len(request_), 600), 12), len(request_) - 1]  # fewer than may connect
    await survive(tmp_path, [request_[:end] for end in ends], leaves=True)
    assert not caplog.records, caplog.text
