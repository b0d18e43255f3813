"""Exceptions at every seam: who asked gets an error, everybody else is served, nothing is left."""

from __future__ import annotations

import asyncio
import logging
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from wyoming.info import Describe

from tests.support import (
    TIMEOUT_SECONDS,
    Client,
    FakeTranscriber,
    LoudnessVad,
    Panic,
    connected,
    loud,
    run_server,
)
from wyoming_whisper.audio.pcm import PcmStream
from wyoming_whisper.audio.speech import Speech
from wyoming_whisper.errors import WyomingWhisperError
from wyoming_whisper.serving.server import Server
from wyoming_whisper.settings.options import Settings
from wyoming_whisper.transcriber import Samples, TranscribeOptions, Transcription
from wyoming_whisper.utterance import service
from wyoming_whisper.utterance.scheduler import Scheduler

ERRORS = (
    RuntimeError("CTranslate2 says no"),
    MemoryError(),
    KeyError("token"),
    RecursionError(),
    SystemExit(3),
    Panic("index out of bounds"),
)


@dataclass
class FailsOnce(FakeTranscriber):
    """Raises `failure` at the first request."""

    failure: BaseException = field(default_factory=RuntimeError)

    def transcribe(self, samples: Samples, options: TranscribeOptions) -> Transcription:
        if not self.requests:
            self.requests.append((samples, options))
            raise self.failure
        return super().transcribe(samples, options)


async def answered(tmp_path: Path) -> None:
    """Check that somebody else is served as ever."""
    async with Client(tmp_path) as other:
        event = await other.ask(Describe().event())
        assert event.type == "info"
        await other.speak(1.0)
        assert (await other.transcript()).text


async def alone(server: Server) -> None:
    """Wait until no connection is left, and check that their tasks are gone with them."""
    while server.connections:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.01)
    names = [task.get_coro().__qualname__ for task in asyncio.all_tasks()]  # type: ignore[union-attr]
    assert not [name for name in names if name.startswith("Handler")], names


pytestmark = pytest.mark.usefixtures("_hear_loudness")


@pytest.mark.parametrize("failure", ERRORS, ids=lambda error: type(error).__name__)
async def test_a_model_that_fails_in_whatever_way(tmp_path: Path, failure: BaseException) -> None:
    transcriber = FailsOnce(failure=failure)
    async with run_server(tmp_path, lambda _: transcriber, eager=False) as server:
        async with Client(tmp_path) as client:
            await client.speak(1.0)
            error = await client.error()
            assert error.text
            assert str(failure) not in error.text or not str(failure)
        await answered(tmp_path)
        await alone(server)


@pytest.mark.parametrize("failure", ERRORS, ids=lambda error: type(error).__name__)
async def test_early_work_that_fails_in_whatever_way(
    tmp_path: Path, failure: BaseException
) -> None:
    transcriber = FailsOnce(failure=failure)
    async with connected(tmp_path, transcriber) as (client, _):
        await client.speak(1.0)
        await client.receive()  # whatever the first one got
    assert transcriber.requests


SEAMS: dict[str, tuple[object, str]] = {
    "converting audio": (PcmStream, "convert"),
    "the end of converting": (PcmStream, "flush"),
    "opening the VAD": (LoudnessVad, "stream"),
    "the VAD": (LoudnessVad, "push"),
    "hearing speech": (Speech, "add"),
    "finding speech": (Speech, "spans"),
    "cutting speech": (Speech, "cut"),
    "queueing": (Scheduler, "submit"),
}


@pytest.mark.parametrize(("owner", "name"), SEAMS.values(), ids=SEAMS.keys())
async def test_a_seam_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: object, name: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("nobody foresaw this")

    async with run_server(tmp_path, lambda _: FakeTranscriber()) as server:
        await server.loaded_vad()
        with monkeypatch.context() as broken:
            broken.setattr(owner, name, fail)
            async with Client(tmp_path) as client:
                await client.speak(1.0)
                error = await client.error()
                assert error.code == WyomingWhisperError.code
                assert "foresaw" not in error.text
        await answered(tmp_path)
        await alone(server)


async def test_a_model_that_fails_to_close(tmp_path: Path) -> None:
    class Clinging(FakeTranscriber):
        def close(self) -> None:
            super().close()
            raise RuntimeError("can't let go")

    transcriber = Clinging()
    async with run_server(tmp_path, lambda _: transcriber):
        await answered(tmp_path)
    assert transcriber.closed  # and run_server has seen the server end


@pytest.mark.parametrize("error", [OSError("no such file"), RuntimeError("bad model")])
async def test_a_vad_that_cannot_be_loaded_ends_the_server_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(service, "SileroVad", fail)
    settings = Settings(uri=f"unix://{tmp_path}/socket", model="tiny", data_dir=(tmp_path,))
    server = Server(settings, lambda _: FakeTranscriber())
    with pytest.raises(WyomingWhisperError, match=str(error)):
        await asyncio.wait_for(server.run(), TIMEOUT_SECONDS)
    assert "transcriber" not in [thread.name for thread in threading.enumerate()]


async def test_clients_that_leave_while_they_are_answered(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The end of the input and the answer come in the same moment, in every order there is."""
    caplog.set_level(logging.ERROR)
    async with run_server(tmp_path, lambda _: FakeTranscriber()) as server:
        await server.loaded_vad()
        await asyncio.gather(*(leave_soon(tmp_path, n % 7) for n in range(70)))
        await asyncio.wait_for(alone(server), TIMEOUT_SECONDS)
        await answered(tmp_path)
    assert not caplog.records


async def leave_soon(tmp_path: Path, n_yields: int) -> None:
    async with Client(tmp_path) as client:
        for _ in range(3):
            await client.speak(samples=loud(0.02))
        for _ in range(n_yields):
            await asyncio.sleep(0)
