"""Whisper on a device. Nothing here knows of Wyoming or asyncio."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from ..engine.tensorrt.cuda import Gpu, NoGpuError
from ..errors import EngineError, ModelBrokenError, SettingsError, UpstreamError
from ..models.autopick import AutoModel
from ..models.folder import ModelFolder
from ..models.stock import AUTO
from ..models.store import ModelStore
from ..settings.options import Settings
from ..status import Status
from ..transcriber import Samples, TranscribeOptions, Transcriber, Transcription
from ..whisper.tokenizer import LANGUAGES
from .faster_whisper import CTranslate2Inference, open_faster_whisper
from .onnxruntime import OnnxRuntime

if TYPE_CHECKING:
    from ..models.disk import Report
    from .tensorrt import Runtime

_LOGGER = logging.getLogger(__name__)


def open_transcriber(
    settings: Settings, status: Status | None = None, *, build_missing: bool = True
) -> Transcriber:
    """Find or fetch the model, load it and warm it up: takes seconds, or minutes for a download.

    `status` is told how far it is, and what answers and why. With `build_missing` an engine that is
    not there is built in the background, and takes over when it is ready. Raises SettingsError, or
    ModelError: ModelUnavailableError is worth another try later.
    """
    status = status or Status()
    if settings.backend == "none":
        return _NoModel()
    if settings.backend == "ray":
        from ..cluster.front_end import RayTranscriber

        status.update(backend="ray", why="it was asked for")
        return RayTranscriber.open(settings)
    why = ""
    if settings.backend == "tensorrt-llm":
        opened, why = _try_tensorrt_llm(settings, status)
        if opened:
            return opened
        settings = dataclasses.replace(settings, backend="faster-whisper")
    runtime, why_chosen = _choose_backend(settings)
    if not runtime:
        asked = settings.backend == "onnxruntime"
        backend = "onnxruntime" if asked else "faster-whisper"
        status.update(backend=backend, why=why or why_chosen)
        if why or settings.backend == "tensorrt":
            settings = _for_stand_in(settings)
    report = status.downloading
    settings, path = model_of(settings, runtime.gpu if runtime else None, report=report)
    status.update(phase="loading", detail="loading the model", fraction=None)
    try:
        return _open(settings, path, runtime, status, build_missing)
    except ModelBrokenError as error:
        # It looked whole, so its content is what is damaged: compare, and fetch it again.
        _LOGGER.warning("%s; comparing its files with their hashes", error)
        path = ModelStore(settings).ensure(settings.model, verify=True, report=report)
        return _open(settings, path, runtime, status, build_missing)


def model_of(
    settings: Settings,
    gpu: Gpu | None = None,
    *,
    report: Report | None = None,
) -> tuple[Settings, Path]:
    """Return the settings with the name of the model that is meant, and its folder.

    `gpu` is what it is to run on where that is known, as to those who have chosen the backend.
    Downloads what is not here, and blocks as `ModelStore.ensure` does. Raises ModelError.
    """
    if settings.model != AUTO:
        return settings, ModelStore(settings).ensure(settings.model, report=report)
    name, path = AutoModel(settings, gpu or gpu_of(settings)).ensure(report)
    return dataclasses.replace(settings, model=name), path


def gpu_of(settings: Settings) -> Gpu | None:
    """Return the GPU that the backend of these settings would run the model on, if any."""
    if settings.device == "cpu" or settings.backend == "onnxruntime":
        return None
    try:
        gpus = Gpu.all()
    except EngineError:
        return None
    if settings.backend != "faster-whisper":
        from .tensorrt import Runtime

        try:
            return Runtime.find(settings.device).gpu
        except EngineError:  # then CTranslate2, which may have been built without CUDA
            pass
    try:
        device, index = CTranslate2Inference.choose_device(settings.device)
    except SettingsError:
        return None
    return gpus[index] if device == "cuda" and index < len(gpus) else None


def _try_tensorrt_llm(settings: Settings, status: Status) -> tuple[Transcriber | None, str]:
    """Return what answers; None where it is not possible here, and why.

    Raises SettingsError where `strict_backend` leaves no choice, and what `open_tensorrt_llm` does.
    """
    from .tensorrt_llm.backend import open_tensorrt_llm

    try:
        return open_tensorrt_llm(settings, status), ""
    except EngineError as error:
        if settings.strict_backend:
            raise SettingsError(f"--backend tensorrt-llm is not possible here: {error}") from error
        _LOGGER.warning(
            "--backend tensorrt-llm is not possible here, so faster-whisper answers: %s", error
        )
        return None, str(error)


def _choose_backend(settings: Settings) -> tuple[Runtime | None, str]:
    """Return what TensorRT is to run on, None for the CPU's, and why; log that in one line.

    Raises SettingsError where `strict_backend` leaves no choice.
    """
    if settings.backend in ("faster-whisper", "onnxruntime"):
        return None, "it was asked for"
    try:
        if settings.device == "cpu":
            raise NoGpuError("--device is cpu")
        Gpu.all()
        from .tensorrt import Runtime  # much to import, where most machines have no GPU

        runtime = Runtime.find(settings.device)
    except EngineError as error:
        if settings.backend == "auto":
            _LOGGER.info("backend: faster-whisper, because %s", error)
        elif settings.strict_backend:
            raise SettingsError(f"--backend tensorrt is not possible here: {error}") from error
        else:
            _LOGGER.warning(
                "--backend tensorrt is not possible here, so the CPU answers: %s", error
            )
        return None, str(error)
    why = f"a {runtime.gpu.name} and {runtime.name} are here"
    _LOGGER.info("backend: tensorrt, because %s", why)
    return runtime, why


def _for_stand_in(settings: Settings) -> Settings:
    """Return the settings for who answers where an engine can't: --device may name its GPU."""
    try:
        CTranslate2Inference.choose_device(settings.device)
    except SettingsError:
        return CTranslate2Inference.on_cpu(settings)
    return settings


def _is_small(path: Path, small_bytes: int = 8_000_000) -> bool:
    """Whether a model answers in no time on any backend: then none is measured.

    Every stock one has more than `small_bytes` in int8.
    """
    try:
        return ModelFolder(path).dims.int8_bytes < small_bytes
    except ModelBrokenError:  # no Whisper as we know it; faster-whisper says what is wrong, if
        return True  # anything is


def _open(
    settings: Settings, path: Path, runtime: Runtime | None, status: Status, build_missing: bool
) -> Transcriber:
    if runtime:
        return runtime.open(settings, path, status, build_missing=build_missing)
    if settings.backend == "onnxruntime":
        return OnnxRuntime(settings, path).open(status, build_missing=build_missing)
    if settings.backend == "auto" and not _is_small(path):
        return OnnxRuntime.open_fastest(settings, path, status, build_missing=build_missing)
    return open_faster_whisper(settings, path)


class _NoModel:
    """No model at all: a front end that only passes on what it hears (--upstreams)."""

    languages: tuple[str, ...] = tuple(LANGUAGES)
    description = "no model here"

    def transcribe(self, samples: Samples, options: TranscribeOptions) -> Transcription:
        """Raises UpstreamError: it is asked when nobody else has answered."""
        raise UpstreamError(
            "none of --upstreams has answered, and there is no model here (--backend none)"
        )

    def close(self) -> None:
        """There is nothing to free."""
