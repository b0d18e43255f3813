"""The TensorRT backend: when it is chosen, and the real thing on a fake GPU."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from wyoming.info import Describe

from tests.backends.test_engines import until
from tests.engine import fakes
from tests.engine.test_build import children_of
from tests.support import (
    AUDIO,
    HOME_EN,
    TIMEOUT_SECONDS,
    Client,
    FakeTranscriber,
    clips,
    on_state,
    words,
)
from wyoming_whisper.backends import _choose_backend, engines, open_transcriber, tensorrt
from wyoming_whisper.backends.engines import Engines
from wyoming_whisper.backends.faster_whisper import CTranslate2Inference
from wyoming_whisper.backends.tensorrt import Runtime
from wyoming_whisper.commands.client import read_audio
from wyoming_whisper.engine.spec import EngineSpec
from wyoming_whisper.engine.tensorrt.session import TensorRTSession
from wyoming_whisper.errors import SettingsError
from wyoming_whisper.serving.info import ServingInfo
from wyoming_whisper.settings.options import Settings
from wyoming_whisper.status import State, Status
from wyoming_whisper.transcriber import Samples, TranscribeOptions, Transcriber
from wyoming_whisper.whisper.inference import Hypothesis
from wyoming_whisper.whisper.search import SessionInference

ENGLISH = TranscribeOptions(language="en")
OUT_OF_MEMORY = 2
DEFAULT = "10.3.0"


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines.EngineTranscriber, "REOPEN_SECONDS", 0.0)


# -- which backend, and why ----------------------------------------------------------------


def settings(tmp_path: Path, **values: Any) -> Settings:
    return Settings(model=str(HOME_EN), data_dir=(tmp_path,), **values)


def gpu_with(monkeypatch: pytest.MonkeyPatch, version: str = DEFAULT, **options: Any) -> Any:
    """Put a fake GPU into this process, and into the children that build."""
    for name, value in fakes.child_environment(version, **options).items():
        monkeypatch.setenv(name, value)
    return fakes.install(monkeypatch, version, **options)


def named(version: str) -> str:
    library, _, number = version.rpartition("-")
    return f"TensorRT-RTX {number}" if library else f"TensorRT {version}"


@pytest.mark.parametrize("version", fakes.VERSIONS)
def test_tensorrt_is_preferred_where_it_can_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    version: str,
) -> None:
    gpu = gpu_with(monkeypatch, version)
    with caplog.at_level(logging.INFO):
        runtime, why = _choose_backend(settings(tmp_path))
    assert runtime
    assert runtime.name == named(version)
    assert why == f"a {gpu.driver.name} and {named(version)} are here"
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
        runtime, why = _choose_backend(settings(tmp_path, **chosen))
        assert runtime is None
        assert words in why
        assert caplog.messages == [f"backend: faster-whisper, because {why}"]
        caplog.clear()
        assert _choose_backend(settings(tmp_path, backend="tensorrt", **chosen)) == (None, why)
        (record,) = caplog.records
        assert (record.levelname, words in record.getMessage()) == ("WARNING", True)
        with pytest.raises(SettingsError, match="--backend tensorrt") as caught:
            _choose_backend(settings(tmp_path, backend="tensorrt", strict_backend=True, **chosen))
        assert words in str(caught.value)


def test_without_the_tensorrt_package_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu_with(monkeypatch)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    runtime, why = _choose_backend(settings(tmp_path))
    assert runtime is None
    assert "TensorRT is not installed" in why


def test_who_asks_for_faster_whisper_gets_it_and_no_gpu_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: str) -> None:
        raise AssertionError("a GPU was looked for")

    monkeypatch.setattr(Runtime, "find", refuse)
    assert _choose_backend(settings(tmp_path, backend="faster-whisper"))[0] is None


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
    changed = CTranslate2Inference.on_cpu(settings(tmp_path, compute_type=wanted, device="cuda"))
    assert changed.device == "cpu"
    assert CTranslate2Inference.choose_compute_type(changed.compute_type, "cpu") == used


def test_the_cpu_answers_where_the_gpu_that_was_named_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu_with(monkeypatch, installed=False)
    chosen = settings(tmp_path, backend="tensorrt", device="cuda:1", compute_type="float16")
    transcriber = open_transcriber(chosen)
    assert " on CPU " in transcriber.description
    transcriber.close()
    with pytest.raises(SettingsError, match="--device cuda:1: no CUDA device"):
        open_transcriber(dataclasses.replace(chosen, backend="auto"))


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
    assert status.state.description == f"home-en on {gpu.driver.name} in float16 ({named(version)})"
    transcriber.close()
    gpu.assert_nothing_left()


def test_at_the_next_start_the_engine_is_there_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: list[str]
) -> None:
    gpu = gpu_with(monkeypatch)
    open_with_engine(tmp_path, **FULL)[0].close()

    def refuse(*_: object) -> Transcriber:
        raise AssertionError("the CPU's model was loaded")

    monkeypatch.setattr(tensorrt, "open_faster_whisper", refuse)
    for name in ("choose_compute_type", "choose_device"):
        monkeypatch.setattr(CTranslate2Inference, name, refuse)
    transcriber = open_transcriber(settings(tmp_path, **FULL), build_missing=False)
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
    assert all(length % EngineSpec.FRAMES_MULTIPLE == 0 for length in lengths)
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
    on_state(told, seen.append)
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


@pytest.mark.parametrize("version", [DEFAULT, fakes.RTX])
def test_a_gpu_without_memory_leaves_the_cpu_to_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    gpu = gpu_with(monkeypatch, version)
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
    (entry,) = Engines.cache_of(settings(tmp_path)).entries()
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
    assert len(Engines.cache_of(settings(tmp_path)).entries()) == 2


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
    assert Engines.cache_of(settings(tmp_path)).entries() == []


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
    transcriber = open_transcriber(
        settings(tmp_path, backend="tensorrt", **FULL), build_missing=False
    )
    assert all(texts(transcriber))
    assert "on CPU" in transcriber.description
    transcriber.close()
    with pytest.raises(SettingsError, match=f"engine build --model {HOME_EN}"):
        open_transcriber(
            settings(tmp_path, backend="tensorrt", strict_backend=True), build_missing=False
        )
    assert Engines.cache_of(settings(tmp_path)).entries() == []


# -- the whole server ----------------------------------------------------------------------


async def test_the_server_answers_from_the_start_and_loses_no_utterance(tmp_path: Path) -> None:
    """`serve --backend tensorrt`: on the CPU while the engine is built, then from the engine."""
    environment = {**os.environ, **fakes.child_environment("10.3.0")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "ignore", "-m", "wyoming_whisper", "serve"),
        *("--uri", f"unix://{tmp_path}/socket", "--data-dir", str(tmp_path)),
        *("--model", str(HOME_EN), "--backend", "tensorrt", "--beam-size", "1"),
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
        assert len(seen) < 5000
        async with Client(tmp_path) as client:
            await client.speak(language="en", samples=read_audio(str(AUDIO / clip.file)))
            assert words((await client.transcript()).text) == words(clip.text)
            info = ServingInfo.beyond_wyoming(await client.ask(Describe().event()))
            seen.append(str(info["backend"]))
    return seen
