"""What is known of one option: its group, its help, how it is read and shown.

Readers turn a text into a number, a list, ...; each raises ValueError in few words. An option's own
rules stand beside the option (options.py, server.py); those here are what several need.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Literal, TypeVar
from urllib.parse import SplitResult, urlsplit

from ..errors import did_you_mean

Value = TypeVar("Value")
Raw = str | bool | list[str]
"""A value as a source gives it, before it is read."""
Reader = Callable[[Raw], Value]
"""Turns a raw value into the field's type; its ValueError says what is allowed: "it must ..."."""


@dataclass(frozen=True)
class Text:
    """Reads a text that is like `pattern`; `about` says what it must be.

    With `is_address` it is an address whose parts are as that says.
    """

    about: str = "it must not be empty"
    pattern: str = ".*"
    is_address: Callable[[SplitResult], bool] | None = None

    def __call__(self, raw: Raw) -> str:
        text = raw.strip() if isinstance(raw, str) else ""
        with contextlib.suppress(ValueError):  # a port that is no number, a bracket left open
            is_like = text and re.fullmatch(self.pattern, text, re.DOTALL)
            if is_like and (self.is_address is None or self.is_address(urlsplit(text))):
                return text
        is_other = bool(raw) and not isinstance(raw, str)
        raise ValueError("it must be one text" if is_other else self.about)

    def optional(self, raw: Raw) -> str | None:
        """Read an empty text as None, and what the official add-on has where nothing is set."""
        return None if raw in ("", "null") else self(raw)

    def path(self, raw: Raw) -> Path:
        """Read a path, which may begin with ~."""
        try:
            return Path(self(raw)).expanduser()
        except RuntimeError:  # "~" of a user without a home folder
            raise ValueError("it must be a path; there is no such home folder") from None


@dataclass(frozen=True)
class Choice:
    """Reads one of `choices`."""

    choices: tuple[str, ...]

    def __call__(self, raw: Raw) -> str:
        if raw in self.choices:
            return str(raw)
        *most, last = self.choices
        listed = f"{', '.join(most)} or {last}" if most else last
        raise ValueError(f"it must be {listed}{did_you_mean(str(raw), self.choices)}")


@dataclass(frozen=True)
class Switch:
    """Reads what is on or off."""

    ON = ("1", "true", "yes", "y", "on")
    OFF = ("0", "false", "no", "n", "off", "")

    def __call__(self, raw: Raw) -> bool:
        word = str(raw).strip().lower() if isinstance(raw, str | bool) else None
        if word in self.ON:
            return True
        if word in self.OFF:
            return False
        raise ValueError("it must be on or off (1, true, yes, y, on, 0, false, no, n, off)")

    @classmethod
    def is_off(cls, raw: Raw) -> bool:
        """Whether a value that may be something else than a switch switches it off."""
        return raw is False or (
            isinstance(raw, str) and raw.strip().lower() in (*cls.OFF, "0.0", "null")
        )


@dataclass(frozen=True)
class Whole:
    """Reads a whole number from `lowest` to `highest`, both included.

    The add-on's manifest has the same bounds (tests/test_addon.py).
    """

    lowest: int = 0
    highest: int = 999_999
    about: str = "it must be a whole number from {lowest} to {highest}"

    def __call__(self, raw: Raw) -> int:
        if isinstance(raw, str) and re.fullmatch(r"\d{1,6}", raw):
            number = int(raw)
            if self.lowest <= number <= self.highest:
                return number
        raise ValueError(self.about.format(lowest=self.lowest, highest=self.highest))


@dataclass(frozen=True)
class Decimal:
    """Reads a number from `lowest` to `highest`, both included; `unit` is its name in messages."""

    lowest: float = 0
    highest: float = 1
    unit: str = "a number"

    def __call__(self, raw: Raw) -> float:
        decimal = r"(\d{1,6}(\.\d{0,20})?|\.\d{1,20})([eE]-?\d{1,2})?"
        if isinstance(raw, str) and re.fullmatch(decimal, raw):
            number = float(raw)
            if self.lowest <= number <= self.highest:
                return number
        raise ValueError(f"it must be {self.unit} from {self.lowest:g} to {self.highest:g}")


class Size(int):
    """Bytes, written as people do."""

    UNITS = {"TB": 10**12, "GB": 10**9, "MB": 10**6, "KB": 10**3, "B": 1}  # noqa: RUF012

    def __str__(self) -> str:
        unit = next(unit for unit, size in self.UNITS.items() if self % size == 0)
        return f"{self // self.UNITS[unit]}{unit}"

    @classmethod
    def read(cls, raw: Raw) -> Size:
        match = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?)\s*([KMGT]?B)", str(raw).upper())
        if isinstance(raw, str) and match:
            return cls(float(match[1]) * cls.UNITS[match[2]])
        raise ValueError("it must be a size such as 500MB or 8GB")


@dataclass(frozen=True)
class Items(Generic[Value]):
    """Reads a list, or a text whose items are parted by `separators`; each item counts once."""

    read: Callable[[str], Value]
    separators: str = r"[,\s]+"

    def __call__(self, raw: Raw) -> tuple[Value, ...]:
        items: Sequence[str] = raw if isinstance(raw, list) else re.split(self.separators, str(raw))
        stripped = (item.strip() for item in items)
        return tuple(dict.fromkeys(self.read(item) for item in stripped if item))


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
