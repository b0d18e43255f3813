"""Whether somebody said a text: what the audio has to do with it, weighed."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ..transcriber import Transcription
from .repetition import compression_ratio, said_once


@dataclass(frozen=True)
class Voicing:
    """How much of the audio is a voice's, by the voice activity detector.

    With a transcription of that audio it tells the log-odds of the text's having been said, by a
    logistic regression. The weights tell texts of real speech (also quiet, distant and noisy) from
    those that stock base and tiny.en made of noise, with and without a prompt. Fitted on one half
    of the recordings and of sounds made for it, judged on the other (docs/benchmarks.md, Noise).
    """

    BIAS = -6.4
    PER_CLEAR = 2.0
    """Times log(1 + frames that are clearly speech)."""
    PER_GAIN = 3.5
    """Times nats a token by which the audio makes the text likelier than noise does."""
    PER_LOGPROB = 8.4
    """Times the text's mean log-probability."""
    PER_NO_SPEECH = -7.9
    """Times Whisper's own probability that nothing was said."""
    PER_SLOWNESS = 7.5
    """Times log(tokens per second of speech / SLOW)."""
    MAX_GAIN = 6.0
    """More is not more certain."""
    MIN_LOGPROB = -2.0
    SLOW = 3.0
    """Tokens per second of speech; people hardly say fewer."""

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
        evidence = self.evidence(transcription)
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

    def evidence(self, transcription: Transcription) -> float:
        """Return the log-odds; without likelihoods of its own, ValueError.

        The prior is even: as many noises as utterances come through the voice activity detector.
        """
        if transcription.noise_logprob is None or transcription.heard_logprob is None:
            raise ValueError("this text was not weighed")
        tokens_per_second = max(transcription.n_tokens, 1) / max(self.voiced_seconds, 0.1)
        return (
            self.BIAS
            + self.PER_CLEAR * math.log1p(self.clear_frames)
            + self.of_likelihoods(transcription.heard_logprob, transcription.noise_logprob)
            + self.PER_NO_SPEECH * transcription.no_speech_prob
            + self.PER_SLOWNESS * min(0.0, math.log(tokens_per_second / self.SLOW))
        )

    @classmethod
    def of_likelihoods(cls, heard_logprob: float, noise_logprob: float) -> float:
        """Return the part of the log-odds that is the text's own likelihood; see Transcription."""
        gain = min(heard_logprob - noise_logprob, cls.MAX_GAIN)
        return cls.PER_GAIN * gain + cls.PER_LOGPROB * max(heard_logprob, cls.MIN_LOGPROB)
