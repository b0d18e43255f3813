"""Whether a command of the home was meant where something else was written.

The free text stays wherever Home Assistant understands it, which costs nothing. Otherwise sentences
that are spelled alike are scored, and where that leaves it open the same audio features are
decoded once more inside the grammar of the home. There nearly always is a likeliest sentence,
whatever was said; which of the two was spoken, their evidence decides: how likely each is by the
audio and by noise in its place, how alike they are by letters and sound, how long they are. Knows
neither runtime nor protocol.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import operator
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, cast

from ..grammar.automaton import Grammar
from ..home.index import fold
from ..whisper.audio import Array as Scores
from ..whisper.constrained import ConstrainedOptions, Constraint, Sentence
from ..whisper.inference import Hypothesis, Inference
from ..whisper.tokenizer import Tokenizer

_LOGGER = logging.getLogger(__name__)


class ConstrainedInference(Protocol):
    """What can search inside a grammar (whisper.search)."""

    def constrained(
        self,
        audio_features: Any,
        prompt: Sequence[int],
        constraint: Constraint,
        options: ConstrainedOptions,
        guide: Sequence[int] = (),
    ) -> list[Sentence]:
        """Return the likeliest sentences, best first."""


@dataclass(frozen=True)
class Evidence:
    """What speaks for a sentence of the home in place of the free text.

    The weights are those of a logistic regression, fitted with stock `base` to what Home Assistant
    did not understand of 1,261 clips of synthetic voices in seven languages: `benchmarks household
    --fit` prints them. Its parts `test` and `fresh` have other voices and other sentences
    (docs/benchmarks.md, Commands of a household).
    """

    MIN_LOG_ODDS = 0.5
    """Of 519 utterances of that part that were no command, one was changed above it."""

    BIAS = -0.123
    WEIGHTS = (-0.18, -3.43, 0.141, 4.62, 0.331, -3.39, -0.0601, -5.13)
    """Of `figures`."""

    MOST_LETTERS = 30
    MOST_GAP_BY_LETTER = 3.0
    LEAST_LENGTH_RATIO = 0.05

    gap: float
    """How much likelier the free text is than the sentence, in nats, ends included."""
    expected: float
    """The same with noise in place of the audio, ends left out."""
    similarity: float
    """Of the two texts, 0..1."""
    mean: float
    """Mean log-probability of the sentence's tokens, its end included."""
    free_mean: float
    """The same of the free text."""
    letters: int
    """Of the sentence."""
    free_letters: int

    @property
    def figures(self) -> tuple[float, ...]:
        """What is weighed."""
        ratio = max(self.letters / max(self.free_letters, 1), self.LEAST_LENGTH_RATIO)
        return (
            self.gap,
            min(self.gap / max(self.letters, 1), self.MOST_GAP_BY_LETTER),
            self.expected,
            self.similarity,
            self.mean,
            abs(math.log(ratio)),
            min(self.letters, self.MOST_LETTERS),
            self.free_mean,
        )

    @property
    def log_odds(self) -> float:
        """Of the sentence's being what was said."""
        return float(self.BIAS + sum(map(operator.mul, self.WEIGHTS, self.figures)))


@dataclass(frozen=True)
class _Candidate:
    """A sentence of the home that may have been meant."""

    tokens: list[int]
    total_logprob: float
    """Of its tokens and its end."""


class _OutOfTimeError(Exception):
    """The comparison has taken as long as it may."""


class HomeSentences:
    """Writes the sentence of the home that was misheard; a `Correct` of whisper.decoding.

    `grammar_of` returns the grammar of a language, None where there is none (yet). `noise` returns
    audio features of noise; it may encode them, whereupon others are gone unless `keeps_features`.
    `checkpoint` is called between passes; what it raises ends the work. `clock` tells seconds.
    """

    MAX_WORDS = 30
    """Nobody commands in longer sentences; texts are not compared then."""

    BEAM_SIZE = 5
    MORE_TOKENS = 12
    """How many more a sentence may have than the free text."""

    LEAST_LOG_ODDS = -1.0
    """Of what is spelled alike, for the search to be worth its time."""

    MAX_SECONDS = 0.5
    """For a text; what is not decided by then is left as it was written."""

    MAX_GAP = 15.0
    """Nats: nothing that much less likely is what was said."""

    def __init__(
        self,
        inference: Inference,
        tokenizer: Tokenizer,
        grammar_of: Callable[[str], Grammar | None],
        noise: Callable[[], Any],
        checkpoint: Callable[[], None] = lambda: None,
        *,
        keeps_features: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._inference = inference
        self._keeps_features = keeps_features
        self._tokenizer = tokenizer
        self._grammar_of = grammar_of
        self._noise = noise
        self._is_awaited = checkpoint
        self._clock = clock
        self._until = math.inf

    def __call__(
        self, audio_features: Any, prompt: Sequence[int], language: str, hypothesis: Hypothesis
    ) -> Hypothesis:
        """Return the hypothesis, `understood` where it is a sentence of the home, or that."""
        grammar = self._grammar_of(language)
        text = self._text(hypothesis.tokens)
        if grammar is None or not 0 < len(text.split()) <= self.MAX_WORDS:
            return hypothesis
        if written := grammar.written(text):
            return self._written(hypothesis, written, text)
        self._until = self._clock() + self.MAX_SECONDS
        try:
            sentence = self._meant(grammar, audio_features, prompt, hypothesis, text)
        except RuntimeError as error:  # of the model's runtime: the free text is there still
            _LOGGER.warning("the home's sentences can't be compared: %s", error)
            sentence = None
        except _OutOfTimeError:
            _LOGGER.debug("%r was compared with the home's sentences for too long", text)
            sentence = None
        if sentence is None:
            return dataclasses.replace(hypothesis, understood=False)
        likeliest = self._text(sentence.tokens)
        written = grammar.written(likeliest) or likeliest
        _LOGGER.debug("%r is taken for %r", text, written)
        avg_logprob = sentence.total_logprob / (len(sentence.tokens) + 1)
        # Where the free text was likelier, the quality gate is to know: this one bears it out.
        best = dataclasses.replace(
            hypothesis, avg_logprob=max(avg_logprob, hypothesis.avg_logprob), free_text=text
        )
        return self._written(best, written, "")

    def _checkpoint(self) -> None:
        """Raises _OutOfTimeError, and what `checkpoint` does."""
        self._is_awaited()
        if self._clock() > self._until:
            raise _OutOfTimeError

    def _written(self, hypothesis: Hypothesis, written: str, text: str) -> Hypothesis:
        """Return the hypothesis with another text, unless it is `text` already."""
        tokens = hypothesis.tokens if written == text else self._tokenizer.encode(" " + written)
        return dataclasses.replace(hypothesis, tokens=tokens, understood=True)

    def _meant(
        self,
        grammar: Grammar,
        audio_features: Any,
        prompt: Sequence[int],
        hypothesis: Hypothesis,
        text: str,
    ) -> _Candidate | None:
        """Return the sentence that was said; None where that is none of the home's.

        What is spelled like the free text is tried first, as that is cheap; the search finds what
        sounds like it, where that is not out of the question.
        """
        candidate = self._alike(grammar, audio_features, prompt, hypothesis)
        if candidate is None:
            return None
        search = partial(self._searched, grammar, audio_features, prompt, hypothesis)
        # The evidence asks the noise: where the audio's features end with that, they go first.
        searched = None if self._keeps_features else search()
        log_odds = self._log_odds(candidate, prompt, hypothesis, text)
        if log_odds > Evidence.MIN_LOG_ODDS:
            return candidate
        if log_odds < self.LEAST_LOG_ODDS:
            return None
        candidate = search() if self._keeps_features else searched
        if candidate is None:
            return None
        log_odds = self._log_odds(candidate, prompt, hypothesis, text)
        return candidate if log_odds > Evidence.MIN_LOG_ODDS else None

    @staticmethod
    def _is_telling(grammar: Grammar, sentence: str) -> bool:
        """Whether a sentence may take the place of another.

        Where it ends in free text, a word or two make a command of anything; and one word is like
        any other.
        """
        is_one_word = " " not in sentence and not grammar.is_unparted
        return not is_one_word and not grammar.ends_freely(sentence)

    def _log_odds(
        self, candidate: _Candidate, prompt: Sequence[int], hypothesis: Hypothesis, text: str
    ) -> float:
        """Return those of the candidate's being what was said."""
        evidence = self._evidence(candidate, prompt, hypothesis, text)
        return evidence.log_odds if evidence else -math.inf

    def _evidence(
        self, candidate: _Candidate, prompt: Sequence[int], hypothesis: Hypothesis, text: str
    ) -> Evidence | None:
        """Return what speaks for the candidate; None where it is out of the question."""
        free = hypothesis.avg_logprob * (len(hypothesis.tokens) + 1)
        gap = free - candidate.total_logprob
        folded, other = fold(text), fold(self._text(candidate.tokens))
        if gap > self.MAX_GAP or not folded or not other:
            return None
        from ..home.likeness import Likeness

        self._checkpoint()
        by_noise = self._scores(prompt, [hypothesis.tokens, candidate.tokens])
        free_noise, noise = (float(scores.sum()) for scores in by_noise)
        return Evidence(
            gap=gap,
            expected=free_noise - noise,
            similarity=Likeness.of(folded, other),
            mean=candidate.total_logprob / (len(candidate.tokens) + 1),
            free_mean=hypothesis.avg_logprob,
            letters=len(other.replace(" ", "")),
            free_letters=len(folded.replace(" ", "")),
        )

    def _scores(self, prompt: Sequence[int], texts: list[list[int]]) -> list[Scores]:
        return self._inference.score(self._noise(), prompt, texts)

    def _searched(
        self,
        grammar: Grammar,
        audio_features: Any,
        prompt: Sequence[int],
        hypothesis: Hypothesis,
    ) -> _Candidate | None:
        """Return the likeliest sentence that a search inside the grammar finds, if any tells."""
        if not (grammar.is_searchable and hasattr(self._inference, "constrained")):
            return None
        constrained = cast("ConstrainedInference", self._inference).constrained
        grammar.begin()
        options = ConstrainedOptions(
            beam_size=self.BEAM_SIZE,
            max_new_tokens=len(hypothesis.tokens) + self.MORE_TOKENS,
            suppressed_tokens=self._tokenizer.suppressed_tokens,
            n_best=1,
            checkpoint=self._checkpoint,
        )
        sentences = constrained(audio_features, prompt, grammar, options, hypothesis.tokens)
        if not sentences or not self._is_telling(grammar, self._text(sentences[0].tokens)):
            return None
        return _Candidate(sentences[0].tokens, sentences[0].total_logprob)

    def _alike(
        self,
        grammar: Grammar,
        audio_features: Any,
        prompt: Sequence[int],
        hypothesis: Hypothesis,
    ) -> _Candidate | None:
        """Return the likeliest of what is spelled like the free text, or written beside it."""
        texts = [self._text(tokens) for tokens in (hypothesis.tokens, *hypothesis.others)]
        sentences = [text for text in texts[1:] if grammar.matches(text)]
        sentences += grammar.alike(texts, self._checkpoint)
        sentences = [text for text in sentences if self._is_telling(grammar, text)]
        candidates = [self._tokenizer.encode(" " + text) for text in dict.fromkeys(sentences)]
        if not candidates:
            return None
        self._checkpoint()
        free = hypothesis.avg_logprob * (len(hypothesis.tokens) + 1)
        mine, *scores = self._inference.score(
            audio_features, prompt, [hypothesis.tokens, *candidates]
        )
        best = max(range(len(candidates)), key=lambda i: float(scores[i].sum()))
        # The end, which is not scored, is as likely after either of them.
        end = free - float(mine.sum())
        return _Candidate(candidates[best], float(scores[best].sum()) + end)

    def _text(self, tokens: Sequence[int]) -> str:
        return " ".join(self._tokenizer.decode(tokens).split())
