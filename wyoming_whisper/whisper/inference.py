"""A Whisper model on some runtime, as decoding asks it: types only."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..transcriber import go_on
from .audio import Array


@dataclass(frozen=True)
class GenerateOptions:
    """What one call of `Inference.generate` is told."""

    beam_size: int
    temperature: float
    best_of: int
    max_new_tokens: int
    suppressed_tokens: Sequence[int]
    checkpoint: Callable[[], None] = field(default=go_on, repr=False, compare=False)
    """Called between tokens where the runtime allows; what it raises ends the work."""


@dataclass(frozen=True)
class Hypothesis:
    """What one call of `Inference.generate` found."""

    tokens: list[int]
    avg_logprob: float
    no_speech_prob: float
    others: tuple[list[int], ...] = field(default=(), compare=False)
    """What else the search has found, likeliest first."""
    heard_logprob: float | None = field(default=None, compare=False)
    """Mean log-probability of the text's tokens by the audio alone, without a prompt."""
    noise_logprob: float | None = field(default=None, compare=False)
    """The same with noise in place of the audio."""
    understood: bool | None = field(default=None, compare=False)
    """Whether it is a sentence of the home's grammar; None where that was not asked."""
    free_text: str | None = field(default=None, compare=False)
    """What was written before a sentence of the home took its place."""
    positions: Sequence[int] = field(default=(), compare=False)
    """Where each of the text's tokens begins, and the last one ends; see `Inference.align`."""


Correct = Callable[[Any, Sequence[int], str, Hypothesis], Hypothesis]
"""Given audio features, prompt, language and what was written after it, returns what was meant."""


class Inference(Protocol):
    """A Whisper model on some runtime. `audio_features` are opaque and stay where they are."""

    n_mels: int
    can_align: bool = False
    """Whether the runtime says what its decoder attends to."""

    def encode(self, mel: Array) -> Any:
        """Return audio features of a window, shape = (n_mels, n_frames), even and <= 3000."""

    def detect_language(self, audio_features: Any) -> list[tuple[str, float]]:
        """Return (code, probability), likeliest first; only asked of multilingual models."""

    def generate(
        self, audio_features: Any, prompt: Sequence[int], options: GenerateOptions
    ) -> Hypothesis:
        """Return the best hypothesis after `prompt`, without its end token."""

    def score(
        self, audio_features: Any, prompt: Sequence[int], texts: Sequence[Sequence[int]]
    ) -> list[Array]:
        """Return the log-probabilities of each text's tokens after `prompt`, shape = (n_tokens,).

        They are among text tokens; `prompt` ends with the token of no timestamps.
        """

    def align(
        self, audio_features: Any, prompt: Sequence[int], text: Sequence[int], n_positions: int
    ) -> Sequence[int]:
        """Return at which of the encoder's positions each token of `text` begins, and where the
        last one ends: shape = (n_tokens + 1,).

        `prompt` ends with the token of no timestamps; only the first `n_positions` are audio.
        Raises RuntimeError where `can_align` is not.
        """
        raise RuntimeError("this runtime does not tell what its decoder attends to")


@dataclass
class Stopwatch:
    """Seconds per stage, summed over windows."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start
