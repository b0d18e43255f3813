"""The front end's half of the ray backend, with replicas that pretend: lost, late, or at fault."""

from __future__ import annotations

import os
import pickle
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from tests.support import HOME_EN, TIMEOUT_SECONDS, loud
from wyoming_whisper.__main__ import main
from wyoming_whisper.cluster import front_end as backend
from wyoming_whisper.cluster.front_end import About, HomeDescription, RayTranscriber, SharedHome
from wyoming_whisper.errors import (
    BusyError,
    ModelUnavailableError,
    TranscribeError,
    WyomingWhisperError,
)
from wyoming_whisper.grammar.service import HomeLanguages, HomeTexts
from wyoming_whisper.home.index import NameIndex
from wyoming_whisper.home.inventory import Entity, Home
from wyoming_whisper.transcriber import Abandoned, Samples, TranscribeOptions, Transcription, go_on
from wyoming_whisper.utterance.scheduler import Scheduler

ABOUT = About("0", ("en", "de"), "a fake")
OPTIONS = TranscribeOptions(language="de")
SPOKEN = HomeLanguages(("de",), (("de", "CH"),))
SAID = Transcription("said", "de")


class LostError(Exception):
    """What Ray raises when a replica has died."""


@dataclass
class FakeCall:
    """What a replica does: answers, fails, or, with nothing to say, is silent for ever."""

    outcome: Transcription | WyomingWhisperError | Exception | None
    cancelled: bool = False
    waits: int = 0

    def result(self, *, timeout_s: float) -> Any:
        self.waits += 1
        assert 0 < timeout_s < 1, "the checkpoint would be looked at too rarely"
        if self.outcome is None:
            raise TimeoutError
        if isinstance(self.outcome, LostError):
            raise self.outcome
        return self.outcome

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class FakeReplicas:
    """Stands for the deployment's handle: one outcome after the other, the last one for ever."""

    outcomes: Sequence[Any] = (SAID,)
    calls: list[FakeCall] = field(default_factory=list)
    asked: list[tuple[TranscribeOptions, SharedHome | None, Samples]] = field(default_factory=list)
    kept: list[Any] = field(default_factory=list)

    def ask(
        self, options: TranscribeOptions, home: SharedHome | None, *chunks: Samples
    ) -> FakeCall:
        assert max(chunk.nbytes for chunk in chunks) < 100_000, "it would go through the store"
        assert all(chunk.base is None for chunk in chunks), "the whole would be sent with each"
        asked, shared = pickle.loads(pickle.dumps((options, home)))
        self.asked.append((asked, shared, np.concatenate(chunks)))
        outcome = self.outcomes[min(len(self.calls), len(self.outcomes) - 1)]
        self.calls.append(FakeCall(outcome))
        return self.calls[-1]

    def put(self, value: Any) -> int:
        self.kept.append(value)
        return len(self.kept)

    def transcriber(self, deadline: float = 0) -> RayTranscriber:
        return RayTranscriber(self.ask, ABOUT, deadline, self.put, languages=SPOKEN)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend._Calls, "FIRST_PAUSE_SECONDS", 0.0)


def test_samples_and_options_arrive_as_they_were_sent() -> None:
    replicas = FakeReplicas()
    samples = np.random.default_rng(0).normal(size=70_001).astype(np.float32)
    options = TranscribeOptions("de", names=("Ada",), checkpoint=lambda: None)
    assert replicas.transcriber().transcribe(samples, options) == SAID
    ((sent, home, heard),) = replicas.asked
    assert (sent.language, sent.names, sent.checkpoint, home) == ("de", ("Ada",), go_on, None)
    assert np.array_equal(heard, samples)


def test_no_samples_are_a_request_too() -> None:
    replicas = FakeReplicas()
    assert replicas.transcriber().transcribe(loud(0), OPTIONS) == SAID
    assert replicas.asked[0][2].shape == (0,)


LAMP = Home(entities=(Entity(("Kitchen Lamp",), "light"),))


def test_a_home_is_put_once_and_again_when_it_changes() -> None:
    replicas = FakeReplicas()
    front = replicas.transcriber()
    first, second = NameIndex(["kitchen lamp"]), NameIndex(["hallway"])
    hall = Home(areas=("Hallway",))
    recording = HomeTexts(first)
    homes = [recording, HomeTexts(first, home=LAMP), recording, HomeTexts(first, home=LAMP)]
    for home in (*homes, HomeTexts(second, home=LAMP), HomeTexts(second, home=hall)):
        front.transcribe(loud(0.1), TranscribeOptions("de", home=home))
    assert replicas.kept == [
        HomeDescription(("kitchen lamp",), Home(), SPOKEN),
        HomeDescription(("kitchen lamp",), LAMP, SPOKEN),
        HomeDescription(("hallway",), LAMP, SPOKEN),
        HomeDescription(("hallway",), hall, SPOKEN),
    ]
    sent = [shared for _, shared, _ in replicas.asked if shared]
    assert [shared.reference for shared in sent] == [1, 2, 2, 2, 3, 4]
    assert [shared.with_sentences for shared in sent] == [False, True, False, True, True, True]
    versions = [shared.version for shared in sent]
    assert versions == [replicas.kept[shared.reference - 1].version for shared in sent]
    assert [shared.replaces for shared in sent] == [None, *3 * versions[:1], *versions[3:5]]
    assert all(asked.home is None for asked, _, _ in replicas.asked)


def test_the_same_home_read_again_is_not_put_again() -> None:
    replicas = FakeReplicas()
    front = replicas.transcriber()
    for _ in range(2):
        home = HomeTexts(NameIndex(["kitchen lamp"]), home=Home(("Hallway",)))
        front.transcribe(loud(0.1), TranscribeOptions("de", home=home))
    assert len(replicas.kept) == 1
    assert [shared and shared.reference for _, shared, _ in replicas.asked] == [1, 1]


def test_a_home_that_can_not_be_put_is_done_without() -> None:
    refusing = True

    def put(_: object) -> str:
        if refusing:
            raise LostError("the store is full")
        return "put"

    replicas = FakeReplicas()
    front = RayTranscriber(replicas.ask, ABOUT, 0, put)
    options = TranscribeOptions("de", home=HomeTexts(NameIndex(["kitchen lamp"])))
    assert front.transcribe(loud(0.1), options) == SAID
    refusing = False
    assert front.transcribe(loud(0.1), options) == SAID
    assert [shared and shared.reference for _, shared, _ in replicas.asked] == [None, "put"]


def test_a_request_that_is_lost_is_asked_again() -> None:
    replicas = FakeReplicas([LostError("the node died"), LostError("the next one too"), SAID])
    assert replicas.transcriber().transcribe(loud(0.1), OPTIONS) == SAID
    assert len(replicas.calls) == 3


def test_a_request_that_ends_every_replica_is_given_up() -> None:
    replicas = FakeReplicas([LostError("died\nThe worker crashed.")])
    with pytest.raises(TranscribeError, match=r"lost 6 times, .*: LostError: The worker crashed\."):
        replicas.transcriber().transcribe(loud(0.1), OPTIONS)
    assert len(replicas.calls) == backend._Calls.MAX_LOST


def test_asking_may_fail_itself() -> None:
    replicas = FakeReplicas()
    failures = iter([LostError("the cluster is not there"), None])

    def ask(*request: Any) -> FakeCall:
        if (failure := next(failures)) is not None:
            raise failure
        return replicas.ask(*request)

    assert RayTranscriber(ask, ABOUT, 0, replicas.put).transcribe(loud(0.1), OPTIONS) == SAID


def test_what_a_replica_says_went_wrong_is_not_asked_again() -> None:
    replicas = FakeReplicas([BusyError("256 requests wait already")])
    with pytest.raises(BusyError, match="256 requests"):
        replicas.transcriber().transcribe(loud(0.1), OPTIONS)
    assert len(replicas.calls) == 1


def test_an_answer_that_is_none_is_an_error() -> None:
    with pytest.raises(TranscribeError, match="answered with str"):
        FakeReplicas(["text"]).transcriber().transcribe(loud(0.1), OPTIONS)


def stop_when(reached: Callable[[], bool]) -> TranscribeOptions:
    def checkpoint() -> None:
        if reached():
            raise Abandoned

    return TranscribeOptions("de", checkpoint=checkpoint)


def test_work_that_nobody_waits_for_is_cancelled_there() -> None:
    replicas = FakeReplicas([None])
    options = stop_when(lambda: bool(replicas.calls and replicas.calls[0].waits == 3))
    with pytest.raises(Abandoned):
        replicas.transcriber().transcribe(loud(0.1), options)
    assert [call.cancelled for call in replicas.calls] == [True]


def test_silence_has_an_end() -> None:
    replicas = FakeReplicas([None])
    with pytest.raises(TranscribeError, match=r"within 0\.01 s"):
        replicas.transcriber(deadline=0.01).transcribe(loud(0.1), OPTIONS)
    assert replicas.calls[0].cancelled


def test_other_replicas_are_asked_where_the_first_are_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backend._Calls, "HEDGE_SECONDS", 0.0)
    replicas = FakeReplicas([None, None, SAID])
    assert replicas.transcriber().transcribe(loud(0.1), OPTIONS) == SAID
    assert [call.cancelled for call in replicas.calls] == [True, True, False]


def test_others_are_asked_seldom_where_all_are_slow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backend._Calls, "HEDGE_SECONDS", 0.0)
    monkeypatch.setattr(backend.RayTranscriber, "MAX_HEDGES", 3.0)
    front = FakeReplicas([None]).transcriber()
    for expected in (3, 2, 1, 1):
        replicas = FakeReplicas([None])
        front._ask = replicas.ask
        options = stop_when(
            lambda replicas=replicas: bool(  # type: ignore[misc]
                replicas.calls and replicas.calls[0].waits == 8
            )
        )
        with pytest.raises(Abandoned):
            front.transcribe(loud(0.1), options)
        assert len(replicas.calls) == expected
    monkeypatch.setattr(backend.RayTranscriber, "HEDGES_PER_REQUEST", 1.0)
    front._ask = FakeReplicas().ask
    assert front.transcribe(loud(0.1), OPTIONS) == SAID  # which earns another one
    front._ask = FakeReplicas([None, SAID]).ask
    assert front.transcribe(loud(0.1), OPTIONS) == SAID


def test_the_scheduler_has_many_in_flight() -> None:
    together = threading.Barrier(8)

    class Meeting(FakeCall):
        def result(self, *, timeout_s: float) -> Any:
            together.wait(TIMEOUT_SECONDS)
            return super().result(timeout_s=timeout_s)

    front = RayTranscriber(lambda *_: Meeting(SAID), ABOUT, 0, lambda _: 0)
    scheduler = Scheduler(lambda: front)
    scheduler.start()
    jobs = [scheduler.submit(loud(0.1), OPTIONS) for _ in range(8)]
    assert all(job.future.result(TIMEOUT_SECONDS) == SAID for job in jobs)
    assert scheduler.close(TIMEOUT_SECONDS)


# -- opening -------------------------------------------------------------------------------


def test_without_ray_there_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["--backend", "ray", "--model", str(HOME_EN), "--uri", "tcp://127.0.0.1:0"]) == 1
    errors = capsys.readouterr().err.strip().splitlines()
    assert errors[-1].startswith("wyoming-whisper: Ray is not installed: pip install")
    assert "'wyoming-whisper[ray]'" in errors[-1]


class FakeRay:
    """The module ray, as far as it is used to join a cluster."""

    def __init__(self, problem: Exception | None = None) -> None:
        self._problem = problem
        self.left = False

    def init(self, **_: object) -> None:
        if self._problem:
            raise self._problem

    def shutdown(self) -> None:
        self.left = True


@pytest.mark.parametrize(
    ("problem", "kind", "message"),
    [
        (ConnectionError("Could not find any running Ray"), ModelUnavailableError, "ray start"),
        (RuntimeError("Version mismatch:\nRay: 2.60.0"), WyomingWhisperError, "Ray: 2.60.0"),
    ],
)
def test_a_cluster_that_is_not_there_is_one_sentence(
    problem: Exception,
    kind: type[WyomingWhisperError],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backend, "_import_ray", lambda: FakeRay(problem))
    with pytest.raises(kind, match=message) as raised, backend.joined("auto"):
        pass
    assert "\n" not in str(raised.value)


def test_nobody_waits_for_a_machine_that_does_not_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_import_ray", FakeRay)  # would say that all is well
    message = r"no Ray cluster is at 127\.0\.0\.1:1:"
    with pytest.raises(ModelUnavailableError, match=message), backend.joined("127.0.0.1:1"):
        pass


def test_the_cluster_is_left_when_opening_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = FakeRay()
    monkeypatch.setattr(backend, "_import_ray", lambda: ray)
    with pytest.raises(ModelUnavailableError), backend.joined("auto"):
        raise ModelUnavailableError("no replica")
    assert ray.left


def test_nothing_is_reported_to_the_makers_of_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(WyomingWhisperError):
        backend._import_ray()
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
