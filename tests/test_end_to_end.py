"""The whole program with the bundled model, as a client sees it.

The first two are the official server's end-to-end tests (wyoming-faster-whisper, tests/, MIT), made
to drive our command line over stdio, with a voice that the bundled model knows how to hear.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import numpy as np
import pytest
import soxr
from wyoming.asr import Transcribe, Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.event import Event, async_read_event, async_write_event
from wyoming.info import Describe, Info

from tests.support import AUDIO, HOME_EN, TIMEOUT_SECONDS, Client, clips, run_server, words
from wyoming_whisper.backends import open_transcriber
from wyoming_whisper.commands.client import read_audio

MODULE = [sys.executable, "-W", "ignore", "-m", "wyoming_whisper"]
SURE = next(clip for clip in clips("clean") if words(clip.text)[:2] == ["turn", "off"])


async def converse(
    transcribe: Transcribe, audio: bytes, *options: str
) -> tuple[Info, Transcript, int | None]:
    """Describe, then send 44.1 kHz stereo audio over stdio, as the official test does."""
    process = await asyncio.create_subprocess_exec(
        *MODULE, "--uri", "stdio://", *options, stdin=PIPE, stdout=PIPE
    )
    assert process.stdin
    assert process.stdout
    await async_write_event(Describe().event(), process.stdin)
    info = await _next(process.stdout, "info")
    await async_write_event(transcribe.event(), process.stdin)
    await async_write_event(AudioStart(44100, 2, 2).event(), process.stdin)
    for start in range(0, len(audio), 4096):
        chunk = AudioChunk(44100, 2, 2, audio[start : start + 4096])
        await async_write_event(chunk.event(), process.stdin)
    await async_write_event(AudioStop().event(), process.stdin)
    transcript = await _next(process.stdout, "transcript")
    process.stdin.close()
    code = await asyncio.wait_for(process.wait(), TIMEOUT_SECONDS)
    return Info.from_event(info), Transcript.from_event(transcript), code


async def _next(stdout: asyncio.StreamReader, kind: str) -> Event:
    while True:
        event = await asyncio.wait_for(async_read_event(stdout), TIMEOUT_SECONDS)
        assert event is not None, f"the server ended before it sent {kind}"
        if event.type == kind:
            return event


def stereo(file: str) -> bytes:
    samples = soxr.resample(read_audio(str(AUDIO / file)), 16000, 44100)
    return (np.repeat(samples, 2) * 32767).astype("<i2").tobytes()


@pytest.mark.parametrize(
    "options", [(), ("--vad-filter",), ("--vad-clip",), ("--stt-library", "faster-whisper")]
)
async def test_official_faster_whisper(tmp_path: Path, options: tuple[str, ...]) -> None:
    info, transcript, code = await converse(
        Transcribe(),
        stereo(SURE.file),
        *("--model", str(HOME_EN), "--data-dir", str(tmp_path), "--language", "en", *options),
    )
    assert len(info.asr) == 1
    assert words(transcript.text) == words(SURE.text)
    assert code == 0


async def test_official_faster_whisper_translate(tmp_path: Path) -> None:
    # The alias must be the model's name. Its real weights can't be had where this runs; what the
    # task changes in the prompt is tests/whisper/test_decoding.py's.
    shutil.copytree(HOME_EN, tmp_path / "base-int8")
    info, transcript, code = await converse(
        Transcribe(name="base-int8"),
        stereo(SURE.file),
        *("--model", "base-int8", "--data-dir", str(tmp_path), "--language", "en"),
        *("--whisper-task", "translate", "--local-files-only"),
    )
    assert [model.name for model in info.asr[0].models] == ["base-int8"]
    assert isinstance(transcript.text, str)
    assert code == 0


async def test_speakers_at_once_each_get_their_own_words(tmp_path: Path) -> None:
    spoken = clips("clean")[:6]

    async def one(file: str) -> str:
        async with Client(tmp_path) as client:
            await client.speak(language="en", samples=read_audio(str(AUDIO / file)))
            return (await client.transcript()).text

    async with run_server(tmp_path, open_transcriber, model=str(HOME_EN)):
        alone = [await one(clip.file) for clip in spoken]
        together = await asyncio.gather(*(one(clip.file) for clip in spoken))
    assert together == alone
    understood = [text for text in alone if text]  # others it is not sure of
    assert len(set(understood)) == len(understood) >= 3


async def test_silence_is_an_empty_transcript(tmp_path: Path) -> None:
    (silence,) = clips("silence")
    async with (
        run_server(tmp_path, open_transcriber, model=str(HOME_EN)),
        Client(tmp_path) as client,
    ):
        await client.speak(language="en", samples=read_audio(str(AUDIO / silence.file)))
        assert (await client.transcript()).text == ""


def test_transcribe_prints_a_line_a_file(tmp_path: Path) -> None:
    files = [str(AUDIO / clip.file) for clip in (SURE, *clips("silence"))]
    done = subprocess.run(
        [*MODULE, "transcribe", "--model", str(HOME_EN), "--data-dir", str(tmp_path), *files],
        capture_output=True,
        text=True,
        check=True,
    )
    first, second = done.stdout.splitlines()
    assert first.startswith(f"{files[0]}: ")
    assert words(first.partition(": ")[2]) == words(SURE.text)
    assert second == f"{files[1]}: "


async def test_transcribe_asks_a_running_server(tmp_path: Path) -> None:
    async with run_server(tmp_path, open_transcriber, model=str(HOME_EN)):
        process = await asyncio.create_subprocess_exec(
            *MODULE,
            *("transcribe", "--json", "--uri", f"unix://{tmp_path}/socket"),
            *("--language", "en", str(AUDIO / SURE.file)),
            stdout=PIPE,
        )
        out, _ = await asyncio.wait_for(process.communicate(), TIMEOUT_SECONDS)
    answer = json.loads(out)
    assert words(answer["text"]) == words(SURE.text)
    assert answer["language"] == "en"
    assert answer["stages"]["total"] > 0
