"""The program as a process: listening, stopping, stdio, and what it says when it can't."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest
from wyoming.asr import Transcribe, Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncClient
from wyoming.event import Event, async_read_event, async_write_event
from wyoming.info import Describe, Info

from tests.support import AUDIO, HOME_EN, TIMEOUT_SECONDS, FakeTranscriber
from wyoming_whisper.commands.client import read_audio
from wyoming_whisper.errors import SettingsError
from wyoming_whisper.serving.server import Server
from wyoming_whisper.settings.options import Settings

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-W", "ignore", "-m", "wyoming_whisper", "serve"]


async def start(tmp_path: Path, *options: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *COMMAND, "--data-dir", str(tmp_path), *options, stdin=PIPE, stdout=PIPE, stderr=PIPE
    )


async def stderr_until(process: asyncio.subprocess.Process, words: str) -> str:
    assert process.stderr
    while True:
        line = await asyncio.wait_for(process.stderr.readline(), TIMEOUT_SECONDS)
        assert line, f"the server ended before it said {words!r}"
        if words in line.decode():
            return line.decode()


def refused(tmp_path: Path, *options: str) -> str:
    """Run the server, which must end with exit code 1 and one sentence after its log; return it."""
    done = subprocess.run(
        [*COMMAND, "--data-dir", str(tmp_path), *options],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert not done.stdout
    *log, sentence = done.stderr.strip().splitlines()
    assert all(line.startswith("INFO:") for line in log), done.stderr
    assert sentence.startswith("wyoming-whisper: "), done.stderr
    return sentence


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_server_with_exit_code_0(
    tmp_path: Path, number: signal.Signals
) -> None:
    process = await start(tmp_path, "--uri", "tcp://127.0.0.1:0", "--model", str(HOME_EN))
    await stderr_until(process, "listening")
    process.send_signal(number)
    assert await asyncio.wait_for(process.wait(), TIMEOUT_SECONDS) == 0


HANGING = """
import sys, threading
from pathlib import Path
from tests.support import FakeTranscriber
from wyoming_whisper import backends
from wyoming_whisper.commands.serve import run

first_start = Path(sys.argv[1]) / "first start"
fake = FakeTranscriber()
if not first_start.exists():
    first_start.touch()
    fake.transcribe = lambda *_: threading.Event().wait()
backends.open_transcriber = lambda *_, **__: fake
places = ("--uri", f"unix://{sys.argv[1]}/socket", "--data-dir", sys.argv[1])
sys.exit(run([*places, "--model", "tiny", "--deadline", "1", "--drain-seconds", sys.argv[2]]))
"""
"""A server whose model hangs at its first request, after the first start alone."""


async def start_hanging(tmp_path: Path, drain_seconds: int) -> asyncio.subprocess.Process:
    arguments = ("-W", "ignore", "-c", HANGING, str(tmp_path), str(drain_seconds))
    return await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdin=PIPE, stdout=PIPE, stderr=PIPE, cwd=ROOT
    )


async def say_and_hear(tmp_path: Path) -> Event | None:
    async with AsyncClient.from_uri(f"unix://{tmp_path}/socket") as client:
        spoken = (read_audio(AUDIO / "07-clean.flac") * 32767).astype("<i2").tobytes()
        await client.write_event(AudioChunk(16000, 2, 1, spoken).event())
        await client.write_event(AudioStop().event())
        return await asyncio.wait_for(client.read_event(), TIMEOUT_SECONDS)


async def test_a_model_that_hangs_is_an_error_and_then_a_new_process(tmp_path: Path) -> None:
    process = await start_hanging(tmp_path, 1)
    await stderr_until(process, "ready")
    event = await say_and_hear(tmp_path)
    assert event is not None
    assert event.data["code"] == "deadline-exceeded"
    assert "hangs" in await stderr_until(process, "CRITICAL")
    await stderr_until(process, "ready")
    event = await say_and_hear(tmp_path)
    assert event is not None
    assert event.type == "transcript"
    process.terminate()
    assert await asyncio.wait_for(process.wait(), TIMEOUT_SECONDS) == 0


async def test_a_second_signal_ends_the_server_at_once(tmp_path: Path) -> None:
    process = await start_hanging(tmp_path, 600)
    await stderr_until(process, "ready")
    hearing = asyncio.create_task(say_and_hear(tmp_path))
    async with AsyncClient.from_uri(f"unix://{tmp_path}/socket") as client:
        await client.write_event(AudioStart(16000, 2, 1).event())
        await client.write_event(Describe().event())
        assert await asyncio.wait_for(client.read_event(), TIMEOUT_SECONDS)
        process.terminate()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(process.wait(), 0.5)
        process.terminate()
        assert await asyncio.wait_for(process.wait(), TIMEOUT_SECONDS) == 1
    await asyncio.gather(hearing, return_exceptions=True)


async def test_the_port_is_open_and_described_before_the_model_is_there(tmp_path: Path) -> None:
    process = await start(
        tmp_path, "--uri", "tcp://127.0.0.1:0", "--model", "base", "--local-files-only"
    )
    port = int((await stderr_until(process, "listening")).split()[-1])
    async with AsyncClient.from_uri(f"tcp://127.0.0.1:{port}") as client:
        await client.write_event(Describe().event())
        event = await asyncio.wait_for(client.read_event(), TIMEOUT_SECONDS)
        assert event is not None
        assert Info.from_event(event).asr[0].models[0].name == "base"
    loud = await stderr_until(process, "NOT READY")
    assert "base" in loud
    async with AsyncClient.from_uri(f"tcp://127.0.0.1:{port}") as client:
        await client.write_event(Transcribe(language="de").event())
        spoken = (read_audio(AUDIO / "00-clean.flac") * 32767).astype("<i2").tobytes()
        await client.write_event(AudioChunk(16000, 2, 1, spoken).event())
        await client.write_event(AudioStop().event())
        event = await asyncio.wait_for(client.read_event(), TIMEOUT_SECONDS)
        assert event is not None
        assert event.type == "error"
        assert event.data["code"] == "model-unavailable"
    process.terminate()
    assert await asyncio.wait_for(process.wait(), TIMEOUT_SECONDS) == 0


async def test_stdio_carries_protocol_alone_and_ends_with_its_input(tmp_path: Path) -> None:
    process = await start(tmp_path, "--uri", "stdio://", "--model", str(HOME_EN), "--debug")
    assert process.stdin
    assert process.stdout
    for request in (Describe(), AudioStart(16000, 2, 1), AudioStop()):
        await async_write_event(request.event(), process.stdin)
    process.stdin.close()  # before the answer: a pipe's client still listens
    events = []
    while event := await asyncio.wait_for(async_read_event(process.stdout), TIMEOUT_SECONDS):
        events.append(event)
    assert [event.type for event in events] == ["info", "transcript"]
    assert Transcript.from_event(events[1]).text == ""
    assert await asyncio.wait_for(process.wait(), TIMEOUT_SECONDS) == 0


def test_a_port_in_use_is_one_sentence(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        uri = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        sentence = refused(tmp_path, "--uri", uri, "--model", str(HOME_EN))
    assert uri in sentence
    assert "in use" in sentence


async def test_a_port_for_root_alone_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tests run as root too, to whom no port is refused: the system is played here."""

    async def start_server(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(asyncio, "start_server", start_server)
    settings = Settings(uri="tcp://0.0.0.0:80", model="tiny", data_dir=(tmp_path,))
    with pytest.raises(SettingsError, match=r"tcp://0.0.0.0:80.*Permission denied.*1024"):
        await Server(settings, lambda _: FakeTranscriber()).run()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--max-connections", "0"), ["--max-connections", "from 1"]),
        (("--max-utterance-seconds", "9999"), ["--max-utterance-seconds", "3600"]),
        (("--socket-mode", "rw"), ["--socket-mode", "660"]),
        (("--allow", "192.168.1"), ["--allow", "192.168.1.0/24"]),
        (("--uri", "tcp://192.0.2.1:10300"), ["tcp://192.0.2.1:10300"]),
        (("--uri", "tcp://no-such-host.invalid:10300"), ["no-such-host.invalid"]),
        (("--uri", "unix:///no-such-folder/socket"), ["no-such-folder"]),
        (("--model", "tny"), ["tny", "tiny"]),
        (("--model", "../secret"), ["../secret"]),
        (("--model", str(HOME_EN), "--language", "klingon"), ["klingon", "en"]),
        (("--model", str(HOME_EN), "--language", "de"), ["german", "en"]),
        (("--model", str(HOME_EN), "--device", "cuda:9"), ["cuda:9", "cpu"]),
        (("--model", str(HOME_EN), "--compute-type", "float16"), ["float16", "int8"]),
        (("--backend", "tensorrt", "--strict-backend"), ["tensorrt", "NVIDIA driver"]),
    ],
)
def test_what_is_not_possible_is_one_sentence_that_names_it(
    tmp_path: Path, options: tuple[str, ...], words: list[str]
) -> None:
    uri = () if "--uri" in options else ("--uri", f"unix://{tmp_path}/socket")
    sentence = refused(tmp_path, *uri, *options)
    assert all(word in sentence for word in words), sentence


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    sentence = refused(tmp_path, "--uri", f"unix://{tmp_path}/notes", "--model", str(HOME_EN))
    assert "notes" in sentence
    assert (tmp_path / "notes").read_text() == "mine"


async def test_a_socket_left_by_a_killed_server_is_taken_over(tmp_path: Path) -> None:
    options = ("--uri", f"unix://{tmp_path}/socket", "--model", str(HOME_EN))
    killed = await start(tmp_path, *options)
    await stderr_until(killed, "listening")
    killed.kill()
    await killed.wait()
    assert (tmp_path / "socket").exists()
    process = await start(tmp_path, *options)
    await stderr_until(process, "listening")
    process.terminate()
    assert await asyncio.wait_for(process.wait(), TIMEOUT_SECONDS) == 0
    assert not (tmp_path / "socket").exists()


async def test_a_socket_in_use_is_not_taken_over(tmp_path: Path) -> None:
    options = ("--uri", f"unix://{tmp_path}/socket", "--model", str(HOME_EN))
    first = await start(tmp_path, *options)
    await stderr_until(first, "listening")
    sentence = await asyncio.to_thread(refused, tmp_path, *options)
    assert "in use" in sentence
    first.terminate()
    assert await asyncio.wait_for(first.wait(), TIMEOUT_SECONDS) == 0


def test_listening_needs_no_home_folder(tmp_path: Path) -> None:
    """As in a container whose user has none."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path / "none")}
    done = subprocess.run(
        [*COMMAND, "--model", "tny"],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
        env=environment,
    )
    assert "tny" in done.stderr
