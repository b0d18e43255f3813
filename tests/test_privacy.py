"""Nothing leaves the machine unasked, and nothing spoken is kept, whatever the libraries do."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
from io import BytesIO
from pathlib import Path

from aiohttp import ClientSession, FormData
from wyoming.asr import Transcribe
from wyoming.audio import AudioChunk, AudioStop
from wyoming.event import Event
from wyoming.info import SelectProgram

from tests.support import AUDIO, HOME_EN, TIMEOUT_SECONDS, Client, clips, run_server, words
from tests.web.test_web import free_port, until_open
from wyoming_whisper.backends import open_transcriber
from wyoming_whisper.commands.client import read_audio
from wyoming_whisper.transcriber import Samples

ROOT = Path(__file__).parent.parent
SPOKEN = clips("clean")[7:10]
NAMES = (
    "/etc/hostname",
    "../../secret",
    "Systran/faster-whisper-tiny",
    "https://example.org/model",
)

QUIET = ("object.", "compile", "exec", "import", "marshal.", "code.", "sys._", "time.", "ctypes.")
"""Of Python's audit events, those that are about neither files nor networks nor processes."""


def test_onnxruntime_neither_marks_this_machine_nor_keeps_a_diary(tmp_path: Path) -> None:
    """Where it reports to Microsoft it has an id and a database in the home folder."""
    code = "from wyoming_whisper.audio.vad import SileroVad; SileroVad()"
    environ = {k: v for k, v in os.environ.items() if k not in ("ORT_DISABLE_TELEMETRY", "CI")}
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        check=True,
        env=environ | {"HOME": str(tmp_path), "XDG_CACHE_HOME": ""},
    )
    assert list(tmp_path.rglob("*")) == []


def test_the_libraries_are_told_so_before_they_are_loaded() -> None:
    code = (
        "import os, wyoming_whisper.settings.options as _; "
        "print(os.environ['ORT_DISABLE_TELEMETRY'], os.environ['HF_HUB_DISABLE_TELEMETRY'])"
    )
    environ = {k: v for k, v in os.environ.items() if "TELEMETRY" not in k}
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, env=environ, capture_output=True, text=True
    )
    assert done.stdout.split() == ["1", "1"]


# -- the whole server, watched by Python itself --------------------------------------------


def watched(tmp_path: Path, what: str) -> tuple[list[list[str]], str]:
    """Return what a server did while it was `spoken` to or `asked`, and its log at INFO."""
    home = tmp_path / "home"
    home.mkdir()
    environ = {"HOME": str(home), "TMPDIR": str(home), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.test_privacy", str(tmp_path), what],
        capture_output=True,
        text=True,
        check=False,
        timeout=3 * TIMEOUT_SECONDS,
        cwd=ROOT,
        env=environ,
    )
    assert done.returncode == 0, done.stderr
    assert list(home.rglob("*")) == []
    seen: list[list[str]] = json.loads(done.stdout)
    return seen, done.stderr


def test_what_is_spoken_is_neither_written_nor_logged_nor_sent(tmp_path: Path) -> None:
    seen, log = watched(tmp_path, "spoken")
    assert [event for event in seen if event[0].startswith(("open", "os.", "socket.c"))] == []
    assert log.count("s of audio answered") == 2 * len(SPOKEN)
    said = {word for clip in SPOKEN for word in words(clip.text) if len(word) > 3}
    assert len(said) > 5
    assert not said & set(words(log.replace("\n", " ")))


def test_what_is_sent_to_the_openai_compatible_endpoint_is_neither_written_nor_logged(
    tmp_path: Path,
) -> None:
    seen, log = watched(tmp_path, "posted")
    assert [event for event in seen if event[0].startswith(("open", "os.", "tempfile."))] == []
    assert log.count("a recording of") == 2 * len(SPOKEN)
    said = {word for clip in SPOKEN for word in words(clip.text) if len(word) > 3}
    assert not said & set(words(log.replace("\n", " ")))


def test_no_name_from_the_wire_reaches_the_disk_or_the_hub(tmp_path: Path) -> None:
    seen, log = watched(tmp_path, "asked")
    assert seen == []
    assert "a request failed" in log


async def _serve(tmp_path: Path, what: str) -> None:
    """The server, and its client, which are watched from when the model is there."""
    seen: list[list[str]] = []
    watching = False

    def hook(event: str, args: tuple[object, ...]) -> None:
        # Our own connection to the server's socket is no event of the server.
        ours = event.startswith("socket.") and str(tmp_path / "socket") in str(args)
        if watching and not event.startswith(QUIET) and not ours and event != "socket.__new__":
            seen.append([event, *(str(arg) for arg in args)])

    sys.addaudithook(hook)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    recordings = [(read_audio(AUDIO / clip.file), words(clip.text)) for clip in SPOKEN]
    files = [(AUDIO / clip.file).read_bytes() for clip in SPOKEN]
    port = free_port() if what == "posted" else 0
    settings = {"model": str(HOME_EN), "http_port": port, "openai_api": what == "posted"}
    async with run_server(tmp_path, open_transcriber, **settings) as server:
        await asyncio.wrap_future(server.scheduler.opened)
        if port:
            await until_open(port)
        # What is imported late is imported now.
        await (_post(port, files) if what == "posted" else _speak(tmp_path, recordings))
        watching = True
        if what == "spoken":
            await _speak(tmp_path, recordings)
        elif what == "posted":
            await _post(port, files)
        else:
            await _ask(tmp_path)
        with open(os.devnull, "w"):  # noqa: ASYNC230, PTH123 - the watch is awake
            watching = False
    assert seen.pop()[:2] == ["open", os.devnull]
    print(json.dumps(seen))


async def _speak(tmp_path: Path, recordings: list[tuple[Samples, list[str]]]) -> None:
    for samples, text in recordings:
        async with Client(tmp_path) as client:
            await client.speak(language="en", samples=samples)
            assert words((await client.transcript()).text) == text


async def _post(port: int, files: list[bytes]) -> None:
    url = f"http://127.0.0.1:{port}/v1/audio/transcriptions"
    async with ClientSession() as session:
        for file, clip in zip(files, SPOKEN, strict=True):
            data = FormData({"model": "whisper-1"})
            data.add_field("file", BytesIO(file), filename="clip.flac")
            async with session.post(url, data=data) as response:
                assert words((await response.json())["text"]) == words(clip.text)


async def _ask(tmp_path: Path) -> None:
    for name in NAMES:
        requests = (
            Transcribe(name=name),
            Transcribe(language=name),
            Transcribe(context={"model": name}, transcript_names=[name], transcript_terms=[name]),
            SelectProgram(name),
        )
        for request in requests:
            async with Client(tmp_path) as client:
                await client.send(request.event())
                await client.send(Event(name, {"path": name}))
                await client.send(AudioChunk(16000, 2, 1, bytes(32000)).event())
                await client.send(AudioStop().event())
                answer = await client.receive()
                assert answer is not None
                assert answer.type in ("error", "transcript")


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), sys.argv[2]))
