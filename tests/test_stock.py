"""Stock models in a server of its own process, and what they hear."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from wyoming.info import Describe, Info

from tests.support import AUDIO, Clip, clips, words
from wyoming_whisper.commands.client import read_audio, transcribe_remote
from wyoming_whisper.commands.connection import ask_server
from wyoming_whisper.errors import UpstreamError

START_SECONDS = 300.0
"""For a model to be loaded and its graphs to be made; only a hang reaches it."""
CLEAR = ("07-clean.flac", "12-clean.flac")
"""Clips whose synthetic voice even tiny.en understands."""


def chosen() -> list[Clip]:
    return [clip for clip in clips() if clip.file in CLEAR or clip.kind == "human"]


@contextlib.contextmanager
def serving(tmp_path: Path, model: Path, backend: str) -> Iterator[str]:
    """Run a server until the block ends; give its address when `backend` answers."""
    uri, log = f"unix://{tmp_path}/socket", tmp_path / "log"
    options = ("--uri", uri, "--model", str(model), "--backend", backend, "--local-files-only")
    with log.open("wb") as out:
        server = subprocess.Popen(
            [sys.executable, "-m", "wyoming_whisper", *options, "--data-dir", str(tmp_path)],
            stderr=out,
        )
    try:
        _wait_for(backend, uri, server, log)
        yield uri
    finally:
        server.terminate()
        server.wait(60)


def _wait_for(backend: str, uri: str, server: subprocess.Popen[bytes], log: Path) -> None:
    given_up = time.monotonic() + START_SECONDS
    while time.monotonic() < given_up:
        assert server.poll() is None, log.read_text()
        with contextlib.suppress(UpstreamError):
            event = asyncio.run(ask_server(uri, [Describe()], Info, 10.0))
            if _answers(Info.from_event(event), backend):
                return
        time.sleep(0.2)
    pytest.fail(f"{backend} never answered: {log.read_text()}")


def _answers(info: Info, backend: str) -> bool:
    """Return whether its model is loaded: what is only planned is told before that."""
    models = info.asr[0].models
    what = (models[0].description or "") if models else ""
    on_graphs = "(onnxruntime)" in what
    return " on CPU" in what and on_graphs == (backend == "onnxruntime")


async def hear(uri: str, clip: Clip) -> str:
    samples = read_audio(str(AUDIO / clip.file))
    return (await transcribe_remote(uri, samples, language="en", timeout=120.0)).text


def test_base_hears_people_on_faster_whisper(tmp_path: Path, stock_base: Path) -> None:
    with serving(tmp_path, stock_base, "faster-whisper") as uri:
        for clip in chosen():
            assert words(asyncio.run(hear(uri, clip))) == words(clip.text)


def test_tiny_en_hears_people_on_onnxruntime(tmp_path: Path, stock_tiny_en: Path) -> None:
    with serving(tmp_path, stock_tiny_en, "onnxruntime") as uri:
        for clip in chosen():
            assert words(asyncio.run(hear(uri, clip))) == words(clip.text)


def test_base_knows_the_language_by_itself(tmp_path: Path, stock_base: Path) -> None:
    (person,) = clips("human")
    samples = read_audio(str(AUDIO / person.file))
    with serving(tmp_path, stock_base, "faster-whisper") as uri:
        found = asyncio.run(transcribe_remote(uri, samples, language=None, timeout=120.0))
    assert words(found.text) == words(person.text)
    assert found.language == "en"


def test_nobody_speaks(tmp_path: Path, stock_base: Path) -> None:
    with serving(tmp_path, stock_base, "faster-whisper") as uri:
        for clip in clips("silence", "noise"):
            assert asyncio.run(hear(uri, clip)) == ""
