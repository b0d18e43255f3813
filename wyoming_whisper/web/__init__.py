"""The web page: what the server does, its last answers, a place to try it; health and metrics.

A guest in the server's event loop: it starts after the Wyoming port listens, what it needs is
imported on a thread, and no later failure of it is one of the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import socket
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..errors import SettingsError
from ..serving.connections import Connections
from ..tasks import end_tasks, start_task

if TYPE_CHECKING:
    from aiohttp.web import AppRunner

    from ..utterance.service import Service

_LOGGER = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def web_page(service: Service) -> AsyncIterator[None]:
    """Serve the page at settings.http_port while the block runs; do nothing if that is 0.

    Raises SettingsError when the port can't be had, or what is to be answered there.
    """
    settings = service.settings
    if settings.openai_api and not settings.http_port:
        raise SettingsError("--openai-api is answered at --http-port: name one, such as 8099")
    if settings.openai_api and settings.backend == "none":
        raise SettingsError(
            "--openai-api is answered by this server's own model, which --backend none leaves out"
        )
    if settings.openai_origins and not settings.openai_api:
        _LOGGER.warning("--openai-origins does nothing without --openai-api")
    if not settings.http_port:
        yield
        return
    page = _Page(service)
    server = await page.bind()
    opening = start_task(page.open(server), "opening the web page")
    try:
        yield
    finally:
        server.close()
        await end_tasks(opening)
        await page.close()


class _Page:
    """The port, and the application behind it once that is imported."""

    MAX_CONNECTIONS = 64
    """At once; a browser keeps six. Those beyond are closed unheard."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._runner: AppRunner | None = None

    async def bind(self) -> asyncio.Server:
        """Take the port, but don't listen yet: there is nobody to answer."""
        parts = urlsplit(self._service.settings.uri)
        address = parts.hostname if parts.scheme == "tcp" else "127.0.0.1"
        port = self._service.settings.http_port
        everywhere = address in ("", "::")  # asyncio would take "::" for IPv6 alone
        try:
            return await asyncio.get_running_loop().create_server(
                self._connection,
                None if everywhere else address,
                port,
                backlog=Connections.ACCEPTED_AT_ONCE,
                start_serving=False,
            )
        except OSError as error:
            raise SettingsError(
                f"--http-port {port} can't be used for the page: {error}"
            ) from error

    async def open(self, server: asyncio.Server) -> None:
        try:
            app = await asyncio.to_thread(importlib.import_module, f"{__name__}.app")
            self._runner = await app.start(self._service)
            await server.start_serving()
            Connections.let_many_wait(server)
        except Exception:
            _LOGGER.exception("there is no web page; everything else works")
            server.close()
            return
        for url in {_url(listener.getsockname()) for listener in server.sockets}:
            _LOGGER.info("the web page is at %s", url)

    async def close(self) -> None:
        if self._runner:
            await self._runner.cleanup()

    def _connection(self) -> asyncio.Protocol:
        server = self._runner.server if self._runner else None
        if server is None or len(server.connections) >= self.MAX_CONNECTIONS:
            return _Closed()
        return server()


class _Closed(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            transport.abort()


def _url(address: tuple[str, int]) -> str:
    """Return where a browser finds a listener: one that listens everywhere by the host's name."""
    host, port = address[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104  (recognised, not bound)
        host = socket.gethostname()
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
