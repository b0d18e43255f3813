"""What the server says of itself, and that nobody who listens can hurt it."""

from __future__ import annotations

import threading
from typing import get_args

import pytest

from wyoming_whisper.status import Answer, Phase, State, Status


def answer(seconds: float) -> Answer:
    return Answer(time=0.0, outcome="text", seconds=seconds, waited=0.1)


def test_every_change_is_a_new_state_and_revision() -> None:
    status = Status()
    before = status.state
    status.update(phase="loading", detail="loading the model")
    assert (before.phase, status.state.phase) == ("starting", "loading")
    status.downloading("base", 0.5)
    assert status.state.phase == "downloading"
    assert (status.state.detail, status.state.fraction) == ("downloading base", 0.5)
    assert status.revision == 2


def test_a_field_that_is_none_is_a_mistake() -> None:
    with pytest.raises(TypeError, match="phrase"):
        Status().update(phrase="ready")


def test_so_many_answers_are_remembered_the_last_ones() -> None:
    status = Status()
    for number in range(Status.MAX_ANSWERS + 3):
        status.record(answer(number))
    assert [each.seconds for each in status.answers] == list(range(3, Status.MAX_ANSWERS + 3))
    assert status.revision == Status.MAX_ANSWERS + 3


def test_who_counts_answers_harms_nobody_who_answers(caplog: pytest.LogCaptureFixture) -> None:
    status, counted = Status(), list[Answer]()
    status.on_answer = counted.append
    status.record(answer(1.0))

    def broken(_: object) -> None:
        raise RuntimeError("the page is broken")

    status.on_answer = broken
    status.record(answer(2.0))
    assert counted == [answer(1.0)]
    assert status.answers == (answer(1.0), answer(2.0))
    assert caplog.text.count("RuntimeError: the page is broken") == 1


def test_no_change_of_many_threads_is_lost() -> None:
    status = Status()

    def change() -> None:
        for _ in range(200):
            status.record(answer(status.revision))
            status.update(detail=f"{threading.get_ident()}")

    threads = [threading.Thread(target=change) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert status.revision == 1600


@pytest.mark.parametrize(
    ("phase", "stopping", "verdict", "reason"),
    [
        ("ready", False, "healthy", ""),
        ("idle", False, "healthy", ""),
        ("starting", False, "starting", "why"),
        ("downloading", False, "starting", "why"),
        ("loading", False, "starting", "why"),
        ("building", False, "starting", "why"),
        ("unavailable", False, "unhealthy", "why"),
        ("failed", False, "unhealthy", "why"),
        ("ready", True, "stopping", "the server is shutting down"),
        ("failed", True, "unhealthy", "why"),
    ],
)
def test_every_phase_has_one_verdict(
    phase: Phase, stopping: bool, verdict: str, reason: str
) -> None:
    health = State(phase=phase, detail="why").health(stopping=stopping)
    assert (health.verdict, health.reason) == (verdict, reason)
    assert health.is_failure == (verdict == "unhealthy")


def test_a_model_that_is_woken_is_healthy_and_says_so() -> None:
    woken = State(phase="loading", detail="loading the model", was_ready=True).health()
    assert (woken.verdict, woken.phase) == ("healthy", "loading")
    assert "loaded again" in woken.reason
    stopping = State(phase="loading", was_ready=True).health(stopping=True)
    assert stopping.verdict == "stopping"
    refusing = State(phase="loading", detail="why", was_ready=True, is_refusing=True)
    assert (refusing.health().verdict, refusing.health().reason) == ("starting", "why")


def test_no_phase_is_without_a_verdict() -> None:
    for phase in get_args(Phase):
        assert State(phase=phase).health().verdict
