"""Whether the server works: `/health`, `info`, the command and the log say the same."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import threading
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from wyoming.info import Describe, Info

from tests.support import TIMEOUT_SECONDS, Client, FakeTranscriber, run_server
from wyoming_whisper.__main__ import main
from wyoming_whisper.commands.connection import ask_server
from wyoming_whisper.errors import ModelUnavailableError, WyomingWhisperError
from wyoming_whisper.serving import server as server_module
from wyoming_whisper.serving.info import ServingInfo
from wyoming_whisper.serving.server import Server
from wyoming_whisper.settings.options import Settings
from wyoming_whisper.status import Phase, Status
from wyoming_whisper.transcriber import Transcriber
from wyoming_whisper.utterance.hangs import HangWatch, Work

ROOT = Path(__file__).parent.parent


pytestmark = pytest.mark.usefixtures("_hear_loudness")


async def serving(tmp_path: Path) -> dict[str, Any]:
    """Return what `info` says of the server."""
    async with Client(tmp_path) as client:
        return dict(ServingInfo.beyond_wyoming(await client.ask(Describe().event())))


async def until_phase(status: Status, phase: str) -> None:
    while status.state.phase != phase:  # noqa: ASYNC110 - another thread's
        await asyncio.sleep(0.005)


async def command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Run `wyoming-whisper health`; return its exit code and what it has written."""
    capsys.readouterr()
    uri = f"unix://{tmp_path}/socket"
    code = await asyncio.to_thread(main, ["health", "--uri", uri])
    out, err = capsys.readouterr()
    return code, out, err


async def test_info_and_the_command_say_what_the_server_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    may_load = threading.Event()

    def load(_: Settings) -> Transcriber:
        assert may_load.wait(TIMEOUT_SECONDS)
        return FakeTranscriber()

    status = Status()
    async with run_server(tmp_path, load, status) as server:
        await until_phase(status, "loading")
        assert await serving(tmp_path) == {
            "health": "starting",
            "phase": "loading",
            "reason": "loading the model",
            "description": "",
            "backend": None,
            "why": None,
        }
        code, out, _ = await command(tmp_path, capsys)
        assert (code, out.split()[0]) == (0, "starting:")
        may_load.set()
        await asyncio.wrap_future(server.scheduler.opened)
        status.update(backend="faster-whisper", why="it was asked for")
        assert await serving(tmp_path) == {
            "health": "healthy",
            "phase": "ready",
            "reason": "",
            "description": "a fake",
            "backend": "faster-whisper",
            "why": "it was asked for",
        }
        code, out, _ = await command(tmp_path, capsys)
        assert (code, out.split()[0]) == (0, "ok:")
        server.stop()
        assert server.health.verdict == "stopping"


async def test_a_model_that_does_not_come_back_is_unhealthy_until_it_does(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nothing may look healthy while every command fails."""
    monkeypatch.setattr("wyoming_whisper.utterance.scheduler.Scheduler.FIRST_RETRY_SECONDS", 0.01)
    may_come_back = threading.Event()
    opened: list[int] = []

    def load(_: Settings) -> Transcriber:
        opened.append(1)
        if len(opened) > 1 and not may_come_back.is_set():
            raise MemoryError
        return FakeTranscriber()

    status = Status()
    async with run_server(tmp_path, load, status, idle_unload=0.02):
        await until_phase(status, "idle")
        assert (await serving(tmp_path))["health"] == "healthy"
        async with Client(tmp_path) as client:
            await client.speak(0.5)
            assert "memory" in (await client.error()).text
        reason = "there is not enough memory to load the model; free some"
        answer = await serving(tmp_path)
        assert (answer["health"], answer["phase"]) == ("unhealthy", "unavailable")
        assert answer["reason"] == reason
        code, out, err = await command(tmp_path, capsys)
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert reason in err
        assert f"NOT READY: {reason}" in caplog.text
        may_come_back.set()
        await until_phase(status, "idle")
        async with Client(tmp_path) as client:
            await client.speak(0.5)
            assert (await client.transcript()).text
        assert (await serving(tmp_path))["health"] == "healthy"


async def test_a_models_thread_that_ends_ends_the_server_with_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wyoming_whisper.utterance.scheduler.Scheduler.FIRST_RETRY_SECONDS", 0.001)
    opened: list[int] = []

    def load(_: Settings) -> Transcriber:
        opened.append(1)
        if len(opened) > 1:
            raise RuntimeError("the GPU has fallen off the bus")
        return FakeTranscriber()

    settings = Settings(
        uri=f"unix://{tmp_path}/socket",
        model="tiny",
        data_dir=(tmp_path,),
        idle_unload=0.01,  # type: ignore[arg-type]  # sooner than a user can have it
    )
    status = Status()
    server = Server(settings, load, status)
    running = asyncio.create_task(server.run())
    await until_phase(status, "idle")
    server.wake()
    with pytest.raises(WyomingWhisperError, match="fallen off the bus"):
        await asyncio.wait_for(running, TIMEOUT_SECONDS)
    assert server.health.verdict == "unhealthy"


ENDING = """
import sys
from pathlib import Path
from tests.support import FakeTranscriber
from wyoming_whisper.__main__ import main
import wyoming_whisper.backends as backends
import wyoming_whisper.serving.server as server

def say_ready():
    raise ZeroDivisionError

server.settle = say_ready
backends.open_transcriber = lambda settings, status: FakeTranscriber()
sys.exit(main(["--uri", f"unix://{sys.argv[1]}/socket", "--model", "tiny",
               "--data-dir", sys.argv[1]]))
"""
"""A server whose model's thread fails of what nobody foresaw."""


async def test_a_process_without_its_models_thread_ends_with_exit_code_1(tmp_path: Path) -> None:
    arguments = ("-W", "ignore", "-c", ENDING, str(tmp_path))
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdin=PIPE, stdout=PIPE, stderr=PIPE, cwd=ROOT
    )
    _, log = await asyncio.wait_for(process.communicate(), TIMEOUT_SECONDS)
    assert process.returncode == 1, log.decode()
    assert log.decode().splitlines()[-1] == (
        "wyoming-whisper: the model's thread has failed: ZeroDivisionError()"
    )


async def test_info_is_made_anew_only_where_it_has_changed(tmp_path: Path) -> None:
    status = Status()
    async with run_server(tmp_path, lambda _: FakeTranscriber(), status) as server:
        await asyncio.wrap_future(server.scheduler.opened)
        event = ServingInfo.of(server).event()
        assert ServingInfo.of(server).event() is event
        status.update(building="an engine", building_fraction=0.5)  # not told there
        assert ServingInfo.of(server).event() is event
        status.update(description="another")
        assert (
            ServingInfo.of(server).event().data["asr"][0]["models"][0]["description"] == "another"
        )


# -- the hang watch ------------------------------------------------------------------------


@contextlib.contextmanager
def quick_watch(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patched:
        patched.setattr(server_module.Server, "WATCH_SECONDS", 0.005)
        yield


@contextlib.asynccontextmanager
async def watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Server, asyncio.Task[None]]]:
    settings = Settings(
        uri=f"unix://{tmp_path}/socket", model="tiny", data_dir=(tmp_path,), drain_seconds=0
    )
    with quick_watch(monkeypatch):
        server = Server(settings, lambda _: FakeTranscriber())
        running = asyncio.create_task(server.run())
        await asyncio.wrap_future(server.scheduler.opened)
        yield server, running


async def test_what_hangs_ends_the_server_to_be_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with watched(tmp_path, monkeypatch) as (server, running):
        stuck = Work("key", "a transcription", 0, 3.0)
        monkeypatch.setattr(HangWatch, "limit_seconds", lambda *_: 0.01)
        monkeypatch.setattr(type(server.scheduler), "under_way", [stuck])
        await asyncio.wait_for(running, TIMEOUT_SECONDS)
    assert server.hangs
    assert (server.health.verdict, server.health.phase) == ("unhealthy", "failed")
    (record,) = [record for record in caplog.records if record.levelno == logging.CRITICAL]
    assert server.health.reason in record.getMessage()


async def test_a_watch_that_fails_goes_on_watching(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("wyoming_whisper.tasks.FIRST_RESTART_SECONDS", 0.001)
    looks: list[int] = []

    def look(*_: object) -> str | None:
        looks.append(1)
        if len(looks) == 1:
            raise ZeroDivisionError
        return "it hangs"

    monkeypatch.setattr(HangWatch, "look", look)
    async with watched(tmp_path, monkeypatch) as (server, running):
        await asyncio.wait_for(running, TIMEOUT_SECONDS)
    assert server.hangs
    assert "looking for a model that hangs has failed; it is started again" in caplog.text


async def test_a_model_that_is_woken_is_healthy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    may_load = threading.Event()
    may_load.set()

    def load(_: Settings) -> Transcriber:
        assert may_load.wait(TIMEOUT_SECONDS)
        return FakeTranscriber()

    status = Status()
    async with run_server(tmp_path, load, status, idle_unload=0.02) as server:
        await until_phase(status, "idle")
        may_load.clear()
        server.wake()
        await until_phase(status, "loading")
        answer = await serving(tmp_path)
        assert (answer["health"], answer["phase"]) == ("healthy", "loading")
        code, out, _ = await command(tmp_path, capsys)
        assert (code, out.split()[0]) == (0, "ok:")
        assert "loaded again" in out
        may_load.set()


async def test_a_model_that_can_not_be_had_at_the_start_is_unhealthy(tmp_path: Path) -> None:
    def fail(_: Settings) -> Transcriber:
        raise ModelUnavailableError("no way to the hub")

    status = Status()
    async with run_server(tmp_path, fail, status):
        await until_phase(status, "unavailable")
        event = await ask_server(f"unix://{tmp_path}/socket", [Describe()], Info)
        assert ServingInfo.beyond_wyoming(event)["health"] == "unhealthy"
        assert ServingInfo.beyond_wyoming(event)["reason"] == "no way to the hub"


def test_the_page_has_a_word_for_every_phase() -> None:
    script = (ROOT / "wyoming_whisper" / "web" / "page" / "page.js").read_text()
    words = script.partition("const PHASES = {")[2].partition("}")[0]
    assert [phase for phase in get_args(Phase) if f"  {phase}: " not in words] == []
