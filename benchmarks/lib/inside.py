"""Our server's program, with a way to look inside: see servers.Watched.

`python -m benchmarks.lib.inside [--open MODULE:FUNCTION] FLAGS` is `wyoming-whisper FLAGS`, which
on SIGUSR1 writes its number of tasks; with `--open` that function stands in for
`backends.open_transcriber`.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import sys
from typing import Any

from benchmarks.lib.servers import TASKS
from wyoming_whisper import __main__ as commands
from wyoming_whisper import backends
from wyoming_whisper.transcriber import Samples, TranscribeOptions, Transcription

STANDIN = "benchmarks.lib.inside:standin"


class Standin:
    """A Transcriber that answers at once with what it was given."""

    languages = ("en",)
    description = "a stand-in"

    def transcribe(self, samples: Samples, options: TranscribeOptions) -> Transcription:
        return Transcription(f"{len(samples)} samples", options.language)

    def close(self) -> None:
        pass


def standin(*_: Any, **__: Any) -> Standin:
    """Stand in for `backends.open_transcriber`."""
    return Standin()


def _tell(*_: Any) -> None:
    # Not through sys.stderr: a signal may come while that is being written.
    os.write(2, f"{TASKS}{len(asyncio.all_tasks())}\n".encode())


def main(argv: list[str]) -> int:
    """Serve."""
    if argv[:1] == ["--open"]:
        module, _, name = argv[1].partition(":")
        backends.open_transcriber = getattr(importlib.import_module(module), name)
        argv = argv[2:]
    signal.signal(signal.SIGUSR1, _tell)
    return commands.main(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
