"""--replace: the words that the user wants written otherwise, read."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..machine.files import read_text_file


@dataclass(frozen=True)
class Replacement:
    """What is written instead of what; an empty `new` drops the words."""

    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.old}={self.new}"

    @classmethod
    def read(cls, line: str) -> Replacement:
        r"""Return what FROM=TO says; \= is an equals sign, \\ a backslash, \# and \@ those signs.

        Raises ValueError.
        """
        max_length = 200  # characters, of either side
        sides = [""]
        signs = iter(unicodedata.normalize("NFC", line))
        for sign in signs:
            if sign == "\\":
                escaped = next(signs, "")
                if not escaped or escaped not in "=\\#@":
                    raise ValueError(rf"{line!r} has a backslash before none of = \ # @")
                sides[-1] += escaped
            elif sign == "=" and len(sides) == 1:
                sides.append("")
            elif sign == "=":
                raise ValueError(rf"{line!r} has more than one =; one that is meant is written \=")
            else:
                sides[-1] += sign
        sides = [" ".join(side.split()) for side in sides]
        if len(sides) == 1 or not sides[0]:
            raise ValueError(
                f"{line!r} must be FROM=TO, the words to be replaced and what to write"
            )
        if max(map(len, sides)) > max_length:
            raise ValueError(f"{line[:20]!r}... is longer than {max_length} characters on one side")
        return cls(*sides)

    @classmethod
    def read_all(cls, items: Sequence[str]) -> tuple[Replacement, ...]:
        """Return the replacements of items FROM=TO and @FILE; of two for the same words the last.

        Raises ValueError, which says what is wrong and in which line of which file.
        """
        max_replacements = 1000
        replacements: dict[str, Replacement] = {}
        for item in items:
            lines = _of_file(item[1:]) if _is_file(item) else [cls.read(item)]
            for one in lines:
                replacements[one.old.casefold()] = one
                if len(replacements) > max_replacements:
                    raise ValueError(f"there may be {max_replacements} of them at most")
        return tuple(replacements.values())


def _is_file(item: str) -> bool:
    return item.startswith("@") and "=" not in item


def _of_file(name: str) -> list[Replacement]:
    """Return what a file's lines say; empty ones and those with # at their start say nothing."""
    if not name.strip():
        raise ValueError("@ must be followed by a file's name, such as @replacements.txt")
    try:
        path = Path(name).expanduser()
    except RuntimeError:
        raise ValueError(f"{name} can't be read (there is no such home folder)") from None
    text = read_text_file(path, plain_only=True)
    replacements = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            try:
                replacements.append(Replacement.read(line))
            except ValueError as error:
                raise ValueError(f"in line {number} of {name} {error}") from None
    return replacements
