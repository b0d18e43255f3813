"""Whether somebody said a text: what the audio has to do with it, weighed."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..transcriber import Transcription
from .repetition import compression_ratio

# Weights of a logistic regression: texts of real speech (also quiet, distant and noisy) against
# those that stock base and tiny.en made of noise, with and without a prompt. Fitted on one half of
# the recordings and of sounds made for it, judged on the other (docs/benchmarks.md, Noise).
BIAS = -6.4
PER_CLEAR = 2.0  # times log(1 + frames that are clearly speech)
PER_GAIN = 3.5  # times nats a token by which the audio makes the text likelier than noise does
PER_HEARD = 8.4  # times the text's mean log-probability
PER_NO_SPEECH = -7.9  # times Whisper's own probability that nothing was said
PER_SLOWNESS = 7.5  # times log(tokens per second of speech / SLOW)

# Recordings in 16 languages have 25 characters a second at most.
CHARACTERS_PER_SECOND = 50
MAX_GAIN = 6.0  # more is not more certain
MIN_HEARD = -2.0
SLOW = 3.0  # tokens per second of speech; people hardly say fewer
MIN_SECONDS = 0.1


@dataclass(frozen=True)
class Voicing:
    """How much of the audio is a voice's, by the voice activity detector."""

    voiced_seconds: float
    """More likely speech than not."""
    clear_frames: int
    """Of the detector's frames, those that are clearly speech."""


def made_up(transcription: Transcription, voicing: Voicing) -> str | None:
    """Return why the text is taken for one that Whisper made up, or None.

    Whisper writes what is likely to be said, also where a baby cries or a pan clatters. Words alone
    don't tell: people do say "thank you". Told by how little the audio has to do with them.
    """
    if not transcription.text or transcription.noise_logprob is None:
        return None
    evidence = speech_evidence(transcription, voicing)
    return None if evidence >= 0 else f"evidence of {evidence:.1f} that nobody said it"


def is_loop(text: str, voicing: Voicing) -> bool:
    """Return whether the text goes round, for longer than anybody can have spoken.

    For texts of other servers, of which nothing else is known; those of our own models are judged
    where they are written (whisper/windows.py).
    """
    loop_compression_ratio = 2.4  # as Whisper's own
    spare_characters = 40
    room = spare_characters + CHARACTERS_PER_SECOND * voicing.voiced_seconds
    return len(text) > room and compression_ratio(text) > loop_compression_ratio


def score_evidence(heard_logprob: float, noise_logprob: float) -> float:
    """Return the part of the log-odds that is the text's own likelihood; see Transcription."""
    gain = heard_logprob - noise_logprob
    return PER_GAIN * min(gain, MAX_GAIN) + PER_HEARD * max(heard_logprob, MIN_HEARD)


def speech_evidence(transcription: Transcription, voicing: Voicing) -> float:
    """Return the log-odds of the text's having been said; without evidence of its own, ValueError.

    The prior is even: as many noises as utterances come through the voice activity detector.
    """
    if transcription.noise_logprob is None or transcription.heard_logprob is None:
        raise ValueError("this text was not weighed")
    seconds = max(voicing.voiced_seconds, MIN_SECONDS)
    return (
        BIAS
        + PER_CLEAR * math.log1p(voicing.clear_frames)
        + score_evidence(transcription.heard_logprob, transcription.noise_logprob)
        + PER_NO_SPEECH * transcription.no_speech_prob
        + PER_SLOWNESS * min(0.0, math.log(max(transcription.n_tokens, 1) / seconds / SLOW))
    )
