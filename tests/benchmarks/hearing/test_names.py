"""What benchmarks.hearing.names counts, and the regression that it fits with."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.hearing.names import (
    HOMES,
    WORDS,
    Heard,
    Possible,
    fitted,
    has_name,
    is_false,
    is_spoiled,
    logistic,
    summary,
)
from benchmarks.lib.clips import Clip
from benchmarks.lib.spoken import VOICES, VOICES_TO_FIT
from wyoming_whisper.home.index import NameIndex


def heard(said: str, without: str, named: str, kind: str = "plain", lost: str = "") -> Heard:
    clip = Clip("a.flac", said, kind, np.zeros(0, np.float32))
    return Heard(clip, "small", without, named, 0.01, lost)


def test_nothing_is_measured_with_what_was_fitted_on() -> None:
    for kind in ("invented", "ordinary", "absent"):
        assert not set(WORDS[kind]) & set(WORDS[f"{kind}_to_fit"])
    assert not set(VOICES) & set(VOICES_TO_FIT)
    assert len(NameIndex(HOMES["large"])) >= 200


def test_the_longest_name_that_was_said_counts() -> None:
    names = ["lamp", "yoda lamp"]
    assert has_name("turn on the yoda lamp", "turn on yoda lamp", names)
    assert not has_name("turn on the yoda lamp", "turn on the lamp", names)


@pytest.mark.parametrize(
    ("said", "without", "named", "false", "spoiled"),
    [
        ("open the gate", "open the gate", "open the gate", False, False),
        ("open the gate", "open the gate", "open the gazebo", True, True),
        ("open the gate", "open the cape", "open the gazebo", True, False),
        ("open the gazebo", "open the cape", "open the gazebo", False, False),
        ("open the gate", "open the gate", "", False, True),
        ("open the gate", "open the gazebo", "open the gazebo now", False, False),
    ],
)
def test_what_is_false_and_what_is_spoiled(
    said: str, without: str, named: str, false: bool, spoiled: bool
) -> None:
    one = heard(said, without, named)
    assert (is_false(one), is_spoiled(one)) == (false, spoiled)


def test_the_tables_count_what_was_heard() -> None:
    one = "open the gazebo"
    results = [
        heard(one, "", one, "name"),
        heard(one, "", "", "name", "too little evidence"),
        heard("open the gate", "open the gate", "open the gazebo"),
    ]
    table = summary([*results, *(Heard(results[2].clip, h, "", "", 0.0, "") for h in HOMES)])
    none, with_names = (line for line in table.splitlines() if line.startswith("| invented  "))
    assert "100.0 %" in none  # of the names are wrong
    assert with_names.count("50.0 %") == 3
    assert "too little evidence" in table
    assert "1 (50.00 %)" in table


def test_the_regression_finds_what_made_the_odds() -> None:
    random = np.random.default_rng(3)
    x = np.column_stack([np.ones(20_000), random.normal(size=20_000)])
    meant = random.random(20_000) < 1 / (1 + np.exp(-(x @ [-1.0, 2.0])))
    assert logistic(x, meant.astype(np.float64)) == pytest.approx([-1.0, 2.0], abs=0.1)


def test_the_threshold_is_above_what_names_nothing() -> None:
    """Of each clip the likeliest candidate counts; more of those that are meant are found."""

    def row(similarity: float) -> list[float]:
        return [1.0, similarity, 0.5, 3.0, -1.0, -3.0]

    meant = [Possible(place, row(0.8 + place / 1000), True) for place in range(50)]
    silent = [Possible(place, row(0.3 + place / 1000), False) for place in range(50, 100)]
    worse = [Possible(place, row(0.1), False) for place in range(50)]
    lines = fitted([*meant, *silent, *worse], set(range(50, 100))).splitlines()
    assert lines[0].startswith("BIAS = -")
    assert lines[1].startswith("PER_SIMILARITY = ")
    assert lines[-1] == "there: 50 meant, 0 not, of 150 candidates"
