"""What all backends do around their runtime: speech or not, mel, decoding, the answer."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from ..errors import TranscribeError, UnknownLanguageError
from ..transcriber import SAMPLE_RATE, Samples, TranscribeOptions, Transcription
from ..vad import SileroVad, Span, SpanOptions, cut, speech_spans
from ..whisper.audio import log_mel_spectrogram
from ..whisper.decoding import Decoder, DecodingOptions, Inference, Stopwatch
from ..whisper.tokenizer import LANGUAGES, Tokenizer

_LOGGER = logging.getLogger(__name__)

# Not one frame that Silero would call speech: then the model is not even asked. People reach 0.97
# and more, synthetic voices too; six of seven 3 s pieces of kitchen noise stay below.
SILENCE_THRESHOLD = 0.5


@dataclass(frozen=True)
class SpeechOptions:
    """What is done with audio that isn't speech."""

    filter: SpanOptions | None = None
    """Leave out every longer pause (`--vad-filter`)."""

    clip: SpanOptions | None = None
    """Leave out what comes before the first and after the last word (`--vad-clip`)."""


class WhisperTranscriber:
    """A Transcriber over any `Inference`: two backends, one behaviour."""

    def __init__(
        self,
        inference: Inference,
        tokenizer: Tokenizer,
        languages: tuple[str, ...],
        decoding: DecodingOptions,
        speech: SpeechOptions,
        description: str,
    ) -> None:
        self.languages = languages
        self.description = description
        self._inference = inference
        self._decoding = decoding
        self._speech = speech
        self._vad = SileroVad()
        self._decoder = Decoder(inference, tokenizer, languages, decoding)

    def transcribe(self, samples: Samples, options: TranscribeOptions) -> Transcription:
        """Return what was said. Raises TranscribeError; see Transcriber."""
        language = self._checked(options.language)
        seconds = len(samples) / SAMPLE_RATE
        stopwatch = Stopwatch()
        with stopwatch("vad"):
            speech = self._speech_in(samples)
        if speech is None:
            return Transcription("", language, seconds=seconds, stages=stopwatch.seconds)
        with stopwatch("mel"):
            mel = log_mel_spectrogram(speech, self._inference.n_mels)
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
            seconds=seconds,
            stages=stopwatch.seconds,
            rejected=result.rejected,
        )

    def warm_up(self) -> None:
        """Touch every part once: the first speaker should not pay for lazy initialisation."""
        noise = np.random.default_rng(0).normal(0.0, 0.05, SAMPLE_RATE).astype(np.float32)
        self._vad.probabilities(noise)
        self._decoder.decode(log_mel_spectrogram(noise, self._inference.n_mels), self.languages[0])

    def close(self) -> None:
        """Drop the model; its memory goes with the last reference."""
        del self._decoder, self._inference, self._vad

    def _checked(self, language: str | None) -> str | None:
        if language is None or language in self.languages:
            return language
        raise UnknownLanguageError(
            f"this model does not understand {LANGUAGES.get(language, language)!r}; "
            f"it understands {', '.join(self.languages)}"
        )

    def _speech_in(self, samples: Samples) -> Samples | None:
        """Return the part of `samples` to transcribe, None when nobody speaks."""
        probabilities = self._vad.probabilities(samples)
        if not len(probabilities) or probabilities.max() < SILENCE_THRESHOLD:
            return None
        spans: list[Span] = [(0, len(samples))]
        if self._speech.filter:
            spans = speech_spans(probabilities, len(samples), self._speech.filter)
        elif self._speech.clip:
            found = speech_spans(probabilities, len(samples), self._speech.clip)
            spans = [(found[0][0], found[-1][1])] if found else spans
        return cut(samples, spans) if spans else None

    def _previous_text(self, names: tuple[str, ...]) -> str | None:
        """Names, then the user's own prompt: what stands last is kept when it gets too long."""
        parts = [", ".join(names), self._decoding.initial_prompt or ""]
        return " ".join(part for part in parts if part) or None
