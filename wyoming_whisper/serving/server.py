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
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from .. import __version__
from ..errors import SettingsError
from ..machine.process import give_back, leave, settle, start_again
from ..peers import Allowed
from ..settings.sources import SUPERVISOR_TOKEN
from ..status import Status
from ..tasks import end_tasks, start_lasting_task
from ..utterance.hangs import HangWatch
from ..utterance.service import OpenTranscriber, Service
from ..web import web_page
from ..wire import MAX_HEADER_BYTES
from .connections import Connections
from .handler import Handler
from .supervisor import SupervisorDiscovery

if TYPE_CHECKING:
    from ..settings.options import Settings
    from .discovery import Announcement

_LOGGER = logging.getLogger(__name__)


class Server(Service):
    """The Service of all connections, and its life: listen, load, announce, serve, drain."""

    WATCH_SECONDS = 1.0  # how often the model is looked after
    TIDY_SECONDS = 20.0  # how often free memory is given back, when there was work

    def __init__(
        self, settings: Settings, open_transcriber: OpenTranscriber, status: Status | None = None
    ) -> None:
        super().__init__(settings, open_transcriber, status)
        self.connections = Connections(self, Allowed(settings.allow), settings.max_connections)
        self.hangs = False
        """Whether the model was given up: only a new process can be better."""
        self._failure: BaseException | None = None

    @property
    def is_spoken_to(self) -> bool:
        return self.connections.is_spoken_to

    @classmethod
    def serve(cls, settings: Settings) -> int:
        """Serve until SIGTERM or SIGINT; return the exit status. Raises WyomingWhisperError."""
        from ..backends import open_transcriber

        status = Status()
        server = cls(settings, partial(open_transcriber, status=status), status)
        server.on_ready = settle
        asyncio.run(server.run())
        if server.hangs:
            if settings.uri == "stdio://":  # its client can't follow
                leave(1)
            start_again()
        return 0

    def stop(self) -> None:
        """Begin to drain; called again, end at once."""
        if self._stopping.is_set():
            os._exit(1)
        self._stopping.set()

    async def run(self) -> None:
        """Serve until stopped. Raises what keeps the model from ever being there (again)."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        try:
            await self._serve_until_stopped(loop)
        finally:
            if self.grammars:
                self.grammars.close()
            await asyncio.to_thread(self.scheduler.close)
        if self._failure:
            raise self._failure

    async def _serve_until_stopped(self, loop: asyncio.AbstractEventLoop) -> None:
        async with (
            self._listening(),
            web_page(self),
            self.names.followed(),
            self.upstreams.followed() if self.upstreams else contextlib.nullcontext(),
        ):
            self.scheduler.opened.add_done_callback(
                lambda opened: _in_loop(loop, self._on_opened, opened.exception())
            )
            self.scheduler.ended.add_done_callback(
                lambda ended: _in_loop(loop, self._on_ended, ended.exception())
            )
            beside = (
                start_lasting_task(self._watch, "looking for a model that hangs"),
                start_lasting_task(self._tidy, "giving memory back"),
            )
            try:
                self.scheduler.start()
                await self.loaded_vad()
                await self._stopping.wait()
            finally:
                await end_tasks(*beside)
            await self.connections.drain(self.settings.drain_seconds)

    # Listening.

    @contextlib.asynccontextmanager
    async def _listening(self) -> AsyncIterator[None]:
        parts = urlsplit(self.settings.uri)
        if parts.scheme == "stdio":
            await self._listen_stdio()
            yield
            return
        server = await self._listen(parts)
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

    async def _listen(self, parts: SplitResult) -> asyncio.Server:
        connected, limit = self.connections.take, MAX_HEADER_BYTES
        backlog = Connections.ACCEPTED_AT_ONCE
        host = None if parts.hostname == "::" else parts.hostname  # to asyncio that is IPv6 alone
        is_unix = parts.scheme == "unix"
        try:
            if is_unix:
                bound = _bound_socket(Path(parts.path), self.settings.socket_mode)
                server = await asyncio.start_unix_server(
                    connected, sock=bound, limit=limit, backlog=backlog
                )
            else:
                server = await asyncio.start_server(
                    connected, host, parts.port, limit=limit, backlog=backlog
                )
        except (OSError, OverflowError) as error:
            is_low_port = isinstance(error, PermissionError) and not is_unix
            hint = " (ports below 1024 are for root)" if is_low_port else ""
            raise SettingsError(f"can't listen at {self.settings.uri}: {error}{hint}") from error
        Connections.let_many_wait(server)
        for listener in server.sockets:
            address = listener.getsockname()
            if is_unix:
                _LOGGER.info("listening at %s", address)
            else:
                _LOGGER.info("listening at %s port %d", *address[:2])
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
        if self.settings.zeroconf is None:
            return None
        from .discovery import Announcement  # zeroconf, which an add-on does without

        hosts = [str(address[0]) for address in bound]
        return Announcement(self.settings.zeroconf, hosts, port, self._properties)

    def _properties(self) -> dict[str, str]:
        """Return what is announced beside the address; of a model's folder only the name."""
        return {
            "version": __version__,
            "model": self.settings.model_name,
            "backend": self.status.state.backend or self.settings.backend,
        }

    # The model.

    async def _watch(self) -> None:
        """End the server when the model hangs: it can't be stopped, nor used any more."""
        hanging, watch = None, HangWatch(self.settings.deadline)
        while hanging is None:
            await asyncio.sleep(self.WATCH_SECONDS)
            hanging = watch.look(self.scheduler.under_way, self.WATCH_SECONDS)
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

    def _on_opened(self, error: BaseException | None) -> None:
        if error is None and self.upstreams:
            self.upstreams.publish()  # whether it is ready without a model is theirs to say

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
