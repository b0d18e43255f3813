"""Commands that have actions of their own: `engine build`, `ray deploy`."""

from __future__ import annotations

import argparse
import difflib
import os
from collections.abc import Callable, Mapping, Sequence

from ..errors import SettingsError
from ..settings.flags import OptionParser
from ..settings.options import Settings
from ..settings.sources import settings_from

Arguments = argparse.Namespace
Action = tuple[Callable[[str], OptionParser], Callable[[Arguments, Settings], int]]
"""What makes its parser, given what it is called; what does it and returns the exit status."""


def run_action(
    command: str,
    about: str,
    actions: Mapping[str, Action],
    argv: Sequence[str],
    start_logging: Callable[[Settings], None],
) -> int:
    """Run the action of `command` that `argv` names; return the exit status.

    Raises WyomingWhisperError.
    """
    prog = f"wyoming-whisper {command}"
    action, rest = (argv[0], argv[1:]) if argv else ("--help", [])
    if action.startswith("-"):
        OptionParser(prog, about, (), f"{'|'.join(actions)} [flags]").parse(argv or ["--help"])
    if action not in actions:
        nearest = difflib.get_close_matches(action, actions, n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(actions)}"
        raise SettingsError(f"{action!r} is nothing that {command} does; {hint}")
    make_parser, do = actions[action]
    arguments = make_parser(f"{prog} {action}").parse(rest)
    settings = settings_from(vars(arguments), os.environ)
    start_logging(settings)
    return do(arguments, settings)
