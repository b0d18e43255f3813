"""Whether a command of the home was meant where something else was written.

The free text stays wherever Home Assistant understands it, which costs nothing. Where it does not,
or only as a sentence that ends in anything, those that are spelled alike are scored, and where none
of them is certain the same audio features are decoded once more inside the grammar of the home.
There nearly always is a likeliest sentence, whatever was said; which of the two was spoken, their
evidence decides: how much likelier one is than the other by the audio, and how long they are. Knows
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
from typing import Any, Protocol, cast

from ..grammar.automaton import Grammar
from ..home.index import fold
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
    --fit` prints them. How alike the two are, by letters or by sound, how likely they are with
    noise in place of the audio, and how sure the model was of either added nothing to these two
    (docs/benchmarks.md, Commands of a household).
    """

    MIN_LOG_ODDS = 0.75
    """Of 519 utterances of that part that were no command, two are changed above it."""
    SURE_LOG_ODDS = 1.5
    """Above it, searching for a still likelier sentence is not worth its time."""

    BIAS = 3.36
    WEIGHTS = (-0.236, -8.75)
    """Of `figures`."""

    LEAST_LENGTH_RATIO = 0.05

    gap: float
    """How much likelier the free text is than the sentence, in nats, ends included."""
    letters: int
    """Of the sentence."""
    free_letters: int

    @property
    def figures(self) -> tuple[float, ...]:
        """What is weighed."""
        ratio = max(self.letters / max(self.free_letters, 1), self.LEAST_LENGTH_RATIO)
        return self.gap, abs(math.log(ratio))

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
    evidence: Evidence

    @property
    def log_odds(self) -> float:
        """Of its being what was said."""
        return self.evidence.log_odds


class _OutOfTimeError(Exception):
    """The comparison has taken as long as it may."""


class HomeSentences:
    """Writes the sentence of the home that was misheard; a `Correct` of whisper.decoding.

    `grammar_of` returns the grammar of a language, None where there is none (yet). `checkpoint` is
    called between passes; what it raises ends the work. `clock` tells seconds.
    """

    MAX_WORDS = 30
    """Nobody commands in longer sentences; texts are not compared then."""

    BEAM_SIZE = 5
    SURE_LOGPROB = -0.25
    """Mean of the free text's tokens: what is surer was said as it is written, however alike."""
    MAX_SENTENCES = 2
    """That a search returns: the likeliest may be one that does not tell."""
    MORE_TOKENS = 12
    """How many more a sentence may have than the free text."""

    MAX_SECONDS = 0.5
    """For a text; then what is spelled alike decides, or the text is left as it was written."""

    MAX_GAP = 11.0
    """Nats: nothing that much less likely is what was said."""

    def __init__(
        self,
        inference: Inference,
        tokenizer: Tokenizer,
        grammar_of: Callable[[str], Grammar | None],
        checkpoint: Callable[[], None] = lambda: None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._inference = inference
        self._tokenizer = tokenizer
        self._grammar_of = grammar_of
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
        written = grammar.written(text)
        if written and not grammar.ends_freely(written):
            return self._written(hypothesis, written, text)
        sentence = self._compared(grammar, audio_features, prompt, hypothesis)
        # What is a sentence already, if only by its free text, takes more evidence to be another.
        least = Evidence.SURE_LOG_ODDS if written else Evidence.MIN_LOG_ODDS
        if sentence and sentence.log_odds > least:
            return self._replaced(grammar, hypothesis, sentence)
        if written:
            return self._written(hypothesis, written, text)
        return dataclasses.replace(hypothesis, understood=False)

    def _compared(
        self,
        grammar: Grammar,
        audio_features: Any,
        prompt: Sequence[int],
        hypothesis: Hypothesis,
    ) -> _Candidate | None:
        """Return what `_meant` does; None where that fails, or takes too long."""
        self._until = self._clock() + self.MAX_SECONDS
        try:
            return self._meant(grammar, audio_features, prompt, hypothesis)
        except (RuntimeError, ValueError) as error:  # the free text is there still
            _LOGGER.warning("the home's sentences can't be compared: %s", error)
        except _OutOfTimeError:
            text = self._text(hypothesis.tokens)
            _LOGGER.debug("%r was compared with the home's sentences for too long", text)
        return None

    def _replaced(
        self, grammar: Grammar, hypothesis: Hypothesis, sentence: _Candidate
    ) -> Hypothesis:
        """Return the hypothesis with a sentence of the home in the text's place."""
        text, likeliest = (self._text(one.tokens) for one in (hypothesis, sentence))
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
    ) -> _Candidate | None:
        """Return the sentence that speaks most for itself, if there is any.

        What is spelled like the free text is tried first, as that is cheap; the search finds what
        sounds like it.
        """
        asked = grammar, audio_features, prompt, hypothesis
        candidates = self._alike(*asked)
        likeliest = max(candidates, key=_log_odds, default=None)
        is_open = likeliest is None or likeliest.log_odds <= Evidence.SURE_LOG_ODDS
        if is_open and hypothesis.avg_logprob < self.SURE_LOGPROB:
            try:
                candidates += self._searched(*asked)
            except _OutOfTimeError:
                _LOGGER.debug("the search for a sentence of the home took too long")
            likeliest = max(candidates, key=_log_odds, default=None)
        return likeliest

    @staticmethod
    def _is_telling(grammar: Grammar, sentence: str) -> bool:
        """Whether a sentence may take the place of another.

        Where it ends in free text, a word or two make a command of anything; and one word is like
        any other.
        """
        is_one_word = " " not in sentence and not grammar.is_unparted
        return not is_one_word and not grammar.ends_freely(sentence)

    def _candidate(
        self, tokens: list[int], total_logprob: float, hypothesis: Hypothesis
    ) -> _Candidate | None:
        """Return a sentence and what speaks for it; None where it is out of the question."""
        gap = _total_logprob(hypothesis) - total_logprob
        letters, free_letters = (
            len(fold(self._text(one)).replace(" ", "")) for one in (tokens, hypothesis.tokens)
        )
        if gap > self.MAX_GAP or not letters or not free_letters:
            return None
        return _Candidate(tokens, total_logprob, Evidence(gap, letters, free_letters))

    def _searched(
        self,
        grammar: Grammar,
        audio_features: Any,
        prompt: Sequence[int],
        hypothesis: Hypothesis,
    ) -> list[_Candidate]:
        """Return the likeliest sentences by a search inside the grammar, those that tell."""
        if not (grammar.is_searchable and hasattr(self._inference, "constrained")):
            return []
        constrained = cast("ConstrainedInference", self._inference).constrained
        grammar.begin()
        options = ConstrainedOptions(
            beam_size=self.BEAM_SIZE,
            max_new_tokens=len(hypothesis.tokens) + self.MORE_TOKENS,
            suppressed_tokens=self._tokenizer.suppressed_tokens,
            n_best=self.MAX_SENTENCES,
            least_logprob=_total_logprob(hypothesis) - self.MAX_GAP,
            checkpoint=self._checkpoint,
        )
        sentences = constrained(audio_features, prompt, grammar, options, hypothesis.tokens)
        candidates = [
            self._candidate(one.tokens, one.total_logprob, hypothesis)
            for one in sentences
            if self._is_telling(grammar, self._text(one.tokens))
        ]
        return [one for one in candidates if one]

    def _alike(
        self,
        grammar: Grammar,
        audio_features: Any,
        prompt: Sequence[int],
        hypothesis: Hypothesis,
    ) -> list[_Candidate]:
        """Return what is spelled like the free text, or written beside it."""
        texts = [self._text(tokens) for tokens in (hypothesis.tokens, *hypothesis.others)]
        sentences = [text for text in texts[1:] if grammar.matches(text)]
        sentences += grammar.alike(texts, self._checkpoint)
        sentences = [text for text in sentences if self._is_telling(grammar, text)]
        encoded = [self._tokenizer.encode(" " + text) for text in dict.fromkeys(sentences)]
        if not encoded:
            return []
        self._checkpoint()
        free, *scores = self._inference.score(audio_features, prompt, [hypothesis.tokens, *encoded])
        # The end, which is not scored, is as likely after either of them.
        end = _total_logprob(hypothesis) - float(free.sum())
        candidates = [
            self._candidate(tokens, float(logprobs.sum()) + end, hypothesis)
            for tokens, logprobs in zip(encoded, scores, strict=True)
        ]
        return [one for one in candidates if one]

    def _text(self, tokens: Sequence[int]) -> str:
        return " ".join(self._tokenizer.decode(tokens).split())


def _total_logprob(hypothesis: Hypothesis) -> float:
    """Of its tokens and its end."""
    return hypothesis.avg_logprob * (len(hypothesis.tokens) + 1)


def _log_odds(candidate: _Candidate) -> float:
    return candidate.log_odds
