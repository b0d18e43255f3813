"""Upstreams behind a whole server: what its clients get, what its log and its page say."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from wyoming.asr import Transcribe
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.info import Describe, Info

from tests.support import Client, FakeTranscriber, loud, quiet, run_server, until
from tests.upstreams.fakes import FakeHttp, FakeWyoming, fails, hangs, http, says
from wyoming_whisper.backends import open_transcriber
from wyoming_whisper.serving.server import Server
from wyoming_whisper.status import UpstreamState
from wyoming_whisper.text.replacements import Replacements
from wyoming_whisper.transcriber import Samples
from wyoming_whisper.upstreams.relay import Relay

KEY = "sk-very-secret"
NEVER = 60.0


pytestmark = pytest.mark.usefixtures("_hear_loudness")


def upstreams_of(server: Server) -> tuple[UpstreamState, ...]:
    return server.status.state.upstreams


@asynccontextmanager
async def serving(
    tmp_path: Path, fake: FakeTranscriber, *uris: str, **settings: object
) -> AsyncIterator[tuple[Server, Client]]:
    """A server that has looked after its upstreams once, and one client."""
    options = {"upstreams": uris, "upstream_hedge": NEVER} | settings
    async with run_server(tmp_path, lambda _: fake, **options) as server:
        await asyncio.wrap_future(server.scheduler.opened)
        await until(
            lambda: all(
                state.description or state.detail != "it has not been asked yet"
                for state in upstreams_of(server)
            )
        )
        async with Client(tmp_path) as client:
            yield server, client


async def test_what_the_upstream_says_is_the_answer(tmp_path: Path) -> None:
    local = FakeTranscriber()
    async with (
        FakeWyoming(says("“Turn on the lamp.”", "en")).running() as fake,
        serving(tmp_path, local, fake.uri, lowercase=True) as (server, client),
    ):
        await client.speak(0.5, "en-GB")
        transcript = await client.transcript()
        (answer,) = server.status.answers
    assert (transcript.text, transcript.language) == ("turn on the lamp", "en")  # in our style
    assert (answer.upstream, answer.confidence) == (fake.uri, None)
    assert not local.requests
    assert len(fake.audio[0]) == 16000
    assert fake.requests[0].language == "en"


async def test_an_upstreams_text_is_worded_as_ours_is(tmp_path: Path) -> None:
    replaced = Replacements.read(["tee vee=TV"])
    async with (
        FakeWyoming(says("Uh, tee vee off in ½ hour.", "en")).running() as fake,
        serving(tmp_path, FakeTranscriber(), fake.uri, replace=replaced) as (_, client),
    ):
        await client.speak(0.5, "en")
        assert (await client.transcript()).text == "TV off in 30 minutes"


async def test_where_nobody_speaks_nobody_is_believed(tmp_path: Path) -> None:
    local = FakeTranscriber()
    async with (
        FakeWyoming(says("Thanks for watching!")).running() as fake,
        serving(tmp_path, local, fake.uri) as (_, client),
    ):
        await client.speak(samples=quiet(1.0))
        assert (await client.transcript()).text == ""
    assert not local.requests


async def test_an_endpoint_is_not_even_asked_where_nobody_speaks(tmp_path: Path) -> None:
    async with (
        FakeHttp(http({"text": "Thanks for watching!"})).running() as fake,
        serving(tmp_path, FakeTranscriber(), fake.uri) as (_, client),
    ):
        await client.speak(samples=quiet(1.0))
        assert (await client.transcript()).text == ""
        await client.speak(0.5)
        assert (await client.transcript()).text == "Thanks for watching"
    posts = [line for line, _, _ in fake.requests if line.startswith("POST")]
    assert len(posts) == 1


async def test_an_endpoint_gets_the_speech_of_all_of_a_dictation(tmp_path: Path) -> None:
    pause = quiet(5.0)
    spoken = [quiet(2.0), loud(20.0), pause, loud(20.0), pause, loud(1.0), pause]
    async with (
        FakeHttp(http({"text": "dictated"})).running() as fake,
        serving(tmp_path, FakeTranscriber(), fake.uri) as (_, client),
    ):
        await client.speak(samples=np.concatenate(spoken))
        assert (await client.transcript()).text == "dictated"
    (body,) = (body for line, _, body in fake.requests if line.startswith("POST"))
    with wave.open(io.BytesIO(body[body.index(b"RIFF") :])) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    assert np.count_nonzero(abs(samples) > 1000) > 0.9 * np.count_nonzero(
        abs(np.concatenate(spoken)) > 1000 / 32768
    )
    assert 41.0 < len(samples) / 16000 < 60.0  # without the longest pauses


async def test_any_format_arrives_as_16_khz(tmp_path: Path) -> None:
    tone = (np.sin(np.arange(44100) / 20) * 20000).astype("<i2")
    async with (
        FakeWyoming(says("yes")).running() as fake,
        serving(tmp_path, FakeTranscriber(), fake.uri) as (_, client),
    ):
        await client.send(AudioStart(44100, 2, 2).event())
        await client.send(AudioChunk(44100, 2, 2, np.repeat(tone, 2).tobytes()).event())
        await client.send(AudioStop().event())
        assert (await client.transcript()).text == "yes"
    assert len(fake.audio[0]) == 32000


@pytest.mark.parametrize("answer", [hangs, fails(), says("ERROR: no")])
async def test_what_the_upstream_cannot_answer_is_answered_here(
    tmp_path: Path, answer: object
) -> None:
    hedge = 0.02 if answer is hangs else NEVER
    async with (
        FakeWyoming(answer).running() as fake,  # type: ignore[arg-type]
        serving(tmp_path, FakeTranscriber(), fake.uri, upstream_hedge=hedge) as (server, client),
    ):
        await client.speak(0.5, "en")
        assert (await client.transcript()).text == "8000 samples in en"
        assert server.status.answers[0].upstream is None
        await client.speak(0.5, "en")
        assert (await client.transcript()).text == "8000 samples in en"
        await until(lambda: not fake.n_open)


async def say(client: Client, *parts: Samples) -> None:
    audio = (np.concatenate(parts) * 32767).astype("<i2").tobytes()
    for start in range(0, len(audio), 1024):
        await client.send(AudioChunk(16000, 2, 1, audio[start : start + 1024]).event())


async def test_no_work_is_begun_early_here_while_another_hears_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "wyoming_whisper.utterance.utterance.Utterance.MAX_AHEAD_SECONDS", float("inf")
    )
    local = FakeTranscriber()
    async with (
        FakeWyoming(says("yes")).running() as fake,
        serving(tmp_path, local, fake.uri) as (_, client),
    ):
        await say(client, loud(0.5), quiet(1.0))
        await client.send(AudioStop().event())
        assert (await client.transcript()).text == "yes"
        assert not local.requests
        fake.answer = fails()
        await client.speak(0.5)
        await client.transcript()
        await say(client, loud(0.5), quiet(1.0))  # it isn't asked now: work begins
        await until(lambda: len(local.requests) == 2)
        await client.send(AudioStop().event())
        await client.transcript()
    assert len(local.requests) == 2


async def test_a_client_that_leaves_takes_its_upstreams_along(tmp_path: Path) -> None:
    async with (
        FakeWyoming(hangs).running() as fake,
        serving(tmp_path, FakeTranscriber(), fake.uri) as (server, client),
    ):
        await client.speak(0.5)
        await until(lambda: fake.audio and len(fake.audio[0]) == 16000)
        await client.leave()
        await until(lambda: not fake.n_open)
        assert upstreams_of(server)[0].circuit == "closed"


async def test_two_that_are_each_others_upstreams_end(tmp_path: Path) -> None:
    """Each passes on what it gets, until it has been passed on often enough."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    here, there = FakeTranscriber(), FakeTranscriber()
    a, b = f"unix://{tmp_path}/a/socket", f"unix://{tmp_path}/b/socket"
    async with (
        serving(tmp_path / "a", here, b) as (first, client),
        serving(tmp_path / "b", there, a) as (second, _),
    ):
        while upstreams_of(first)[0].circuit != "closed":  # b was not there when it was asked
            await client.speak(0.1)
            await client.transcript()
            await asyncio.sleep(0.01)
        before = len(here.requests)
        await client.speak(0.5, "en")
        assert (await client.transcript()).text == "8000 samples in en"
        passed = [answer.upstream for answer in second.status.answers]
    assert passed[-1] == a
    assert len(here.requests) == before + 1  # it came back to a, which had it answered
    assert not there.requests


async def test_who_has_been_passed_on_too_often_stays(tmp_path: Path) -> None:
    async with (
        FakeWyoming(says("elsewhere")).running() as fake,
        serving(tmp_path, FakeTranscriber(), fake.uri) as (_, client),
    ):
        for hops in (Relay.MAX_HOPS, 10**9, "x", None):
            await client.send(Transcribe(context={Relay.HOPS_KEY: hops}).event())
            await client.send(AudioChunk(16000, 2, 1, b"\x00\x40" * 8000).event())
            await client.send(AudioStop().event())
            assert (await client.transcript()).text == "8000 samples in None"
    assert not fake.requests


# -- what is told --------------------------------------------------------------------------


async def test_info_says_what_serves(tmp_path: Path) -> None:
    async with (
        FakeWyoming(says("yes")).running() as fake,
        serving(tmp_path, FakeTranscriber(), fake.uri, "tcp://127.0.0.1:1") as (_, client),
    ):
        info = Info.from_event(await client.ask(Describe().event()))
    (model,) = info.asr[0].models
    assert model.description == f"{fake.uri}, then tcp://127.0.0.1:1 (not now), then a fake"
    assert model.languages == ["en", "de"]  # what this machine can do alone


async def test_a_front_end_without_a_model(tmp_path: Path) -> None:
    async with (
        FakeWyoming(says("yes")).running() as fake,
        run_server(
            tmp_path, open_transcriber, backend="none", model="auto", upstreams=(fake.uri,)
        ) as server,
        Client(tmp_path) as client,
    ):
        await until(lambda: server.status.state.phase == "ready" and upstreams_of(server))
        await until(lambda: upstreams_of(server)[0].circuit == "closed")
        info = Info.from_event(await client.ask(Describe().event()))
        assert info.asr[0].models[0].languages == ["de", "en"]
        await client.speak(0.5, "en")
        assert (await client.transcript()).text == "yes"
        fake.answer = fails()
        await client.speak(0.5, "en")
        error = await client.error()
        assert error.code == "upstream-failed"
        assert "--backend none" in error.text
        await until(lambda: server.status.state.phase == "unavailable")


async def test_a_key_is_nowhere_but_in_its_header(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    (tmp_path / "key").write_text(KEY)
    async with FakeHttp(http({"text": KEY}, 401), http({"data": []})).running() as fake:
        uri = f"{fake.uri}?key_file={tmp_path}/key"
        async with serving(tmp_path, FakeTranscriber(), uri) as (server, client):
            info = await client.ask(Describe().event())
            await client.speak(0.5)
            await client.transcript()
            assert KEY not in json.dumps(info.data) + repr(server.status.state)
            assert "key" in upstreams_of(server)[0].detail
    assert fake.requests[-1][1]["authorization"] == f"Bearer {KEY}"
    assert KEY not in caplog.text
    assert "it does not accept the key" in caplog.text
