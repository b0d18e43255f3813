"""Languages spoken lately: what is remembered, for how long, and how far it goes."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.languages import HOMES, Detector, Home, after_a_change, wrong_answers
from wyoming_whisper.languages import (
    HALF_LIFE_SECONDS,
    MAX_ODDS,
    SURE_PROBABILITY,
    SpokenLanguages,
)
from wyoming_whisper.transcriber import Transcription
from wyoming_whisper.whisper.decoding import likeliest_language

SURE = Transcription("schalte das Licht ein", "de", 0.97)


def remembering(n_answers: int, answer: Transcription = SURE) -> SpokenLanguages:
    memory = SpokenLanguages(clock=lambda: 0.0)
    for _ in range(n_answers):
        memory.note(answer)
    return memory


def test_nothing_is_preferred_at_first() -> None:
    assert SpokenLanguages().prior() == {}


def test_what_is_spoken_often_is_likelier_but_never_certain() -> None:
    assert 1 < remembering(1).prior()["de"] < remembering(4).prior()["de"]
    assert remembering(1000).prior()["de"] == MAX_ODDS


@pytest.mark.parametrize(
    "changes",
    [
        {"language_probability": SURE_PROBABILITY - 0.01},
        {"text": ""},
        {"language": None},
    ],
)
def test_what_was_not_surely_heard_is_not_remembered(changes: dict[str, object]) -> None:
    assert remembering(5, dataclasses.replace(SURE, **changes)).prior() == {}  # type: ignore[arg-type]


def test_switched_off_nothing_is_remembered() -> None:
    memory = SpokenLanguages(enabled=False)
    memory.note(SURE)
    assert memory.prior() == {}


def test_another_language_takes_its_place() -> None:
    memory = remembering(50)
    for _ in range(12):
        memory.note(dataclasses.replace(SURE, language="en"))
    assert memory.prior()["en"] > memory.prior()["de"]


def test_time_makes_it_forget() -> None:
    now = 0.0
    memory = SpokenLanguages(clock=lambda: now)
    memory.note(SURE)
    now = HALF_LIFE_SECONDS
    assert memory.prior()["de"] == pytest.approx(1.5)
    now = 1000 * HALF_LIFE_SECONDS
    assert memory.prior()["de"] == pytest.approx(1.0)


def test_a_prior_that_was_taken_stays_what_it_was() -> None:
    memory = remembering(3)
    before = memory.prior()
    taken = dict(before)
    memory.note(SURE)
    assert before == taken


def test_in_doubt_it_is_the_language_of_the_house() -> None:
    unsure = [("nl", 0.5), ("de", 0.4), ("en", 0.1)]
    assert likeliest_language(unsure, {}) == ("nl", 0.5)
    assert likeliest_language(unsure, remembering(3).prior()) == ("de", 0.4)


@given(
    st.lists(st.floats(0.001, 1), min_size=2, max_size=5),
    st.lists(st.sampled_from("abcde"), max_size=40),
)
def test_a_clear_detection_always_wins(weights: list[float], spoken: list[str]) -> None:
    memory = SpokenLanguages(clock=lambda: 0.0)
    for code in spoken:
        memory.note(dataclasses.replace(SURE, language=code))
    found = [(code, weight / sum(weights)) for code, weight in zip("abcde", weights, strict=False)]
    best, share = max(found, key=lambda item: item[1])
    chosen, its_share = likeliest_language(found, memory.prior())
    assert (chosen, its_share) in found
    if share > MAX_ODDS / (1 + MAX_ODDS) + 1e-9:
        assert chosen == best


# -- the simulation ------------------------------------------------------------------------


def share(home: Home, *, remembers: bool, wrong: float = 0.1) -> float:
    errors = wrong_answers(home, Detector(wrong), 2000, 7, remembers=remembers)
    return sum(errors) / len(errors)


def test_the_detector_is_wrong_as_often_as_it_should() -> None:
    assert share(HOMES[-1], remembers=False) == pytest.approx(0.1, abs=0.03)


def test_a_home_that_speaks_one_language_is_understood_far_better() -> None:
    assert share(HOMES[0], remembers=True) < share(HOMES[0], remembers=False) / 2


def test_a_home_that_speaks_both_is_understood_no_worse_than_a_little() -> None:
    both = HOMES[-1]
    assert share(both, remembers=True) < share(both, remembers=False) * 1.5


def test_a_home_that_changes_languages_is_soon_understood_as_before() -> None:
    without, remembering = (
        after_a_change(Detector(0.05), 300, 1, remembers=remembers) for remembers in (False, True)
    )
    assert remembering[0] > without[0]
    assert remembering[-1] <= without[-1] + 0.03
