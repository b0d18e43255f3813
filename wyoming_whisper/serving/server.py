"""The server's life: listen, load, announce, serve, drain.

It listens before the model is loaded, so that Home Assistant's `describe` never waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import stat
import sys
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from wyoming.event import Event

from .. import __version__
from ..audio.speech import span_options
from ..audio.vad import SileroVad, Vad
from ..errors import ModelBrokenError, ModelUnavailableError, SettingsError
from ..home.household import HomeNames
from ..settings.sources import SUPERVISOR_TOKEN
from ..status import Answer, Health, Status, health_of
from ..tasks import end_tasks, start_lasting_task, start_task
from ..text.style import TextStyle, text_style
from ..transcriber import Samples, TranscribeOptions, Transcriber
from ..upstreams.pool import followed, open_pool
from ..upstreams.relay import Relay
from ..utterance.endpointing import endpoint_options
from ..utterance.hangs import HangWatch
from ..utterance.job import Job
from ..utterance.languages import SpokenLanguages
from ..utterance.limits import Limits
from ..utterance.live import LiveText
from ..utterance.scheduler import Scheduler
from ..web import web_page
from ..whisper.tokenizer import LANGUAGES, language_code
from ..wire import MAX_HEADER_BYTES
from .connections import TAKEN_A_TURN, Connections, listen_for_many
from .discovery import Announcement
from .handler import Handler
from .info import Described, described
from .peers import Allowed, PeerLog
from .process import give_back, is_in_native_code, leave, settle, start_again
from .supervisor import SupervisorDiscovery

if TYPE_CHECKING:
    from ..settings.options import Settings

_LOGGER = logging.getLogger(__name__)


OpenTranscriber = Callable[["Settings"], Transcriber]


def serve(settings: Settings, open_transcriber: OpenTranscriber | None = None) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code. Raises WyomingWhisperError."""
    if open_transcriber is None:
        from ..backends import open_transcriber as open_backend

        status = Status()
        server = Server(settings, partial(open_backend, status=status), status)
    else:
        server = Server(settings, open_transcriber)
    server.on_ready = settle
    ended = asyncio.run(server.run())
    if server.hangs:
        if settings.uri == "stdio://":  # its client can't follow
            leave(1)
        start_again()
    if not ended or is_in_native_code():
        leave(0)
    return 0


class Server:
    """All connections, and the one Scheduler behind them: the handlers' Service."""

    WATCH_SECONDS = 1.0  # how often the model is looked after
    TIDY_SECONDS = 20.0  # how often free memory is given back, when there was work

    def __init__(
        self, settings: Settings, open_transcriber: OpenTranscriber, status: Status | None = None
    ) -> None:
        self._settings = settings
        self.status = status or Status()
        languages = _expected_languages(settings)
        self.model_names = (settings.model,)
        self.language = configured_language(settings.language)
        if self.language and self.language not in languages:
            raise SettingsError(
                f"--language {settings.language}: the model {settings.model} does not understand "
                f"{LANGUAGES[self.language]}, only {', '.join(languages)}"
            )
        self._expected_languages = languages
        self._info: tuple[Described, Event] | None = None
        self.span_options = span_options(settings)
        self._style = text_style(settings)
        self.spoken = SpokenLanguages(settings.prefer_recent_languages)
        self.ignore_client_language = settings.ignore_client_language
        self.eager = settings.eager
        self.endpointing = endpoint_options(settings)
        self._upstreams = open_pool(settings, self.status)
        self._names = HomeNames(settings, os.environ.get(SUPERVISOR_TOKEN))
        self.limits = Limits(settings.max_utterance_seconds, settings.deadline)
        self.peer_log = PeerLog(_LOGGER)
        self.on_ready: Callable[[], None] = lambda: None
        """Called in the model's thread whenever it has been loaded."""
        self.hangs = False
        """Whether the model was given up: only a new process can be better."""
        self.vad: Vad | None = None
        self._loading_vad: asyncio.Task[Vad] | None = None
        self._scheduler = Scheduler(
            partial(open_transcriber, settings),
            self._on_ready,
            settings.idle_unload,
            self.status,
            settings.max_queue,
        )
        self.connections = Connections(self, Allowed(settings.allow), settings.max_connections)
        self._stopping = asyncio.Event()
        self._failure: BaseException | None = None

    @property
    def text_style(self) -> TextStyle:
        """How texts are given to clients, by the names that are known now."""
        home = self._names.index
        return replace(self._style, names=home.names) if home else self._style

    @property
    def info_event(self) -> Event:
        """What is true at this moment; made anew only where that has changed."""
        now = self._describe()
        if self._info is None or self._info[0] != now:
            self._info = now, now.event()
        return self._info[1]

    @property
    def health(self) -> Health:
        return health_of(self.status.state, stopping=self.stopping)

    @property
    def opened(self) -> Future[None]:
        """Done when the model is ready; failed when it never will be."""
        return self._scheduler.opened

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    async def stopped(self) -> None:
        """Return when the server begins to drain."""
        await self._stopping.wait()

    async def loaded_vad(self) -> Vad:
        if self._loading_vad is None:
            loading = asyncio.to_thread(SileroVad)
            self._loading_vad = start_task(loading, "loading the VAD", is_awaited=True)
        try:  # one client's leaving is not the end
            self.vad = await asyncio.shield(self._loading_vad)
        except Exception as error:
            raise ModelBrokenError(
                f"the model that finds speech can't be loaded: {error}"
            ) from None  # the task keeps it: it must not know who has waited
        return self.vad

    def wake(self) -> None:
        self._scheduler.wake()

    def submit(self, samples: Samples, options: TranscribeOptions, *, eager: bool) -> Job:
        options = replace(options, home=self._names.index)
        return self._scheduler.submit(samples, options, eager=eager)

    @property
    def is_spoken_to(self) -> bool:
        return self.connections.is_spoken_to

    def submit_recording(self, samples: Samples, options: TranscribeOptions) -> Job:
        options = replace(options, home=self._names.index)
        return self._scheduler.submit(samples, options, patient=True)

    def live_text(self, options: TranscribeOptions) -> LiveText | None:
        if not self._settings.live_text:
            return None
        return LiveText(self._spare, options, self.text_style)

    def _spare(self, samples: Samples, options: TranscribeOptions) -> Job | None:
        return self._scheduler.spare(samples, replace(options, home=self._names.index))

    def relay(self, options: TranscribeOptions) -> Relay | None:
        return Relay.begin(self._upstreams, options) if self._upstreams else None

    def answered(self, answer: Answer) -> None:
        self.status.record(answer if self._settings.http_text else replace(answer, text=None))

    def stop(self) -> None:
        """Begin to drain; called again, end at once."""
        if self._stopping.is_set():
            os._exit(1)
        self._stopping.set()

    async def run(self) -> bool:
        """Serve until stopped; return whether the model's thread has ended, too.

        Raises what keeps the model from ever being there, or there again.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        try:
            await self._serve_until_stopped(loop)
        finally:
            ended = await asyncio.to_thread(self._scheduler.close)
        if self._failure:
            raise self._failure
        return ended

    async def _serve_until_stopped(self, loop: asyncio.AbstractEventLoop) -> None:
        async with (
            self._listening(),
            web_page(self, self._settings),
            self._names.followed(),
            followed(self._upstreams),
        ):
            self._scheduler.opened.add_done_callback(
                lambda opened: _in_loop(loop, self._on_opened, opened.exception())
            )
            self._scheduler.ended.add_done_callback(
                lambda ended: _in_loop(loop, self._on_ended, ended.exception())
            )
            beside = (
                start_lasting_task(self._watch, "looking for a model that hangs"),
                start_lasting_task(self._tidy, "giving memory back"),
            )
            try:
                self._scheduler.start()
                await self.loaded_vad()
                await self._stopping.wait()
            finally:
                await end_tasks(*beside)
            await self.connections.drain(self._settings.drain_seconds)

    # Listening.

    @contextlib.asynccontextmanager
    async def _listening(self) -> AsyncIterator[None]:
        parts = urlsplit(self._settings.uri)
        if parts.scheme == "stdio":
            await self._listen_stdio()
            yield
            return
        if parts.scheme == "unix":
            server = await self._listen_unix(Path(parts.path))
        else:
            server = await self._listen_tcp(parts.hostname or "", parts.port or 0)
        announcement = self._announcement(server) if parts.scheme == "tcp" else None
        if announcement:
            announcement.start()
        try:
            yield
        finally:
            server.close()
            if announcement:
                await announcement.stop()
            if parts.scheme == "unix":
                _remove_stale(Path(parts.path))

    async def _listen_tcp(self, host: str, port: int) -> asyncio.Server:
        everywhere = host in ("", "::")  # asyncio would take "::" for IPv6 alone
        try:
            server = await asyncio.start_server(
                self.connections.take,
                None if everywhere else host,
                port,
                limit=MAX_HEADER_BYTES,
                backlog=TAKEN_A_TURN,
            )
        except PermissionError as error:
            raise SettingsError(
                f"can't listen at {self._settings.uri}: {error} (ports below 1024 are for root)"
            ) from error
        except (OSError, OverflowError) as error:
            raise SettingsError(f"can't listen at {self._settings.uri}: {error}") from error
        listen_for_many(server)
        for listener in server.sockets:
            _LOGGER.info("listening at %s port %d", *listener.getsockname()[:2])
        return server

    async def _listen_unix(self, path: Path) -> asyncio.Server:
        try:
            bound = _bound_socket(path, self._settings.socket_mode)
            server = await asyncio.start_unix_server(
                self.connections.take, sock=bound, limit=MAX_HEADER_BYTES, backlog=TAKEN_A_TURN
            )
        except OSError as error:
            raise SettingsError(f"can't listen at {self._settings.uri}: {error}") from error
        listen_for_many(server)
        _LOGGER.info("listening at %s", path)
        return server

    async def _listen_stdio(self) -> None:
        """Serve the one client at the other end of the pipes, then stop."""
        try:
            reader, writer = await _stdio_streams()
        except ValueError as error:
            raise SettingsError("stdio:// needs pipes as standard input and output") from error
        handler = Handler(self, reader, writer, "stdin")
        self.connections.track(handler).add_done_callback(lambda _: self._stopping.set())

    def _announcement(self, server: asyncio.Server) -> Announcement | SupervisorDiscovery | None:
        """Return how Home Assistant is told: in one way only, or it shows the server twice."""
        bound = [listener.getsockname() for listener in server.sockets]
        port = int(bound[0][1])
        if token := os.environ.get(SUPERVISOR_TOKEN):
            return SupervisorDiscovery(token, port)
        if self._settings.zeroconf is None:
            return None
        hosts = [str(address[0]) for address in bound]
        return Announcement(self._settings.zeroconf, hosts, port, self._properties)

    def _properties(self) -> dict[str, str]:
        """Return what is announced beside the address; of a model's folder only the name."""
        return {
            "version": __version__,
            "model": self._settings.model_name,
            "backend": self.status.state.backend or self._settings.backend,
        }

    # The model.

    async def _watch(self) -> None:
        """End the server when the model hangs: it can't be stopped, nor used any more."""
        hanging, watch = None, HangWatch(self._settings.deadline)
        while hanging is None:
            await asyncio.sleep(self.WATCH_SECONDS)
            hanging = watch.look(self._scheduler.under_way, self.WATCH_SECONDS)
        _LOGGER.critical("%s; starting again", hanging)
        self.status.update(phase="failed", detail=hanging)
        self.hangs = True
        self._stopping.set()

    async def _tidy(self) -> None:
        """Give free memory back: a long day must not end with more than it began with."""
        tidied = None
        while True:
            await asyncio.sleep(self.TIDY_SECONDS)
            done = self.connections.n_taken, self.status.revision
            if done != tidied:
                tidied = done
                await asyncio.to_thread(give_back)

    def _on_ready(self, _: Transcriber) -> None:
        self.on_ready()
        _LOGGER.info("ready")

    def _describe(self) -> Described:
        """Return what `info` says of the server, as it is now."""
        state = self.status.state
        languages = state.languages
        if self._upstreams and not self._upstreams.has_local:
            languages = self._upstreams.languages or languages
        return described(
            state,
            self.health,
            self._settings.model,
            languages or self._expected_languages,
            is_known=bool(languages),
            requires_external_vad=self._settings.requires_external_vad,
            live_text=self._settings.live_text,
            prefers_auto_gain=self._settings.prefers_auto_gain,
            prefers_noise_reduction=self._settings.prefers_noise_reduction,
        )

    def _on_opened(self, error: BaseException | None) -> None:
        if error is None and self._upstreams:
            self._upstreams.publish()  # whether it is ready without a model is theirs to say

    def _on_ended(self, error: BaseException | None) -> None:
        """End with an error what can't answer any more, rather than look healthy."""
        if error:
            self._failure = error
            self._stopping.set()


def _in_loop(
    loop: asyncio.AbstractEventLoop,
    callback: Callable[[BaseException | None], None],
    error: BaseException | None,
) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended before the model's thread has
        loop.call_soon_threadsafe(callback, error)


def configured_language(name: str) -> str | None:
    """Return Whisper's code for the option `language`; None for `auto`."""
    if name == "auto":
        return None
    code = language_code(name)
    if code is None:
        raise SettingsError(
            f"--language {name} is not a language that Whisper knows; "
            f"choose auto, {', '.join(sorted(LANGUAGES))}"
        )
    return code


def _expected_languages(settings: Settings) -> tuple[str, ...]:
    """Return the model's languages before it is loaded, from its name and files alone.

    Raises UnknownModelError, so that a misspelt name ends the server before it listens.
    """
    from ..models.find import find_model
    from ..models.folder import ModelFolder
    from ..models.stock import languages_of_name

    if settings.model != "auto":
        with contextlib.suppress(ModelUnavailableError, ModelBrokenError):
            path = find_model(settings.model, settings)
            return ModelFolder(path).languages(settings.model)
    return languages_of_name(settings.model)


def _bound_socket(path: Path, mode: str | None) -> socket.socket:
    """Return a unix socket with its mode set before anybody can connect to it.

    Raises OSError, also for a socket in use, which asyncio would silently take away.
    """
    if _is_socket(path):
        if not _is_stale(path):
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        path.unlink()
    bound = socket.socket(socket.AF_UNIX)
    try:
        bound.bind(str(path))
        if mode is not None:
            path.chmod(int(mode, 8))
    except BaseException:
        bound.close()
        raise
    return bound


def _is_socket(path: Path) -> bool:
    return path.exists() and stat.S_ISSOCK(path.stat().st_mode)


def _is_stale(path: Path) -> bool:
    """Whether nobody listens at this socket any more, as after a kill: asyncio takes it over."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return True
    return False


def _remove_stale(path: Path) -> None:
    if _is_socket(path) and _is_stale(path):
        path.unlink()


async def _stdio_streams() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return streams over stdin and stdout; whatever else prints goes to stderr from now on."""
    loop = asyncio.get_running_loop()
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    reader = asyncio.StreamReader(limit=MAX_HEADER_BYTES)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
    transport, protocol = await loop.connect_write_pipe(
        lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), out
    )
    return reader, asyncio.StreamWriter(transport, protocol, None, loop)
