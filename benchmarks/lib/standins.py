"""What stands in for a model in a server's process, where the model is not what is tried.

`servers.watched(opens=NAME)` serves with one of the functions here in the place of
`backends.open_transcriber`.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from wyoming_whisper.transcriber import Samples, TranscribeOptions, Transcription


class Standin:
    """A Transcriber that answers at once with the number of samples."""

    languages = ("en",)
    description = "a stand-in"

    def transcribe(self, samples: Samples, options: TranscribeOptions) -> Transcription:
        return Transcription(f"{len(samples)} samples", options.language)

    def close(self) -> None:
        pass


class HangsOnce(Standin):
    """Hangs at its first request, unless a process before this one did."""

    def transcribe(self, samples: Samples, options: TranscribeOptions) -> Transcription:
        if not os.environ.get("HUNG"):
            os.environ["HUNG"] = "1"
            time.sleep(1000)
        return super().transcribe(samples, options)


class Crashes(Standin):
    """Ends as a library does that reads where nothing is."""

    def transcribe(self, samples: Samples, options: TranscribeOptions) -> Transcription:
        os.kill(os.getpid(), signal.SIGSEGV)
        return super().transcribe(samples, options)


def answers(*_: Any, **__: Any) -> Standin:
    return Standin()


def hangs_once(*_: Any, **__: Any) -> Standin:
    return HangsOnce()


def crashes(*_: Any, **__: Any) -> Standin:
    return Crashes()
