"""One utterance on its way: who is asked, when the next one is asked too, and whose answer wins.

The first upstream that is well hears it from the first word on; one that is on trial hears it, too.
When the audio has ended, the first has a while to answer; then the next one gets everything, and at
last the model of this machine. The first good answer wins, and the others are broken off.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from ..audio.vad import Span
from ..errors import TranscribeError, UpstreamError
from ..tasks import end_tasks, start_task
from ..transcriber import Samples, TranscribeOptions, Transcription
from .exchange import Recording
from .pool import Member, Pool

_LOGGER = logging.getLogger(__name__)


Local = Callable[[], Awaitable[Transcription]]
"""Transcribes on this machine."""


Step = Literal["ask one more", "wait", "settle", "too late"]
"""What an utterance that has no text yet needs next; `settle`: take what there is."""


@dataclass
class _Race:
    """When the next one is asked as well, and how long those asked are waited for.

    Times are seconds of one clock, and come from the caller: this neither waits nor asks.
    """

    deadline: float
    hedge_seconds: float
    patience: float
    """Until then, who was asked last is waited for alone."""
    is_last: bool = False
    """Whether there is nobody more to ask."""

    def next_step(self, now: float, trials: Sequence[bool], *, silent: bool) -> Step:
        """Return what to do at `now`.

        `trials` says of each attempt that has no result yet whether it is a trial, which nobody
        relies on; `silent` whether an attempt has ended with an empty text.
        """
        if now >= self.deadline:
            return "too late"
        if not self.is_last and (now >= self.patience or all(trials)):
            return "ask one more"
        if not trials or (self.is_last and silent and now >= self.patience):
            return "settle"
        return "wait"

    def asked(self, now: float, *, trial: bool) -> None:
        self.patience = now if trial else now + self.hedge_seconds

    def until(self, *, silent: bool) -> float:
        """Return when `next_step` is to be asked again at the latest; inf: when one has ended."""
        return min(self.patience, self.deadline) if silent or not self.is_last else self.deadline


@dataclass
class _Attempt:
    """Somebody who has been asked; `member` is None for the model of this machine."""

    task: asyncio.Task[Transcription]
    member: Member | None
    trial: bool
    began: float
    lost: bool = False
    """Whether another's answer was taken."""

    @property
    def transcription(self) -> Transcription | None:
        """What it answered; None where it hasn't, or has failed."""
        task = self.task
        return None if not task.done() or task.cancelled() or task.exception() else task.result()

    @property
    def error(self) -> BaseException | None:
        return self.task.exception() if self.task.done() and not self.task.cancelled() else None


class Relay:
    """Made when an utterance begins; then `answer` is awaited, or `drop` called."""

    ANSWER_SECONDS = 30.0
    """From the end of the audio, or from when it was asked; then an upstream has failed."""

    HOPS_KEY = "wyoming-whisper-hops"
    """In the context of a request: how many of our servers it has passed."""
    MAX_HOPS = 2
    """Beyond, who has it answers itself. Two servers that are each other's upstreams pass a request
    back and forth once."""

    def __init__(self, pool: Pool, options: TranscribeOptions, hops: int = 1) -> None:
        self._pool = pool
        self._options = options  # of which the home's own names and sentences stay here
        self._context = {self.HOPS_KEY: hops}
        self._loop = asyncio.get_running_loop()
        self._recording = Recording()
        self._unasked = list(pool.members)
        self._attempts: list[_Attempt] = []
        self._begin_first()

    @classmethod
    def begin(cls, pool: Pool, options: TranscribeOptions, context: object = None) -> Relay | None:
        """Return what passes on an utterance that begins now.

        None where it must not be, or others can't be asked for it; `context` is what the client's
        own request had.
        """
        special = options.task or options.prompt or options.temperature or options.timestamps
        hops = context.get(cls.HOPS_KEY, 0) if isinstance(context, dict) else 0
        is_number = isinstance(hops, int) and not isinstance(hops, bool)
        if special or not is_number or not 0 <= hops < cls.MAX_HOPS:
            return None
        for member in pool.members:
            member.somebody_speaks()
        return cls(pool, options, hops + 1)

    def add(self, samples: Samples) -> None:
        self._recording.add(samples)

    def take_over(self, other: Relay) -> None:
        """Pass on, from its beginning, what `other` has passed on by now."""
        self._recording.take_over(other._recording)

    @property
    def is_enough(self) -> bool:
        """Whether one that is well is hearing it: work here can wait."""
        return any(
            attempt.member and not attempt.trial and (not attempt.task.done() or not attempt.error)
            for attempt in self._attempts
        )

    async def answer(
        self,
        spans: Sequence[Span],
        speech_end: int,
        local: Local,
        *,
        local_has_begun: bool = False,
        deadline_seconds: float = 0.0,
    ) -> tuple[Transcription, str | None]:
        """Return what was said, and the upstream that said so; None is this machine.

        `spans` are what is worth hearing, `speech_end` is where speech ends in all of the audio.
        Raises what `local` raises when nobody has an answer; TranscribeError where it takes too
        long.
        """
        self._recording.finish(spans, speech_end)
        try:
            winner = await self._race(local, local_has_begun, deadline_seconds)
            self._settle(winner)
        finally:
            self.drop()
        task, member = winner.task, winner.member
        del winner
        try:
            transcription = task.result()
        finally:
            del task  # what it failed of knows this frame: not each the other
        if member is None:
            return transcription, None
        stages = {"upstream": self._loop.time() - (self._recording.ended or 0.0)}
        return replace(transcription, stages=stages), member.upstream.url

    def drop(self) -> None:
        """Break off what nobody waits for; a trial whose audio is complete goes on."""
        self._unasked = []
        for attempt in self._attempts:
            if not (attempt.trial and attempt.lost):
                attempt.task.cancel()
        self._attempts = []

    # Asking.

    def _begin_first(self) -> None:
        """Ask one that is well, and any that are on trial and stand before it."""
        while (attempt := self._begin_member()) and attempt.trial:
            pass

    def _begin_member(self) -> _Attempt | None:
        for member in self._unasked:
            if not member.takes(self._options.language):
                continue
            is_well = member.circuit.state == "closed"
            if is_well or member.circuit.take_trial():
                return self._ask(member, trial=not is_well)
        # With nobody else to turn to, also those that did not look well.
        if self._recording.ended is not None and not self._pool.has_local:
            for member in self._unasked:
                return self._ask(member, trial=False)
        return None

    def _ask(self, member: Member, *, trial: bool) -> _Attempt:
        self._unasked.remove(member)
        member.n_running += 1
        attempt = self._started(self._transcribe(member), member, trial=trial)
        attempt.task.add_done_callback(lambda _: self._judge(attempt, member))
        return attempt

    def _started(
        self,
        work: Coroutine[Any, Any, Transcription],
        member: Member | None,
        *,
        trial: bool = False,
    ) -> _Attempt:
        task = start_task(work, "an utterance passed on", is_awaited=True)
        self._pool.keep(task)
        task.add_done_callback(_looked_at)
        attempt = _Attempt(task, member, trial, self._loop.time())
        self._attempts.append(attempt)
        return attempt

    async def _transcribe(self, member: Member) -> Transcription:
        """Have it answered, and only in what can be an answer. Raises UpstreamError."""
        recording = self._recording
        work = member.client.transcribe(recording, self._options, self._context)
        asking = start_task(work, "asking an upstream", is_awaited=True)
        ending = start_task(recording.end(), "waiting for the end of the audio", is_awaited=True)
        try:
            await asyncio.wait({asking, ending}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({asking}, timeout=self.ANSWER_SECONDS)
            if not asking.done():
                raise UpstreamError(f"it had no answer within {self.ANSWER_SECONDS:g} s")
            return asking.result()
        finally:
            await end_tasks(asking, ending)
            del asking  # as in `answer`

    # What comes of it.

    async def _race(self, local: Local, has_begun: bool, deadline_seconds: float) -> _Attempt:
        """Return who was first with a text; where nobody has one, who at least heard nothing."""
        now = self._recording.ended or self._loop.time()
        hedge = self._pool.hedge_seconds
        race = _Race(now + (deadline_seconds or math.inf), hedge, now + hedge)
        here: Local | None = local
        if has_begun:
            self._ask_here(local)
            here = None
        while (winner := self._winner()) is None:
            pending = [attempt for attempt in self._attempts if not attempt.task.done()]
            silent = self._silent is not None
            step = race.next_step(now, [attempt.trial for attempt in pending], silent=silent)
            if step == "too late":
                raise TranscribeError(
                    f"there was no answer within {deadline_seconds:g} s (--deadline), neither from "
                    "an upstream nor from the model here",
                    "deadline-exceeded",
                )
            if step == "settle":
                return self._last_word()
            if step == "wait":
                seconds = race.until(silent=silent) - now
                await asyncio.wait(
                    {attempt.task for attempt in pending},
                    timeout=None if seconds == math.inf else max(seconds, 0),
                    return_when=asyncio.FIRST_COMPLETED,
                )
                now = self._loop.time()
            elif attempt := self._begin_member():
                race.asked(now, trial=attempt.trial)
            elif here:
                self._ask_here(here)
                here = None
                race.asked(now, trial=False)
            else:
                race.is_last = True
        return winner

    def _ask_here(self, local: Local) -> _Attempt:
        async def work() -> Transcription:
            return await local()

        return self._started(work(), None)

    def _winner(self) -> _Attempt | None:
        winners = (a for a in self._attempts if a.transcription and a.transcription.text)
        return next(winners, None)

    @property
    def _silent(self) -> _Attempt | None:
        """Who has heard nothing. Where this server heard speech, others are asked as well."""
        return next((a for a in self._attempts if a.transcription), None)

    def _last_word(self) -> _Attempt:
        """Return who heard nothing; raise what went wrong when everything did."""
        if silent := self._silent:
            here = (a for a in self._attempts if a.member is None and a.transcription)
            return next(here, silent)  # it tells why
        errors = [(a.member is None, a.error) for a in self._attempts if a.error]
        if not errors:
            raise UpstreamError("nobody could be asked")
        try:
            raise max(errors, key=lambda error: error[0])[1] from None
        finally:
            del errors  # as in `answer`

    def _settle(self, winner: _Attempt) -> None:
        """Note how the others did."""
        text = winner.transcription and winner.transcription.text
        now = self._loop.time()
        for attempt in self._attempts:
            if attempt is winner or attempt.member is None:
                continue
            circuit = attempt.member.circuit
            if attempt.transcription and not attempt.transcription.text:
                if text:
                    circuit.doubted("it hears nothing where others hear speech")
            elif not attempt.task.done():
                attempt.lost = True
                if self._has_had_time(attempt, now) and not attempt.trial:
                    circuit.doubted("it is too late")
        self._pool.publish()

    def _has_had_time(self, attempt: _Attempt, now: float) -> bool:
        since = max(attempt.began, self._recording.ended or now)
        return now - since >= self._pool.hedge_seconds

    def _judge(self, attempt: _Attempt, member: Member) -> None:
        """Draw conclusions for those who speak next."""
        member.n_running -= 1
        circuit, now = member.circuit, self._loop.time()
        if transcription := attempt.transcription:
            if not transcription.text:
                self._release(attempt, member)
            elif attempt.trial and attempt.lost and self._has_had_time(attempt, now):
                circuit.failed("it is too late")
            else:
                circuit.succeeded()
                member.answered(now - (self._recording.ended or now))
        elif error := attempt.error:
            self._release(attempt, member)
            member.failed(error, self._options.language)
            if self._recording.ended is None:
                self._begin_first()  # the next one can still hear it while it is spoken
        else:
            self._release(attempt, member)
        self._pool.publish()

    def _release(self, attempt: _Attempt, member: Member) -> None:
        """End a trial without a verdict."""
        if attempt.trial:
            member.circuit.untried()


def _looked_at(task: asyncio.Task[Transcription]) -> None:
    """Nobody may want to know how it ended: asyncio need not say so."""
    if not task.cancelled():
        task.exception()
