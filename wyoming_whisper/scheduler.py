"""The one queue before the Transcriber, and the only thread that touches it.

Who waits for an answer goes before work that was begun early, on the chance that speech is over.

The thread opens the Transcriber first, which may take minutes; requests wait meanwhile. When the
model can't be had now, requests fail at once with the reason, and the thread keeps trying.
"""

from __future__ import annotations

import itertools
import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future

from .errors import ModelUnavailableError, TranscribeError, WyomingWhisperError
from .status import Status
from .transcriber import Samples, TranscribeOptions, Transcriber, Transcription

_LOGGER = logging.getLogger(__name__)

FIRST_RETRY_SECONDS = 15.0
MAX_RETRY_SECONDS = 600.0


# What goes first. A server that closes still answers those who wait for it.
_FINAL, _CLOSE, _EAGER = range(3)


class Job:
    """One transcription that was asked for; `future` can be cancelled until it has started."""

    def __init__(
        self, samples: Samples, options: TranscribeOptions, promote: Callable[[Job], None]
    ) -> None:
        self.samples = samples
        self.options = options
        self.future: Future[Transcription] = Future()
        self.taken = False  # by the thread; a promoted job is queued twice
        self._promote = promote

    def promote(self) -> None:
        """Say that somebody waits for it now."""
        self._promote(self)


class Scheduler:
    """Runs transcriptions one after the other, in the order they came.

    `on_ready` is called in the scheduler's thread whenever a Transcriber has been opened. After
    `idle_seconds` without work (0: never) it is closed, and opened again when somebody speaks.
    `status` is told all of this.
    """

    def __init__(
        self,
        open_transcriber: Callable[[], Transcriber],
        on_ready: Callable[[Transcriber], None] = lambda _: None,
        idle_seconds: float = 0,
        status: Status | None = None,
    ) -> None:
        self._open = open_transcriber
        self._status = status or Status()
        self._on_ready = on_ready
        self._idle_seconds = idle_seconds or None
        self._wanted = threading.Event()
        self._retry_seconds = FIRST_RETRY_SECONDS
        self._jobs: queue.PriorityQueue[tuple[int, int, Job | None]] = queue.PriorityQueue()
        self._order = itertools.count()
        self._closing = threading.Event()
        self._lock = threading.Lock()  # between refusing and queueing: no job may slip through
        self._unavailable: WyomingWhisperError | None = None
        # A daemon: a download or a native call in it must never keep the process alive.
        self._thread = threading.Thread(target=self._run, name="transcriber", daemon=True)
        self.opened: Future[None] = Future()
        """Done when the model is ready; failed when it never will be."""

    def start(self) -> None:
        self._thread.start()

    def submit(self, samples: Samples, options: TranscribeOptions, *, eager: bool = False) -> Job:
        """Queue a transcription; at the start it waits for the model too.

        Early work that can't be done fails when it is collected; otherwise raises
        WyomingWhisperError.
        """
        job = Job(samples, options, lambda job: self._put(_FINAL, job))
        with self._lock:
            if self._unavailable is None:
                self._put(_EAGER if eager else _FINAL, job)
            elif eager:
                job.taken = True
                job.future.set_exception(self._unavailable)
            else:
                raise self._unavailable
        return job

    def wake(self) -> None:
        """Say that there will be work soon, so that an idle model can be loaded meanwhile."""
        self._wanted.set()

    def _put(self, rank: int, job: Job | None) -> None:
        self._jobs.put((rank, next(self._order), job))
        self._wanted.set()

    def close(self, timeout_seconds: float = 1.0) -> bool:
        """Finish what was asked for, and free the model.

        Return False when the thread is busy for longer than `timeout_seconds`, in native code.
        """
        self._closing.set()
        self._put(_CLOSE, None)
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    # What follows runs in the thread.

    def _run(self) -> None:
        while (transcriber := self._open_until_there()) is not None:
            closing = self._work_until_idle(transcriber)
            transcriber.close()
            if closing:
                break
            del transcriber  # the last reference: its memory is free while we wait
            _LOGGER.info("idle: the model is unloaded until somebody speaks")
            self._status.update(phase="idle", detail="the model is unloaded until somebody speaks")
            self._wait_until_wanted()
        if self._closing.is_set():
            self._refuse(TranscribeError("the server is shutting down"))

    def _work_until_idle(self, transcriber: Transcriber) -> bool:
        """Return True when it is time to close, False when there was nothing to do for long."""
        while True:
            try:
                job = self._jobs.get(timeout=self._idle_seconds)[2]
            except queue.Empty:
                if self._status.state.building:  # that would be lost, and begun again and again
                    continue
                return False
            if job is None:
                return True
            _run_job(job, transcriber)

    def _wait_until_wanted(self) -> None:
        self._wanted.clear()
        if self._jobs.empty():  # otherwise it was put in between, and its signal is lost
            self._wanted.wait()

    def _open_until_there(self) -> Transcriber | None:
        while not self._closing.is_set():
            if self._unavailable is None:  # otherwise the reason is worth more
                self._status.update(phase="loading", detail="loading the model", fraction=None)
            try:
                transcriber = self._open()
            except ModelUnavailableError as error:
                self._wait_after(error)
            except Exception as error:
                self._give_up(error)
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
        with self._lock:
            self._unavailable = error
            while True:
                try:
                    job = self._jobs.get_nowait()[2]
                except queue.Empty:
                    return
                if job and _take(job):
                    job.future.set_exception(error)


def _take(job: Job) -> bool:
    """Return whether the job is still to be done: not done already, and its client still there."""
    if job.taken:
        return False
    job.taken = True
    return job.future.set_running_or_notify_cancel()


def _run_job(job: Job, transcriber: Transcriber) -> None:
    if not _take(job):
        return
    try:
        transcription = transcriber.transcribe(job.samples, job.options)
    except Exception as error:  # whatever it is, it goes to the one who asked
        job.future.set_exception(error)
        return
    _LOGGER.debug("transcription: %r", transcription)
    job.future.set_result(transcription)
