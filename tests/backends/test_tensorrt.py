"""The TensorRT backend: who answers while there is no engine, and when it fails."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from wyoming.info import Describe, Info

from tests.engine import fakes
from tests.engine.test_build import children_of
from tests.support import AUDIO, TIMEOUT_SECONDS, Client, FakeTranscriber, clips, loud, words
from wyoming_whisper.backends import choose_backend, open_transcriber, tensorrt
from wyoming_whisper.backends.engines import EngineTranscriber, engine_cache
from wyoming_whisper.backends.faster_whisper import choose_compute_type
from wyoming_whisper.backends.tensorrt import (
    FRAMES_MULTIPLE,
    Runtime,
    engine_spec,
    on_cpu,
)
from wyoming_whisper.client import read_audio
from wyoming_whisper.engine.build import BuildProgress
from wyoming_whisper.engine.cuda import Gpu
from wyoming_whisper.engine.trt import TensorRTSession
from wyoming_whisper.errors import (
    EngineBrokenError,
    EngineBuildError,
    EngineError,
    ModelBrokenError,
    SettingsError,
    UnknownLanguageError,
)
from wyoming_whisper.info import backend_of
from wyoming_whisper.settings import Settings
from wyoming_whisper.status import State, Status
from wyoming_whisper.transcriber import (
    Abandoned,
    Samples,
    TranscribeOptions,
    Transcriber,
)
from wyoming_whisper.whisper.decoding import Hypothesis
from wyoming_whisper.whisper.search import SessionInference

ENGLISH = TranscribeOptions(language="en")
OUT_OF_MEMORY = 2


def until(condition: Callable[[], object]) -> None:
    """Wait for another thread; only a hang reaches the end."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


# -- changing places, with an engine that pretends -----------------------------------------


class Engines:
    """An EngineSource under a test's control."""

    label = "tiny on a fake"

    def __init__(self, *, built: bool = False) -> None:
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

    def find(self) -> Path | None:
        return Path("engine") if self.built else None

    def build(self, on_progress: Callable[[BuildProgress], None]) -> Path:
        if not self.built:
            self.builds += 1
            on_progress(BuildProgress("encoder engine", 0.25, 1.0))
            self.building.set()
            while not self.may_build.wait(0.005):
                if self.cancelled.is_set():
                    raise EngineBuildError("the building of the engine was stopped")
            if self.build_error:
                raise self.build_error
            self.built = True
        return Path("engine")

    def open(self, folder: Path) -> Transcriber:
        outcome = self.outcomes.pop(0) if self.outcomes else None
        if outcome:
            raise outcome
        self.opened.append(FakeTranscriber(description="the engine"))
        return self.opened[-1]

    def discard(self) -> None:
        self.discards += 1
        self.built = False

    def cancel(self) -> None:
        self.cancelled.set()


@dataclasses.dataclass
class Scene:
    engines: Engines
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
        until(lambda: self.transcriber.on_gpu)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt, "REOPEN_SECONDS", 0.0)


@pytest.fixture
def scene() -> Iterator[Callable[..., Scene]]:
    scenes: list[Scene] = []

    def make(engines: Engines) -> Scene:
        cpus: list[FakeTranscriber] = []

        def open_cpu() -> Transcriber:
            cpus.append(FakeTranscriber(description="the CPU"))
            return cpus[-1]

        status = Status()
        scenes.append(Scene(engines, status, EngineTranscriber(engines, open_cpu, status), cpus))
        return scenes[-1]

    yield make
    for one in scenes:
        one.transcriber.close()


MakeScene = Callable[[Engines], Scene]


def test_an_engine_that_is_there_answers_at_once_and_no_cpu_model_is_loaded(
    scene: MakeScene,
) -> None:
    s = scene(Engines(built=True))
    assert s.speak()
    assert len(s.engine.requests) == 1
    assert s.cpus == []
    assert s.status.state.backend == "tensorrt"
    assert s.status.state.description == s.transcriber.description == "the engine"


def test_the_cpu_answers_while_the_engine_is_built(scene: MakeScene) -> None:
    s = scene(Engines())
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
    s = scene(Engines())
    s.cpu.gate.clear()
    answers: list[str] = []
    speaker = threading.Thread(target=lambda: answers.append(s.speak()))
    speaker.start()
    assert s.cpu.started.wait(TIMEOUT_SECONDS)
    s.engines.may_build.set()
    until(lambda: s.engines.opened)
    time.sleep(0.05)
    assert not s.transcriber.on_gpu
    assert not s.cpu.closed
    s.cpu.gate.set()
    speaker.join(TIMEOUT_SECONDS)
    assert len(answers) == 1
    until(lambda: s.transcriber.on_gpu)
    until(lambda: s.cpu.closed)


def test_an_utterance_that_the_engine_fails_on_is_answered_by_the_cpu(
    scene: MakeScene, caplog: pytest.LogCaptureFixture
) -> None:
    s = scene(Engines(built=True))
    broken = s.engine
    broken.error = EngineError("the GPU failed (cuGraphLaunch: CUDA_ERROR_ILLEGAL_ADDRESS)")
    s.engines.outcomes = [None]
    assert s.speak()
    assert len(s.cpu.requests) == 1
    assert broken.closed
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "CUDA_ERROR_ILLEGAL_ADDRESS" in caplog.text
    until(lambda: s.transcriber.on_gpu)
    assert s.engines.builds == 0
    assert s.speak()
    assert len(s.engine.requests) == 1


def test_after_a_second_failure_the_cpu_stays(
    scene: MakeScene, caplog: pytest.LogCaptureFixture
) -> None:
    s = scene(Engines(built=True))
    for _ in range(2):
        until(lambda: s.transcriber.on_gpu)
        s.engine.error = EngineError("the GPU failed")
        assert s.speak()
    time.sleep(0.05)
    assert not s.transcriber.on_gpu
    assert len(s.engines.opened) == 2
    assert s.speak()
    assert caplog.messages[-1].startswith("the CPU answers: there is no engine until")
    assert s.status.state.backend == "faster-whisper"
    assert "the GPU failed" in s.status.state.why


def test_failures_long_apart_are_forgiven(
    scene: MakeScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorrt, "FAILURE_SECONDS", -1.0)
    s = scene(Engines(built=True))
    for n in range(3):
        until(lambda: s.transcriber.on_gpu)
        s.engine.error = EngineError(f"failure {n}")
        assert s.speak()
    until(lambda: s.transcriber.on_gpu)


def test_whatever_the_engine_raises_the_speaker_gets_an_answer(scene: MakeScene) -> None:
    s = scene(Engines(built=True))
    s.engine.error = ValueError("mel has the shape (80, 1)")
    assert s.speak()
    assert len(s.cpu.requests) == 1


def test_a_language_that_the_model_lacks_is_no_failure_of_the_engine(scene: MakeScene) -> None:
    s = scene(Engines(built=True))
    s.engine.error = UnknownLanguageError("this model does not understand german")
    with pytest.raises(UnknownLanguageError):
        s.speak()
    assert s.transcriber.on_gpu
    assert s.cpus == []


def test_a_client_that_leaves_is_no_failure_of_the_engine(scene: MakeScene) -> None:
    s = scene(Engines(built=True))
    s.engine.error = Abandoned()
    with pytest.raises(Abandoned):
        s.speak()
    assert s.transcriber.on_gpu
    assert s.cpus == []


def test_an_engine_that_cannot_be_read_is_built_again_once(scene: MakeScene) -> None:
    engines = Engines(built=True)
    engines.outcomes = [EngineBrokenError("encoder.plan can't be read")]
    s = scene(engines)
    s.build()
    assert (engines.discards, engines.builds) == (1, 1)


def test_an_engine_that_cannot_be_read_when_it_was_just_built_is_built_again_once(
    scene: MakeScene,
) -> None:
    engines = Engines()
    engines.outcomes = [EngineBrokenError("encoder.plan can't be read")]
    s = scene(engines)
    s.build()
    assert (engines.discards, engines.builds) == (1, 2)


def test_an_engine_that_is_broken_time_and_again_is_given_up(scene: MakeScene) -> None:
    engines = Engines()
    engines.outcomes = [EngineBrokenError("nonsense")] * 2
    s = scene(engines)
    engines.may_build.set()
    until(lambda: "until the next start" in s.status.state.why)
    assert s.speak()
    assert not s.transcriber.on_gpu
    assert s.status.state.building == ""


def test_memory_that_is_short_at_the_start_is_waited_for_once(scene: MakeScene) -> None:
    engines = Engines(built=True)
    engines.outcomes = [EngineError("the GPU ran out of memory")]
    s = scene(engines)
    until(lambda: s.transcriber.on_gpu)
    assert engines.builds == 0
    engines = Engines(built=True)
    engines.outcomes = [EngineError("the GPU ran out of memory")] * 2
    s = scene(engines)
    until(lambda: "until the next start" in s.status.state.why)
    assert s.speak()


def test_a_build_that_fails_leaves_the_cpu(
    scene: MakeScene, caplog: pytest.LogCaptureFixture
) -> None:
    engines = Engines()
    engines.build_error = EngineBuildError("the engine could not be built: SIGSEGV")
    s = scene(engines)
    engines.may_build.set()
    until(lambda: "SIGSEGV" in s.status.state.why)
    assert s.speak()
    assert [r.levelname for r in caplog.records if r.name.endswith("tensorrt")] == ["WARNING"]


def test_a_gpu_that_tensorrt_makes_nothing_of_is_left_to_faster_whisper(
    caplog: pytest.LogCaptureFixture,
) -> None:
    engines, status, cpu = Engines(), Status(), FakeTranscriber(description="the CPU")
    engines.build_error = EngineBuildError("the GPU is too old for this TensorRT")
    cuda = FakeTranscriber(description="CUDA")
    transcriber = EngineTranscriber(engines, lambda: cpu, status, lambda: cuda)
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

    engines, status, cpu = Engines(), Status(), FakeTranscriber()
    engines.build_error = EngineBuildError("the GPU is too old for this TensorRT")
    transcriber = EngineTranscriber(engines, lambda: cpu, status, fail)
    engines.may_build.set()
    until(lambda: "either" in caplog.text)
    assert transcriber.transcribe(loud(0.1), ENGLISH).text
    assert not cpu.closed
    transcriber.close()


@pytest.mark.parametrize(("devices", "opened"), [(0, None), (1, "CUDA")])
def test_faster_whisper_gets_the_gpu_where_ctranslate2_has_cuda(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, devices: int, opened: str | None
) -> None:
    monkeypatch.setattr("ctranslate2.get_cuda_device_count", lambda: devices)
    cuda = FakeTranscriber(description="CUDA")
    monkeypatch.setattr(tensorrt, "open_faster_whisper", lambda *_: cuda)
    found = tensorrt._open_on_cuda(settings(tmp_path), tmp_path)
    assert (found and found.description) == opened
    assert tensorrt._open_on_cuda(settings(tmp_path, device="cuda:5"), tmp_path) is None


def test_a_failing_gpu_is_left_to_nobody() -> None:
    engines, status = Engines(built=True), Status()
    engines.outcomes = [EngineError("the GPU failed")] * 2

    def refuse() -> Transcriber:
        raise AssertionError("the GPU was used again")

    transcriber = EngineTranscriber(engines, FakeTranscriber, status, refuse)
    until(lambda: "until the next start" in status.state.why)
    assert transcriber.transcribe(loud(0.1), ENGLISH).text
    transcriber.close()


def test_closing_ends_a_build(scene: MakeScene, caplog: pytest.LogCaptureFixture) -> None:
    s = scene(Engines())
    assert s.engines.building.wait(TIMEOUT_SECONDS)
    s.transcriber.close()
    assert s.engines.cancelled.is_set()
    assert s.cpu.closed
    assert s.engines.opened == []
    assert caplog.messages == []  # what was asked for is no failure


def test_an_engine_that_comes_after_the_end_is_closed(
    scene: MakeScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorrt, "CLOSE_SECONDS", 0.0)
    engines = Engines()
    opening, go_on = threading.Event(), threading.Event()
    real = engines.open

    def slow(folder: Path) -> Transcriber:
        opening.set()
        assert go_on.wait(TIMEOUT_SECONDS)
        return real(folder)

    engines.open = slow  # type: ignore[method-assign]
    s = scene(engines)
    engines.may_build.set()
    assert opening.wait(TIMEOUT_SECONDS)
    s.transcriber.close()
    go_on.set()
    until(lambda: engines.opened and engines.opened[0].closed)


def test_who_only_transcribes_a_file_builds_nothing() -> None:
    engines = Engines()
    transcriber = EngineTranscriber(engines, FakeTranscriber)
    assert transcriber.transcribe(loud(0.1), ENGLISH).text
    assert engines.builds == 0
    transcriber.close()


# -- which backend, and why ----------------------------------------------------------------


def settings(tmp_path: Path, **values: Any) -> Settings:
    return Settings(model="home-en", data_dir=(tmp_path,), **values)


def gpu_with(monkeypatch: pytest.MonkeyPatch, version: str = "10.3.0", **options: Any) -> Any:
    """Put a fake GPU into this process, and into the children that build."""
    for name, value in fakes.child_environment(version, **options).items():
        monkeypatch.setenv(name, value)
    return fakes.install(monkeypatch, version, **options)


@pytest.mark.parametrize("version", fakes.VERSIONS)
def test_tensorrt_is_preferred_where_it_can_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    version: str,
) -> None:
    gpu_with(monkeypatch, version)
    with caplog.at_level(logging.INFO):
        runtime, why = choose_backend(settings(tmp_path))
    assert runtime
    assert (runtime.gpu.name, runtime.tensorrt) == ("Fake Orin", version)
    assert why == f"a Fake Orin and TensorRT {version} are here"
    assert caplog.messages == [f"backend: tensorrt, because {why}"]


MISSING = [
    ({"installed": False}, {}, "no NVIDIA driver is installed"),
    ({"n_devices": 0}, {}, "finds no GPU"),
    ({"compute_capability": (5, 3)}, {}, "too old"),
    ({}, {"device": "cuda:1"}, "--device cuda:1: the driver finds 1 GPU"),
    ({}, {"device": "cpu"}, "--device is cpu"),
]


@pytest.mark.parametrize(("options", "chosen", "words"), MISSING)
def test_what_is_missing_is_said_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    options: dict[str, Any],
    chosen: dict[str, Any],
    words: str,
) -> None:
    gpu_with(monkeypatch, **options)
    with caplog.at_level(logging.INFO):
        runtime, why = choose_backend(settings(tmp_path, **chosen))
        assert runtime is None
        assert words in why
        assert caplog.messages == [f"backend: faster-whisper, because {why}"]
        caplog.clear()
        assert choose_backend(settings(tmp_path, backend="tensorrt", **chosen)) == (None, why)
        (record,) = caplog.records
        assert (record.levelname, words in record.getMessage()) == ("WARNING", True)
        with pytest.raises(SettingsError, match="--backend tensorrt") as caught:
            choose_backend(settings(tmp_path, backend="tensorrt", strict_backend=True, **chosen))
        assert words in str(caught.value)


def test_without_the_tensorrt_package_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu_with(monkeypatch)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    runtime, why = choose_backend(settings(tmp_path))
    assert runtime is None
    assert "TensorRT is not installed" in why


def test_who_asks_for_faster_whisper_gets_it_and_no_gpu_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: str) -> None:
        raise AssertionError("a GPU was looked for")

    monkeypatch.setattr(tensorrt, "find_runtime", refuse)
    assert choose_backend(settings(tmp_path, backend="faster-whisper"))[0] is None


@pytest.mark.parametrize(
    ("model", "folder", "name"),
    [
        ("base", "anywhere", "base"),
        ("auto", "models--Systran--faster-whisper-tiny/snapshots/abc", "faster-whisper-tiny"),
        ("auto", "data/tiny", "auto"),
    ],
)
def test_the_engine_of_auto_has_the_name_of_what_was_chosen(
    model: str, folder: str, name: str
) -> None:
    runtime = Runtime(Gpu(0, "Orin", (8, 7), 8 << 30, True, (12, 6)), "10.3.0")
    assert engine_spec(Settings(model=model), Path(folder), runtime).model == name


@pytest.mark.parametrize(
    ("wanted", "used"),
    [("default", "int8_float32"), ("float32", "float32"), ("float16", "int8_float32")],
)
def test_the_cpu_that_stands_in_leaves_the_gpu_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: str, used: str
) -> None:
    monkeypatch.setattr(
        "ctranslate2.get_supported_compute_types", lambda _: {"int8_float32", "float32"}
    )
    changed = on_cpu(settings(tmp_path, compute_type=wanted, device="cuda"))
    assert changed.device == "cpu"
    assert choose_compute_type(changed.compute_type, "cpu") == used


# -- the real thing on a fake GPU ----------------------------------------------------------


FULL = {"beam_size": 1, "audio_context": "full"}


def texts(transcriber: Transcriber) -> list[str]:
    return [transcriber.transcribe(samples, ENGLISH).text for samples in spoken()]


@functools.cache
def spoken() -> list[Samples]:
    """The first one of all is no good: the model is not sure of it, and says nothing."""
    return [read_audio(str(AUDIO / clip.file)) for clip in clips("clean")[1:4]]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("data")
    cpu = open_transcriber(
        settings(folder, backend="faster-whisper", compute_type="float32", **FULL)
    )
    found = texts(cpu)
    cpu.close()
    assert all(found)
    return found


def open_with_engine(tmp_path: Path, **values: Any) -> tuple[Transcriber, Status]:
    status = Status()
    transcriber = open_transcriber(settings(tmp_path, **values), status)
    until(lambda: status.state.backend == "tensorrt")
    return transcriber, status


@pytest.mark.parametrize("version", fakes.VERSIONS)
def test_the_engine_writes_what_the_cpu_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: list[str], version: str
) -> None:
    gpu = gpu_with(monkeypatch, version)
    transcriber, status = open_with_engine(tmp_path, **FULL)
    assert texts(transcriber) == expected
    assert status.state.description == f"home-en on Fake Orin in float16 (TensorRT {version})"
    transcriber.close()
    gpu.assert_nothing_left()


def test_at_the_next_start_the_engine_is_there_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: list[str]
) -> None:
    gpu = gpu_with(monkeypatch)
    open_with_engine(tmp_path, **FULL)[0].close()

    def refuse(*_: object) -> Transcriber:
        raise AssertionError("the CPU's model was loaded")

    for name in ("open_faster_whisper", "choose_compute_type", "choose_device"):
        monkeypatch.setattr(tensorrt, name, refuse)
    transcriber = open_transcriber(settings(tmp_path, **FULL))
    assert texts(transcriber) == expected
    transcriber.close()
    gpu.assert_nothing_left()


def test_beams_are_built_when_they_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu_with(monkeypatch)
    transcriber, _ = open_with_engine(tmp_path, beam_size=3, audio_context="full")
    cpu = open_transcriber(
        settings(
            tmp_path,
            backend="faster-whisper",
            compute_type="float32",
            beam_size=3,
            audio_context="full",
        )
    )
    assert texts(transcriber) == texts(cpu)
    transcriber.close()
    cpu.close()


def test_windows_have_few_lengths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu_with(monkeypatch)
    transcriber, _ = open_with_engine(tmp_path)
    lengths: list[int] = []
    real = TensorRTSession.encode

    def spy(self: Any, mel: Any) -> Any:
        lengths.append(mel.shape[1])
        return real(self, mel)

    monkeypatch.setattr(TensorRTSession, "encode", spy)
    for seconds in (0.5, 1.9, 2.0, 2.1, 7.7):
        transcriber.transcribe(np.zeros(round(seconds * 16000), np.float32) + 0.01, ENGLISH)
    transcriber.close()
    assert lengths
    assert all(length % FRAMES_MULTIPLE == 0 for length in lengths)
    assert max(lengths) <= 1000


@pytest.mark.parametrize(
    ("call", "status"),
    [("cuGraphLaunch", 719), ("cuMemcpyHtoDAsync_v2", 719), ("cuStreamSynchronize", OUT_OF_MEMORY)],
)
def test_an_error_of_cuda_costs_nobody_an_answer(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    expected: list[str],
    call: str,
    status: int,
) -> None:
    gpu = gpu_with(monkeypatch)
    transcriber, told = open_with_engine(tmp_path, compute_type="float32", **FULL)
    seen: list[State] = []
    told.on_state(seen.append)
    gpu.driver.fail(call, status=status)
    assert transcriber.transcribe(spoken()[0], ENGLISH).text == expected[0]
    until(lambda: told.state.backend == "tensorrt")
    assert texts(transcriber) == expected
    between = next(state for state in seen if state.backend == "faster-whisper")
    assert call in between.why
    transcriber.close()
    gpu.assert_nothing_left()


def test_a_gpu_that_died_leaves_the_cpu_to_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: list[str]
) -> None:
    """After an illegal address every call fails, also those of the second try."""
    gpu = gpu_with(monkeypatch)
    transcriber, told = open_with_engine(tmp_path, compute_type="float32", **FULL)
    gpu.driver.fail("cuGraphLaunch", status=700, sticky=True)
    assert texts(transcriber) == expected
    until(lambda: "until the next start" in told.state.why)
    assert told.state.backend == "faster-whisper"
    assert texts(transcriber) == expected
    transcriber.close()


def test_a_gpu_without_memory_leaves_the_cpu_to_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gpu = gpu_with(monkeypatch)
    open_with_engine(tmp_path, **FULL)[0].close()
    gpu.driver.total_bytes = 1 << 20
    status = Status()
    transcriber = open_transcriber(settings(tmp_path, **FULL), status)
    assert all(texts(transcriber))
    until(lambda: "until the next start" in status.state.why)
    assert "memory" in status.state.why
    transcriber.close()
    gpu.assert_nothing_left()


def test_a_cut_plan_is_built_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gpu_with(monkeypatch)
    open_with_engine(tmp_path, **FULL)[0].close()
    (entry,) = engine_cache(settings(tmp_path)).entries()
    plan = entry.path / "decoder.plan"
    plan.write_bytes(plan.read_bytes()[:1000])
    transcriber, _ = open_with_engine(tmp_path, **FULL)
    assert "decoder.plan is damaged" in caplog.text
    transcriber.close()


def test_an_update_of_tensorrt_builds_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        gpu_with(before, "10.3.0")
        open_with_engine(tmp_path, **FULL)[0].close()
    gpu_with(monkeypatch, "10.16.1")
    transcriber, status = open_with_engine(tmp_path, **FULL)
    assert "10.16.1" in status.state.description
    transcriber.close()
    assert len(engine_cache(settings(tmp_path)).entries()) == 2


def test_an_engine_that_computes_nonsense_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu_with(monkeypatch)
    monkeypatch.setattr(
        SessionInference,
        "generate",
        lambda *_: Hypothesis([1], float("nan"), 0.0),
    )
    status = Status()
    transcriber = open_transcriber(settings(tmp_path, **FULL), status)
    until(lambda: "until the next start" in status.state.why)
    assert "computes nonsense" in status.state.why
    assert all(texts(transcriber))
    transcriber.close()


@pytest.mark.parametrize("how", ["fail", "crash"])
def test_a_build_that_goes_wrong_leaves_the_cpu_to_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    gpu_with(monkeypatch, build=how)
    status = Status()
    transcriber = open_transcriber(settings(tmp_path, **FULL), status)
    assert all(texts(transcriber))
    until(lambda: "could not be built" in status.state.why)
    assert status.state.backend == "faster-whisper"
    assert all(texts(transcriber))
    transcriber.close()
    assert engine_cache(settings(tmp_path)).entries() == []


def test_closing_in_the_middle_of_a_build_ends_its_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu_with(monkeypatch, build="hang")
    status = Status()
    transcriber = open_transcriber(settings(tmp_path, **FULL), status)
    until(lambda: "engine" in status.state.building)
    transcriber.close()
    until(lambda: children_of(os.getpid()) == [])


def test_a_command_uses_an_engine_but_builds_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu_with(monkeypatch)
    transcriber = open_transcriber(settings(tmp_path, backend="tensorrt", **FULL))
    assert all(texts(transcriber))
    assert "on CPU" in transcriber.description
    transcriber.close()
    with pytest.raises(SettingsError, match="engine build --model home-en"):
        open_transcriber(settings(tmp_path, backend="tensorrt", strict_backend=True))
    assert engine_cache(settings(tmp_path)).entries() == []


# -- the whole server ----------------------------------------------------------------------


async def test_the_server_answers_from_the_start_and_loses_no_utterance(tmp_path: Path) -> None:
    """`serve --backend tensorrt`: on the CPU while the engine is built, then from the engine."""
    environment = {**os.environ, **fakes.child_environment("10.3.0")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "ignore", "-m", "wyoming_whisper", "serve"),
        *("--uri", f"unix://{tmp_path}/socket", "--data-dir", str(tmp_path)),
        *("--model", "home-en", "--backend", "tensorrt", "--beam-size", "1"),
        stderr=asyncio.subprocess.PIPE,
        env=environment,
    )
    log: list[str] = []
    listening = asyncio.Event()

    async def read_log() -> None:
        assert process.stderr
        async for line in process.stderr:
            log.append(line.decode())
            if "listening" in log[-1]:
                listening.set()

    reading = asyncio.create_task(read_log())
    try:
        await asyncio.wait_for(listening.wait(), TIMEOUT_SECONDS)
        seen = await _backends_while_speaking(tmp_path)
        process.terminate()
        assert await asyncio.wait_for(process.wait(), TIMEOUT_SECONDS) == 0
    finally:
        if process.returncode is None:
            process.kill()
        await reading
        print(*log, sep="")  # told where the test fails
    assert list(dict.fromkeys(seen)) == ["faster-whisper", "tensorrt"]
    assert seen == sorted(seen)  # once changed, never back
    told = "".join(log)
    assert told.count("from now on the engine answers") == 1
    assert "WARNING" not in told
    assert "ERROR" not in told


async def _backends_while_speaking(tmp_path: Path) -> list[str]:
    """Speak until the engine has answered three times; return who answered, as `info` says."""
    clip = clips("clean")[1]
    seen: list[str] = []
    while seen.count("tensorrt") < 3:
        assert len(seen) < 200
        async with Client(tmp_path) as client:
            await client.speak(language="en", samples=read_audio(str(AUDIO / clip.file)))
            assert words((await client.transcript()).text) == words(clip.text)
            info = Info.from_event(await client.ask(Describe().event())).asr[0].models[0]
        seen.append(str(backend_of(info.description or "")[0]))
    return seen
