"""The command line, made of the options."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NoReturn

from .. import __version__
from ..errors import SettingsError, did_you_mean
from .official import ALL_OPTIONS
from .option import Option, Shape
from .options import OPTIONS, Settings
from .sources import PREFIXES


class OptionParser(argparse.ArgumentParser):
    """Flags for some options, or all of them; what is wrong on a command line is a SettingsError.

    Values stay raw: settings_from() reads them, so that all sources are read alike.
    --help shows what homes need, --help-all all options that have a help.
    """

    _EPILOG = """\
    Every option is also an environment variable, and a line of the options file. For --beam-size 5:
      WYOMING_WHISPER_BEAM_SIZE=5, or WYOMING_WHISPER_BEAM_SIZE_FILE=FILE for a file that holds it;
      beam_size: 5
    A flag wins over a variable, a variable over the options file. The official server's variables
    (WYO_WHISPER_...) and the options of its add-on are understood too."""

    def __init__(
        self,
        prog: str,
        description: str = "",
        options: Collection[str] = tuple(ALL_OPTIONS),
        arguments: str = "[flags]",
    ) -> None:
        super().__init__(
            prog=prog,
            usage=f"{prog} {arguments}",
            description=description,
            epilog=self._EPILOG,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.add_argument("--version", action="version", version=f"wyoming-whisper {__version__}")
        rare: dict[str, argparse.Action] = {}
        groups: dict[str, argparse._ArgumentGroup] = {}
        for name in options:
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
