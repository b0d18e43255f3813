"""Speaks to a server as Home Assistant does: one connection for each command."""

from __future__ import annotations

import asyncio
import contextlib
import io
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass

from wyoming.asr import Transcribe, Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncClient
from wyoming.error import Error
from wyoming.event import Event, write_event
from wyoming.info import Describe, Info

from benchmarks.lib.clips import Clip, as_pcm, with_silence
from benchmarks.lib.errors import BenchmarkError
from wyoming_whisper.transcriber import SAMPLE_RATE, Samples

ANSWER_SECONDS = 300.0  # far more than anything here takes; only a hang reaches it
CHUNK_MS = 10  # as Home Assistant sends after its own voice detection
SATELLITE_CHUNK_MS = 32

TIMES_ALIKE = 3  # a clip is said before its text is expected again

FAILURES = (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError, ValueError)
"""What ends a command without a transcript; ValueError is an error event, or no Wyoming."""


@dataclass(frozen=True)
class Heard:
    """What came back for one command."""

    text: str

    seconds: float
    """From sending audio-stop to having the transcript."""

    error: str | None = None
    """Why there is no transcript."""

    late: float = 0.0
    """Seconds by which this client sent audio-stop too late, if it spoke in time."""


def command_events(
    samples: Samples, language: str = "en", chunk_ms: int = CHUNK_MS
) -> Iterator[Event]:
    """Return what Home Assistant sends for one command, but for the audio-stop."""
    yield Transcribe(language=language).event()
    yield AudioStart(rate=SAMPLE_RATE, width=2, channels=1).event()
    audio = as_pcm(samples)
    size = 2 * SAMPLE_RATE * chunk_ms // 1000
    for start in range(0, len(audio), size):
        chunk = audio[start : start + size]
        yield AudioChunk(rate=SAMPLE_RATE, width=2, channels=1, audio=chunk).event()


def as_bytes(events: Sequence[Event]) -> bytes:
    """Return what is sent for events."""
    sent = io.BytesIO()
    for event in events:
        write_event(event, sent)
    return sent.getvalue()


def command_bytes(samples: Samples, chunk_ms: int = CHUNK_MS) -> bytes:
    """Return all that a client sends for one command."""
    return as_bytes([*command_events(samples, chunk_ms=chunk_ms), AudioStop().event()])


async def say(
    uri: str,
    samples: Samples,
    *,
    language: str = "en",
    chunk_ms: int = CHUNK_MS,
    in_time: bool = False,
) -> Heard:
    """Send one command and wait for its transcript; whatever goes wrong is in the answer.

    All at once, or `in_time`: each chunk at the moment at which a microphone would have all of it.
    """
    events = list(command_events(samples, language, chunk_ms))
    due = [0.0, 0.0, *(chunk_ms / 1000 * (n + 1) for n in range(len(events) - 2))]
    due[-1] = min(due[-1], len(samples) / SAMPLE_RATE)  # the last chunk may be shorter
    stopped = time.perf_counter()
    try:
        async with connected(uri) as client, _answer(client) as answer:
            begin = time.perf_counter()
            for event, after in zip(events, due, strict=True):
                if in_time:
                    await asyncio.sleep(max(0.0, begin + after - time.perf_counter()))
                if answer.done():  # it is over before its end: an error, or endpointing
                    break
                await client.write_event(event)
            stopped = time.perf_counter()
            if not answer.done():
                await client.write_event(AudioStop().event())
            text, at = await asyncio.wait_for(asyncio.shield(answer), ANSWER_SECONDS)
            late = stopped - begin - due[-1] if in_time else 0.0
            return Heard(text, at - stopped, late=late)
    except FAILURES as problem:
        error = str(problem) or type(problem).__name__
        return Heard("", time.perf_counter() - stopped, error)


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


@contextlib.asynccontextmanager
async def _answer(client: AsyncClient) -> AsyncIterator[asyncio.Task[tuple[str, float]]]:
    """Read from the start, so that a transcript has the time at which it came."""
    reading = asyncio.create_task(transcript(client))
    try:
        yield reading
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def transcript(client: AsyncClient) -> tuple[str, float]:
    """Return a transcript, and when it came. Raises ValueError for an error, and OSError."""
    while (event := await client.read_event()) is not None:
        if Transcript.is_type(event.type):
            return Transcript.from_event(event).text, time.perf_counter()
        if Error.is_type(event.type):
            raise ValueError(Error.from_event(event).text)
    raise ConnectionError("the server closed the connection without a transcript")


async def steady_texts(uri: str, clips: Sequence[Clip]) -> dict[str, str]:
    """Return the text of each clip, by its file, that is the same however often it is said.

    Where a model doubts its text, it draws others at random: those clips are left out, and those
    of which no text comes. Raises BenchmarkError where a clip is answered with an error, or none
    is left.
    """
    texts: dict[str, set[str]] = {clip.file: set() for clip in clips}
    for _ in range(TIMES_ALIKE):
        for clip in clips:
            heard = await say(uri, with_silence(clip.samples))
            if heard.error:
                raise BenchmarkError(f"{clip.file}: {heard.error}")
            texts[clip.file].add(heard.text)
    steady = {file: min(said) for file, said in texts.items() if len(said) == 1 and any(said)}
    if not steady:
        raise BenchmarkError("the server transcribes none of the clips alike every time")
    return steady
