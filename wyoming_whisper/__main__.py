"""The commands: serve (the default), transcribe, models, engine, ray, health.

Each is a module of commands/, imported when it runs, so that --help and mistakes are answered at
once. stdout carries a command's answer, or the protocol with stdio://; everything else goes to
stderr.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

from .commands.console import complain
from .errors import SettingsError, WyomingWhisperError, did_you_mean


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return its exit status: 0, or 1 with one sentence on stderr."""
    # Exit status after Ctrl-C, as shells have it.
    interrupted = 130
    try:
        status = _run(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()  # here, where a closed pipe is still caught
    except WyomingWhisperError as error:
        complain(error)
        return 1
    except KeyboardInterrupt:
        return interrupted
    except BrokenPipeError:  # `| head` has read enough
        # Python flushes again at exit; there it would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def _run(argv: Sequence[str]) -> int:
    commands = ("serve", "transcribe", "models", "engine", "ray", "health")
    name, rest = (argv[0], argv[1:]) if argv and not argv[0].startswith("-") else ("serve", argv)
    if name not in commands:
        hint = did_you_mean(name, commands) or f"; there are {', '.join(commands)}"
        raise SettingsError(f"{name!r} is not a command{hint}")
    try:
        return int(import_module(f".commands.{name}", __package__).run(rest))
    except SystemExit as done:  # argparse after --help and --version
        return int(done.code or 0)


if __name__ == "__main__":
    sys.exit(main())
