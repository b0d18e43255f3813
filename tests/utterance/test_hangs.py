"""When work has hung, and when it is only slow."""

from __future__ import annotations

import pytest

from wyoming_whisper.utterance.hangs import HangWatch, Work

DEADLINE = 120.0


def work(
    seconds: float | None = 3.0,
    *,
    key: object = "one",
    step: object = 0,
    is_recording: bool = False,
    kind: str = "a transcription",
) -> Work:
    return Work(key, kind, step, seconds, is_recording)


def hangs_after(watch: HangWatch, one: Work, tick: float = 1.0) -> float:
    """Return after how many seconds at one step it is said to hang."""
    assert watch.look([one], tick) is None
    seconds = 0.0
    while watch.look([one], tick) is None:
        seconds += tick
        assert seconds < 2 * HangWatch.MAX_LIMIT_SECONDS
    return seconds + tick


@pytest.mark.parametrize(
    ("one", "seconds"),
    [
        (work(3.0), 240.0),  # a command: twice the deadline
        (work(10.0), 240.0),
        (work(20.0), 480.0),  # its window is twice as long
        (work(30.0), 720.0),
        (work(600.0), 720.0),  # window after window, each of them a step
        (work(30.0, is_recording=True), 1440.0),
        (work(3.0, is_recording=True), 480.0),
        (work(None, kind="opening the model"), HangWatch.UPKEEP_SECONDS),
    ],
)
def test_the_limit_is_of_the_kind_of_work_and_of_its_audio(one: Work, seconds: float) -> None:
    assert hangs_after(HangWatch(DEADLINE), one) == seconds


def test_what_hangs_is_said_in_one_sentence() -> None:
    watch = HangWatch(1.0)
    watch.look([work()], 1.0)
    watch.look([work()], 1.0)
    assert watch.look([work()], 1.0) == "a transcription has not got on for 2 s: it hangs"


def test_work_that_gets_on_may_take_any_time() -> None:
    watch = HangWatch(DEADLINE)
    for step in range(100):
        assert watch.look([work(step=step // 2)], 200.0) is None


def test_a_slow_machine_has_longer_limits_and_a_hang_is_found_there_too() -> None:
    watch = HangWatch(DEADLINE)
    for step in range(4):  # commands whose encoder takes 50 s
        watch.look([work(step=step)], 1.0)
        watch.look([work(step=step)], 50.0)
    watch.look([], 1.0)
    # A piece of a recording, three times as long, may take three times as long.
    assert watch.limit_seconds(work(30.0, is_recording=True)) == 3 * HangWatch.MARGIN * 50
    assert hangs_after(watch, work(key="two")) == HangWatch.MARGIN * 50


def test_what_was_measured_while_the_process_was_stopped_is_bounded() -> None:
    watch = HangWatch(DEADLINE)
    watch.look([work()], 1.0)
    watch.look([work()], 200.0)
    watch.look([work(key="two")], 1.0)  # at 20 s a second of audio, 30 s could take 6000 s
    assert watch.limit_seconds(work(30.0)) == HangWatch.MAX_LIMIT_SECONDS


def test_other_work_is_counted_anew() -> None:
    watch = HangWatch(DEADLINE)
    for key in range(10):
        assert watch.look([work(key=key)], 239.0) is None
        assert watch.look([work(key=key)], 239.0) is None


def test_of_several_at_once_any_may_hang() -> None:
    watch = HangWatch(DEADLINE)
    assert watch.look([work(key="slow"), work(key="stuck")], 1.0) is None
    assert watch.look([work(key="slow", step=1), work(key="stuck")], 200.0) is None
    assert watch.look([work(key="slow", step=2), work(key="stuck")], 39.0) is None
    assert watch.look([work(key="slow", step=3), work(key="stuck")], 1.0) is not None


def test_without_a_deadline_nothing_hangs() -> None:
    watch = HangWatch(0.0)
    for _ in range(5):
        assert watch.look([work(), work(None, key="upkeep")], 10_000.0) is None
