"""An upstream that speaks Wyoming: it hears the audio while it is spoken."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

from wyoming.asr import Transcribe, Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.error import Error
from wyoming.event import Event, async_write_event
from wyoming.info import Describe, Info

from ..errors import ProtocolError, UpstreamError
from ..settings.upstreams import Upstream
from ..tasks import end_tasks, start_task
from ..transcriber import SAMPLE_RATE, TranscribeOptions, Transcription
from ..whisper.tokenizer import language_code
from ..wire import MAX_HEADER_BYTES, read_event
from .exchange import Recording

_LOGGER = logging.getLogger(__name__)


class WyomingUpstream:
    """One server; every question has a connection of its own, as Home Assistant's have."""

    CONNECT_SECONDS = 2.0

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._parts = urlsplit(upstream.url)

    async def check(self) -> tuple[str, frozenset[str]]:
        """Return what it is, and its languages. Raises UpstreamError."""
        async with self._connected() as (reader, writer):
            await async_write_event(Describe().event(), writer)
            event = await _receive(reader, "info")
        try:
            return _described(Info.from_event(event))
        except (AttributeError, KeyError, TypeError, ValueError):  # what wyoming raises
            raise UpstreamError("its answer to describe can't be understood") from None

    async def transcribe(
        self, recording: Recording, options: TranscribeOptions, context: dict[str, Any]
    ) -> Transcription:
        """Have it hear the recording as it grows. Raises UpstreamError."""
        n_sent = 0
        audio_format = SAMPLE_RATE, recording.SAMPLE_BYTES, 1

        async def speak(writer: asyncio.StreamWriter) -> None:
            nonlocal n_sent
            names = list(options.names) or None
            asked = self._upstream.model, options.language, context
            with contextlib.suppress(OSError):  # who reads is told
                await async_write_event(Transcribe(*asked, transcript_names=names).event(), writer)
                await async_write_event(AudioStart(*audio_format).event(), writer)
                async for audio in recording.chunks():
                    await async_write_event(AudioChunk(*audio_format, audio).event(), writer)
                    n_sent += len(audio) // recording.SAMPLE_BYTES
                await async_write_event(AudioStop().event(), writer)

        async with self._connected() as (reader, writer):
            sending = start_task(speak(writer), "speaking to an upstream", is_awaited=True)
            try:
                event = await _receive(reader, "transcript")
            finally:
                await end_tasks(sending)
        try:
            transcript = Transcript.from_event(event)
        except KeyError:
            raise UpstreamError("its transcript has no text") from None
        await recording.end()
        if n_sent < recording.speech_end:
            raise UpstreamError("it answered before everything was said")
        return recording.transcript(transcript.text, transcript.language, options.language)

    async def close(self) -> None:
        """Nothing is kept between questions."""

    @contextlib.asynccontextmanager
    async def _connected(
        self,
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        connecting = start_task(self._connect(), "connecting to an upstream", is_awaited=True)
        try:
            # Not wait_for: before Python 3.12 it may swallow a cancellation.
            await asyncio.wait({connecting}, timeout=self.CONNECT_SECONDS)
            if not connecting.done():
                late = f"it took no connection within {self.CONNECT_SECONDS:g} s"
                raise UpstreamError(late, "absent")
            if error := connecting.exception():
                about = f"it can't be reached ({UpstreamError.reason(error)})"
                raise UpstreamError(about, "absent") from None
            yield connecting.result()
        except OSError as error:
            raise UpstreamError(
                f"the connection was lost ({UpstreamError.reason(error)})"
            ) from None
        finally:
            connecting.cancel()
            if connecting.done() and not connecting.cancelled() and not connecting.exception():
                _hang_up(connecting.result()[1])

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._parts.scheme == "unix":
            return await asyncio.open_unix_connection(self._parts.path, limit=MAX_HEADER_BYTES)
        return await asyncio.open_connection(
            self._parts.hostname, self._parts.port, limit=MAX_HEADER_BYTES
        )


def _hang_up(writer: asyncio.StreamWriter) -> None:
    """Close; what it has not read by now it need not read any more."""
    if writer.transport.get_write_buffer_size():
        writer.transport.abort()
    else:
        writer.close()


async def _receive(reader: asyncio.StreamReader, kind: str, max_events: int = 512) -> Event:
    """Return the next event of the type `kind`; raises UpstreamError.

    Others before it, such as partial transcripts, are ignored; but some servers never stop talking.
    """
    try:
        for _ in range(max_events):
            event = await read_event(reader)
            if event is None:
                raise UpstreamError("it closed the connection without an answer")
            if event.type == kind:
                return event
            if Error.is_type(event.type):
                raise _failure(event)
    except ProtocolError as error:
        raise UpstreamError(f"it sent what is not Wyoming: {error}") from None
    raise UpstreamError(f"it sent {max_events} events, and none was an answer")


def _failure(event: Event) -> UpstreamError:
    code = event.data.get("code")
    _LOGGER.debug(
        "an upstream's error: %s", _shown(event.data.get("text"))
    )  # may hold what was said
    if code == "unknown-language":
        return UpstreamError("it does not know the language", "language")
    if code == "busy":
        return UpstreamError("it has too much to do")
    return UpstreamError(f"it answered with an error ({_shown(code)})")


def _described(info: Info) -> tuple[str, frozenset[str]]:
    """Return what it is and its languages, none when it doesn't say. Raises UpstreamError."""
    models: list[Any] = [m for p in info.asr if p.installed for m in p.models if m.installed]
    if not models:
        raise UpstreamError("it has no model for speech-to-text")
    tags = [tag for model in models for tag in model.languages]
    codes = frozenset(code for code in map(language_code, tags) if code)
    return _shown(models[0].description or models[0].name), codes


def _shown(words: object, max_letters: int = 80) -> str:
    """Return a server's words, which may be many and strange, for people."""
    text = "".join(letter for letter in str(words)[:max_letters] if letter.isprintable())
    return text or "nothing"
