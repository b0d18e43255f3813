"""One Wyoming connection: events in, transcript or error out.

Two tasks: one reads, so that `describe` and `ping` are answered and a leaving client is noticed
while the other waits for transcriptions and sends them in the order the utterances came. A client
that has closed its writing side gets what it asked for; one that doesn't listen either is lost.
A failure is an `error` event and then a closed connection; silence is an empty transcript.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import select
import socket
import time
from dataclasses import dataclass, replace
from typing import Any

from wyoming.asr import Transcribe, Transcript, TranscriptChunk, TranscriptStart, TranscriptStop
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.error import Error
from wyoming.event import Event, async_write_event
from wyoming.info import Describe, SelectProgram
from wyoming.ping import Ping, Pong

from ..audio.pcm import PcmFormat
from ..errors import ModelError, ProtocolError, StoppedError
from ..errors import WyomingWhisperError as OurError
from ..peers import shown
from ..tasks import end_tasks, start_task
from ..transcriber import TranscribeOptions
from ..utterance.endpointing import Endpointer
from ..utterance.live import LiveText
from ..utterance.service import Service
from ..utterance.utterance import Utterance
from ..wire import read_event
from .info import ServingInfo

_LOGGER = logging.getLogger(__name__)


class Handler:
    """Serves one connection, once: `await Handler(...).run()`. `peer` is its name in the log.

    All connections of one network have the same `origin`.
    """

    WRITE_SECONDS = 10.0  # for a client to take what it asked for
    EVENTS_A_SECOND = 100  # of one connection, audio aside: a command has three
    EVENTS_AT_ONCE = 100  # for those who have asked for nothing yet
    MAX_WAITING_UTTERANCES = 4  # on one connection, before its reader waits for answers
    LINGER_SECONDS = 1.0  # for a client to notice an error before its connection is closed
    DISCARD_BYTES = 64 * 1024
    CHUNKS_A_TURN = 4  # of audio, a tenth of a second in all: half a millisecond

    def __init__(
        self,
        service: Service,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        peer: str,
        origin: str = "",
    ) -> None:
        self._service = service
        self._reader = reader
        self._writer = writer
        self._writing = asyncio.Lock()
        self._peer = peer
        self.origin = origin
        self._refused: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = _Request(TranscribeOptions(language=service.language))
        self._utterance: Utterance | None = None
        self._ended = False  # what comes until the next utterance is the rest of the last one
        self.since = self.last_event = time.monotonic()
        """When the client connected; when it last sent a whole event, or connected."""
        self._pace = 0.0  # when as many events have come as may
        self._asked = self._request  # what the utterance was begun with
        self._waiting: asyncio.Queue[tuple[Utterance, _Request] | None] = asyncio.Queue(
            self.MAX_WAITING_UTTERANCES
        )
        self._unanswered = 0
        self._draining = False
        self._answering: Utterance | None = None
        self._is_hurried = False
        self._reading: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Serve until the client leaves, something fails, or `drain` has nothing to wait for."""
        try:
            if self._refused.done():  # before a word was read
                await self._report({self._refused})
            else:
                await self._converse()
        finally:
            if not self._refused.cancel():
                self._refused.exception()  # or asyncio says that nobody looked at it
            self._drop_unfinished()
            while not self._waiting.empty():
                if item := self._waiting.get_nowait():
                    item[0].drop()
            await self._hang_up()
            self._reading = None  # what it failed of knows this Handler: not each the other

    async def _converse(self) -> None:
        # What they fail of is told to the client, and logged, by _report.
        self._reading = start_task(self._read(), "reading a connection", is_awaited=True)
        answering = start_task(self._answer(), "answering a connection", is_awaited=True)
        tasks: set[asyncio.Task[None]] = {self._reading, answering}
        try:
            done, _ = await asyncio.wait(
                {*tasks, self._refused}, return_when=asyncio.FIRST_COMPLETED
            )
            if done == {self._reading} and not (
                self._reading.cancelled() or self._reading.exception()
            ):
                # The end of what it sends is not the end of the client.
                self._drop_unfinished()
                lost = start_task(_until_lost(self._writer), "watching a half-closed connection")
                tasks |= {lost, start_task(self._waiting.put(None), "ending a connection")}
                await asyncio.wait(
                    {answering, lost, self._refused}, return_when=asyncio.FIRST_COMPLETED
                )
                done = {answering, self._refused}
            await self._report(done | {answering})
        finally:
            await end_tasks(*tasks)

    @property
    def is_busy(self) -> bool:
        """Whether an utterance is under way."""
        return self._unanswered > 0 or self._utterance is not None

    @property
    def is_waiting(self) -> bool:
        """Whether the client has asked for what it hasn't got yet."""
        return self._unanswered > 0

    @property
    def is_refused(self) -> bool:
        return self._refused.done()

    def refuse(self, error: OurError) -> None:
        """Tell the client why it can't be served, and close."""
        if not self._refused.done():
            self._refused.set_exception(error)

    def drain(self) -> None:
        """Take no more commands: leave when the one being spoken or transcribed is answered."""
        self._draining = True
        self._leave_when_drained()

    def cut_short(self) -> bool:
        """Have what is being spoken end now; return whether anything was."""
        utterance = self._utterance
        if utterance is None or self.is_refused:
            return False
        if utterance.is_mid_command or self._waiting.full():
            self.refuse(_stopped())
            return True
        utterance.cut_short()
        self._utterance, self._ended = None, True
        self._unanswered += 1
        self._waiting.put_nowait((utterance, self._asked))
        return True

    def hurry(self) -> bool:
        """Answer now, with what is there or with an error; return whether anybody waited."""
        if self.is_refused or not self.is_busy:
            return False
        self._is_hurried = True
        if not (self._answering and self._answering.hurry()):
            self.refuse(_stopped())
        return True

    async def _read(self) -> None:
        n_chunks = 0
        while (event := await read_event(self._reader)) is not None:
            self.last_event = time.monotonic()
            await self._on(event)
            # What is buffered comes without waiting: let the other connections have their turn.
            if not AudioChunk.is_type(event.type):
                await asyncio.sleep(self._too_soon())
            elif (n_chunks := n_chunks + 1) % self.CHUNKS_A_TURN == 0:
                await asyncio.sleep(0)

    def _too_soon(self) -> float:
        """Return for how many seconds nothing more is read of who sends more than anybody needs."""
        now = time.monotonic()
        self._pace = max(self._pace, now) + 1 / self.EVENTS_A_SECOND
        return max(0.0, self._pace - now - self.EVENTS_AT_ONCE / self.EVENTS_A_SECOND)

    async def _answer(self) -> None:
        while (item := await self._waiting.get()) is not None:
            utterance, request = item
            if self._is_hurried:
                utterance.drop()
                raise _stopped()
            self._answering = utterance
            try:
                transcription = await utterance.transcription()
            finally:
                self._answering = None
            transcript = Transcript(
                transcription.text, context=request.context, language=transcription.language
            )
            for event in _ending(transcript, utterance.live):
                await self._write(event)
            self._unanswered -= 1
            self._leave_when_drained()

    async def _on(self, event: Event) -> None:
        # No table of bound methods, which would be a reference cycle with the connection's buffers.
        match event.type:
            case "describe":
                _checked(Describe, event)
                await self._write(ServingInfo.of(self._service).event())
            case "ping":
                await self._write(Pong(_checked(Ping, event).text).event())
            case "select-program":
                self._on_select_program(event)
            case "transcribe":
                self._on_transcribe(event)
            case "audio-start":
                self._on_audio_start(event)
            case "audio-chunk":
                await self._on_audio_chunk(event)
            case "audio-stop":
                await self._on_audio_stop(event)
            case _:
                _LOGGER.debug("ignoring an event of type %s", shown(event.type))

    def _on_select_program(self, event: Event) -> None:
        name = _checked(SelectProgram, event).name
        if name not in (ServingInfo.PROGRAM, self._service.settings.model):
            about = f"no program {shown(name)} is here, only {ServingInfo.PROGRAM!r}"
            raise ModelError(about, "unknown-model")

    def _on_transcribe(self, event: Event) -> None:
        self._request = _Request.of(_checked(Transcribe, event), self._service)
        if not self._utterance:
            return
        before, self._asked = self._asked, self._request  # it counts until the audio ends
        if replace(self._asked, context=before.context) != before:
            asked = self._asked
            self._utterance.ask(asked.options, asked.context, asked.vad_sensitivity)

    def _on_audio_start(self, event: Event) -> None:
        start = _checked(AudioStart, event)
        PcmFormat(start.rate, start.width, start.channels)  # an impossible one is told at once
        self._ended = False
        self._begin()

    async def _on_audio_chunk(self, event: Event) -> None:
        chunk = _checked(AudioChunk, event)
        pcm = PcmFormat(chunk.rate, chunk.width, chunk.channels)
        if self._ended:
            return
        utterance = self._utterance or self._begin()
        await utterance.take(pcm, chunk.audio)
        if utterance is not self._utterance:  # it was cut short meanwhile
            return
        if utterance.live and not self._unanswered:  # those before it are answered first
            await self._show(utterance.live)
        if utterance.is_full:
            self._service.peer_log.warn(self._peer, utterance.warning)
        if utterance.is_full or utterance.is_over:
            self._ended = True
            await self._end(utterance)

    async def _show(self, live: LiveText) -> None:
        """Send what has become certain of the utterance that is being spoken."""
        if text := live.take():
            language, context = self._asked.options.language, self._asked.context
            for event in [*_beginning(live, language, context), TranscriptChunk(text).event()]:
                await self._write(event)

    async def _on_audio_stop(self, event: Event) -> None:
        _checked(AudioStop, event)
        if self._ended:  # it has been answered
            self._ended = False
            return
        await self._end(self._utterance or self._begin())

    async def _end(self, utterance: Utterance) -> None:
        self._utterance = None
        self._unanswered += 1
        try:
            await self._waiting.put((utterance, self._asked))
        except asyncio.CancelledError:  # it is in no list of what to drop
            utterance.drop()
            raise

    def _begin(self) -> Utterance:
        """Start afresh; what was not stopped is forgotten."""
        if self._utterance:
            self._utterance.drop()
        self._asked = asked = self._request
        self._utterance = Utterance.begin(
            self._service, asked.options, asked.context, asked.vad_sensitivity
        )
        return self._utterance

    def _drop_unfinished(self) -> None:
        if self._utterance:
            self._utterance.drop()
            self._utterance = None

    def _leave_when_drained(self) -> None:
        if self._draining and self._reading and not self.is_busy:
            self._reading.cancel()

    async def _write(self, event: Event) -> None:
        """Send; a client that is gone, or takes nothing for long, is an OSError or cut off."""
        async with self._writing:
            # Not wait_for: before Python 3.12 it may swallow a cancellation, and we never end.
            late = asyncio.get_running_loop().call_later(self.WRITE_SECONDS, self._cut_off)
            try:
                await async_write_event(event, self._writer)
            finally:
                late.cancel()

    def _cut_off(self) -> None:
        _LOGGER.debug("the client does not read")
        self._writer.transport.abort()

    async def _report(self, tasks: set[asyncio.Future[None]]) -> None:
        """Tell the client and the log about the first failure, each once."""
        for task in tasks:
            error = None if not task.done() or task.cancelled() else task.exception()
            if error is None:
                continue
            if isinstance(error, OSError):
                _LOGGER.debug("the client has gone: %s", error)
                return
            if isinstance(error, OurError):
                self._service.peer_log.warn(self._peer, f"a request failed: {error}")
                answer = Error(str(error), error.code)
            elif isinstance(error, MemoryError):
                _LOGGER.error("a request failed: there is not enough memory")
                answer = Error("there is not enough memory for this", OurError.code)
            else:
                _LOGGER.error("a request failed", exc_info=error)
                answer = Error("internal error; the server's log says more", OurError.code)
            await self._fail(answer)
            return

    async def _fail(self, answer: Error) -> None:
        """Send the error so that it arrives: closing on unread audio would reset the connection."""
        with contextlib.suppress(OSError, asyncio.TimeoutError, ProtocolError):
            await self._write(answer.event())
            if self._writer.can_write_eof():
                self._writer.write_eof()
            await asyncio.wait_for(self._discard(), self.LINGER_SECONDS)

    async def _discard(self) -> None:
        if self._reading:
            self._reading.cancel()
            await asyncio.wait({self._reading})
        while await self._reader.read(self.DISCARD_BYTES):
            pass

    async def _hang_up(self) -> None:
        """Close. Who doesn't read what is left for it must not keep its connection."""
        self._writer.close()
        try:
            await asyncio.wait_for(self._writer.wait_closed(), self.LINGER_SECONDS)
        except asyncio.TimeoutError:
            self._writer.transport.abort()
        except OSError:
            pass


@dataclass(frozen=True)
class _Request:
    """What a `transcribe` event asks for; whatever is wrong with a field is one sentence."""

    options: TranscribeOptions
    context: dict[str, Any] | None = None
    vad_sensitivity: str = "default"

    @classmethod
    def of(cls, transcribe: Transcribe, service: Service) -> _Request:
        """Raises ProtocolError, ModelError, NotPossibleError."""
        settings = service.settings
        if transcribe.name and transcribe.name != settings.model:
            about = f"no model {shown(transcribe.name)} is here, only {settings.model!r}"
            raise ModelError(about, "unknown-model")
        names = _strings(transcribe.transcript_names) + _strings(transcribe.transcript_terms)
        asked = None if settings.ignore_client_language else transcribe.language
        language = service.language_of(asked)
        sensitivity = _sensitivity(transcribe.vad_sensitivity)
        return cls(TranscribeOptions(language, names=names), transcribe.context, sensitivity)


def _sensitivity(value: object) -> str:
    """Return how soon commands are to end. Raises ProtocolError."""
    if value is None:
        return "default"
    if isinstance(value, str) and value in Endpointer.SENSITIVITIES:
        return str(getattr(value, "value", value))  # the wyoming library's is an Enum
    names = ", ".join(Endpointer.SENSITIVITIES)
    raise ProtocolError(f"vad_sensitivity must be one of {names}, not {shown(value)}")


def _strings(value: object) -> tuple[str, ...]:
    """Return names or terms, which the wyoming library doesn't check. Raises ProtocolError."""
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ProtocolError("transcript_names and transcript_terms must be lists of strings")
    return tuple(value)


def _beginning(live: LiveText, language: str | None, context: dict[str, Any] | None) -> list[Event]:
    """Return what comes before the first of a text, and only there."""
    if live.started:
        return []
    live.started = True
    return [TranscriptStart(context=context, language=language).event()]


def _ending(transcript: Transcript, live: LiveText | None) -> list[Event]:
    """Return an answer; where it was to be live, also the rest of its text, and its end."""
    if live is None:
        return [transcript.event()]
    events = _beginning(live, transcript.language, transcript.context)
    if rest := live.rest(transcript.text):
        events.append(TranscriptChunk(rest).event())
    return [*events, transcript.event(), TranscriptStop().event()]


def _stopped() -> StoppedError:
    return StoppedError(
        "the server is shutting down, and --drain-seconds were too short to hear and answer this"
    )


def _checked(kind: Any, event: Event) -> Any:
    """Return the event as `kind`; what its fields lack is the peer's fault, in one sentence."""
    try:
        return kind.from_event(event)
    except KeyError as error:
        raise ProtocolError(f"{event.type} needs {error.args[0]!r}") from error
    except (TypeError, ValueError) as error:
        raise ProtocolError(f"{event.type} can't be understood: {error}") from error


async def _until_lost(writer: asyncio.StreamWriter, poll_seconds: float = 0.25) -> None:
    """Return when whoever has sent its last byte doesn't listen any more, as far as can be told.

    A client that closes its writing side and one that closes, or vanishes, look alike at first:
    nothing more can be read. On a unix socket the kernel knows which it is. On TCP it learns of a
    client that has closed when something is sent to it, or a keepalive finds nobody; a reset it
    knows at once.
    """
    connection: Any = writer.get_extra_info("socket")
    # asyncio watches no connection at whose end it has read.
    while not (writer.transport.is_closing() or _is_lost(connection)):  # noqa: ASYNC110
        await asyncio.sleep(poll_seconds)


def _is_lost(connection: socket.socket | None) -> bool:
    """Whether both directions of a socket are closed, or it was reset; None is no socket."""
    if connection is None:
        return False
    if connection.fileno() < 0:
        return True
    poll = select.poll()
    poll.register(connection.fileno(), 0)  # a hang-up is reported whatever is asked for
    return any(events & (select.POLLHUP | select.POLLERR) for _, events in poll.poll(0))
