"""Speaks to a server as Home Assistant does: one connection for each command."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from wyoming.asr import Transcribe, Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncClient
from wyoming.error import Error
from wyoming.event import Event
from wyoming.info import Describe, Info

from wyoming_whisper.transcriber import SAMPLE_RATE, Samples

ANSWER_SECONDS = 300.0  # far more than anything here takes; only a hang reaches it
CHUNK_MS = 10  # as Home Assistant sends after its own voice detection; satellites send 32


TIMES_ALIKE = 3  # a clip is said before its text is expected again


@dataclass(frozen=True)
class Heard:
    """What came back for one command."""

    text: str

    seconds: float
    """From sending audio-stop to having the transcript."""

    error: str | None = None
    """Why there is no transcript."""


def command_events(
    samples: Samples, language: str = "en", chunk_ms: int = CHUNK_MS
) -> Iterator[Event]:
    """Return what Home Assistant sends for one command, but for the audio-stop."""
    yield Transcribe(language=language).event()
    yield AudioStart(rate=SAMPLE_RATE, width=2, channels=1).event()
    audio = np.clip(np.round(samples * 32768), -32768, 32767).astype("<i2").tobytes()
    size = 2 * SAMPLE_RATE * chunk_ms // 1000
    for start in range(0, len(audio), size):
        chunk = audio[start : start + size]
        yield AudioChunk(rate=SAMPLE_RATE, width=2, channels=1, audio=chunk).event()


async def say(
    uri: str, samples: Samples, *, language: str = "en", chunk_ms: int = CHUNK_MS
) -> Heard:
    """Send one command, all at once, and wait for its transcript."""
    async with connected(uri) as client:
        for event in command_events(samples, language, chunk_ms):
            await client.write_event(event)
        start = time.perf_counter()
        await client.write_event(AudioStop().event())
        try:
            text, error = await asyncio.wait_for(_transcript(client), ANSWER_SECONDS), None
        except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError, ValueError) as problem:
            text, error = "", str(problem) or type(problem).__name__
        return Heard(text, time.perf_counter() - start, error)


async def describe(uri: str) -> float:
    """Return how long a new connection takes to say what the server is."""
    start = time.perf_counter()
    async with connected(uri) as client:
        await client.write_event(Describe().event())
        while (event := await asyncio.wait_for(client.read_event(), ANSWER_SECONDS)) is not None:
            if Info.is_type(event.type):
                return time.perf_counter() - start
    raise ConnectionError(f"{uri} closed the connection without an answer to describe")


@contextlib.asynccontextmanager
async def connected(uri: str) -> AsyncIterator[AsyncClient]:
    """Give a connection, and close it without a word about how the server did so."""
    client = AsyncClient.from_uri(uri)
    await client.connect()
    try:
        yield client
    finally:
        with contextlib.suppress(OSError):
            await client.disconnect()


async def _transcript(client: AsyncClient) -> str:
    while (event := await client.read_event()) is not None:
        if Transcript.is_type(event.type):
            return Transcript.from_event(event).text
        if Error.is_type(event.type):
            raise ValueError(Error.from_event(event).text)
    raise ConnectionError("the server closed the connection without a transcript")


async def alike(uri: str, clips: Mapping[str, Samples]) -> dict[str, str]:
    """Return the text of each clip, by its name, that is the same however often it is said.

    Where a model doubts its text, it draws others at random: those clips are left out, and those
    of which no text comes. Raises ValueError where a clip is answered with an error.
    """
    texts: dict[str, set[str]] = {name: set() for name in clips}
    for _ in range(TIMES_ALIKE):
        for name, samples in clips.items():
            heard = await say(uri, samples)
            if heard.error:
                raise ValueError(f"{name}: {heard.error}")
            texts[name].add(heard.text)
    return {name: min(found) for name, found in texts.items() if len(found) == 1 and any(found)}
