"""The one queue before the Transcriber, and the only thread that touches it; for one that takes
more requests at once, as many threads (transcriber.at_once).

Who waits for an answer goes before work that was begun early, on the chance that speech is over;
recordings come last.

The thread opens the Transcriber first, which may take minutes; requests wait meanwhile. When the
model can't be had now, requests fail at once with the reason, and the thread keeps trying.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future

from .errors import BusyError, ModelUnavailableError, TranscribeError, WyomingWhisperError
from .status import Status
from .transcriber import Abandoned, Samples, TranscribeOptions, Transcriber, Transcription, at_once

_LOGGER = logging.getLogger(__name__)

FIRST_RETRY_SECONDS = 15.0
MAX_RETRY_SECONDS = 600.0


MAX_QUEUE = 32


class _Checkpoint:
    """Breaks a transcription off when nobody wants it any more.

    Not a method of its Job: each would know the other, and the samples would be garbage that only
    a search finds.
    """

    def __init__(self) -> None:
        self.is_abandoned = False

    def __call__(self) -> None:
        if self.is_abandoned:
            raise Abandoned


class Job:
    """One transcription that was asked for: `eager` as long as nobody waits for it.

    A `patient` one has time, though somebody waits: it is no command.
    """

    def __init__(
        self,
        samples: Samples,
        options: TranscribeOptions,
        *,
        eager: bool = False,
        patient: bool = False,
    ) -> None:
        self.samples = samples
        self._checkpoint = _Checkpoint()
        self.options = dataclasses.replace(options, checkpoint=self._checkpoint)
        self.eager = eager
        self.patient = patient
        self.future: Future[Transcription] = Future()

    def promote(self) -> None:
        """Say that somebody waits for it now."""
        self.eager = False

    def cancel(self) -> bool:
        """Say that nobody wants it any more; return whether that was in time to save all work.

        What is being transcribed ends at its next checkpoint.
        """
        self._checkpoint.is_abandoned = True
        return self.future.cancel()


class Scheduler:
    """Runs transcriptions in the order they came, as many at once as the Transcriber takes.

    `on_ready` is called in the scheduler's thread whenever a Transcriber has been opened. After
    `idle_seconds` without work (0: never) it is closed, and opened again when somebody speaks.
    `status` is told all of this. `max_queue` jobs that somebody waits for may wait for their turn.
    """

    def __init__(
        self,
        open_transcriber: Callable[[], Transcriber],
        on_ready: Callable[[Transcriber], None] = lambda _: None,
        idle_seconds: float = 0,
        status: Status | None = None,
        max_queue: int = MAX_QUEUE,
    ) -> None:
        self._open = open_transcriber
        self._status = status or Status()
        self._on_ready = on_ready
        self._idle_seconds = idle_seconds or None
        self._wanted = threading.Event()
        self._retry_seconds = FIRST_RETRY_SECONDS
        self._jobs: list[Job] = []
        self._max_queue = max_queue
        self._changed = threading.Condition()  # of _jobs and _closing
        self._closing = threading.Event()
        self._running: list[Job] = []  # the longest first
        self._spare: Job | None = None
        self._unavailable: WyomingWhisperError | None = None
        # A daemon: a download or a native call in it must never keep the process alive.
        self._thread = threading.Thread(target=self._run, name="transcriber", daemon=True)
        self.opened: Future[None] = Future()
        """Done when the model is ready; failed when it never will be."""

    def start(self) -> None:
        self._thread.start()

    def submit(
        self,
        samples: Samples,
        options: TranscribeOptions,
        *,
        eager: bool = False,
        patient: bool = False,
    ) -> Job:
        """Queue a transcription; at the start it waits for the model too.

        Raises WyomingWhisperError: BusyError when too many wait already, else why there can be
        none.
        """
        job = Job(samples, options, eager=eager, patient=patient)
        with self._changed:
            if self._unavailable is not None:
                raise self._unavailable
            if self._spare is not None:
                self._spare.cancel()
            n_waiting = sum(_urgency(waiting) <= _urgency(job) for waiting in self._jobs)
            if n_waiting >= self._max_queue:
                raise BusyError(
                    f"{n_waiting} requests wait already, which is all that --max-queue allows; "
                    "try again in a moment"
                )
            self._jobs.append(job)
            self._changed.notify()
        self._forget_when_done(job)
        self._wanted.set()
        return job

    def spare(self, samples: Samples, options: TranscribeOptions) -> Job | None:
        """Begin work that can be done without; None where any other waits or is under way.

        Whatever is submitted meanwhile ends it, at its next checkpoint.
        """
        job = Job(samples, options, eager=True)
        with self._changed:
            if self._unavailable is not None or self._jobs or self._running:
                return None
            self._spare = job
            self._jobs.append(job)
            self._changed.notify()
        self._forget_when_done(job)
        self._wanted.set()
        return job

    @property
    def running(self) -> Job | None:
        """What the model is at now; of several the one that it has been at for longest."""
        running = self._running[:1]
        return running[0] if running else None

    def wake(self) -> None:
        """Say that there will be work soon, so that an idle model can be loaded meanwhile."""
        self._wanted.set()

    def _forget_when_done(self, job: Job) -> None:
        known = weakref.ref(job)  # its future keeps what is called when it is done, for ever

        def forget(_: Future[Transcription]) -> None:
            if done := known():
                self._forget(done)

        job.future.add_done_callback(forget)

    def _forget(self, job: Job) -> None:
        """Make room where a job waited: it was cancelled."""
        with self._changed:
            if job is self._spare:
                self._spare = None
            if job in self._jobs:
                self._jobs.remove(job)

    def close(self, timeout_seconds: float = 1.0) -> bool:
        """Finish what was asked for, and free the model.

        Return False when the thread is busy for longer than `timeout_seconds`, in native code.
        """
        with self._changed:
            self._closing.set()
            self._changed.notify_all()
        self._wanted.set()
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    # What follows runs in the thread.

    def _run(self) -> None:
        try:
            self._serve()
        except BaseException as error:  # nobody else would answer those who wait
            _LOGGER.exception("the model's thread has failed")
            self._give_up(_as_exception(error))

    def _serve(self) -> None:
        while (transcriber := self._open_until_there()) is not None:
            self._work_until_idle(transcriber)
            _close(transcriber)
            if self._closing.is_set():
                break
            del transcriber  # the last reference: its memory is free while we wait
            _LOGGER.info("idle: the model is unloaded until somebody speaks")
            self._status.update(phase="idle", detail="the model is unloaded until somebody speaks")
            self._wait_until_wanted()
        if self._closing.is_set():
            self._refuse(TranscribeError("the server is shutting down"))

    def _work_until_idle(self, transcriber: Transcriber) -> None:
        """Return when it is time to close, or there was nothing to do for long."""
        with self._helped(transcriber):
            while True:
                if self._work(transcriber):
                    continue
                # While something is built it stays: that would be lost, and begun again and again.
                idle = not self._running and not self._status.state.building
                if idle or self._closing.is_set():
                    return

    @contextlib.contextmanager
    def _helped(self, transcriber: Transcriber) -> Iterator[None]:
        """Have more threads work beside this one; at the end, wait for what they are at."""
        done = threading.Event()

        def help_out() -> None:
            while self._work(transcriber, done) or not (done.is_set() or self._closing.is_set()):
                pass

        helpers = [
            threading.Thread(target=help_out, name=f"transcriber-{number}", daemon=True)
            for number in range(1, at_once(transcriber))
        ]
        for helper in helpers:
            helper.start()
        try:
            yield
        finally:
            done.set()
            with self._changed:
                self._changed.notify_all()
            for helper in helpers:
                helper.join()

    def _work(self, transcriber: Transcriber, done: threading.Event | None = None) -> bool:
        """Do what is to be done now; return whether there was anything."""
        job = self._next(done or self._closing)
        if job is None:
            return False
        _run_job(job, transcriber)
        with self._changed:
            self._running.remove(job)
        return True

    def _next(self, done: threading.Event) -> Job | None:
        """Return what is to be done now; None when it is time to close, or nothing came for long.

        A server that closes still answers those who wait for it.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._jobs or done.is_set() or self._closing.is_set(), self._idle_seconds
            )
            job = min(self._jobs, key=_urgency, default=None)  # the first of equals
            if job is None or (job.eager and self._closing.is_set()):
                return None
            self._jobs.remove(job)
            self._running.append(job)
            return job

    def _wait_until_wanted(self) -> None:
        self._wanted.clear()
        if not self._jobs:  # otherwise it was put in between, and its signal is lost
            self._wanted.wait()

    def _open_until_there(self) -> Transcriber | None:
        while not self._closing.is_set():
            if self._unavailable is None:  # otherwise the reason is worth more
                self._status.update(phase="loading", detail="loading the model", fraction=None)
            try:
                transcriber = self._open()
            except ModelUnavailableError as error:
                self._wait_after(error)
            except BaseException as error:
                self._give_up(_as_exception(error))
                return None
            else:
                self._unavailable = None
                self._status.update(
                    phase="ready",
                    detail="",
                    fraction=None,
                    description=transcriber.description,
                    languages=transcriber.languages,
                )
                self._on_ready(transcriber)
                if not self.opened.done():
                    self.opened.set_result(None)
                return transcriber
        return None

    def _wait_after(self, error: ModelUnavailableError) -> None:
        """Say it once, loudly; then try again less and less often."""
        if self._unavailable is None:
            _LOGGER.error("NOT READY: %s (trying again in the background)", error)
        else:
            _LOGGER.debug("still not ready: %s", error)
        self._refuse(error)
        self._closing.wait(self._retry_seconds)
        self._retry_seconds = min(2 * self._retry_seconds, MAX_RETRY_SECONDS)

    def _give_up(self, error: Exception) -> None:
        if not isinstance(error, WyomingWhisperError):
            error = TranscribeError(f"the model could not be opened: {error!r}")
        self._refuse(error)
        if not self.opened.done():
            self.opened.set_exception(error)

    def _refuse(self, error: WyomingWhisperError) -> None:
        """Fail the waiting requests, and every later one at once."""
        self._status.update(phase="unavailable", detail=str(error), fraction=None)
        with self._changed:
            self._unavailable = error
            refused, self._jobs = self._jobs, []
        for job in refused:
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(error)


def _urgency(job: Job) -> tuple[bool, bool]:
    """Return what jobs are ordered by: commands first, then those that may become one."""
    return job.patient, job.eager


def _close(transcriber: Transcriber) -> None:
    try:
        transcriber.close()
    except Exception:  # the next one may do
        _LOGGER.exception("the model could not be closed")


def _run_job(job: Job, transcriber: Transcriber) -> None:
    if not job.future.set_running_or_notify_cancel():
        return
    try:
        transcription = transcriber.transcribe(job.samples, job.options)
    except Abandoned:
        _LOGGER.debug("a transcription was broken off: nobody waited for it any more")
        job.future.set_exception(TranscribeError("nobody waited for it any more"))
        return
    except MemoryError:
        job.future.set_exception(
            TranscribeError("there is not enough memory to transcribe this; use a smaller model")
        )
        return
    except BaseException as error:  # whatever it is, it goes to the one who asked
        job.future.set_exception(_as_exception(error))
        return
    _LOGGER.debug("transcription: %r", transcription)
    job.future.set_result(transcription)


def _as_exception(error: BaseException) -> Exception:
    """Return what asyncio can carry: a panic of a library written in Rust is no Exception."""
    if isinstance(error, Exception):
        return error
    _LOGGER.error("the model's library failed", exc_info=error)
    return TranscribeError(f"the model's library failed with {type(error).__name__}")
