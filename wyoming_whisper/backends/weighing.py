"""What the audio itself says of a text: its evidence, without what a prompt makes likely.

A prompt's own words are likely after it, whatever is heard. Where a text is much likelier with the
prompt than without, the audio is decoded once more without it; where that gives other words, and
the audio hardly makes the text likelier than noise does, the text is the prompt's and not the
speaker's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..home.index import fold
from ..text.evidence import Voicing
from ..text.repetition import compression_ratio, said_once
from ..whisper.inference import GenerateOptions, Hypothesis, Inference
from ..whisper.tokenizer import Tokenizer


@dataclass(frozen=True)
class _Weights:
    """Mean log-probabilities of a text's tokens, without a prompt: by the audio, and by noise."""

    heard: float
    noise: float

    @property
    def gain(self) -> float:
        return self.heard - self.noise


def _weakest(heard: Sequence[float], noise: Sequence[float]) -> _Weights:
    """Return what says least for a text: repetitions neither add to its evidence nor replace it."""
    pairs = [_Weights(*pair) for pair in zip(heard, noise, strict=True)]
    return min(pairs, key=lambda pair: Voicing.of_likelihoods(pair.heard, pair.noise))


class Weighing:
    """Gives the text of a window its evidence; a `Correct` of whisper.decoding.

    `noise` returns audio features of noise. It may encode them, whereupon others are gone.
    `checkpoint` is called between passes; what it raises ends the work.
    """

    # Nats a token. Chosen on commands in and beside the prompt, in noise and far away
    # (docs/benchmarks.md, Noise).
    DOUBT = 0.8  # by which the prompt makes a text likelier
    SURE_GAIN = 2.5  # by which the audio makes it likelier than noise does: nobody asks any further
    LEAST_GAIN = 1.0  # the same where the audio alone gives a similar text
    SPARE_TOKENS = 16  # over twice as many as the text has, for what is decoded instead
    SIMILAR = 0.5  # by letters and sound
    MAX_COMPRESSION_RATIO = 2.4

    def __init__(
        self,
        inference: Inference,
        tokenizer: Tokenizer,
        noise: Callable[[], Any],
        beam_size: int,
        checkpoint: Callable[[], None] = lambda: None,
    ) -> None:
        self._inference = inference
        self._tokenizer = tokenizer
        self._noise = noise
        self._beam_size = beam_size
        self._checkpoint = checkpoint

    def __call__(
        self, audio_features: Any, prompt: Sequence[int], language: str, hypothesis: Hypothesis
    ) -> Hypothesis:
        """Return the hypothesis with its evidence, or what the audio alone says instead."""
        texts = self._texts(hypothesis.tokens)
        if not texts:
            return hypothesis
        self._checkpoint()
        start = prompt.index(self._tokenizer.sot)
        unprompted = list(prompt[start:])
        plain = self._without_timestamps(unprompted)
        if plain == list(prompt):
            rest = self._scores(audio_features, plain, texts[1:])
            heard = [hypothesis.avg_logprob, *rest]
        else:
            heard = self._scores(audio_features, plain, texts)
        if not start or hypothesis.avg_logprob - heard[0] <= self.DOUBT:
            weights = _weakest(heard, self._scores(self._noise(), plain, texts))
            return dataclasses.replace(
                hypothesis, heard_logprob=weights.heard, noise_logprob=weights.noise
            )
        return self._compared(audio_features, unprompted, hypothesis, texts, heard)

    def _compared(
        self,
        audio_features: Any,
        unprompted: list[int],
        prompted: Hypothesis,
        texts: list[list[int]],
        heard: list[float],
    ) -> Hypothesis:
        """Return the text that the prompt led to, or what is decoded without it."""
        plain = self._without_timestamps(unprompted)
        other = self._decoded(audio_features, unprompted, len(prompted.tokens))
        others = self._texts(other.tokens)
        others_heard = self._scores(audio_features, plain, others)
        noise = self._noise()  # from here on the audio's own features may be gone
        weights = _weakest(heard, self._scores(noise, plain, texts))
        is_similar = bool(others) and self._similarity(texts[-1], others[-1]) >= self.SIMILAR
        if weights.gain >= (self.LEAST_GAIN if is_similar else self.SURE_GAIN):
            # The audio bears it out: that its words are unusual says nothing against it.
            return dataclasses.replace(
                prompted,
                heard_logprob=prompted.avg_logprob,
                noise_logprob=prompted.avg_logprob - weights.gain,
            )
        if not others or compression_ratio(self._text(other.tokens)) > self.MAX_COMPRESSION_RATIO:
            return dataclasses.replace(
                prompted, heard_logprob=weights.heard, noise_logprob=weights.noise
            )
        other_weights = _weakest(others_heard, self._scores(noise, plain, others))
        return dataclasses.replace(
            prompted,
            tokens=other.tokens,
            avg_logprob=other.avg_logprob,
            heard_logprob=other_weights.heard,
            noise_logprob=other_weights.noise,
        )

    def _decoded(self, audio_features: Any, prompt: list[int], n_tokens: int) -> Hypothesis:
        self._checkpoint()
        options = GenerateOptions(
            beam_size=self._beam_size,
            temperature=0.0,
            best_of=1,
            max_new_tokens=2 * n_tokens + self.SPARE_TOKENS,
            suppressed_tokens=self._tokenizer.suppressed_tokens,
            checkpoint=self._checkpoint,
        )
        return self._inference.generate(audio_features, prompt, options)

    def _scores(
        self, audio_features: Any, prompt: list[int], texts: list[list[int]]
    ) -> list[float]:
        scores = self._inference.score(audio_features, prompt, texts) if texts else []
        return [float(np.mean(logprobs)) for logprobs in scores]

    def _without_timestamps(self, prompt: list[int]) -> list[int]:
        no_timestamps = self._tokenizer.no_timestamps
        return prompt if prompt[-1] == no_timestamps else [*prompt, no_timestamps]

    def _texts(self, tokens: Sequence[int]) -> list[list[int]]:
        """Return the text's tokens as they are and, where a phrase follows itself, each once."""
        spoken = [token for token in tokens if token < self._tokenizer.eot]
        text = self._text(spoken)
        once = said_once(text)
        if not spoken:
            return []
        return [spoken] if once == text else [spoken, self._tokenizer.encode(" " + once)]

    def _similarity(self, tokens: Sequence[int], others: Sequence[int]) -> float:
        from ..home.likeness import Likeness

        return Likeness.of(fold(self._text(tokens)), fold(self._text(others)))

    def _text(self, tokens: Sequence[int]) -> str:
        return " ".join(self._tokenizer.decode(tokens).split())
