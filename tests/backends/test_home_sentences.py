"""Which was meant: the free text, or a sentence of the home that sounds like it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from tests.whisper.scripted import IDS, ByteTokenizer
from wyoming_whisper.backends.home_sentences import Evidence, HomeSentences
from wyoming_whisper.grammar.automaton import Grammar
from wyoming_whisper.grammar.filling import fill
from wyoming_whisper.grammar.templates import compile_intents
from wyoming_whisper.grammar.vocabulary import Vocabulary
from wyoming_whisper.home.inventory import Entity, Home
from wyoming_whisper.home.snapper import Snapper
from wyoming_whisper.transcriber import Abandoned
from wyoming_whisper.whisper.audio import Array
from wyoming_whisper.whisper.constrained import ConstrainedOptions, Constraint, Sentence
from wyoming_whisper.whisper.inference import Hypothesis
from wyoming_whisper.whisper.tokenizer import Tokenizer

TOKENIZER = Tokenizer(ByteTokenizer(), multilingual=True)
PROMPT = [IDS["<|startoftranscript|>"]]
SENTENCES = {
    "Only": {"data": [{"sentences": ["{name}"]}]},
    "Who": {"data": [{"sentences": ["who is {anybody}"]}]},
    "On": {"data": [{"sentences": ["turn on the {name}"]}]},
    "Is": {"data": [{"sentences": ["is the {name} open"]}]},
}
HOME = Home(
    areas=("Garage",),
    entities=(Entity(("Kitchen Lamp",), "light"), Entity(("Garagentor",), "cover")),
)


def grammar(language: str = "en") -> Grammar:
    wildcard = {"anybody": {"wildcard": True}}
    templates = compile_intents({"language": language, "intents": SENTENCES, "lists": wildcard})
    return fill(templates, HOME, Vocabulary([bytes([n]) for n in range(256)]))


def hypothesis(text: str, avg_logprob: float = -0.05, *others: str) -> Hypothesis:
    """Return what a model wrote: every byte a token."""
    return Hypothesis(
        list(text.encode()), avg_logprob, 0.0, tuple(list(other.encode()) for other in others)
    )


@dataclass
class Scorer:
    """Scores texts as it is told: nats a token."""

    audio: dict[str, float] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def score(
        self, audio_features: Any, prompt: Sequence[int], texts: Sequence[Sequence[int]]
    ) -> list[Array]:
        words = [bytes(text).decode().strip() for text in texts]
        self.asked += words
        each = [self.audio.get(text, -1.0) for text in words]
        return [np.full(len(text), one, np.float32) for text, one in zip(texts, each, strict=True)]


@dataclass
class Searcher(Scorer):
    """Finds what it is told inside the grammar."""

    found: str = ""
    logprob: float = -0.1
    options: ConstrainedOptions | None = None
    error: Exception | None = None

    def constrained(
        self,
        audio_features: Any,
        prompt: Sequence[int],
        constraint: Constraint,
        options: ConstrainedOptions,
        guide: Sequence[int] = (),
    ) -> list[Sentence]:
        self.options = options
        if self.error:
            raise self.error
        tokens = list(self.found.encode())
        return [Sentence(tokens, [self.logprob] * (len(tokens) + 1))] if self.found else []


UNLIKELY = {"Turn on the kitten lamp.": -0.05, "Turn on the kitchen lamp": -0.9}


@pytest.fixture
def _always_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HomeSentences, "SURE_LOGPROB", math.inf)


def meant(scorer: Any, heard: Hypothesis, home: Grammar | None = None) -> Hypothesis:
    sentences = HomeSentences(scorer, TOKENIZER, lambda _: home or grammar())
    return sentences("audio", PROMPT, "en", heard)


def text(one: Hypothesis) -> str:
    return bytes(one.tokens).decode().strip()


def test_what_the_home_understands_costs_nothing() -> None:
    scorer = Searcher(found="turn on the garagentor")
    heard = hypothesis("Turn on the kitchen lamp.")
    assert meant(scorer, heard) == dataclasses.replace(heard, understood=True)
    assert meant(scorer, heard).understood
    assert scorer.options is None
    assert scorer.asked == []


@pytest.mark.usefixtures("_always_searched")
def test_a_misheard_command_becomes_the_sentence_of_the_home() -> None:
    scorer = Searcher(found="Turn on the kitchen lamp.", logprob=-0.15)
    scorer.audio = UNLIKELY
    best = meant(scorer, hypothesis("Turn on the kitten lamp.", -0.2))
    assert scorer.options is not None  # what is spelled alike is less likely than what was found
    assert text(best) == "Turn on the kitchen lamp."
    assert best.understood
    assert best.free_text == "Turn on the kitten lamp."
    assert best.avg_logprob == pytest.approx(-0.15, abs=0.01)


@pytest.mark.usefixtures("_always_searched")
@pytest.mark.parametrize(
    ("heard", "found", "logprob"),
    [
        ("What is the capital of France?", "turn on the garagentor", -1.0),  # far less likely
        (
            "Tell me a story about lamps.",
            "turn on the garagentor",
            -0.5,
        ),  # less likely, and shorter
        ("Turn on the kitten lamp.", "", 0.0),  # nothing found
    ],
)
def test_what_is_no_command_stays_letter_for_letter(heard: str, found: str, logprob: float) -> None:
    written = hypothesis(heard, -0.05)
    best = meant(Searcher(UNLIKELY, found=found, logprob=logprob), written)
    assert best == written
    assert best.understood is False
    assert best.free_text is None


def test_no_sentence_that_ends_in_anything_takes_the_place_of_another() -> None:
    heard = hypothesis("Why is the sky blue?", -0.1, "Who is the sky blue?")
    assert grammar().matches("Who is the sky blue?")
    assert grammar().ends_freely("Who is the sky blue?")
    assert not grammar().ends_freely("Turn on the kitchen lamp.")
    assert not grammar().ends_freely("Why is the sky blue?")
    likely = {"Why is the sky blue?": -0.1, "Who is the sky blue?": -0.1}
    assert text(meant(Searcher(likely, found="Who is the sky blue?"), heard)) == text(heard)


OPEN_ENDED = "Who is the kitchen lamp open?"  # "is the kitchen lamp open", misheard


@pytest.mark.parametrize(
    ("logprob", "is_taken"), [(-0.55, True), (-0.75, False)], ids=["likely", "less likely"]
)
def test_what_ends_in_anything_may_be_another_sentence(logprob: float, is_taken: bool) -> None:
    heard = hypothesis(OPEN_ENDED, -0.5)
    assert grammar().ends_freely(OPEN_ENDED)
    scorer = Searcher({OPEN_ENDED: -0.5}, found="Is the kitchen lamp open?", logprob=logprob)
    best = meant(scorer, heard)
    assert text(best) == ("Is the kitchen lamp open?" if is_taken else OPEN_ENDED)
    assert best.free_text == (OPEN_ENDED if is_taken else None)
    assert best.understood


def test_one_word_is_like_any_other() -> None:
    heard = hypothesis("Garage store.", -0.1)
    assert text(meant(Searcher({"Garage store.": -0.1}, found="Garagentor"), heard)) == text(heard)


def test_without_a_grammar_nothing_is_asked() -> None:
    scorer = Searcher(found="turn on the kitchen lamp")
    sentences = HomeSentences(scorer, TOKENIZER, lambda _: None)  # type: ignore[arg-type]
    heard = hypothesis("Turn on the kitten lamp.")
    assert sentences("audio", PROMPT, "en", heard).understood is None
    assert scorer.options is None


@pytest.mark.parametrize("heard", ["", "   ", "la " * (HomeSentences.MAX_WORDS + 1)])
def test_silence_and_long_texts_are_not_compared(heard: str) -> None:
    scorer = Searcher(found="turn on the kitchen lamp")
    assert meant(scorer, hypothesis(heard)).understood is None
    assert scorer.options is None


def test_what_is_surely_a_sentence_that_is_spelled_alike_is_not_searched() -> None:
    scorer = Searcher({"Turn on the kitten lamp.": -0.5, "Turn on the kitchen lamp": -0.5})
    best = meant(scorer, hypothesis("Turn on the kitten lamp.", -0.5))
    assert text(best) == "Turn on the kitchen lamp"
    assert scorer.options is None


def test_the_search_may_end_where_nothing_spelled_alike_is_likely_enough() -> None:
    scorer = Searcher({"Turn on the kitten lamp.": -0.3, "Turn on the kitchen lamp": -0.65})
    scorer.found, scorer.logprob = "turn on the garagentor", -0.35
    best = meant(scorer, hypothesis("Turn on the kitten lamp.", -0.3))
    assert text(best).casefold() == "turn on the garagentor"


def test_what_is_surely_written_as_it_was_said_is_not_searched() -> None:
    """However likely a sentence is: who asks a model something does not wait for that."""
    heard = hypothesis("What is the capital of France?", -0.1)
    scorer = Searcher(found="turn on the kitchen lamp", logprob=-0.05)
    assert text(meant(scorer, heard)) == text(heard)
    assert scorer.options is None


@pytest.mark.usefixtures("_always_searched")
def test_the_search_is_told_how_likely_a_sentence_must_be() -> None:
    scorer = Searcher(UNLIKELY)
    meant(scorer, hypothesis("Turn on the kitten lamp.", -0.2))
    assert scorer.options is not None
    n_tokens = len("Turn on the kitten lamp.") + 1
    assert scorer.options.least_logprob == pytest.approx(-0.2 * n_tokens - HomeSentences.MAX_GAP)


def test_a_runtime_without_steps_scores_what_is_spelled_alike() -> None:
    scorer = Scorer(audio={"Turn on the kitten lamp.": -0.3, "Turn on the kitchen lamp": -0.2})
    best = meant(scorer, hypothesis("Turn on the kitten lamp.", -0.3))
    assert text(best) == "Turn on the kitchen lamp"
    assert best.free_text == "Turn on the kitten lamp."


def test_such_a_runtime_takes_another_hypothesis_that_is_understood() -> None:
    scorer = Scorer(audio={"Turn on the kitten lamp": -0.3, "Turn on the Kitchen Lamp!": -0.2})
    heard = hypothesis("Turn on the kitten lamp", -0.3, "Turn on the Kitchen Lamp!")
    assert text(meant(scorer, heard)) == "Turn on the Kitchen Lamp!"


@pytest.mark.parametrize("written", ["Is the Garagen-Tor open?", "Is the Garagen Tor open?"])
def test_a_compound_is_the_name_of_the_home(written: str) -> None:
    best = meant(Searcher(), hypothesis(written), grammar("de"))
    assert text(best) == "Is the Garagentor open?"
    assert best.understood
    assert best.free_text is None


def test_compounds_are_joined_where_the_language_joins_them() -> None:
    assert grammar("de").written("is the Garage Tor open") == "is the Garagentor open"
    assert grammar("en").written("is the Garage Tor open") is None
    assert grammar("en").written("is the garagen tor open") == "is the Garagentor open"
    assert grammar("de").written("turn on the kitchen-lamp") == "turn on the kitchen lamp"
    assert grammar("de").written("open the Garagentor") is None


@pytest.mark.usefixtures("_always_searched")
@pytest.mark.parametrize(
    "error", [RuntimeError("out of memory"), ValueError("too many positions")], ids=str
)
def test_a_failing_runtime_costs_the_comparison_alone(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    heard = hypothesis("Turn on the kitten lamp.", -0.2)
    best = meant(Searcher(UNLIKELY, error=error), heard)
    assert best == heard
    assert f"the home's sentences can't be compared: {error}" in caplog.text


def test_work_that_nobody_waits_for_ends() -> None:
    def checkpoint() -> None:
        raise Abandoned

    scorer = Searcher(found="turn on the kitchen lamp")
    sentences = HomeSentences(
        scorer,  # type: ignore[arg-type]
        TOKENIZER,
        lambda _: grammar(),
        checkpoint,
    )
    with pytest.raises(Abandoned):
        sentences("audio", PROMPT, "en", hypothesis("Turn on the kitten lamp."))


@pytest.mark.usefixtures("_always_searched")
@pytest.mark.parametrize("n_looks", [1, 5, 30, 200])
def test_what_takes_too_long_is_left_as_it_was_written(n_looks: int) -> None:
    """Wherever the time runs out: letter by letter, between passes, or in the search."""
    looks = iter(range(10_000))

    def clock() -> float:
        return 0.0 if next(looks) < n_looks else HomeSentences.MAX_SECONDS + 0.1

    class Endless(Searcher):
        def constrained(self, *args: Any, **kwargs: Any) -> list[Sentence]:
            while True:
                args[3].checkpoint()

    scorer = Endless(UNLIKELY)
    sentences = HomeSentences(
        scorer,  # type: ignore[arg-type]
        TOKENIZER,
        lambda _: grammar(),
        clock=clock,
    )
    heard = hypothesis("Turn on the kitten lamp.", -0.2)
    best = sentences("audio", PROMPT, "en", heard)
    assert best == heard
    assert best.understood is False
    assert n_looks < next(looks) <= n_looks + 3


def test_what_is_spelled_alike_is_taken_where_the_search_takes_too_long() -> None:
    now = 0.0

    class Slow(Searcher):
        def constrained(self, *args: Any, **kwargs: Any) -> list[Sentence]:
            nonlocal now
            now = HomeSentences.MAX_SECONDS + 0.1
            args[3].checkpoint()
            raise AssertionError("it is too late to go on")

    alike = "Turn on the kitchen lamp"
    scorer = Slow({"Turn on the kitten lamp.": -0.4, alike: -0.7})
    sentences = HomeSentences(scorer, TOKENIZER, lambda _: grammar(), clock=lambda: now)  # type: ignore[arg-type]
    best = sentences("audio", PROMPT, "en", hypothesis("Turn on the kitten lamp.", -0.4))
    assert now > HomeSentences.MAX_SECONDS
    assert text(best) == alike


def test_the_names_leave_what_the_home_understands() -> None:
    snapper = Snapper(Scorer(), TOKENIZER, [], lambda: "noise")  # type: ignore[arg-type]
    heard = dataclasses.replace(hypothesis("turn on the lamp"), understood=True)
    assert snapper("audio", PROMPT, "en", heard) is heard


EVEN = Evidence(gap=0.5, letters=20, free_letters=20)


def test_evidence_of_a_sentence_that_is_as_likely() -> None:
    assert EVEN.log_odds > Evidence.SURE_LOG_ODDS


@pytest.mark.parametrize(
    ("worse", "is_out"),
    [
        ({"gap": HomeSentences.MAX_GAP + 1.0}, True),
        ({"gap": 6.0}, False),
        ({"free_letters": 24}, False),
        ({"free_letters": 24, "gap": 6.0}, True),
        ({"letters": 16}, False),
        ({"letters": 5}, True),
        ({"free_letters": 90}, True),
    ],
)
def test_evidence_against_it(worse: dict[str, float], is_out: bool) -> None:
    other = dataclasses.replace(EVEN, **worse)  # type: ignore[arg-type]
    assert other.log_odds < EVEN.log_odds
    assert (other.log_odds < Evidence.MIN_LOG_ODDS) is is_out


def test_evidence_is_a_number_for_the_strangest_texts() -> None:
    for letters, free_letters in ((0, 0), (0, 300), (300, 0)):
        strange = dataclasses.replace(EVEN, letters=letters, free_letters=free_letters, gap=-900.0)
        assert np.isfinite(strange.log_odds)
