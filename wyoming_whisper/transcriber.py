"""The seam between protocol and inference: types only, no runtime, no Wyoming, no asyncio."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from .grammar.service import HomeTexts

SAMPLE_RATE = 16_000
"""Hertz of everything behind this seam."""

Samples = npt.NDArray[np.float32]
"""Mono, SAMPLE_RATE, -1..1, shape = (n_samples,)."""


class Abandoned(BaseException):
    """Raised by a checkpoint: nobody waits for this work any more.

    Not an Exception, as nothing has failed: who catches those must not take it for one.
    """


def go_on() -> None:
    """The checkpoint of work that is never broken off."""


@dataclass(frozen=True)
class TranscribeOptions:
    """What one request asks for; what the user set for all requests is the backend's."""

    language: str | None = None
    """Whisper's code, such as "en"; None detects it."""

    names: tuple[str, ...] = ()
    """Names and terms that are likelier than usual in this utterance."""

    language_prior: Mapping[str, float] = field(default_factory=dict)
    """Where one is detected: how many times likelier than others some are, whatever is heard."""

    task: Literal["transcribe", "translate"] | None = None
    """None is what the user set."""

    prompt: str | None = field(default=None, repr=False)
    """Text that precedes this audio, instead of the one that the user set."""

    temperature: float = 0.0
    """Above zero, samples are drawn at it; zero searches, and falls back to higher ones."""

    timestamps: bool = False
    """Whether the answer has segments."""

    words: bool = False
    """Whether segments have their words' times; needs `timestamps`."""

    home: HomeTexts | None = field(default=None, repr=False, compare=False)
    """What a misheard text is compared with where a backend can."""

    checkpoint: Callable[[], None] = field(default=go_on, repr=False, compare=False)
    """Called wherever the work can be broken off; what it raises ends it."""


@dataclass(frozen=True)
class Word:
    """One word that was said, and when."""

    start: float
    """Seconds from the beginning of the audio."""
    end: float
    text: str
    """Without blanks, and without punctuation around it."""


@dataclass(frozen=True)
class Segment:
    """Part of what was said, and when; the evidence is of the window it was heard in."""

    start: float
    """Seconds from the beginning of the audio."""
    end: float
    text: str
    """As the model writes it: with a blank before it in languages that part words by blanks."""
    tokens: tuple[int, ...]
    """Of the text and its two timestamps."""
    avg_logprob: float
    compression_ratio: float
    """How many times smaller zlib makes the window's text: loops compress well."""
    no_speech_prob: float
    temperature: float
    words: tuple[Word, ...] = ()
    """In order, where they were asked for."""


@dataclass(frozen=True)
class Transcription:
    """What was said."""

    text: str
    """Stripped, single spaces; empty when nothing was said."""

    language: str | None = None
    """Whisper's code of the language spoken; None when nothing was said and none was asked for."""

    language_probability: float = 1.0
    """1.0 when the language was given, not detected."""

    avg_logprob: float = 0.0
    """Mean log-probability of the tokens, end token included."""

    no_speech_prob: float = 0.0
    """Whisper's own estimate that nothing was said, 0..1."""

    n_tokens: int = 0
    """Of the text."""

    heard_logprob: float | None = None
    """Mean log-probability of the text's tokens by the audio alone; with the prompt where without
    one the audio bears the prompt's words out (backends/weighing.py)."""

    noise_logprob: float | None = None
    """The same had the audio been noise: how likely the text is anyway. None where nobody asked."""

    seconds: float = 0.0
    """Length of the audio."""

    stages: Mapping[str, float] = field(default_factory=dict)
    """Seconds per stage: mel, encode, detect, decode."""

    rejected: str | None = None
    """Why a text was withheld (the quality gate); None when nothing was."""

    segments: tuple[Segment, ...] = ()
    """Of the text, in order, where they were asked for."""

    understood: bool | None = None
    """Whether the text is a sentence of the home's grammar; None where that was not asked."""

    free_text: str | None = field(default=None, repr=False)
    """What was written before a sentence of the home took its place; None where none did."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that `transcribe --json` and benchmarks print."""
        return {
            "text": self.text,
            "language": self.language,
            "language_probability": round(self.language_probability, 4),
            "avg_logprob": round(self.avg_logprob, 4),
            "no_speech_prob": round(self.no_speech_prob, 4),
            "seconds": round(self.seconds, 3),
            "stages": {name: round(value, 4) for name, value in self.stages.items()},
            "rejected": self.rejected,
        }


class Transcriber(Protocol):
    """Turns samples into text. Synchronous.

    Used from one thread, or as many as an attribute `at_once` says, where it has one.
    """

    languages: tuple[str, ...]
    """Whisper's codes that this model understands."""

    description: str
    """What really runs, for people: model, device, compute type, threads."""

    def transcribe(self, samples: Samples, options: TranscribeOptions) -> Transcription:
        """Return what was said in `samples`: speech, not silence (see audio/speech.py).

        Raises TranscribeError when the options are not possible or the runtime fails.
        """

    def close(self) -> None:
        """Free the memory of the model."""
