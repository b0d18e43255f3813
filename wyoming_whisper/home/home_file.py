"""--home: a home that the user wrote down, as YAML."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from ..errors import did_you_mean
from ..machine.files import read_text_file
from .inventory import CustomFile, Entity, Home

MAX_ENTRIES = 10_000
MAX_CHARS = 500  # of a name or a sentence

MAX_CUSTOM_FILES = 200
"""Of a language; the others are left out."""

MAX_CUSTOM_CHARS = 4_000_000
"""Of all custom sentences together."""

Signature = tuple[int, ...] | None

_KEYS = ("areas", "floors", "entities", "sentences", "custom_sentences")
_KEYS_OF_A_PLACE = ("name", "aliases")
_KEYS_OF_AN_ENTITY = ("name", "aliases", "domain", "device_class")


class _MistakeError(Exception):
    """What the user wrote is none of what is understood; one sentence."""


class HomeFile:
    """A file that is read again whenever it, or one of its custom sentences, has changed."""

    def __init__(self, path: Path) -> None:
        """Read the file. Raises ValueError, one sentence."""
        self.path = path
        self._folder: Path | None = None  # of the custom sentences
        self._seen = self._signature()
        self._seen_custom: list[tuple[Path, Signature]] = []
        self.home = self._read()

    def has_changed(self) -> bool:
        """Return whether `home` is another one now.

        Raises ValueError, once for each version of the file that can't be read: `home` stays.
        """
        signature, custom = self._signature(), self._custom_signatures()
        if (signature, custom) == (self._seen, self._seen_custom):
            return False
        self._seen, self._seen_custom = signature, custom
        before, self.home = self.home, self._read()
        return self.home != before

    def _read(self) -> Home:
        """Return the home as it is written now. Raises ValueError."""
        home, self._folder = _read(self.path)
        self._seen_custom = self._custom_signatures()  # before they are read
        files = tuple(_custom_files(self._folder)) if self._folder else ()
        return dataclasses.replace(home, custom_sentences=files)

    def _signature(self) -> Signature:
        return _signature(self.path)

    def _custom_signatures(self) -> list[tuple[Path, Signature]]:
        paths = (path for _, path in _custom_paths(self._folder)) if self._folder else ()
        return [(path, _signature(path)) for path in paths]


def _signature(path: Path) -> Signature:
    """Return what is another when a file is; None where it isn't there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _custom_paths(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield (language, file): of the folders of languages, and of their regions (pt-BR)."""
    n_files: dict[str, int] = {}
    for of_language in _sorted(folder):
        language = of_language.name.split("-")[0].lower()
        for path in _sorted(of_language):
            if path.suffix in (".yaml", ".yml"):
                n_files[language] = n_files.get(language, 0) + 1
                if n_files[language] <= MAX_CUSTOM_FILES:
                    yield language, path


def _custom_files(folder: Path) -> Iterator[CustomFile]:
    """Yield the files of custom sentences with what is in them."""
    n_chars = 0
    for language, path in _custom_paths(folder):
        try:
            text = read_text_file(path, plain_only=True)
        except ValueError as error:
            yield CustomFile(language, str(path), mistake=str(error))
            continue
        n_chars += len(text)
        if n_chars > MAX_CUSTOM_CHARS:
            too_much = f"{path}: custom sentences are {MAX_CUSTOM_CHARS} letters at most, together"
            yield CustomFile(language, str(path), mistake=too_much)
            return
        yield CustomFile(language, str(path), text)


def _sorted(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _read(path: Path) -> tuple[Home, Path | None]:
    """Return the home that a file describes, and its folder of custom sentences.

    Raises ValueError, one sentence with the path.
    """
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


def _home(content: object, folder: Path) -> tuple[Home, Path | None]:
    if not isinstance(content, Mapping):
        raise _MistakeError("it must have areas, floors and entities")
    _check_keys(content, _KEYS, "the file")
    places = {
        key: tuple(name for names in _places(content.get(key), key) for name in names)
        for key in ("areas", "floors")
    }
    custom = content.get("custom_sentences")
    home = Home(
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
    )
    return home, None if custom is None else folder / _text(custom, "custom_sentences")


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
