"""A Transcriber that breaks the promises of a week, from the second start of its server on."""

from __future__ import annotations

import logging
import os
from typing import Any
from urllib.parse import urlsplit

from benchmarks.lib.inside import Standin
from wyoming_whisper.errors import TranscribeError
from wyoming_whisper.settings.options import Settings
from wyoming_whisper.transcriber import Samples, TranscribeOptions, Transcription


class Careless(Standin):
    """Loses commands, then mishears all, leaks descriptors, and logs an exception."""

    def __init__(self) -> None:
        self._n_requests = 0

    def transcribe(self, samples: Samples, options: TranscribeOptions) -> Transcription:
        self._n_requests += 1
        os.open(os.devnull, os.O_RDONLY)
        if self._n_requests == 1:
            logging.getLogger(__name__).error("of no use", exc_info=ValueError("a bug"))
        # Several of each: early work that fails, or is dropped, costs no command.
        if self._n_requests < 8:
            raise TranscribeError("it was lost")
        return Transcription("something else", "en")


_opened: list[Standin] = []


def careless(settings: Settings, **_: Any) -> Standin:
    """Stand in for `backends.open_transcriber`: the same whenever this process opens it."""
    if not _opened:
        mark = settings.data_dir[0] / f"started-{urlsplit(settings.uri).port}"
        _opened.append(Careless() if mark.exists() else Standin())
        mark.touch()
    return _opened[0]
