"""What a client asks for, read from its events: whatever is wrong with a field is one sentence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wyoming.asr import Transcribe

from ..errors import ProtocolError, UnknownModelError
from ..peers import shown
from ..transcriber import TranscribeOptions
from ..utterance.endpointing import Endpointer

if TYPE_CHECKING:
    from ..utterance.service import Service


@dataclass(frozen=True)
class Request:
    """What a `transcribe` event asks for."""

    options: TranscribeOptions
    context: dict[str, Any] | None = None
    vad_sensitivity: str = "default"

    @classmethod
    def of(cls, transcribe: Transcribe, service: Service) -> Request:
        """Raises ProtocolError, UnknownModelError, NotPossibleError."""
        settings = service.settings
        if transcribe.name and transcribe.name != settings.model:
            raise UnknownModelError(
                f"no model {shown(transcribe.name)} is here, only {settings.model!r}"
            )
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
