"""The web page's port: what it answers, to whom, and that the server outlives it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import re
import socket
import threading
from collections.abc import AsyncIterator, Callable
from io import BytesIO
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import make_mocked_request
from prometheus_client.parser import text_string_to_metric_families

from tests.audio.test_recording import made, with_sndfile
from tests.serving.test_server import refused
from tests.support import (
    HOME_EN,
    TIMEOUT_SECONDS,
    Client,
    FakeTranscriber,
    loud,
    quiet,
    run_server,
)
from wyoming_whisper.errors import ModelUnavailableError, TranscribeError
from wyoming_whisper.serving.server import Server
from wyoming_whisper.settings.options import Settings
from wyoming_whisper.status import Status
from wyoming_whisper.transcriber import SAMPLE_RATE, Samples, Transcriber, Transcription
from wyoming_whisper.web import _Page
from wyoming_whisper.web.app import _Site

PAGE = Path(__file__).parents[2] / "wyoming_whisper" / "web" / "page"
FILES = sorted(file.name for file in PAGE.iterdir())
CLIP = {_Site.CLIP_HEADER: "1"}


pytestmark = pytest.mark.usefixtures("_hear_loudness")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.asynccontextmanager
async def web_server(
    tmp_path: Path, open_transcriber: Callable[[Settings], Transcriber], **settings: object
) -> AsyncIterator[tuple[Server, ClientSession]]:
    """A server with its page, and a session whose paths are the page's."""
    port = free_port()
    async with (
        run_server(tmp_path, open_transcriber, http_port=port, **settings) as server,
        ClientSession(f"http://127.0.0.1:{port}") as session,
    ):
        await until_open(port)
        yield server, session


@contextlib.asynccontextmanager
async def ready(
    tmp_path: Path, fake: FakeTranscriber, **settings: object
) -> AsyncIterator[tuple[Server, ClientSession]]:
    async with web_server(tmp_path, lambda _: fake, **settings) as (server, session):
        await asyncio.wait_for(asyncio.wrap_future(server.scheduler.opened), TIMEOUT_SECONDS)
        yield server, session


async def until_open(port: int) -> None:
    async def knock() -> None:
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.01)

    await asyncio.wait_for(knock(), TIMEOUT_SECONDS)


def pcm(*parts: Samples) -> bytes:
    return (np.concatenate(parts) * 32767).astype("<i2").tobytes()


async def state_of(session: ClientSession) -> dict[str, Any]:
    async with session.get("/state") as response:
        assert response.status == 200
        found: dict[str, Any] = await response.json()
        return found


async def speak(tmp_path: Path) -> str:
    async with Client(tmp_path) as client:
        await client.speak(language="en")
        return (await client.transcript()).text


# -- what the page is ----------------------------------------------------------------------


async def test_every_file_is_served_with_headers_that_allow_nothing_from_elsewhere(
    tmp_path: Path,
) -> None:
    async with ready(tmp_path, FakeTranscriber()) as (_, session):
        for path in ["/", *(f"/{name}" for name in FILES), "/state", "/health", "/nowhere"]:
            async with session.get(path) as response:
                assert response.status == (404 if path == "/nowhere" else 200), path
                assert _Site.HEADERS.items() <= dict(response.headers).items(), path
    policy = _Site.HEADERS["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_the_page_refers_to_its_own_files_only_and_by_relative_paths() -> None:
    html = (PAGE / "index.html").read_text()
    linked = set(re.findall(r'(?:src|href)="([^"#]+)"', html))
    assert linked == {"icon.svg", "page.css", "page.js", "health", "metrics"}
    for name in FILES:
        text = (PAGE / name).read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://\w|url\(|@import|style=", text), name
    fetched = re.findall(r"fetch\(([^,]+)", (PAGE / "page.js").read_text())
    assert len(fetched) == 2
    assert all(re.match(r'["`](state|transcribe)\b', path) for path in fetched)


# -- the state -----------------------------------------------------------------------------


async def test_the_state_follows_from_loading_to_an_answer(tmp_path: Path) -> None:
    fake, loaded = FakeTranscriber(), threading.Event()

    def load(_: Settings) -> FakeTranscriber:
        assert loaded.wait(TIMEOUT_SECONDS)
        return fake

    async with web_server(tmp_path, load) as (server, session):
        state = await state_of(session)
        assert (state["phase"], state["answering"], state["answers"]) == ("loading", False, [])
        server.status.downloading("tiny", 0.25)
        state = await state_of(session)
        assert (state["phase"], state["fraction"]) == ("downloading", 0.25)
        loaded.set()
        await asyncio.wrap_future(server.scheduler.opened)
        state = await state_of(session)
        assert (state["phase"], state["answering"], state["fraction"]) == ("ready", True, None)
        assert (state["model"], state["description"]) == ("tiny", "a fake")
        assert state["languages"] == ["en", "de"]
        await speak(tmp_path)
        (answer,) = (await state_of(session))["answers"]
    assert (answer["outcome"], answer["language"], answer["seconds"]) == ("text", "en", 1.0)


@pytest.mark.parametrize("shown", [False, True])
async def test_what_was_said_is_told_only_if_the_user_wants_it(tmp_path: Path, shown: bool) -> None:
    async with ready(tmp_path, FakeTranscriber(), http_text=shown) as (server, session):
        text = await speak(tmp_path)
        async with session.get("/state") as response:
            assert (text in await response.text()) == shown
        async with session.get("/metrics") as response:
            assert text not in await response.text()
        assert (text in repr(server.status.answers)) == shown


async def test_an_unchanged_state_is_not_sent_again(tmp_path: Path) -> None:
    async with ready(tmp_path, FakeTranscriber()) as (_, session):
        async with session.get("/state") as response:
            known = {"If-None-Match": response.headers["ETag"]}
        async with session.get("/state", headers=known) as response:
            assert response.status == 304
            assert not await response.read()
        await speak(tmp_path)
        async with session.get("/state", headers=known) as response:
            assert response.status == 200


async def test_the_path_of_a_model_stays_here(tmp_path: Path) -> None:
    folder = tmp_path / "private" / "my-model"
    folder.mkdir(parents=True)
    async with ready(tmp_path, FakeTranscriber(), model=str(folder)) as (_, session):
        for path in ("/state", "/health", "/metrics"):
            async with session.get(path) as response:
                text = await response.text()
                assert "my-model" in text
                assert "private" not in text


# -- health and metrics --------------------------------------------------------------------


async def test_health_is_503_with_the_reason_until_commands_are_answered(tmp_path: Path) -> None:
    fake, may_load = FakeTranscriber(), threading.Event()

    def load(_: Settings) -> FakeTranscriber:
        assert may_load.wait(TIMEOUT_SECONDS)
        return fake

    async with web_server(tmp_path, load) as (server, session):
        async with session.get("/health") as response:
            assert response.status == 503
            assert (await response.json())["phase"] == "loading"
        may_load.set()
        await asyncio.wrap_future(server.scheduler.opened)
        async with session.get("/health") as response:
            assert response.status == 200
            told = await response.json()
        assert (told["ok"], told["reason"], told["description"]) == (True, "", "a fake")


async def test_health_says_why_there_is_no_model(tmp_path: Path) -> None:
    def fail(_: Settings) -> Transcriber:
        raise ModelUnavailableError("no way to the hub")

    async with web_server(tmp_path, fail) as (server, session):
        while server.status.state.phase != "unavailable":  # noqa: ASYNC110 - another thread's
            await asyncio.sleep(0.005)
        async with session.get("/health") as response:
            assert response.status == 503
            assert (await response.json())["reason"] == "no way to the hub"
        async with session.post("/transcribe", data=pcm(loud(1.0)), headers=CLIP) as response:
            assert response.status == 503
            assert await response.json() == {
                "error": "no way to the hub",
                "code": "model-unavailable",
            }


async def test_health_is_503_while_the_server_drains(tmp_path: Path) -> None:
    fake = FakeTranscriber()
    async with ready(tmp_path, fake) as (server, session):
        fake.gate.clear()
        speaking = asyncio.create_task(speak(tmp_path))
        await asyncio.to_thread(fake.started.wait, TIMEOUT_SECONDS)
        server.stop()
        async with session.get("/health") as response:
            assert response.status == 503
            assert (await response.json())["phase"] == "stopping"
        fake.gate.set()
        assert await speaking


async def scrape(session: ClientSession) -> dict[str, float]:
    async with session.get("/metrics") as response:
        assert response.status == 200
        assert response.content_type == "text/plain"
        text = await response.text()
    return {
        sample.name + "".join(f" {value}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_metrics_count_answers_and_failures(tmp_path: Path) -> None:
    fake = FakeTranscriber()
    async with ready(tmp_path, fake) as (_, session):
        await speak(tmp_path)
        await speak(tmp_path)
        async with Client(tmp_path) as client:
            await client.speak(samples=quiet(2.0))
            await client.transcript()
        fake.error = TranscribeError("out of memory")
        async with Client(tmp_path) as client:
            await client.speak()
            await client.error()
        found = await scrape(session)
    assert found["wyoming_whisper_ready"] == 1
    assert found["wyoming_whisper_answers_total text"] == 2
    assert found["wyoming_whisper_answers_total silence"] == 1
    assert found["wyoming_whisper_answers_total failed"] == 1
    assert found["wyoming_whisper_errors_total transcribe-failed"] == 1
    assert found["wyoming_whisper_audio_seconds_total"] == pytest.approx(5.0)
    assert found["wyoming_whisper_after_speech_seconds_count"] == 3
    assert any(name.startswith("wyoming_whisper_info ") and "tiny" in name for name in found)


async def test_metrics_count_the_sentences_of_the_home(tmp_path: Path) -> None:
    fake = FakeTranscriber()
    async with ready(tmp_path, fake) as (server, session):
        await speak(tmp_path)
        (answer,) = server.status.answers
        for changes in (
            {"understood": True, "is_corrected": True},
            {"understood": True},
            {"understood": True},
            {"understood": False},
        ):
            server.status.record(dataclasses.replace(answer, **changes))  # type: ignore[arg-type]
        found = await scrape(session)
    results = {"corrected": 1, "heard": 2, "none": 1}
    assert {
        name: found[f"wyoming_whisper_home_sentences_total {name}"] for name in results
    } == results


async def test_what_was_cut_off_shows_in_metrics_and_on_the_page(tmp_path: Path) -> None:
    async with ready(tmp_path, FakeTranscriber(), max_utterance_seconds=2) as (_, session):
        await speak(tmp_path)
        async with Client(tmp_path) as client:
            await client.speak(3.0)
            await client.transcript()
        found = await scrape(session)
        async with session.get("/state") as response:
            answers = (await response.json())["answers"]
    assert found["wyoming_whisper_truncated_total"] == 1
    assert [answer["truncated"] for answer in answers] == [True, False]


async def test_a_clip_that_is_cut_off_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with ready(tmp_path, FakeTranscriber(), max_utterance_seconds=2) as (_, session):
        clip = pcm(loud(3.0))
        async with session.post("/transcribe", data=clip, headers=CLIP) as response:
            assert (await response.json())["seconds"] == 2.0
    assert "--max-utterance-seconds" in caplog.text


# -- a clip to try -------------------------------------------------------------------------


async def test_a_clip_is_heard_as_a_command_is(tmp_path: Path) -> None:
    fake = FakeTranscriber()
    async with ready(tmp_path, fake) as (_, session):
        spoken = await speak(tmp_path)
        async with session.post(
            "/transcribe?language=en", data=pcm(loud(1.0)), headers=CLIP
        ) as response:
            told = await response.json()
            assert response.status == 200, told
        assert len((await state_of(session))["answers"]) == 2
    assert told["text"] == spoken
    assert (told["language"], told["seconds"]) == ("en", 1.0)
    command, clip = fake.requests
    assert np.array_equal(command[0], clip[0])
    assert command[1] == clip[1]


@pytest.mark.parametrize(
    ("query", "language"),
    [("", "de"), ("?language=", "de"), ("?language=auto", None), ("?language=en-GB", "en")],
)
async def test_a_clips_language_is_the_one_named_or_the_servers(
    tmp_path: Path, query: str, language: str | None
) -> None:
    fake = FakeTranscriber()
    async with (
        ready(tmp_path, fake, language="de") as (_, session),
        session.post(f"/transcribe{query}", data=pcm(loud(1.0)), headers=CLIP) as response,
    ):
        assert response.status == 200
    assert fake.requests[0][1].language == language


async def test_silence_is_an_empty_text(tmp_path: Path) -> None:
    fake = FakeTranscriber()
    async with ready(tmp_path, fake) as (_, session):
        for body in (pcm(quiet(1.0)), b""):
            async with session.post("/transcribe", data=body, headers=CLIP) as response:
                assert (response.status, (await response.json())["text"]) == (200, "")
    assert not fake.requests


async def test_half_a_sample_at_the_end_of_a_clip_is_dropped(tmp_path: Path) -> None:
    fake = FakeTranscriber()
    async with ready(tmp_path, fake) as (_, session):
        clip = pcm(loud(1.0)) + b"\x01"
        async with session.post("/transcribe", data=BytesIO(clip), headers=CLIP) as response:
            assert (await response.json())["text"] == "16000 samples in None"


@pytest.mark.parametrize(
    ("query", "body", "words"),
    [
        ("", bytes(_Site.MAX_CLIP_BYTES + 2), "60 seconds"),
        ("?language=klingon", bytes(2), "klingon"),
    ],
)
async def test_a_clip_that_is_not_possible_is_one_sentence(
    tmp_path: Path, query: str, body: bytes, words: str
) -> None:
    async with ready(tmp_path, FakeTranscriber()) as (_, session):
        sent = BytesIO(body)  # aiohttp warns of as many bytes
        async with session.post(f"/transcribe{query}", data=sent, headers=CLIP) as response:
            assert response.status == 400
            assert words in (await response.json())["error"]
        async with session.get("/health") as response:
            assert response.status == 200


async def test_a_body_that_does_not_tell_its_length_is_bounded_too(tmp_path: Path) -> None:
    async def too_much() -> AsyncIterator[bytes]:
        for _ in range(4 * _Site.MAX_CLIP_BYTES // 65536):
            yield bytes(65536)
            await asyncio.sleep(0)  # the server must have its turn: it is in the same loop

    async with ready(tmp_path, FakeTranscriber()) as (_, session):
        with contextlib.suppress(ConnectionError, OSError):
            async with session.post("/transcribe", data=too_much(), headers=CLIP) as response:
                assert response.status == 400
        async with session.get("/health") as response:
            assert response.status == 200


async def test_a_clip_without_our_header_is_refused_as_other_sites_cant_send_it(
    tmp_path: Path,
) -> None:
    fake = FakeTranscriber()
    async with ready(tmp_path, fake) as (_, session):
        async with session.post("/transcribe", data=pcm(loud(1.0))) as response:
            assert response.status == 403
            assert _Site.CLIP_HEADER in await response.text()
        # What a browser asks before it would send the header for another site.
        ask = {"Origin": "http://evil.test", "Access-Control-Request-Headers": _Site.CLIP_HEADER}
        async with session.options("/transcribe", headers=ask) as response:
            assert response.status == 405
            assert "Access-Control-Allow-Origin" not in response.headers
    assert not fake.requests


async def test_so_many_clips_are_heard_at_once(tmp_path: Path) -> None:
    fake = FakeTranscriber()
    fake.gate.clear()

    async with ready(tmp_path, fake) as (_, session):

        async def post() -> int:
            async with session.post("/transcribe", data=pcm(loud(1.0)), headers=CLIP) as response:
                return response.status

        posts = [asyncio.create_task(post()) for _ in range(_Site.MAX_CLIPS + 1)]
        done, _ = await asyncio.wait(
            posts, timeout=TIMEOUT_SECONDS, return_when=asyncio.FIRST_COMPLETED
        )
        assert [task.result() for task in done] == [503]
        fake.gate.set()
        assert sorted(await asyncio.gather(*posts)) == [200] * _Site.MAX_CLIPS + [503]
        assert await post() == 200


async def test_a_clip_whose_sender_has_gone_is_dropped(tmp_path: Path) -> None:
    fake = FakeTranscriber()
    fake.gate.clear()
    async with ready(tmp_path, fake) as (_, session):

        async def post(*parts: Samples) -> int:
            async with session.post("/transcribe", data=pcm(*parts), headers=CLIP) as response:
                return response.status

        senders = [asyncio.create_task(post(loud(1.0))) for _ in range(_Site.MAX_CLIPS)]
        await asyncio.to_thread(fake.started.wait, TIMEOUT_SECONDS)
        while await post(quiet(0.1)) != 503:  # noqa: ASYNC110 - until both are there
            await asyncio.sleep(0.005)
        for sender in senders:
            sender.cancel()
        while await post(quiet(0.1)) != 200:  # noqa: ASYNC110 - until they are seen to have gone
            await asyncio.sleep(0.005)
        fake.gate.set()
        assert await speak(tmp_path)
    assert len(fake.requests) == 2  # one that ran when its sender left, and the one spoken


async def test_a_failure_within_is_a_sentence_without_its_details(tmp_path: Path) -> None:
    fake = FakeTranscriber(error=RuntimeError("secret"))
    async with ready(tmp_path, fake) as (_, session):
        async with session.post("/transcribe", data=pcm(loud(1.0)), headers=CLIP) as response:
            assert response.status == 500
            assert "secret" not in await response.text()
        assert (await state_of(session))["answers"][0]["code"] == "internal-error"


# -- who may have it -----------------------------------------------------------------------


def guarded(**settings: object) -> _Site:
    return _Site(Mock(status=Status(), settings=Settings(**settings)))  # type: ignore[arg-type]


async def ask(site: _Site, peer: str, host: str) -> int:
    transport = Mock()
    transport.get_extra_info = lambda name, default=None: (
        (peer, 50000) if name == "peername" else default
    )
    request = make_mocked_request("GET", "/health", {"Host": host}, transport=transport)

    async def well(_: web.Request) -> web.StreamResponse:
        return web.Response()

    try:
        return (await site._guard(request, well)).status
    except web.HTTPException as error:
        return error.status


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("192.168.1.7:8099", 200),
        ("[fd00::7]:8099", 200),
        ("localhost:8099", 200),
        ("kitchen-pi", 200),
        ("kitchen-pi.local:8099", 200),
        ("KITCHEN-PI.LOCAL.", 200),
        ("whisper.example.org", 200),
        ("other.example.org", 403),
        ("evil.test:8099", 403),
        ("evil.local.test", 403),
        ("192.168.1.7.evil.test", 403),
    ],
)
async def test_only_names_of_this_machine_are_answered_to(host: str, status: int) -> None:
    site = guarded(http_names=("whisper.example.org",))
    assert await ask(site, "192.168.1.50", host) == status


@pytest.mark.parametrize(
    ("peer", "status"),
    [
        (str(_Site.INGRESS), 200),
        (f"::ffff:{_Site.INGRESS}", 200),
        ("127.0.0.1", 200),
        ("::1", 200),
        ("192.168.1.50", 200),
        ("192.168.2.50", 403),
        ("172.30.32.3", 403),
        ("2001:db8::1", 403),
    ],
)
async def test_only_those_allowed_see_the_page(peer: str, status: int) -> None:
    site = guarded(http_allow=(f"{_Site.INGRESS}/32", "192.168.1.0/24"))
    assert await ask(site, peer, "127.0.0.1") == status


async def test_home_assistant_shows_the_page_under_any_of_its_names() -> None:
    site = guarded(http_allow=(f"{_Site.INGRESS}/32",))
    assert await ask(site, str(_Site.INGRESS), "home.example.org") == 200
    assert await ask(site, "127.0.0.1", "home.example.org") == 403


async def test_connections_are_bounded_and_no_matter_to_the_wyoming_port(tmp_path: Path) -> None:
    async with ready(tmp_path, FakeTranscriber()) as (_, session):
        port = int(str(session._base_url).rpartition(":")[2].strip("/"))
        held = [
            await asyncio.open_connection("127.0.0.1", port) for _ in range(_Page.MAX_CONNECTIONS)
        ]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), TIMEOUT_SECONDS) == b""
        assert await speak(tmp_path)
        for _, each in [*held, (reader, writer)]:
            each.close()
        for _, each in held:
            with contextlib.suppress(ConnectionError):
                await each.wait_closed()
        while True:  # until the server has noticed, too
            with contextlib.suppress(ConnectionError, OSError):
                await state_of(session)
                break
            await asyncio.sleep(0.01)


# -- beside the server ---------------------------------------------------------------------


async def test_nothing_listens_unless_asked_for(tmp_path: Path) -> None:
    tried = Mock(side_effect=AssertionError)
    async with run_server(tmp_path, lambda _: FakeTranscriber()):
        loop = asyncio.get_running_loop()
        loop.create_server = tried  # type: ignore[method-assign]
        assert await speak(tmp_path)
    tried.assert_not_called()


def test_a_port_in_use_is_one_sentence(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        sentence = refused(
            *(tmp_path, "--model", str(HOME_EN), "--uri", f"unix://{tmp_path}/socket"),
            *("--http-port", port),
        )
    assert f"--http-port {port}" in sentence
    assert "in use" in sentence


async def test_a_page_that_cant_start_is_a_log_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ImportError("no aiohttp")

    monkeypatch.setattr("wyoming_whisper.web.app.start", broken)
    async with run_server(tmp_path, lambda _: FakeTranscriber(), http_port=free_port()):
        assert await speak(tmp_path)
        while "no web page" not in caplog.text:  # noqa: ASYNC110 - a log tells nobody
            await asyncio.sleep(0.005)


async def test_the_server_stops_while_a_browser_is_connected(tmp_path: Path) -> None:
    async with ready(tmp_path, FakeTranscriber()) as (server, session):
        await state_of(session)  # its connection stays open
        server.stop()


class Early(FakeTranscriber):
    def transcribe(self, samples: Samples, options: Any) -> Transcription:
        found = super().transcribe(samples, options)
        return Transcription(found.text, found.language, stages={"mel": 0.01, "encode": 0.2})


async def test_stages_are_told_and_counted(tmp_path: Path) -> None:
    async with ready(tmp_path, Early()) as (_, session):
        await speak(tmp_path)
        (answer,) = (await state_of(session))["answers"]
        assert answer["stages"] == {"mel": 0.01, "encode": 0.2}
        found = await scrape(session)
    assert found["wyoming_whisper_stage_seconds_sum encode"] == pytest.approx(0.2)


# -- a file that the browser could not decode ------------------------------------------------


async def test_a_file_that_a_browser_cannot_decode_is_decoded_here(tmp_path: Path) -> None:
    fake, as_file = FakeTranscriber(), {_Site.CLIP_HEADER: _Site.AS_FILE}
    clip = made("amr")
    async with ready(tmp_path, fake) as (_, session):
        async with session.post("/transcribe", data=clip, headers=as_file) as response:
            assert response.status == 200, await response.text()
            assert (await response.json())["seconds"] == pytest.approx(2.0, abs=0.1)
        for body, sentence in (
            (b"#EXTM3U\nhttp://192.0.2.1/a.wav\n", "no audio that is known here"),
            (with_sndfile(quiet(61.0), SAMPLE_RATE, format="FLAC"), "60 seconds at most"),
        ):
            async with session.post("/transcribe", data=body, headers=as_file) as response:
                assert response.status == 400
                assert sentence in (await response.json())["error"]
    assert [len(samples) for samples, _ in fake.requests] == [
        pytest.approx(2 * SAMPLE_RATE, rel=0.3)
    ]
