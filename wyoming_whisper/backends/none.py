"""No model at all: a front end that only passes on what it hears (--upstreams)."""

from __future__ import annotations

from ..errors import UpstreamError
from ..transcriber import Samples, TranscribeOptions, Transcription
from ..whisper.tokenizer import LANGUAGES


class NoModel:
    """A Transcriber that has nothing to transcribe with."""

    languages: tuple[str, ...] = tuple(LANGUAGES)
    description = "no model here"

    def transcribe(self, samples: Samples, options: TranscribeOptions) -> Transcription:
        """Raises UpstreamError: it is asked when nobody else has answered."""
        raise UpstreamError(
            "none of --upstreams has answered, and there is no model here (--backend none)"
        )

    def close(self) -> None:
        """There is nothing to free."""
