"""Who is asked, when, and whose answer wins. Nothing here waits for a clock to pass."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.support import TIMEOUT_SECONDS, Clock, loud, until
from wyoming_whisper.errors import TranscribeError, UpstreamError
from wyoming_whisper.settings.upstreams import Upstream
from wyoming_whisper.status import Status, UpstreamState
from wyoming_whisper.transcriber import TranscribeOptions, Transcription
from wyoming_whisper.upstreams import pool as pool_module
from wyoming_whisper.upstreams.exchange import Recording
from wyoming_whisper.upstreams.pool import Member, Pool, _Waker
from wyoming_whisper.upstreams.relay import Relay, Step, _Race

SECOND = loud(1.0)
NEVER = 3600.0
"""No test waits so long: who is asked after it is not asked."""


@dataclass
class Scripted:
    """An upstream that answers when it is let."""

    text: object = "from upstream"
    error: Exception | None = None
    at_once: bool = True
    """Whether it answers when the audio has ended, or only when `gate` is set."""
    fails_early: bool = False
    languages: frozenset[str] = frozenset()
    is_there: bool = True
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    requests: list[tuple[TranscribeOptions, object]] = field(default_factory=list)
    n_broken_off: int = 0
    n_checks: int = 0
    closed: bool = False

    async def check(self) -> tuple[str, frozenset[str]]:
        self.n_checks += 1
        if not self.is_there:
            raise UpstreamError("it is off")
        return "scripted", self.languages

    async def transcribe(
        self, recording: Recording, options: TranscribeOptions, context: object
    ) -> Transcription:
        self.requests.append((options, context))
        try:
            if not self.fails_early:
                await recording.end()
            if not self.at_once:
                await self.gate.wait()
        except asyncio.CancelledError:
            self.n_broken_off += 1
            raise
        if self.error:
            raise self.error
        return recording.transcript(self.text, "en", options.language)

    async def close(self) -> None:
        self.closed = True


@dataclass
class Local:
    """The model of this machine."""

    text: str = "from here"
    error: Exception | None = None
    gate: asyncio.Event | None = None
    n_asked: int = 0
    n_broken_off: int = 0

    async def __call__(self) -> Transcription:
        self.n_asked += 1
        try:
            if self.gate:
                await self.gate.wait()
        except asyncio.CancelledError:
            self.n_broken_off += 1
            raise
        if self.error:
            raise self.error
        return Transcription(self.text, "en")


@dataclass
class House:
    pool: Pool
    clock: Clock
    status: Status
    local: Local

    def relay(self, options: TranscribeOptions | None = None) -> Relay:
        relay = Relay.begin(self.pool, options or TranscribeOptions("en"))
        assert relay
        return relay

    async def say(self, **how: object) -> tuple[str, str | None]:
        """Speak a second; return the text, and whose it is."""
        relay = self.relay()
        relay.add(SECOND)
        return await self.answer(relay, **how)

    async def answer(self, relay: Relay, **how: object) -> tuple[str, str | None]:
        work = relay.answer([(0, len(SECOND))], len(SECOND), self.local, **how)  # type: ignore[arg-type]
        transcription, upstream = await asyncio.wait_for(work, TIMEOUT_SECONDS)
        return transcription.text, upstream

    @property
    def circuit(self) -> Any:
        return self.pool.members[0].circuit

    def circuits(self) -> list[str]:
        return [state.circuit for state in self.status.state.upstreams]


@asynccontextmanager
async def house(
    clients: Sequence[Scripted], hedge: float = NEVER, *, has_local: bool = True
) -> AsyncIterator[House]:
    """Upstreams named a, b, ... that have been looked after once; then nobody does any more."""
    clock, status = Clock(), Status()
    members = [
        Member(Upstream(f"tcp://{name}:1", "wyoming"), client, clock)
        for name, client in zip("abcdef", clients, strict=False)
    ]
    pool = Pool(members, hedge_seconds=hedge, has_local=has_local, status=status)
    async with pool.followed():
        await until(lambda: all(client.n_checks for client in clients))
        await until(lambda: all(s.detail != "it has not been asked yet" for s in states(status)))
        yield House(pool, clock, status, Local())
    assert all(client.closed for client in clients)
    assert not pool._tasks
    assert not any(member.n_running for member in members)


def states(status: Status) -> Sequence[UpstreamState]:
    return status.state.upstreams


# -- all is well ---------------------------------------------------------------------------


async def test_the_first_is_asked_and_nobody_else() -> None:
    first, second = Scripted(), Scripted("other")
    async with house([first, second]) as home:
        assert await home.say() == ("from upstream", "tcp://a:1")
        assert (len(first.requests), len(second.requests), home.local.n_asked) == (1, 0, 0)
        (state, _) = home.status.state.upstreams
    assert (state.circuit, state.answers, state.failures) == ("closed", 1, 0)
    assert state.latency is not None
    assert state.description == "scripted"


async def test_it_is_asked_with_language_names_and_hops() -> None:
    first = Scripted()
    async with house([first]) as home:
        relay = Relay.begin(home.pool, TranscribeOptions("de", names=("Ada",)), {Relay.HOPS_KEY: 1})
        assert relay
        await home.answer(relay)
    assert first.requests == [(TranscribeOptions("de", names=("Ada",)), {Relay.HOPS_KEY: 2})]


async def test_who_asks_anew_has_the_audio_heard_from_its_beginning() -> None:
    first = Scripted()
    async with house([first]) as home:
        relay = home.relay(TranscribeOptions("en"))
        relay.add(SECOND)
        await until(lambda: len(first.requests) == 1)
        other = home.relay(TranscribeOptions("de"))
        other.take_over(relay)
        relay.drop()
        other.add(SECOND)
        assert await home.answer(other) == ("from upstream", "tcp://a:1")
        assert other._recording.seconds == 2.0
    assert [options.language for options, _ in first.requests] == ["en", "de"]
    assert first.n_broken_off == 1


async def test_the_time_it_took_is_the_answers_stage() -> None:
    async with house([Scripted()]) as home:
        relay = home.relay()
        transcription, _ = await relay.answer([(0, len(SECOND))], len(SECOND), home.local)
    assert list(transcription.stages) == ["upstream"]


async def test_who_does_not_know_the_language_is_passed_over() -> None:
    first, second = Scripted(languages=frozenset({"en"})), Scripted("zwei")
    async with house([first, second]) as home:
        relay = home.relay(TranscribeOptions("de"))
        assert await home.answer(relay) == ("zwei", "tcp://b:1")
        assert await home.say() == ("from upstream", "tcp://a:1")


async def test_what_cannot_be_asked_of_others_stays_here() -> None:
    async with house([Scripted()]) as home:
        for options in (
            TranscribeOptions(timestamps=True),
            TranscribeOptions(prompt="x"),
            TranscribeOptions(task="translate"),
            TranscribeOptions(temperature=0.5),
        ):
            assert Relay.begin(home.pool, options) is None


# -- hedging -------------------------------------------------------------------------------


async def test_who_is_slow_is_not_waited_for_alone_and_broken_off() -> None:
    slow, second = Scripted(at_once=False), Scripted("second")
    async with house([slow, second], hedge=0.01) as home:
        assert await home.say() == ("second", "tcp://b:1")
        await until(lambda: slow.n_broken_off)
        assert home.local.n_asked == 0
        assert home.circuits() == ["closed", "closed"]  # once is no failure


async def test_who_is_slow_may_still_win() -> None:
    slow, slower = Scripted(at_once=False), Scripted(at_once=False)
    async with house([slow, slower], hedge=0.01) as home:
        home.local.gate = asyncio.Event()
        answering = asyncio.ensure_future(home.say())
        await until(lambda: home.local.n_asked)
        slow.gate.set()
        assert await answering == ("from upstream", "tcp://a:1")
        await until(lambda: slower.n_broken_off and home.local.n_broken_off)


async def test_who_is_slow_again_and_again_is_left_alone_then_tried() -> None:
    slow = Scripted(at_once=False)
    async with house([slow], hedge=0.005) as home:
        for _ in range(home.circuit.MAX_DOUBTS):
            assert await home.say() == ("from here", None)
        assert home.circuits() == ["open"]
        assert await home.say() == ("from here", None)
        assert len(slow.requests) == home.circuit.MAX_DOUBTS
        home.clock.now += home.circuit.FIRST_BACKOFF_SECONDS
        slow.at_once = True
        home.local.gate = asyncio.Event()
        assert await home.say() == ("from upstream", "tcp://a:1")
        assert home.local.n_asked == home.circuit.MAX_DOUBTS + 2  # also during the trial
        assert home.circuits() == ["closed"]


async def test_a_trial_is_not_waited_for_but_goes_on() -> None:
    lying = Scripted(error=UpstreamError("no"))
    async with house([lying]) as home:
        assert await home.say() == ("from here", None)
        home.clock.now += home.circuit.FIRST_BACKOFF_SECONDS
        lying.error, lying.at_once = None, False
        relay = home.relay()
        assert not relay.is_enough  # what can be begun here is begun
        assert await home.answer(relay) == ("from here", None)
        assert home.circuits() == ["half-open"]
        assert not lying.n_broken_off
        lying.gate.set()
        await until(lambda: home.circuits() == ["closed"])


async def test_a_trial_that_is_too_late_is_a_failure() -> None:
    lying = Scripted(error=UpstreamError("no"))
    async with house([lying], hedge=0.01) as home:
        await home.say()
        home.clock.now += home.circuit.FIRST_BACKOFF_SECONDS
        lying.error, lying.at_once = None, False
        assert await home.say() == ("from here", None)
        await asyncio.sleep(0.02)
        lying.gate.set()
        await until(lambda: home.circuits() == ["open"])
        assert "too late" in home.status.state.upstreams[0].detail


async def test_work_that_was_begun_here_is_in_the_race_from_the_start() -> None:
    slow = Scripted(at_once=False)
    async with house([slow]) as home:
        assert await home.say(local_has_begun=True) == ("from here", None)
        assert home.circuits() == ["closed"]  # it had no time, so it wasn't late


# -- failures ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        UpstreamError("no"),
        UpstreamError("later", retry_seconds=5.0),
        RuntimeError("a bug"),
        MemoryError(),
        ValueError(),
    ],
    ids=repr,
)
async def test_who_fails_is_followed_by_the_next_at_once(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    failing, second = Scripted(error=error), Scripted("second")
    async with house([failing, second]) as home:
        assert await home.say() == ("second", "tcp://b:1")
        assert home.circuits() == ["open", "closed"]
        assert await home.say() == ("second", "tcp://b:1")
        assert len(failing.requests) == 1
        assert home.status.state.upstreams[0].failures == 1
    assert caplog.text.count("tcp://a:1 is not asked for now") == 1


async def test_everybody_fails_and_the_model_here_answers() -> None:
    clients = [Scripted(error=UpstreamError("no")) for _ in range(3)]
    async with house(clients) as home:
        assert await home.say() == ("from here", None)
        assert [len(client.requests) for client in clients] == [1, 1, 1]


async def test_who_fails_while_it_is_spoken_is_replaced_while_it_is_spoken() -> None:
    failing = Scripted(error=UpstreamError("reset"), fails_early=True)
    second = Scripted("second")
    async with house([failing, second]) as home:
        relay = home.relay()
        relay.add(SECOND)
        await until(lambda: second.requests)
        assert relay.is_enough
        assert await home.answer(relay) == ("second", "tcp://b:1")


async def test_with_nobody_left_work_begins_here() -> None:
    async with house([Scripted(error=UpstreamError("no"), fails_early=True)]) as home:
        relay = home.relay()
        assert relay.is_enough
        await until(lambda: not relay.is_enough)
        assert await home.answer(relay) == ("from here", None)


async def test_who_is_gone_is_asked_again_as_soon_as_it_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool_module.Member, "SOONEST_CHECK_SECONDS", 0.005)
    first = Scripted(error=UpstreamError("refused", "absent"))
    async with house([first]) as home:
        first.is_there = False
        assert await home.say() == ("from here", None)
        assert home.circuits() == ["open"]
        first.is_there, first.error = True, None
        while home.circuits() != ["closed"]:  # the clock of its circuit stands still
            home.relay().drop()
            await asyncio.sleep(0.002)
        assert await home.say() == ("from upstream", "tcp://a:1")


async def test_a_request_that_is_refused_is_no_failure() -> None:
    first = Scripted(error=UpstreamError("what is Quenya", "language"))
    async with house([first]) as home:
        assert await home.say() == ("from here", None)
        assert home.circuits() == ["closed"]
        assert await home.say() == ("from here", None)
        assert len(first.requests) == 1  # not in this language


@pytest.mark.parametrize("text", ["ERROR: no GPU", None, "x" * 10_000, "<html>"])
async def test_a_lie_is_not_taken(text: object) -> None:
    async with house([Scripted(text)]) as home:
        assert await home.say() == ("from here", None)
        assert home.circuits() == ["open"]


async def test_hearing_nothing_is_asked_about() -> None:
    deaf = Scripted("")
    async with house([deaf]) as home:
        for _ in range(home.circuit.MAX_DOUBTS):
            assert await home.say() == ("from here", None)
        assert home.circuits() == ["open"]


async def test_nothing_heard_by_all_is_nothing() -> None:
    async with house([Scripted(""), Scripted("")]) as home:
        home.local.text = ""
        for _ in range(2 * home.circuit.MAX_DOUBTS):
            assert (await home.say())[0] == ""
        assert home.circuits() == ["closed", "closed"]
        home.local.error = TranscribeError("broken")
        assert (await home.say())[0] == ""


async def test_nothing_heard_here_does_not_wait_for_a_black_hole() -> None:
    async with house([Scripted(at_once=False)], hedge=0.01) as home:
        home.local.text = ""
        assert await home.say() == ("", None)


async def test_a_failure_that_nobody_looks_at_is_not_told_by_asyncio(
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = Scripted(at_once=False)
    async with house([first], hedge=0.005) as home:
        home.local.gate, home.local.error = asyncio.Event(), TranscribeError("no model")
        answering = asyncio.ensure_future(home.say())
        await until(lambda: home.local.n_asked)
        first.gate.set()
        home.local.gate.set()
        assert await answering == ("from upstream", "tcp://a:1")
    gc.collect()
    assert "never retrieved" not in caplog.text


async def test_when_everything_fails_this_machines_reason_is_told() -> None:
    async with house([Scripted(error=UpstreamError("no"))]) as home:
        home.local.error = TranscribeError("no model")
        with pytest.raises(TranscribeError, match="no model"):
            await home.say()


async def test_a_local_failure_does_not_end_the_race() -> None:
    slow = Scripted(at_once=False)
    async with house([slow], hedge=0.005) as home:
        home.local.error = TranscribeError("no model")
        answering = asyncio.ensure_future(home.say())
        await until(lambda: home.local.n_asked)
        slow.gate.set()
        assert await answering == ("from upstream", "tcp://a:1")


async def test_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    async with house([Scripted(at_once=False)]) as home:
        with pytest.raises(TranscribeError, match="--deadline"):
            await home.say(deadline_seconds=0.01)
    monkeypatch.setattr(Relay, "ANSWER_SECONDS", 0.01)
    async with house([Scripted(at_once=False)]) as home:
        assert await home.say() == ("from here", None)
        assert "no answer within" in home.status.state.upstreams[0].detail


async def test_a_dropped_utterance_is_broken_off_everywhere() -> None:
    first = Scripted(at_once=False)
    async with house([first], hedge=0.005) as home:
        home.local.gate = asyncio.Event()
        speaking = home.relay()
        await until(lambda: first.requests)
        speaking.drop()
        await until(lambda: first.n_broken_off == 1)
        waiting = asyncio.ensure_future(home.say())
        await until(lambda: home.local.n_asked)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await until(lambda: first.n_broken_off == 2 and home.local.n_broken_off == 1)
        assert home.circuits() == ["closed"]


async def test_nobody_gets_more_than_it_can_take() -> None:
    first = Scripted()
    async with house([first]) as home:
        relays = [home.relay() for _ in range(Member.MAX_AT_ONCE + 3)]
        assert sum(relay.is_enough for relay in relays) == Member.MAX_AT_ONCE
        answers = [await home.answer(relay) for relay in relays]
        assert answers.count(("from here", None)) == 0  # by their end there was room again


# -- coming and going ----------------------------------------------------------------------


async def test_who_is_off_is_looked_for_and_asked_when_it_is_there(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(pool_module.Member, "SOONEST_CHECK_SECONDS", 0.005)
    away = Scripted(is_there=False)
    async with house([away]) as home:
        assert home.circuits() == ["open"]
        assert await home.say() == ("from here", None)  # which also has it looked for
        away.is_there = True
        while home.circuits() != ["closed"]:
            home.relay().drop()
            await asyncio.sleep(0.002)
        assert await home.say() == ("from upstream", "tcp://a:1")
    assert "tcp://a:1 is not asked for now: it is off" in caplog.text
    assert "tcp://a:1 is asked from now on (scripted)" in caplog.text


async def test_who_is_away_is_woken_when_somebody_speaks_and_only_then() -> None:
    class CountingWaker(_Waker):
        n_woken = 0

        def wake(self) -> bool:
            self.n_woken += 1
            return True

    away, there = Scripted(is_there=False), Scripted()
    async with house([away, there]) as home:
        wakers = [CountingWaker("00:11:22:33:44:55", "127.0.0.1") for _ in range(2)]
        for member, waker in zip(home.pool.members, wakers, strict=True):
            member._waker = waker
        assert await home.say() == ("from upstream", "tcp://b:1")
        there.error = UpstreamError("no")
        await home.say()
        await home.say()  # b is left alone, but it is awake
        assert [waker.n_woken for waker in wakers] == [3, 0]


async def test_without_a_model_here_the_ill_are_asked_at_last() -> None:
    ill = Scripted(is_there=False)
    async with house([ill], has_local=False) as home:
        home.local.error = TranscribeError("no model here")
        assert str(home.status.state.phase) == "unavailable"
        assert "it is off" in home.status.state.detail
        assert await home.say() == ("from upstream", "tcp://a:1")
        assert str(home.status.state.phase) == "ready"


# -- whom to ask next, and for how long to wait: no clock, no tasks -------------------------


@pytest.mark.parametrize(
    ("now", "trials", "silent", "step"),
    [
        (0.0, [False], False, "wait"),
        (0.9, [False], True, "wait"),
        (1.0, [False], False, "ask one more"),  # patience is over
        (0.0, [True], False, "ask one more"),  # nobody relies on a trial
        (0.0, [], False, "ask one more"),
        (9.0, [False], False, "too late"),
        (9.0, [], True, "too late"),
    ],
)
def test_whom_to_ask_next(now: float, trials: list[bool], silent: bool, step: Step) -> None:
    race = _Race(deadline=9.0, hedge_seconds=1.0, patience=1.0)
    assert race.next_step(now, trials, silent=silent) == step


@pytest.mark.parametrize(
    ("now", "trials", "silent", "step"),
    [
        (5.0, [False], False, "wait"),
        (5.0, [True], False, "wait"),
        (0.5, [False], True, "wait"),  # silence is no answer while patience lasts
        (1.0, [False], True, "settle"),
        (0.0, [], False, "settle"),
        (9.0, [], False, "too late"),
    ],
)
def test_with_nobody_left_to_ask(now: float, trials: list[bool], silent: bool, step: Step) -> None:
    race = _Race(deadline=9.0, hedge_seconds=1.0, patience=1.0, is_last=True)
    assert race.next_step(now, trials, silent=silent) == step


def test_how_long_those_asked_are_waited_for() -> None:
    race = _Race(deadline=9.0, hedge_seconds=1.0, patience=1.0)
    assert race.until(silent=False) == 1.0
    race.asked(3.0, trial=False)
    assert race.until(silent=False) == 4.0
    race.asked(5.0, trial=True)
    assert race.until(silent=False) == 5.0
    race.is_last = True
    assert (race.until(silent=False), race.until(silent=True)) == (9.0, 5.0)
