"""The queue: its bound, who leaves it, and what breaks off the work that is being done."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from tests.support import TIMEOUT_SECONDS, FakeTranscriber, SteppingTranscriber, loud, on_state
from wyoming_whisper.errors import BusyError, TranscribeError
from wyoming_whisper.status import Status
from wyoming_whisper.transcriber import Samples, TranscribeOptions, Transcriber, Transcription
from wyoming_whisper.utterance.job import Job, Priority
from wyoming_whisper.utterance.scheduler import Scheduler

OPTIONS = TranscribeOptions(language="en")


@contextmanager
def scheduler(transcriber: Transcriber, max_queue: int = 32) -> Iterator[Scheduler]:
    working = Scheduler(lambda: transcriber, max_queue=max_queue)
    working.start()
    working.opened.result(TIMEOUT_SECONDS)
    yield working
    assert working.close(TIMEOUT_SECONDS)


def busy(working: Scheduler, fake: FakeTranscriber) -> Job:
    """Return a job that is being done until the gate opens."""
    fake.gate.clear()
    job = working.submit(loud(0.1), OPTIONS)
    assert fake.started.wait(TIMEOUT_SECONDS)
    return job


def text(job: Job) -> str:
    return job.future.result(TIMEOUT_SECONDS).text


def test_more_than_may_wait_is_refused_and_room_is_made_by_who_leaves() -> None:
    fake = FakeTranscriber()
    with scheduler(fake, max_queue=2) as working:
        running = busy(working, fake)
        leaving = working.submit(loud(0.2), OPTIONS)
        working.submit(loud(0.3), OPTIONS)
        with pytest.raises(BusyError, match="--max-queue"):
            working.submit(loud(0.4), OPTIONS)
        assert leaving.cancel()
        last = working.submit(loud(0.5), OPTIONS)
        fake.gate.set()
        assert (text(running), text(last)) == ("1600 samples in en", "8000 samples in en")
    assert [len(samples) for samples, _ in fake.requests] == [1600, 4800, 8000]


def test_early_work_takes_no_place_of_who_waits() -> None:
    fake = FakeTranscriber()
    with scheduler(fake, max_queue=2) as working:
        busy(working, fake)
        early = [working.submit(loud(0.2), OPTIONS, Priority.EARLY) for _ in range(2)]
        with pytest.raises(BusyError):
            working.submit(loud(0.3), OPTIONS, Priority.EARLY)
        waiting = [working.submit(loud(0.4), OPTIONS) for _ in range(2)]
        early[1].promote()
        fake.gate.set()
        assert [text(job) for job in waiting] == 2 * ["6400 samples in en"]
        assert [text(job) for job in early] == 2 * ["3200 samples in en"]
    assert [len(samples) for samples, _ in fake.requests] == [1600, 3200, 6400, 6400, 3200]


def test_what_was_cancelled_is_not_kept() -> None:
    """While a model loads, or hangs, clients may come and leave for ever."""
    fake = FakeTranscriber()
    with scheduler(fake, max_queue=2) as working:
        running = busy(working, fake)
        for _ in range(100):
            working.submit(loud(0.2), OPTIONS).cancel()
            working.submit(loud(0.2), OPTIONS, Priority.EARLY).cancel()
        assert working._jobs == []
        fake.gate.set()
        text(running)
    assert len(fake.requests) == 1


def test_what_nobody_waits_for_is_broken_off() -> None:
    stepping = SteppingTranscriber()
    with scheduler(stepping) as working:
        job = working.submit(loud(0.1), OPTIONS)
        assert stepping.started.wait(TIMEOUT_SECONDS)
        assert not job.cancel()
        assert stepping.ended.wait(TIMEOUT_SECONDS)
        with pytest.raises(TranscribeError):
            text(job)


def test_a_cancelled_job_that_waits_is_never_begun() -> None:
    fake = FakeTranscriber()
    with scheduler(fake) as working:
        running = busy(working, fake)
        job = working.submit(loud(0.2), OPTIONS)
        job.cancel()
        fake.gate.set()
        text(running)
        with pytest.raises(CancelledError):
            text(job)
    assert len(fake.requests) == 1


def test_memory_that_is_not_enough_is_one_sentence_and_the_next_request_works() -> None:
    fake = FakeTranscriber(error=MemoryError())
    with scheduler(fake) as working:
        with pytest.raises(TranscribeError, match="not enough memory"):
            text(working.submit(loud(0.1), OPTIONS))
        fake.error = None
        assert text(working.submit(loud(0.1), OPTIONS)) == "1600 samples in en"


def test_closing_answers_who_waits_and_refuses_the_rest() -> None:
    fake = FakeTranscriber()
    with scheduler(fake) as working:
        running = busy(working, fake)
        early = working.submit(loud(0.2), OPTIONS, Priority.EARLY)
        waiting = working.submit(loud(0.3), OPTIONS)
        assert not working.close(0.01)
        fake.gate.set()
        assert (text(running), text(waiting)) == ("1600 samples in en", "4800 samples in en")
        with pytest.raises(TranscribeError, match="shutting down"):
            text(early)


def test_what_the_model_is_at_is_known() -> None:
    fake = FakeTranscriber()
    with scheduler(fake) as working:
        assert working.under_way == []
        running = busy(working, fake)
        waiting = working.submit(loud(0.2), OPTIONS)
        assert working.under_way == [running.work]
        fake.gate.set()
        text(waiting)
    assert working.under_way == []


def test_a_model_that_cannot_be_closed_is_opened_again(caplog: pytest.LogCaptureFixture) -> None:
    opened: list[FakeTranscriber] = []

    closed = threading.Event()

    class Failing(FakeTranscriber):
        def close(self) -> None:
            closed.set()
            raise ZeroDivisionError

    def open_transcriber() -> Transcriber:
        opened.append(Failing())
        return opened[-1]

    working = Scheduler(open_transcriber, idle_seconds=0.01)
    working.start()
    for _ in range(2):
        assert text(working.submit(loud(0.1), OPTIONS)) == "1600 samples in en"
        assert closed.wait(TIMEOUT_SECONDS)
        closed.clear()
    assert len(opened) >= 2
    assert "could not be closed" in caplog.text
    assert working.close(TIMEOUT_SECONDS)


def test_a_thread_that_fails_leaves_nobody_waiting(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: Transcriber) -> None:
        raise ZeroDivisionError

    working = Scheduler(FakeTranscriber, fail)
    working.start()
    working._thread.join(TIMEOUT_SECONDS)
    assert "the model's thread has failed" in caplog.text
    with pytest.raises(TranscribeError):
        working.submit(loud(0.1), OPTIONS)
    assert working.close()


@dataclass
class SeveralAtOnce(FakeTranscriber):
    """Takes as many requests at once as it says."""

    at_once: int = 3
    together: threading.Barrier = field(default_factory=lambda: threading.Barrier(3))

    def transcribe(self, samples: Samples, options: TranscribeOptions) -> Transcription:
        if not self.together.broken:
            self.together.wait(TIMEOUT_SECONDS)  # passes when three are in here
        return super().transcribe(samples, options)


def test_a_transcriber_may_take_several_requests_at_once_and_none_is_left_behind() -> None:
    several = SeveralAtOnce()
    with scheduler(several) as working:
        jobs = [working.submit(loud(0.1 * n), OPTIONS) for n in range(1, 7)]
        assert [text(job) for job in jobs] == [f"{1600 * n} samples in en" for n in range(1, 7)]
        several.together.abort()
        several.gate.clear()
        several.started.clear()
        last = [working.submit(loud(0.7), OPTIONS) for _ in range(2)]
        assert several.started.wait(TIMEOUT_SECONDS)
        assert {work.key for work in working.under_way} <= {job.work.key for job in last}
        several.gate.set()
        assert {text(job) for job in last} == {"11200 samples in en"}
    assert several.closed


def test_an_idle_transcriber_stays_while_one_of_its_threads_works() -> None:
    several = SeveralAtOnce(at_once=2)
    several.together.abort()
    several.gate.clear()
    status, unloaded = Status(), threading.Event()
    on_state(status, lambda state: unloaded.set() if "unloaded" in state.detail else None)
    working = Scheduler(lambda: several, idle_seconds=0.02, status=status)
    working.start()
    job = working.submit(loud(0.1), OPTIONS)
    assert several.started.wait(TIMEOUT_SECONDS)
    assert not unloaded.wait(0.2)  # ten times as long as idle ones may stay
    assert not several.closed
    several.gate.set()
    assert text(job) == "1600 samples in en"
    assert unloaded.wait(TIMEOUT_SECONDS)
    assert several.closed
    assert working.close(TIMEOUT_SECONDS)


def test_a_recording_waits_for_commands_and_for_early_work_and_takes_no_place_of_theirs() -> None:
    fake = FakeTranscriber()
    with scheduler(fake, max_queue=1) as working:
        busy(working, fake)
        recording = working.submit(loud(0.2), OPTIONS, Priority.RECORDING)
        early = working.submit(loud(0.3), OPTIONS, Priority.EARLY)
        command = working.submit(loud(0.4), OPTIONS)
        with pytest.raises(BusyError):
            working.submit(loud(0.5), OPTIONS, Priority.RECORDING)
        fake.gate.set()
        for job in (recording, early, command):
            job.future.result(TIMEOUT_SECONDS)
    assert [len(samples) for samples, _ in fake.requests] == [1600, 6400, 4800, 3200]


@pytest.mark.parametrize("cancelled", [False, True])
def test_what_was_transcribed_needs_no_search_for_garbage(cancelled: bool) -> None:
    """A job holds its samples, a quarter of a megabyte, for as long as it is known itself."""
    transcriber = FakeTranscriber()
    scheduler = Scheduler(lambda: transcriber)
    gc.collect()
    gc.disable()
    try:
        job = scheduler.submit(loud(0.1), TranscribeOptions("en"))
        other = scheduler.submit(loud(0.1), TranscribeOptions("en"))
        if cancelled:
            job.cancel()
        scheduler.start()
        other.future.result(TIMEOUT_SECONDS)
        scheduler.close(TIMEOUT_SECONDS)
        transcriber.requests.clear()
        gone = weakref.ref(job)
        del job
        assert gone() is None
    finally:
        gc.enable()
