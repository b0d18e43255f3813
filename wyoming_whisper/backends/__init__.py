"""Whisper on a device. Nothing here knows of Wyoming or asyncio."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING

from ..errors import EngineError, ModelBrokenError, SettingsError

if TYPE_CHECKING:
    from pathlib import Path

    from ..settings.options import Settings
    from ..status import Status
    from ..transcriber import Transcriber
    from .tensorrt import Runtime

_LOGGER = logging.getLogger(__name__)

SMALL_BYTES = 8_000_000
"""Of a model in int8; every stock one has more."""


def open_transcriber(settings: Settings, status: Status | None = None) -> Transcriber:
    """Find or fetch the model, load it and warm it up: takes seconds, or minutes for a download.

    `status` is told how far it is, and what answers and why; only with it a TensorRT engine that is
    not there is built, in the background.
    Raises SettingsError, or ModelError: ModelUnavailableError is worth another try later.
    """
    if settings.backend == "none":
        from .none import NoModel

        return NoModel()
    if settings.backend == "ray":
        from ..cluster.front_end import open_ray

        if status:
            status.update(backend="ray", why="it was asked for")
        return open_ray(settings)
    why = ""
    if settings.backend == "tensorrt-llm":
        opened, why = _try_tensorrt_llm(settings, status)
        if opened:
            return opened
        settings = dataclasses.replace(settings, backend="faster-whisper")
    from ..models.find import ensure_model
    from .auto import model_of

    runtime, chosen = choose_backend(settings)
    if status and not runtime:
        asked = settings.backend == "onnxruntime"
        backend = "onnxruntime" if asked else "faster-whisper"
        status.update(backend=backend, why=why or chosen)
    report = status.downloading if status else None
    settings, path = model_of(settings, runtime.gpu if runtime else None, report=report)
    if status:
        status.update(phase="loading", detail="loading the model", fraction=None)
    try:
        return _open(settings, path, runtime, status)
    except ModelBrokenError as error:
        # It looked whole, so its content is what is damaged: compare, and fetch it again.
        _LOGGER.warning("%s; comparing its files with their hashes", error)
        path = ensure_model(settings.model, settings, verify=True, report=report)
        return _open(settings, path, runtime, status)


def _try_tensorrt_llm(settings: Settings, status: Status | None) -> tuple[Transcriber | None, str]:
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


def choose_backend(settings: Settings) -> tuple[Runtime | None, str]:
    """Return what TensorRT is to run on, None for the CPU's, and why; log that in one line.

    Raises SettingsError where `strict_backend` leaves no choice.
    """
    if settings.backend in ("faster-whisper", "onnxruntime"):
        return None, "it was asked for"
    from ..engine.tensorrt.cuda import NoGpuError, find_gpus

    try:
        if settings.device == "cpu":
            raise NoGpuError("--device is cpu")
        find_gpus()
        from .tensorrt import find_runtime  # much to import, where most machines have no GPU

        runtime = find_runtime(settings.device)
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
    why = f"a {runtime.gpu.name} and TensorRT {runtime.tensorrt} are here"
    _LOGGER.info("backend: tensorrt, because %s", why)
    return runtime, why


def _is_small(path: Path) -> bool:
    """Whether a model answers in no time on any backend: then none is measured."""
    from ..engine.dims import int8_bytes
    from ..models.folder import ModelFolder

    try:
        return int8_bytes(ModelFolder(path).dims) < SMALL_BYTES
    except ModelBrokenError:  # no Whisper as we know it; faster-whisper says what is wrong, if
        return True  # anything is


def _open(
    settings: Settings, path: Path, runtime: Runtime | None, status: Status | None
) -> Transcriber:
    if runtime:
        from .tensorrt import open_tensorrt

        return open_tensorrt(settings, path, runtime, status)
    if settings.backend == "onnxruntime":
        from .onnxruntime import open_onnxruntime

        return open_onnxruntime(settings, path, status)
    if settings.backend == "auto" and not _is_small(path):
        from .onnxruntime import open_fastest

        return open_fastest(settings, path, status)
    from .faster_whisper import open_faster_whisper

    return open_faster_whisper(settings, path)
