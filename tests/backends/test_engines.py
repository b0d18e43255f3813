"""An engine and its stand-in: who answers, and when they change places."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from benchmarks.lib.servers import DECIDED, UNDECIDED
from tests.support import TIMEOUT_SECONDS, FakeTranscriber, loud
from wyoming_whisper.backends.engines import Compare, Engines, EngineTranscriber
from wyoming_whisper.engine.progress import BuildProgress
from wyoming_whisper.errors import (
    EngineBrokenError,
    EngineError,
    ModelBrokenError,
    ModelError,
    NotPossibleError,
)
from wyoming_whisper.machine.process import NativeThread
from wyoming_whisper.status import Status
from wyoming_whisper.transcriber import Abandoned, TranscribeOptions, Transcriber

ENGLISH = TranscribeOptions(language="en")
MODULE = "wyoming_whisper.backends.engines"


def until(condition: Callable[[], object]) -> None:
    """Wait for another thread; only a hang reaches the end."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class FakeEngines(Engines):
    """What an EngineTranscriber gets its engine from, under a test's control."""

    def __init__(self, *, built: bool = False) -> None:
        self.label = "tiny on a fake"
        self.built = built
        self.may_build = threading.Event()
        self.building = threading.Event()
        self.cancelled = threading.Event()
        self.builds = 0
        self.discards = 0
        self.outcomes: list[Exception | None] = []
        """Of the next opens; None, and after the last, all goes well."""
        self.build_error: Exception | None = None
        self.opened: list[FakeTranscriber] = []
        self.is_quick = True

    def open_quickly(self, folder: Path) -> Transcriber | None:
        return self.open(folder) if self.is_quick else None

    def find(self) -> Path | None:
        return Path("engine") if self.built else None

    def build(self, on_progress: Callable[[BuildProgress], None]) -> Path:
        if not self.built:
            self.builds += 1
            on_progress(BuildProgress("encoder engine", 0.25, 1.0))
            self.building.set()
            while not self.may_build.wait(0.005):
                if self.cancelled.is_set():
                    raise ModelError("the building of the engine was stopped")
            if self.build_error:
                raise self.build_error
            self.built = True
        return Path("engine")

    def open(self, folder: Path, progress: Callable[[float], None] | None = None) -> Transcriber:
        if progress:
            progress(0.5)
        outcome = self.outcomes.pop(0) if self.outcomes else None
        if outcome:
            raise outcome
        self.opened.append(FakeTranscriber(description="the engine"))
        return self.opened[-1]

    def hold_opening(self) -> tuple[threading.Event, threading.Event]:
        """Open at a quarter of the way: the first event says so, the second lets it go on."""
        opening, may_open = threading.Event(), threading.Event()
        open_it = self.open

        def open_later(
            folder: Path, progress: Callable[[float], None] | None = None
        ) -> Transcriber:
            assert progress
            progress(0.25)
            opening.set()
            assert may_open.wait(TIMEOUT_SECONDS)
            return open_it(folder, progress)

        self.open = open_later  # type: ignore[method-assign]
        return opening, may_open

    def discard(self) -> None:
        self.discards += 1
        self.built = False

    def cancel(self) -> None:
        self.cancelled.set()


@dataclasses.dataclass
class Scene:
    engines: FakeEngines
    status: Status
    transcriber: EngineTranscriber
    cpus: list[FakeTranscriber]

    @property
    def cpu(self) -> FakeTranscriber:
        return self.cpus[-1]

    @property
    def engine(self) -> FakeTranscriber:
        return self.engines.opened[-1]

    def speak(self) -> str:
        return self.transcriber.transcribe(loud(0.1), ENGLISH).text

    def build(self) -> None:
        self.engines.may_build.set()
        until(lambda: self.transcriber.has_engine)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{MODULE}.EngineTranscriber.REOPEN_SECONDS", 0.0)


@pytest.fixture
def scene() -> Iterator[Callable[..., Scene]]:
    scenes: list[Scene] = []

    def make(
        engines: FakeEngines, compare: Compare | None = None, wanted: str | None = None
    ) -> Scene:
        cpus: list[FakeTranscriber] = []

        def open_cpu() -> Transcriber:
            cpus.append(FakeTranscriber(description="the CPU"))
            return cpus[-1]

        status = Status()
        transcriber = EngineTranscriber(
            engines, open_cpu, status, compare=compare, why_engine=wanted
        ).open()
        scenes.append(Scene(engines, status, transcriber, cpus))
        return scenes[-1]

    yield make
    for one in scenes:
        one.transcriber.close()


MakeScene = Callable[..., Scene]


def test_an_engine_that_is_there_answers_at_once_and_no_cpu_model_is_loaded(
    scene: MakeScene,
) -> None:
    s = scene(FakeEngines(built=True))
    assert s.speak()
    assert len(s.engine.requests) == 1
    assert s.cpus == []
    assert s.status.state.backend == "tensorrt"
    assert s.status.state.description == s.transcriber.description == "the engine"
    assert s.status.state.why == "tiny on a fake has its engine"


def test_the_cpu_answers_while_the_engine_is_built(scene: MakeScene) -> None:
    s = scene(FakeEngines())
    assert s.engines.building.wait(TIMEOUT_SECONDS)
    assert s.speak()
    assert len(s.cpu.requests) == 1
    state = s.status.state
    assert (state.backend, state.description) == ("faster-whisper", "the CPU")
    assert state.building == "building the engine: encoder engine"
    assert state.building_fraction == 0.25
    s.build()
    assert s.speak()
    assert len(s.engine.requests) == 1
    until(lambda: s.cpu.closed)
    state = s.status.state
    assert (state.backend, state.description, state.building) == ("tensorrt", "the engine", "")
    assert state.building_fraction is None


def test_places_are_changed_between_two_utterances(scene: MakeScene) -> None:
    s = scene(FakeEngines())
    s.cpu.gate.clear()
    answers: list[str] = []
    speaker = threading.Thread(target=lambda: answers.append(s.speak()))
    speaker.start()
    assert s.cpu.started.wait(TIMEOUT_SECONDS)
    s.engines.may_build.set()
    until(lambda: s.engines.opened)
    time.sleep(0.05)
    assert not s.transcriber.has_engine
    assert not s.cpu.closed
    s.cpu.gate.set()
    speaker.join(TIMEOUT_SECONDS)
    assert len(answers) == 1
    until(lambda: s.transcriber.has_engine)
    until(lambda: s.cpu.closed)


def test_an_utterance_that_the_engine_fails_on_is_answered_by_the_cpu(
    scene: MakeScene, caplog: pytest.LogCaptureFixture
) -> None:
    s = scene(FakeEngines(built=True))
    broken = s.engine
    broken.error = EngineError("the GPU failed (cuGraphLaunch: CUDA_ERROR_ILLEGAL_ADDRESS)")
    s.engines.outcomes = [None]
    assert s.speak()
    assert len(s.cpu.requests) == 1
    assert broken.closed
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "CUDA_ERROR_ILLEGAL_ADDRESS" in caplog.text
    until(lambda: s.transcriber.has_engine)
    assert s.engines.builds == 0
    assert s.speak()
    assert len(s.engine.requests) == 1


def test_after_a_second_failure_the_cpu_stays(
    scene: MakeScene, caplog: pytest.LogCaptureFixture
) -> None:
    s = scene(FakeEngines(built=True))
    for _ in range(2):
        until(lambda: s.transcriber.has_engine)
        s.engine.error = EngineError("the GPU failed")
        assert s.speak()
    time.sleep(0.05)
    assert not s.transcriber.has_engine
    assert len(s.engines.opened) == 2
    assert s.speak()
    assert caplog.messages[-1].startswith("the CPU answers: there is no engine until")
    assert s.status.state.backend == "faster-whisper"
    assert "the GPU failed" in s.status.state.why


def test_failures_long_apart_are_forgiven(
    scene: MakeScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{MODULE}.EngineTranscriber.FAILURE_SECONDS", -1.0)
    s = scene(FakeEngines(built=True))
    for n in range(3):
        until(lambda: s.transcriber.has_engine)
        s.engine.error = EngineError(f"failure {n}")
        assert s.speak()
    until(lambda: s.transcriber.has_engine)


def test_whatever_the_engine_raises_the_speaker_gets_an_answer(scene: MakeScene) -> None:
    s = scene(FakeEngines(built=True))
    s.engine.error = ValueError("mel has the shape (80, 1)")
    assert s.speak()
    assert len(s.cpu.requests) == 1


def test_what_the_model_cannot_do_is_no_failure_of_the_engine(scene: MakeScene) -> None:
    s = scene(FakeEngines(built=True))
    s.engine.error = NotPossibleError("this model does not understand german")
    with pytest.raises(NotPossibleError):
        s.speak()
    assert s.transcriber.has_engine
    assert s.cpus == []


def test_a_client_that_leaves_is_no_failure_of_the_engine(scene: MakeScene) -> None:
    s = scene(FakeEngines(built=True))
    s.engine.error = Abandoned()
    with pytest.raises(Abandoned):
        s.speak()
    assert s.transcriber.has_engine
    assert s.cpus == []


def test_an_engine_that_cannot_be_read_is_built_again_once(scene: MakeScene) -> None:
    engines = FakeEngines(built=True)
    engines.outcomes = [EngineBrokenError("encoder.plan can't be read")]
    s = scene(engines)
    s.build()
    assert (engines.discards, engines.builds) == (1, 1)


def test_an_engine_that_cannot_be_read_when_it_was_just_built_is_built_again_once(
    scene: MakeScene,
) -> None:
    engines = FakeEngines()
    engines.outcomes = [EngineBrokenError("encoder.plan can't be read")]
    s = scene(engines)
    s.build()
    assert (engines.discards, engines.builds) == (1, 2)


def test_an_engine_that_is_broken_time_and_again_is_given_up(scene: MakeScene) -> None:
    engines = FakeEngines()
    engines.outcomes = [EngineBrokenError("nonsense")] * 2
    s = scene(engines)
    engines.may_build.set()
    until(lambda: "until the next start" in s.status.state.why)
    assert s.speak()
    assert not s.transcriber.has_engine
    assert s.status.state.building == ""


def test_memory_that_is_short_at_the_start_is_waited_for_once(scene: MakeScene) -> None:
    engines = FakeEngines(built=True)
    engines.outcomes = [EngineError("the GPU ran out of memory")]
    s = scene(engines)
    until(lambda: s.transcriber.has_engine)
    assert engines.builds == 0
    engines = FakeEngines(built=True)
    engines.outcomes = [EngineError("the GPU ran out of memory")] * 2
    s = scene(engines)
    until(lambda: "until the next start" in s.status.state.why)
    assert s.speak()


def test_a_build_that_fails_leaves_the_cpu(
    scene: MakeScene, caplog: pytest.LogCaptureFixture
) -> None:
    engines = FakeEngines()
    engines.build_error = ModelError("the engine could not be built: SIGSEGV")
    s = scene(engines)
    engines.may_build.set()
    until(lambda: "SIGSEGV" in s.status.state.why)
    assert s.speak()
    assert [r.levelname for r in caplog.records if r.name == MODULE] == ["WARNING"]


def test_a_gpu_that_tensorrt_makes_nothing_of_is_left_to_faster_whisper(
    caplog: pytest.LogCaptureFixture,
) -> None:
    engines, status, cpu = FakeEngines(), Status(), FakeTranscriber(description="the CPU")
    engines.build_error = ModelError("the GPU is too old for this TensorRT")
    cuda = FakeTranscriber(description="CUDA")
    transcriber = EngineTranscriber(engines, lambda: cpu, status, lambda: cuda).open()
    assert status.state.description == "the CPU"
    engines.may_build.set()
    with caplog.at_level(logging.INFO):
        until(lambda: cpu.closed)
    assert (status.state.backend, status.state.description) == ("faster-whisper", "CUDA")
    assert "too old" in status.state.why
    assert transcriber.transcribe(loud(0.1), ENGLISH).text
    assert len(cuda.requests) == 1
    transcriber.close()
    assert cuda.closed


def test_a_gpu_that_nobody_makes_anything_of_leaves_the_cpu(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail() -> Transcriber:
        raise ModelBrokenError("the model can't be loaded: CUDA out of memory")

    engines, status, cpu = FakeEngines(), Status(), FakeTranscriber()
    engines.build_error = ModelError("the GPU is too old for this TensorRT")
    transcriber = EngineTranscriber(engines, lambda: cpu, status, fail).open()
    engines.may_build.set()
    until(lambda: "either" in caplog.text)
    assert transcriber.transcribe(loud(0.1), ENGLISH).text
    assert not cpu.closed
    transcriber.close()


def test_a_failing_gpu_is_left_to_nobody() -> None:
    engines, status = FakeEngines(built=True), Status()
    engines.outcomes = [EngineError("the GPU failed")] * 2

    def refuse() -> Transcriber:
        raise AssertionError("the GPU was used again")

    transcriber = EngineTranscriber(engines, FakeTranscriber, status, refuse).open()
    until(lambda: "until the next start" in status.state.why)
    assert transcriber.transcribe(loud(0.1), ENGLISH).text
    transcriber.close()


def test_closing_ends_a_build(scene: MakeScene, caplog: pytest.LogCaptureFixture) -> None:
    s = scene(FakeEngines())
    assert s.engines.building.wait(TIMEOUT_SECONDS)
    s.transcriber.close()
    assert s.engines.cancelled.is_set()
    assert s.cpu.closed
    assert s.engines.opened == []
    assert caplog.messages == []  # what was asked for is no failure


def test_an_engine_that_comes_after_the_end_is_closed(
    scene: MakeScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{MODULE}.EngineTranscriber.CLOSE_SECONDS", 0.0)
    engines = FakeEngines()
    opening, go_on = threading.Event(), threading.Event()
    real = engines.open

    def slow(folder: Path, progress: Callable[[float], None] | None = None) -> Transcriber:
        opening.set()
        assert go_on.wait(TIMEOUT_SECONDS)
        return real(folder, progress)

    engines.open = slow  # type: ignore[method-assign]
    s = scene(engines)
    engines.may_build.set()
    assert opening.wait(TIMEOUT_SECONDS)
    s.transcriber.close()
    go_on.set()
    until(lambda: engines.opened and engines.opened[0].closed)


def test_who_only_transcribes_a_file_builds_nothing() -> None:
    engines = FakeEngines()
    transcriber = EngineTranscriber(engines, FakeTranscriber, Status(), build_missing=False).open()
    assert transcriber.transcribe(loud(0.1), ENGLISH).text
    assert engines.builds == 0
    transcriber.close()


# -- an engine that must be better than its stand-in ---------------------------------------


class Judge:
    """A Compare under a test's control."""

    def __init__(self, outcome: tuple[bool, str] | Exception, *, at_once: bool = True) -> None:
        self.outcome = outcome
        self.asked: list[tuple[Transcriber, Transcriber]] = []
        self.may_say = threading.Event()
        if at_once:
            self.may_say.set()

    def __call__(
        self, engine: Transcriber, stand_in: Transcriber, turn: AbstractContextManager[object]
    ) -> tuple[bool, str]:
        with turn:
            self.asked.append((engine, stand_in))
        assert self.may_say.wait(TIMEOUT_SECONDS)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


FASTER, SLOWER = (True, "it takes half the time"), (False, "it takes twice the time")


def judged(scene: MakeScene, judge: Judge) -> Scene:
    """Return a scene whose engine is being built, as fast as it can be."""
    engines = FakeEngines()
    engines.may_build.set()
    return scene(engines, judge)


def test_an_engine_that_is_better_takes_over_and_why_is_told(scene: MakeScene) -> None:
    judge = Judge(FASTER)
    s = judged(scene, judge)
    until(lambda: s.transcriber.has_engine)
    assert judge.asked == [(s.engine, s.cpu)]
    assert s.speak()
    assert len(s.engine.requests) == 1
    assert (s.status.state.backend, s.status.state.why) == ("tensorrt", FASTER[1])
    until(lambda: s.cpu.closed)


def test_an_engine_that_is_no_better_is_removed_and_the_stand_in_stays(
    scene: MakeScene, caplog: pytest.LogCaptureFixture
) -> None:
    s = judged(scene, Judge(SLOWER))
    until(lambda: s.status.state.why == SLOWER[1])
    assert s.engine.closed
    assert s.engines.discards == 1
    assert not s.transcriber.has_engine
    assert s.speak()
    assert (len(s.cpus), len(s.cpu.requests), s.cpu.closed) == (1, 1, False)
    state = s.status.state
    assert (state.backend, state.description) == ("faster-whisper", "the CPU")
    assert caplog.messages == []  # nothing has failed


def test_while_they_are_compared_the_stand_in_answers(scene: MakeScene) -> None:
    judge = Judge(FASTER, at_once=False)
    s = judged(scene, judge)
    until(lambda: judge.asked)
    assert s.speak()
    assert len(s.cpu.requests) == 1
    assert not s.transcriber.has_engine
    judge.may_say.set()
    until(lambda: s.transcriber.has_engine)


@pytest.mark.parametrize("verdict", [FASTER, SLOWER, RuntimeError("no"), EngineError("no")])
def test_until_all_is_decided_something_is_being_built(
    scene: MakeScene, verdict: tuple[bool, str] | Exception
) -> None:
    """Whoever unloads an idle model asks for that: a comparison would be lost."""
    judge = Judge(verdict, at_once=False)
    s = judged(scene, judge)
    until(lambda: judge.asked)
    assert s.status.state.building == "comparing the engine with faster-whisper"
    judge.may_say.set()
    until(lambda: not s.status.state.building)
    assert s.status.state.why != "its engine is not built yet"


def test_an_engine_that_opens_slowly_is_opened_while_the_cpu_answers(scene: MakeScene) -> None:
    """As one of TensorRT-RTX does on a GPU that it has compiled nothing for."""
    engines = FakeEngines(built=True)
    engines.is_quick = False
    opening, may_open = engines.hold_opening()
    s = scene(engines)
    assert opening.wait(TIMEOUT_SECONDS)
    assert s.status.state.building == "opening the engine"
    assert s.status.state.building_fraction == 0.25
    assert s.status.state.backend == "faster-whisper"
    assert "being opened" in s.status.state.why
    may_open.set()
    until(lambda: s.transcriber.has_engine and not s.status.state.building)
    assert engines.builds == 0


def test_while_an_engine_is_opened_it_is_being_built(scene: MakeScene) -> None:
    engines = FakeEngines()
    engines.may_build.set()
    opening, may_open = engines.hold_opening()
    s = scene(engines)
    assert opening.wait(TIMEOUT_SECONDS)
    assert s.status.state.building == "opening the engine"
    may_open.set()
    until(lambda: s.transcriber.has_engine and not s.status.state.building)


def test_who_was_closed_says_nothing_of_what_is_built_after_it(
    scene: MakeScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{MODULE}.EngineTranscriber.CLOSE_SECONDS", 0.0)
    judge = Judge(FASTER, at_once=False)
    s = judged(scene, judge)
    until(lambda: judge.asked)
    s.transcriber.close()
    assert s.status.state.building == ""
    s.status.update(building="the next one's engine")
    judge.may_say.set()
    until(lambda: s.engine.closed)
    assert s.transcriber._thread is not None
    s.transcriber._thread.join(TIMEOUT_SECONDS)
    assert s.status.state.building == "the next one's engine"


def test_an_engine_that_is_there_and_wanted_is_not_compared(scene: MakeScene) -> None:
    judge = Judge(SLOWER)
    s = scene(FakeEngines(built=True), judge, "it was faster")
    assert s.speak()
    assert s.transcriber.has_engine
    assert judge.asked == []
    assert s.status.state.why == "it was faster"


def test_an_engine_that_is_there_is_compared_where_nobody_knows_it(scene: MakeScene) -> None:
    judge = Judge(SLOWER)
    s = scene(FakeEngines(built=True), judge)
    until(lambda: judge.asked)
    assert s.speak()
    assert not s.transcriber.has_engine


@pytest.mark.parametrize("error", [TypeError("can't be measured"), EngineError("it broke")])
def test_a_comparison_that_fails_leaves_the_stand_in(scene: MakeScene, error: Exception) -> None:
    s = judged(scene, Judge(error))
    until(lambda: str(error) in s.status.state.why and "next start" in s.status.state.why)
    assert s.speak()
    assert len(s.cpu.requests) == 1
    assert not s.transcriber.has_engine
    assert all(engine.closed for engine in s.engines.opened)
    assert s.status.state.backend == "faster-whisper"


def test_an_engine_compared_after_the_end_is_closed(
    scene: MakeScene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(f"{MODULE}.EngineTranscriber.CLOSE_SECONDS", 0.0)
    judge = Judge(RuntimeError("the other one is gone"), at_once=False)
    s = judged(scene, judge)
    until(lambda: judge.asked)
    s.transcriber.close()
    assert s.cpu.closed
    judge.may_say.set()
    until(lambda: s.engine.closed)
    assert caplog.messages == []


def test_closing_ends_a_comparison_which_never_uses_what_is_closed(scene: MakeScene) -> None:
    """Native code that still runs when Python ends would abort."""
    comparing: list[threading.Thread] = []
    used_closed: list[Transcriber] = []

    def compare(
        _: Transcriber, stand_in: Transcriber, turn: AbstractContextManager[object]
    ) -> tuple[bool, str]:
        comparing.append(threading.current_thread())
        while True:
            with turn:
                if isinstance(stand_in, FakeTranscriber) and stand_in.closed:
                    used_closed.append(stand_in)
                    raise AttributeError("it is closed")
            time.sleep(0.001)

    engines = FakeEngines()
    engines.may_build.set()
    s = scene(engines, compare)
    until(lambda: comparing)
    s.transcriber.close()
    assert not comparing[0].is_alive()
    assert s.engine.closed
    assert used_closed == []
    s.transcriber.close()  # again: it changes nothing


def test_a_stand_in_that_cannot_be_opened_leaves_no_thread_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who tries again opens another; the engine of the first would be nobody's, on the GPU."""
    monkeypatch.setattr(f"{MODULE}.EngineTranscriber.REOPEN_SECONDS", 3600.0)
    engines = FakeEngines(built=True)
    engines.outcomes = [EngineError("the GPU failed")]

    def fail() -> Transcriber:
        raise MemoryError

    before = set(threading.enumerate())
    with pytest.raises(MemoryError):
        EngineTranscriber(engines, fail, Status()).open()
    assert set(threading.enumerate()) <= before


def test_the_engines_backend_and_the_stand_in_have_the_names_they_were_given(
    caplog: pytest.LogCaptureFixture,
) -> None:
    engines, status = FakeEngines(), Status()
    with caplog.at_level(logging.INFO):
        transcriber = EngineTranscriber(
            engines, FakeTranscriber, status, backend="onnxruntime", voice="faster-whisper"
        ).open()
        assert "faster-whisper answers until tiny on a fake has its engine" in caplog.messages
        engines.may_build.set()
        until(lambda: status.state.backend == "onnxruntime")
    transcriber.close()


@pytest.mark.parametrize("outcome", [FASTER, SLOWER, TypeError("can't be measured")])
def test_benchmarks_read_from_the_log_when_all_is_decided(
    scene: MakeScene, outcome: tuple[bool, str] | Exception, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    judge = Judge(outcome, at_once=False)
    judged(scene, judge)
    until(lambda: judge.asked)
    log = "".join(f"{message}\n" for message in caplog.messages)
    assert UNDECIDED in log
    assert not any(line in log for line in DECIDED)
    judge.may_say.set()
    until(lambda: any(line in message for line in DECIDED for message in caplog.messages))


def test_who_ends_the_process_knows_the_engines_thread(scene: MakeScene) -> None:
    engines = FakeEngines()
    scene(engines)
    assert engines.building.wait(TIMEOUT_SECONDS)
    assert NativeThread.is_any_alive()
