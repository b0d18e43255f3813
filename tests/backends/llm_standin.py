"""A stand-in for TensorRT-LLM's LLM API with Whisper, built from what it documents of itself.

It is not TensorRT-LLM, which needs a GPU and was never run here. Names, arguments, defaults and
refusals are those of NVIDIA/TensorRT-LLM (docs/source/models/encoder-decoder.md;
tensorrt_llm/_torch/models/modeling_whisper.py, WhisperInputProcessor; tensorrt_llm/llmapi/llm.py;
tensorrt_llm/sampling_params.py; tensorrt_llm/executor/result.py; docs/source/features/sampling.md;
tests/unittest/api_stability/references*/*.yaml), as far as our backend meets them. What it answers
is real: our ONNX graphs of the same weights compute it, in onnxruntime.
"""

from __future__ import annotations

import json
import math
import queue
import sys
import threading
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pytest
import tokenizers

from tests.models.huggingface import log_softmax, read_safetensors
from wyoming_whisper.engine.session import OracleSession
from wyoming_whisper.whisper.audio import HOP_LENGTH, N_FRAMES, log_mel_spectrogram

Array = npt.NDArray[np.float32]

VERSION = "1.3.0rc25"
MAX_TARGET_POSITIONS = 448
LLM_ARGUMENTS = {
    *("tokenizer", "tokenizer_mode", "skip_tokenizer_init", "trust_remote_code"),
    *("tensor_parallel_size", "dtype", "revision", "tokenizer_revision", "backend"),
    *("attn_backend", "max_batch_size", "max_input_len", "max_seq_len", "max_beam_width"),
    *("max_num_tokens", "enable_chunked_prefill", "kv_cache_config", "scheduler_config"),
    *("cuda_graph_config", "disable_overlap_scheduler", "gather_generation_logits"),
}


class Whisper(Protocol):
    """What computes."""

    def encode(self, samples: Array) -> Any:
        """Return audio features of 30 s."""

    def logits(self, audio_features: Any, tokens: Sequence[int]) -> Array:
        """Return what comes after each token, shape = (n_tokens, n_vocab)."""

    def last(self, audio_features: Any, tokens: Sequence[int]) -> Array:
        """Return what comes after the last of them, shape = (n_vocab,)."""


class OnnxWhisper:
    """Whisper by our graphs. What was computed once is remembered: tests say the same few clips."""

    def __init__(self, session: OracleSession) -> None:
        self._session = session
        self._encoded: tuple[bytes, Any] = (b"", None)
        self._rows: dict[tuple[bytes, tuple[int, ...]], Array] = {}

    def encode(self, samples: Array) -> Array:
        return samples

    def logits(self, audio_features: Array, tokens: Sequence[int]) -> Array:
        return np.array([self.last(audio_features, tokens[: n + 1]) for n in range(len(tokens))])

    def last(self, audio_features: Array, tokens: Sequence[int]) -> Array:
        key = (audio_features.tobytes(), tuple(tokens))
        if key not in self._rows:
            cache = self._session.open_cache(self._features(audio_features), 1, 448)
            rows = np.array([tokens], np.int32)
            step = self._session.step(cache, rows, 0, self._session.bias([]))
            self._rows[key] = step.logits()[0].copy()
        return self._rows[key]

    def _features(self, samples: Array) -> Any:
        key = samples.tobytes()
        if self._encoded[0] != key:
            padded = np.zeros(N_FRAMES * HOP_LENGTH, np.float32)
            padded[: len(samples)] = samples
            self._encoded = (key, self._session.encode(log_mel_spectrogram(padded)))
        return self._encoded[1]


class RequestError(RuntimeError):
    """tensorrt_llm.executor.utils.RequestError."""


@dataclass
class KvCacheConfig:
    enable_block_reuse: bool = True
    max_tokens: int | None = None
    free_gpu_memory_fraction: float | None = 0.9
    cross_kv_cache_fraction: float | None = None
    use_kv_cache_manager_v2: bool = False


@dataclass
class SchedulerConfig:
    use_python_scheduler: bool = False


@dataclass(kw_only=True)
class SamplingParams:
    end_id: int | None = None
    pad_id: int | None = None
    max_tokens: int = 32
    n: int = 1
    best_of: int | None = None
    use_beam_search: bool = False
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    temperature: float | None = None
    length_penalty: float | None = None
    early_stopping: int | None = None
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    return_context_logits: bool = False
    return_generation_logits: bool = False
    detokenize: bool = True
    add_special_tokens: bool = True
    skip_special_tokens: bool = True

    def __post_init__(self) -> None:
        self.best_of = self.best_of or self.n
        if self.best_of < self.n:
            raise ValueError(f"best_of ({self.best_of}) cannot be less than n ({self.n})")
        if self.temperature is not None and self.temperature < 0:
            raise ValueError("require temperature >= 0")


@dataclass
class Logprob:
    logprob: float
    rank: int | None = None


@dataclass
class CompletionOutput:
    index: int
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    cumulative_logprob: float | None = None
    logprobs: list[dict[int, Logprob]] = field(default_factory=list)
    finish_reason: str | None = None


@dataclass
class PreprocessedInputs:
    prompt_token_ids: list[int]
    query_token_ids: list[int] | None = None
    multimodal_params: Any = None
    encoder_input_token_ids: list[int] | None = None


class Tensor:
    """As much of a torch.Tensor on a GPU as is asked for."""

    def __init__(self, values: Array, where: str = "cuda") -> None:
        self._values, self._where = values, where

    def float(self) -> Tensor:
        return self

    def cpu(self) -> Tensor:
        return Tensor(self._values, "cpu")

    def numpy(self) -> Array:
        if self._where != "cpu":
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        return self._values


class RequestOutput:
    """What generate_async returns: filled by the executor's thread."""

    def __init__(self, request_id: int, prompt_token_ids: list[int]) -> None:
        self.request_id = request_id
        self.prompt_token_ids = prompt_token_ids
        self.outputs: list[CompletionOutput] = []
        self.context_logits: Tensor | None = None
        self.finished = False
        self._queue: queue.Queue[BaseException | None] = queue.Queue()
        self._aborted = False

    def result(self, timeout: float | None = None) -> RequestOutput:
        while not self.finished:
            error = self._queue.get(timeout=timeout)  # raises queue.Empty
            self.finished = True
            if error is not None:
                raise error
        return self

    def abort(self) -> None:
        self._aborted = True

    def aborted(self) -> bool:
        return self._aborted


@dataclass
class Standin:
    """The package, and what a test may change or look at."""

    whisper: Whisper
    version: str = VERSION
    gives_context_logits: bool = True
    fails: Callable[[SamplingParams], BaseException | None] = lambda _: None
    """What a request ends in instead of an answer."""
    gate: threading.Event = field(default_factory=threading.Event)
    """While it is not set, nothing is answered."""
    llms: list[Any] = field(default_factory=list)
    requests: list[tuple[list[int], SamplingParams]] = field(default_factory=list)
    futures: list[RequestOutput] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.gate.set()

    @property
    def in_flight(self) -> int:
        return sum(not future.finished for future in self.futures)

    def modules(self) -> dict[str, types.ModuleType]:
        """Return what `import tensorrt_llm` and `import tensorrt_llm.llmapi` give."""
        package = types.ModuleType("tensorrt_llm")
        llmapi = types.ModuleType("tensorrt_llm.llmapi")
        vars(package).update(__version__=self.version, llmapi=llmapi, __path__=[])
        vars(llmapi).update(
            LLM=_llm_class(self),
            KvCacheConfig=KvCacheConfig,
            SamplingParams=SamplingParams,
            SchedulerConfig=SchedulerConfig,
        )
        return {"tensorrt_llm": package, "tensorrt_llm.llmapi": llmapi}


def install(monkeypatch: pytest.MonkeyPatch, standin: Standin) -> Standin:
    """Put the stand-in where the package would be."""
    for name, module in standin.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    return standin


class _LLM:
    standin: Standin

    def __init__(self, model: str | Path, **kwargs: Any) -> None:
        for name in kwargs:
            if name not in LLM_ARGUMENTS:
                raise ValueError(f"LLM got invalid argument: {name}")
        self.arguments = kwargs
        folder = Path(model)
        config = json.loads((folder / "config.json").read_text())
        if config["architectures"] != ["WhisperForConditionalGeneration"]:
            raise ValueError(f"Unknown architecture {config['architectures']}")
        if kwargs["kv_cache_config"].cross_kv_cache_fraction is None:
            raise ValueError("cross_kv_cache_fraction is required for encoder-decoder models")
        if kwargs.get("enable_chunked_prefill"):
            raise ValueError("chunked prefill is not supported for the encoder phase")
        read_safetensors(folder / "model.safetensors")
        json.loads((folder / "preprocessor_config.json").read_text())
        self._generation = json.loads((folder / "generation_config.json").read_text())
        self._start = int(config["decoder_start_token_id"])
        self._eos = int(config["eos_token_id"])
        self._tokenizer: Any = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._beam_width = int(kwargs.get("max_beam_width", 1))
        self._work: queue.Queue[Any] = queue.Queue()
        self._thread: threading.Thread | None = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self.standin.llms.append(self)

    def shutdown(self) -> None:
        if self._thread is not None:
            self._work.put(None)
            self._thread.join(10)
            self._thread = None

    # What modeling_whisper.WhisperInputProcessor does.

    def _resolve_prompt(self, text: str | None) -> list[int]:
        text = (text or "").strip()
        if not text:
            text = "<|startoftranscript|><|en|><|transcribe|><|notimestamps|>"
        prompt: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        if not prompt or prompt[0] != self._start:
            raise ValueError(
                "A Whisper text prompt overrides the decoder prompt and must start with "
                f"<|startoftranscript|> (token {self._start}); got {text[:80]!r}."
            )
        return prompt

    def _load_waveform(self, inputs: dict[str, Any]) -> Array:
        items = (inputs.get("multi_modal_data") or {}).get("audio")
        if items is None:
            raise ValueError("Whisper requires multi_modal_data['audio']")
        if not isinstance(items, list) or len(items) != 1:
            raise ValueError("Whisper supports exactly one audio clip per request")
        waveform, rate = items[0]
        if int(rate) != 16_000:
            raise ValueError(f"Whisper expects 16000 Hz audio; got {rate} Hz.")
        waveform = np.array(waveform, np.float32)
        if waveform.ndim == 2:
            waveform = waveform.mean(axis=1)
        if waveform.shape[0] > N_FRAMES * HOP_LENGTH:
            raise ValueError(
                f"Audio is {waveform.shape[0] / 16_000:.2f}s long, but Whisper supports at most "
                "30s per request; chunk the input on the client side."
            )
        return np.asarray(waveform, np.float32)

    def _preprocess(self, inputs: Any, params: SamplingParams) -> PreprocessedInputs:
        if not isinstance(inputs, dict) or "prompt" not in inputs:
            raise TypeError("The inputs must be type str or list of int")
        prompt = self._resolve_prompt(inputs["prompt"])
        params.max_tokens = min(params.max_tokens, MAX_TARGET_POSITIONS - len(prompt))
        return PreprocessedInputs(prompt, multimodal_params=self._load_waveform(inputs))

    def preprocess(
        self, inputs: Any, sampling_params: SamplingParams | None = None
    ) -> PreprocessedInputs:
        return self._preprocess(inputs, sampling_params or SamplingParams())

    def generate_async(
        self, inputs: Any, sampling_params: SamplingParams | None = None, streaming: bool = False
    ) -> RequestOutput:
        if self._thread is None:
            raise RuntimeError("LLM is shutting down")
        params = sampling_params or SamplingParams()
        assert not streaming
        if not isinstance(inputs, PreprocessedInputs):
            inputs = self._preprocess(inputs, params)
        if (params.best_of if params.use_beam_search else 1) != self._beam_width:
            raise RequestError("best_of must equal max_beam_width: all requests are as wide")
        if self.arguments["max_input_len"] < 1500:
            raise RequestError("the cross-KV pool has no room for 1500 encoder positions")
        if len(inputs.prompt_token_ids) + params.max_tokens > MAX_TARGET_POSITIONS:
            raise RequestError("the decoder's position table is too short")
        output = RequestOutput(len(self.standin.futures), list(inputs.prompt_token_ids))
        self.standin.futures.append(output)
        self.standin.requests.append((output.prompt_token_ids, params))
        self._work.put((output, inputs.multimodal_params, params))
        return output

    # What the executor does.

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            output, samples, params = work
            self.standin.gate.wait(20)
            error = self.standin.fails(params)
            if error is None:
                try:
                    self._answer(output, samples, params)
                except Exception as failure:  # to the one who asked, as the executor does
                    error = failure
            output._queue.put(error)

    def _answer(self, output: RequestOutput, samples: Array, params: SamplingParams) -> None:
        features = self.standin.whisper.encode(samples)
        prompt = output.prompt_token_ids
        if params.return_context_logits and self.standin.gives_context_logits:
            output.context_logits = Tensor(self.standin.whisper.logits(features, prompt))
        width = self._beam_width
        found = (
            self._beams(features, prompt, params)
            if width > 1
            else [self._sample(features, prompt, params)]
        )
        for i, (tokens, logprobs) in enumerate(found):
            ended = bool(tokens) and tokens[-1] == self._eos
            chosen = [entry[token].logprob for token, entry in zip(tokens, logprobs, strict=True)]
            output.outputs.append(
                CompletionOutput(
                    index=i,
                    token_ids=tokens,
                    cumulative_logprob=float(sum(chosen)),
                    logprobs=logprobs if params.logprobs is not None else [],
                    finish_reason="stop" if ended else "length",
                )
            )

    def _next(self, features: Any, prompt: list[int], tokens: list[int]) -> Array:
        """Return log-probabilities after the suppression that is built in."""
        logits = self.standin.whisper.last(features, [*prompt, *tokens]).copy()
        logits[self._generation.get("suppress_tokens") or []] = -np.inf
        if not tokens:
            logits[self._generation.get("begin_suppress_tokens") or []] = -np.inf
        return log_softmax(logits)

    def _sample(
        self, features: Any, prompt: list[int], params: SamplingParams
    ) -> tuple[list[int], list[dict[int, Logprob]]]:
        random = np.random.default_rng(params.seed or 0)
        tokens: list[int] = []
        logprobs: list[dict[int, Logprob]] = []
        while len(tokens) < params.max_tokens and tokens[-1:] != [self._eos]:
            found = self._next(features, prompt, tokens)
            scores = found
            if params.temperature:
                noise = random.gumbel(size=found.shape).astype(np.float32)
                scores = found / np.float32(params.temperature) + noise
            tokens.append(int(np.argmax(scores)))
            best = np.argsort(-found)[: params.logprobs or 0]
            entry = {int(t): Logprob(float(found[t]), r + 1) for r, t in enumerate(best)}
            entry.setdefault(tokens[-1], Logprob(float(found[tokens[-1]])))
            logprobs.append(entry)
        return tokens, logprobs

    def _beams(
        self, features: Any, prompt: list[int], params: SamplingParams
    ) -> list[tuple[list[int], list[dict[int, Logprob]]]]:
        width, power = self._beam_width, params.length_penalty or 0.0
        live: list[tuple[list[int], list[float]]] = [([], [])]
        done: list[tuple[list[int], list[float]]] = []
        while live and len(done) < width and len(live[0][0]) < params.max_tokens:
            grown = []
            for tokens, values in live:
                found = self._next(features, prompt, tokens)
                grown += [
                    ([*tokens, token], [*values, float(found[token])])
                    for token in np.argsort(-found)[: 2 * width].tolist()
                    if math.isfinite(found[token])
                ]
            grown.sort(key=lambda item: -sum(item[1]))
            done += [item for item in grown[:width] if item[0][-1] == self._eos]
            live = [item for item in grown if item[0][-1] != self._eos][:width]
        ranked = sorted([*done, *live], key=lambda item: -sum(item[1]) / len(item[0]) ** power)[
            :width
        ]
        return [
            (tokens, [{t: Logprob(v)} for t, v in zip(tokens, values, strict=True)])
            for tokens, values in ranked
        ]


def _llm_class(standin: Standin) -> type[_LLM]:
    return type("LLM", (_LLM,), {"standin": standin})
