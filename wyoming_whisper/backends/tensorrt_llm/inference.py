"""Whisper on TensorRT-LLM as decoding sees it."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import functools
import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ...errors import EngineError
from ...transcriber import SAMPLE_RATE, Samples, go_on
from ...whisper.audio import HOP_LENGTH, Array, white_noise
from ...whisper.inference import GenerateOptions, Hypothesis, Inference
from ...whisper.search import log_softmax
from ...whisper.tokenizer import Tokenizer
from .api import Api

_LOGGER = logging.getLogger(__name__)


class LLMInference(Inference):
    """An Inference over an LLM; used from many threads.

    Its "spectrogram" is the samples themselves, frame by frame: shape = (HOP_LENGTH, n_frames).
    """

    ALTERNATIVES = (100, 20, 5, 1)
    """How many log-probabilities are asked for where a language is to be detected: one per
    language, or as many as a version gives. A language that is not among them counts as
    impossible."""
    POLL_SECONDS = 0.05
    """How often one who waits for a text looks whether it is still wanted."""
    LENGTH_PENALTY = 1.0  # beams compared by their mean, as CTranslate2 compares them
    MAX_SEEN_PROMPT = 64
    """Tokens of a prompt whose logits are asked for: of each it is the whole vocabulary, 200 KB."""
    GENERATE_SECONDS = 60.0
    """Without a text for so long, it hangs."""
    _NOT_YET = (queue.Empty, TimeoutError, concurrent.futures.TimeoutError)
    """What waiting with a timeout ends in: which of them, TensorRT-LLM does not say."""

    n_mels = 80
    """Of the spectrogram by whose loudness long audio is cut; the model's own is made elsewhere."""

    def __init__(self, api: Api, llm: Any, tokenizer: Tokenizer, beam_size: int) -> None:
        self._api = api
        self._llm: Any = llm
        self._tokenizer = tokenizer
        self._beam_size = beam_size
        self._alternatives = self.ALTERNATIVES[0]
        self._submitting = threading.Lock()  # that LLM may be called from many threads is not said
        self.sees_prompt = False
        """Whether it gives the logits of the prompt's tokens; `try_out` finds out."""
        self.takes_tokens = hasattr(llm, "preprocess")
        """Whether a prompt may be other than the start of a transcript."""

    @property
    def scores(self) -> bool:
        """Whether `score` is possible."""
        return self.sees_prompt and self.takes_tokens

    @staticmethod
    def frames(samples: Samples) -> Array:
        """Return samples frame by frame, shape = (HOP_LENGTH, n_frames), without a broken frame."""
        whole = len(samples) // HOP_LENGTH * HOP_LENGTH
        return samples[:whole].reshape(-1, HOP_LENGTH).T

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
        shares = {code: math.exp(logprobs.get(token, -math.inf)) for code, token in tokens.items()}
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
        hypotheses = [self._hypothesis(output) for result in results for output in result.outputs]
        best, *others = sorted(hypotheses, key=lambda one: one.avg_logprob, reverse=True)
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
            self._submit(audio_features, [*prompt, *text], one)
            for text, one in zip(texts, params, strict=True)
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
        samples, language = white_noise(SAMPLE_RATE), next(iter(self._tokenizer.language_tokens))
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
                "known, and texts are not compared with the home"
            )
        if not self.takes_tokens:
            _LOGGER.warning("this TensorRT-LLM takes no prompts, so they are left out")
        self.try_detection(samples)
        text = self.generate(samples, prompt, GenerateOptions(self._beam_size, 0.0, 1, 8, ()))
        if not math.isfinite(text.avg_logprob):
            raise EngineError("TensorRT-LLM computes nonsense with this model")

    def try_detection(self, samples: Samples) -> None:
        """Find out how many log-probabilities may be asked for. Raises EngineError for none."""
        for n_alternatives in self.ALTERNATIVES if self._tokenizer.multilingual else ():
            self._alternatives = n_alternatives
            try:
                self.detect_language(samples)
            except EngineError:
                if n_alternatives == self.ALTERNATIVES[-1]:
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

    def _params(self, **more: Any) -> Any:
        beams: dict[str, Any] = {}
        if self._beam_size > 1:
            beams = {
                "use_beam_search": True,
                "best_of": self._beam_size,
                "n": self._beam_size,
                "length_penalty": self.LENGTH_PENALTY,
            }
        values = {"temperature": 0.0, "detokenize": False, **beams, **more}
        try:
            return self._api.sampling_params(**values)
        except TypeError as error:
            raise EngineError(
                f"TensorRT-LLM {self._api.version}: {Api.first_line(error)}"
            ) from error

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
        deadline = time.monotonic() + self.GENERATE_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(*self._NOT_YET), self._failing():
                return future.result(timeout=self.POLL_SECONDS)
            checkpoint()
            if self._llm is None:
                raise EngineError("TensorRT-LLM was closed")
        raise EngineError(f"TensorRT-LLM gave no answer in {self.GENERATE_SECONDS:.0f} s")

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        """Tell what it raises in one sentence; that a wait has ended is no failure."""
        try:
            yield
        except self._NOT_YET:
            raise
        except Exception as error:
            raise EngineError(f"TensorRT-LLM failed: {Api.first_line(error)}") from error

    def _hypothesis(self, output: Any) -> Hypothesis:
        tokens = list(output.token_ids)
        if self._tokenizer.eot in tokens:
            tokens = tokens[: tokens.index(self._tokenizer.eot)]
        return Hypothesis(tokens, _total_logprob(output) / (len(tokens) + 1), 0.0)

    def sees(self, prompt: Sequence[int]) -> bool:
        """Whether a hypothesis after `prompt` comes with a no_speech_prob that is known."""
        return self.sees_prompt and len(prompt) <= self.MAX_SEEN_PROMPT

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
        one = self._tokenizer
        special = {one.sot: "<|startoftranscript|>", one.no_timestamps: "<|notimestamps|>"}
        special |= {token: f"<|{code}|>" for code, token in one.language_tokens.items()}
        if one.multilingual:
            code = next(iter(one.language_tokens))
            for task in ("transcribe", "translate"):
                special[one.sot_sequence(code, task)[2]] = f"<|{task}|>"
        return special


def _first_tokens(output: Any) -> dict[int, float]:
    """Return token -> log-probability of what could have come first, as far as it is given."""
    first = output.logprobs[0] if output.logprobs else {}
    if isinstance(first, dict):
        logprobs = {int(token): float(entry.logprob) for token, entry in first.items()}
        if len(logprobs) > 1:
            return logprobs
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
