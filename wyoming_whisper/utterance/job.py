"""One transcription that waits for its turn, runs, or is cancelled."""

from __future__ import annotations

import dataclasses
import enum
import logging
from collections.abc import Callable
from concurrent.futures import Future

from ..errors import TranscribeError
from ..transcriber import (
    SAMPLE_RATE,
    Abandoned,
    Samples,
    TranscribeOptions,
    Transcriber,
    Transcription,
)
from .hangs import Work

_LOGGER = logging.getLogger(__name__)


class Priority(enum.IntEnum):
    """Which job goes first: the smallest; of equal ones that which came first."""

    COMMAND = enum.auto()
    """Somebody waits for the answer."""
    EARLY = enum.auto()
    """Begun on the chance that a command, or a piece of dictation, is over."""
    RECORDING = enum.auto()
    """Somebody waits, but has time: it is no command."""
    SPARE = enum.auto()
    """Done only while there is nothing else to do."""

    @property
    def is_awaited(self) -> bool:
        return self in (Priority.COMMAND, Priority.RECORDING)


class _Checkpoint:
    """Breaks a transcription off when nobody wants it any more.

    Not a method of its Job: that would be a reference cycle, and the samples would stay until the
    cyclic garbage collector runs.
    """

    def __init__(self) -> None:
        self.is_abandoned = False
        self.n_passed = 0

    def __call__(self) -> None:
        self.n_passed += 1
        if self.is_abandoned:
            raise Abandoned


class Job:
    """One transcription that was asked for."""

    def __init__(
        self, samples: Samples, options: TranscribeOptions, priority: Priority = Priority.COMMAND
    ) -> None:
        self.samples = samples
        self._checkpoint = _Checkpoint()
        self.options = dataclasses.replace(options, checkpoint=self._checkpoint)
        self.priority = priority
        self.future: Future[Transcription] = Future()

    @property
    def transcription(self) -> Transcription | None:
        """What was said, once that is known; None where it failed, or was cancelled."""
        future = self.future
        if not future.done() or future.cancelled() or future.exception():
            return None
        return future.result()

    def promote(self) -> None:
        """Say that somebody waits for it now: it is a command."""
        self.priority = Priority.COMMAND

    def cancel(self) -> bool:
        """Say that nobody wants it any more; return whether that was in time to save all work.

        What is being transcribed ends at its next checkpoint.
        """
        self._checkpoint.is_abandoned = True
        return self.future.cancel()

    def forget(self) -> None:
        """Let go of how it ended, for who has taken that.

        An error refers by its traceback to the frames that raised it, and they to the job: a
        reference cycle, with its samples.
        """
        if self.future.done():
            self.future = Future()
            self.future.cancel()

    @property
    def work(self) -> Work:
        """What the hang watch is told of it; keeps neither the job nor its samples."""
        is_recording = self.priority is Priority.RECORDING
        return Work(
            self._checkpoint,
            "a piece of a recording" if is_recording else "a transcription",
            self._checkpoint.n_passed,
            len(self.samples) / SAMPLE_RATE,
            is_recording,
        )

    def run(self, transcriber: Transcriber) -> None:
        """Transcribe it, unless it was cancelled; whatever fails is for who waits."""
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            transcription = transcriber.transcribe(self.samples, self.options)
        except Abandoned:
            _LOGGER.debug("a transcription was broken off: nobody waited for it any more")
            self.future.set_exception(TranscribeError("nobody waited for it any more"))
            return
        except MemoryError:
            self.future.set_exception(
                TranscribeError(
                    "there is not enough memory to transcribe this; use a smaller model"
                )
            )
            return
        except BaseException as error:
            self.future.set_exception(_as_exception(error))
            del self  # the error knows this frame and its callers: they must not know who keeps it
            return
        _LOGGER.debug("transcription: %r", transcription)
        self.future.set_result(transcription)


Submit = Callable[[Samples, TranscribeOptions, Priority], Job]
"""Queues a transcription. Raises WyomingWhisperError when there can be none: Scheduler.submit."""


def _as_exception(error: BaseException) -> Exception:
    """Return what asyncio can carry: a panic of a library written in Rust is no Exception."""
    if isinstance(error, Exception):
        return error
    _LOGGER.error("the model's library failed", exc_info=error)
    return TranscribeError(f"the model's library failed with {type(error).__name__}")
