"""A session's memory on the GPU and the host's side of it, laid out before it is used."""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...whisper.audio import Array
from ...whisper.session import Tokens
from ..checkpoint import HEAD_WIDTH
from .cuda import Device, Stream
from .plan import PlanFacts

Addresses = dict[str, int]
"""A tensor's name -> where it lies on the GPU."""


@dataclass(frozen=True)
class _Heads:
    """Where a decoder's few small results lie, and where its next step may read them."""

    tokens: int
    stride: int

    @property
    def positions(self) -> int:
        return self.tokens + self.stride

    @property
    def n_bytes(self) -> int:
        return 3 * self.stride

    @property
    def read(self) -> Addresses:
        """As inputs."""
        return {"tokens": self.tokens, "positions": self.positions}

    @property
    def written(self) -> Addresses:
        """As outputs."""
        return {
            "next_tokens": self.tokens,
            "next_positions": self.positions,
            "logprobs": self.tokens + 2 * self.stride,
        }

    def split(self, values: npt.NDArray[np.int32], batch: int) -> tuple[Tokens, Array]:
        """Return (tokens, logprobs), shape = (batch,) each, of all three as they were copied."""
        first = 2 * self.stride // 4
        return values[:batch], values[first : first + batch].view(np.float32)


class Memory:
    """What a session needs besides caches, laid out once for the largest shapes."""

    STEP = 2  # of the three heads: what `step` writes; the greedy loop has the first two

    def __init__(self, device: Device, facts: PlanFacts) -> None:
        self.facts = facts
        self._device = device
        stride = _aligned(4 * facts.max_batch)
        inputs = {
            "tokens": 4 * facts.max_batch * facts.MAX_PREFILL_TOKENS,
            "positions": 4 * facts.MAX_PREFILL_TOKENS,
            "parents": 4 * facts.max_batch,
        }
        heads = {f"heads_{i}": 3 * stride for i in range(3)}
        mel = {"mel": 4 * facts.n_mels * 2 * facts.n_audio_ctx}
        logits = {"logits": 4 * facts.max_batch * facts.n_vocab}
        ctx_bytes = facts.n_text_head * facts.most_ctx * HEAD_WIDTH * facts.itemsize
        layers = range(facts.n_text_layer)
        rest = {
            "logit_bias": 4 * facts.n_vocab,
            "slots": 4 * facts.n_text_ctx,
            "first_row": 4,
            "candidates": 4 * facts.max_batch * facts.n_candidates,
            "candidate_logprobs": 4 * facts.max_batch * facts.n_candidates,
            **{f"cross_{part}_{i}": ctx_bytes for i in layers for part in "kv"},
            "cross_bias": facts.most_ctx * facts.itemsize,
        }
        offsets, n_bytes = _layout({**inputs, **heads, **mel, **logits, **rest})
        self._host_offsets, n_host_bytes = _layout({**inputs, **heads, **mel, **logits})
        self.input_bytes = sum(map(_aligned, inputs.values()))
        with ExitStack() as stack:
            self.device = stack.enter_context(device.allocate(n_bytes))
            self._host = stack.enter_context(device.allocate_host(n_host_bytes))
            self._owned = stack.pop_all()
        self.at: Addresses = {name: self.device.handle + at for name, at in offsets.items()}
        self.host_at: Addresses = {
            name: self._host.handle + at for name, at in self._host_offsets.items()
        }
        """The host's side of some of it, under the same names."""
        self.heads = [_Heads(self.at[f"heads_{i}"], stride) for i in range(3)]
        self.results = [
            heads.split(self.view(f"heads_{i}", np.int32, (heads.n_bytes // 4,)), facts.max_batch)
            for i, heads in enumerate(self.heads)
        ]

    def view(self, name: str, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """Return the beginning of the host's side as an array."""
        return self._host.view(dtype, shape, self._host_offsets[name])

    def keys(self, stream: Stream, n_ctx: int) -> Array:
        """Return the audio's keys, shape = (n_text_layer, n_head, n_ctx, 64); waits for the GPU."""
        shape = (self.facts.n_text_head, HEAD_WIDTH, n_ctx)
        n_bytes = math.prod(shape) * self.facts.itemsize
        keys = []
        with self._device.allocate_host(n_bytes) as pinned:
            for layer in range(self.facts.n_text_layer):
                stream.download(pinned.handle, self.at[f"cross_k_{layer}"], n_bytes)
                stream.synchronize()
                values = pinned.view(self.facts.precision, shape)
                keys.append(values.transpose(0, 2, 1).astype(np.float32))
        return np.stack(keys)

    def close(self) -> None:
        self._owned.close()


class Rows:
    """Two sets of self-attention keys and values: a step reads the one and writes the other."""

    def __init__(self, device: Device, facts: PlanFacts, batch: int, n_slots: int) -> None:
        self.n_slots = n_slots
        self.current = 0
        """The set that holds what was said so far."""
        n_bytes = batch * facts.n_text_head * n_slots * HEAD_WIDTH * facts.itemsize
        names = [f"self_{part}_{i}" for i in range(facts.n_text_layer) for part in "kv"]
        offsets, total = _layout(dict.fromkeys(names, n_bytes))
        with ExitStack() as stack:
            self.sets = [stack.enter_context(device.allocate(total)) for _ in range(2)]
            self._owned = stack.pop_all()
        self.reads: list[Addresses] = [
            {name: one.handle + at for name, at in offsets.items()} for one in self.sets
        ]
        self.writes: list[Addresses] = [
            {f"new_{name}": address for name, address in one.items()} for one in self.reads
        ]

    def close(self) -> None:
        self._owned.close()


def _layout(sizes: dict[str, int]) -> tuple[dict[str, int], int]:
    """Return each name's offset, aligned, and the bytes of all together."""
    offsets, end = {}, 0
    for name, n_bytes in sizes.items():
        offsets[name] = end
        end += _aligned(n_bytes)
    return offsets, end


def _aligned(n_bytes: int) -> int:
    return -(-n_bytes // Device.ALIGNMENT) * Device.ALIGNMENT
