"""Whisper's graphs as TensorRT engines on an NVIDIA GPU.

`TensorRTSession` is a `whisper.session.Session`. A token costs one launch: the decoder's step is
two CUDA graphs (`loops.py`), the first reading one set of tokens, positions and caches and writing
the other, the second the reverse, and the host is always one step ahead of what it reads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import EngineError
from ...whisper.audio import Array
from ...whisper.session import Tokens
from ..session import IMPOSSIBLE
from ..tail import Tail
from .cuda import Device, DeviceBuffer
from .engine import Context, Engine
from .library import LIBRARIES, Kernels
from .loops import Loops
from .memory import Memory, Rows
from .plan import PlanFacts

_LOGGER = logging.getLogger(__name__)


class TensorRTSession:
    """Whisper on a GPU, from an engine's folder; used from any thread, but one at a time.

    `cuda_graphs` False queues each kernel of a step by itself: the same results, more slowly.
    `kernels` is the file of what TensorRT-RTX compiles on this GPU. Raises EngineBrokenError where
    the plans can't be read, EngineError where the library is missing or the GPU fails.
    """

    WARM_UP_TOKENS = 4  # as many as a usual prompt has

    def __init__(
        self,
        folder: Path,
        device: int = 0,
        cuda_graphs: bool = True,
        kernels: Path | None = None,
    ) -> None:
        self.facts = facts = PlanFacts.read(folder)
        self.n_mels, self.n_vocab = facts.n_mels, facts.n_vocab
        self.n_candidates = facts.n_candidates
        self.is_elastic = False
        self.max_batch = facts.max_batch
        self.has_tail = False
        """Whether the rest of a full window follows a shorter one; only where the graphs have it"""
        self._features: _Features | None = None
        self._rows: dict[int, Rows] = {}
        self._caches: dict[int, _Cache] = {}
        self._contexts: dict[tuple[str, int, bool], Context] = {}
        self._biases: dict[tuple[int, ...], DeviceBuffer] = {}
        self._copied_bias: DeviceBuffer | None = None
        self._run_number = 0  # of what wrote the outputs last
        self._library = LIBRARIES[facts.runtime]
        trt = self._library.load()
        # Pushed in the order of need, and so closed in the reverse one.
        with ExitStack() as stack:
            self._device = stack.enter_context(Device(device))
            self._device.use()
            self._stream = stack.enter_context(self._device.stream())
            self._passed = [stack.enter_context(self._device.event()) for _ in range(2)]
            self._memory = stack.enter_context(closing(Memory(self._device, facts)))
            stack.callback(_close_all, self._biases)
            stack.callback(_close_all, self._rows)
            self._kernels = stack.enter_context(closing(Kernels(trt, kernels, cuda_graphs)))
            self._encoder, self._decoder = (
                stack.enter_context(closing(Engine(trt, folder / plan, self._kernels)))
                for plan in (facts.ENCODER_PLAN, facts.DECODER_PLAN)
            )
            self._encoder.check_encoder(facts)
            self._decoder.check_decoder(facts)
            n_bytes = max(
                self._encoder.scratch_bytes, self._decoder.scratch_bytes, Device.ALIGNMENT
            )
            self._scratch = stack.enter_context(self._device.allocate(n_bytes))
            self._loops = Loops(
                self._memory,
                self._stream,
                self._step_context,
                cuda_graphs=cuda_graphs,
                library_captures=self._kernels.captures,
            )
            stack.callback(_close_all, self._contexts)
            stack.callback(self._loops.close)
            self._prepare()
            self._stack: ExitStack | None = stack.pop_all()
        self._report(trt)

    def encode(self, mel: Array) -> _Features:
        """See Session; does not wait for the GPU. Raises ValueError for an impossible shape.

        Where the tail is to follow, `mel` ends with silence.
        """
        if self.facts.has_tail and not mel.shape[1] % 2:
            mel = Tail.lengthened(mel, follows=self.has_tail)
        n_mels, n_frames = mel.shape
        lengths = self.facts.n_frames
        fits = [i for i, (first, last) in enumerate(lengths) if first <= n_frames <= last]
        if n_mels != self.n_mels or n_frames % 2 or not fits:
            raise ValueError(
                f"mel has the shape {mel.shape}; the engine takes {self.n_mels} mels and an even "
                f"number of frames, from {lengths[0][0]} to {lengths[-1][1]}"
            )
        self._settled()
        self._features = None
        memory = self._memory
        memory.view("mel", np.float32, (n_mels, n_frames))[...] = mel
        self._stream.upload(memory.at["mel"], memory.host_at["mel"], n_mels * n_frames * 4)
        context = self._context("encoder", fits[0])
        context.run({"mel": (1, n_mels, n_frames)}, memory.at)
        self._features = _Features(self.facts.n_ctx(n_frames))
        return self._features

    def audio_keys(self, mel: Array, n_positions: int) -> Array:
        """Return the decoder's keys of the first positions of a window.

        shape = (n_text_layer, n_head, n_positions, 64).
        """
        n_ctx = self.encode(mel).n_ctx
        return self._memory.keys(self._stream, n_ctx)[:, :, :n_positions]

    def bias(self, suppressed: Sequence[int]) -> DeviceBuffer:
        """See Session."""
        key = tuple(suppressed)
        if key not in self._biases:
            self._settled()
            memory = self._memory
            values = memory.view("logits", np.float32, (self.n_vocab,))
            values[...] = 0
            values[list(key)] = IMPOSSIBLE
            with ExitStack() as stack:
                buffer = stack.enter_context(self._device.allocate(values.nbytes))
                self._stream.upload(buffer.handle, memory.host_at["logits"], values.nbytes)
                stack.pop_all()
            self._biases[key] = buffer
        return self._biases[key]

    def open_cache(self, audio_features: _Features, batch: int, n_slots: int) -> _Cache:
        """See Session. Raises ValueError for more rows or slots than the engine was built for."""
        most = self.facts.n_text_ctx
        if not 0 < batch <= self.max_batch or not 0 < n_slots <= most:
            raise ValueError(
                f"{batch} rows of {n_slots} slots; {self.max_batch} of {most} are possible"
            )
        self._settled()
        rows = self._rows_for(batch, n_slots)
        # What no slot holds yet is masked, but garbage that is no number stays none.
        self._stream.clear(rows.sets[rows.current].handle, rows.sets[rows.current].n_bytes)
        self._caches[batch] = _Cache(audio_features, batch, n_slots, rows)
        return self._caches[batch]

    def step(
        self,
        cache: _Cache,
        tokens: Tokens,
        position: int,
        bias: DeviceBuffer,
        parents: Tokens | None = None,
    ) -> _Output:
        """See Session; does not wait for the GPU until the output is read.

        Raises ValueError for tokens that the cache has no slots for.
        """
        self._check(cache, tokens.shape, position)
        if parents is not None and not self.n_candidates:
            raise ValueError("this engine was built for greedy search: it takes no parents")
        for start in range(0, tokens.shape[1], self.facts.MAX_PREFILL_TOKENS):
            piece = tokens[:, start : start + self.facts.MAX_PREFILL_TOKENS]
            self._new_run()
            self._upload(piece, position + start, parents if start == 0 else None)
            self._decode(cache, piece.shape[1], bias)
        return _Output(self, cache.batch, self._run_number)

    def greedy(
        self, cache: _Cache, token: int, position: int, bias: DeviceBuffer, max_new_tokens: int
    ) -> Iterator[tuple[int, float]]:
        """See Session. Every step but the last is on its way before the one before is read."""
        n_steps = min(max_new_tokens, cache.n_slots - position)
        if n_steps <= 0:
            return
        self._check(cache, (cache.batch, 1), position)
        if cache.batch > 1:
            yield from self._stepwise(cache, token, position, bias, n_steps)
            return
        self._new_run()
        number, rows = self._run_number, cache.rows
        self._feed(rows.current, token, position, bias)
        launches = self._loops.pair(cache.features.n_ctx, cache.n_slots, rows)
        self._launch(launches, rows)
        for step in range(n_steps):
            self._ensure_last(number)
            self._ensure_alive(cache)
            self._device.use()
            written = rows.current
            if step + 1 < n_steps:
                self._launch(launches, rows)
            self._passed[written].synchronize()
            tokens, logprobs = self._memory.results[written]
            yield int(tokens[0]), float(logprobs[0])

    def warm_up(
        self,
        n_frames: Sequence[int],
        n_slots: int,
        progress: Callable[[float], None] | None = None,
    ) -> None:
        """Go through a short silence of each length: the first of a length takes longer.

        On TensorRT-RTX by the seconds that the kernels take to be compiled, unless they are in the
        file. Those of other lengths are compiled when they come, without anybody waiting.
        `progress` is told the share that is done.
        """
        bias = self.bias(())
        for done, length in enumerate(n_frames, 1):
            features = self.encode(np.zeros((self.n_mels, length), np.float32))
            cache = self.open_cache(features, 1, n_slots)
            self.step(cache, np.zeros((1, self.WARM_UP_TOKENS), np.int32), 0, bias).best()
            for _ in self.greedy(cache, 0, self.WARM_UP_TOKENS, bias, 2):
                pass
            if progress:
                progress(done / len(n_frames))
        self._settled()
        if self._kernels.captures:
            self._kernels.save()
            self._kernels.is_eager = False
            _close_all(self._contexts)
            self._open_contexts()

    @property
    def has_kernels(self) -> bool:
        """Whether the file had what TensorRT-RTX compiled on this GPU; else `warm_up` waits."""
        return self._kernels.are_loaded

    def synchronize(self) -> None:
        """Wait for all that was asked for. Raises EngineError for what failed meanwhile."""
        self._device.use()
        self._stream.synchronize()

    def memory_bytes(self) -> int:
        """Return the GPU memory that is held: weights, scratch, caches and buffers."""
        return self._device.allocated_bytes + self._encoder.n_bytes + self._decoder.n_bytes

    def close(self) -> None:
        """Free everything, once; whatever fails at that is gone anyway."""
        stack, self._stack = self._stack, None
        if stack is None:
            return
        self._run_number += 1
        with suppress(EngineError):
            self._device.use()
        self._stream.drain()
        self._kernels.save()
        stack.close()

    # Steps.

    def _settled(self) -> None:
        """Have nothing in flight, so that the host's side of the memory may be written."""
        if self._stack is None:
            raise EngineError("the engine is closed")
        self.synchronize()

    def _new_run(self) -> None:
        """Be about to write over the outputs."""
        self._settled()
        self._run_number += 1

    def _ensure_last(self, number: int) -> None:
        if number != self._run_number:
            raise RuntimeError("these results are gone: the engine has done something else since")

    def _ensure_alive(self, cache: _Cache) -> None:
        if cache.features is not self._features:
            raise RuntimeError("these audio features are gone: others have been encoded since")
        if self._caches.get(cache.batch) is not cache:
            raise RuntimeError("this cache is gone: another of its size has been opened since")

    def _check(self, cache: _Cache, shape: tuple[int, ...], position: int) -> None:
        self._ensure_alive(cache)
        batch, n_tokens = shape
        if batch != cache.batch or not n_tokens:
            raise ValueError(f"tokens have the shape {shape}, not ({cache.batch}, 1 or more)")
        if not 0 <= position <= cache.n_slots - n_tokens:
            raise ValueError(
                f"{n_tokens} tokens at position {position} of a cache of {cache.n_slots} slots"
            )

    def _upload(self, tokens: Tokens, position: int, parents: Tokens | None) -> None:
        memory, (batch, n_tokens) = self._memory, tokens.shape
        rows = np.arange(batch) if parents is None else parents
        memory.view("tokens", np.int32, (batch, n_tokens))[...] = tokens
        positions = memory.view("positions", np.int32, (n_tokens,))
        positions[...] = np.arange(position, position + n_tokens)
        memory.view("parents", np.int32, (batch,))[...] = rows
        self._stream.upload(memory.at["tokens"], memory.host_at["tokens"], memory.input_bytes)

    def _decode(self, cache: _Cache, n_tokens: int, bias: DeviceBuffer) -> None:
        memory, rows = self._memory, cache.rows
        addresses = {
            **memory.at,
            **memory.heads[memory.STEP].written,
            **rows.reads[rows.current],
            **rows.writes[rows.current ^ 1],
            "logit_bias": bias.handle,
        }
        shape = (cache.batch, n_tokens, cache.n_slots, cache.features.n_ctx)
        profile, is_special = self._profile(*shape[:2]), self._kernels.specializes(shape)
        context = self._context("decoder", profile, is_special=is_special)
        context.run(self.facts.decoder_shapes(*shape), addresses)
        rows.current ^= 1

    def _stepwise(
        self, cache: _Cache, token: int, position: int, bias: DeviceBuffer, n_steps: int
    ) -> Iterator[tuple[int, float]]:
        for at in range(position, position + n_steps):
            output = self.step(cache, np.full((cache.batch, 1), token, np.int32), at, bias)
            tokens, logprobs = output.best()
            token = int(tokens[0])
            yield token, float(logprobs[0])

    def _profile(self, batch: int, n_tokens: int) -> int:
        for index, profile in enumerate(self.facts.profiles):
            if profile.takes(batch, n_tokens):
                return index
        raise EngineError(f"the engine was not built for {batch} rows of {n_tokens} tokens")

    # The greedy loop.

    def _feed(self, half: int, token: int, position: int, bias: DeviceBuffer) -> None:
        """Put the first token where step `half` reads it, and the bias where both do."""
        memory, heads = self._memory, self._memory.heads[half]
        memory.view("tokens", np.int32, (1,))[0] = token
        memory.view("positions", np.int32, (1,))[0] = position
        self._stream.upload(heads.tokens, memory.host_at["tokens"], 4)
        self._stream.upload(heads.positions, memory.host_at["positions"], 4)
        if self._copied_bias is not bias:
            self._copied_bias = None  # until the copy is queued
            self._stream.copy(memory.at["logit_bias"], bias.handle, self.n_vocab * 4)
            self._copied_bias = bias

    def _launch(self, launches: list[Callable[[], None]], rows: Rows) -> None:
        launches[rows.current]()
        rows.current ^= 1
        self._stream.record(self._passed[rows.current])

    def _step_context(self, is_alone: bool) -> Context:
        profile = self._profile(1, 1)
        if not is_alone:
            return self._context("decoder", profile)
        return Context(self._decoder, profile, self._scratch, self._stream, is_step=True)

    # Memory.

    def _prepare(self) -> None:
        """Fill what stays the same; make the rows and contexts that every utterance needs."""
        memory, n_slots = self._memory, self.facts.n_text_ctx
        self._stream.clear(memory.device.handle, memory.device.n_bytes)
        memory.view("logits", np.int32, (n_slots,))[...] = np.arange(n_slots)
        self._stream.upload(memory.at["slots"], memory.host_at["logits"], n_slots * 4)
        self._rows_for(1, n_slots)
        self._open_contexts()
        self._stream.synchronize()

    def _open_contexts(self) -> None:
        for index in range(len(self.facts.n_frames)):
            self._context("encoder", index)
        self._context("decoder", self._profile(1, 1))

    def _rows_for(self, batch: int, n_slots: int) -> Rows:
        """Return memory for a cache: it grows as it is needed, a single row's never has to."""
        rows = self._rows.get(batch)
        if rows and rows.n_slots >= n_slots:
            return rows
        if rows:
            self._caches.pop(batch, None)
            self._rows.pop(batch).close()
        self._rows[batch] = Rows(self._device, self.facts, batch, n_slots)
        return self._rows[batch]

    def _context(self, which: str, profile: int, *, is_special: bool = True) -> Context:
        """Return the context that runs one profile with whatever shapes come; see Kernels."""
        key = (which, profile, is_special)
        if key not in self._contexts:
            engine = self._encoder if which == "encoder" else self._decoder
            self._contexts[key] = Context(
                engine, profile, self._scratch, self._stream, is_special=is_special
            )
        return self._contexts[key]

    def _report(self, trt: Any) -> None:
        weights = self._encoder.n_bytes + self._decoder.n_bytes
        rest = self._device.allocated_bytes - self._scratch.n_bytes
        _LOGGER.info(
            "%s %s is ready with %.0f MB of GPU memory: "
            "weights %.0f, scratch %.0f, caches and buffers %.0f",
            self._library.name,
            trt.__version__,
            *(n / 1e6 for n in (self.memory_bytes(), weights, self._scratch.n_bytes, rest)),
        )

    # What _Output asks for.

    def read_best(self, number: int, batch: int) -> tuple[Tokens, Array]:
        """Return (tokens, logprobs) of run `number`, shape = (batch,) each."""
        heads = self._memory.heads[Memory.STEP]
        values = self.read(number, f"heads_{Memory.STEP}", np.int32, (heads.n_bytes // 4,))
        return heads.split(values, batch)

    def read(self, number: int, name: str, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> Any:
        """Return a copy of an output of run `number`, which must be the last."""
        self._ensure_last(number)
        self._device.use()
        memory = self._memory
        values = memory.view("logits", dtype, shape)
        self._stream.download(memory.host_at["logits"], self._memory.at[name], values.nbytes)
        self._stream.synchronize()
        return values.copy()


def _close_all(owned: dict[Any, Any]) -> None:
    for resource in owned.values():
        resource.close()
    owned.clear()


@dataclass(frozen=True, eq=False)
class _Features:
    """The window whose keys and values are in the session's memory."""

    n_ctx: int


@dataclass(frozen=True, eq=False)
class _Cache:
    """A self-attention cache as its caller knows it."""

    features: _Features
    batch: int
    n_slots: int
    rows: Rows


@dataclass(frozen=True, eq=False)
class _Output:
    """A `whisper.session.StepOutput`, on the GPU until it is read."""

    session: TensorRTSession
    batch: int
    number: int

    def best(self) -> tuple[Tokens, Array]:
        """See StepOutput."""
        return self.session.read_best(self.number, self.batch)

    def candidates(self) -> tuple[Tokens, Array]:
        """See StepOutput. Raises RuntimeError where only greedy search was built."""
        shape = (self.batch, self.session.n_candidates)
        if not shape[1]:
            raise RuntimeError("this engine was built for greedy search: it has no candidates")
        return (
            self.session.read(self.number, "candidates", np.int32, shape),
            self.session.read(self.number, "candidate_logprobs", np.float32, shape),
        )

    def logits(self) -> Array:
        """See StepOutput."""
        shape = (self.batch, self.session.n_vocab)
        logits: Array = self.session.read(self.number, "logits", np.float32, shape)
        return logits
