"""One voice command as it arrives, and its transcription, begun before it ends.

Home Assistant keeps listening for about a second after the last word. As soon as speech is
followed by enough silence for its end to be known, what there is goes to the scheduler. If speech
resumes, that work is dropped. If not, `audio-stop` finds the answer ready, and it is the same: both
transcribe the very same samples, which is checked.

What lasts longer than Whisper hears at once is dictation, and is transcribed piece by piece while
it is spoken (`dictation.py`).

All of it belongs to the event loop; only PCM is converted on threads.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
import time
from collections.abc import Iterator

import numpy as np

from ..audio.pcm import PcmFormat, PcmStream
from ..audio.speech import Section, Speech
from ..audio.vad import FRAME_SAMPLES, Span, Vad
from ..errors import StoppedError, WyomingWhisperError
from ..status import Answer, Outcome
from ..transcriber import SAMPLE_RATE, Samples, TranscribeOptions, Transcription
from ..upstreams.relay import Relay
from .dictation import Dictation
from .early import EarlyWork
from .endpointing import Endpointer
from .job import Job, Priority
from .live import LiveText
from .service import Service

_LOGGER = logging.getLogger(__name__)


class Utterance:
    """Between audio-start and audio-stop; then `transcription` is awaited, or `drop` called.

    With an `endpointer` it may end before, which `is_over` says. `live` changes no answer. With a
    `relay` other servers hear it too, and the first good answer is taken.
    """

    # Hearing little by little costs twice the processor time of hearing a bit more at once; later
    # than this after speech has paused nobody should know.
    HEAR_SAMPLES = 2 * FRAME_SAMPLES
    HEAR_AHEAD_SAMPLES = 16 * FRAME_SAMPLES  # of audio that is there sooner than it was spoken

    # Audio that is further ahead of the clock than this is a file, not a speaker who may have
    # finished: the rest of it is there already.
    MAX_AHEAD_SECONDS = 1.0

    # A chunk that is longer is converted in steps: it may name a quarter of an hour in 1 MB.
    CONVERT_SECONDS = 10.0

    def __init__(
        self,
        service: Service,
        options: TranscribeOptions,
        endpointer: Endpointer | None = None,
        live: LiveText | None = None,
        relay: Relay | None = None,
    ) -> None:
        self._service = service
        self._options = options
        self._relay = relay
        self.live = live
        """What of it can be shown by now; None where nobody wants that."""
        self._endpointer = endpointer
        self._hear_samples = FRAME_SAMPLES if endpointer else self.HEAR_SAMPLES
        self._pcm = PcmStream()
        self._unheard: list[Samples] = []  # since the VAD last heard, or before it was loaded
        self._speech: Speech | None = None
        self.is_full = False
        """Whether there is more of it than one may have: what came beyond that was not taken."""
        self.is_over = False
        """Whether its speaker has finished, says the endpointer."""
        self.is_cut_short = False
        """Whether its end was not heard, or not transcribed, because the server stops."""
        self._has_ended = False
        self._hurrying: asyncio.Future[None] | None = None  # while a job is waited for
        self._n_samples = 0
        self._n_unheard = 0
        self._held = service.held_audio.account()
        self._dictation = Dictation(service.submit, options)
        self._dictated: list[Span] = []  # speech of its pieces
        self._early = EarlyWork(service.submit)
        self._is_dropped = False
        self._began = time.monotonic()
        if not self._is_heard_elsewhere:
            service.wake()

    @classmethod
    def begin(
        cls,
        service: Service,
        options: TranscribeOptions,
        context: object = None,
        sensitivity: str | None = None,
    ) -> Utterance:
        """Begin one as the user has set it; `context` is that of the client's request.

        With a `sensitivity` it is a stream: it may be ended here, and shown while it is spoken.
        """
        options = service.spoken.remembered(options)
        relay = Relay.begin(service.upstreams, options, context) if service.upstreams else None
        if sensitivity is None:
            return cls(service, options, relay=relay)
        endpointer = Endpointer.of(service.settings, sensitivity)
        return cls(service, options, endpointer, _live(service, options), relay)

    @property
    def seconds(self) -> float:
        return self._n_samples / SAMPLE_RATE

    @property
    def warning(self) -> str:
        """What the log says where it `is_full`."""
        seconds = self._service.max_utterance_samples / SAMPLE_RATE
        return (
            f"an utterance reached --max-utterance-seconds ({seconds:g}): the rest of it is not "
            "heard"
        )

    @property
    def is_mid_command(self) -> bool:
        """Whether it is a command whose end is not said yet: half of one may mean another."""
        if not self._dictation.is_empty:
            return False
        speech = self._speech
        return speech is None or (speech.is_spoken and not speech.has_paused)

    def cut_short(self) -> None:
        """Take no more audio; its `transcription` is what was said by now."""
        self._has_ended = self.is_cut_short = True

    def hurry(self) -> bool:
        """Have `transcription` return now with the pieces that are done; False if there are none.

        Then nothing is changed.
        """
        hurrying = self._hurrying
        if hurrying is None or hurrying.done() or self._relay or not self._dictation.has_text:
            return False
        hurrying.set_result(None)
        return True

    async def take(self, pcm: PcmFormat, audio: bytes) -> None:
        """Take of a chunk what fits, however long it is, without keeping the event loop.

        Raises BusyError when there is no room.
        """
        if not PcmStream.is_costly(pcm, audio):
            self.add(pcm, audio)
            return
        audio, step = self._fitting(pcm, audio), pcm.n_bytes(self.CONVERT_SECONDS)
        for start in range(0, len(audio), step):
            part = audio[start : start + step]
            samples = await asyncio.to_thread(self._pcm.convert, pcm, part)
            for some in self._steps(samples):
                self._add(some)
                await asyncio.sleep(0)
                if self.is_over:
                    return

    def add(self, pcm: PcmFormat, audio: bytes) -> None:
        """Take of a short chunk what fits. Raises BusyError when there is no room."""
        self._add(self._pcm.convert(pcm, self._fitting(pcm, audio)))

    def ask(self, options: TranscribeOptions, context: object, sensitivity: str) -> None:
        """Take other options before the audio has ended; what was begun with others is dropped.

        Pieces of dictation that were transcribed by then stay as they are.
        """
        self._options = options = self._service.spoken.remembered(options)
        self._early.restart()
        self._dictation.ask(options)
        if self._endpointer:
            self._endpointer.set_sensitivity(sensitivity)
        if self.live:
            self.live.drop()
            self.live = _live(self._service, options)
        if self._relay and self._service.upstreams:
            relay = Relay.begin(self._service.upstreams, options, context)
            if relay:
                relay.take_over(self._relay)
            self._relay.drop()
            self._relay = relay

    async def transcription(self) -> Transcription:
        """Return what was said, when the audio has ended. Raises WyomingWhisperError."""
        ended = time.perf_counter()
        if self.live:
            self.live.drop()
        try:
            transcription, early, upstream = await self._transcribe()
        except Exception as error:
            waited = time.perf_counter() - ended
            self._service.answered(_failure(error, self.seconds, waited, self._is_truncated))
            raise
        finally:
            self.drop()
        if self._options.language is None and upstream is None:
            self._service.spoken.note(transcription)
        waited = time.perf_counter() - ended
        answer = _answer(transcription, waited, early, upstream, self._is_truncated)
        _log(answer, transcription)
        self._service.answered(answer)
        return transcription

    def drop(self) -> None:
        """Forget it, and the work that was begun: nobody waits for it any more."""
        self._is_dropped = True
        if self.live:
            self.live.drop()
        if self._relay:
            self._relay.drop()
        self._early.drop()
        self._dictation.drop()
        self._held.hold(0)

    # Its audio.

    def _fitting(self, pcm: PcmFormat, audio: bytes) -> bytes:
        """Return what of a chunk fits: converting a long one costs time and memory."""
        n_left = self._service.max_utterance_samples - self._n_samples
        fitting = audio[: pcm.n_bytes(n_left / SAMPLE_RATE)]
        self.is_full = self.is_full or len(fitting) < len(audio)
        return fitting

    @property
    def _is_truncated(self) -> bool:
        return self.is_full or self.is_cut_short

    def _add(self, samples: Samples) -> None:
        if self._is_dropped or self._has_ended:
            return
        n_left = self._service.max_utterance_samples - self._n_samples
        self.is_full = self.is_full or len(samples) > n_left
        samples = samples[:n_left]
        self._n_samples += len(samples)
        self._n_unheard += len(samples)
        self._held.hold(self._n_needed)
        self._unheard.append(samples)
        if self._relay:
            self._relay.add(samples)
        is_ahead = self._is_ahead
        enough = self.HEAR_AHEAD_SAMPLES if is_ahead else self._hear_samples
        if self._service.vad is not None and self._n_unheard >= enough:
            speech = self._hear(self._service.vad)
            if self._works_here:
                self._dictation.follow()
            if not is_ahead:
                self._follow(speech)

    @property
    def _n_needed(self) -> int:
        """How many samples are held: all of them where others may be asked for all."""
        if self._relay:
            return self._n_samples
        n_kept = self._speech.n_kept if self._speech else 0
        return n_kept + self._n_unheard + self._dictation.n_held

    def _hear(self, vad: Vad) -> Speech:
        if self._speech is None:
            self._speech = Speech(vad, self._service.span_options)
        if self._n_unheard:
            self._speech.add(np.concatenate(self._unheard))
        self._unheard.clear()
        self._n_unheard = 0
        for section in self._speech.take_sections():
            self._dictate(section)
        return self._speech

    async def _hear_rest(self, vad: Vad) -> Speech:
        """Hear what has not been heard yet: all of it, if it came before the VAD was there."""
        if self._n_unheard <= PcmStream.COSTLY_SECONDS * SAMPLE_RATE:
            return self._hear(vad)
        unheard, self._unheard = np.concatenate(self._unheard), []
        for step in self._steps(unheard):
            self._unheard, self._n_unheard = [step], len(step)
            speech = self._hear(vad)
            await asyncio.sleep(0)
        return speech

    def _steps(self, samples: Samples) -> Iterator[Samples]:
        """Yield samples in steps of a millisecond or two of hearing."""
        for start in range(0, len(samples), self.HEAR_AHEAD_SAMPLES):
            yield samples[start : start + self.HEAR_AHEAD_SAMPLES]

    def _dictate(self, section: Section) -> None:
        """Have a piece transcribed apart: the utterance is too long for one."""
        options = self._service.span_options
        spans = section.spans(options)
        absolute = [(section.start + start, section.start + end) for start, end in spans]
        self._dictated += absolute
        job = self._early.collect(absolute)
        self._early.restart()
        if spans:
            samples, n_held = section.cut(spans), len(section.samples)
            self._dictation.add(samples, section.voicing(options), n_held, job)

    # Its text.

    async def _transcribe(self) -> tuple[Transcription, bool, str | None]:
        """Return what was said, whether work that was begun early had it, and the upstream that
        did; None is this machine.
        """
        rest = self._pcm.flush()
        if self._relay:
            self._relay.add(rest)
        self._unheard.append(rest)
        self._n_unheard += len(rest)
        speech = await self._hear_rest(await self._service.loaded_vad())
        speech.finish()
        spans = speech.spans()
        if not spans and self._dictation.is_empty:
            nothing = Transcription("", self._options.language, seconds=speech.seconds)
            return nothing, False, None
        early = self._early.collect(spans)
        if early:
            early.promote()
        has_begun = early is not None or self._dictation.has_begun
        upstream: str | None = None
        if self._relay:
            transcription, upstream = await self._relayed(self._relay, speech, spans, early)
        else:
            transcription = await self._here(speech, spans, early)
        answer = self._service.text_style.styled(transcription)
        answer = dataclasses.replace(answer, seconds=speech.seconds)
        return answer, has_begun and upstream is None, upstream

    async def _here(self, speech: Speech, spans: list[Span], early: Job | None) -> Transcription:
        dictation = self._dictation
        try:
            await dictation.finish(self._result)
            if spans:
                rest = speech.cut(spans)
                job = early or self._service.submit(rest, dictation.options, Priority.COMMAND)
                dictation.add_rest(await self._result(job), speech.voicing)
        except StoppedError:
            if not dictation.has_text:
                raise
            self.is_cut_short = True
        return dictation.transcription()

    async def _relayed(
        self, relay: Relay, speech: Speech, spans: list[Span], early: Job | None
    ) -> tuple[Transcription, str | None]:
        voicing = self._dictation.voicing(speech.voicing)
        try:
            transcription, upstream = await relay.answer(
                [*self._dictated, *spans],
                (speech.last_voiced + 1) * FRAME_SAMPLES,
                lambda: self._here(speech, spans, early),
                local_has_begun=early is not None or self._dictation.has_begun,
                deadline_seconds=self._service.deadline_seconds * self._dictation.n_pieces,
            )
            return voicing.judged(transcription) if upstream else transcription, upstream
        finally:
            if early and not early.future.done():
                early.cancel()

    async def _result(self, job: Job) -> Transcription:
        """Raises what Service.result_of does; StoppedError when it is hurried."""
        self._hurrying = asyncio.get_running_loop().create_future()
        try:
            return await self._service.result_of(job, self._hurrying)
        finally:
            self._hurrying = None

    # What can be done before the audio has ended.

    def _follow(self, speech: Speech) -> None:
        """Begin with the answer in a pause, show what is certain, and find the end."""
        if self._dictation.is_done:
            if self._service.eager and self._works_here:
                self._early.follow(speech, self._dictation.options)
            if self.live:
                self.live.before = self._dictation.text(self._service.text_style)
                self.live.follow(speech, self._early.job)
        draft = self._early.job.transcription if self._early.job else None
        if self._endpointer and (end := self._endpointer.hear(speech, draft)):
            _LOGGER.debug("the command ends after %.2f s: %s", self.seconds, end)
            self.is_over = True

    @property
    def _works_here(self) -> bool:
        """Whether work begins here meanwhile: one server is enough, but for drafts."""
        return bool(self.live or self._endpointer) or not self._is_heard_elsewhere

    @property
    def _is_heard_elsewhere(self) -> bool:
        """Whether an upstream that is well hears it, so that work here can wait."""
        return self._relay is not None and self._relay.is_enough

    @property
    def _is_ahead(self) -> bool:
        return self.seconds - (time.monotonic() - self._began) > self.MAX_AHEAD_SECONDS


def _live(service: Service, options: TranscribeOptions) -> LiveText | None:
    if not service.settings.live_text:
        return None
    return LiveText(service.submit, options, service.text_style)


def _answer(
    transcription: Transcription, waited: float, early: bool, upstream: str | None, truncated: bool
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
        understood=transcription.understood,
        free_text=transcription.free_text,
        is_corrected=transcription.free_text is not None,
        upstream=upstream,
        truncated=truncated,
    )


def _failure(error: Exception, seconds: float, waited: float, truncated: bool) -> Answer:
    ours = error if isinstance(error, WyomingWhisperError) else None
    return Answer(
        time=time.time(),
        outcome="failed",
        seconds=seconds,
        waited=waited,
        truncated=truncated,
        error=str(ours or "internal error; the server's log says more"),
        code=ours.code if ours else WyomingWhisperError.code,
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
