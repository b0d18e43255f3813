"""Search inside a grammar: nothing but its sentences, the likeliest of them, in few runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from tests.whisper.test_search import (
    EOT,
    MEL,
    PROMPT,
    Model,
    ScriptedElasticSession,
    ScriptedSession,
    inference,
)
from tests.whisper.test_search import options as free
from wyoming_whisper.transcriber import Abandoned
from wyoming_whisper.whisper.audio import Array
from wyoming_whisper.whisper.constrained import ConstrainedOptions, Sentence
from wyoming_whisper.whisper.search import log_softmax
from wyoming_whisper.whisper.session import Tokens

SENTENCES = (
    "turn on the lamp",
    "turn on the light",
    "turn off the lamp",
    "what time is it",
    "stop",
)
SUPPRESSED = (ord("#"),)


@dataclass
class Sentences:
    """A Constraint: a list of sentences; `*` in one is any letter, once or more often."""

    sentences: Sequence[str]
    start: int = 0
    states: list[frozenset[tuple[int, int]]] = field(default_factory=list)
    """(sentence, letters that were used) each."""

    def __post_init__(self) -> None:
        self.states = [frozenset((i, 0) for i in range(len(self.sentences)))]

    def _after(self, state: int, token: int) -> int:
        places = set()
        for sentence, at in self.states[state]:
            text = self.sentences[sentence]
            if at and text[at - 1] == "*":
                places.add((sentence, at))
            if at < len(text) and text[at] in ("*", chr(token)):
                places.add((sentence, at + 1))
        if not places:
            return -1
        key = frozenset(places)
        if key not in self.states:
            self.states.append(key)
        return self.states.index(key)

    def _is_open(self, state: int) -> bool:
        return any(
            "*" in self.sentences[i][max(0, at - 1) : at + 1] for i, at in self.states[state]
        )

    def continuations(self, state: int) -> tuple[Tokens, Tokens] | None:
        if self._is_open(state):
            return None
        after = {token: self._after(state, token) for token in range(256)}
        allowed = {token: place for token, place in after.items() if place >= 0}
        return np.array([*allowed], np.int32), np.array([*allowed.values()], np.int32)

    def advance(self, state: int, token: int) -> int:
        return self._after(state, token)

    def spelling(self, token: int) -> bytes:
        return bytes([token]).lower() if chr(token).isalnum() else b" "

    def is_final(self, state: int) -> bool:
        return any(at == len(self.sentences[i]) for i, at in self.states[state])


def options(**changes: Any) -> ConstrainedOptions:
    values = {"beam_size": 4, "max_new_tokens": 30, "suppressed_tokens": SUPPRESSED}
    return ConstrainedOptions(**{**values, "margin": 1e9, **changes})


def constrained(
    session: ScriptedSession, grammar: Sentences, guide: str = "", **changes: Any
) -> list[Sentence]:
    whisper = inference(session)
    features = whisper.encode(MEL)
    return whisper.constrained(features, PROMPT, grammar, options(**changes), list(guide.encode()))


def logprobs_of(model: Model, text: str) -> list[float]:
    """Return what a search may say of a text: one token at a time, the whole past at each."""
    past, found = list(PROMPT), []
    for token in [*text.encode(), EOT]:
        logits = model.logits(past)
        logits[list(SUPPRESSED)] = -np.inf
        found.append(float(log_softmax(logits)[token]))
        past.append(token)
    return found


def texts(sentences: Sequence[Sentence]) -> list[str]:
    return [bytes(sentence.tokens).decode() for sentence in sentences]


@pytest.fixture(params=[ScriptedSession, ScriptedElasticSession], ids=["fixed", "elastic"])
def session(request: pytest.FixtureRequest) -> ScriptedSession:
    made: ScriptedSession = request.param(Model(), beam_size=5)
    return made


def test_all_sentences_are_ranked_by_their_likelihood(session: ScriptedSession) -> None:
    found = constrained(session, Sentences(SENTENCES), beam_size=5, n_best=5)
    expected = {text: logprobs_of(session.model, text) for text in SENTENCES}
    assert texts(found) == sorted(SENTENCES, key=lambda text: -sum(expected[text]))
    for sentence, text in zip(found, texts(found), strict=True):
        np.testing.assert_allclose(sentence.logprobs, expected[text], rtol=1e-4)
        assert sentence.total_logprob == pytest.approx(sum(expected[text]), rel=1e-4)


@pytest.mark.parametrize("guide", ["turn on the tv", "stop it now", "stop", "xyz", SENTENCES[3]])
def test_a_guide_changes_nothing_but_the_work(session: ScriptedSession, guide: str) -> None:
    without = constrained(session, Sentences(SENTENCES))
    guided = constrained(session, Sentences(SENTENCES), guide)
    assert texts(guided) == texts(without)
    for one, other in zip(guided, without, strict=True):
        np.testing.assert_allclose(one.logprobs, other.logprobs, rtol=1e-4)


class SureModel(Model):
    """Nearly sure of what it writes first, whatever was written before."""

    def __init__(self, text: str, *, ends: bool = False) -> None:
        super().__init__()
        self.text = text
        self.ends = ends

    def logits(self, past: Sequence[int]) -> Array:
        found = super().logits(past)
        at = len(past) - len(PROMPT)
        if at < len(self.text):
            found[ord(self.text[at])] = 60
        elif self.ends:
            found[EOT] = 60
        return found


def test_where_the_guide_is_far_likelier_it_costs_one_run() -> None:
    session = ScriptedElasticSession(SureModel("turn on the"), beam_size=5)
    found = constrained(session, Sentences(SENTENCES), "turn on the lump", margin=20.0)
    n_guide = len("turn on the lump")
    assert session.steps[0] == (len(PROMPT) + n_guide, 0)
    # The next run is where the sentences part, not where they begin.
    assert session.steps[1] == (1, len(PROMPT) + len("turn on the l"))
    assert set(texts(found)) == {"turn on the lamp", "turn on the light"}


def test_what_is_far_less_likely_is_given_up() -> None:
    session = ScriptedElasticSession(SureModel("turn on the"), beam_size=5)
    found = constrained(session, Sentences(SENTENCES), margin=20.0)
    assert set(texts(found)) <= {"turn on the lamp", "turn on the light"}
    n_common = len("turn on the l")
    assert session.batches[: n_common + 1] == [1] * (n_common + 1)


def test_what_can_not_be_likely_enough_is_given_up(session: ScriptedSession) -> None:
    every = constrained(session, Sentences(SENTENCES), beam_size=5, n_best=5)
    least = every[1].total_logprob - 1e-3
    likely = constrained(session, Sentences(SENTENCES), beam_size=5, n_best=5, least_logprob=least)
    assert texts(likely)[:2] == texts(every)[:2]
    assert constrained(session, Sentences(SENTENCES), least_logprob=0.0) == []


def test_free_text_between_fixed_words(session: ScriptedSession) -> None:
    session.model = SureModel("add big pears to it", ends=True)
    found = constrained(session, Sentences(["add * to it", "add *"]), n_best=1)
    assert texts(found) == ["add big pears to it"]
    expected = logprobs_of(session.model, "add big pears to it")
    np.testing.assert_allclose(found[0].logprobs, expected, rtol=1e-4, atol=1e-5)


def test_what_does_not_end_in_time_is_no_sentence(session: ScriptedSession) -> None:
    assert constrained(session, Sentences(SENTENCES), max_new_tokens=3) == []
    assert texts(constrained(session, Sentences(SENTENCES), max_new_tokens=4)) == ["stop"]


def test_of_equal_sentences_the_likeliest_is_given(session: ScriptedSession) -> None:
    writings = ("stop it", "Stop it", "stop-it", "stop it.", "STOP IT!")
    found = constrained(session, Sentences([*writings, "stop"]), beam_size=5)
    best = max(writings, key=lambda text: sum(logprobs_of(session.model, text)))
    assert sorted(texts(found)) == sorted([best, "stop"])


def test_an_empty_grammar_has_no_sentence(session: ScriptedSession) -> None:
    assert constrained(session, Sentences([])) == []


def test_suppressed_tokens_are_never_written(session: ScriptedSession) -> None:
    assert texts(constrained(session, Sentences(["a#b", "a-b"]))) == ["a-b"]


def test_work_that_nobody_waits_for_is_broken_off(session: ScriptedSession) -> None:
    calls = []

    def checkpoint() -> None:
        calls.append(len(session.steps))
        if len(calls) == 3:
            raise Abandoned

    with pytest.raises(Abandoned):
        constrained(session, Sentences(SENTENCES), checkpoint=checkpoint)
    assert len(session.steps) == 3


def test_a_session_of_one_row_searches_with_one() -> None:
    session = ScriptedSession(Model(), beam_size=1)
    found = constrained(session, Sentences(SENTENCES))
    assert set(texts(found)) <= set(SENTENCES)
    assert len(found) == 1
    assert set(session.batches) == {1}


def test_the_free_search_goes_on_after_it(session: ScriptedSession) -> None:
    whisper = inference(session)
    features = whisper.encode(MEL)
    before = whisper.hypotheses(features, PROMPT, free(beam_size=5))
    whisper.constrained(features, PROMPT, Sentences(SENTENCES), options(beam_size=5))
    assert whisper.hypotheses(features, PROMPT, free(beam_size=5)) == before


def test_features_that_are_gone_are_not_searched() -> None:
    whisper = inference(ScriptedSession(Model(), beam_size=5))
    features = whisper.encode(MEL)
    whisper.encode(MEL)
    with pytest.raises(RuntimeError, match="replaced by a later encode"):
        whisper.constrained(features, PROMPT, Sentences(SENTENCES), options())
