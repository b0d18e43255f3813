"""The weights of the evidence for the home's sentences, fitted to cases."""

from __future__ import annotations

import random

import numpy as np
import pytest

from benchmarks.hearing.household.fit import UNDECIDED, Case, fitted, tables
from wyoming_whisper.backends.home_sentences import Evidence, HomeSentences

N_FIGURES = len(Evidence.WEIGHTS)


def case(figures: list[float], is_said: bool, kind: str = "command") -> Case:
    return Case("clip", kind, "turn on the lam", "turn on the lamp", tuple(figures), is_said)


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    """Of these the first figure speaks for a sentence, the second against it, the rest is noise."""
    r = random.Random(1)
    drawn = [[r.gauss(0.0, 1.0 + n) for n in range(N_FIGURES)] for _ in range(600)]
    return [
        case(
            one, 2.0 * one[0] - one[1] + r.gauss(0.0, 0.5) > 0, "other" if i % 4 == 0 else "command"
        )
        for i, one in enumerate(drawn)
    ]


def test_the_weights_tell_what_was_said(cases: list[Case]) -> None:
    weights = fitted(cases)
    assert weights.shape == (N_FIGURES + 1,)
    assert weights[0] > 1.0
    assert weights[1] < -0.5
    assert np.abs(weights[2:]).max() < weights[0] / 5
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


def test_what_is_undecided_is_searched_and_not_taken() -> None:
    assert HomeSentences.LEAST_LOG_ODDS < UNDECIDED < Evidence.MIN_LOG_ODDS
