"""What is known of one option: its group, its help, how it is read and shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .readers import Choice, Reader, Switch, Value

Group = Literal[
    "server",
    "web page",
    "model",
    "upstreams",
    "speed",
    "text",
    "names",
    "silence",
    "end of speech",
    "logging",
]
"""Heading in --help."""

Shape = Literal["one", "switch", "maybe", "repeat", "lines", "words"]
"""What a flag takes: one value, none, none or one, one each time it is given (in variables parted
as paths are, or a line each), any number."""


@dataclass(frozen=True)
class Option:
    """How a field of Settings is given by flag, variable or options file."""

    read: Reader[object]
    help: str = ""
    """Without one it is not shown: an option of the official server that has no use here."""

    group: Group = "server"
    shape: Shape = "one"
    metavar: str | None = None

    flag: bool = True
    """False where a command line, which other users of the machine see, is no place for it."""

    rare: bool = False
    """Whether most homes never need it: shown by --help-all alone."""

    secret: bool = False
    """True keeps its value out of messages."""

    @classmethod
    def field(
        cls,
        default: Value,
        group: Group,
        about: str,
        read: Reader[Value],
        *,
        shape: Shape = "one",
        metavar: str | None = None,
        rare: bool = False,
        secret: bool = False,
        flag: bool | None = None,
    ) -> Value:
        """Return a dataclass field with its Option; what is secret has a flag only if asked."""
        has_flag = not secret if flag is None else flag
        option = cls(read, about, group, shape, metavar, has_flag, rare, secret)
        return field(default=default, repr=not secret, metadata={"option": option})

    @classmethod
    def switch(cls, default: bool, group: Group, about: str, *, rare: bool = False) -> bool:
        return cls.field(default, group, about, Switch(), shape="switch", rare=rare)

    @staticmethod
    def flag_of(name: str) -> str:
        """Return the flag of a field: "--beam-size" for "beam_size"."""
        return "--" + name.replace("_", "-")

    @property
    def choices(self) -> tuple[str, ...]:
        """All values there are; empty where they can't be listed."""
        return self.read.choices if isinstance(self.read, Choice) else ()
