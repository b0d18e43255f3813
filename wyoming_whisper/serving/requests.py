"""What a client asks for, read from its events: whatever is wrong with a field is one sentence."""

from __future__ import annotations

from typing import Any

from wyoming.event import Event

from ..errors import ProtocolError, UnknownLanguageError
from ..utterance.endpointing import SENSITIVITIES
from ..whisper.tokenizer import LANGUAGES, language_code
from ..wire import with_whole_numbers

SHOWN_LENGTH = 50  # of a peer's words in an error


def requested_language(wanted: str | None, default: str | None) -> str | None:
    """Return Whisper's code for what a client named, `default` if it named none.

    Raises ProtocolError, UnknownLanguageError.
    """
    if not wanted:
        return default
    if not isinstance(wanted, str):
        raise ProtocolError("language must be a string")
    if wanted == "auto":
        return None
    code = language_code(wanted)
    if code is None:
        raise UnknownLanguageError(
            f"Whisper does not know the language {shortened(wanted)}; "
            f"it knows {', '.join(sorted(LANGUAGES))}"
        )
    return code


def read_sensitivity(wanted: object) -> str:
    """Return how soon commands are to end. Raises ProtocolError."""
    if wanted is None:
        return "default"
    if isinstance(wanted, str) and wanted in SENSITIVITIES:
        return str(getattr(wanted, "value", wanted))  # the wyoming library's is an Enum
    known = ", ".join(SENSITIVITIES)
    raise ProtocolError(f"vad_sensitivity must be one of {known}, not {shortened(wanted)}")


def read_strings(value: object) -> tuple[str, ...]:
    """Return names or terms, which the wyoming library doesn't check. Raises ProtocolError."""
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ProtocolError("transcript_names and transcript_terms must be lists of strings")
    return tuple(value)


def shortened(words: object) -> str:
    """Return a peer's words, which may be many, for people."""
    text = repr(words)
    return text if len(text) <= SHOWN_LENGTH else text[:SHOWN_LENGTH] + "..."


def checked(kind: Any, event: Event) -> Any:
    """Return the event as `kind`; what its fields lack is the peer's fault, in one sentence."""
    try:
        return kind.from_event(with_whole_numbers(event))
    except KeyError as error:
        raise ProtocolError(f"{event.type} needs {error.args[0]!r}") from error
    except (TypeError, ValueError) as error:
        raise ProtocolError(f"{event.type} can't be understood: {error}") from error
