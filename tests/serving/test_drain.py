"""What is being spoken or transcribed when the server is told to stop: an answer, or an error."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from wyoming.audio import AudioChunk, AudioStart
from wyoming.info import Describe

from tests.support import (
    TIMEOUT_SECONDS,
    Client,
    FakeTranscriber,
    LoudnessVad,
    loud,
    quiet,
    run_server,
)
from wyoming_whisper.serving.server import Server
from wyoming_whisper.transcriber import Samples, TranscribeOptions, Transcription


class Numbering(FakeTranscriber):
    """Says which request it is; from `last` on it hangs until the gate is open."""

    last = 99

    def transcribe(self, samples: Samples, options: TranscribeOptions) -> Transcription:
        self.requests.append((samples, options))
        number = len(self.requests)
        if number >= self.last:
            self.started.set()
            assert self.gate.wait(TIMEOUT_SECONDS)
        return Transcription(f"piece {number}", "en", seconds=1.0)


@pytest.fixture(autouse=True)
def loudness_is_speech(monkeypatch: pytest.MonkeyPatch) -> None:
    async def loaded(server: Server) -> LoudnessVad:
        server.vad = LoudnessVad()
        return server.vad

    monkeypatch.setattr(Server, "loaded_vad", loaded)


async def begin(client: Client, samples: Samples) -> None:
    """Speak, and go on listening: there is no audio-stop. All of it was taken in on return."""
    await client.send(AudioStart(16000, 2, 1).event())
    audio = (samples * 32767).astype("<i2").tobytes()
    for start in range(0, len(audio), 32000):
        await client.send(AudioChunk(16000, 2, 1, audio[start : start + 32000]).event())
    assert (await client.ask(Describe().event())).type == "info"


DICTATION = np.concatenate([loud(9), quiet(1)] * 4)


async def test_dictation_that_the_server_does_not_wait_for_is_what_was_said_by_then(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fake = Numbering()
    async with (
        run_server(tmp_path, lambda _: fake, None, drain_seconds=4) as server,
        Client(tmp_path) as client,
    ):
        await begin(client, DICTATION)
        server.stop()
        text = (await client.transcript()).text
    assert text == " ".join(f"piece {number + 1}" for number in range(len(fake.requests)))
    assert "piece 2" in text
    assert warnings(caplog) == [
        (
            "1 still spoke 2.6 s after the server was told to stop, and are cut short "
            "(--drain-seconds 4)"
        )
    ]
    assert server.status.answers[-1].truncated


async def test_pieces_that_are_done_are_the_transcript_when_the_model_is_too_slow(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fake = Numbering()
    fake.last = 2
    fake.gate.clear()
    async with (
        run_server(tmp_path, lambda _: fake, None, drain_seconds=1) as server,
        Client(tmp_path) as client,
    ):
        await begin(client, DICTATION)
        server.stop()
        assert (await client.transcript()).text == "piece 1"
        fake.gate.set()
    assert "--drain-seconds 1" in warnings(caplog)[-1]
    assert server.status.answers[-1].truncated


async def test_half_a_command_is_an_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fake = Numbering()
    async with (
        run_server(tmp_path, lambda _: fake, None, drain_seconds=1) as server,
        Client(tmp_path) as client,
    ):
        await begin(client, loud(2))
        server.stop()
        error = await client.error()
    assert error.code == "server-stopped"
    assert "--drain-seconds" in error.text
    assert "--drain-seconds 1" in warnings(caplog)[0]


async def test_a_command_that_has_been_said_is_answered_though_its_client_listens_on(
    tmp_path: Path,
) -> None:
    fake = Numbering()
    async with (
        run_server(tmp_path, lambda _: fake, None, drain_seconds=4) as server,
        Client(tmp_path) as client,
    ):
        await begin(client, np.concatenate([loud(2), quiet(1)]))
        server.stop()
        assert (await client.transcript()).text == "piece 1"


async def test_a_command_that_is_transcribed_too_slowly_is_an_error(tmp_path: Path) -> None:
    fake = FakeTranscriber()
    fake.gate.clear()
    async with (
        run_server(tmp_path, lambda _: fake, None, drain_seconds=0) as server,
        Client(tmp_path) as client,
    ):
        await client.speak(1.0)
        assert (await client.ask(Describe().event())).type == "info"
        server.stop()
        assert (await client.error()).code == "server-stopped"
        fake.gate.set()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno == logging.WARNING and record.name.endswith("connections")
    ]
