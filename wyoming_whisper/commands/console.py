"""What all commands do at the console: read their flags, log, complain, and print tables."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence

from ..errors import SettingsError, WyomingWhisperError, did_you_mean
from ..settings.flags import OptionParser
from ..settings.options import Settings
from ..settings.sources import settings_from

Action = tuple[Callable[[str], "CommandParser"], Callable[[argparse.Namespace, Settings], int]]
"""What makes its parser, given what it is called; what does it and returns the exit status."""


class CommandParser(OptionParser):
    """Flags of one command: its own, some options, and those that every command has."""

    PLACES = ("data_dir", "download_dir", "local_files_only")
    MODEL = ("model", "language", *PLACES)
    """Options of commands that look for models, and of those that work on one."""

    def __init__(
        self, command: str, about: str, options: Iterable[str] = (), arguments: str = "[flags]"
    ) -> None:
        names = dict.fromkeys((*options, "options", "debug", "log_format"))
        super().__init__(f"wyoming-whisper {command}".strip(), about, tuple(names), arguments)

    def add_timeout(self, seconds: float, about: str) -> None:
        """Add --timeout, which is `seconds` unless it is given."""

        def read(text: str) -> float:
            number = float(text) if text.replace(".", "", 1).isdecimal() else 0.0
            if number <= 0:
                raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
            return number

        about = f"{about} (default: {seconds:g})"
        self.add_argument("--timeout", type=read, default=seconds, metavar="SECONDS", help=about)

    def start(self, argv: Sequence[str]) -> tuple[argparse.Namespace, Settings]:
        """Return the arguments and settings, and log to stderr. Raises SettingsError."""
        arguments = self.parse(argv)
        settings = settings_from(vars(arguments), os.environ)
        level = logging.DEBUG if settings.debug else logging.INFO
        logging.basicConfig(level=level, format=settings.log_format, stream=sys.stderr)
        return arguments, settings

    @staticmethod
    def run_action(
        command: str, about: str, actions: Mapping[str, Action], argv: Sequence[str]
    ) -> int:
        """Run the action of `command` that `argv` names; return the exit status.

        Raises WyomingWhisperError.
        """
        action, rest = (argv[0], argv[1:]) if argv else ("--help", [])
        if action.startswith("-"):
            prog = f"wyoming-whisper {command}"
            OptionParser(prog, about, (), f"{'|'.join(actions)} [flags]").parse(argv or ["--help"])
        if action not in actions:
            hint = did_you_mean(action, actions) or f"; there are {', '.join(actions)}"
            raise SettingsError(f"{action!r} is nothing that {command} does{hint}")
        make_parser, do = actions[action]
        return do(*make_parser(f"{command} {action}").start(rest))


def complain(error: WyomingWhisperError) -> None:
    """Write one line to stderr."""
    print(f"wyoming-whisper: {' '.join(str(error).split())}", file=sys.stderr)


def table(*rows: Sequence[str]) -> str:
    """Return rows in columns, the first being the head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
