"""Whisper on a device. Nothing here knows of Wyoming or asyncio."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import SettingsError

if TYPE_CHECKING:
    from ..settings import Settings
    from ..transcriber import Transcriber


def open_transcriber(settings: Settings) -> Transcriber:
    """Find or fetch the model, load it and warm it up: takes seconds, or minutes for a download.

    Raises SettingsError, or ModelError: ModelUnavailableError is worth another try later.
    """
    if settings.backend == "tensorrt":
        raise SettingsError(
            "--backend tensorrt is not in this version yet; use --backend faster-whisper "
            "(with --device cuda on an NVIDIA GPU), or auto"
        )
    from ..autopick import ensure_auto
    from ..models import ensure_model
    from .faster_whisper import open_faster_whisper

    if settings.model == "auto":
        return open_faster_whisper(settings, ensure_auto(settings))
    return open_faster_whisper(settings, ensure_model(settings.model, settings))
