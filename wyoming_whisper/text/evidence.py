"""Whether somebody said a text: what the audio has to do with it, weighed."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ..transcriber import Transcription
from .repetition import compression_ratio, said_once


@dataclass(frozen=True)
class Voicing:
    """How much of the audio is a voice's, by the voice activity detector."""

    voiced_seconds: float
    """More likely speech than not."""
    clear_frames: int
    """Of the detector's frames, those that are clearly speech."""

    def judged(self, transcription: Transcription) -> Transcription:
        """Return what of a transcription of just this audio was said, as it was written.

        Whisper writes what is likely to be said, also where a baby cries or a pan clatters. Words
        alone don't tell: people do say "thank you". What tells is how little the audio has to do
        with them.
        """
        if not transcription.text:
            return transcription
        if transcription.noise_logprob is None:
            if not self._is_loop(transcription.text):
                return transcription
            return replace(transcription, text=said_once(transcription.text))
        evidence = SpeechEvidence().of(transcription, self)
        if evidence >= 0:
            return transcription
        reason = f"evidence of {evidence:.1f} that nobody said it"
        return replace(transcription, text="", rejected=reason)

    def _is_loop(self, text: str) -> bool:
        """Return whether the text goes round, for longer than anybody can have spoken.

        For texts of other servers, of which nothing else is known; those of our own models are
        judged where they are written (whisper/decoding.py).
        """
        max_compression_ratio = 2.4  # as Whisper's own
        # Recordings in 16 languages have 25 characters a second at most.
        max_characters = 40 + 50 * self.voiced_seconds
        return len(text) > max_characters and compression_ratio(text) > max_compression_ratio


@dataclass(frozen=True)
class SpeechEvidence:
    """The log-odds of a text's having been said, by a logistic regression.

    The weights tell texts of real speech (also quiet, distant and noisy) from those that stock base
    and tiny.en made of noise, with and without a prompt. Fitted on one half of the recordings and
    of sounds made for it, judged on the other (docs/benchmarks.md, Noise).
    """

    bias: float = -6.4
    per_clear: float = 2.0
    """Times log(1 + frames that are clearly speech)."""
    per_gain: float = 3.5
    """Times nats a token by which the audio makes the text likelier than noise does."""
    per_logprob: float = 8.4
    """Times the text's mean log-probability."""
    per_no_speech: float = -7.9
    """Times Whisper's own probability that nothing was said."""
    per_slowness: float = 7.5
    """Times log(tokens per second of speech / slow)."""

    max_gain: float = 6.0
    """More is not more certain."""
    min_logprob: float = -2.0
    slow: float = 3.0
    """Tokens per second of speech; people hardly say fewer."""

    def of(self, transcription: Transcription, voicing: Voicing) -> float:
        """Return the log-odds; without likelihoods of its own, ValueError.

        The prior is even: as many noises as utterances come through the voice activity detector.
        """
        if transcription.noise_logprob is None or transcription.heard_logprob is None:
            raise ValueError("this text was not weighed")
        seconds = max(voicing.voiced_seconds, 0.1)
        tokens_per_second = max(transcription.n_tokens, 1) / seconds
        return (
            self.bias
            + self.per_clear * math.log1p(voicing.clear_frames)
            + self.of_likelihoods(transcription.heard_logprob, transcription.noise_logprob)
            + self.per_no_speech * transcription.no_speech_prob
            + self.per_slowness * min(0.0, math.log(tokens_per_second / self.slow))
        )

    def of_likelihoods(self, heard_logprob: float, noise_logprob: float) -> float:
        """Return the part of the log-odds that is the text's own likelihood; see Transcription."""
        gain = min(heard_logprob - noise_logprob, self.max_gain)
        return self.per_gain * gain + self.per_logprob * max(heard_logprob, self.min_logprob)
