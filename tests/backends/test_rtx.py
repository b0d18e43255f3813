"""TensorRT-RTX: which GPUs it is for, engines for machines elsewhere, kernels kept for each GPU."""

from __future__ import annotations

import functools
import importlib.metadata
import logging
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.backends.test_engines import until
from tests.backends.test_tensorrt import FULL, gpu_with, open_with_engine, settings, texts
from tests.engine import fakes
from tests.support import on_state
from wyoming_whisper.__main__ import main
from wyoming_whisper.backends import _choose_backend, open_transcriber
from wyoming_whisper.backends.engines import Engines, EngineTranscriber
from wyoming_whisper.backends.pipeline import WhisperTranscriber
from wyoming_whisper.backends.tensorrt import Runtime
from wyoming_whisper.engine.tensorrt.cuda import Gpu, NoGpuError
from wyoming_whisper.engine.tensorrt.library import RTX, TENSORRT, Kernels, Library
from wyoming_whisper.errors import EngineError
from wyoming_whisper.models.store import ModelStore
from wyoming_whisper.status import Status

GPU = Gpu(0, "NVIDIA GeForce RTX 4070", (8, 9), 12 << 30, False, (13, 0))


def gpu_of(compute_capability: tuple[int, int]) -> Gpu:
    return Gpu(0, "some GPU", compute_capability, 8 << 30, False, (13, 0))


@pytest.fixture(autouse=True)
def cuda(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The packages of TensorRT-RTX that are installed, by name."""
    installed = {"tensorrt_rtx_cu13": fakes.RTX.removeprefix("rtx-")}
    real = importlib.metadata.version

    def version(name: str) -> str:
        if not name.startswith("tensorrt_rtx_cu"):
            return real(name)
        if name not in installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    return installed


# -- which library -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("compute_capability", "target"),
    [
        ((7, 5), Library.TURING),
        ((8, 0), Library.AMPERE),
        ((8, 6), Library.AMPERE),
        ((8, 9), Library.AMPERE),
        ((12, 0), Library.AMPERE),
        ((12, 1), Library.AMPERE),
    ],
)
def test_desktop_gpus_share_engines(compute_capability: tuple[int, int], target: object) -> None:
    assert RTX.target(gpu_of(compute_capability)) == target


@pytest.mark.parametrize("compute_capability", [(6, 1), (7, 0), (8, 7), (9, 0), (10, 0), (11, 0)])
def test_other_gpus_are_tensorrts(
    monkeypatch: pytest.MonkeyPatch, compute_capability: tuple[int, int]
) -> None:
    with pytest.raises(NoGpuError, match=r"no GPU for TensorRT-RTX"):
        RTX.target(gpu_of(compute_capability))
    fakes.install(monkeypatch, "10.3.0", compute_capability=compute_capability)
    assert Library.find(gpu_of(compute_capability)) == (TENSORRT, "10.3.0")


def test_rtx_is_preferred_and_tensorrt_is_taken_where_it_is_not_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tensorrt = fakes.install(monkeypatch, "11.4.0.106", compute_capability=(8, 9))
    assert Library.find(GPU) == (TENSORRT, "11.4.0.106")
    fakes.install(monkeypatch, fakes.RTX)
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt.tensorrt.module)
    assert Library.find(GPU) == (RTX, "1.7.1.116")
    assert Library.find(GPU, "tensorrt")[0] is TENSORRT


def test_an_old_driver_leaves_the_gpu_to_tensorrt(
    monkeypatch: pytest.MonkeyPatch, cuda: dict[str, str]
) -> None:
    old = Gpu(0, "NVIDIA GeForce RTX 4070", (8, 9), 12 << 30, False, (12, 4))
    tensorrt = fakes.install(monkeypatch, "10.3.0", compute_capability=(8, 9))
    fakes.install(monkeypatch, fakes.RTX)
    with pytest.raises(EngineError) as caught:
        Library.find(old)
    assert str(caught.value) == (
        "the NVIDIA driver is too old: it knows CUDA 12.4, and the TensorRT-RTX installed here is "
        "for CUDA 13; update the driver, or pip install tensorrt-rtx-cu12 in its place"
    )
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt.tensorrt.module)
    assert Library.find(old)[0] is TENSORRT
    cuda["tensorrt_rtx_cu12"] = cuda.pop("tensorrt_rtx_cu13")
    assert Library.find(old)[0] is RTX


def test_what_is_missing_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gpu_with(monkeypatch, fakes.RTX)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    runtime, why = _choose_backend(settings(tmp_path))
    assert runtime is None
    assert why == (
        "neither TensorRT-RTX nor TensorRT is installed for this Python: "
        "pip install 'wyoming-whisper[tensorrt-rtx]'"
    )


def test_a_version_too_old_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = fakes.install(monkeypatch, fakes.RTX)
    gpu.tensorrt.module.__version__ = "1.2.0"
    with pytest.raises(EngineError, match=r"TensorRT-RTX 1\.2\.0 is too old; 1\.4 is the least"):
        Library.find(GPU)


def test_what_uninstalling_has_left_is_not_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tensorrt_rtx" / "__pycache__").mkdir(parents=True)
    monkeypatch.delitem(sys.modules, "tensorrt_rtx", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(EngineError, match="TensorRT-RTX is installed only in part: pip install"):
        RTX.load()
    del sys.modules["tensorrt_rtx"]  # monkeypatch would put it there again


# -- engines for other machines ------------------------------------------------------------


def build(tmp_path: Path, *flags: str) -> int:
    model = str(settings(tmp_path).model)
    return main(["engine", "build", "--model", model, "--data-dir", str(tmp_path), *flags])


def test_an_engine_that_was_built_without_a_gpu_is_found_on_a_machine_with_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as nas:
        gpu_with(nas, fakes.RTX, installed=False)
        assert build(tmp_path, "--runtime", "tensorrt-rtx", "--beam-size", "1") == 0
    folder = Path(capsys.readouterr().out.strip())
    gpu_with(monkeypatch, fakes.RTX, name="NVIDIA GeForce RTX 5090", compute_capability=(12, 0))
    transcriber, _ = open_with_engine(tmp_path, **FULL)
    (entry,) = Engines.cache_of(settings(tmp_path)).entries()
    assert entry.path == folder
    assert (entry.runtime, entry.device) == ("TensorRT-RTX 1.7.1.116", "Ampere or newer")
    transcriber.close()


def test_turing_has_engines_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as nas:
        gpu_with(nas, fakes.RTX, installed=False)
        for gpus in ("ampere", "turing"):
            assert build(tmp_path, "--gpus", gpus, "--beam-size", "1") == 0
    assert len(set(capsys.readouterr().out.split())) == 2
    gpu_with(monkeypatch, fakes.RTX, compute_capability=(7, 5))
    transcriber, _ = open_with_engine(tmp_path, **FULL)
    assert len(Engines.cache_of(settings(tmp_path)).entries()) == 2
    transcriber.close()


@pytest.mark.parametrize(
    "flags", [("--runtime", "tensorrt-rtx"), ("--gpus", "ampere")], ids=["runtime", "gpus"]
)
def test_what_the_server_runs_on_does_not_matter_to_an_engine_for_others(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: tuple[str, ...],
) -> None:
    monkeypatch.setenv("WYOMING_WHISPER_BACKEND", "onnxruntime")
    gpu_with(monkeypatch, fakes.RTX, installed=False)
    assert build(tmp_path, *flags) == 0
    assert "ampere-or-newer" in capsys.readouterr().out


def test_the_key_is_the_same_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fakes.install(monkeypatch, fakes.RTX)
    chosen = settings(tmp_path)
    path = Path(chosen.model)
    here = Runtime(GPU, RTX, "1.7.1.116").spec(chosen, path).key()
    for gpu in (gpu_of((8, 6)), gpu_of((12, 0))):
        assert Runtime(gpu, RTX, "1.7.1.116").spec(chosen, path).key() == here
    assert Runtime.portable_engines(chosen, path, Library.AMPERE)._key == here
    assert Runtime.portable_engines(chosen, path, Library.TURING)._key != here
    assert Runtime(GPU, TENSORRT, "1.7.1.116").spec(chosen, path).key() != here


def test_tensorrt_itself_is_not_built_without_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu_with(monkeypatch, "10.3.0", installed=False)
    assert build(tmp_path, "--runtime", "tensorrt") == 1
    assert "no NVIDIA driver is installed" in capsys.readouterr().err
    assert build(tmp_path, "--runtime", "tensorrt", "--gpus", "turing") == 1
    assert "--gpus is for --runtime tensorrt-rtx" in capsys.readouterr().err


def test_an_engine_of_the_image_is_found_and_never_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = tmp_path / "shipped"
    gpu_with(monkeypatch, fakes.RTX)
    open_with_engine(shipped, **FULL)[0].close()
    (entry,) = Engines.cache_of(settings(shipped)).entries()
    monkeypatch.setattr(ModelStore, "SHIPPED", shipped)
    transcriber, _ = open_with_engine(tmp_path / "data", **FULL)
    transcriber.close()
    cache = Engines.cache_of(settings(tmp_path / "data"))
    assert cache.entries() == []
    assert [one.path for one in cache.entries(with_others=True)] == [entry.path]
    plan = entry.path / "decoder.plan"
    plan.write_bytes(plan.read_bytes()[:1000])
    transcriber, _ = open_with_engine(tmp_path / "data", **FULL)
    transcriber.close()
    assert len(Engines.cache_of(settings(tmp_path / "data")).entries()) == 1
    assert plan.stat().st_size == 1000


# -- kernels -------------------------------------------------------------------------------


def kernel_files(tmp_path: Path) -> list[Path]:
    return list(tmp_path.glob("engines/kernels/*/*.cache"))


def test_the_gpus_kernels_are_compiled_once_while_the_cpu_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = gpu_with(monkeypatch, fakes.RTX)
    status = Status()
    seen: list[tuple[str, float | None]] = []
    on_state(status, lambda state: seen.append((state.building, state.building_fraction)))
    transcriber = open_transcriber(settings(tmp_path, **FULL), status)
    until(lambda: status.state.backend == "tensorrt")
    assert gpu.tensorrt.compiled
    assert ("opening the engine", 1.0) in seen
    transcriber.close()
    assert len(kernel_files(tmp_path)) == 1
    first = list(gpu.tensorrt.compiled)
    again = open_transcriber(settings(tmp_path, **FULL), build_missing=False)
    assert gpu.tensorrt.compiled == first
    again.close()
    gpu.assert_nothing_left()


def test_where_no_kernels_are_kept_nobody_waits_for_them_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu_with(monkeypatch, fakes.RTX)
    open_with_engine(tmp_path, **FULL)[0].close()
    kernel_files(tmp_path)[0].unlink()
    status = Status()
    transcriber = open_transcriber(settings(tmp_path, **FULL), status)
    assert status.state.backend == "faster-whisper"
    assert all(texts(transcriber))
    until(lambda: status.state.backend == "tensorrt")
    transcriber.close()


def test_later_shapes_keep_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = gpu_with(monkeypatch, fakes.RTX)
    transcriber, _ = open_with_engine(tmp_path, beam_size=1)
    waited = list(gpu.tensorrt.compiled)
    assert all(texts(transcriber))
    assert gpu.tensorrt.compiled == waited
    transcriber.close()


def test_a_bounded_number_of_later_shapes_get_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as prompts of each length; what has none of its own gives the same."""
    gpu = gpu_with(monkeypatch, fakes.RTX)
    transcriber, _ = open_with_engine(tmp_path, **FULL)
    assert isinstance(transcriber, EngineTranscriber)
    engine = transcriber._engine
    assert isinstance(engine, WhisperTranscriber)
    inference = engine._inference
    features = inference.encode(np.zeros((inference.n_mels, 3000), np.float32))
    start = [*engine._tokenizer.sot_sequence("en"), engine._tokenizer.no_timestamps]

    def score(n_tokens: int) -> float:
        prompt = [300 + n_tokens] * n_tokens + start  # no two begin alike
        return float(inference.score(features, prompt, [[300]])[0][0])

    n_before = len(set(gpu.tensorrt.postponed))
    expected = {n_tokens: score(n_tokens) for n_tokens in range(1, 6)}
    n_special = len(set(gpu.tensorrt.postponed))
    assert n_special == n_before + 5
    monkeypatch.setattr(Kernels, "MAX_SHAPES", 0)
    later = [score(n_tokens) for n_tokens in range(6, 20)]
    assert len(set(gpu.tensorrt.postponed)) == n_special
    assert np.isfinite(later).all()
    fresh = inference.encode(np.zeros((inference.n_mels, 3000), np.float32))
    features = fresh  # nothing is remembered of these
    monkeypatch.setattr(Kernels, "specializes", lambda *_: False)
    assert {n: score(n) for n in expected} == pytest.approx(expected, abs=1e-4)
    assert len(set(gpu.tensorrt.postponed)) == n_special
    transcriber.close()
    gpu.assert_nothing_left()


def test_another_driver_has_kernels_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        gpu_with(before, fakes.RTX)
        open_with_engine(tmp_path, **FULL)[0].close()
    (old,) = kernel_files(tmp_path)
    gpu = gpu_with(monkeypatch, fakes.RTX)
    gpu.driver.version = 13010
    open_with_engine(tmp_path, **FULL)[0].close()
    (new,) = kernel_files(tmp_path)
    assert new != old
    assert gpu.tensorrt.compiled


def test_two_gpus_share_an_engine_but_no_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NVIDIA GeForce RTX 3060", "NVIDIA GeForce RTX 4070"):
        with monkeypatch.context() as one:
            gpu_with(one, fakes.RTX, name=name)
            open_with_engine(tmp_path, **FULL)[0].close()
    assert len(Engines.cache_of(settings(tmp_path)).entries()) == 1
    assert len(kernel_files(tmp_path)) == 2


@pytest.mark.parametrize("content", [b"", b"of something else"])
def test_kernels_that_are_of_no_use_are_compiled_again_while_the_cpu_answers(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    content: bytes,
) -> None:
    gpu = gpu_with(monkeypatch, fakes.RTX)
    open_with_engine(tmp_path, **FULL)[0].close()
    (file,) = kernel_files(tmp_path)
    file.write_bytes(content)
    gpu.tensorrt.compiled.clear()
    caplog.set_level(logging.INFO)
    status = Status()
    transcriber = open_transcriber(settings(tmp_path, **FULL), status)
    assert status.state.backend == "faster-whisper"
    assert "takes longer the first time" in status.state.why
    assert all(texts(transcriber))
    until(lambda: status.state.backend == "tensorrt")
    transcriber.close()
    assert gpu.tensorrt.compiled
    assert len(file.read_bytes()) > len(content)
    assert caplog.text.count(f"the kernels in {file} are for something else") == 1
    gpu.assert_nothing_left()


def test_kernels_that_find_no_room_cost_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gpu_with(monkeypatch, fakes.RTX)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("wyoming_whisper.engine.tensorrt.library.write_file", fail)
    with caplog.at_level(logging.WARNING):
        transcriber, _ = open_with_engine(tmp_path, **FULL)
    assert "the GPU's kernels can't be kept" in caplog.text
    assert "No space left on device" in caplog.text
    assert all(texts(transcriber))
    transcriber.close()


def test_the_file_of_kernels_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Kernels, "MAX_BYTES", 8)
    file = tmp_path / "kernels.cache"
    kernels = Kernels(SimpleNamespace(), file)
    for compiled, kept in (
        (b"first", b"first"),
        (b"firstnew", b"firstnew"),
        (b"9" * 9, b"firstnew"),
    ):
        kernels._cache = SimpleNamespace(serialize=lambda compiled=compiled: compiled)
        kernels.save()
        assert file.read_bytes() == kept


def test_an_engine_goes_with_its_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu_with(monkeypatch, fakes.RTX)
    open_with_engine(tmp_path, **FULL)[0].close()
    cache = Engines.cache_of(settings(tmp_path))
    (entry,) = cache.entries()
    assert entry.size_bytes > sum(f.stat().st_size for f in entry.path.iterdir())
    cache.discard(entry.name)
    assert kernel_files(tmp_path) == []


# -- cards that fail -----------------------------------------------------------------------


def test_a_card_that_disappears_leaves_the_cpu_to_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As NVIDIA's driver reports one that fell off the bus: every later call fails."""
    gpu = gpu_with(monkeypatch, fakes.RTX)
    transcriber, status = open_with_engine(tmp_path, **FULL)
    gpu.driver.fail("cuMemcpyHtoDAsync_v2", status=46, sticky=True)
    assert all(texts(transcriber))
    until(lambda: "until the next start" in status.state.why)
    assert status.state.backend == "faster-whisper"
    assert all(texts(transcriber))
    transcriber.close()
    assert len(Engines.cache_of(settings(tmp_path)).entries()) == 1  # it may come back


def test_the_second_of_two_cards_can_be_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = gpu_with(monkeypatch, fakes.RTX, n_devices=2)
    transcriber, _ = open_with_engine(tmp_path, device="cuda:1", **FULL)
    assert gpu.driver._retained[1]
    assert not gpu.driver._retained[0]
    assert all(texts(transcriber))
    transcriber.close()
    gpu.assert_nothing_left()


# -- plans that can't run here -------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("OLD_CUDA_DRIVER", "the NVIDIA driver is too old for it"),
        ("INSUFFICIENT_GPU_MEMORY", "the GPU has too little memory"),
        ("CUDA_ERROR", "the NVIDIA driver does not work"),
    ],
)
def test_why_no_plan_can_run_is_one_sentence_and_the_cpu_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str, words: str
) -> None:
    gpu = gpu_with(monkeypatch, fakes.RTX)
    gpu.tensorrt.invalid = gpu.tensorrt.module.EngineInvalidityDiagnostics[reason]
    status = Status()
    transcriber = open_transcriber(settings(tmp_path, **FULL), status)
    until(lambda: "until the next start" in status.state.why)
    assert words in status.state.why
    assert all(texts(transcriber))
    transcriber.close()
    assert len(Engines.cache_of(settings(tmp_path)).entries()) == 1


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("UNSUPPORTED_CC", "it was built for other GPUs"),
        ("VERSION_MISMATCH", "another TensorRT-RTX built it"),
        ("MALFORMED_ENGINE", "it is cut or damaged"),
    ],
)
def test_a_plan_that_another_one_can_replace_is_built_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    reason: str,
    words: str,
) -> None:
    gpu = gpu_with(monkeypatch, fakes.RTX)
    open_with_engine(tmp_path, **FULL)[0].close()
    module: Any = gpu.tensorrt.module
    real = module.Runtime

    def runtime(logger: Any) -> Any:
        monkeypatch.setattr(module, "Runtime", functools.partial(real))
        gpu.tensorrt.invalid = module.EngineInvalidityDiagnostics[reason]
        made = real(logger)
        validity = made.get_engine_validity

        def once(buffer: Any) -> Any:
            answer = validity(buffer)
            gpu.tensorrt.invalid = 0
            return answer

        made.get_engine_validity = once
        return made

    monkeypatch.setattr(module, "Runtime", runtime)
    transcriber, _ = open_with_engine(tmp_path, **FULL)
    assert words in caplog.text
    assert "it is built again" in caplog.text
    transcriber.close()
