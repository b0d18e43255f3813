"""Our server's program, with a way to look inside: see servers.Watched.

`python -m benchmarks.lib.inside [--open STANDIN] FLAGS` is `wyoming-whisper FLAGS`, which on
SIGUSR1 writes its number of tasks; with `--open` a function of standins.py takes the place of
`backends.open_transcriber`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

from benchmarks.lib import standins
from benchmarks.lib.servers import TASKS
from wyoming_whisper import __main__ as commands
from wyoming_whisper import backends


def _tell(*_: Any) -> None:
    # Not through sys.stderr: a signal may come while that is being written.
    os.write(2, f"{TASKS}{len(asyncio.all_tasks())}\n".encode())


def main(argv: list[str]) -> int:
    """Serve."""
    if argv[:1] == ["--open"]:
        backends.open_transcriber = getattr(standins, argv[1])
        argv = argv[2:]
    signal.signal(signal.SIGUSR1, _tell)
    return commands.main(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
