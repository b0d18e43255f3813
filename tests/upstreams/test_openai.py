"""Asking an endpoint like OpenAI's: what it gets, what it may do wrong, and its key."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
import wave

import pytest

from tests.support import TIMEOUT_SECONDS, loud
from tests.upstreams.fakes import FakeHttp, http
from wyoming_whisper.audio.pcm import PcmFormat
from wyoming_whisper.errors import UpstreamError
from wyoming_whisper.settings.upstreams import Upstream
from wyoming_whisper.transcriber import TranscribeOptions, Transcription
from wyoming_whisper.upstreams.exchange import Recording
from wyoming_whisper.upstreams.openai import OpenAIUpstream

KEY = "sk-very-secret"
SECOND = loud(1.0)


def client_of(fake: FakeHttp, parameters: str = "", task: str = "transcribe") -> OpenAIUpstream:
    (upstream,) = Upstream.with_keys([Upstream.read(fake.uri + parameters)], {}, KEY)
    return OpenAIUpstream(upstream, task)


ENGLISH = TranscribeOptions("en")


async def ask(
    fake: FakeHttp,
    parameters: str = "",
    options: TranscribeOptions = ENGLISH,
    task: str = "transcribe",
) -> Transcription:
    """Have it hear two seconds, of which one is speech."""
    client = client_of(fake, parameters, task)
    recording = Recording()
    recording.add(loud(2.0))
    recording.finish([(0, len(SECOND))], len(SECOND))
    try:
        return await asyncio.wait_for(client.transcribe(recording, options, {}), TIMEOUT_SECONDS)
    finally:
        await client.close()


def parts_of(headers: dict[str, str], body: bytes) -> dict[str, bytes]:
    found = re.search(r"boundary=(\S+)", headers["content-type"])
    assert found
    parts: dict[str, bytes] = {}
    for part in body.split(b"--" + found[1].encode())[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        name = re.search(rb'name="(\w+)"', head)
        assert name
        parts[name[1].decode()] = content.removesuffix(b"\r\n")
    return parts


async def test_it_gets_the_speech_as_a_file_and_what_was_asked_for() -> None:
    answer = {"text": " turn  it on ", "language": "german"}
    async with FakeHttp(http(answer)).running() as fake:
        found = await ask(fake, "?model=org/big", TranscribeOptions("en", names=("Ada", "Bo")))
    assert (found.text, found.language, found.seconds) == ("turn it on", "de", 2.0)
    ((line, headers, body),) = fake.requests
    assert line == "POST /v1/audio/transcriptions HTTP/1.1"
    assert headers["authorization"] == f"Bearer {KEY}"
    parts = parts_of(headers, body)
    with wave.open(io.BytesIO(parts.pop("file"))) as file:
        assert (file.getframerate(), file.getsampwidth(), file.getnchannels()) == (16000, 2, 1)
        assert file.readframes(20000) == PcmFormat.encoded(SECOND)  # the speech alone
    assert parts == {
        "model": b"org/big",
        "response_format": b"json",
        "language": b"en",
        "prompt": b"Ada, Bo",
    }


async def test_translations_have_an_address_of_their_own() -> None:
    async with FakeHttp(http({"text": "turn it on"})).running() as fake:
        await ask(fake, task="translate")
    ((line, headers, body),) = fake.requests
    assert line.startswith("POST /v1/audio/translations ")
    assert "language" not in parts_of(headers, body)


FAULTS = {
    "401": (http({}, 401), "server", "key"),
    "403": (http({}, 403), "server", "key"),
    "404": (http({}, 404), "server", "HTTP 404"),
    "422": (http({}, 422), "request", "HTTP 422"),
    "429": (http({}, 429, Retry_After="7"), "server", "429"),
    "500": (http({"error": "a secret"}, 500), "server", "HTTP 500"),
    "503": (http({}, 503), "server", "503"),
    "a redirect": (http({}, 302, Location="http://127.0.0.1:1/"), "server", "HTTP 302"),
    "no json": (http(b"turn it on"), "server", "not JSON"),
    "a list": (http([1]), "server", "no JSON object"),
    "no text": (http({"txt": "turn it on"}), "server", "is no text"),
    "a number": (http({"text": 1}), "server", "is no text"),
    "an error as text": (http({"text": "Error: no GPU"}), "server", "error message"),
    "deep": (http(b"[" * 100_000), "server", "not JSON"),
    "no http": (b"\x00\x01\x02garbage\r\n\r\n", "server", "can't be talked to"),
    "a wrong length": (b"HTTP/1.1 200 X\r\nContent-Length: x\r\n\r\n", "server", "talked"),
    "a long answer": (http(b" " * (256 * 1024 + 1)), "server", "longer than"),
}


@pytest.mark.parametrize(("answer", "fault", "message"), FAULTS.values(), ids=FAULTS.keys())
async def test_what_is_no_answer_is_an_error(
    answer: bytes, fault: str, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with FakeHttp(answer).running() as fake:
        with pytest.raises(UpstreamError, match=message) as caught:
            await ask(fake)
    assert caught.value.fault == fault
    assert KEY not in repr(caught.value) + caplog.text
    assert "secret" not in str(caught.value)
    chain: BaseException | None = caught.value
    while chain is not None:  # what a traceback would show
        assert KEY not in str(chain)
        chain = None if chain.__suppress_context__ else chain.__context__


async def test_an_endless_answer_is_cut() -> None:
    head = b"HTTP/1.1 200 X\r\nTransfer-Encoding: identity\r\nConnection: close\r\n\r\n"
    async with FakeHttp(head, endless=True).running() as fake:
        with pytest.raises(UpstreamError, match="longer than"):
            await ask(fake)


async def test_how_long_a_busy_one_wants_to_be_left_alone_is_read() -> None:
    for said, seconds in (("7", 7.0), ("soon", 0.0), ("-1", 0.0), ("inf", 0.0), ("nan", 0.0)):
        async with FakeHttp(http({}, 429, Retry_After=said)).running() as fake:
            with pytest.raises(UpstreamError) as caught:
                await ask(fake)
        assert caught.value.retry_seconds == seconds


async def test_nobody_there_is_an_error() -> None:
    async with FakeHttp().running() as fake:
        pass
    with pytest.raises(UpstreamError, match="can't be reached") as caught:
        await ask(fake)
    assert caught.value.fault == "absent"


# -- its health ----------------------------------------------------------------------------

LISTED = {"data": [{"id": "org/big"}, {"id": "org/small"}]}


@pytest.mark.parametrize(
    ("models", "parameters"),
    [
        (http(LISTED), "?model=org/big"),
        (http(LISTED), ""),
        (http({"data": []}), "?model=org/big"),
        (http({"data": [1, None]}), "?model=org/big"),
        (http({}, 404), "?model=org/big"),  # many have no list
    ],
)
async def test_it_is_well_when_it_lists_its_models(models: bytes, parameters: str) -> None:
    async with FakeHttp(models=models).running() as fake:
        client = client_of(fake, parameters)
        description, languages = await client.check()
        await client.close()
    assert description in ("org/big", "whisper-1")
    assert languages == frozenset()
    assert fake.requests[0][0] == "GET /v1/models HTTP/1.1"
    assert fake.requests[0][1]["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (http({}, 401), "key"),
        (http({}, 500), "HTTP 500"),
        (http(b"hello"), "not JSON"),
        (http(LISTED), "no model 'org/none'"),
    ],
)
async def test_it_is_not_well_otherwise(models: bytes, message: str) -> None:
    async with FakeHttp(models=models).running() as fake:
        client = client_of(fake, "?model=org/none")
        with pytest.raises(UpstreamError, match=message):
            await client.check()
        await client.close()


async def test_another_name_of_weights_that_it_lists_is_no_reason_to_leave_it() -> None:
    async with FakeHttp(models=http({"data": [{"id": "base"}]})).running() as fake:
        for parameters in ("?model=Systran/faster-whisper-base", "?model=openai/whisper-base"):
            client = client_of(fake, parameters)
            assert await client.check() == (parameters.partition("=")[2], frozenset())
            await client.close()
        client = client_of(fake, "?model=openai/whisper-small")
        with pytest.raises(UpstreamError, match="no model 'openai/whisper-small'"):
            await client.check()
        await client.close()


async def test_the_connection_is_kept_from_one_question_to_the_next() -> None:
    async with FakeHttp(http({"text": "yes"})).running() as fake:
        client = client_of(fake)
        await client.check()
        recording = Recording()
        recording.finish([(0, len(SECOND))], len(SECOND))
        await client.transcribe(recording, TranscribeOptions("en"), {})
        assert len(fake._tasks) == 1
        await client.close()
    assert json.loads(fake.answer.split(b"\r\n\r\n")[1]) == {"text": "yes"}
