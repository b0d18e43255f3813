from __future__ import annotations

import asyncio
import contextlib
import io
import json
import socket
import sys
import wave
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from wyoming.asr import Transcript
from wyoming.audio import AudioChunk
from wyoming.error import Error
from wyoming.event import Event, Eventable, async_read_event, async_write_event
from wyoming.info import AsrProgram, Attribution, Describe, Info

from tests.support import AUDIO, clips
from wyoming_whisper.commands.client import read_audio, transcribe_remote
from wyoming_whisper.commands.connection import _dial_address, ask_server
from wyoming_whisper.errors import (
    AudioError,
    ProtocolError,
    SettingsError,
    TranscribeError,
    UpstreamError,
)

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

SECOND = np.zeros(16_000, np.float32)

# -- audio files ---------------------------------------------------------------------------


def wav(*channels: Any, rate: int) -> bytes:
    """Return 16-bit channels of samples, -1..1, as a WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(len(channels))
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes((np.stack(channels, axis=1) * 32767).astype("<i2").tobytes())
    return file.getvalue()


def tone(hertz: float, rate: int, seconds: float = 1.0) -> Any:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)


def loudness(samples: Any) -> float:
    """Return the root mean square; 0.35 for tone()."""
    return float(np.sqrt(np.mean(np.square(samples))))


@pytest.fixture(params=["PyAV", "no PyAV"])
def reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What reads audio files: the images lack PyAV."""
    reader: str = request.param
    if reader == "no PyAV":
        monkeypatch.setitem(sys.modules, "av", None)
    return reader


either_reader = pytest.mark.usefixtures("reader")


@either_reader
def test_16_khz_mono_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav(tone(440, 16_000), rate=16_000))
    samples = read_audio(path)
    assert samples.dtype == np.float32
    assert samples.shape == (16_000,)
    np.testing.assert_allclose(samples, tone(440, 16_000), atol=1e-4)


@either_reader
@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
def test_other_rates_are_resampled(rate: int, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav(tone(440, rate), rate=rate))
    samples = read_audio(str(path))
    assert abs(len(samples) - 16_000) <= 32
    assert loudness(samples) == pytest.approx(loudness(tone(440, rate)), rel=0.02)


@either_reader
def test_what_16_khz_cannot_hold_is_filtered_not_folded_down(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav(tone(12_000, 44_100), rate=44_100))
    assert loudness(read_audio(path)) < 0.01


@either_reader
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_channels_are_averaged(rate: int, tmp_path: Path) -> None:
    left, right = tone(440, rate), tone(440, rate)
    path = tmp_path / "a.wav"
    path.write_bytes(wav(left, right, rate=rate))
    assert loudness(read_audio(path)) == pytest.approx(loudness(left), rel=0.02)
    path.write_bytes(wav(left, 0 * right, rate=rate))
    assert loudness(read_audio(path)) == pytest.approx(loudness(left) / 2, rel=0.02)


@either_reader
def test_a_title_that_is_not_utf_8_is_no_obstacle(tmp_path: Path) -> None:
    content = wav(tone(440, 16_000), rate=16_000)
    title = b"INFOINAM\x04\0\0\0\xe4\xf6\xfc\0"
    path = tmp_path / "a.wav"
    chunk = b"LIST\x10\0\0\0" + title
    length = (len(content) - 8 + len(chunk)).to_bytes(4, "little")
    path.write_bytes(content[:4] + length + content[8:36] + chunk + content[36:])
    assert len(read_audio(path)) == 16_000


@either_reader
def test_a_dash_is_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    stdin = io.TextIOWrapper(io.BytesIO(wav(tone(440, 16_000), rate=16_000)))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert len(read_audio("-")) == 16_000


@either_reader
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"", "can't be read as audio"),
        (b"not audio at all" * 100, "can't be read as audio"),
        (wav(np.zeros(0), rate=16_000), "holds no audio"),
    ],
)
def test_what_is_no_audio_is_one_sentence_with_the_name(
    content: bytes | None, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.wav"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(AudioError) as caught:
        read_audio(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


@either_reader
def test_a_folder_is_no_audio(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="can't be read as audio"):
        read_audio(tmp_path)


def test_compressed_audio_is_read_without_pyav(monkeypatch: pytest.MonkeyPatch) -> None:
    path = AUDIO / clips("clean")[0].file
    assert path.suffix == ".flac"
    expected = read_audio(path)
    monkeypatch.setitem(sys.modules, "av", None)
    assert np.allclose(read_audio(path), expected, atol=1e-4)


def test_without_pyav_a_user_is_told_what_would_help(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setitem(sys.modules, "soundfile", None)
    path = tmp_path / "a.mp3"
    path.write_bytes(b"ID3 and music" * 100)
    with pytest.raises(AudioError, match=r"a\.mp3 can't be read as audio \(MP3 can't be read here"):
        read_audio(path)


# -- addresses -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("listening", "dialled"),
    [
        ("tcp://0.0.0.0:10300", "tcp://127.0.0.1:10300"),
        ("tcp://[::]:10300", "tcp://[::1]:10300"),
        ("tcp://whisper.local:1", "tcp://whisper.local:1"),
        ("tcp://[fe80::1]:1", "tcp://[fe80::1]:1"),
        ("unix:///run/whisper.sock", "unix:///run/whisper.sock"),
    ],
)
def test_a_server_that_listens_everywhere_is_here(listening: str, dialled: str) -> None:
    assert _dial_address(listening) == dialled


@pytest.mark.parametrize(
    "uri", ["stdio://", "tcp://host", "tcp://host:99999", "tcp://[::1", "unix://", "host:1", ""]
)
async def test_what_cannot_be_dialled_is_one_sentence(uri: str) -> None:
    with pytest.raises(SettingsError, match="tcp://HOST:PORT"):
        await describe(uri)


# -- a running server ----------------------------------------------------------------------


async def describe(uri: str, timeout: float = 15.0) -> Info:
    return Info.from_event(await ask_server(uri, [Describe()], Info, timeout))


@contextlib.asynccontextmanager
async def served(handler: Handler, folder: Path) -> AsyncIterator[str]:
    """Serve every connection with `handler`, which may raise when its client leaves."""
    path = folder / "s"
    running: set[asyncio.Task[Any]] = set()

    async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        try:
            await handler(reader, writer)
            writer.close()
            await writer.wait_closed()
        except (OSError, EOFError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_unix_server(on_connection, path)
    try:
        yield f"unix://{path}"
    finally:
        server.close()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await server.wait_closed()


def answering(*answers: Eventable | bytes, after: str) -> Handler:
    """Return a handler that gives `answers` once it has had an event of type `after`."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (event := await async_read_event(reader)) and event.type != after:
            pass
        for answer in answers:
            if isinstance(answer, bytes):
                writer.write(answer)
            else:
                await async_write_event(answer.event(), writer)

    return handler


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await async_read_event(reader):
        pass


async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


ATTRIBUTION = Attribution(name="", url="")
INFO = Info(asr=[AsrProgram("whisper", ATTRIBUTION, True, None, "1.2", models=[])])


async def test_describe_passes_over_other_events(tmp_path: Path) -> None:
    class Note(Eventable):
        def event(self) -> Event:
            return Event("note")

        is_type = from_event = None  # type: ignore[assignment]

    async with served(answering(Note(), INFO, after="describe"), tmp_path) as uri:
        info = await describe(uri)
    assert [(program.name, program.version) for program in info.asr] == [("whisper", "1.2")]


async def test_describe_over_tcp() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answering(INFO, after="describe")(reader, writer)
        writer.close()

    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        assert (await describe(f"tcp://0.0.0.0:{port}")).asr[0].name == "whisper"


async def test_a_transcription_sends_language_and_samples(tmp_path: Path) -> None:
    heard: list[Event] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (event := await async_read_event(reader)) and event.type != "audio-stop":
            heard.append(event)
        await async_write_event(Transcript("lights on", language="en").event(), writer)

    samples = (np.arange(3000) / 32768).astype(np.float32)
    samples[-2:] = (-1.5, 1.5)  # louder than 16 bits hold
    async with served(handler, tmp_path) as uri:
        transcription = await transcribe_remote(uri, samples, language="de")

    assert [event.type for event in heard] == ["transcribe", "audio-start", *3 * ["audio-chunk"]]
    assert heard[0].data == {"language": "de"}
    assert heard[1].data == {"rate": 16_000, "width": 2, "channels": 1, "timestamp": None}
    audio = b"".join(AudioChunk.from_event(event).audio for event in heard[2:])
    assert np.frombuffer(audio, "<i2").tolist() == [*range(2998), -32768, 32767]
    assert (transcription.text, transcription.language) == ("lights on", "en")
    assert transcription.seconds == 3000 / 16_000
    assert list(transcription.stages) == ["total"]


async def test_without_a_language_the_server_chooses(tmp_path: Path) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await async_read_event(reader)
        assert request is not None
        await async_write_event(Transcript(json.dumps(request.data)).event(), writer)

    async with served(handler, tmp_path) as uri:
        transcription = await transcribe_remote(uri, SECOND)
    assert (transcription.text, transcription.language) == ("{}", None)


async def test_an_answer_before_the_end_of_the_audio_counts(tmp_path: Path) -> None:
    long = np.zeros(16_000 * 300, np.float32)  # more than any buffer on the way holds
    async with served(answering(Transcript("on"), after="audio-start"), tmp_path) as uri:
        assert (await transcribe_remote(uri, long)).text == "on"


async def test_the_servers_error_is_told(tmp_path: Path) -> None:
    async with served(answering(Error("no such language"), after="audio-stop"), tmp_path) as uri:
        with pytest.raises(TranscribeError, match=r"^no such language$"):
            await transcribe_remote(uri, SECOND)


@pytest.mark.parametrize("after", ["transcribe", "audio-stop"])
async def test_a_server_that_hangs_up_is_one_sentence(after: str, tmp_path: Path) -> None:
    async with served(answering(after=after), tmp_path) as uri:
        with pytest.raises(UpstreamError, match=r"closed the connection|was lost|reset"):
            await transcribe_remote(uri, SECOND)


@pytest.mark.parametrize("handler", [silent, deaf])
async def test_waiting_has_an_end(handler: Handler, tmp_path: Path) -> None:
    long = np.zeros(16_000 * 300, np.float32)
    async with served(handler, tmp_path) as uri:
        with pytest.raises(UpstreamError, match=r"did not answer within 0\.3 s"):
            await transcribe_remote(uri, long, timeout=0.3)
        with pytest.raises(UpstreamError, match=r"did not answer within 0\.1 s"):
            await describe(uri, timeout=0.1)


@pytest.mark.parametrize(
    "answer",
    [
        b"[]\n",
        b"{}\n",
        b'{"type": "info", "data": null, "data_length": 2}\n{}',
        b'{"type": "info", "data_length": "x"}\n',
        b'{"type": "info", "data": {"asr": [1]}}\n',
    ],
)
async def test_an_answer_that_is_not_wyoming_is_one_sentence(answer: bytes, tmp_path: Path) -> None:
    async with served(answering(answer, after="describe"), tmp_path) as uri:
        with pytest.raises(ProtocolError, match="not Wyoming"):
            await describe(uri)


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 400\r\n", b'{"type": "info", "data_length": 9}\n']
)
async def test_a_cut_off_answer_is_one_sentence(answer: bytes, tmp_path: Path) -> None:
    async with served(answering(answer, after="describe"), tmp_path) as uri:
        with pytest.raises(UpstreamError, match=r"without an answer|was closed"):
            await describe(uri)


async def test_no_server_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UpstreamError, match=r"can't be reached \(No such file"):
        await describe(f"unix://{tmp_path}/none")
    with pytest.raises(UpstreamError, match=r"can't be reached \(Connection refused\)"):
        await describe("tcp://127.0.0.1:1")


async def test_nobody_at_any_of_a_names_addresses_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
    addresses = [(*kind, ("127.0.0.1", 1)), (*kind, ("127.0.0.2", 1))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: addresses)
    with pytest.raises(UpstreamError, match=r"can't be reached \(Connection refused\)"):
        await describe("tcp://localhost:1")
