"""Statistics, and what is said of the machine."""

from __future__ import annotations

import pytest

from benchmarks.lib import report


@pytest.mark.parametrize(
    ("percent", "expected"), [(1, 1.0), (10, 1.0), (11, 2.0), (50, 5.0), (95, 10.0), (100, 10.0)]
)
def test_percentile(percent: float, expected: float) -> None:
    assert (
        report.percentile([float(n) for n in (3, 1, 2, 10, 4, 6, 5, 9, 8, 7)], percent) == expected
    )


def test_percentile_of_one() -> None:
    assert report.percentile([7.0], 95) == 7.0


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.00123, "1.23 ms"),
        (0.0123, "12.3 ms"),
        (0.123, "123 ms"),
        (12.3, "12300 ms"),
    ],
)
def test_times_are_shown_with_the_digits_that_count(seconds: float, shown: str) -> None:
    assert report.milliseconds(seconds) == shown


def test_machine_line_warns_of_other_work() -> None:
    facts = report.machine()
    assert facts["cpu"] in report.machine_line(facts)
    idle = report.machine_line(facts | {"load_average": 0.0})
    busy = report.machine_line(facts | {"load_average": 100.0})
    assert "don't trust" not in idle
    assert "don't trust" in busy
