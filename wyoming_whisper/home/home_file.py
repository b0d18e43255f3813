"""--home: a home that the user wrote down, as YAML."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from ..errors import did_you_mean
from ..machine.files import read_text_file
from .inventory import Entity, Home

MAX_ENTRIES = 10_000
MAX_CHARS = 500  # of a name or a sentence

_KEYS = ("areas", "floors", "entities", "sentences", "custom_sentences")
_KEYS_OF_A_PLACE = ("name", "aliases")
_KEYS_OF_AN_ENTITY = ("name", "aliases", "domain", "device_class")


class _MistakeError(Exception):
    """What the user wrote is none of what is understood; one sentence."""


class HomeFile:
    """A file that is read again whenever it has changed."""

    def __init__(self, path: Path) -> None:
        """Read the file. Raises ValueError, one sentence."""
        self.path = path
        self._seen = self._signature()
        self.home = _read(path)

    def has_changed(self) -> bool:
        """Return whether `home` is another one now.

        Raises ValueError, once for each version of the file that can't be read: `home` stays.
        """
        signature = self._signature()
        if signature == self._seen:
            return False
        self._seen = signature
        before, self.home = self.home, _read(self.path)
        return self.home != before

    def _signature(self) -> tuple[int, ...] | None:
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino


def _read(path: Path) -> Home:
    """Return the home that a file describes. Raises ValueError, one sentence with the path."""
    text = read_text_file(path, plain_only=True)
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark else ""
        raise ValueError(f"{path} is not YAML{where}") from None
    try:
        return _home(content, path.parent)
    except _MistakeError as error:
        raise ValueError(f"{path}: {error}") from None


def _home(content: object, folder: Path) -> Home:
    if not isinstance(content, Mapping):
        raise _MistakeError("it must have areas, floors and entities")
    _check_keys(content, _KEYS, "the file")
    places = {
        key: tuple(name for names in _places(content.get(key), key) for name in names)
        for key in ("areas", "floors")
    }
    custom = content.get("custom_sentences")
    return Home(
        places["areas"],
        places["floors"],
        tuple(
            _entity(entry, i)
            for i, entry in enumerate(_list(content.get("entities"), "entities"), 1)
        ),
        tuple(
            _text(sentence, f"sentence {i}")
            for i, sentence in enumerate(_list(content.get("sentences"), "sentences"), 1)
        ),
        None if custom is None else folder / _text(custom, "custom_sentences"),
    )


def _places(content: object, key: str) -> Iterator[tuple[str, ...]]:
    """Yield the names of areas or floors: texts, or mappings with a name and aliases."""
    for i, entry in enumerate(_list(content, key), 1):
        what = f"{key.removesuffix('s')} {i}"
        if isinstance(entry, Mapping):
            _check_keys(entry, _KEYS_OF_A_PLACE, what)
            yield _names(entry, what)
        else:
            yield (_text(entry, what),)


def _entity(entry: object, i: int) -> Entity:
    what = f"entity {i}"
    if not isinstance(entry, Mapping):
        raise _MistakeError(f"{what} must have a name and a domain")
    _check_keys(entry, _KEYS_OF_AN_ENTITY, what)
    device_class = entry.get("device_class")
    return Entity(
        _names(entry, what),
        _text(entry.get("domain"), f"the domain of {what}"),
        None if device_class is None else _text(device_class, f"the device_class of {what}"),
    )


def _names(entry: Mapping[Any, Any], what: str) -> tuple[str, ...]:
    aliases = _list(entry.get("aliases"), f"the aliases of {what}")
    name = _text(entry.get("name"), f"the name of {what}")
    return (name, *(_text(alias, f"an alias of {what}") for alias in aliases))


def _list(value: object, what: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise _MistakeError(f"{what} must be a list")
    if len(value) > MAX_ENTRIES:
        raise _MistakeError(f"{what} must be {MAX_ENTRIES} at most")
    return value


def _text(value: object, what: str) -> str:
    if isinstance(value, bool):  # YAML reads On and Off so, and keeps nothing of how it was written
        raise _MistakeError(f"{what} must be in quotation marks: YAML reads it as yes or no")
    if isinstance(value, int | float):
        value = str(value)
    if not isinstance(value, str) or not value.strip() or len(value) > MAX_CHARS:
        raise _MistakeError(f"{what} must be a text of 1 to {MAX_CHARS} letters")
    return " ".join(value.split())


def _check_keys(entry: Mapping[Any, Any], known: Iterable[str], what: str) -> None:
    for key in entry:
        if key not in known:
            hint = did_you_mean(key, tuple(known)) if isinstance(key, str) else ""
            raise _MistakeError(f"{what} has {key!r}, which nothing is known of{hint}")
