"""All upstreams: looked after in the background, and asked in their order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import statistics
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ..errors import SettingsError, UpstreamError
from ..settings.upstreams import Upstream
from ..status import Status, UpstreamState
from ..tasks import end_tasks, start_lasting_task, start_task
from ..transcriber import TranscribeOptions, Transcription
from .exchange import Recording
from .openai import OpenAIUpstream
from .wyoming import WyomingUpstream

if TYPE_CHECKING:
    from ..settings.options import Settings

_LOGGER = logging.getLogger(__name__)


class _Client(Protocol):
    """Speaks with one upstream."""

    async def check(self) -> tuple[str, frozenset[str]]:
        """Return what it is, and its languages where it tells them. Raises UpstreamError."""

    async def transcribe(
        self, recording: Recording, options: TranscribeOptions, context: dict[str, Any]
    ) -> Transcription:
        """Return what is said, if that can be believed; `context` is for a server of ours.

        Raises UpstreamError.
        """

    async def close(self) -> None:
        """Close what connections are kept."""


class _Waker:
    """Wakes one machine by its network card (Wake-on-LAN), not too often.

    The packet has the card's address sixteen times.
    """

    PORT = 9  # discard: nobody listens, the network card reads it
    EVERY_SECONDS = 30.0
    """At most, however often somebody speaks: starting takes a machine about so long."""

    def __init__(
        self, mac: str, broadcast: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._packet = b"\xff" * 6 + bytes.fromhex(mac.replace(":", "")) * 16
        self._to = (broadcast, self.PORT)
        self._clock = clock
        self._last: float | None = None

    def wake(self) -> bool:
        """Send the packet if that is not too soon; return whether it was sent."""
        now = self._clock()
        if self._last is not None and now - self._last < self.EVERY_SECONDS:
            return False
        self._last = now
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
                sender.sendto(self._packet, self._to)
        except OSError as error:  # no network now, or a container that may not broadcast
            _LOGGER.warning("nobody can be woken at %s: %s", self._to[0], error)
            return False
        return True


class _Circuit:
    """Whether an upstream may be asked now; opens when it fails. Not for several threads.

    closed     it is asked
    open       it is not asked: it can't be reached, or it has failed a moment ago
    half-open  one utterance at a time is tried on it, while the next in line is asked as well

    Being reached again closes a circuit that not being reached has opened. What failed otherwise
    has to answer an utterance first: who lies may well be there.
    """

    FIRST_BACKOFF_SECONDS = 2.0
    LONGEST_BACKOFF_SECONDS = 300.0
    MAX_DOUBLINGS = 10
    UNASKED = "it has not been asked yet"
    MAX_DOUBTS = 3
    """How often in a row another's answer may be taken before that counts as a failure."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.is_reachable = False
        """Whether it was there when it was last looked after."""
        self._n_failures = 0  # of requests, in a row
        self._n_doubts = 0
        self._open_until = 0.0
        self._trying = False
        self.why = self.UNASKED
        """Why it is not closed; one sentence without a capital."""

    @property
    def state(self) -> Literal["closed", "open", "half-open"]:
        if not self.is_reachable:
            return "open"
        if not self._n_failures:
            return "closed"
        return "open" if self._clock() < self._open_until else "half-open"

    def take_trial(self) -> bool:
        """Return whether an utterance may be tried on it; then `succeeded`, `failed` or `untried`
        has to be called.
        """
        if self.state != "half-open" or self._trying:
            return False
        self._trying = True
        return True

    def untried(self) -> None:
        """A trial was broken off, which says nothing."""
        self._trying = False

    def reached(self) -> None:
        """It has answered a question after its health."""
        self.is_reachable = True

    def unreachable(self, why: str) -> None:
        """It has not."""
        self.is_reachable = False
        self.why = why

    def succeeded(self) -> None:
        """It has answered an utterance, and well."""
        self.is_reachable = True
        self._trying = False
        self._n_failures = self._n_doubts = 0

    def failed(self, why: str, at_least_seconds: float = 0.0) -> None:
        """It has not answered an utterance, or with what is no answer."""
        self._trying = False
        self._n_doubts = 0
        self.why = why
        if self._n_failures and self._clock() < self._open_until:
            return  # an utterance that was under way already: the same failure
        backoff = self.FIRST_BACKOFF_SECONDS * 2 ** min(self._n_failures, self.MAX_DOUBLINGS)
        self._n_failures += 1
        seconds = min(max(backoff, at_least_seconds), self.LONGEST_BACKOFF_SECONDS)
        self._open_until = self._clock() + seconds

    def doubted(self, why: str) -> None:
        """Another's answer was taken, though it had had its time."""
        self._n_doubts += 1
        if self._n_doubts >= self.MAX_DOUBTS:
            self.failed(f"{why}, {self.MAX_DOUBTS} times in a row")


class Member:
    """One upstream, and what is known of it."""

    MAX_AT_ONCE = 16  # utterances that one upstream has
    CHECK_SECONDS = 5.0  # to answer a question after its health
    CHECK_EVERY_SECONDS = 30.0
    FIRST_CHECK_AGAIN_SECONDS = 2.0
    LAST_CHECK_AGAIN_SECONDS = 60.0
    SOONEST_CHECK_SECONDS = 2.0  # however often somebody speaks
    KEPT_LATENCIES = 20

    def __init__(
        self,
        upstream: Upstream,
        client: _Client,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.upstream = upstream
        self.client = client
        self.circuit = _Circuit(clock)
        self.latencies: deque[float] = deque(maxlen=self.KEPT_LATENCIES)
        """Seconds from the end of the audio to its answer, of the last ones."""
        self.n_answers = 0
        self.n_failures = 0
        self.n_running = 0
        self.unknown_languages: set[str] = set()
        self.languages: frozenset[str] = frozenset()
        """Whisper's codes; none where it doesn't tell."""
        self._description = ""
        self._hurried = asyncio.Event()
        self._waker = _Waker(upstream.mac, upstream.broadcast, clock) if upstream.mac else None

    def takes(self, language: str | None) -> bool:
        """Whether it could answer a request in that language, if it is well."""
        is_understood = not language or not self.languages or language in self.languages
        return (
            is_understood
            and language not in self.unknown_languages
            and self.n_running < self.MAX_AT_ONCE
        )

    def answered(self, seconds: float) -> None:
        """It answered so long after the end of the audio."""
        self.n_answers += 1
        self.latencies.append(seconds)

    def failed(self, error: BaseException, language: str | None) -> None:
        """It did not, of `error`; the request was in that language."""
        failure = error if isinstance(error, UpstreamError) else UpstreamError(type(error).__name__)
        if failure is not error:
            _LOGGER.error("asking %s failed", self.upstream.url, exc_info=error)
        if failure.fault in ("request", "language"):
            if failure.fault == "language" and language:
                self.unknown_languages.add(language)
            _LOGGER.debug("%s can't take a request: %s", self.upstream.url, failure)
            return
        self.n_failures += 1
        if failure.fault == "absent":
            self.circuit.unreachable(str(failure))
        else:
            self.circuit.failed(str(failure), failure.retry_seconds)
        self._hurried.set()

    def somebody_speaks(self) -> None:
        """Look whether it is there again, if it wasn't; wake it."""
        if not self.circuit.is_reachable:
            self._hurried.set()
            if self._waker and self._waker.wake():
                _LOGGER.info("waking %s (%s)", self.upstream.url, self.upstream.mac)

    async def look_after(self, on_change: Callable[[], None]) -> None:
        """Ask after its health again and again, less often where it isn't there."""
        delay = self.FIRST_CHECK_AGAIN_SECONDS
        while True:
            self._hurried.clear()
            is_there = await self._check()
            on_change()
            delay = self.FIRST_CHECK_AGAIN_SECONDS if is_there else delay
            await self._rest(self.CHECK_EVERY_SECONDS if is_there else delay)
            delay = min(2 * delay, self.LAST_CHECK_AGAIN_SECONDS)

    async def _check(self) -> bool:
        asking = start_task(self.client.check(), "asking an upstream", is_awaited=True)
        try:
            await asyncio.wait({asking}, timeout=self.CHECK_SECONDS)
            if not asking.done():
                self.circuit.unreachable(f"it said nothing within {self.CHECK_SECONDS:g} s")
                return False
            answer = asking.result()
        except UpstreamError as error:
            self.circuit.unreachable(str(error))
            return False
        except Exception as error:  # whatever it is, the next look may do
            _LOGGER.exception("%s can't be looked after", self.upstream.url)
            self.circuit.unreachable(f"asking it failed ({type(error).__name__})")
            return False
        finally:
            await end_tasks(asking)
        if answer != (self._description, self.languages):  # another model may know other languages
            self.unknown_languages.clear()
            self._description, self.languages = answer
        self.circuit.reached()
        return True

    async def _rest(self, seconds: float) -> None:
        await asyncio.sleep(min(seconds, self.SOONEST_CHECK_SECONDS))
        waiting = start_task(self._hurried.wait(), "resting between two looks", is_awaited=True)
        try:
            await asyncio.wait({waiting}, timeout=max(seconds - self.SOONEST_CHECK_SECONDS, 0))
        finally:
            await end_tasks(waiting)

    def state(self) -> UpstreamState:
        state = self.circuit.state
        return UpstreamState(
            name=self.upstream.url,
            kind=self.upstream.kind,
            circuit=state,
            detail="" if state == "closed" else self.circuit.why,
            description=self._description,
            latency=statistics.median(self.latencies) if self.latencies else None,
            answers=self.n_answers,
            failures=self.n_failures,
        )


class Pool:
    """The upstreams in their order."""

    MAX_MEMBERS = 8

    def __init__(
        self,
        members: Sequence[Member],
        *,
        hedge_seconds: float,
        has_local: bool = True,
        status: Status | None = None,
    ) -> None:
        self.members = members
        self.hedge_seconds = hedge_seconds
        """After the end of the audio; then the next one is asked as well."""
        self.has_local = has_local
        """Whether there is a model here that can answer when nobody else does."""
        self._status = status or Status()
        self._logged: dict[str, str] = {}  # what the log has of each
        self._tasks: set[asyncio.Task[Any]] = set()

    @classmethod
    def open(cls, settings: Settings, status: Status) -> Pool | None:
        """Return those of settings.upstreams; None where there are none. Raises SettingsError."""
        has_local = settings.backend != "none"
        if not settings.upstreams:
            if not has_local:
                raise SettingsError("--backend none has nobody to ask: name --upstreams")
            if settings.upstream_key:
                raise SettingsError("there is an upstream_key, but --upstreams names nobody for it")
            return None
        if len(settings.upstreams) > cls.MAX_MEMBERS:
            raise SettingsError(f"--upstreams may name {cls.MAX_MEMBERS} at most")
        upstreams = Upstream.with_keys(
            [Upstream.read(text) for text in settings.upstreams], os.environ, settings.upstream_key
        )
        if len({upstream.url for upstream in upstreams}) < len(upstreams):
            raise SettingsError("--upstreams names an address twice")
        for upstream in upstreams:
            if upstream.key and upstream.url.startswith("http://"):
                _LOGGER.warning("the key of %s can be read on its way: use https://", upstream.url)
        members = [Member(upstream, _client(upstream, settings)) for upstream in upstreams]
        return cls(
            members, hedge_seconds=settings.upstream_hedge, has_local=has_local, status=status
        )

    def keep(self, task: asyncio.Task[Any]) -> None:
        """Have a task end with the block of `followed`."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @contextlib.asynccontextmanager
    async def followed(self) -> AsyncIterator[None]:
        """Look after all of them while the block runs."""
        if any(member.upstream.kind == "openai" for member in self.members):
            await asyncio.to_thread(__import__, "aiohttp")  # a tenth of a second
        self.publish()
        for member in self.members:
            look_after = partial(member.look_after, self.publish)
            self.keep(start_lasting_task(look_after, f"looking after {member.upstream.url}"))
        try:
            yield
        finally:
            await end_tasks(*self._tasks)
            await asyncio.gather(*(m.client.close() for m in self.members), return_exceptions=True)

    def publish(self) -> None:
        """Tell the status, and the log of what has changed."""
        states = [member.state() for member in self.members]
        for state in states:
            self._log(state)
        changes: dict[str, object] = {"upstreams": tuple(states)}
        if not self.has_local and any(state.circuit != "open" for state in states):
            changes |= {"phase": "ready", "detail": ""}
        elif not self.has_local:
            why = "; ".join(f"{state.name}: {state.detail}" for state in states)
            changes |= {"phase": "unavailable", "detail": f"no upstream can be asked ({why})"}
        self._status.update(**changes)

    def _log(self, state: UpstreamState) -> None:
        """Say when one comes or goes, each once."""
        what = state.detail if state.circuit == "open" else state.circuit
        if what == self._logged.get(state.name, _Circuit.UNASKED) or state.circuit == "half-open":
            return
        self._logged[state.name] = what
        if state.circuit == "closed":
            _LOGGER.info("%s is asked from now on (%s)", state.name, state.description)
        else:
            _LOGGER.warning("%s is not asked for now: %s", state.name, state.detail)

    @property
    def languages(self) -> tuple[str, ...]:
        """All that one of them understands; none where nobody tells."""
        return tuple(sorted({code for member in self.members for code in member.languages}))


def _client(upstream: Upstream, settings: Settings) -> _Client:
    if upstream.kind == "wyoming":
        return WyomingUpstream(upstream)
    return OpenAIUpstream(upstream, settings.whisper_task)
