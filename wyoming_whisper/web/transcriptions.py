"""An OpenAI-compatible endpoint: how other programs, and other servers of ours, use the model.

Parameters, answers and errors are those of OpenAI's API reference (Audio, Models). It is answered
by this server's own model alone, never by its upstreams: two servers that name each other as such
make no loop. Recordings go piece by piece through the scheduler, after every command.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, Literal

from aiohttp import web

from ..errors import BusyError, WyomingWhisperError
from ..models.stock import ALIAS, StockModel
from ..peers import Allowed, shown
from ..transcriber import TranscribeOptions
from ..utterance.budget import Budget
from ..utterance.service import Service
from .form import Form, Refused
from .spoken import RENDERED, Render, Spoken

_LOGGER = logging.getLogger(__name__)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Task = Literal["transcribe", "translate"]


class Api:
    """The endpoint: who may use it, and what it answers."""

    PREFIX = "/v1/"
    PARAMETERS = (
        "file",
        "model",
        "prompt",
        "keywords",
        "response_format",
        "temperature",
        "timestamp_granularities",
        "stream",
        "chunking_strategy",
    )
    """Those of transcriptions and of translations; only the former have a language."""
    MAX_REQUESTS = 8
    """At once."""
    MAX_UPLOADED_BYTES = 64 * 1024 * 1024
    """Of all that are here."""
    MAX_NOTED_PARAMETERS = 64
    """Names of unknown parameters that are logged: clients make them up."""
    STREAMED = ("json", "text")

    def __init__(self, service: Service, model: str, count: Callable[[int, float], None]) -> None:
        """`model` is the name to show; `count` gets the status and seconds of each request."""
        self._service = service
        settings = service.settings
        self._names = (model, ALIAS)
        self._count = count
        self._allowed = Allowed(settings.allow)
        self._origins = _Origins(settings.openai_origins)
        self._key = (settings.openai_key or "").encode()
        self._created = int(time.time())
        self._n_requests = 0
        self._unknown: set[str] = set()
        self._uploaded = Budget(self.MAX_UPLOADED_BYTES, "audio")
        self._decoding = asyncio.Semaphore(1)  # some files cost more to unpack than to transcribe

    def add_routes(self, router: web.UrlDispatcher) -> None:
        router.add_get("/v1/models", self._models)
        router.add_get("/v1/models/{model:.+}", self._model)
        router.add_post("/v1/audio/transcriptions", partial(self._audio, task="transcribe"))
        router.add_post("/v1/audio/translations", partial(self._audio, task="translate"))

    # Who may use it, and how failures are told.

    async def guarded(
        self, request: web.Request, handler: Handler, *, is_our_name: bool
    ) -> web.StreamResponse:
        """Answer, or say why not; `is_our_name` is whether the request names this machine."""
        try:
            self._admit_peer(request, is_our_name)
            preflight = self._origins.preflight(request)
            if preflight is not None:
                return preflight
            self._admit_key(request)
            return await handler(request)
        except web.HTTPException as error:
            refused = Refused(error.status, f"{error.reason}: {shown(request.path)}")
        except Exception as error:
            refused = Refused.of(error)
            self._log(request, error, refused)
        self._count(refused.status, 0.0)
        return refused.response()

    async def mark(self, request: web.Request, response: web.StreamResponse) -> None:
        """Add what lets pages of `--openai-origins` read an answer of the API, and no other."""
        if request.path.startswith(self.PREFIX):
            self._origins.mark(request, response)

    def _admit_peer(self, request: web.Request, is_our_name: bool) -> None:
        """Raises Refused for an address, a name or a page that may not."""
        if request.remote not in self._allowed:
            raise Refused(403, f"{request.remote} is not among those in --allow")
        # A page elsewhere may have pointed its own name at us; but it knows no key.
        host = request.headers.get("Host", "")
        if not (self._key or is_our_name):
            raise Refused(
                403,
                f"{shown(host)} is no known name of this server: use its address, "
                "or give the name to --http-names",
            )
        # Other sites can send forms, even where they can't read the answer.
        origin = request.headers.get("Origin")
        is_foreign = origin is not None and origin.partition("://")[2].lower() != host.lower()
        if is_foreign and origin not in self._origins:
            raise Refused(
                403,
                f"pages of {shown(origin)} may not use this server, unless --openai-origins "
                "names them",
            )

    def _admit_key(self, request: web.Request) -> None:
        if self._key and not hmac.compare_digest(_sent_key(request), self._key):
            raise Refused(
                401,
                "Incorrect API key provided: it must be the server's openai_key, sent as "
                "'Authorization: Bearer KEY'",
                code="invalid_api_key",
            )

    def _log(self, request: web.Request, error: Exception, refused: Refused) -> None:
        if isinstance(error, Refused | WyomingWhisperError):
            self._service.peer_log.warn(str(request.remote), f"a request failed: {refused}")
        elif isinstance(error, ConnectionError):
            _LOGGER.debug("the client has gone: %s", error)
        else:
            _LOGGER.error("a request failed", exc_info=error)

    # What there is.

    async def _models(self, _: web.Request) -> web.Response:
        self._check_model_is_there()
        return web.json_response(
            {"object": "list", "data": [self._described(name) for name in self._names]}
        )

    async def _model(self, request: web.Request) -> web.Response:
        self._check_model_is_there()
        name = request.match_info["model"]
        self._check_name(name)
        return web.json_response(self._described(name))

    def _check_model_is_there(self) -> None:
        state = self._service.status.state
        if self._service.stopping:
            raise Refused(503, "the server is shutting down", code="stopping")
        if state.phase == "unavailable" or state.is_refusing:
            raise Refused(503, state.detail, code="model-unavailable")

    def _check_name(self, name: str) -> None:
        if not any(
            StockModel.is_meant(name, model)
            for model in (self._names[0], self._service.settings.model)
        ):
            raise Refused(
                404,
                f"The model {shown(name)} does not exist; {self._names[0]!r} does",
                "model",
                "model_not_found",
            )

    def _described(self, name: str) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": self._created,
            "owned_by": "wyoming-whisper",
        }

    # Audio.

    async def _audio(self, request: web.Request, task: Task) -> web.StreamResponse:
        if self._service.stopping:
            raise Refused(503, "the server is shutting down", code="stopping")
        if self._n_requests >= self.MAX_REQUESTS:
            raise BusyError(f"{self.MAX_REQUESTS} requests are here already; try again in a moment")
        self._n_requests += 1
        form = Form(self._uploaded)
        try:
            await form.read(request)
            return await self._answer(request, *self._parsed(task, form))
        finally:
            form.release()
            self._n_requests -= 1

    def _parsed(self, task: Task, form: Form) -> tuple[Spoken, Render | None]:
        """Return what is asked for, and what makes the answer; None streams it.

        Raises Refused, WyomingWhisperError.
        """
        languages = ("language", "languages") if task == "transcribe" else ()
        self._note_unknown(form.others((*self.PARAMETERS, *languages)))
        self._check_name(form.one("model") or ALIAS)
        if form.file is None:
            message = "you must provide a file parameter"
            raise Refused(400, message, "file", "missing_required_parameter")
        if task == "translate":
            self._check_can_translate()
        response_format = form.choice("response_format", tuple(RENDERED)) or "json"
        stream = form.switch("stream")
        if stream and response_format not in self.STREAMED:
            raise Refused(
                400, f"stream gives {' or '.join(self.STREAMED)}, not {response_format}", "stream"
            )
        granularities = form.granularities(response_format)
        form.choice("chunking_strategy", ("auto",))
        options = TranscribeOptions(
            language=None if task == "translate" else self._language(form),
            names=form.keywords(),
            task=task,
            prompt=form.one("prompt") or None,
            temperature=form.temperature(),
            timestamps=response_format in ("srt", "verbose_json", "vtt"),
            words="word" in granularities,
        )
        spoken = Spoken(self._service, self._decoding, form.file, options, granularities)
        return spoken, None if stream else RENDERED[response_format]

    def _note_unknown(self, names: Sequence[str]) -> None:
        """Log each parameter that is ignored, once: programs send it with every request."""
        for name in names:
            if name not in self._unknown and len(self._unknown) < self.MAX_NOTED_PARAMETERS:
                self._unknown.add(name)
                _LOGGER.info("the parameter %s is unknown here and is ignored", shown(name))

    def _language(self, form: Form) -> str | None:
        several = form.several("languages")
        if len(several) > 1:
            raise Refused(400, "name one language, or none to detect it", "languages")
        name = form.one("language") or next(iter(several), None)
        return self._service.language_of(name)

    def _check_can_translate(self) -> None:
        """Refuse what the model says of itself, or its makers of it, that it can't."""
        name = self._names[0]
        if "turbo" in name or "distil" in name:
            raise Refused(
                400,
                f"the model {name} was not trained to translate; use /v1/audio/transcriptions, or "
                "a server with another model",
                "model",
            )

    async def _answer(
        self, request: web.Request, spoken: Spoken, render: Render | None
    ) -> web.StreamResponse:
        start = time.monotonic()
        self._service.wake()
        if render is None:
            response = await self._streamed(request, spoken)
        else:
            async with aclosing(spoken.pieces()) as pieces:
                async for _ in pieces:
                    pass
            response = render(spoken)
        waited = time.monotonic() - start
        _LOGGER.info("a recording of %.1f s answered in %.2f s", spoken.seconds, waited)
        self._count(response.status, spoken.seconds)
        return response

    async def _streamed(self, request: web.Request, spoken: Spoken) -> web.StreamResponse:
        """Send each piece's text as soon as it is there (server-sent events)."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        try:
            async with aclosing(spoken.pieces()) as pieces:
                async for text in pieces:
                    if not response.prepared:
                        await response.prepare(request)
                    await _send(response, {"type": "transcript.text.delta", "delta": text})
            if not response.prepared:
                await response.prepare(request)
            await _send(response, {"type": "transcript.text.done", "text": spoken.text})
        except Exception as error:
            if not response.prepared:
                raise
            refused = Refused.of(error)
            self._log(request, error, refused)
            await _send(response, refused.content())
        await _write(response, b"data: [DONE]\n\n")
        return response


class _Origins:
    """Web pages and apps of other origins that may use the API: CORS, on its paths alone.

    Those that the user named, in any case, with or without a default port; none by default. A
    browser asks first (OPTIONS, without the key) whether the page may send what it wants to, and
    gives the page no answer that does not name its origin.
    """

    ANY = "*"
    REQUEST_METHOD = "Access-Control-Request-Method"
    REQUEST_HEADERS = "Access-Control-Request-Headers"
    METHODS = "GET, POST"
    EXPOSED = "Retry-After, WWW-Authenticate"
    MAX_AGE_SECONDS = 600
    HEADER_NAMES = re.compile(r"[\w-]+( *, *[\w-]+)*", re.ASCII)

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
            "Access-Control-Allow-Methods": self.METHODS,
            "Access-Control-Max-Age": str(self.MAX_AGE_SECONDS),
        }
        names = request.headers.get(self.REQUEST_HEADERS, "")
        if self.HEADER_NAMES.fullmatch(names):
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
            response.headers["Access-Control-Expose-Headers"] = self.EXPOSED


def _normal(origin: str) -> str:
    """Return an origin as browsers send it: in small letters, without its scheme's own port."""
    default_port = r"\A(https(?=.*:443\Z)|http(?=.*:80\Z))(://.*):\d+\Z"
    return re.sub(default_port, r"\1\2", origin.lower())


def _sent_key(request: web.Request) -> bytes:
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    return key.strip().encode(errors="surrogateescape") if scheme.lower() == "bearer" else b""


async def _send(response: web.StreamResponse, content: Mapping[str, Any]) -> None:
    await _write(response, b"data: " + json.dumps(content).encode() + b"\n\n")


async def _write(response: web.StreamResponse, data: bytes, max_seconds: float = 10.0) -> None:
    """Send; who takes nothing for long has its connection closed (as of an OSError)."""
    try:
        await asyncio.wait_for(response.write(data), max_seconds)
    except asyncio.TimeoutError:
        raise ConnectionResetError("the client does not read") from None
