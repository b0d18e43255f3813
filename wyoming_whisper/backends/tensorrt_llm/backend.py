"""The TensorRT-LLM backend: its LLM API's Whisper, for GPUs that many speakers share.

Written against NVIDIA/TensorRT-LLM as it documents itself (docs/source/models/encoder-decoder.md,
"Transcribe audio with Whisper"; tensorrt_llm/_torch/models/modeling_whisper.py,
WhisperInputProcessor; tensorrt_llm/llmapi/llm.py, LLM.generate_async and LLM.preprocess;
tensorrt_llm/sampling_params.py; tensorrt_llm/executor/result.py), which has Whisper on its PyTorch
backend since pull request 16141, in the release candidates of 1.3. It was never run: see
docs/engines.md.

What it takes is samples, not a spectrogram, 30 s at most, which it pads to 30 s; a prompt as text
that begins with `<|startoftranscript|>`; and it never writes the tokens that the model's
generation_config.json forbids.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import functools
import importlib
import logging
import math
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...engine.tensorrt.cuda import NoGpuError, find_gpus
from ...errors import EngineError, ModelBrokenError, ModelError, SettingsError
from ...models.models import ensure_model, is_multilingual, model_languages, verify_hashes
from ...transcriber import SAMPLE_RATE, Samples, TranscribeOptions, Transcriber, Transcription
from ...whisper.audio import FRAMES_PER_POSITION, FRAMES_PER_SECOND, HOP_LENGTH, N_FRAMES, Array
from ...whisper.decoding import (
    N_TEXT_CTX,
    AudioContext,
    Correct,
    Decoder,
    DecodingOptions,
    GenerateOptions,
    Hypothesis,
    Stopwatch,
    go_on,
)
from ...whisper.search import log_softmax
from ...whisper.tokenizer import Tokenizer
from ..auto import with_model_for
from ..pipeline import WhisperTranscriber, decoding_options, detectable, load_tokenizer

if TYPE_CHECKING:
    from ...settings.options import Settings
    from ...status import Status

_LOGGER = logging.getLogger(__name__)

PACKAGE = "tensorrt_llm"
FIRST_VERSION = "1.3.0rc24"
NAMES = ("LLM", "KvCacheConfig", "SamplingParams", "SchedulerConfig")
"""What is used of tensorrt_llm.llmapi."""

DTYPES = {
    "default": "float16",  # as Whisper's weights are; bfloat16 would round them
    "auto": "float16",
    "float16": "float16",
    "bfloat16": "bfloat16",
    "float32": "float32",
}

AT_ONCE = 16
"""Requests in flight: it batches them as they come."""

N_AUDIO_CTX = N_FRAMES // FRAMES_PER_POSITION
MAX_NUM_TOKENS = 8192  # encoded at once: five windows, and what is being written meanwhile
GPU_MEMORY_FRACTION = 0.3
"""Of what is free on the GPU once the weights are there, for keys and values. Its own default is
0.9, on a GPU that others may use; for AT_ONCE requests large-v3 needs 5 GB, turbo less than 1."""

ALTERNATIVES = (100, 20, 5, 1)
"""How many log-probabilities are asked for where a language is to be detected: one per language, or
as many as a version gives. A language that is not among them counts as impossible."""

BEAM_SIZE = 1
LENGTH_PENALTY = 1.0  # beams compared by their mean, as CTranslate2 compares them

LONGEST_FRAMES = 28 * FRAMES_PER_SECOND
"""Of pieces of long audio, which are cut where it is quiet: the rules that make timestamps
dependable, which openai/whisper cuts by, are not applied by this runtime."""

MAX_SEEN_PROMPT = 64
"""Tokens of a prompt whose logits are asked for: of each it is the whole vocabulary, 200 KB."""

POLL_SECONDS = 0.05
"""How often one who waits for a text looks whether it is still wanted."""
GENERATE_SECONDS = 60.0
"""Without a text for so long, it hangs."""

STAND_IN_RETRY_SECONDS = 30.0
"""Between two tries to open a stand-in, where there was none to be had."""

NOISE_SECONDS = 1.0

_NOT_YET = (queue.Empty, TimeoutError, concurrent.futures.TimeoutError)
"""What waiting with a timeout ends in: which of them, TensorRT-LLM does not say."""

NO_USAGE_STATS = ("TRTLLM_NO_USAGE_STATS", "DO_NOT_TRACK")
"""It reports its use to NVIDIA unless one of these is set (tensorrt_llm/usage/usage_lib.py)."""


@dataclass(frozen=True)
class Api:
    """The parts of tensorrt_llm.llmapi that are used, and its version."""

    version: str
    llm: Any
    kv_cache_config: Any
    sampling_params: Any
    scheduler_config: Any


def find_api(device: str = "auto") -> tuple[Api, str]:
    """Return the package and the GPU's name. Raises EngineError: what is missing."""
    if device == "cpu":
        raise NoGpuError("--device is cpu")
    gpu = find_gpus()[0]
    return import_api(), gpu.name


def import_api() -> Api:
    """Import what is used of TensorRT-LLM. Raises EngineError in one sentence."""
    for name in NO_USAGE_STATS:
        os.environ.setdefault(name, "1")
    try:
        with contextlib.redirect_stdout(sys.stderr):  # it greets on stdout, which is not its own
            package = importlib.import_module(PACKAGE)
            llmapi = importlib.import_module(f"{PACKAGE}.llmapi")
    except ModuleNotFoundError as error:
        if error.name != PACKAGE:
            raise EngineError(f"TensorRT-LLM lacks the package {error.name}") from error
        raise EngineError(
            f"the package {PACKAGE} is not installed: pip install 'wyoming-whisper[tensorrt-llm]'"
        ) from error
    except Exception as error:  # it loads CUDA, MPI and torch, which fail in ways of their own
        raise EngineError(f"TensorRT-LLM can't be imported: {_first_line(error)}") from error
    version = str(getattr(package, "__version__", "of unknown version"))
    missing = [name for name in NAMES if not hasattr(llmapi, name)]
    if missing:
        raise EngineError(
            f"TensorRT-LLM {version} has no {missing[0]} in its LLM API; {FIRST_VERSION} or later "
            "is needed"
        )
    return Api(version, *(getattr(llmapi, name) for name in NAMES))


def open_tensorrt_llm(settings: Settings, status: Status | None) -> Transcriber:
    """Return what answers on the GPU, and faster-whisper where that fails later.

    Raises EngineError where TensorRT-LLM can't be used, SettingsError for what it can't do,
    ModelError.
    """
    dtype = choose_dtype(settings)
    api, gpu = find_api(settings.device)
    settings = with_model_for(settings, find_gpus()[0])
    report = status.downloading if status else None
    path = ensure_model(settings.model, settings, report=report, layout="huggingface")
    if status:
        status.update(phase="loading", detail="loading the model", fraction=None)
    try:
        opened = open_model(settings, path, api, dtype, gpu)
    except (EngineError, ModelBrokenError) as error:
        path = _whole_again(settings, path, error)
        opened = open_model(settings, path, api, dtype, gpu)
    why = f"it was asked for, and a {gpu} and TensorRT-LLM {api.version} are here"
    _LOGGER.info("backend: tensorrt-llm, because %s", why)
    if status:
        status.update(backend="tensorrt-llm", why=why)
    if settings.strict_backend:
        return opened
    return WithStandIn(opened, functools.partial(_open_stand_in, settings), status)


def choose_dtype(settings: Settings) -> str:
    """Return the arithmetic. Raises SettingsError for what TensorRT-LLM's Whisper can't do."""
    if settings.device.startswith("cuda:"):
        raise SettingsError(
            f"--device {settings.device}: TensorRT-LLM takes the first GPU that it sees; "
            "use --device auto, and CUDA_VISIBLE_DEVICES to choose one"
        )
    try:
        return DTYPES[settings.compute_type]
    except KeyError:
        known = ", ".join(dict.fromkeys(DTYPES.values()))
        raise SettingsError(
            f"--compute-type {settings.compute_type} is not possible with TensorRT-LLM: "
            f"it can {known}"
        ) from None


def _whole_again(settings: Settings, path: Path, error: Exception) -> Path:
    """Return the model fetched again, if its files are not what they were; else raise `error`."""
    try:
        verify_hashes(path)
    except ModelBrokenError as broken:
        _LOGGER.warning("%s; fetching it again", broken)
        return ensure_model(settings.model, settings, verify=True, layout="huggingface")
    raise error


def open_model(settings: Settings, path: Path, api: Api, dtype: str, gpu: str) -> LLMTranscriber:
    """Load the model in folder `path` and try it out. Raises EngineError, ModelBrokenError."""
    beam_size = settings.beam_size or BEAM_SIZE
    name = settings.model_name
    multilingual = is_multilingual(path)
    tokenizer = load_tokenizer(path, multilingual=multilingual)
    languages = model_languages(settings.model, path) if multilingual else ("en",)
    decoding = options_for(decoding_options(settings, path, beam_size))
    choosable = detectable(settings.languages, languages)
    inference = LLMInference(api, make_llm(api, path, dtype, beam_size), tokenizer, beam_size)
    with contextlib.ExitStack() as stack:
        stack.callback(inference.close)
        inference.try_out()
        transcriber = LLMTranscriber(
            inference,
            tokenizer,
            languages,
            choosable,
            decoding,
            f"{name} on {gpu} in {dtype} (TensorRT-LLM {api.version})",
        )
        stack.pop_all()
    _LOGGER.info("%s, beam %d", transcriber.description, beam_size)
    return transcriber


def make_llm(api: Api, path: Path, dtype: str, beam_size: int) -> Any:
    """Return an LLM of the model in folder `path`, as encoder-decoder.md sizes one for Whisper."""
    self_tokens = N_TEXT_CTX * beam_size
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return api.llm(
                model=str(path),
                backend="pytorch",
                attn_backend="TRTLLM",
                dtype=dtype,
                max_batch_size=AT_ONCE,
                max_beam_width=beam_size,
                max_input_len=N_AUDIO_CTX,
                max_num_tokens=MAX_NUM_TOKENS,
                enable_chunked_prefill=False,
                kv_cache_config=api.kv_cache_config(
                    enable_block_reuse=False,
                    free_gpu_memory_fraction=GPU_MEMORY_FRACTION,
                    cross_kv_cache_fraction=round(N_AUDIO_CTX / (N_AUDIO_CTX + self_tokens), 2),
                ),
                scheduler_config=api.scheduler_config(use_python_scheduler=True),
            )
    except Exception as error:
        raise EngineError(
            f"TensorRT-LLM {api.version} does not open the model (Whisper needs "
            f"{FIRST_VERSION} or later): {_first_line(error)}"
        ) from error


def options_for(decoding: DecodingOptions) -> DecodingOptions:
    """Return the options with what this runtime does not leave open: always 30 s, no mixed beams.

    Each request of an LLM is as wide as its max_beam_width (docs/source/features/sampling.md), so
    that with beams there is no sampling at higher temperatures.
    """
    longest = min(decoding.audio_context.longest, LONGEST_FRAMES)
    context = AudioContext(minimum=FRAMES_PER_POSITION, retry=False, longest=longest)
    temperatures = decoding.temperatures if decoding.beam_size == 1 else (0.0,)
    return dataclasses.replace(decoding, audio_context=context, temperatures=temperatures)


class LLMInference:
    """A whisper.decoding.ScoringInference over an LLM; used from many threads.

    Its "spectrogram" is the samples themselves, frame by frame: shape = (HOP_LENGTH, n_frames).
    """

    n_mels = 80
    """Of the spectrogram by whose loudness long audio is cut; the model's own is made elsewhere."""

    def __init__(self, api: Api, llm: Any, tokenizer: Tokenizer, beam_size: int) -> None:
        self._api = api
        self._llm: Any = llm
        self._tokenizer = tokenizer
        self._beam_size = beam_size
        self._alternatives = ALTERNATIVES[0]
        self._submitting = threading.Lock()  # that LLM may be called from many threads is not said
        self.sees_prompt = False
        """Whether it gives the logits of the prompt's tokens; `try_out` finds out."""
        self.takes_tokens = hasattr(llm, "preprocess")
        """Whether a prompt may be other than the start of a transcript."""

    @property
    def scores(self) -> bool:
        """Whether `score` is possible."""
        return self.sees_prompt and self.takes_tokens

    def encode(self, mel: Array) -> Samples:
        """Return the samples of a window that `frames` made."""
        return np.ascontiguousarray(mel.T).reshape(-1)

    def detect_language(self, audio_features: Samples) -> list[tuple[str, float]]:
        """Return (code, probability), likeliest first: of the first token after the start."""
        tokens = self._tokenizer.language_tokens
        params = self._params(max_tokens=1, logprobs=min(len(tokens), self._alternatives))
        future = self._submit(audio_features, [self._tokenizer.sot], params)
        result = self._results([future], go_on)[0]
        logprobs: dict[int, float] = {}
        for output in result.outputs:  # beams are different tokens here
            logprobs |= _first_tokens(output)
        found = {code: logprobs.get(token, -math.inf) for code, token in tokens.items()}
        shares = {code: math.exp(logprob) for code, logprob in found.items()}
        return sorted(shares.items(), key=lambda item: item[1], reverse=True)

    def generate(
        self, audio_features: Samples, prompt: Sequence[int], options: GenerateOptions
    ) -> Hypothesis:
        """Return the best hypothesis. Which tokens are never written, the model's files say."""
        sampled = options.temperature > 0
        if not self.takes_tokens:
            prompt = prompt[prompt.index(self._tokenizer.sot) :]
        futures = [
            self._submit(
                audio_features,
                prompt,
                self._params(
                    max_tokens=options.max_new_tokens,
                    logprobs=1,
                    temperature=options.temperature,
                    return_context_logits=self.sees(prompt),
                    **({"seed": seed} if sampled else {}),
                ),
            )
            for seed in range(options.best_of if sampled else 1)
        ]
        results = self._results(futures, options.checkpoint)
        found = [self._hypothesis(output) for result in results for output in result.outputs]
        found.sort(key=lambda hypothesis: hypothesis.avg_logprob, reverse=True)
        best, *others = found
        return dataclasses.replace(
            best,
            no_speech_prob=self._no_speech_prob(results[0], prompt),
            others=tuple(other.tokens for other in others),
        )

    def score(
        self, audio_features: Samples, prompt: Sequence[int], texts: Sequence[Sequence[int]]
    ) -> list[Array]:
        """Return the log-probabilities of each text's tokens after `prompt`, shape = (n_tokens,).

        They are among text tokens. Raises RuntimeError where the logits of a prompt are not given.
        """
        if not self.scores:
            raise RuntimeError("this TensorRT-LLM gives no logits of a prompt")
        params = (self._params(max_tokens=1, return_context_logits=True) for _ in texts)
        futures = [
            self._submit(audio_features, [*prompt, *text], given)
            for text, given in zip(texts, params, strict=True)
        ]
        scores = []
        for result, text in zip(self._results(futures, go_on), texts, strict=True):
            logits = self._context_logits(result)
            after = logits[len(prompt) - 1 : len(prompt) - 1 + len(text), : self._tokenizer.eot]
            scores.append(log_softmax(after)[np.arange(len(text)), list(text)])
        return scores

    def try_out(self) -> None:
        """Hear a second of noise; find out whether the logits of the prompt are given.

        Raises EngineError where it does not work at all.
        """
        samples, language = noise(), next(iter(self._tokenizer.language_tokens))
        prompt = [*self._tokenizer.sot_sequence(language), self._tokenizer.no_timestamps]
        try:
            params = self._params(max_tokens=1, return_context_logits=True)
            result = self._results([self._submit(samples, prompt, params)], go_on)[0]
            self.sees_prompt = len(self._context_logits(result)) == len(prompt)
        except EngineError as error:
            _LOGGER.debug("no logits of the prompt: %s", error)
        if not self.sees_prompt:
            _LOGGER.warning(
                "this TensorRT-LLM gives no logits of the prompt: whether nobody spoke is not "
                "known, and names are not compared"
            )
        if not self.takes_tokens:
            _LOGGER.warning("this TensorRT-LLM takes no prompts, so they are left out")
        self.try_detection(samples)
        found = self.generate(samples, prompt, GenerateOptions(self._beam_size, 0.0, 1, 8, ()))
        if not math.isfinite(found.avg_logprob):
            raise EngineError("TensorRT-LLM computes nonsense with this model")

    def try_detection(self, samples: Samples) -> None:
        """Find out how many log-probabilities may be asked for. Raises EngineError for none."""
        for wanted in ALTERNATIVES if self._tokenizer.multilingual else ():
            self._alternatives = wanted
            try:
                self.detect_language(samples)
            except EngineError:
                if wanted == ALTERNATIVES[-1]:
                    raise
            else:
                return

    def close(self) -> None:
        """Free the GPU."""
        llm, self._llm = self._llm, None
        if llm is not None:
            with contextlib.suppress(Exception):  # what has failed may fail at this too
                llm.shutdown()

    # One request.

    def _params(self, **given: Any) -> Any:
        beams: dict[str, Any] = {}
        if self._beam_size > 1:
            beams = {
                "use_beam_search": True,
                "best_of": self._beam_size,
                "n": self._beam_size,
                "length_penalty": LENGTH_PENALTY,
            }
        values = {"temperature": 0.0, "detokenize": False, **beams, **given}
        try:
            return self._api.sampling_params(**values)
        except TypeError as error:
            raise EngineError(f"TensorRT-LLM {self._api.version}: {_first_line(error)}") from error

    def _submit(self, samples: Samples, prompt: Sequence[int], params: Any) -> Any:
        """Return what will have the result."""
        start = prompt.index(self._tokenizer.sot)
        special = self._special
        as_text = start == 0 and all(token in special for token in prompt)
        text = "".join(special[token] for token in prompt) if as_text else special[prompt[start]]
        inputs = {"prompt": text, "multi_modal_data": {"audio": [(samples, SAMPLE_RATE)]}}
        with self._submitting, self._failing():
            if as_text:
                return self._llm.generate_async(inputs, sampling_params=params)
            # Text before the start is refused as a text, and passed on as tokens.
            prepared = self._llm.preprocess(inputs, params)
            prepared.prompt_token_ids = list(prompt)
            return self._llm.generate_async(prepared, sampling_params=params)

    def _results(self, futures: Sequence[Any], checkpoint: Callable[[], None]) -> list[Any]:
        """Wait for all; give all up when nobody wants them any more, or one fails."""
        try:
            return [self._result(future, checkpoint) for future in futures]
        except BaseException:
            for future in futures:
                with contextlib.suppress(Exception):
                    future.abort()
            raise

    def _result(self, future: Any, checkpoint: Callable[[], None]) -> Any:
        deadline = time.monotonic() + GENERATE_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(*_NOT_YET), self._failing():
                return future.result(timeout=POLL_SECONDS)
            checkpoint()
            if self._llm is None:
                raise EngineError("TensorRT-LLM was closed")
        raise EngineError(f"TensorRT-LLM gave no answer in {GENERATE_SECONDS:.0f} s")

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        """Tell what it raises in one sentence; that a wait has ended is no failure."""
        try:
            yield
        except _NOT_YET:
            raise
        except Exception as error:
            raise EngineError(f"TensorRT-LLM failed: {_first_line(error)}") from error

    def _hypothesis(self, output: Any) -> Hypothesis:
        tokens = list(output.token_ids)
        if self._tokenizer.eot in tokens:
            tokens = tokens[: tokens.index(self._tokenizer.eot)]
        return Hypothesis(tokens, _total_logprob(output) / (len(tokens) + 1), 0.0)

    def sees(self, prompt: Sequence[int]) -> bool:
        """Whether a hypothesis after `prompt` comes with a no_speech_prob that is known."""
        return self.sees_prompt and len(prompt) <= MAX_SEEN_PROMPT

    def _no_speech_prob(self, result: Any, prompt: Sequence[int]) -> float:
        """Return the probability of the no-speech token right after the start; 0 if not known."""
        if not self.sees(prompt):
            return 0.0
        logits = self._context_logits(result)[prompt.index(self._tokenizer.sot)]
        return float(np.exp(log_softmax(logits)[self._tokenizer.no_speech]))

    def _context_logits(self, result: Any) -> Array:
        """Return the logits after each token of the prompt, shape = (n_prompt, n_vocab)."""
        logits = result.context_logits
        if logits is None:
            raise EngineError("TensorRT-LLM gave no logits of the prompt")
        values = np.asarray(logits.float().cpu().numpy(), np.float32)
        return values.reshape(-1, values.shape[-1])

    @functools.cached_property
    def _special(self) -> dict[int, str]:
        """The tokens that a transcript starts with, as text."""
        known = self._tokenizer
        special = {known.sot: "<|startoftranscript|>", known.no_timestamps: "<|notimestamps|>"}
        special |= {token: f"<|{code}|>" for code, token in known.language_tokens.items()}
        if known.multilingual:
            code = next(iter(known.language_tokens))
            for task in ("transcribe", "translate"):
                special[known.sot_sequence(code, task)[2]] = f"<|{task}|>"
        return special


class SampleDecoder(Decoder):
    """A Decoder of one utterance, whose windows are its samples."""

    def __init__(self, samples: Samples, decoder: tuple[Any, ...]) -> None:
        super().__init__(*decoder)
        self._samples = samples

    def window(self, mel: Array, seek: int, silence: float) -> Array:
        """Return the samples of the window, frame by frame; silence is added by the runtime."""
        last = min(mel.shape[1], seek + N_FRAMES)
        return frames(self._samples[seek * HOP_LENGTH : last * HOP_LENGTH])


def frames(samples: Samples) -> Array:
    """Return samples frame by frame, shape = (HOP_LENGTH, n_frames); a broken frame is left out."""
    whole = len(samples) // HOP_LENGTH * HOP_LENGTH
    return samples[:whole].reshape(-1, HOP_LENGTH).T


def noise() -> Samples:
    """Return a second of white noise, always the same."""
    found = np.random.default_rng(0).normal(0.0, 0.05, round(NOISE_SECONDS * SAMPLE_RATE))
    return found.astype(np.float32)


class LLMTranscriber(WhisperTranscriber):
    """A Transcriber over an LLM, for as many requests at once as it batches."""

    at_once = AT_ONCE
    _inference: LLMInference

    @property
    def inference(self) -> LLMInference:
        return self._inference

    def close(self) -> None:
        """Free the GPU; who still waits for an answer is told that there will be none."""
        self._inference.close()

    def _decoder_for(self, samples: Samples, decoding: DecodingOptions) -> Decoder:
        return SampleDecoder(
            samples, (self._inference, self._tokenizer, self._detectable, decoding)
        )

    def _as_without_timestamps(
        self, audio_features: Any, prompt: Sequence[int], language: str, hypothesis: Hypothesis
    ) -> Hypothesis:
        if not self._inference.scores:
            return hypothesis
        return super()._as_without_timestamps(audio_features, prompt, language, hypothesis)

    def _correct(self, options: TranscribeOptions) -> Correct | None:
        return super()._correct(options) if self._inference.scores else None

    def _weigh(self, options: TranscribeOptions, stopwatch: Stopwatch) -> Correct | None:
        return super()._weigh(options, stopwatch) if self._inference.scores else None

    def _noise(self) -> Samples:
        return noise()


class WithStandIn:
    """A Transcriber: TensorRT-LLM's, and once that has failed twice in a row its stand-in."""

    def __init__(
        self,
        gpu: Transcriber,
        open_stand_in: Callable[[], Transcriber],
        status: Status | None = None,
    ) -> None:
        self.languages = gpu.languages
        self.description = gpu.description
        self.at_once = AT_ONCE
        self._gpu: Transcriber | None = gpu
        self._stand_in: Transcriber | None = None
        self._open_stand_in = open_stand_in
        self._status = status
        self._why = ""
        self._missing: str | None = None
        self._next_try = 0.0
        self._closed = False
        self._changing = threading.Lock()

    def transcribe(self, samples: Samples, options: TranscribeOptions) -> Transcription:
        """Return what was said; where TensorRT-LLM fails, what faster-whisper hears."""
        gpu = self._gpu
        if gpu is not None:
            try:
                return gpu.transcribe(samples, options)
            except EngineError as error:
                _LOGGER.warning("%s; it is asked again", error)
            try:
                return gpu.transcribe(samples, options)
            except EngineError as error:
                self._lose(gpu, error, options.checkpoint)
        return self._who_stands_in(options.checkpoint).transcribe(samples, options)

    def close(self) -> None:
        """Free both."""
        with self._changing:
            self._closed = True
            for transcriber in (self._gpu, self._stand_in):
                if transcriber is not None:
                    transcriber.close()
            self._gpu = self._stand_in = None

    def _lose(self, gpu: Transcriber, error: EngineError, checkpoint: Callable[[], None]) -> None:
        """Ask TensorRT-LLM no more."""
        with self._change(checkpoint):
            if self._gpu is not gpu:  # another thread was here before
                return
            self._why = f"TensorRT-LLM has failed, and is not asked until the next start: {error}"
            _LOGGER.warning("faster-whisper answers: %s", self._why)
            self._gpu = None
            gpu.close()

    def _who_stands_in(self, checkpoint: Callable[[], None]) -> Transcriber:
        """Return the stand-in, opened by who comes first; the others wait for it.

        Raises EngineError where there is none to be had.
        """
        with self._change(checkpoint):
            if self._stand_in is None:
                self._stand_in = self._opened()
                self.description = self._stand_in.description
                if self._status:
                    self._status.update(
                        backend="faster-whisper", why=self._why, description=self.description
                    )
            return self._stand_in

    def _opened(self) -> Transcriber:
        if self._closed:
            raise EngineError("TensorRT-LLM was closed")
        if self._missing is None or time.monotonic() >= self._next_try:
            try:
                return self._open_stand_in()
            except (ModelError, SettingsError) as error:
                _LOGGER.error("faster-whisper can't answer either: %s", error)  # noqa: TRY400
                self._missing = str(error)
                self._next_try = time.monotonic() + STAND_IN_RETRY_SECONDS
        raise EngineError(f"TensorRT-LLM has failed, and nothing stands in for it: {self._missing}")

    @contextlib.contextmanager
    def _change(self, checkpoint: Callable[[], None]) -> Iterator[None]:
        """Hold the lock; to open a stand-in takes long, and who waits may be given up."""
        while not self._changing.acquire(timeout=POLL_SECONDS):
            checkpoint()
        try:
            yield
        finally:
            self._changing.release()


def _open_stand_in(settings: Settings) -> Transcriber:
    """Return faster-whisper with the same model, on the CPU: the GPU has just failed."""
    from ..faster_whisper import open_faster_whisper
    from ..tensorrt import on_cpu

    settings = on_cpu(settings)
    return open_faster_whisper(settings, ensure_model(settings.model, settings))


def _first_tokens(output: Any) -> dict[int, float]:
    """Return token -> log-probability of what could have come first, as far as it is told."""
    first = output.logprobs[0] if output.logprobs else {}
    if isinstance(first, dict):
        found = {int(token): float(entry.logprob) for token, entry in first.items()}
        if len(found) > 1:
            return found
    return {int(output.token_ids[0]): _total_logprob(output)} if output.token_ids else {}


def _total_logprob(output: Any) -> float:
    """Return the sum of the tokens' log-probabilities, the end's too.

    logprobs is a list of {token: Logprob} or, in some versions, of numbers.
    """
    if output.logprobs:
        pairs = zip(output.token_ids, output.logprobs, strict=False)
        values = [
            entry[token].logprob if isinstance(entry, dict) else entry for token, entry in pairs
        ]
        return float(sum(values))
    if output.cumulative_logprob is None:
        raise EngineError("TensorRT-LLM gave no log-probabilities")
    return float(output.cumulative_logprob)


def _first_line(error: BaseException) -> str:
    """Return what an error says, for a sentence: its first line, its type where that is empty."""
    text = str(error).strip().partition("\n")[0]
    return text or type(error).__name__
