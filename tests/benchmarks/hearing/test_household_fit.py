"""The weights of the evidence for the home's sentences, fitted to cases."""

from __future__ import annotations

import dataclasses
import itertools
import random

import numpy as np
import pytest

from benchmarks.hearing.household.fit import Case, Collecting, _likeliest, fitted, tables
from tests.backends.test_home_sentences import (
    PROMPT,
    TOKENIZER,
    Searcher,
    grammar,
    hypothesis,
)
from wyoming_whisper.backends.home_sentences import Evidence

N_FIGURES = len(Evidence.WEIGHTS)
NUMBERS = itertools.count()


def case(figures: list[float], is_said: bool, kind: str = "command") -> Case:
    name = f"clip {next(NUMBERS)}"
    return Case(name, kind, "turn on the lam", "turn on the lamp", tuple(figures), is_said)


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    """Of these the first figure speaks for a sentence, the others against it."""
    r = random.Random(1)
    drawn = [[r.gauss(0.0, 1.0 + n) for n in range(N_FIGURES)] for _ in range(600)]
    return [
        case(
            one,
            2.0 * one[0] - sum(one[1:]) + r.gauss(0.0, 0.5) > 0,
            "other" if i % 4 == 0 else "command",
        )
        for i, one in enumerate(drawn)
    ]


def test_the_weights_tell_what_was_said(cases: list[Case]) -> None:
    weights = fitted(cases)
    assert weights.shape == (N_FIGURES + 1,)
    assert weights[0] > 1.0
    assert (weights[1:-1] < -0.5).all()
    assert abs(weights[-1]) < weights[0] / 5
    odds = np.array([one.figures for one in cases]) @ weights[:-1] + weights[-1]
    right = (odds > 0) == np.array([one.is_said for one in cases])
    assert right.mean() > 0.9


def test_what_is_no_command_needs_more(cases: list[Case]) -> None:
    """Each counts as several commands, so sentences that were not said are taken less often."""
    others = [case([0.1] * N_FIGURES, False, "other") for _ in range(100)]
    commands = [case([0.1] * N_FIGURES, False) for _ in range(100)]
    assert fitted([*cases, *others])[-1] < fitted([*cases, *commands])[-1]


def test_tables_name_the_weights_and_what_they_let_through(cases: list[Case]) -> None:
    weights, bias, table = tables(cases)
    assert weights.startswith("WEIGHTS = (")
    assert weights.count(",") == N_FIGURES - 1
    assert bias.startswith("BIAS = ")
    assert "fitted" in table
    assert "in the code" in table


def test_a_clip_counts_once_by_its_likeliest_sentence() -> None:
    weights = [1.0] * N_FIGURES + [0.0]
    likely, unlikely = case([2.0] * N_FIGURES, True), case([1.0] * N_FIGURES, False)
    unlikely = dataclasses.replace(unlikely, clip=likely.clip)
    other = case([0.5] * N_FIGURES, False)
    rated = dict(_likeliest([unlikely, likely, other], weights))
    assert rated == {likely: 2.0 * N_FIGURES, other: 0.5 * N_FIGURES}


def test_what_is_collected_takes_no_texts_place() -> None:
    scorer = Searcher({"Turn on the kitten lamp.": -0.5, "Turn on the kitchen lamp": -0.6})
    scorer.found, scorer.logprob = "turn on the garagentor", -0.5
    collecting = Collecting(scorer, TOKENIZER, lambda _: grammar())
    heard = hypothesis("Turn on the kitten lamp.", -0.5)
    assert collecting("audio", PROMPT, "en", heard) == heard
    sentences = [sentence for _, sentence, _ in collecting.weighed]
    assert sentences == ["Turn on the kitchen lamp", "turn on the garagentor"]
    assert collecting.weighed[0][2].gap == pytest.approx(25 * 0.6 - 24 * 0.5)


def test_what_is_surely_written_as_it_was_said_is_not_searched_to_be_weighed() -> None:
    scorer = Searcher(found="turn on the garagentor")
    collecting = Collecting(scorer, TOKENIZER, lambda _: grammar())
    collecting("audio", PROMPT, "en", hypothesis("What is the capital of France?", -0.1))
    assert collecting.weighed == []
