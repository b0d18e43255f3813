"""The pages behind the port, and who may have them.

Everything is answered from memory, but for a clip to try, which goes the way of any command. A
browser is a deputy easily confused, so: only known names of this machine are answered to (a page
elsewhere may have pointed its own at us), and only our own page can send a clip, since others may
not set its header.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import secrets
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aiohttp import ETag, web
from aiohttp.http_exceptions import HttpProcessingError
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder

from .. import __version__
from ..audio.pcm import PcmFormat
from ..audio.recording import AudioFile
from ..errors import AudioError, SettingsError, WyomingWhisperError
from ..peers import Allowed, address_of
from ..status import Answer, State, Status
from ..transcriber import SAMPLE_RATE, TranscribeOptions
from ..utterance.service import Service
from ..utterance.utterance import Utterance
from . import transcriptions

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def start(service: Service) -> web.AppRunner:
    """Return the application, ready for connections."""
    site = await asyncio.to_thread(_Site, service)  # it reads the page's files
    logger = logging.getLogger(f"{__name__}.http")
    logger.addFilter(_is_our_fault)
    runner = web.AppRunner(
        site.application(),
        access_log=None,
        handler_cancellation=True,  # a clip whose sender has gone is dropped
        keepalive_timeout=site.IDLE_SECONDS,
        auto_decompress=False,  # nobody needs it, and little may unpack to much
        logger=logger,
        # For requests under way when the server stops, which has had its own time for that.
        shutdown_timeout=1.0,
    )
    await runner.setup()
    return runner


def _read_files() -> dict[str, tuple[bytes, str]]:
    """Return the content and the type of each of the page's files, by name."""
    types = {
        ".html": "text/html",
        ".css": "text/css",
        ".js": "text/javascript",
        ".svg": "image/svg+xml",
    }
    folder = Path(__file__).parent / "page"
    return {file.name: (file.read_bytes(), types[file.suffix]) for file in folder.iterdir()}


class _Site:
    MAX_CLIPS = 2
    """Being heard at once."""
    MAX_CLIP_SECONDS = 60
    MAX_CLIP_BYTES = 2 * SAMPLE_RATE * MAX_CLIP_SECONDS
    UPLOAD_SECONDS = 30.0
    """For a clip to arrive."""
    IDLE_SECONDS = 75.0
    """For a request's first line and headers to arrive, and between requests."""
    CLIP_HEADER = "X-Wyoming-Whisper"
    """A browser lets no other site send it."""
    AS_FILE = "file"
    """Its value where the clip is a file rather than PCM."""
    HEADERS: Mapping[str, str] = {
        "Content-Security-Policy": (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
            "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
        ),
        "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "no-cache",
        "Server": "wyoming-whisper",
    }
    INGRESS = ipaddress.ip_address("172.30.32.2")
    """Home Assistant's Supervisor: it shows the page under its own names, to whom it let in."""
    LOCAL_SUFFIXES = (".local", ".lan", ".home", ".internal", ".home.arpa", ".localdomain")
    """Of names that nobody can own on the internet."""

    def __init__(self, service: Service) -> None:
        self._service = service
        settings = service.settings
        self._allowed = Allowed(settings.http_allow)
        self._names = {socket.gethostname().lower(), *settings.http_names}
        self._files = _read_files()
        self._etag = secrets.token_hex(8)  # with the revision: other than before a restart
        self._n_clips = 0
        self._model = settings.model_name
        self._metrics = _Metrics(service.status, self._model)
        self._api: transcriptions.Api | None = None
        if settings.openai_api:
            count = self._metrics.take_request
            self._api = transcriptions.Api(service, self._model, count)

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._guard], client_max_size=self.MAX_CLIP_BYTES)
        app.on_response_prepare.append(self._add_headers)
        app.router.add_get("/", self._file("index.html"))
        for name in self._files:
            app.router.add_get(f"/{name}", self._file(name))
        app.router.add_get("/state", self._state)
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._scrape)
        app.router.add_post("/transcribe", self._transcribe)
        if self._api:
            app.on_response_prepare.append(self._api.mark)
            self._api.add_routes(app.router)
        return app

    # Who may have anything.

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        peer = address_of(request.remote)
        if self._api and request.path.startswith(transcriptions.Api.PREFIX):
            is_our_name = peer == self.INGRESS or self._is_our_name(request.headers.get("Host", ""))
            return await self._api.guarded(request, handler, is_our_name=is_our_name)
        if request.remote not in self._allowed:
            raise web.HTTPForbidden(text=f"{request.remote} is not among those in --http-allow")
        name = request.headers.get("Host", "")
        if peer != self.INGRESS and not self._is_our_name(name):
            raise web.HTTPForbidden(
                text=f"{name[:80]!r} is no known name of this server: open the page by its "
                "address, or give the name to --http-names"
            )
        return await handler(request)

    def _is_our_name(self, host: str) -> bool:
        name = _without_port(host)
        is_local = "." not in name or name.endswith(self.LOCAL_SUFFIXES)
        return is_local or name in self._names or address_of(name) is not None

    # What there is.

    def _file(self, name: str) -> _Handler:
        body, content_type = self._files[name]

        async def answer(_: web.Request) -> web.Response:
            return web.Response(body=body, content_type=content_type, charset="utf-8")

        return answer

    async def _state(self, request: web.Request) -> web.Response:
        """Everything that the page shows; nothing when it hasn't changed."""
        etag = f"{self._etag}-{self._service.status.revision}"
        if ETag(etag) in (request.if_none_match or ()):
            response = web.Response(status=304)
        else:
            response = _json(self._shown_state())
        response.etag = etag
        return response

    def _shown_state(self) -> dict[str, Any]:
        status = self._service.status
        return {
            "version": __version__,
            "model": self._model,
            "language": self._service.language,
            "answering": status.state.is_answering,
            "text_shown": self._service.settings.http_text,
            "max_clip_seconds": self.MAX_CLIP_SECONDS,
            **asdict(status.state),
            "answers": [_shown_answer(answer) for answer in reversed(status.answers)],
        }

    async def _health(self, _: web.Request) -> web.Response:
        """200 when commands are answered, also by a model that is woken, else 503 and why not."""
        state = self._service.status.state
        health = self._service.health
        is_well = health.verdict == "healthy"
        body = {
            "ok": is_well,
            "health": health.verdict,
            "phase": health.phase,
            "reason": health.reason,
            "version": __version__,
            "model": self._model,
            "backend": state.backend,
            "why": state.why,
            "description": state.description,
        }
        return _json(body, status=200 if is_well else 503)

    async def _scrape(self, request: web.Request) -> web.Response:
        body, content_type = self._metrics.expose(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    # A clip to try.

    async def _transcribe(self, request: web.Request) -> web.Response:
        """Hear a clip: the body is 16-bit little-endian PCM, mono, SAMPLE_RATE, or with AS_FILE a
        file that the browser could not decode.
        """
        if self.CLIP_HEADER not in request.headers:
            raise web.HTTPForbidden(text=f"a clip must come with the header {self.CLIP_HEADER}: 1")
        if self._service.stopping:
            return _failed("the server is shutting down", "stopping", 503)
        if self._n_clips >= self.MAX_CLIPS:
            return _failed("other clips are being heard; try again in a moment", "busy", 503)
        self._n_clips += 1
        try:
            return await self._hear(request)
        except WyomingWhisperError as error:
            # NotPossibleError is a ValueError.
            is_of_client = isinstance(error, AudioError | SettingsError | ValueError)
            return _failed(str(error), error.code, 400 if is_of_client else 503)
        finally:
            self._n_clips -= 1

    async def _hear(self, request: web.Request) -> web.Response:
        language = self._service.language_of(request.query.get("language"))
        audio = await self._pcm(request)
        utterance = Utterance.begin(self._service, TranscribeOptions(language))
        try:
            await utterance.take(PcmFormat(SAMPLE_RATE, 2, 1), audio)
            if utterance.is_full:
                self._service.peer_log.warn(str(request.remote), utterance.warning)
            transcription = await utterance.transcription()
        finally:
            utterance.drop()
        return _json(transcription.to_dict())

    async def _pcm(self, request: web.Request) -> bytes:
        """Return a clip as 16-bit PCM. Raises AudioError."""
        body = await self._body(request)
        if request.headers[self.CLIP_HEADER] != self.AS_FILE:
            return body
        samples = await asyncio.to_thread(AudioFile(body).read, self.MAX_CLIP_SECONDS)
        return PcmFormat.encoded(samples)

    async def _body(self, request: web.Request) -> bytes:
        try:
            return await asyncio.wait_for(request.read(), self.UPLOAD_SECONDS)
        except web.HTTPRequestEntityTooLarge:
            raise AudioError(
                f"a clip may last {self.MAX_CLIP_SECONDS} seconds, or be a file of "
                f"{self.MAX_CLIP_BYTES} bytes, at most"
            ) from None
        except asyncio.TimeoutError:
            raise AudioError(
                f"the clip did not arrive within {self.UPLOAD_SECONDS:.0f} seconds"
            ) from None

    async def _add_headers(self, _: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(self.HEADERS)


class _Metrics:
    """What Prometheus asks for: answers are counted from now on, and nothing of what was said."""

    PREFIX = "wyoming_whisper"
    AFTER_SPEECH_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30)
    STAGE_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
    """Seconds."""

    def __init__(self, status: Status, model: str) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._model = model
        self._answers = self._counter("answers", "Utterances answered, by outcome", ("outcome",))
        self._errors = self._counter("errors", "Utterances that failed, by code", ("code",))
        self._early = self._counter("early_answers", "Answers begun before the audio ended")
        self._truncated = self._counter(
            "truncated", "Utterances whose end was not heard: --max-utterance-seconds"
        )
        self._understood = self._counter(
            "home_sentences",
            "Texts compared with the home's sentences: as heard, corrected, or none of them",
            ("result",),
        )
        self._audio = self._counter("audio_seconds", "Seconds of audio received")
        self._waited = self._histogram(
            "after_speech_seconds",
            "From the end of the audio to the answer",
            self.AFTER_SPEECH_BUCKETS,
        )
        self._stages = self._histogram(
            "stage_seconds", "Time of a transcription by stage", self.STAGE_BUCKETS, ("stage",)
        )
        self._ready = self._gauge("ready", "Whether commands are answered now")
        self._done = self._gauge("build_fraction", "How much of an engine is built, 0 to 1")
        self._info = self._gauge(
            "info", "What runs, as labels", ("version", "model", "backend", "description")
        )
        self._requests = self._counter(
            "api_requests", "Requests to the OpenAI-compatible endpoint, by status", ("status",)
        )
        self._recorded = self._counter(
            "api_audio_seconds", "Seconds of audio transcribed for the OpenAI-compatible endpoint"
        )
        self._up = self._gauge("upstream_up", "Whether the upstream is asked now", ("upstream",))
        self._upstream_waited = self._histogram(
            "upstream_seconds",
            "From the end of the audio to the upstream's answer, where that was taken",
            self.AFTER_SPEECH_BUCKETS,
            ("upstream",),
        )
        self._upstream_failures = self._counter(
            "upstream_failures", "Utterances that the upstream failed on", ("upstream",)
        )
        self._failures_counted: dict[str, int] = {}
        self._status = status
        status.on_answer = self._take_answer

    def expose(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics and their content type, in a format that `accept` names."""
        self._take_state(self._status.state)
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def take_request(self, status: int, seconds: float) -> None:
        """Count a request to the OpenAI-compatible endpoint, and the audio in it."""
        self._requests.labels(status).inc()
        self._recorded.inc(seconds)

    def _counter(self, name: str, about: str, labels: tuple[str, ...] = ()) -> Counter:
        return Counter(f"{self.PREFIX}_{name}", about, labels, registry=self._registry)

    def _gauge(self, name: str, about: str, labels: tuple[str, ...] = ()) -> Gauge:
        return Gauge(f"{self.PREFIX}_{name}", about, labels, registry=self._registry)

    def _histogram(
        self, name: str, about: str, buckets: tuple[float, ...], labels: tuple[str, ...] = ()
    ) -> Histogram:
        return Histogram(
            f"{self.PREFIX}_{name}", about, labels, buckets=buckets, registry=self._registry
        )

    def _take_state(self, state: State) -> None:
        self._ready.set(state.health().verdict == "healthy")
        self._done.set(state.building_fraction or 0)
        labels = (__version__, self._model, state.backend or "", state.description)
        self._info.clear()  # what ran before is gone
        self._info.labels(*labels).set(1)
        for upstream in state.upstreams:
            self._up.labels(upstream.name).set(upstream.circuit == "closed")
            new = upstream.failures - self._failures_counted.get(upstream.name, 0)
            self._failures_counted[upstream.name] = upstream.failures
            self._upstream_failures.labels(upstream.name).inc(new)

    def _take_answer(self, answer: Answer) -> None:
        self._answers.labels(answer.outcome).inc()
        self._audio.inc(answer.seconds)
        self._truncated.inc(answer.truncated)
        if answer.outcome == "failed":
            self._errors.labels(answer.code).inc()
            return
        if answer.understood is not None:
            corrected = "corrected" if answer.is_corrected else "heard"
            self._understood.labels(corrected if answer.understood else "none").inc()
        self._waited.observe(answer.waited)
        if answer.early:
            self._early.inc()
        if answer.upstream:
            self._upstream_waited.labels(answer.upstream).observe(answer.waited)
            return
        for stage, seconds in answer.stages.items():
            self._stages.labels(stage).observe(seconds)


def _is_our_fault(record: logging.LogRecord) -> bool:
    """Whether a line of the HTTP library is worth its place.

    Anybody can send what is no HTTP, and go in the middle of it.
    """
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, web.RequestPayloadError | HttpProcessingError | ConnectionError)


# -- small things --------------------------------------------------------------------------


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].rstrip(".").lower()


def _shown_answer(answer: Answer) -> dict[str, Any]:
    shown = asdict(answer)
    shown["stages"] = {name: round(seconds, 4) for name, seconds in answer.stages.items()}
    for name in ("seconds", "waited", "confidence"):
        if shown[name] is not None:
            shown[name] = round(shown[name], 4)
    return shown


def _json(content: Mapping[str, Any], status: int = 200) -> web.Response:
    text = json.dumps(content, ensure_ascii=False)
    return web.Response(text=text, content_type="application/json", status=status)


def _failed(error: str, code: str, status: int) -> web.Response:
    return _json({"error": error, "code": code}, status)
