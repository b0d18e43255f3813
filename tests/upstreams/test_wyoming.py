"""Asking a Wyoming server: what it hears, and everything it may do wrong."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from wyoming.asr import Transcript
from wyoming.event import Event
from wyoming.info import Info

from tests.support import TIMEOUT_SECONDS, loud, until
from tests.upstreams.fakes import (
    Answer,
    FakeWyoming,
    event_bytes,
    fails,
    hangs,
    hangs_up,
    info,
    says,
    sends,
)
from wyoming_whisper.audio.pcm import PcmFormat
from wyoming_whisper.errors import UpstreamError
from wyoming_whisper.settings.upstreams import Upstream
from wyoming_whisper.transcriber import TranscribeOptions, Transcription
from wyoming_whisper.upstreams.exchange import Recording
from wyoming_whisper.upstreams.pool import Pool
from wyoming_whisper.upstreams.relay import Relay
from wyoming_whisper.upstreams.wyoming import WyomingUpstream

SECOND = loud(1.0)
QUIETER = SECOND * np.float32(0.5)


ENGLISH = TranscribeOptions("en")


async def ask(fake: FakeWyoming, options: TranscribeOptions = ENGLISH) -> Transcription:
    """Have it hear a second of speech."""
    recording = Recording()
    recording.add(SECOND)
    recording.finish([(0, len(SECOND))], len(SECOND))
    work = WyomingUpstream(Upstream.read(fake.uri)).transcribe(recording, options, {})
    return await asyncio.wait_for(work, TIMEOUT_SECONDS)


# -- what it hears -------------------------------------------------------------------------


async def test_it_hears_the_audio_while_it_is_spoken() -> None:
    async with FakeWyoming(says("turn it on", "de")).running() as fake:
        recording = Recording()
        client = WyomingUpstream(Upstream.read(fake.uri))
        options, context = TranscribeOptions("en", names=("Ada",)), {Relay.HOPS_KEY: 2}
        asking = asyncio.ensure_future(client.transcribe(recording, options, context))
        recording.add(SECOND)
        await asyncio.wait_for(fake.heard.wait(), TIMEOUT_SECONDS)  # it has not ended
        assert not asking.done()
        recording.add(QUIETER)
        recording.finish([(0, len(SECOND))], len(SECOND))
        reply = await asyncio.wait_for(asking, TIMEOUT_SECONDS)
    assert (reply.text, reply.language) == ("turn it on", "de")
    assert fake.audio == [PcmFormat.encoded(SECOND) + PcmFormat.encoded(QUIETER)]
    (request,) = fake.requests
    assert (request.language, request.transcript_names) == ("en", ["Ada"])
    assert request.context == {Relay.HOPS_KEY: 2}


async def test_it_gets_the_model_that_was_written_behind_its_address() -> None:
    async with FakeWyoming(says("yes")).running() as fake:
        fake.uri += "?model=large-v3"
        assert (await ask(fake)).text == "yes"
    assert fake.requests[0].name == "large-v3"


def test_samples_that_came_from_16_bits_are_the_very_same() -> None:
    numbers = np.arange(-32768, 32768, dtype="<i2")
    assert PcmFormat.encoded(numbers.astype(np.float32) / np.float32(32768)) == numbers.tobytes()
    assert PcmFormat.encoded(np.array([2.0, -2.0], np.float32)) == b"\xff\x7f\x00\x80"


async def test_audio_in_any_pieces_arrives_whole() -> None:
    rng = np.random.default_rng(0)
    samples = rng.uniform(-1, 1, 40_000).astype(np.float32)
    recording = Recording()

    async def read() -> bytes:
        return b"".join([chunk async for chunk in recording.chunks()])

    reading = [asyncio.ensure_future(read()) for _ in range(3)]
    start = 0
    while start < len(samples):
        n = int(rng.integers(1, 900))
        await asyncio.to_thread(recording.add, samples[start : start + n])
        start += n
    recording.finish([(0, len(samples))], len(samples))
    late = asyncio.ensure_future(read())
    for found in await asyncio.wait_for(asyncio.gather(*reading, late), TIMEOUT_SECONDS):
        assert found == PcmFormat.encoded(samples)


# -- what it does wrong --------------------------------------------------------------------

BAD_TEXTS = {
    "ERROR: CUDA out of memory": "error message",
    "error: no": "error message",
    "RuntimeError: what(): bad": "error message",
    "Internal Server Error: try later": "error message",
    "Traceback (most recent call last): x": "error message",
    "<html><body>502": "error message",
    '{"error": 1}': "error message",
    "a\x00b": "no text",
    "a" * 1000: "letters",
}

FAULTS: dict[str, tuple[Answer, str]] = {
    **{repr(text[:30]): (says(text), message) for text, message in BAD_TEXTS.items()},
    "no text": (sends(event_bytes(Event("transcript", {}))), "has no text"),
    "a number": (sends(event_bytes(Event("transcript", {"text": 3}))), "is no text"),
    "nothing": (sends(event_bytes(Event("transcript", {"text": None}))), "is no text"),
    "garbage": (sends(b"\x00\xff\xfe garbage\n"), "not Wyoming"),
    "http": (sends(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "not Wyoming"),
    "a list": (sends(b"[]\n"), "not Wyoming"),
    "huge lengths": (sends(b'{"type":"transcript","data_length":999999999}\n'), "not Wyoming"),
    "an endless line": (sends(b"x" * 65536, again=True), "not Wyoming"),
    "endless events": (sends(b'{"type":"pong"}\n' * 100, again=True), "512 events"),
    "half an event": (sends(b'{"type":"transcript","data_length":50}\n{'), "closed|answer"),
    "an error": (fails("boom"), r"error \(model-error\)"),
    "an error without a code": (fails("boom", None), "answered with an error"),
    "a reset": (hangs_up, "closed the connection|was lost"),
}


@pytest.mark.parametrize(("answer", "message"), FAULTS.values(), ids=FAULTS.keys())
async def test_what_is_no_answer_is_an_error(answer: Answer, message: str) -> None:
    if answer is FAULTS["half an event"][0]:
        inner = answer

        async def answer(fake: FakeWyoming, writer: asyncio.StreamWriter) -> None:
            await inner(fake, writer)
            writer.close()

    async with FakeWyoming(answer).running() as fake:
        with pytest.raises(UpstreamError, match=message) as caught:
            await ask(fake)
        await until(lambda: not fake.n_open)  # nothing of it is left open
    assert caught.value.fault == "server"


async def test_an_errors_words_are_not_repeated() -> None:
    """They may be what was said."""
    async with FakeWyoming(fails("heard: my secret")).running() as fake:
        with pytest.raises(UpstreamError) as caught:
            await ask(fake)
    assert "secret" not in str(caught.value)


async def test_a_busy_server_and_an_unknown_language_are_told_apart() -> None:
    async with FakeWyoming(fails("later", "busy")).running() as fake:
        with pytest.raises(UpstreamError, match="too much to do") as caught:
            await ask(fake)
        assert caught.value.fault == "server"
        fake.answer = fails("no", "unknown-language")
        with pytest.raises(UpstreamError) as caught:
            await ask(fake)
    assert caught.value.fault == "language"


async def test_an_answer_before_the_last_word_is_none() -> None:
    async with FakeWyoming(says("turn on"), after_chunks=1).running() as fake:
        recording = Recording()
        client = WyomingUpstream(Upstream.read(fake.uri))
        asking = asyncio.ensure_future(client.transcribe(recording, TranscribeOptions("en"), {}))
        recording.add(SECOND)
        await until(lambda: fake.audio and len(fake.audio[0]) == 32000)
        await asyncio.sleep(0.05)
        recording.add(SECOND)
        recording.finish([(0, len(SECOND))], 2 * len(SECOND))
        with pytest.raises(UpstreamError, match="before everything was said"):
            await asyncio.wait_for(asking, TIMEOUT_SECONDS)


async def test_an_answer_after_the_last_word_may_come_before_the_silence_has_ended() -> None:
    async with FakeWyoming(says("turn on"), after_chunks=1).running() as fake:
        recording = Recording()
        client = WyomingUpstream(Upstream.read(fake.uri))
        asking = asyncio.ensure_future(client.transcribe(recording, TranscribeOptions("en"), {}))
        recording.add(SECOND)
        await until(lambda: fake.audio and len(fake.audio[0]) == 32000)
        await asyncio.sleep(0.05)
        recording.add(SECOND * np.float32(0))
        recording.finish([(0, len(SECOND))], len(SECOND))
        assert (await asyncio.wait_for(asking, TIMEOUT_SECONDS)).text == "turn on"


async def test_events_before_the_transcript_are_passed_over() -> None:
    events = [Event("transcript-start", {}), Event("transcript-chunk", {"text": "x"})]
    data = b"".join(map(event_bytes, [*events, Transcript("yes").event()]))
    async with FakeWyoming(sends(data)).running() as fake:
        assert (await ask(fake)).text == "yes"


async def test_nobody_there_is_an_error() -> None:
    async with FakeWyoming(says("yes")).running() as fake:
        pass
    with pytest.raises(UpstreamError, match=r"can't be reached \(Connection refused\)"):
        await ask(fake)


async def test_a_black_hole_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(WyomingUpstream, "CONNECT_SECONDS", 0.01)
    monkeypatch.setattr(asyncio, "open_connection", never)
    with pytest.raises(UpstreamError, match="took no connection"):
        await ask(FakeWyoming(says(""), uri="tcp://192.0.2.1:10300"))


async def test_who_is_no_longer_asked_hears_so() -> None:
    async with FakeWyoming(hangs).running() as fake:
        asking = asyncio.ensure_future(ask(fake))
        await until(lambda: fake.audio and len(fake.audio[0]) == 32000)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await until(lambda: not fake.n_open)


# -- its health ----------------------------------------------------------------------------


async def test_describe_tells_what_it_is() -> None:
    async with FakeWyoming(hangs, info("de-AT", "en", "xx")).running() as fake:
        found = await WyomingUpstream(Upstream.read(fake.uri)).check()
    assert found == ("a fake model", frozenset({"de", "en"}))


@pytest.mark.parametrize("wrong", [Info(), info("en", installed=False)])
async def test_a_server_without_a_model_is_not_well(wrong: Info) -> None:
    async with FakeWyoming(hangs, wrong).running() as fake:
        with pytest.raises(UpstreamError, match="no model"):
            await WyomingUpstream(Upstream.read(fake.uri)).check()


@pytest.mark.parametrize(
    "data", [{"asr": [{}]}, {"asr": 3}, {"asr": [3]}, {"asr": [{"models": 1}]}]
)
async def test_an_info_that_is_none_is_an_error(data: dict[str, object]) -> None:
    class Strange(Info):
        def event(self) -> Event:
            return Event("info", data)

    async with FakeWyoming(hangs, Strange()).running() as fake:
        with pytest.raises(UpstreamError):
            await WyomingUpstream(Upstream.read(fake.uri)).check()


# -- loops ---------------------------------------------------------------------------------


KEY = Relay.HOPS_KEY


@pytest.mark.parametrize(
    ("context", "hops"),
    [
        (None, 1),
        ({}, 1),
        ({"other": 1}, 1),
        ({KEY: 1}, 2),
        ({KEY: Relay.MAX_HOPS}, None),
        ({KEY: 10**30}, None),
        ({KEY: -1}, None),
        ({KEY: True}, None),
        ({KEY: "1"}, None),
        ({KEY: [1]}, None),
        ("text", 1),
    ],
)
async def test_hops_are_counted_whatever_stands_there(context: object, hops: int | None) -> None:
    relay = Relay.begin(Pool((), hedge_seconds=1.0), TranscribeOptions(), context)
    assert (relay and relay._context) == (hops and {KEY: hops})
