"""Whisper's encoder and decoder as a runtime offers them: types only.

`search.SessionInference` makes an `Inference` of any of them.
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

    @property
    def n_mels(self) -> int: ...

    @property
    def n_vocab(self) -> int: ...

    @property
    def n_candidates(self) -> int:
        """Of `StepOutput.candidates`: twice the beam; 0 where only greedy search was built."""

    @property
    def max_batch(self) -> int:
        """Rows that `open_cache` allows: beams, or samples."""

    @property
    def is_elastic(self) -> bool:
        """Whether it is an ElasticSession.

        In others all memory is laid out ahead: audio features are gone with the next `encode`, a
        cache with the next of as many rows.
        """

    def encode(self, mel: Array) -> Any:
        """Return audio features of `mel`, shape = (n_mels, n_frames), even and <= 3000.

        They are the cross-attention's keys and values; see `is_elastic`.
        """

    def bias(self, suppressed: Sequence[int]) -> Any:
        """Return what makes these tokens impossible; the same for the same ones."""

    def open_cache(self, audio_features: Any, batch: int, n_slots: int) -> Any:
        """Return an empty self-attention cache for `n_slots` positions of `batch` rows.

        All rows share the audio features.
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


class _ElasticOutput(StepOutput, Protocol):
    """What an ElasticSession gives."""

    def wanted_logits(self) -> Array:
        """Return those that were wanted, shape = (batch, n_wanted, n_vocab)."""


class ElasticSession(Session, Protocol):
    """A session whose memory comes and goes as it is needed.

    Audio features and caches are good for as long as somebody has them; a cache grows, and its rows
    may be continued by more rows than it has.
    """

    def step(
        self,
        cache: Any,
        tokens: Tokens,
        position: int,
        bias: Any,
        parents: Tokens | None = None,
        wanted: Sequence[int] = (),
    ) -> _ElasticOutput:
        """See Session; the output has the logits after `wanted`, indices into `tokens`, too."""

    def attention(
        self,
        audio_features: Any,
        tokens: Sequence[int],
        heads: Sequence[tuple[int, int]],
        n_positions: int,
    ) -> Array:
        """Return how much each token attends to each of the first positions of the audio.

        `heads` are (layer, head), none for all of the last half of the layers; shape = (n_heads,
        n_tokens, n_positions), and the weights of a token are 1 together.
        """
