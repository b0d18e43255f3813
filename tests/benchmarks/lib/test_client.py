"""The client of all suites: what it sends when, and what it makes of what comes back."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import numpy as np
import pytest
from wyoming.error import Error
from wyoming.event import async_write_event

from benchmarks.lib import client
from benchmarks.lib.client import Heard, command_bytes, command_events, say, steady_texts
from benchmarks.lib.clips import Clip, with_silence
from benchmarks.lib.errors import BenchmarkError
from tests.support import FakeTranscriber, loud, run_server
from wyoming_whisper.transcriber import Samples

SECOND = loud(1.0)


@pytest.mark.usefixtures("_hear_loudness")
@pytest.mark.parametrize("in_time", [False, True])
async def test_a_command_is_said_and_its_text_comes_back(tmp_path: Path, in_time: bool) -> None:
    fake = FakeTranscriber()
    async with run_server(tmp_path, lambda _: fake):
        heard = await say(f"unix://{tmp_path}/socket", with_silence(SECOND), in_time=in_time)
    assert heard.error is None
    assert heard.text.endswith("samples in en")
    assert heard.seconds > 0
    assert (heard.late > 0) is in_time


@pytest.mark.usefixtures("_hear_loudness")
async def test_an_error_is_what_came_back(tmp_path: Path) -> None:
    fake = FakeTranscriber(error=RuntimeError("out of memory"))
    async with run_server(tmp_path, lambda _: fake):
        heard = await say(f"unix://{tmp_path}/socket", with_silence(SECOND))
    assert heard.text == ""
    assert heard.error


async def test_an_error_that_comes_early_is_read(tmp_path: Path) -> None:
    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await async_write_event(Error("too many").event(), writer)
        writer.close()

    async with await asyncio.start_unix_server(refuse, tmp_path / "socket"):
        heard = await say(f"unix://{tmp_path}/socket", SECOND, in_time=True)
    assert heard.error == "too many"


async def test_nobody_who_listens_is_an_error_too(tmp_path: Path) -> None:
    heard = await say(f"unix://{tmp_path}/nobody", SECOND)
    assert heard.text == ""
    assert "No such file" in str(heard.error)


def test_a_command_in_bytes_is_its_events() -> None:
    sent = command_bytes(SECOND, 32)
    assert sent.count(b'"audio-chunk"') == len(list(command_events(SECOND, chunk_ms=32))) - 2 == 32
    assert sent.count(b'"audio-stop"') == 1


async def test_what_a_model_draws_at_random_is_expected_of_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn = itertools.count()
    margin = len(with_silence(np.zeros(0, np.float32)))

    async def answer(uri: str, samples: Samples) -> Heard:
        length = len(samples) - margin
        texts = {1: "sure", 2: f"doubtful {next(drawn)}", 3: "", 4: ""}
        return Heard(texts[length], 0.1, "it failed" if length == 4 else None)

    monkeypatch.setattr(client, "say", answer)
    clips = [
        Clip(name, "", "clean", np.zeros(size, np.float32))
        for size, name in enumerate(("a", "b", "c", "d"), 1)
    ]
    assert await steady_texts("tcp://server", clips[:3]) == {"a": "sure"}
    with pytest.raises(BenchmarkError, match="none of the clips alike"):
        await steady_texts("tcp://server", clips[1:3])
    with pytest.raises(BenchmarkError, match="d: it failed"):
        await steady_texts("tcp://server", clips[3:])
