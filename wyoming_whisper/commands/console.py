"""What all commands do at the console: read their flags, log, complain, and print tables."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

from .. import __version__
from ..errors import SettingsError, WyomingWhisperError, did_you_mean
from ..settings.option import Option, Shape
from ..settings.options import OPTIONS, Settings
from ..settings.sources import ALL_OPTIONS, PREFIXES, settings_from

Action = tuple[Callable[[str], "CommandParser"], Callable[[argparse.Namespace, Settings], int]]
"""What makes its parser, given what it is called; what does it and returns the exit status."""


class CommandParser(argparse.ArgumentParser):
    """Flags of one command; what is wrong on a command line is a SettingsError.

    They are its own, some options, and those that every command has; with None for `options`, none
    of these. Values of options stay raw: settings_from() reads them, so that all sources are read
    alike. --help shows what homes need, --help-all all options that have a help.
    """

    PLACES = ("data_dir", "download_dir", "local_files_only")
    MODEL = ("model", "language", *PLACES)
    """Options of commands that look for models, and of those that work on one."""

    _EPILOG = """\
    Every option is also an environment variable, and a line of the options file. For --beam-size 5:
      WYOMING_WHISPER_BEAM_SIZE=5, or WYOMING_WHISPER_BEAM_SIZE_FILE=FILE for a file that holds it;
      beam_size: 5
    A flag wins over a variable, a variable over the options file. The official server's variables
    (WYO_WHISPER_...) and the options of its add-on are understood too."""

    def __init__(
        self,
        command: str,
        about: str,
        options: Iterable[str] | None = (),
        arguments: str = "[flags]",
    ) -> None:
        prog = f"wyoming-whisper {command}".strip()
        super().__init__(
            prog=prog,
            usage=f"{prog} {arguments}",
            description=about,
            epilog=self._EPILOG,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.add_argument("--version", action="version", version=f"wyoming-whisper {__version__}")
        rare: dict[str, argparse.Action] = {}
        groups: dict[str, argparse._ArgumentGroup] = {}
        names = () if options is None else (*options, "options", "debug", "log_format")
        for name in dict.fromkeys(names):
            option = ALL_OPTIONS[name]
            if option.flag:
                if option.group not in groups:
                    groups[option.group] = self.add_argument_group(option.group)
                keywords = _argparse_keywords(name, option)
                action = groups[option.group].add_argument(Option.flag_of(name), **keywords)
                if option.rare:
                    rare[name] = action
        if rare:
            about = "show the options that most homes never need too, and exit"
            self.add_argument("--help-all", action=_HelpAll, rare=rare, help=about)

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

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Return the flags, None for those not given; raises SettingsError.

        --help and --version print and raise SystemExit.
        """
        arguments, unknown = self.parse_known_intermixed_args(argv)
        if unknown:
            raise SettingsError(self._about_unknown(unknown))
        return arguments

    def error(self, message: str) -> NoReturn:
        """Raise instead of argparse's usage text and exit."""
        raise SettingsError(f"{message.removeprefix('argument ')} ({self.prog} --help tells more)")

    def _about_unknown(self, unknown: Sequence[str]) -> str:
        word = next((word for word in unknown if word.startswith("-")), unknown[0]).split("=")[0]
        name = word.removeprefix("--").replace("-", "_")
        if name in OPTIONS and not OPTIONS[name].flag:
            return f"{word} is not a flag, as others can see it: set {PREFIXES[-1]}{name.upper()}"
        if not word.startswith("-"):
            return f"{word!r} doesn't belong here ({self.prog} --help tells more)"
        flags = [flag for action in self._actions for flag in action.option_strings]
        return f"{word} is not an option{did_you_mean(word, flags) or f' of {self.prog}'}"

    @staticmethod
    def run_action(
        command: str, about: str, actions: Mapping[str, Action], argv: Sequence[str]
    ) -> int:
        """Run the action of `command` that `argv` names; return the exit status.

        Raises WyomingWhisperError.
        """
        action, rest = (argv[0], argv[1:]) if argv else ("--help", [])
        if action.startswith("-"):
            parser = CommandParser(command, about, None, f"{'|'.join(actions)} [flags]")
            parser.parse(argv or ["--help"])
        if action not in actions:
            hint = did_you_mean(action, actions) or f"; there are {', '.join(actions)}"
            raise SettingsError(f"{action!r} is nothing that {command} does{hint}")
        make_parser, do = actions[action]
        return do(*make_parser(f"{command} {action}").start(rest))


def complain(error: WyomingWhisperError) -> None:
    print(f"wyoming-whisper: {' '.join(str(error).split())}", file=sys.stderr)


def table(*rows: Sequence[str]) -> str:
    """Return rows in columns, the first being the head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


class _HelpAll(argparse.Action):
    """Prints the help with the `rare` options in it, which --help leaves out."""

    def __init__(self, rare: Mapping[str, argparse.Action], **keywords: Any) -> None:
        super().__init__(nargs=0, **keywords)
        self._rare = rare

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        for name, action in self._rare.items():
            action.help = _help(name, ALL_OPTIONS[name])
        parser.print_help()
        parser.exit()


def _argparse_keywords(name: str, option: Option) -> dict[str, Any]:
    of_shape: Mapping[Shape, Mapping[str, Any]] = {
        "one": {},
        "switch": {"action": argparse.BooleanOptionalAction},
        "maybe": {"nargs": "?", "const": ""},
        "repeat": {"action": "append"},
        "lines": {"action": "append"},
        "words": {"nargs": "*"},
    }
    keywords = {"default": None, **of_shape[option.shape]}
    if option.shape != "switch":
        names = "|".join(option.choices)
        keywords["metavar"] = option.metavar or names or name.rpartition("_")[2].upper()
    is_hidden = option.rare or not option.help
    keywords["help"] = argparse.SUPPRESS if is_hidden else _help(name, option)
    return keywords


def _help(name: str, option: Option) -> str:
    default = getattr(Settings, name, None)  # no class attribute where a factory makes it
    text = option.help
    if option.metavar and option.choices:
        text += f": {', '.join(option.choices)}"
    if default is not None and default != () and not isinstance(default, bool):
        text += f" (default: {default})"
    return text.replace("%", "%%")
