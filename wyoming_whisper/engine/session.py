"""Whisper's graphs in onnxruntime on the CPU, as a `whisper.session.Session`.

`CpuSession`, an elastic one, runs those of `cpu_graphs`: it is what answers with `--backend
onnxruntime`. `OracleSession` runs TensorRT's graphs, to prove them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import EngineError, ModelBrokenError
from ..whisper.audio import FRAMES_PER_POSITION, N_FRAMES, Array
from ..whisper.session import StepOutput, Tokens
from .tail import GROUP, Tail
from .tensorrt.plan import PlanFacts

N_POSITIONS = N_FRAMES // FRAMES_PER_POSITION
IMPOSSIBLE = np.float32(-1e30)  # added to a logit: no infinity, which runtimes make NaN of

Arrays = dict[str, npt.NDArray[Any]]


class _GraphSession(ABC):
    """encoder.onnx and decoder.onnx of one folder in onnxruntime, with so many threads.

    `options` are of onnxruntime_session_options_config_keys.h. Raises ModelBrokenError when they
    can't be loaded.
    """

    MAX_SAMPLES = 5  # rows without a beam: best_of of Whisper's temperature fallback

    def __init__(
        self,
        folder: Path,
        threads: int,
        encoder_options: Mapping[str, str] | None = None,
        decoder_options: Mapping[str, str] | None = None,
    ) -> None:
        self._encoder = _load(folder / "encoder.onnx", threads, encoder_options or {})
        self._decoder = _load(folder / "decoder.onnx", threads, decoder_options or {})
        self._inputs = {value.name: value for value in self._decoder.get_inputs()}
        self._caches = [name for name in self._inputs if name.startswith("self_")]
        self._n_head, self._head_width = (self._inputs["self_k_0"].shape[i] for i in (1, 3))
        self.n_mels: int = self._encoder.get_inputs()[0].shape[1]
        self.n_vocab: int = self._inputs["logit_bias"].shape[0]
        self._biases: dict[tuple[int, ...], Array] = {}

    def bias(self, suppressed: Sequence[int]) -> Array:
        """See Session."""
        key = tuple(suppressed)
        if key not in self._biases:
            self._biases[key] = np.zeros(self.n_vocab, np.float32)
            self._biases[key][list(key)] = IMPOSSIBLE
        return self._biases[key]

    @abstractmethod
    def step(
        self, cache: Any, tokens: Tokens, position: int, bias: Array, parents: Tokens | None = None
    ) -> StepOutput:
        """See Session."""

    def greedy(
        self, cache: Any, token: int, position: int, bias: Array, max_new_tokens: int
    ) -> Iterator[tuple[int, float]]:
        """See Session."""
        for at in range(position, min(position + max_new_tokens, cache.n_slots)):
            tokens = np.full((cache.batch, 1), token, np.int32)
            best, logprobs = self.step(cache, tokens, at, bias).best()
            token = int(best[0])
            yield token, float(logprobs[0])

    def close(self) -> None:
        """See Session."""
        del self._encoder, self._decoder

    def _check_mel(self, mel: Array) -> None:
        """Raises ValueError for another shape than the encoder's."""
        n_mels, n_frames = mel.shape
        if n_mels != self.n_mels or not 0 < n_frames <= N_FRAMES or n_frames % 2:
            raise ValueError(
                f"mel has the shape {mel.shape}, not ({self.n_mels}, an even number to {N_FRAMES})"
            )

    def _encoded(self, mel: Array, more: Arrays | None = None) -> Arrays:
        """Return what the encoder gives of `mel`."""
        names = [value.name for value in self._encoder.get_outputs()]
        mel = np.ascontiguousarray(mel[np.newaxis], np.float32)
        return _computed(self._encoder, names, {"mel": mel, **(more or {})})


class CpuSession(_GraphSession):
    """encoder.onnx and decoder.onnx of one folder; see `engine.cpu_graphs` for what they hold.

    `beam_size` is the most that is asked for. Raises ModelBrokenError when they can't be loaded.
    """

    _QUERIES = "cross_q_{}"  # outputs of cpu_graphs' decoder, by layer

    def __init__(
        self, folder: Path, threads: int = 0, beam_size: int = 1, *, has_tail: bool = False
    ) -> None:
        """`threads` 0 leaves their number to onnxruntime."""
        # Each graph has threads of its own, which wait for work by spinning. Longer than a run, or
        # than it takes to the next token's, they would be in the other's way.
        super().__init__(
            folder,
            threads,
            {"session.force_spinning_stop": "1"},
            {"session.intra_op.spin_duration_us": "1000"},
        )
        names = [value.name for value in self._decoder.get_outputs()]
        self._queries = [name for name in names if name.startswith(self._QUERIES.format(""))]
        self._outputs = [name for name in names if name not in self._queries]
        self.n_candidates = 2 * beam_size if beam_size > 1 else 0
        self.is_elastic = True
        self.max_batch = max(beam_size, self.MAX_SAMPLES)
        self._k = np.array([max(self.n_candidates, 1)], np.int64)
        self.has_tail = has_tail
        """Whether the rest of a full window follows a shorter one, frozen (engine.tail)."""

    def encode(self, mel: Array) -> Arrays:
        """See Session. Raises ValueError for a spectrogram of another shape.

        Where the tail is to follow, `mel` ends with silence.
        """
        self._check_mel(mel)
        n_positions, tail_from = mel.shape[1] // FRAMES_PER_POSITION, Tail.n_groups(N_POSITIONS)
        if self.has_tail:
            tail_from = Tail.n_groups(n_positions)
            n_positions = tail_from * GROUP
            mel = Tail.lengthened(mel, follows=True)
        n_repeats = _silent_positions(mel)
        mel = mel[:, : mel.shape[1] - FRAMES_PER_POSITION * n_repeats]
        sizes = {"n_repeats": n_repeats, "n_positions": n_positions, "tail_from": tail_from}
        return self._encoded(mel, {name: np.array([n], np.int64) for name, n in sizes.items()})

    def audio_keys(self, mel: Array, n_positions: int) -> Array:
        """Return the decoder's keys of the first positions of a window.

        shape = (n_text_layer, n_head, n_positions, 64).
        """
        audio_features = self.encode(mel)
        keys = [values for name, values in audio_features.items() if name.startswith("cross_k_")]
        return np.concatenate(keys)[:, :, :n_positions]

    def open_cache(self, audio_features: Arrays, batch: int, n_slots: int) -> _CpuCache:
        """See Session."""
        shape = (batch, self._n_head, 0, self._head_width)
        empty = {name: np.zeros(shape, np.float32) for name in self._caches}
        return _CpuCache(audio_features, n_slots, empty)

    def step(
        self,
        cache: _CpuCache,
        tokens: Tokens,
        position: int,
        bias: Array,
        parents: Tokens | None = None,
        wanted: Sequence[int] = (),
    ) -> _CpuOutput:
        """See ElasticSession. Raises ValueError for tokens that the cache has no room for."""
        n_tokens = tokens.shape[1]
        if not 0 <= position <= min(cache.n_past, cache.n_slots - n_tokens):
            raise ValueError(
                f"{n_tokens} tokens at position {position} of a cache of {cache.n_past} positions "
                f"in {cache.n_slots} slots"
            )
        cache.forget_from(position)
        outputs = self._run(self._outputs, cache, tokens, position, bias, parents, wanted)
        cache.arrays = {name: outputs.pop(f"new_{name}") for name in self._caches}
        return _CpuOutput(outputs)

    def attention(
        self,
        audio_features: Arrays,
        tokens: Sequence[int],
        heads: Sequence[tuple[int, int]],
        n_positions: int,
    ) -> Array:
        """See ElasticSession."""
        n_layers = len(self._queries)
        there = [(layer, head) for layer in range(n_layers) for head in range(self._n_head)]
        heads = [head for head in heads if head in there] or there[len(there) // 2 :]
        names = sorted({self._QUERIES.format(layer) for layer, _ in heads})
        cache = self.open_cache(audio_features, 1, len(tokens))
        queries = self._run(names, cache, np.array([tokens], np.int32), 0, self.bias(()))
        return np.stack(
            [
                _attention(
                    queries[self._QUERIES.format(layer)].reshape(len(tokens), self._n_head, -1)[
                        :, head
                    ],
                    audio_features[f"cross_k_{layer}"][0, head, :n_positions],
                )
                for layer, head in heads
            ]
        )

    def _run(
        self,
        names: list[str],
        cache: _CpuCache,
        tokens: Tokens,
        position: int,
        bias: Array,
        parents: Tokens | None = None,
        wanted: Sequence[int] = (),
    ) -> Arrays:
        batch, n_tokens = tokens.shape
        feed = {
            "tokens": np.ascontiguousarray(tokens, np.int32),
            "positions": np.arange(position, position + n_tokens, dtype=np.int32),
            "parents": np.arange(batch, dtype=np.int32) if parents is None else parents,
            "logit_bias": bias,
            "wanted": np.array([*wanted, n_tokens - 1], np.int64),
            "n_candidates": self._k,
            **cache.features,
            **cache.arrays,
        }
        return _computed(self._decoder, names, feed)


@dataclass(eq=False)
class _CpuCache:
    """The decoder's self-attention cache, and what it attends to."""

    features: Arrays
    n_slots: int
    arrays: Arrays
    """shape = (batch, n_head, n_past, 64) each."""

    @property
    def batch(self) -> int:
        return int(next(iter(self.arrays.values())).shape[0])

    @property
    def n_past(self) -> int:
        return int(next(iter(self.arrays.values())).shape[2])

    def forget_from(self, position: int) -> None:
        if position < self.n_past:
            self.arrays = {
                name: np.ascontiguousarray(values[:, :, :position])
                for name, values in self.arrays.items()
            }


@dataclass(frozen=True, eq=False)
class _CpuOutput:
    """What an ElasticSession gives."""

    arrays: Arrays

    def best(self) -> tuple[Tokens, Array]:
        """See StepOutput."""
        tokens, logprobs = self.candidates()
        return tokens[:, 0], logprobs[:, 0]

    def candidates(self) -> tuple[Tokens, Array]:
        """See StepOutput."""
        return self.arrays["candidates"], self.arrays["candidate_logprobs"]

    def logits(self) -> Array:
        """See StepOutput."""
        return self.arrays["logits"][:, -1]

    def wanted_logits(self) -> Array:
        """Return those that were wanted, shape = (batch, n_wanted, n_vocab)."""
        return self.arrays["logits"][:, :-1]


class OracleSession(_GraphSession):
    """The graphs that TensorRT compiles (see `engine.graphs`): it proves them, and judges engines.

    What the contract calls gone (audio features after the next `encode`, an output after the next
    `step`) is refused, where keeping it would be easy: on a GPU the memory has been written over.
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
        self._features: Arrays | None = None
        self._open: dict[int, _OracleCache] = {}
        self._output: _OracleOutput | None = None
        self.n_candidates: int = outputs["candidates"].shape[1] if self._takes_parents else 0
        self.is_elastic = False
        self.max_batch = max(self.n_candidates // 2, self.MAX_SAMPLES)

    def encode(self, mel: Array) -> Arrays:
        """See Session. Raises ValueError for a spectrogram of another shape.

        Where the tail is to follow, `mel` ends with silence.
        """
        self._check_mel(mel)
        if self._takes_tail:
            mel = Tail.lengthened(mel, follows=self.has_tail)
        self._features = self._encoded(mel)
        return self._features

    def open_cache(self, audio_features: Arrays, batch: int, n_slots: int) -> _OracleCache:
        """See Session. Raises ValueError for more rows than `max_batch`."""
        if not 0 < batch <= self.max_batch:
            raise ValueError(f"{batch} rows, and {self.max_batch} are possible")
        shape = (batch, self._n_head, n_slots, self._head_width)
        arrays = {name: np.zeros(shape, self._precision) for name in self._caches}
        cache = _OracleCache(audio_features, batch, np.arange(n_slots, dtype=np.int32), arrays)
        self._open[batch] = cache
        return cache

    def step(
        self,
        cache: _OracleCache,
        tokens: Tokens,
        position: int,
        bias: Array,
        parents: Tokens | None = None,
    ) -> _OracleOutput:
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
        self._output = _OracleOutput(outputs)
        return self._output

    def close(self) -> None:
        """See Session."""
        self._features, self._output = None, None
        self._open.clear()
        super().close()

    def _check(self, cache: _OracleCache, tokens: Tokens, position: int) -> None:
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
        self, cache: _OracleCache, tokens: Tokens, position: int, bias: Array, parents: Tokens
    ) -> Arrays:
        feed: Arrays = {
            "tokens": np.ascontiguousarray(tokens, np.int32),
            "positions": np.arange(position, position + tokens.shape[1], dtype=np.int32),
            "slots": cache.slots,
            "logit_bias": bias,
            **cache.features,
            **cache.arrays,
        }
        if self._takes_parents:
            feed["parents"] = np.ascontiguousarray(parents, np.int32)
        outputs = _computed(self._decoder, self._output_names, feed)
        cache.arrays = {name: outputs.pop(f"new_{name}") for name in self._caches}
        return outputs


@dataclass(eq=False)
class _OracleCache:
    """The decoder's self-attention cache, and what it attends to."""

    features: Arrays
    batch: int
    slots: Tokens
    arrays: Arrays

    @property
    def n_slots(self) -> int:
        return len(self.slots)


@dataclass(eq=False)
class _OracleOutput:
    """A `whisper.session.StepOutput`; empty after the next step."""

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


def _attention(queries: Array, keys: Array) -> Array:
    """Return the weights that queries give to keys, shape = (n_queries, n_keys), of one head."""
    scores = queries @ keys.T / np.sqrt(np.float32(keys.shape[1]))
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


def _silent_positions(mel: Array) -> int:
    """Return how many positions at the end of a window are as those before them: its padding.

    The convolutions make the same of all of these, but where they see something else.
    """
    seen_frames = 12  # more than both convolutions see at once, on both sides of what is silent
    sounds = np.flatnonzero((mel != mel[:, -1:]).any(axis=0))
    n_silent = mel.shape[1] - (int(sounds[-1]) + 1 if len(sounds) else 0)
    return int(max(0, (n_silent - seen_frames) // FRAMES_PER_POSITION))


def _computed(session: Any, names: list[str], feed: Arrays) -> Arrays:
    """Return the outputs of these names. Raises EngineError, as TensorRT's sessions do."""
    try:
        return dict(zip(names, session.run(names, feed), strict=True))
    except Exception as error:  # onnxruntime's own classes share no base but this
        raise EngineError(f"onnxruntime failed: {error}") from error


def _load(path: Path, threads: int, entries: Mapping[str, str]) -> Any:
    """Return a session; `entries` are of onnxruntime_session_options_config_keys.h."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own classes share no base but this
        raise ModelBrokenError(f"{path} can't be loaded by onnxruntime: {error}") from error
