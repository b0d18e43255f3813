"""A server that really listens, a client that really connects, and a Transcriber that pretends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import threading
import wave
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
from wyoming.asr import Transcribe, Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncClient
from wyoming.error import Error
from wyoming.event import Event

from wyoming_whisper.audio.vad import FRAME_SAMPLES, SileroVad
from wyoming_whisper.commands.console import CommandParser
from wyoming_whisper.serving.server import Server
from wyoming_whisper.settings.options import Settings
from wyoming_whisper.settings.sources import ALL_OPTIONS, settings_from
from wyoming_whisper.status import State, Status
from wyoming_whisper.transcriber import (
    SAMPLE_RATE,
    Samples,
    TranscribeOptions,
    Transcriber,
    Transcription,
)

AUDIO = Path(__file__).parent / "audio"
HOME_EN = Path(__file__).parent / "models" / ".weights" / "home-en"
"""The folder of the small model that tests hear with; its page tells what it is."""

TIMEOUT_SECONDS = 20.0  # far more than anything here takes; only a hang reaches it


@dataclass(frozen=True)
class Clip:
    """A recording in tests/audio and what is said in it."""

    file: str
    text: str
    kind: str
    """clean, noisy, long, silence, noise, or human: spoken by a person."""
    voice: str


def load_settings(argv: Sequence[str], environ: Mapping[str, str], **places: Path) -> Settings:
    """Return the settings of `wyoming-whisper [serve] ARGV`; `places` as for settings_from."""
    flags = CommandParser("", "", ALL_OPTIONS).parse(argv)
    return settings_from(vars(flags), environ, **places)


def clips(*kinds: str) -> list[Clip]:
    """Return the clips of these kinds, or all."""
    found = [Clip(**label) for label in json.loads((AUDIO / "labels.json").read_text())]
    return [clip for clip in found if not kinds or clip.kind in kinds]


def words(text: str) -> list[str]:
    """Return the words as the official server's tests compare them."""
    return re.sub("[^a-z' ]", "", text.lower()).split()


async def until(happened: Callable[[], object]) -> None:
    """Wait for what nobody tells; only a hang reaches the end of it."""
    end = asyncio.get_running_loop().time() + TIMEOUT_SECONDS
    while not happened():
        assert asyncio.get_running_loop().time() < end, "it did not happen"
        await asyncio.sleep(0.002)


def on_state(status: Status, listener: Callable[[State], object]) -> None:
    """Call `listener` with every new State, one at a time."""
    update, changing = status.update, threading.RLock()

    def tell(**changes: object) -> None:
        with changing:
            update(**changes)
            listener(status.state)

    status.update = tell  # type: ignore[method-assign]


@dataclass
class Clock:
    """Tells the time that a test sets."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


class Panic(BaseException):
    """As PyO3's, which a panic in a library written in Rust becomes: no Exception."""


def wav(*parts: Samples) -> bytes:
    """Return samples, one part after the other, as a WAV file."""
    file = BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        out.writeframes((np.concatenate(parts) * 32767).astype("<i2").tobytes())
    return file.getvalue()


def voice_probabilities(samples: Samples) -> Samples:
    """Return Silero's probability of speech of each frame, shape = (ceil(n_samples / 512),)."""
    stream = SileroVad().stream()
    return np.concatenate([stream.push(samples), stream.finish()])


class LoudnessVad:
    """Takes whatever is loud for speech, so that tests can speak without a voice."""

    def stream(self) -> LoudnessVad:
        return LoudnessVad()

    def __init__(self) -> None:
        self._rest = np.zeros(0, np.float32)

    def push(self, samples: Samples) -> Samples:
        samples = np.concatenate([self._rest, samples])
        whole = len(samples) // FRAME_SAMPLES * FRAME_SAMPLES
        self._rest = samples[whole:]
        loudest = np.abs(samples[:whole].reshape(-1, FRAME_SAMPLES)).max(axis=1)
        return np.asarray(loudest > 0.1, np.float32)

    def finish(self) -> Samples:
        missing = -len(self._rest) % FRAME_SAMPLES
        return self.push(np.zeros(missing, np.float32))


LOUD = b"\x00\x40" * 160
"""10 ms of sound, 16-bit."""


def loud(seconds: float) -> Samples:
    return np.full(round(seconds * 16000), 0.5, np.float32)


def quiet(seconds: float) -> Samples:
    return np.zeros(round(seconds * 16000), np.float32)


@dataclass
class FakeTranscriber:
    """Answers with the number of samples and the language, when `gate` is open."""

    languages: tuple[str, ...] = ("en", "de")
    description: str = "a fake"
    gate: threading.Event = field(default_factory=threading.Event)
    error: BaseException | None = None
    requests: list[tuple[Samples, TranscribeOptions]] = field(default_factory=list)
    started: threading.Event = field(default_factory=threading.Event)
    closed: bool = False

    def __post_init__(self) -> None:
        self.gate.set()

    def transcribe(self, samples: Samples, options: TranscribeOptions) -> Transcription:
        self.requests.append((samples, options))
        self.started.set()
        assert self.gate.wait(TIMEOUT_SECONDS)
        if self.error:
            raise self.error
        text = f"{len(samples)} samples in {options.language}" if len(samples) else ""
        return Transcription(text, options.language, seconds=len(samples) / 16000)

    def close(self) -> None:
        self.closed = True


@dataclass
class SteppingTranscriber(FakeTranscriber):
    """Comes to its checkpoint again and again, for as long as nobody stops it."""

    ended: threading.Event = field(default_factory=threading.Event)

    def transcribe(self, samples: Samples, options: TranscribeOptions) -> Transcription:
        self.started.set()
        try:
            while not self.ended.wait(0.001):
                options.checkpoint()
        finally:
            self.ended.set()
        raise AssertionError("it was to be broken off")


@contextlib.asynccontextmanager
async def run_server(
    tmp_path: Path,
    open_transcriber: Callable[[Settings], Transcriber],
    status: Status | None = None,
    /,
    **settings: object,
) -> AsyncIterator[Server]:
    """Serve on a unix socket at `tmp_path / "socket"` until the block ends, then drain."""
    values: dict[str, object] = {
        "uri": f"unix://{tmp_path}/socket",
        "model": "tiny",
        "data_dir": (tmp_path,),
    }
    server = Server(Settings(**(values | settings)), open_transcriber, status)  # type: ignore[arg-type]
    running = asyncio.create_task(server.run())
    try:
        await _until_listening(tmp_path / "socket", running)
        yield server
    finally:
        if not server.stopping:
            server.stop()
        await asyncio.wait_for(running, TIMEOUT_SECONDS)


async def _until_listening(path: Path, running: asyncio.Task[None]) -> None:
    while not path.exists() and not running.done():  # noqa: ASYNC110, ASYNC240 - a file tells nobody
        await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def connected(
    tmp_path: Path, transcriber: Transcriber
) -> AsyncIterator[tuple[Client, Server]]:
    """A server with one client, for tests that stop the server themselves."""
    async with run_server(tmp_path, lambda _: transcriber) as server, Client(tmp_path) as client:
        yield client, server


class Client:
    """One connection to a server started by `run_server`."""

    def __init__(self, tmp_path: Path) -> None:
        self._client = AsyncClient.from_uri(f"unix://{tmp_path}/socket")

    async def __aenter__(self) -> Client:
        await self._client.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.disconnect()

    async def leave(self) -> None:
        await self._client.disconnect()

    async def send(self, event: Event) -> None:
        await self._client.write_event(event)

    async def receive(self) -> Event | None:
        """Return the next event, None when the server has closed the connection."""
        return await asyncio.wait_for(self._client.read_event(), TIMEOUT_SECONDS)

    async def ask(self, event: Event) -> Event:
        await self.send(event)
        answer = await self.receive()
        assert answer is not None
        return answer

    async def speak(
        self, seconds: float = 1.0, language: str | None = None, samples: Samples | None = None
    ) -> None:
        """Send one command as Home Assistant does, 10 ms a chunk."""
        await self.send(Transcribe(language=language).event())
        await self.send(AudioStart(16000, 2, 1).event())
        if samples is None:
            samples = loud(seconds)
        audio = (samples * 32767).astype("<i2").tobytes()
        for start in range(0, len(audio), 320):
            await self.send(AudioChunk(16000, 2, 1, audio[start : start + 320]).event())
        await self.send(AudioStop().event())

    async def transcript(self) -> Transcript:
        event = await self.receive()
        assert event is not None, "the server closed the connection"
        assert Transcript.is_type(event.type), event
        return Transcript.from_event(event)

    async def error(self) -> Error:
        """Return the error, and check that the connection is closed after it."""
        event = await self.receive()
        assert event is not None, "the server closed the connection without a word"
        assert Error.is_type(event.type), event
        assert await self.receive() is None, "the connection stays open after an error"
        return Error.from_event(event)
