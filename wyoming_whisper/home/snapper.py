"""Names of the home in a text that was misheard: which could be meant, and which it is.

Three things decide together: how alike a name is to what was written in its place, by letters; by
sound (metaphone, which is English and a fair guess elsewhere); and what the model itself says of
the text with the name in it, once with the audio and once with noise instead. A name that it never
saw is never likely, but the audio makes the right one far likelier than it is anyway; that ratio
is known in speech recognition as internal language model subtraction
(https://arxiv.org/abs/2011.01991). Knows neither runtime nor protocol.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .index import Candidate, NameIndex, fold

if TYPE_CHECKING:
    from ..whisper.audio import Array as Scores
    from ..whisper.inference import Hypothesis, Inference
    from ..whisper.tokenizer import Tokenizer

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evidence:
    """What the model says of a candidate, in nats."""

    # What a candidate needs in any case: the model is not sure of all it wrote instead, the rest is
    # no mere guess, and the name is not out of the question.
    SURE_LOGPROB = -0.1
    MIN_REST_LOGPROB = -1.2
    MAX_GAP = 25.0

    # Fitted with the stock model `base` by `benchmarks names --fit` of commit 047bd10,
    # on other names, voices and people than it measures with (docs/benchmarks.md, Names).
    BIAS = -5.21
    PER_LOGPROB = 2.21
    PER_SIMILARITY = 3.86
    PER_CONTEXT = 1.77
    PER_GAP = -0.033
    PER_PRIOR = -2.02

    # What is less likely says no more.
    MIN_LOGPROB = -4.0
    MIN_PRIOR = -5.0

    gap: float
    """How much less likely it is than what was written."""
    rest: float
    """Mean log-probability of what is not the name, end included."""
    doubt: float
    """Log-probability of the least likely token that the name replaces."""
    logprob: float
    """Log-probability of the name, by its letters."""
    prior: float = 0.0
    """The same with noise in place of the audio: how likely the model finds it anyway."""

    @property
    def is_possible(self) -> bool:
        return (
            self.doubt < self.SURE_LOGPROB
            and self.rest > self.MIN_REST_LOGPROB
            and self.gap < self.MAX_GAP
        )

    def weigh(self, candidate: Candidate) -> float:
        """Return how much speaks for the candidate: the log-odds of its being meant."""
        return (
            self.BIAS
            + self.PER_SIMILARITY * candidate.similarity
            + self.PER_CONTEXT * candidate.context
            + self.PER_GAP * self.gap
            + self.PER_LOGPROB * max(self.logprob, self.MIN_LOGPROB)
            + self.PER_PRIOR * max(self.prior, self.MIN_PRIOR)
        )


class Snapper:
    """Puts names into what was misheard, for one utterance; a `Correct` of whisper.decoding.

    `noise` returns audio features of noise. It may encode them, whereupon others are gone.
    `checkpoint` is called between passes; what it raises ends the work.
    """

    MIN_EVIDENCE = 1.0
    MIN_EVIDENCE_BESIDE_SENTENCES = 2.5
    """Where the home's sentences are known: what is none of them is hardly a command."""

    def __init__(
        self,
        scorer: Inference,
        tokenizer: Tokenizer,
        indexes: Sequence[NameIndex],
        noise: Callable[[], Any],
        checkpoint: Callable[[], None] = lambda: None,
    ) -> None:
        self._scorer = scorer
        self._checkpoint = checkpoint
        self._tokenizer = tokenizer
        self._indexes = indexes
        self._noise = noise

    def __call__(
        self, audio_features: Any, prompt: Sequence[int], language: str, hypothesis: Hypothesis
    ) -> Hypothesis:
        """Return the hypothesis, or the likeliest candidate where enough speaks for it.

        What is a sentence of the home stays as it is.
        """
        if hypothesis.understood:
            return hypothesis
        try:
            candidates = self.weigh(audio_features, prompt, language, hypothesis)
        except (RuntimeError, ValueError) as error:  # what was heard is there still
            _LOGGER.warning("can't compare names: %s", error)
            return hypothesis
        if not candidates:
            return hypothesis
        weight, candidate, evidence = max(candidates, key=lambda item: item[0])
        is_beside = hypothesis.understood is not None
        if weight < (self.MIN_EVIDENCE_BESIDE_SENTENCES if is_beside else self.MIN_EVIDENCE):
            return hypothesis
        _LOGGER.debug("replaced by the name %r: %r (%r)", candidate.name, candidate.text, evidence)
        # A name is never likely: where the rest was heard better than all of it was, the quality
        # gate is to know.
        avg_logprob = max(evidence.rest, hypothesis.avg_logprob)
        return dataclasses.replace(
            hypothesis, tokens=self._encode(candidate.text), avg_logprob=avg_logprob
        )

    def weigh(
        self, audio_features: Any, prompt: Sequence[int], language: str, hypothesis: Hypothesis
    ) -> list[tuple[float, Candidate, Evidence]]:
        """Return the candidates that are possible, with what speaks for them."""
        possible = self._possible(audio_features, prompt, language, hypothesis)
        if not possible:
            return []
        texts = [self._encode(candidate.text) for candidate, _ in possible]
        weighed = []
        priors = self._scores(self._noise(), prompt, texts)
        for (candidate, evidence), scores in zip(possible, priors, strict=True):
            whole = dataclasses.replace(evidence, prior=self._of_name(candidate, scores))
            weighed.append((whole.weigh(candidate), candidate, whole))
        return weighed

    def _possible(
        self, audio_features: Any, prompt: Sequence[int], language: str, hypothesis: Hypothesis
    ) -> list[tuple[Candidate, Evidence]]:
        """Return the candidates that the audio allows; none at once where the model is sure."""
        texts = [self._text(tokens) for tokens in (hypothesis.tokens, *hypothesis.others)]
        if not 0 < len(texts[0].split()) <= NameIndex.MAX_WORDS:
            return []
        (written,) = self._scores(audio_features, prompt, [self._encode(texts[0])])
        if written.min() >= Evidence.SURE_LOGPROB:
            return []
        candidates = [c for index in self._indexes for c in index.candidates(texts, language)]
        doubtful = [
            c for c in candidates if self._doubt(texts[0], written, c) < Evidence.SURE_LOGPROB
        ]
        encoded = [self._encode(candidate.text) for candidate in doubtful]
        all_scores = self._scores(audio_features, prompt, encoded)
        pairs = (
            (candidate, self._evidence(texts[0], written, candidate, scores))
            for candidate, scores in zip(doubtful, all_scores, strict=True)
        )
        return [(candidate, evidence) for candidate, evidence in pairs if evidence.is_possible]

    def _scores(
        self, audio_features: Any, prompt: Sequence[int], texts: Sequence[list[int]]
    ) -> list[Scores]:
        scores: list[Scores] = []
        for text in texts:
            self._checkpoint()
            scores += self._scorer.score(audio_features, prompt, [text])
        return scores

    def _evidence(
        self, text: str, written: Scores, candidate: Candidate, scores: Scores
    ) -> Evidence:
        start, end = self._place(candidate)
        n_rest = len(scores) - (end - start) + 1
        return Evidence(
            gap=float(written.sum() - scores.sum()),
            rest=float(scores[:start].sum() + scores[end:].sum()) / n_rest,
            doubt=self._doubt(text, written, candidate),
            logprob=self._of_name(candidate, scores),
        )

    def _doubt(self, text: str, written: Scores, candidate: Candidate) -> float:
        first, last = (self._n_tokens(text, n) for n in candidate.replaced)
        return float(written[first:last].min(initial=0.0))

    def _of_name(self, candidate: Candidate, scores: Scores) -> float:
        start, end = self._place(candidate)
        return float(scores[start:end].sum()) / len(fold(candidate.name).replace(" ", ""))

    def _place(self, candidate: Candidate) -> tuple[int, int]:
        """Return where the name's tokens are."""
        end = candidate.start + len(candidate.name.split())
        return self._n_tokens(candidate.text, candidate.start), self._n_tokens(candidate.text, end)

    def _n_tokens(self, text: str, n_words: int) -> int:
        """Return how many tokens the first words have; a token never spans two."""
        return len(self._encode(" ".join(text.split()[:n_words]))) if n_words else 0

    def _encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(" " + text)

    def _text(self, tokens: Sequence[int]) -> str:
        return " ".join(self._tokenizer.decode(tokens).split())
