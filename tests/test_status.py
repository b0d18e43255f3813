"""What the server says of itself, and that nobody who listens can hurt it."""

from __future__ import annotations

import dataclasses
import threading
from typing import get_args

import pytest

from tests.support import TIMEOUT_SECONDS
from wyoming_whisper.status import Answer, Phase, State, Status


def answer(seconds: float) -> Answer:
    return Answer(time=0.0, outcome="text", seconds=seconds, waited=0.1)


def test_every_change_is_a_new_state_and_revision() -> None:
    status, seen = Status(), list[State]()
    status.on_state(seen.append)
    before = status.state
    status.update(phase="loading", detail="loading the model")
    status.downloading("base", 0.5)
    assert before == State()
    assert [state.phase for state in seen] == ["loading", "downloading"]
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


def test_a_listener_that_fails_harms_neither_the_work_nor_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    status, seen = Status(), list[object]()

    def broken(_: object) -> None:
        raise RuntimeError("the page is broken")

    status.on_state(broken)
    status.on_answer(broken)
    status.on_state(seen.append)
    status.on_answer(seen.append)
    status.update(phase="ready")
    status.record(answer(1.0))
    assert seen == [dataclasses.replace(State(), phase="ready"), answer(1.0)]
    assert caplog.text.count("RuntimeError: the page is broken") == 2


def test_two_threads_changes_arrive_in_the_order_in_which_they_were_made() -> None:
    """The older State must never be the last that somebody gets."""
    status, seen = Status(), list[State]()
    first_arrives, may_go_on = threading.Event(), threading.Event()

    def slow(state: State) -> None:
        if state.detail == "first":
            first_arrives.set()
            assert may_go_on.wait(TIMEOUT_SECONDS)
        seen.append(state)

    status.on_state(slow)
    changing = threading.Thread(target=lambda: status.update(detail="first"))
    changing.start()
    assert first_arrives.wait(TIMEOUT_SECONDS)
    status.update(detail="second")  # while the first is still being told
    status.record(answer(1.0))
    may_go_on.set()
    changing.join()
    assert [state.detail for state in seen] == ["first", "second"]


def test_a_listener_that_changes_the_status_is_told_after_all_others_were() -> None:
    status, seen = Status(), list[str]()

    def change(state: State) -> None:
        if state.detail == "first":
            status.update(detail="second")

    status.on_state(change)
    status.on_state(lambda state: seen.append(state.detail))
    status.update(detail="first")
    assert seen == ["first", "second"]


def test_no_change_is_missed_by_who_begins_to_listen() -> None:
    status, seen = Status(), list[State]()
    status.update(phase="loading")
    status.on_state(seen.append, now=True)
    status.update(phase="ready")
    assert [state.phase for state in seen] == ["loading", "ready"]


def test_many_threads_leave_every_listener_with_the_last_state() -> None:
    status, seen = Status(), list[State]()
    status.on_state(seen.append)

    def change() -> None:
        for _ in range(200):
            status.update(detail=f"{threading.get_ident()}")

    threads = [threading.Thread(target=change) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 800
    assert seen[-1] is status.state


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
