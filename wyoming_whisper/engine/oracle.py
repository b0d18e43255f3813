"""The graphs that TensorRT compiles, in onnxruntime on the CPU: it proves them, and judges engines.

What the contract calls gone (audio features after the next `encode`, an output after the next
`step`) is refused, where keeping it would be easy: on a GPU the memory has been written over.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..whisper.audio import Array
from ..whisper.session import Tokens
from .session import Arrays, GraphSession, lengthened
from .tensorrt.plan import PlanFacts


class OracleSession(GraphSession):
    """`encoder.onnx` and `decoder.onnx` of one folder; see `engine.graphs` for what they hold.

    Raises ModelBrokenError when they can't be loaded.
    """

    def __init__(self, folder: Path, threads: int = 0) -> None:
        """`threads` 0 leaves their number to onnxruntime."""
        super().__init__(folder, threads)
        outputs = {value.name: value for value in self._decoder.get_outputs()}
        self._takes_parents = "parents" in self._inputs
        self._takes_tail = "cross_bias" in self._inputs
        self.has_tail = self._takes_tail
        """Whether the rest of a full window follows a shorter one, frozen (engine.tail)."""
        self._output_names = list(outputs)
        kind = self._inputs["self_k_0"].type
        self._precision = np.float16 if kind == "tensor(float16)" else np.float32
        self._features: _Features | None = None
        self._open: dict[int, _Cache] = {}
        self._output: _Output | None = None
        self.n_candidates: int = outputs["candidates"].shape[1] if self._takes_parents else 0
        self.is_elastic = False
        self.max_batch = max(self.n_candidates // 2, self.MAX_SAMPLES)

    def encode(self, mel: Array) -> _Features:
        """See Session. Raises ValueError for a spectrogram of another shape.

        Where the tail is to follow, `mel` ends with silence.
        """
        self._check_mel(mel)
        if self._takes_tail:
            mel = lengthened(mel, has_tail=self.has_tail)
        self._features = _Features(self._encoded(mel))
        return self._features

    def open_cache(self, audio_features: _Features, batch: int, n_slots: int) -> _Cache:
        """See Session. Raises ValueError for more rows than `max_batch`."""
        if not 0 < batch <= self.max_batch:
            raise ValueError(f"{batch} rows, and {self.max_batch} are possible")
        shape = (batch, self._n_head, n_slots, self._head_width)
        arrays = {name: np.zeros(shape, self._precision) for name in self._caches}
        cache = _Cache(audio_features, batch, np.arange(n_slots, dtype=np.int32), arrays)
        self._open[batch] = cache
        return cache

    def step(
        self,
        cache: _Cache,
        tokens: Tokens,
        position: int,
        bias: Array,
        parents: Tokens | None = None,
    ) -> _Output:
        """See Session. Raises ValueError for tokens that the cache has no slots for."""
        self._check(cache, tokens, position)
        if parents is None:
            parents = np.arange(cache.batch, dtype=np.int32)
        elif not self._takes_parents:
            raise ValueError("these graphs were written for greedy search: they take no parents")
        for start in range(0, tokens.shape[1], PlanFacts.MAX_PREFILL_TOKENS):
            piece = tokens[:, start : start + PlanFacts.MAX_PREFILL_TOKENS]
            outputs = self._run(cache, piece, position + start, bias, parents)
            parents = np.arange(cache.batch, dtype=np.int32)
        if self._output:
            self._output.arrays = {}
        self._output = _Output(outputs)
        return self._output

    def close(self) -> None:
        """See Session."""
        self._features, self._output = None, None
        self._open.clear()
        super().close()

    def _check(self, cache: _Cache, tokens: Tokens, position: int) -> None:
        if cache.features is not self._features:
            raise RuntimeError("these audio features are gone: others have been encoded since")
        if self._open.get(cache.batch) is not cache:
            raise RuntimeError("this cache is gone: another of its size has been opened since")
        batch, n_tokens = tokens.shape
        if batch != cache.batch or not n_tokens:
            raise ValueError(
                f"tokens have the shape {tokens.shape}, not ({cache.batch}, 1 or more)"
            )
        if not 0 <= position <= cache.n_slots - n_tokens:
            raise ValueError(
                f"{n_tokens} tokens at position {position} of a cache of {cache.n_slots} slots"
            )

    def _run(
        self, cache: _Cache, tokens: Tokens, position: int, bias: Array, parents: Tokens
    ) -> Arrays:
        feed: Arrays = {
            "tokens": np.ascontiguousarray(tokens, np.int32),
            "positions": np.arange(position, position + tokens.shape[1], dtype=np.int32),
            "slots": cache.slots,
            "logit_bias": bias,
            **cache.features.arrays,
            **cache.arrays,
        }
        if self._takes_parents:
            feed["parents"] = np.ascontiguousarray(parents, np.int32)
        arrays = self._decoder.run(self._output_names, feed)
        outputs: Arrays = dict(zip(self._output_names, arrays, strict=True))
        cache.arrays = {name: outputs.pop(f"new_{name}") for name in self._caches}
        return outputs


@dataclass(frozen=True, eq=False)
class _Features:
    arrays: Arrays


@dataclass(eq=False)
class _Cache:
    """The decoder's self-attention cache, and what it attends to."""

    features: _Features
    batch: int
    slots: Tokens
    arrays: Arrays

    @property
    def n_slots(self) -> int:
        return len(self.slots)


@dataclass(eq=False)
class _Output:
    """A `whisper.search.StepOutput`; empty after the next step."""

    arrays: Arrays

    def best(self) -> tuple[Tokens, Array]:
        """See StepOutput."""
        return self._get("next_tokens")[:, 0], self._get("logprobs")[:, 0]

    def candidates(self) -> tuple[Tokens, Array]:
        """See StepOutput. Raises RuntimeError where only greedy search was built."""
        return self._get("candidates"), self._get("candidate_logprobs")

    def logits(self) -> Array:
        """See StepOutput."""
        return self._get("logits")

    def _get(self, name: str) -> npt.NDArray[Any]:
        if name not in self.arrays:
            raise RuntimeError(f"this step has no {name}, or is not the last one")
        return self.arrays[name]
