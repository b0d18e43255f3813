"""An upstream that is like OpenAI's API: POST /audio/transcriptions, when the speech has ended."""

from __future__ import annotations

import asyncio
import io
import json
import math
from typing import TYPE_CHECKING, Any

from ..errors import UpstreamError
from ..models.stock import StockModel
from ..settings.upstreams import Upstream
from ..transcriber import TranscribeOptions, Transcription
from .exchange import Recording

if TYPE_CHECKING:
    import aiohttp


class OpenAIUpstream:
    """One endpoint. The key leaves in one header, and is in nothing that is shown."""

    CONNECT_SECONDS = 2.0
    KEEP_SECONDS = 75.0
    """Longer than it is between two looks after its health: no TLS when it is hurried."""
    MAX_PROMPT_LETTERS = 600  # 224 tokens are all that Whisper takes
    DEFAULT_MODEL = "whisper-1"  # OpenAI's name, which most others take for their own
    NOT_FOUND = (404, 405, 501)  # many have no list of models

    def __init__(self, upstream: Upstream, task: str) -> None:
        self._url = upstream.url
        self._model = upstream.model
        self._path = "translations" if task == "translate" else "transcriptions"
        self._headers = {"Authorization": f"Bearer {upstream.key}"} if upstream.key else {}
        self._session: aiohttp.ClientSession | None = None

    async def check(self) -> tuple[str, frozenset[str]]:
        """Return what it is; it doesn't tell its languages. Raises UpstreamError."""
        status, headers, body = await self._ask("GET", "/models")
        described = self._model or self.DEFAULT_MODEL
        if status in self.NOT_FOUND:
            return described, frozenset()
        _raise_for(status, headers)
        models = _json(body).get("data")
        names = (
            [m.get("id") for m in models if isinstance(m, dict)] if isinstance(models, list) else []
        )
        model = self._model or ""
        # Some servers answer to other names of it, too.
        if (
            model
            and names
            and not any(name == model or StockModel.are_same(model, str(name)) for name in names)
        ):
            raise UpstreamError(f"it has no model {self._model!r}")
        return described, frozenset()

    async def transcribe(
        self, recording: Recording, options: TranscribeOptions, _: object
    ) -> Transcription:
        """Send it the speech, when there is no more. Raises UpstreamError."""
        await recording.end()
        form = self._form(await asyncio.to_thread(recording.wav), options)
        status, headers, body = await self._ask("POST", f"/audio/{self._path}", data=form)
        _raise_for(status, headers)
        answer = _json(body)
        return recording.transcript(answer.get("text"), answer.get("language"), options.language)

    async def close(self) -> None:
        if self._session:
            await self._session.close()

    def _form(self, audio: bytes, options: TranscribeOptions) -> aiohttp.FormData:
        import aiohttp

        form = aiohttp.FormData()
        file = io.BytesIO(audio)  # bytes of a megabyte would be written in one piece
        form.add_field("file", file, filename="speech.wav", content_type="audio/wav")
        form.add_field("model", self._model or self.DEFAULT_MODEL)
        form.add_field("response_format", "json")
        if options.language and self._path == "transcriptions":
            form.add_field("language", options.language)
        if options.names:
            form.add_field("prompt", ", ".join(options.names)[: self.MAX_PROMPT_LETTERS])
        return form

    async def _ask(self, method: str, path: str, **how: Any) -> tuple[int, Any, bytes]:
        """Return status, headers and body. Raises UpstreamError."""
        import aiohttp

        try:
            async with self._opened().request(
                method,
                self._url + path,
                headers=self._headers,
                allow_redirects=False,  # a key is for the one who was named
                **how,
            ) as response:
                return response.status, response.headers, await _body(response)
        except aiohttp.ClientConnectorError as error:
            reason = error.os_error.strerror or "no connection"
            raise UpstreamError(f"it can't be reached ({reason})", "absent") from None
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError, ValueError) as error:
            # Not the error's own words: they may quote headers.
            raise UpstreamError(f"it can't be talked to ({type(error).__name__})") from None

    def _opened(self) -> aiohttp.ClientSession:
        import aiohttp

        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=self.CONNECT_SECONDS)
            connector = aiohttp.TCPConnector(keepalive_timeout=self.KEEP_SECONDS)
            self._session = aiohttp.ClientSession(
                connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()
            )
        return self._session


async def _body(response: aiohttp.ClientResponse, max_bytes: int = 256 * 1024) -> bytes:
    """Return a body that is no longer than an answer can be. Raises UpstreamError."""
    body = bytearray()
    async for part in response.content.iter_chunked(16 * 1024):
        body += part
        if len(body) > max_bytes:
            raise UpstreamError(f"its answer is longer than {max_bytes // 1024} KiB")
    return bytes(body)


def _raise_for(status: int, headers: Any) -> None:
    if status == 200:
        return
    if status in (401, 403):
        raise UpstreamError(f"it does not accept the key (HTTP {status})")
    if status in (429, 503):
        raise UpstreamError(
            f"it has too much to do, or the key's quota is used up (HTTP {status})",
            retry_seconds=_seconds(headers.get("Retry-After")),
        )
    if status in (413, 415, 422):
        raise UpstreamError(f"it does not take this request (HTTP {status})", "request")
    raise UpstreamError(f"it answered with HTTP {status}")


def _seconds(text: object) -> float:
    """Return what Retry-After says in seconds; a date is ignored."""
    try:
        seconds = float(str(text))
    except ValueError:
        return 0.0
    return max(seconds, 0.0) if math.isfinite(seconds) else 0.0


def _json(body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        raise UpstreamError("its answer is not JSON") from None
    if not isinstance(answer, dict):
        raise UpstreamError("its answer is no JSON object")
    return answer
