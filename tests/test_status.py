"""What the server says of itself, and that nobody who listens can hurt it."""

from __future__ import annotations

import dataclasses

import pytest

from wyoming_whisper.status import MAX_ANSWERS, Answer, State, Status


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
    for number in range(MAX_ANSWERS + 3):
        status.record(answer(number))
    assert [each.seconds for each in status.answers] == list(range(3, MAX_ANSWERS + 3))
    assert status.revision == MAX_ANSWERS + 3


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
