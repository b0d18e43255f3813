"""Whisper on a device. Nothing here knows of Wyoming or asyncio."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ..errors import ModelBrokenError, SettingsError

if TYPE_CHECKING:
    from ..settings import Settings
    from ..status import Status
    from ..transcriber import Transcriber

_LOGGER = logging.getLogger(__name__)


def open_transcriber(settings: Settings, status: Status | None = None) -> Transcriber:
    """Find or fetch the model, load it and warm it up: takes seconds, or minutes for a download.

    `status` is told how far it is, and what will answer.
    Raises SettingsError, or ModelError: ModelUnavailableError is worth another try later.
    """
    if settings.backend == "tensorrt":
        raise SettingsError(
            "--backend tensorrt is not in this version yet; use --backend faster-whisper "
            "(with --device cuda on an NVIDIA GPU), or auto"
        )
    from ..models import AUTO, ensure_model
    from .faster_whisper import open_faster_whisper

    report = status.downloading if status else None
    path = ensure_model(settings.model, settings, report=report)
    if status:
        status.update(
            phase="loading", detail="loading the model", fraction=None, backend="faster-whisper"
        )
    try:
        return open_faster_whisper(settings, path)
    except ModelBrokenError as error:
        # It looked whole, so its content is what is damaged: compare, and fetch it again.
        _LOGGER.warning("%s; comparing its files with their hashes", error)
        from ..autopick import pick_model

        name = pick_model(settings) if settings.model == AUTO else settings.model
        return open_faster_whisper(
            settings, ensure_model(name, settings, verify=True, report=report)
        )
