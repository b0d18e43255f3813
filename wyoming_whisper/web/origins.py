"""Web pages and apps of other origins that may use OpenAI's API here: CORS, on its paths alone.

A browser asks first (OPTIONS, without the key) whether the page may send what it wants to, and
gives the page no answer that does not name its origin.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from aiohttp import web


def _normal(origin: str) -> str:
    """Return an origin as browsers send it: in small letters, without its scheme's own port."""
    default_port = r"\A(https(?=.*:443\Z)|http(?=.*:80\Z))(://.*):\d+\Z"
    return re.sub(default_port, r"\1\2", origin.lower())


class Origins:
    """Those that the user named, in any case, with or without a default port; none by default."""

    ANY = "*"
    REQUEST_METHOD = "Access-Control-Request-Method"
    REQUEST_HEADERS = "Access-Control-Request-Headers"
    _METHODS = "GET, POST"
    _EXPOSED = "Retry-After, WWW-Authenticate"
    _MAX_AGE_SECONDS = 600
    _HEADER_NAMES = re.compile(r"[\w-]+( *, *[\w-]+)*", re.ASCII)

    def __init__(self, origins: Sequence[str]) -> None:
        self._origins = frozenset(map(_normal, origins))

    def __contains__(self, origin: str | None) -> bool:
        return origin is not None and (
            self.ANY in self._origins or _normal(origin) in self._origins
        )

    def preflight(self, request: web.Request) -> web.Response | None:
        """Return the answer to a browser that asks what a page may send; None for all others.

        Any header may be sent: clients of OpenAI's add some of their own. Who has no key is told
        when the request itself comes.
        """
        asks = request.method == "OPTIONS" and self.REQUEST_METHOD in request.headers
        if not asks or request.headers.get("Origin") not in self:
            return None
        headers = {
            "Access-Control-Allow-Methods": self._METHODS,
            "Access-Control-Max-Age": str(self._MAX_AGE_SECONDS),
        }
        names = request.headers.get(self.REQUEST_HEADERS, "")
        if self._HEADER_NAMES.fullmatch(names):
            headers["Access-Control-Allow-Headers"] = names
        return web.Response(status=204, headers=headers)

    def mark(self, request: web.Request, response: web.StreamResponse) -> None:
        """Let the page that asked read this response, before it is sent."""
        if not self._origins:
            return
        response.headers.add("Vary", "Origin")
        origin = request.headers.get("Origin")
        if origin is not None and origin in self:
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Expose-Headers"] = self._EXPOSED
