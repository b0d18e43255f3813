"""One voice command as it arrives, and its transcription, begun before it ends.

Home Assistant keeps listening for about a second after the last word. As soon as speech is
followed by enough silence for its end to be known, what there is goes to the scheduler. If speech
resumes, that work is dropped. If not, `audio-stop` finds the answer ready, and it is the same: both
transcribe the very same samples, which is checked.
"""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import logging
import math
import threading
import time
from typing import TYPE_CHECKING, Protocol

import numpy as np

from .endpointing import Endpointer
from .errors import BusyError, DeadlineError, WyomingWhisperError
from .languages import SpokenLanguages
from .live import LiveText
from .pcm import COSTLY_SECONDS, Pcm, PcmFormat, PcmStream
from .scheduler import Job
from .speech import Speech
from .status import Answer, Outcome
from .text import TextStyle, finished
from .transcriber import SAMPLE_RATE, Samples, TranscribeOptions, Transcription
from .vad import FRAME_SAMPLES, Span, SpanOptions, Vad

if TYPE_CHECKING:
    from .upstreams.relay import Relay

_LOGGER = logging.getLogger(__name__)

# Audio held for all speakers together, in seconds: 115 MB. Each of 64 may speak for half a minute.
MAX_HELD_SECONDS = 1800.0

# Hearing little by little costs twice the processor time of hearing a bit more at once; later than
# this after speech has paused nobody should know.
HEAR_SAMPLES = 2 * FRAME_SAMPLES
HEAR_AHEAD_SAMPLES = 16 * FRAME_SAMPLES  # of audio that is there sooner than it was spoken

# Audio that is further ahead of the clock than this is a file, not a speaker who may have finished:
# the rest of it is there already.
MAX_AHEAD_SECONDS = 1.0

# How often one utterance may be transcribed for nothing: a speaker who hesitates again and again
# must not keep the processor busy.
MAX_EAGER_JOBS = 3


class Limits:
    """What is taken on: of one utterance, and of all together."""

    def __init__(
        self,
        utterance_seconds: float = 60.0,
        deadline_seconds: float = 0.0,
        held_seconds: float = MAX_HELD_SECONDS,
    ) -> None:
        self.utterance_samples = round(utterance_seconds * SAMPLE_RATE)
        self.deadline_seconds = deadline_seconds
        """From the end of the audio to the answer; 0 is any time."""
        self.free_samples = max(round(held_seconds * SAMPLE_RATE), self.utterance_samples)
        self.lock = threading.Lock()  # of free_samples: long chunks come on threads


class _Held:
    """What one utterance holds of the audio that all together may."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._n_samples = 0
        self._released = False

    def add(self, n_samples: int) -> None:
        """Raises BusyError when all speakers hold too much."""
        with self._limits.lock:
            if self._released:
                return
            if n_samples > self._limits.free_samples:
                raise BusyError("too much audio of others waits here; try again in a moment")
            self._limits.free_samples -= n_samples
            self._n_samples += n_samples

    def release(self) -> None:
        """Give everything back; what a thread still adds does not count any more."""
        with self._limits.lock:
            self._limits.free_samples += self._n_samples
            self._n_samples, self._released = 0, True


class Workshop(Protocol):
    """What an utterance needs of its server."""

    @property
    def limits(self) -> Limits: ...

    @property
    def span_options(self) -> SpanOptions: ...

    @property
    def text_style(self) -> TextStyle: ...

    @property
    def spoken(self) -> SpokenLanguages: ...

    @property
    def eager(self) -> bool: ...

    @property
    def vad(self) -> Vad | None:
        """None while it is loading."""

    async def loaded_vad(self) -> Vad: ...

    def wake(self) -> None:
        """Somebody speaks: there will be work in a moment."""

    def submit(self, samples: Samples, options: TranscribeOptions, *, eager: bool) -> Job:
        """Queue a transcription. Raises WyomingWhisperError when there can be none."""

    def answered(self, answer: Answer) -> None:
        """Take note of how an utterance was answered."""


class Utterance:
    """Between audio-start and audio-stop; then `transcription` is awaited, or `drop` called.

    With an `endpointer` it may end before, which `is_over` says. `live` changes no answer. With a
    `relay` other servers hear it too, and the first good answer is taken.
    """

    def __init__(
        self,
        workshop: Workshop,
        options: TranscribeOptions,
        endpointer: Endpointer | None = None,
        live: LiveText | None = None,
        relay: Relay | None = None,
    ) -> None:
        self._workshop = workshop
        self._options = options
        self._relay = relay
        self.live = live
        """What of it can be shown by now; None where nobody wants that."""
        self._endpointer = endpointer
        self._hear_samples = FRAME_SAMPLES if endpointer else HEAR_SAMPLES
        self._pcm = PcmStream()
        self._unheard: list[Samples] = []  # what came before the VAD was loaded
        self._speech: Speech | None = None
        self.is_full = False
        """Whether it is as long as one may be: more of it is not to be added."""
        self.is_over = False
        """Whether its speaker has finished, says the endpointer."""
        self._n_samples = 0
        self._n_unheard = 0
        self._held = _Held(workshop.limits)
        self._early = _EarlyWork(workshop, options)
        self._began = time.monotonic()
        if not self._is_heard_elsewhere:
            workshop.wake()

    @property
    def seconds(self) -> float:
        return self._n_samples / SAMPLE_RATE

    def add(self, chunk: Pcm) -> None:
        """Take of a chunk what fits.

        Raises AudioError for a format that is out of bounds, BusyError when there is no room.
        """
        n_left = self._workshop.limits.utterance_samples - self._n_samples
        fitting = _beginning(chunk, n_left / SAMPLE_RATE)
        samples = self._pcm.convert(fitting)[:n_left]
        self._held.add(len(samples))
        self._n_samples += len(samples)
        self.is_full = fitting is not chunk or len(samples) == n_left
        if self._relay:
            self._relay.add(samples)
        self._unheard.append(samples)
        self._n_unheard += len(samples)
        is_ahead = self._is_ahead
        enough = HEAR_AHEAD_SAMPLES if is_ahead else self._hear_samples
        if self._workshop.vad is not None and self._n_unheard >= enough:
            speech = self._hear(self._workshop.vad)
            if not is_ahead:
                self._follow(speech)

    async def transcription(self) -> Transcription:
        """Return what was said, when the audio has ended. Raises WyomingWhisperError."""
        ended = time.perf_counter()
        if self.live:
            self.live.drop()
        try:
            transcription, early, upstream = await self._transcribe()
        except Exception as error:
            waited = time.perf_counter() - ended
            self._workshop.answered(_failure(error, self.seconds, waited))
            raise
        finally:
            self.drop()
        if self._options.language is None and upstream is None:
            self._workshop.spoken.note(transcription)
        answer = _answer(transcription, time.perf_counter() - ended, early, upstream)
        _log(answer, transcription)
        self._workshop.answered(answer)
        return transcription

    def drop(self) -> None:
        """Forget it, and the work that was begun: nobody waits for it any more."""
        if self.live:
            self.live.drop()
        if self._relay:
            self._relay.drop()
        self._early.drop()
        self._held.release()

    async def _transcribe(self) -> tuple[Transcription, bool, str | None]:
        """Return what was said, whether work that was begun early had it, and the upstream that
        did; None is this machine.
        """
        rest = self._pcm.flush()
        if self._relay:
            self._relay.add(rest)
        self._unheard.append(rest)
        self._n_unheard += len(rest)
        vad = await self._workshop.loaded_vad()
        # All at once only if the audio came before the VAD was there; not on the event loop then.
        hear_late = self._speech is None and self.seconds > COSTLY_SECONDS
        speech = await asyncio.to_thread(self._hear, vad) if hear_late else self._hear(vad)
        speech.finish()
        spans = speech.spans()
        if not spans:
            nothing = Transcription("", self._options.language, seconds=speech.seconds)
            return nothing, False, None
        early = self._early.collect(spans)
        upstream: str | None = None
        if self._relay:
            transcription, upstream = await self._relayed(self._relay, speech, spans, early)
        else:
            transcription = await self._here(speech, spans, early)
        answer = finished(transcription, speech.voicing, self._workshop.text_style)
        answer = dataclasses.replace(answer, seconds=speech.seconds)
        return answer, early is not None and upstream is None, upstream

    async def _here(self, speech: Speech, spans: list[Span], early: Job | None) -> Transcription:
        job = early or self._workshop.submit(speech.cut(spans), self._options, eager=False)
        return await self._result(job)

    async def _relayed(
        self, relay: Relay, speech: Speech, spans: list[Span], early: Job | None
    ) -> tuple[Transcription, str | None]:
        try:
            return await relay.answer(
                speech.cut(spans),
                (speech.last_voiced + 1) * FRAME_SAMPLES,
                lambda: self._here(speech, spans, early),
                local_has_begun=early is not None,
                deadline_seconds=self._workshop.limits.deadline_seconds,
            )
        finally:
            if early and not early.future.done():
                early.cancel()

    async def _result(self, job: Job) -> Transcription:
        """Wait for it until the deadline; who stops waiting cancels it. Raises DeadlineError."""
        seconds = self._workshop.limits.deadline_seconds
        future = asyncio.wrap_future(job.future)
        try:
            done, _ = await asyncio.wait({future}, timeout=seconds or None)
            if done:
                return future.result()
            why = "its turn did not come: the model was not there, or had other work"
            if job.future.running():
                why = "the model was still at it"
            raise DeadlineError(f"there was no answer within {seconds:g} s (--deadline): {why}")
        finally:
            if not future.done():
                job.cancel()
                future.cancel()

    def _hear(self, vad: Vad) -> Speech:
        if self._speech is None:
            self._speech = Speech(vad, self._workshop.span_options)
        if self._n_unheard:
            self._speech.add(np.concatenate(self._unheard))
        self._unheard.clear()
        self._n_unheard = 0
        return self._speech

    def _follow(self, speech: Speech) -> None:
        """Do what can be done before the audio has ended."""
        # Drafts are for those two as well; otherwise one server at work is enough.
        drafts = self.live or self._endpointer
        if self._workshop.eager and (drafts or not self._is_heard_elsewhere):
            self._early.follow(speech)
        if self.live:
            self.live.follow(speech, self._early.job)
        if self._endpointer and (end := self._endpointer.hear(speech, self._early.draft)):
            _LOGGER.debug("the command ends after %.2f s: %s", self.seconds, end)
            self.is_over = True

    @property
    def _is_heard_elsewhere(self) -> bool:
        """Whether an upstream that is well hears it, so that work here can wait."""
        return self._relay is not None and self._relay.is_enough

    @property
    def _is_ahead(self) -> bool:
        return self.seconds - (time.monotonic() - self._began) > MAX_AHEAD_SECONDS


class _EarlyWork:
    """The transcription that is under way before the utterance has ended."""

    def __init__(self, workshop: Workshop, options: TranscribeOptions) -> None:
        self._workshop = workshop
        self._options = options
        self._job: Job | None = None
        self._spans: list[Span] = []
        self._voiced = -1  # where speech stood when work was last begun
        self._n_jobs = 0

    @property
    def job(self) -> Job | None:
        """What is under way or done, of the pause that there is now."""
        return self._job

    @property
    def draft(self) -> Transcription | None:
        """What was said up to the pause that there is now, once that is known."""
        job = self._job
        if job is None or not job.future.done() or job.future.cancelled():
            return None
        return None if job.future.exception() else job.future.result()

    def follow(self, speech: Speech) -> None:
        """Begin when speech pauses; drop what was begun when it goes on."""
        if speech.last_voiced != self._voiced:
            self.drop()
            if speech.has_paused and self._n_jobs < MAX_EAGER_JOBS:
                self._begin(speech)

    def collect(self, spans: list[Span]) -> Job | None:
        """Return the work if it is of these spans, as no early work any more; else drop it."""
        job = self._job
        if job is None or spans != self._spans:
            self.drop()
            return None
        self._job = None
        job.promote()
        return job

    def drop(self) -> None:
        if self._job is not None and not self._job.cancel():
            _LOGGER.debug("transcribed %d times for nothing: speech went on", self._n_jobs)
        self._job = None

    def _begin(self, speech: Speech) -> None:
        spans = speech.spans()
        self._voiced = speech.last_voiced
        if not spans:
            return
        try:
            self._job = self._workshop.submit(speech.cut(spans), self._options, eager=True)
        except WyomingWhisperError as error:  # who waits for the answer is told, if it is still so
            _LOGGER.debug("no work is begun early: %s", error)
            return
        self._n_jobs += 1
        self._spans = spans


def _beginning(chunk: Pcm, seconds: float) -> Pcm:
    """Return the chunk, cut off after `seconds`: converting a long one costs time and memory."""
    pcm = PcmFormat(chunk.rate, chunk.width, chunk.channels)
    n_bytes = math.ceil(seconds * pcm.rate) * pcm.width * pcm.channels
    if len(chunk.audio) > n_bytes:
        chunk = copy.copy(chunk)
        chunk.audio = chunk.audio[:n_bytes]
    return chunk


def _answer(
    transcription: Transcription, waited: float, early: bool, upstream: str | None
) -> Answer:
    sure = transcription.text and not upstream  # others don't tell how sure they are
    outcome: Outcome = "text" if transcription.text else "silence"
    return Answer(
        time=time.time(),
        outcome="withheld" if transcription.rejected else outcome,
        seconds=transcription.seconds,
        waited=waited,
        early=early,
        language=transcription.language,
        confidence=math.exp(transcription.avg_logprob) if sure else None,
        stages=transcription.stages,
        text=transcription.text,
        upstream=upstream,
    )


def _failure(error: Exception, seconds: float, waited: float) -> Answer:
    known = error if isinstance(error, WyomingWhisperError) else None
    return Answer(
        time=time.time(),
        outcome="failed",
        seconds=seconds,
        waited=waited,
        error=str(known or "internal error; the server's log says more"),
        code=known.code if known else WyomingWhisperError.code,
    )


def _log(answer: Answer, transcription: Transcription) -> None:
    if not answer.stages and not transcription.text:
        _LOGGER.info("%.1f s of audio without speech", answer.seconds)
        return
    _LOGGER.info(
        "%.1f s of audio answered %.3f s after its end%s (%s%s)%s",
        answer.seconds,
        answer.waited,
        f" by {answer.upstream}" if answer.upstream else "",
        "begun early: " if answer.early else "",
        ", ".join(f"{name} {value:.3f}" for name, value in answer.stages.items()),
        f", the text withheld: {transcription.rejected}" if transcription.rejected else "",
    )
