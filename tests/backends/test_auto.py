"""`--model auto`: first the backend, then the model for what it runs on. No GPU is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support import FakeTranscriber
from wyoming_whisper import backends
from wyoming_whisper.backends import gpu_of, model_of, open_transcriber
from wyoming_whisper.backends.faster_whisper import CTranslate2Inference
from wyoming_whisper.backends.tensorrt import Runtime
from wyoming_whisper.engine.tensorrt.cuda import Gpu, NoGpuError
from wyoming_whisper.engine.tensorrt.library import TENSORRT
from wyoming_whisper.errors import ModelUnavailableError, SettingsError
from wyoming_whisper.models import autopick
from wyoming_whisper.settings.options import Settings

GIB = 1024**3
JETSON = Gpu(0, "Orin", (8, 7), 16 * GIB, integrated=True, cuda_version=(12, 6))
SMALL_JETSON = Gpu(0, "Orin", (8, 7), 8 * GIB, integrated=True, cuda_version=(12, 6))
CARD = Gpu(0, "RTX", (8, 6), 12 * GIB, integrated=False, cuda_version=(12, 6))


@pytest.fixture(autouse=True)
def _no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autopick, "_yardstick_s", lambda *_: 0.302)
    autopick._say_once.cache_clear()


def machine(
    monkeypatch: pytest.MonkeyPatch, gpus: list[Gpu], *, tensorrt_here: bool, cuda: bool
) -> None:
    """Set what driver, TensorRT and CTranslate2 say."""

    def find_gpus() -> list[Gpu]:
        if not gpus:
            raise NoGpuError("there is no driver")
        return gpus

    def find_runtime(_: str) -> Runtime:
        if not tensorrt_here:
            raise NoGpuError("TensorRT is not installed")
        return Runtime(find_gpus()[0], TENSORRT, "10.3")

    def choose_device(device: str) -> tuple[str, int]:
        if device != "auto" and not cuda:
            raise SettingsError("no CUDA device is here")
        return ("cuda" if cuda else "cpu"), 0

    monkeypatch.setattr(Gpu, "all", find_gpus)
    monkeypatch.setattr(Runtime, "find", find_runtime)
    monkeypatch.setattr(CTranslate2Inference, "choose_device", choose_device)


def settings(tmp_path: Path, **values: Any) -> Settings:
    return Settings(data_dir=(tmp_path,), local_files_only=True, **values)


@pytest.mark.parametrize(
    ("gpus", "tensorrt_here", "cuda", "values", "expected"),
    [
        ([JETSON], True, False, {}, JETSON),  # of which CTranslate2 knows nothing
        ([JETSON], True, False, {"backend": "tensorrt"}, JETSON),
        ([JETSON], False, False, {}, None),
        ([JETSON], True, False, {"backend": "faster-whisper"}, None),
        ([CARD], False, True, {}, CARD),
        ([CARD], False, True, {"backend": "faster-whisper"}, CARD),
        ([CARD], True, True, {"backend": "onnxruntime"}, None),
        ([CARD], True, True, {"device": "cpu"}, None),
        ([CARD], False, False, {"device": "cuda"}, None),
        ([], True, True, {}, None),
    ],
)
def test_the_gpu_is_the_one_that_the_backend_runs_on(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    gpus: list[Gpu],
    tensorrt_here: bool,
    cuda: bool,
    values: dict[str, str],
    expected: Gpu | None,
) -> None:
    machine(monkeypatch, gpus, tensorrt_here=tensorrt_here, cuda=cuda)
    assert gpu_of(settings(tmp_path, **values)) == expected


@pytest.mark.parametrize(
    ("gpu", "name"), [(JETSON, "turbo"), (SMALL_JETSON, "small"), (CARD, "turbo")]
)
def test_on_a_gpu_with_tensorrt_auto_is_the_gpus_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpu: Gpu, name: str
) -> None:
    machine(monkeypatch, [gpu], tensorrt_here=True, cuda=False)
    with pytest.raises(ModelUnavailableError, match=f"auto: model {name} "):
        model_of(settings(tmp_path))


def test_a_name_is_taken_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailableError, match="model tiny "):
        model_of(settings(tmp_path, model="tiny"))


def test_the_backend_is_chosen_before_the_model_and_all_below_know_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        backends, "_choose_backend", lambda _: (Runtime(JETSON, TENSORRT, "10.3"), "why")
    )
    seen: list[object] = []

    def ensure(self: autopick.AutoModel, _: object = None) -> tuple[str, Path]:
        seen.append(self.gpu)
        return "turbo", tmp_path / "there"

    def open_engine(
        _: Runtime, given: Settings, path: Path, *__: object, **___: object
    ) -> FakeTranscriber:
        seen.append((given.model, path))
        return FakeTranscriber()

    monkeypatch.setattr(autopick.AutoModel, "ensure", ensure)
    monkeypatch.setattr(Runtime, "open", open_engine)
    open_transcriber(settings(tmp_path))
    assert seen == [JETSON, ("turbo", tmp_path / "there")]
