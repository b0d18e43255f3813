"""What benchmarks.hearing.names counts."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.hearing.names import (
    HOMES,
    Heard,
    has_name,
    is_false,
    is_spoiled,
    summary,
)
from benchmarks.lib.clips import Clip


def heard(said: str, without: str, named: str, kind: str = "plain") -> Heard:
    clip = Clip("a.flac", said, kind, np.zeros(0, np.float32))
    return Heard(clip, "small", without, named, 0.01)


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
        heard(one, "", "", "name"),
        heard("open the gate", "open the gate", "open the gazebo"),
    ]
    table = summary([*results, *(Heard(results[2].clip, h, "", "", 0.0) for h in HOMES)])
    none, with_names = (line for line in table.splitlines() if line.startswith("| invented  "))
    assert "100.0 %" in none  # of the names are wrong
    assert with_names.count("50.0 %") == 3
    assert "1 (50.00 %)" in table
