"""What is known of one option: its group, its help, how it is read and shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .readers import Reader, T, as_switch, as_text, one_of

Shape = Literal["one", "switch", "maybe", "repeat", "lines", "words"]
"""What a flag takes: one value, none, none or one, one each time it is given (in variables parted
as paths are, or a line each), any number."""


@dataclass(frozen=True)
class Option:
    """How a field of Settings is given by flag, variable or options file."""

    group: str
    """Heading in --help."""

    help: str
    read: Reader[object]
    shape: Shape = "one"
    metavar: str | None = None

    choices: tuple[str, ...] = ()
    """All values there are; empty when they can't be listed."""

    flag: bool = True
    """False where a command line, which other users of the machine see, is no place for it."""

    hidden: bool = False
    """True keeps it out of --help."""

    secret: bool = False
    """True keeps its value out of messages."""


def option_field(
    default: T,
    group: str,
    about: str,
    read: Reader[object] | None = None,
    *,
    choices: tuple[str, ...] = (),
    shape: Shape = "one",
    metavar: str | None = None,
) -> T:
    """Return a dataclass field that carries its Option."""
    read = read or (one_of(*choices) if choices else as_text)
    option = Option(group, about, read, shape, metavar, choices)
    return field(default=default, metadata={"option": option})


def flag_field(group: str, about: str) -> bool:
    """Return a field that is off unless switched on."""
    return option_field(False, group, about, as_switch, shape="switch")


SERVER = "server"
WEB = "web page"
MODEL = "model"
UPSTREAMS = "upstreams"
SPEED = "speed"
TEXT = "text"
NAMES = "names"
SILENCE = "silence"
ENDING = "end of speech"
LOGGING = "logging"


def flag_name(name: str) -> str:
    """Return the flag of a field: "--beam-size" for "beam_size"."""
    return "--" + name.replace("_", "-")
