"""What a fuzz calls a failure."""

from __future__ import annotations

import pytest

from benchmarks.lib.fuzzing import Result


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (Result(broken={"connections hung": [7]}), "1 connections hung: numbers [7]"),
        (Result(trouble=["Traceback"]), "Traceback"),
        (Result(growth_bytes=20_000_000), "memory grew by 20 MB"),
        (Result(leaked={"tasks": 1}), "left behind"),
        (Result(exit_status=-9), "exit status -9"),
    ],
)
def test_a_broken_promise_is_a_failure(result: Result, said: str) -> None:
    (failure,) = result.failures
    assert said in failure
    assert result.outcome("streams").failures == [failure]


def test_nothing_left_is_none() -> None:
    assert Result(broken={"connections hung": []}, leaked={"tasks": 0}).failures == []
