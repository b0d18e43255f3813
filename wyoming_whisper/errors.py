"""What can go wrong, as one tree. The message is always one sentence that a user can act on.

A class is what is handled apart; what only the client is to tell apart is the error's `code`.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable
from typing import Literal


class WyomingWhisperError(Exception):
    """Base of all errors that are told to a user rather than shown as a traceback."""

    code = "internal-error"
    """Machine-readable name, sent in Wyoming's `error` event."""

    def __init__(self, message: str = "", code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class SettingsError(WyomingWhisperError):
    """An option is unknown, has the wrong type, or names something not possible here."""

    code = "invalid-settings"


class ModelError(WyomingWhisperError):
    """The model can't be had, or no engine can be built of it, or kept.

    One whose name nobody knows has the code `unknown-model`.
    """

    code = "model-error"


class ModelUnavailableError(ModelError):
    """The model isn't on this machine and can't be fetched now; a later try may succeed."""

    code = "model-unavailable"


class ModelRefusedError(ModelUnavailableError):
    """The model can't be kept here (a full disk), or may not be fetched: no source would help."""


class ModelBrokenError(ModelError):
    """The model's files are cut off, corrupt or not a Whisper model."""

    code = "model-broken"


class EngineBrokenError(ModelError):
    """An engine is cut off, corrupt, or was compiled for another TensorRT or GPU."""

    code = "engine-broken"


class ProtocolError(WyomingWhisperError):
    """A peer sent something that is not Wyoming, or out of its bounds."""

    code = "protocol-error"


class AudioError(WyomingWhisperError):
    """Audio in a format, size or order that can't be understood."""

    code = "invalid-audio"


class TranscribeError(WyomingWhisperError):
    """The request can't be answered: its options are not possible, or the backend failed.

    One that took longer than anybody should wait has the code `deadline-exceeded`.
    """

    code = "transcribe-failed"


class BusyError(TranscribeError):
    """There is more to do than the server may take on; a later try may succeed."""

    code = "busy"


class StoppedError(TranscribeError):
    """The server is shutting down, and --drain-seconds are over."""

    code = "server-stopped"


class NotPossibleError(TranscribeError, ValueError):
    """What is asked for is not to be had of this model or its backend: the asker's fault.

    The codes are `unknown-language`, `unknown-task` and `no-word-times`.
    """

    code = "not-possible"


class UpstreamError(TranscribeError):
    """Another server can't be reached, fails, or answers with what is no transcript.

    `fault` says whose that is: the `server` failed; it is `absent`, and well again when it takes a
    connection; or it can't answer this `request`, or this `language`, and others it can. A server
    that has too much to do is to be asked again only after `retry_seconds`.
    """

    code = "upstream-failed"

    def __init__(
        self,
        message: str,
        fault: Literal["server", "absent", "request", "language"] = "server",
        retry_seconds: float = 0.0,
    ) -> None:
        super().__init__(message)
        self.fault = fault
        self.retry_seconds = retry_seconds

    @staticmethod
    def reason(error: BaseException) -> str:
        """Return in a few words why there is no connection, or none any more."""
        number, text = (getattr(error, name, None) for name in ("errno", "strerror"))
        # Of a name with several addresses asyncio raises one error with the texts of all.
        if number is None and (match := re.search(r"\[Errno (\d+)\]", str(error))):
            number = int(match[1])
        if number is not None and number > 0:  # asyncio's own text repeats the address
            return os.strerror(number)
        is_closed = isinstance(error, ConnectionError | EOFError)
        return text or ("it was closed" if is_closed else type(error).__name__)


class EngineError(TranscribeError):
    """An engine's library, or the GPU, failed; what was asked may be asked of another backend."""

    code = "engine-failed"


def did_you_mean(word: object, choices: Iterable[str], cutoff: float = 0.6) -> str:
    """Return the end of a sentence that refuses `word`, naming the choice most like it, or ""."""
    nearest = difflib.get_close_matches(str(word), sorted(choices), n=1, cutoff=cutoff)
    return f"; did you mean {nearest[0]}?" if nearest else ""
