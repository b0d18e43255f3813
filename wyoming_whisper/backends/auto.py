"""`--model auto` becomes a name, in this one place, once it is known what the model runs on."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from ..engine.tensorrt.cuda import Gpu
from ..errors import EngineError, SettingsError
from ..models.autopick import AutoModel
from ..models.find import ensure_model
from ..models.stock import AUTO
from .faster_whisper import CTranslate2Inference

if TYPE_CHECKING:
    from ..models.disk import Report
    from ..settings.options import Settings


def model_of(
    settings: Settings,
    gpu: Gpu | None = None,
    *,
    report: Report | None = None,
) -> tuple[Settings, Path]:
    """Return the settings with the name of the model that is meant, and its folder.

    `gpu` is what it is to run on where that is known, as to those who have chosen the backend.
    Downloads what is not here, and blocks as `models.ensure_model` does. Raises ModelError.
    """
    if settings.model != AUTO:
        return settings, ensure_model(settings.model, settings, report=report)
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
