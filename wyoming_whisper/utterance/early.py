"""Work that begins when speech pauses, on the chance that it is over.

It is used only if what it transcribes is what the whole utterance gives: equal spans of speech.
"""

from __future__ import annotations

import logging

from ..audio.speech import Speech
from ..audio.vad import Span
from ..errors import WyomingWhisperError
from ..transcriber import TranscribeOptions
from .job import Job, Priority, Submit

_LOGGER = logging.getLogger(__name__)


class EarlyWork:
    """The transcription that is under way before the utterance has ended."""

    # How often one command or piece may be transcribed for nothing: a speaker who hesitates again
    # and again must not keep the processor busy.
    MAX_EAGER_JOBS = 3

    def __init__(self, submit: Submit) -> None:
        self._submit = submit
        self.job: Job | None = None
        """What is under way or done, of the pause that there is now."""
        self._spans: list[Span] = []
        self._voiced = -1  # where speech stood when work was last begun
        self._n_jobs = 0

    def follow(self, speech: Speech, options: TranscribeOptions) -> None:
        """Begin when speech pauses; drop what was begun when it goes on."""
        if speech.last_voiced != self._voiced:
            self.drop()
            if speech.has_paused and self._n_jobs < self.MAX_EAGER_JOBS:
                self._begin(speech, options)

    def collect(self, spans: list[Span]) -> Job | None:
        """Return the work if it is of these spans; else drop it."""
        job = self.job
        if job is None or spans != self._spans:
            self.drop()
            return None
        self.job = None
        return job

    def restart(self) -> None:
        """Begin afresh: what is to be transcribed, or how, has changed."""
        self.drop()
        self._voiced = -1
        self._n_jobs = 0

    def drop(self) -> None:
        if self.job is not None and not self.job.cancel():
            _LOGGER.debug("transcribed %d times for nothing: speech went on", self._n_jobs)
        self.job = None

    def _begin(self, speech: Speech, options: TranscribeOptions) -> None:
        spans = speech.spans()
        self._voiced = speech.last_voiced
        if not spans:
            return
        try:
            self.job = self._submit(speech.cut(spans), options, Priority.EARLY)
        except WyomingWhisperError as error:  # who waits for the answer is told, if it is still so
            _LOGGER.debug("no work is begun early: %s", error)
            return
        self._n_jobs += 1
        self._spans = spans
