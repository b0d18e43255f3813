"""The one queue before the Transcriber, and the only thread that touches it; for one that takes
more requests at once, as many threads (Transcriber.at_once).

Who waits for an answer goes before work that was begun early, on the chance that speech is over;
recordings come last.

The thread opens the Transcriber first, which may take minutes; requests wait meanwhile. When the
model can't be had now, requests fail at once with the reason, and the thread keeps trying. It never
ends without saying so: `ended` fails where it does before it was asked to.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass

from ..errors import (
    BusyError,
    EngineError,
    ModelUnavailableError,
    TranscribeError,
    WyomingWhisperError,
)
from ..machine.process import NativeThread
from ..status import Status
from ..transcriber import Samples, TranscribeOptions, Transcriber, Transcription
from .hangs import Work
from .job import Job, Priority

_LOGGER = logging.getLogger(__name__)


class Scheduler:
    """Runs transcriptions in the order they came, as many at once as the Transcriber takes.

    `on_ready` is called in the scheduler's thread whenever a Transcriber has been opened. After
    `idle_seconds` without work (0: never) it is closed, and opened again when somebody speaks.
    `status` is told all of this. `max_queue` jobs that somebody waits for may wait for their turn.
    """

    FIRST_RETRY_SECONDS = 15.0
    MAX_RETRY_SECONDS = 600.0
    MAX_REOPENINGS = 5
    """Failures of a library in a row to open a model that it had opened before: 4 minutes. Then
    only a new process can help, such as where a GPU's context is lost."""

    def __init__(
        self,
        open_transcriber: Callable[[], Transcriber],
        on_ready: Callable[[Transcriber], None] = lambda _: None,
        idle_seconds: float = 0,
        status: Status | None = None,
        max_queue: int = 32,
    ) -> None:
        self._open = open_transcriber
        self._status = status or Status()
        self._on_ready = on_ready
        self._idle_seconds = idle_seconds or None
        self._retry_seconds = self.FIRST_RETRY_SECONDS
        self._n_failures = 0  # to open the model, in a row
        self._jobs: list[Job] = []
        self._max_queue = max_queue
        self._changed = threading.Condition()  # of _jobs, _closing and _awaited
        self._closing = threading.Event()
        self._is_waking = False  # it is opened again because somebody speaks
        self._awaited = False  # somebody speaks, or has asked, since the model was last at work
        self._running: list[Job] = []
        self._refusal: _Reason | None = None
        self._upkeep: tuple[object, str] | None = None  # what is done that is no job
        self._thread = NativeThread(self._run, "transcriber")
        self.opened: Future[None] = Future()
        """Done when the model is ready; failed when it never will be."""
        self.ended: Future[None] = Future()
        """Done when the thread has ended as it was asked to; failed when it can't go on: only a new
        process can."""

    def start(self) -> None:
        self._thread.start()

    def submit(
        self,
        samples: Samples,
        options: TranscribeOptions,
        priority: Priority = Priority.COMMAND,
    ) -> Job:
        """Queue a transcription; at the start it waits for the model too.

        One of Priority.SPARE is cancelled as soon as another is submitted. Raises
        WyomingWhisperError: BusyError when too many wait already, of a SPARE one when any waits or
        is under way; else why there can be none.
        """
        job = Job(samples, options, priority)
        with self._changed:
            if self._refusal is not None:
                self._awaited = True
                self._changed.notify_all()
                raise self._present_refusal(self._refusal).error()
            self._make_room(priority)
            self._jobs.append(job)
            self._changed.notify_all()
        waiting = weakref.ref(job)  # its future keeps what is called when it is done, for ever

        def make_room(_: Future[Transcription]) -> None:  # it was cancelled
            with self._changed:
                if (done := waiting()) and done in self._jobs:
                    self._jobs.remove(done)

        job.future.add_done_callback(make_room)
        return job

    def _make_room(self, priority: Priority) -> None:
        """Cancel spare work for a new job. Raises BusyError where there is none for it."""
        if priority is Priority.SPARE and (self._jobs or self._running):
            raise BusyError("the model has other work")
        for job in (*self._jobs, *self._running):
            if job.priority is Priority.SPARE:
                job.cancel()
        n_waiting = sum(job.priority <= priority for job in self._jobs)
        if n_waiting >= self._max_queue:
            raise BusyError(
                f"{n_waiting} requests wait already, which is all that --max-queue allows; "
                "try again in a moment"
            )

    @property
    def under_way(self) -> list[Work]:
        """All that the threads are at, for the hang watch."""
        with self._changed:
            works = [job.work for job in self._running]
            upkeep = self._upkeep
        if upkeep:
            state = self._status.state
            works.append(Work(*upkeep, (state.phase, state.detail, state.fraction)))
        return works

    def wake(self) -> None:
        """Say that there will be work soon, so that an idle model can be loaded meanwhile.

        One that could not be had is tried again, unless that was a moment ago.
        """
        with self._changed:
            self._awaited = True
            self._changed.notify_all()

    def _present_refusal(self, refusal: _Reason) -> _Reason:
        """Return why there can be none now: a later try may have got further than the last one."""
        state = self._status.state
        is_on_its_way = state.phase in ("downloading", "loading", "building")
        if not is_on_its_way or not state.is_refusing or self._closing.is_set():
            return refusal
        done = "" if state.fraction is None else f" ({state.fraction:.0%} done)"
        return _Reason(ModelUnavailableError, f"the model is not there yet: {state.detail}{done}")

    def close(self, timeout_seconds: float = 1.0) -> bool:
        """Finish what was asked for, and free the model.

        Return False when the thread is busy for longer than `timeout_seconds`, in native code.
        """
        with self._changed:
            self._closing.set()
            self._changed.notify_all()
        if self._thread.ident is None:  # never started
            return True
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    # What follows runs in the thread.

    def _run(self) -> None:
        try:
            self._serve()
        except BaseException as error:  # nobody else would answer those who wait
            _LOGGER.exception("the model's thread has failed")
            self._give_up(_Reason(TranscribeError, f"the model's thread has failed: {error!r}"))
        if not self.ended.done():
            self.ended.set_result(None)

    def _serve(self) -> None:
        while (transcriber := self._open_until_there()) is not None:
            try:
                self._say_ready(transcriber)
                self._work_until_idle(transcriber)
            finally:
                self._close(transcriber)
            if self._closing.is_set():
                break
            del transcriber  # the last reference: its memory is free while we wait
            _LOGGER.info("idle: the model is unloaded until somebody speaks")
            self._status.update(phase="idle", detail="the model is unloaded until somebody speaks")
            with self._changed:
                self._changed.wait_for(
                    lambda: self._jobs or self._awaited or self._closing.is_set()
                )
            self._is_waking = True
        if self._closing.is_set():
            self._refuse(_Reason(TranscribeError, "the server is shutting down"))

    def _work_until_idle(self, transcriber: Transcriber) -> None:
        """Return when it is time to close, or there was nothing to do for long."""
        with self._helped(transcriber) as done:
            while self._work(transcriber, done) or not (
                done.is_set() or self._closing.is_set() or self._is_idle()
            ):
                pass

    def _is_idle(self) -> bool:
        """Whether the model may be unloaded; who speaks from now on is waited for no more.

        While something is built or compared it stays: that would be lost, and begun again and
        again.
        """
        with self._changed:
            awaited, self._awaited = self._awaited, False
            return not (awaited or self._running or self._jobs or self._status.state.building)

    @contextlib.contextmanager
    def _helped(self, transcriber: Transcriber) -> Iterator[threading.Event]:
        """Have more threads work beside this one; at the end, wait for what they are at.

        Yields what is set when one of them has failed; raises what it has failed of.
        """
        done = threading.Event()
        failures: list[BaseException] = []

        def help_out() -> None:
            try:
                while self._work(transcriber, done) or not (
                    done.is_set() or self._closing.is_set()
                ):
                    pass
            except BaseException as error:  # in this thread nobody would know
                failures.append(error)
                end()

        def end() -> None:
            done.set()
            with self._changed:
                self._changed.notify_all()

        helpers = [
            threading.Thread(target=help_out, name=f"{self._thread.name}-{number}", daemon=True)
            for number in range(1, getattr(transcriber, "at_once", 1))
        ]
        for helper in helpers:
            helper.start()
        try:
            yield done
        finally:
            end()
            for helper in helpers:
                helper.join()
        if failures:
            raise failures[0]

    def _work(self, transcriber: Transcriber, done: threading.Event) -> bool:
        """Do what is to be done now, until `done`; return whether there was anything."""
        job = None if done.is_set() else self._next(done)
        if job is None:
            return False
        job.run(transcriber)
        with self._changed:
            self._running.remove(job)
        del job  # as in Job.run
        return True

    def _next(self, done: threading.Event) -> Job | None:
        """Return what is to be done now; None when it is time to close, or nothing came for long.

        A server that closes still answers those who wait for it.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._jobs or done.is_set() or self._closing.is_set(), self._idle_seconds
            )
            job = min(self._jobs, key=lambda job: job.priority, default=None)
            if job is None or (self._closing.is_set() and not job.priority.is_awaited):
                return None
            self._jobs.remove(job)
            self._running.append(job)
            self._awaited = False
            return job

    def _open_until_there(self) -> Transcriber | None:
        while not self._closing.is_set():
            if self._refusal is None:  # otherwise the reason is worth more
                self._status.update(phase="loading", detail="loading the model", fraction=None)
            try:
                with self._at("opening the model"), self._without_repeating():
                    return self._open()
            except BaseException as error:
                self._is_waking = False
                if not self._is_worth_a_retry(error):
                    self._give_up(_Reason.of(error))
                    return None
                self._say_unavailable(error)
            self._wait_for_retry()
        return None

    def _say_ready(self, transcriber: Transcriber) -> None:
        self._refusal = None
        self._retry_seconds, self._n_failures = self.FIRST_RETRY_SECONDS, 0
        self._status.update(
            phase="ready",
            detail="",
            fraction=None,
            was_ready=True,
            is_refusing=False,
            description=transcriber.description,
            languages=transcriber.languages,
        )
        with self._without_repeating():
            self._on_ready(transcriber)
        self._is_waking = False
        if not self.opened.done():
            self.opened.set_result(None)

    @contextlib.contextmanager
    def _without_repeating(self) -> Iterator[None]:
        """Leave out of the log what was said when the model was last opened with success.

        That is all this thread says at INFO while the model is woken.
        """
        root, me = logging.getLogger(), threading.get_ident()
        if not self._is_waking or root.isEnabledFor(logging.DEBUG):
            yield
            return

        def is_new(record: logging.LogRecord) -> bool:
            return record.thread != me or record.levelno != logging.INFO

        handlers = list(root.handlers)
        for handler in handlers:
            handler.addFilter(is_new)
        try:
            yield
        finally:
            for handler in handlers:
                handler.removeFilter(is_new)

    @contextlib.contextmanager
    def _at(self, kind: str) -> Iterator[None]:
        """Tell the hang watch what is done that is no job."""
        with self._changed:
            self._upkeep = object(), kind
        try:
            yield
        finally:
            with self._changed:
                self._upkeep = None

    def _is_worth_a_retry(self, error: BaseException) -> bool:
        """Whether the model may be there later, in this process.

        At the start nearly every error is a setting's, and the user is there to see the process
        end. One that has been open with these settings comes back when the machine allows; but a
        library that fails again and again may have lost itself, and only a new process helps.
        """
        if isinstance(error, ModelUnavailableError):
            return True
        if not self.opened.done():
            return False
        if _is_of_the_machine(error):
            return True
        self._n_failures += 1
        return self._n_failures < self.MAX_REOPENINGS

    def _say_unavailable(self, error: BaseException) -> None:
        reason = _Reason.of(error)
        if self._refusal is None:
            unexpected = None if isinstance(error, WyomingWhisperError) else error
            _LOGGER.error(
                "NOT READY: %s (trying again in the background)",
                reason.message,
                exc_info=unexpected,
            )
        else:
            _LOGGER.debug("still not ready: %s", reason.message)
        self._status.update(
            phase="unavailable", detail=reason.message, fraction=None, is_refusing=True
        )
        self._refuse(reason)

    def _wait_for_retry(self) -> None:
        """Wait for the next try: longer each time, unless somebody speaks meanwhile."""
        with self._changed:
            self._awaited = False
            self._changed.wait_for(self._closing.is_set, self.FIRST_RETRY_SECONDS)
            self._changed.wait_for(
                lambda: self._awaited or self._closing.is_set(),
                max(0.0, self._retry_seconds - self.FIRST_RETRY_SECONDS),
            )
        self._retry_seconds = min(2 * self._retry_seconds, self.MAX_RETRY_SECONDS)

    def _close(self, transcriber: Transcriber) -> None:
        try:
            with self._at("closing the model"):
                transcriber.close()
        except Exception:  # the next one may do
            _LOGGER.exception("the model could not be closed")

    def _give_up(self, reason: _Reason) -> None:
        """Say that there will be no model in this process any more."""
        self._status.update(phase="failed", detail=reason.message, fraction=None, is_refusing=True)
        self._refuse(reason)
        with self._changed:
            stranded, self._running = self._running, []
        for job in stranded:
            if not job.future.done():
                job.future.set_exception(reason.error())
        for future in (self.opened, self.ended):
            if not future.done():
                future.set_exception(reason.error())

    def _refuse(self, reason: _Reason) -> None:
        """Fail the waiting requests, and every later one at once."""
        with self._changed:
            self._refusal = reason
            refused, self._jobs = self._jobs, []
        for job in refused:
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(reason.error())


@dataclass(frozen=True)
class _Reason:
    """Why the model can't be had, for as long as that lasts.

    Kept instead of the error: each time that one is raised its traceback grows, and keeps what
    those who raised it were at, such as samples.
    """

    kind: type[WyomingWhisperError]
    message: str
    code: str | None = None

    @classmethod
    def of(cls, error: BaseException) -> _Reason:
        """Return what those who ask are told of a model that could not be opened."""
        if isinstance(error, WyomingWhisperError):
            return cls(type(error), str(error), error.code)
        if isinstance(error, MemoryError):
            about = "there is not enough memory to load the model; free some"
            return cls(ModelUnavailableError, about)
        return cls(TranscribeError, f"the model could not be opened: {error!r}")

    def error(self) -> WyomingWhisperError:
        """Return a new error, to be raised or stored once."""
        return self.kind(self.message, self.code)


def _is_of_the_machine(error: BaseException) -> bool:
    """Whether a new process would find the same: its memory, disk, settings and files."""
    if isinstance(error, WyomingWhisperError):
        return not isinstance(error, EngineError)
    return isinstance(error, MemoryError | OSError)
