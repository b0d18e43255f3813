"""From audio features to tokens: greedy, beam and sampled search over a `Session`.

Numpy only; what a runtime does is the `Session` it gets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from .audio import Array

Tokens = npt.NDArray[np.int32]


class StepOutput(Protocol):
    """What the decoder says of the position after the last token; good until the next step."""

    def best(self) -> tuple[Tokens, Array]:
        """Return (tokens, logprobs), shape = (batch,) each: the likeliest with the bias added."""

    def candidates(self) -> tuple[Tokens, Array]:
        """Return (tokens, logprobs), shape = (batch, n_candidates), best first, bias added."""

    def logits(self) -> Array:
        """Return logits before any bias, shape = (batch, n_vocab)."""


class Session(Protocol):
    """Whisper's encoder and decoder on some runtime; used from one thread at a time.

    What `encode`, `bias` and `open_cache` return is opaque and stays where the session runs.
    """

    n_mels: int
    n_vocab: int
    n_candidates: int
    """Of `StepOutput.candidates`, twice the beam; 0 where only greedy search was built."""
    max_batch: int
    """Rows that `open_cache` allows: beams, or samples."""

    def encode(self, mel: Array) -> Any:
        """Return audio features of `mel`, shape = (n_mels, n_frames), even and <= 3000.

        They are the cross-attention's keys and values, good until the next `encode`.
        """

    def bias(self, suppressed: Sequence[int]) -> Any:
        """Return what makes these tokens impossible; to be kept and used again."""

    def open_cache(self, audio_features: Any, batch: int, n_slots: int) -> Any:
        """Return an empty self-attention cache for `n_slots` positions of `batch` rows.

        It replaces an earlier one with as many rows. All rows share the audio features.
        """

    def step(
        self,
        cache: Any,
        tokens: Tokens,
        position: int,
        bias: Any,
        parents: Tokens | None = None,
    ) -> StepOutput:
        """Run the decoder over `tokens`, shape = (batch, n_tokens), from `position` on.

        Positions before it keep what they had, those after it are forgotten. `parents`, shape =
        (batch,), names for each row the row whose past it continues; None: its own. Only sessions
        with candidates take them.
        """

    def greedy(
        self, cache: Any, token: int, position: int, bias: Any, max_new_tokens: int
    ) -> Iterator[tuple[int, float]]:
        """Yield (token, logprob) after `token` at `position` in row 0, each fed to the next step.

        The end token ends nothing: the caller stops asking. Ends when `max_new_tokens` were given
        or the cache is full.
        """

    def close(self) -> None:
        """Free the memory."""
