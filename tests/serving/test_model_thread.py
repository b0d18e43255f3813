"""The model's thread: what it survives, and that it never ends without a word."""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from collections.abc import Callable

import pytest

from tests.support import TIMEOUT_SECONDS, FakeTranscriber, Panic, loud, on_state
from wyoming_whisper.errors import (
    EngineError,
    ModelBrokenError,
    ModelUnavailableError,
    TranscribeError,
    WyomingWhisperError,
)
from wyoming_whisper.status import Phase, State, Status
from wyoming_whisper.transcriber import Samples, TranscribeOptions, Transcriber, Transcription
from wyoming_whisper.utterance.job import Job, Priority
from wyoming_whisper.utterance.scheduler import Scheduler

OPTIONS = TranscribeOptions("en")

IDLE_SECONDS = 0.01


class Phases:
    """Waits for phases of a Status, in the order in which they come."""

    def __init__(self, status: Status) -> None:
        self._changed = threading.Condition()
        self.seen: list[State] = []
        on_state(status, self._take)

    def _take(self, state: State) -> None:
        with self._changed:
            self.seen.append(state)
            self._changed.notify_all()

    def wait_for(self, phase: Phase, times: int = 1) -> None:
        with self._changed:
            came = self._changed.wait_for(
                lambda: [state.phase for state in self.seen].count(phase) >= times, TIMEOUT_SECONDS
            )
        assert came, [state.phase for state in self.seen]


class Opening:
    """Opens a FakeTranscriber, but raises the next of `failures` where one is left after that."""

    def __init__(self, *failures: BaseException) -> None:
        self.failures = list(failures)
        self.n_calls = 0

    def __call__(self) -> Transcriber:
        self.n_calls += 1
        if self.n_calls > 1 and self.failures:
            raise self.failures.pop(0)
        return FakeTranscriber()


def text(job: Job) -> str:
    return job.future.result(TIMEOUT_SECONDS).text


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wyoming_whisper.utterance.scheduler.Scheduler.FIRST_RETRY_SECONDS", 0.02)
    monkeypatch.setattr("wyoming_whisper.utterance.scheduler.Scheduler.MAX_RETRY_SECONDS", 0.04)


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (RuntimeError("CUDA out of memory"), TranscribeError),
        (MemoryError(), ModelUnavailableError),
        (OSError(5, "Input/output error"), TranscribeError),
        (EngineError("the GPU is busy"), EngineError),
        (ModelBrokenError("model.bin is cut off"), ModelBrokenError),
        (Panic("index out of bounds"), TranscribeError),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_a_model_that_was_there_is_opened_again_after_any_error(
    failure: BaseException, kind: type[WyomingWhisperError], caplog: pytest.LogCaptureFixture
) -> None:
    opening, status = Opening(failure), Status()
    phases = Phases(status)
    working = Scheduler(opening, idle_seconds=IDLE_SECONDS, status=status)
    working.start()
    phases.wait_for("idle")
    with pytest.raises(kind):
        text(working.submit(loud(0.1), OPTIONS))
    phases.wait_for("idle", 2)  # it was opened again, and nobody spoke
    (unavailable,) = [state for state in phases.seen if state.phase == "unavailable"]
    assert unavailable.detail
    assert text(working.submit(loud(0.1), OPTIONS)) == "1600 samples in en"
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR] == [
        f"NOT READY: {unavailable.detail} (trying again in the background)"
    ]
    assert not working.ended.done()
    assert working.close(TIMEOUT_SECONDS)
    assert working.ended.result(TIMEOUT_SECONDS) is None


@pytest.mark.parametrize("level", [logging.INFO, logging.DEBUG])
def test_what_is_said_as_a_model_is_opened_is_not_repeated_each_time_it_is_woken(
    level: int, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger("wyoming_whisper.test")

    def open_transcriber() -> Transcriber:
        logger.info("opened")
        logger.warning("it is slow")
        return FakeTranscriber()

    status = Status()
    phases = Phases(status)
    working = Scheduler(
        open_transcriber, lambda _: logger.info("ready"), idle_seconds=IDLE_SECONDS, status=status
    )
    with caplog.at_level(level):
        working.start()
        phases.wait_for("idle")
        working.wake()
        phases.wait_for("idle", 2)
        assert working.close(TIMEOUT_SECONDS)
    again = [] if level == logging.INFO else ["opened", "ready"]
    said = [record.getMessage() for record in caplog.records if record.name == logger.name]
    assert sorted(said) == sorted(["opened", "ready", *again, *2 * ["it is slow"]])


def test_a_library_that_fails_again_and_again_ends_the_thread_and_says_so() -> None:
    opening = Opening(*(RuntimeError("the GPU has fallen off the bus") for _ in range(9)))
    status = Status()
    phases = Phases(status)
    working = Scheduler(opening, idle_seconds=IDLE_SECONDS, status=status)
    working.start()
    phases.wait_for("idle")
    working.wake()
    with pytest.raises(TranscribeError, match="fallen off the bus"):
        working.ended.result(TIMEOUT_SECONDS)
    assert opening.n_calls == 1 + Scheduler.MAX_REOPENINGS
    assert (status.state.phase, "fallen off" in status.state.detail) == ("failed", True)
    with pytest.raises(TranscribeError, match="fallen off the bus"):
        working.submit(loud(0.1), OPTIONS)
    assert working.opened.result(0) is None  # it had been
    assert working.close(TIMEOUT_SECONDS)


def test_what_is_the_machines_fault_is_tried_for_ever() -> None:
    opening = Opening(*(MemoryError() for _ in range(3 * Scheduler.MAX_REOPENINGS)))
    status = Status()
    phases = Phases(status)
    working = Scheduler(opening, idle_seconds=IDLE_SECONDS, status=status)
    working.start()
    phases.wait_for("idle")
    working.wake()
    phases.wait_for("idle", 2)
    assert opening.n_calls == 2 + 3 * Scheduler.MAX_REOPENINGS
    assert working.close(TIMEOUT_SECONDS)


def test_an_error_at_the_start_ends_the_thread_at_once() -> None:
    def fail() -> Transcriber:
        raise RuntimeError("no such instruction")

    status = Status()
    working = Scheduler(fail, status=status)
    working.start()
    for future in (working.opened, working.ended):
        with pytest.raises(TranscribeError, match="no such instruction"):
            future.result(TIMEOUT_SECONDS)
    assert status.state.phase == "failed"
    assert working.close(TIMEOUT_SECONDS)


def test_an_error_that_nobody_foresaw_ends_the_thread_and_says_so() -> None:
    """Whoever is told that the model is ready may fail; the model is freed all the same."""
    opened: list[FakeTranscriber] = []

    def open_transcriber() -> Transcriber:
        opened.append(FakeTranscriber())
        return opened[-1]

    def fail_at_the_second(_: Transcriber) -> None:
        if len(opened) > 1:
            raise ZeroDivisionError

    status = Status()
    phases = Phases(status)
    working = Scheduler(open_transcriber, fail_at_the_second, IDLE_SECONDS, status)
    working.start()
    phases.wait_for("idle")
    job = working.submit(loud(0.1), OPTIONS)
    with pytest.raises(TranscribeError, match="ZeroDivisionError"):
        working.ended.result(TIMEOUT_SECONDS)
    with pytest.raises(TranscribeError, match="ZeroDivisionError"):
        text(job)
    assert status.state.phase == "failed"
    assert [one.closed for one in opened] == [True, True]
    assert working.close(TIMEOUT_SECONDS)


class Several(FakeTranscriber):
    at_once = 2


def test_an_error_in_a_second_thread_is_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(job: Job, _: Transcriber) -> None:
        raise ZeroDivisionError

    status = Status()
    working = Scheduler(Several, status=status)
    monkeypatch.setattr("wyoming_whisper.utterance.job.Job.run", fail)
    working.start()
    working.opened.result(TIMEOUT_SECONDS)
    job = working.submit(loud(0.1), OPTIONS)
    with pytest.raises(TranscribeError, match="ZeroDivisionError"):
        text(job)  # who waits for what was under way is told, too
    with pytest.raises(TranscribeError, match="ZeroDivisionError"):
        working.ended.result(TIMEOUT_SECONDS)


# -- what is kept --------------------------------------------------------------------------


def unavailable_until(gate: threading.Event) -> Callable[[], Transcriber]:
    def fail() -> Transcriber:
        gate.wait(TIMEOUT_SECONDS)
        raise ModelUnavailableError("the hub can't be reached")

    return fail


def test_refused_samples_are_not_kept_while_a_model_is_unavailable() -> None:
    """They are 64 KB for each second of speech, and there may be none for days."""
    status = Status()
    phases = Phases(status)
    may_fail = threading.Event()
    may_fail.set()
    working = Scheduler(unavailable_until(may_fail), status=status)
    working.start()
    phases.wait_for("unavailable")
    gone: list[weakref.ref[Samples]] = []

    def speak() -> None:
        samples = loud(0.1)
        gone.append(weakref.ref(samples))
        with pytest.raises(ModelUnavailableError, match="hub") as caught:
            working.submit(samples, OPTIONS)
        assert caught.value.__context__ is None
        assert len(caught.traceback) <= 3  # no frames of those who asked before

    for _ in range(20):
        speak()
    gc.collect()
    assert [ref() for ref in gone if ref() is not None] == []
    assert working.close(TIMEOUT_SECONDS)


def test_each_of_those_who_waited_gets_an_error_of_its_own() -> None:
    may_fail = threading.Event()
    working = Scheduler(unavailable_until(may_fail))
    working.start()
    jobs = [working.submit(loud(0.1), OPTIONS) for _ in range(3)]
    may_fail.set()
    errors = [job.future.exception(TIMEOUT_SECONDS) for job in jobs]
    assert {str(error) for error in errors} == {"the hub can't be reached"}
    assert {type(error) for error in errors} == {ModelUnavailableError}
    assert len({id(error) for error in errors}) == 3
    assert working.close(TIMEOUT_SECONDS)


def test_a_failed_transcription_needs_no_search_for_garbage() -> None:
    transcriber = FakeTranscriber(error=RuntimeError("no"))
    working = Scheduler(lambda: transcriber)
    working.start()
    working.opened.result(TIMEOUT_SECONDS)
    gc.collect()
    gc.disable()
    try:
        job = working.submit(loud(0.1), OPTIONS)
        assert isinstance(job.future.exception(TIMEOUT_SECONDS), RuntimeError)
        assert working.close(TIMEOUT_SECONDS)
        transcriber.error = None
        transcriber.requests.clear()
        gone = weakref.ref(job)
        del job
        assert gone() is None
    finally:
        gc.enable()


# -- waking --------------------------------------------------------------------------------


class Slow(FakeTranscriber):
    """Takes as long to close as the test likes."""

    def __init__(self) -> None:
        super().__init__()
        self.closing = threading.Event()
        self.may_close = threading.Event()

    def close(self) -> None:
        self.closing.set()
        assert self.may_close.wait(TIMEOUT_SECONDS)


@pytest.mark.parametrize("what", ["wake", "close"])
def test_nothing_that_comes_while_the_model_is_unloaded_is_lost(what: str) -> None:
    """It is about to wait for somebody: a signal given just before would be for nobody."""
    slow = Slow()
    models: list[FakeTranscriber] = [slow]
    second = threading.Event()

    def open_transcriber() -> Transcriber:
        if models:
            return models.pop()
        second.set()
        return FakeTranscriber()

    working = Scheduler(open_transcriber, idle_seconds=IDLE_SECONDS)
    working.start()
    assert slow.closing.wait(TIMEOUT_SECONDS)
    if what == "wake":
        working.wake()
        slow.may_close.set()
        assert second.wait(TIMEOUT_SECONDS)
        assert working.close(TIMEOUT_SECONDS)
        return
    assert not working.close(0.0)
    slow.may_close.set()
    assert working.close(TIMEOUT_SECONDS)
    assert not second.is_set()


def test_closing_and_waking_at_any_moment_end_the_thread() -> None:
    """The moment between two looks of the thread is short: so it is met often."""
    for _ in range(50):
        status = Status()
        phases = Phases(status)
        working = Scheduler(FakeTranscriber, idle_seconds=1e-6, status=status)
        working.start()
        phases.wait_for("idle")
        waking = threading.Thread(target=working.wake)
        waking.start()
        assert working.close(TIMEOUT_SECONDS)
        waking.join()


def test_who_speaks_while_the_model_is_there_does_not_bring_it_back_when_it_is_idle() -> None:
    opening, status = Opening(), Status()
    phases = Phases(status)
    working = Scheduler(opening, idle_seconds=0.05, status=status)
    working.start()
    working.opened.result(TIMEOUT_SECONDS)
    working.wake()
    assert text(working.submit(loud(0.1), OPTIONS)) == "1600 samples in en"
    phases.wait_for("idle")
    assert opening.n_calls == 1
    with working._changed:
        assert not working._awaited
    assert working.close(TIMEOUT_SECONDS)


def test_who_speaks_has_an_unavailable_model_tried_again_soon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "wyoming_whisper.utterance.scheduler.Scheduler.MAX_RETRY_SECONDS", 10 * TIMEOUT_SECONDS
    )
    status = Status()
    phases = Phases(status)
    tries: list[int] = []

    def open_at_the_second() -> Transcriber:
        tries.append(1)
        if len(tries) == 1:
            raise ModelUnavailableError("the hub can't be reached")
        return FakeTranscriber()

    working = Scheduler(open_at_the_second, status=status)
    working._retry_seconds = 10 * TIMEOUT_SECONDS
    working.start()
    phases.wait_for("unavailable")
    working.wake()
    working.opened.result(TIMEOUT_SECONDS)
    assert working.close(TIMEOUT_SECONDS)


# -- what the hang watch is told -----------------------------------------------------------


class Stepping(FakeTranscriber):
    def transcribe(self, samples: Samples, options: TranscribeOptions) -> Transcription:
        options.checkpoint()
        return super().transcribe(samples, options)


def test_what_is_under_way_is_known_by_kind_and_length() -> None:
    stepping, may_open = Stepping(), threading.Event()

    def open_transcriber() -> Transcriber:
        assert may_open.wait(TIMEOUT_SECONDS)
        return stepping

    status = Status()
    phases = Phases(status)
    working = Scheduler(open_transcriber, status=status)
    stepping.gate.clear()
    assert working.under_way == []
    working.start()
    phases.wait_for("loading")
    job = working.submit(loud(0.5), OPTIONS, Priority.RECORDING)
    while not (opening := working.under_way):
        pass
    status.downloading("tiny", 0.5)
    (further,) = working.under_way
    assert [work.kind for work in (*opening, further)] == 2 * ["opening the model"]
    assert opening[0].key is further.key
    assert opening[0].step != further.step
    may_open.set()
    assert stepping.started.wait(TIMEOUT_SECONDS)
    (work,) = working.under_way
    assert (work.kind, work.audio_seconds) == ("a piece of a recording", 0.5)
    assert work.is_recording
    assert work.step == 1
    stepping.gate.set()
    text(job)
    assert working.close(TIMEOUT_SECONDS)
    assert working.under_way == []


# -- a later try ---------------------------------------------------------------------------


def test_who_asks_while_a_later_try_downloads_is_told_how_far_that_is() -> None:
    status = Status()
    phases = Phases(status)
    may_go_on = threading.Event()
    tries: list[int] = []

    def open_at_the_second() -> Transcriber:
        tries.append(1)
        if len(tries) == 1:
            raise ModelUnavailableError("the hub can't be reached")
        status.downloading("tiny", 0.43)
        assert may_go_on.wait(TIMEOUT_SECONDS)
        return FakeTranscriber()

    working = Scheduler(open_at_the_second, status=status)
    working.start()
    phases.wait_for("downloading")
    with pytest.raises(ModelUnavailableError) as caught:
        working.submit(loud(0.1), OPTIONS)
    assert str(caught.value) == "the model is not there yet: downloading tiny (43% done)"
    assert (status.state.was_ready, status.state.is_refusing) == (False, True)
    may_go_on.set()
    working.opened.result(TIMEOUT_SECONDS)
    assert text(working.submit(loud(0.1), OPTIONS))
    assert (status.state.was_ready, status.state.is_refusing) == (True, False)
    assert working.close(TIMEOUT_SECONDS)


def test_a_model_is_not_unloaded_while_engines_are_compared() -> None:
    status = Status()
    phases = Phases(status)
    working = Scheduler(FakeTranscriber, idle_seconds=IDLE_SECONDS, status=status)
    status.update(building="comparing the engine with faster-whisper")
    working.start()
    phases.wait_for("ready")
    looked = threading.Event()
    looks = iter(range(3))
    is_idle = working._is_idle

    def look() -> bool:
        if next(looks, None) is None:
            looked.set()
        return is_idle()

    working._is_idle = look  # type: ignore[method-assign]
    assert looked.wait(TIMEOUT_SECONDS)
    assert status.state.phase == "ready"
    status.update(building="")
    phases.wait_for("idle")
    assert working.close(TIMEOUT_SECONDS)
