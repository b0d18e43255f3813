"""A request to the OpenAI-compatible endpoint as it arrives, and answers that refuse it.

Every length is bounded; nothing touches a disk.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Sequence
from typing import Any, Literal, NoReturn, get_args

from aiohttp import (
    BadContentDispositionHeader,
    BadContentDispositionParam,
    BodyPartReader,
    web,
)
from aiohttp.http_exceptions import HttpProcessingError

from ..errors import BusyError, ModelError, WyomingWhisperError
from ..peers import shown
from ..utterance.budget import Budget

Granularity = Literal["segment", "word"]

# What a client's wrong header says would be printed, and each kept for good by Python's warnings.
warnings.filterwarnings("ignore", category=BadContentDispositionHeader)
warnings.filterwarnings("ignore", category=BadContentDispositionParam)


class Refused(Exception):  # noqa: N818  (an answer, not a failure)
    """An answer in OpenAI's shape that is none to the question."""

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code

    @classmethod
    def of(cls, error: Exception) -> Refused:
        if isinstance(error, Refused):
            return error
        parameters = {
            "invalid-audio": "file",
            "unknown-language": "language",
            "no-word-times": "timestamp_granularities",
        }
        if isinstance(error, BusyError):
            return cls(429, str(error), code="rate_limit_exceeded")
        if isinstance(error, WyomingWhisperError):
            parameter = parameters.get(error.code)
            status = 400 if parameter or isinstance(error, ValueError) else 500
            if isinstance(error, ModelError) or error.code == "deadline-exceeded":
                status = 503
            return cls(status, str(error), parameter, error.code)
        if isinstance(error, MemoryError):
            return cls(500, "there is not enough memory for this", code="internal-error")
        return cls(500, "internal error; the server's log says more", code="internal-error")

    def content(self) -> dict[str, Any]:
        """Return OpenAI's error object."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        if self.status == web.HTTPTooManyRequests.status_code:
            kind = "requests"
        error = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        return {"error": error}

    def response(self) -> web.Response:
        headers = {"Retry-After": "1"} if self.status in (429, 503) else {}
        if self.status == web.HTTPUnauthorized.status_code:
            headers["WWW-Authenticate"] = "Bearer"
        return web.json_response(self.content(), status=self.status, headers=headers)


class Form:
    """What a request sends, as it arrives: its parameters, its file, and the room these take."""

    MAX_FILE_BYTES = 25 * 1024 * 1024
    """As at OpenAI."""
    MAX_SECONDS = 120.0
    """For a whole request to arrive."""
    MAX_FIELDS = 128
    MAX_FIELD_BYTES = 16 * 1024
    CHUNK_BYTES = 64 * 1024
    IMPOSSIBLE = ("include", "known_speaker_names", "known_speaker_references")
    """Of other models at OpenAI."""
    MAX_KEYWORD_LENGTH = 100
    """They are compared with all that is heard."""

    def __init__(self, uploaded: Budget) -> None:
        """`uploaded` are the bytes that all forms may have."""
        self._held = uploaded.account()
        self._n_bytes = 0
        self._values: dict[str, list[str]] = {}
        self.file: bytes | None = None

    async def read(self, request: web.Request) -> None:
        """Take all of it. Raises Refused, BusyError."""
        if request.content_type != "multipart/form-data":
            raise Refused(400, "the request must be a form: multipart/form-data")
        max_bytes = self.MAX_FILE_BYTES + self.MAX_FIELDS * self.MAX_FIELD_BYTES
        if (request.content_length or 0) > max_bytes:
            self._refuse_size()
        try:
            await asyncio.wait_for(self._read_parts(request), self.MAX_SECONDS)
        except asyncio.TimeoutError:
            message = f"the request did not arrive within {self.MAX_SECONDS:.0f} seconds"
            raise Refused(408, message) from None
        except (ValueError, AssertionError, HttpProcessingError, web.RequestPayloadError) as error:
            raise Refused(400, f"the form can't be understood: {shown(error)}") from None

    def release(self) -> None:
        """Make room for others."""
        self._held.hold(0)

    def others(self, names: Sequence[str]) -> list[str]:
        """Return the names of parameters that are not among `names`.

        Raises Refused for those without which the answer would not be what is asked for.
        """
        for name in self.IMPOSSIBLE:
            if name in self._values:
                raise Refused(400, f"{name} is not possible with this model", name)
        return [name for name in self._values if name not in names]

    def one(self, name: str) -> str | None:
        values = self.several(name)
        if len(values) > 1:
            raise Refused(400, f"{name} is given {len(values)} times", name)
        return values[0] if values else None

    def several(self, name: str) -> list[str]:
        return self._values.get(name, [])

    def choice(self, name: str, choices: Sequence[str]) -> str | None:
        value = self.one(name) or None
        if value is not None and value not in choices:
            message = f"{name} is {shown(value)}, but it must be {_either(choices)}"
            raise Refused(400, message, name, "invalid_value")
        return value

    def switch(self, name: str) -> bool:
        value = (self.one(name) or "false").lower()
        if value not in ("true", "false", "1", "0"):
            raise Refused(400, f"{name} must be true or false", name, "invalid_value")
        return value in ("true", "1")

    def temperature(self) -> float:
        value = self.one("temperature") or "0"
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if not 0 <= number <= 1:
            message = f"temperature is {shown(value)}, but it must be a number from 0 to 1"
            raise Refused(400, message, "temperature", "invalid_value")
        return number

    def keywords(self) -> tuple[str, ...]:
        words = self.several("keywords")
        if any(len(word) > self.MAX_KEYWORD_LENGTH for word in words):
            message = f"keywords may have {self.MAX_KEYWORD_LENGTH} letters at most, each"
            raise Refused(400, message, "keywords", "invalid_value")
        return tuple(words)

    def granularities(self, response_format: str) -> tuple[Granularity, ...]:
        """Return what is to have times: segments, where nothing else is asked for."""
        name = "timestamp_granularities"
        asked = [value for value in self.several(name) if value]
        if asked and response_format != "verbose_json":
            raise Refused(400, f"{name} needs the response_format verbose_json", name)
        possible: tuple[Granularity, ...] = get_args(Granularity)
        for granularity in asked:
            if granularity not in possible:
                message = f"{name} must be {_either(possible)}"
                raise Refused(400, message, name, "invalid_value")
        return tuple(one for one in possible if one in asked) or ("segment",)

    async def _read_parts(self, request: web.Request) -> None:
        n_parts = 0
        reader = await request.multipart()
        while (part := await reader.next()) is not None:
            n_parts += 1
            if not isinstance(part, BodyPartReader) or not part.name or n_parts > self.MAX_FIELDS:
                raise Refused(
                    400, f"the form must have {self.MAX_FIELDS} fields at most, with names"
                )
            if part.name != "file":
                value = (await self._body(part, self.MAX_FIELD_BYTES)).decode()
                # Lists are sent as name[], objects as name[key].
                self._values.setdefault(part.name.partition("[")[0], []).append(value)
            elif self.file is None:
                self.file = bytes(await self._body(part, self.MAX_FILE_BYTES))
            else:
                raise Refused(400, "there can be one file", "file")

    async def _body(self, part: BodyPartReader, limit: int) -> bytearray:
        body = bytearray()
        while chunk := await part.read_chunk(self.CHUNK_BYTES):
            self._n_bytes += len(chunk)
            self._held.hold(self._n_bytes)
            body += chunk
            if len(body) > limit and limit == self.MAX_FILE_BYTES:
                self._refuse_size()
            if len(body) > limit:
                raise Refused(400, f"{part.name} is longer than {limit} bytes", part.name)
        return body

    def _refuse_size(self) -> NoReturn:
        raise Refused(413, f"Maximum content size limit ({self.MAX_FILE_BYTES}) exceeded", "file")


def _either(names: Sequence[str]) -> str:
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))
