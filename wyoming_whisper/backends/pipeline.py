"""What all backends do around their runtime: mel, decoding, the answer."""

from __future__ import annotations

import logging

import numpy as np

from ..errors import TranscribeError, UnknownLanguageError
from ..transcriber import SAMPLE_RATE, Samples, TranscribeOptions, Transcription
from ..whisper.audio import log_mel_spectrogram
from ..whisper.decoding import Decoder, DecodingOptions, Inference, Stopwatch
from ..whisper.tokenizer import LANGUAGES, Tokenizer

_LOGGER = logging.getLogger(__name__)


class WhisperTranscriber:
    """A Transcriber over any `Inference`: two backends, one behaviour."""

    def __init__(
        self,
        inference: Inference,
        tokenizer: Tokenizer,
        languages: tuple[str, ...],
        detectable: tuple[str, ...],
        decoding: DecodingOptions,
        description: str,
    ) -> None:
        self.languages = languages
        self.description = description
        self._inference = inference
        self._decoding = decoding
        self._decoder = Decoder(inference, tokenizer, detectable, decoding)

    def transcribe(self, samples: Samples, options: TranscribeOptions) -> Transcription:
        """Return what was said. Raises TranscribeError; see Transcriber."""
        language = self._checked(options.language)
        stopwatch = Stopwatch()
        with stopwatch("mel"):
            mel = log_mel_spectrogram(samples, self._inference.n_mels)
        try:
            result = self._decoder.decode(
                mel, language, self._previous_text(options.names), stopwatch
            )
        except RuntimeError as error:
            raise TranscribeError(f"the model failed on this audio: {error}") from error
        if result.rejected:
            _LOGGER.debug("withheld %r: %s", result.text, result.rejected)
        return Transcription(
            text=result.text,
            language=result.language,
            language_probability=result.language_probability,
            avg_logprob=result.avg_logprob,
            no_speech_prob=result.no_speech_prob,
            seconds=len(samples) / SAMPLE_RATE,
            stages=stopwatch.seconds,
            rejected=result.rejected,
        )

    def warm_up(self) -> None:
        """Touch every part once: the first speaker should not pay for lazy initialisation."""
        noise = np.random.default_rng(0).normal(0.0, 0.05, SAMPLE_RATE).astype(np.float32)
        self._decoder.decode(log_mel_spectrogram(noise, self._inference.n_mels), self.languages[0])

    def close(self) -> None:
        """Drop the model; its memory goes with the last reference."""
        del self._decoder, self._inference

    def _checked(self, language: str | None) -> str | None:
        if language is None or language in self.languages:
            return language
        raise UnknownLanguageError(
            f"this model does not understand {LANGUAGES.get(language, language)!r}; "
            f"it understands {', '.join(self.languages)}"
        )

    def _previous_text(self, names: tuple[str, ...]) -> str | None:
        """Names, then the user's own prompt: what stands last is kept when it gets too long."""
        parts = [", ".join(names), self._decoding.initial_prompt or ""]
        return " ".join(part for part in parts if part) or None
