"""Sentences of the user's own, in a folder as Home Assistant's custom_sentences is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..machine.files import read_text_file

MAX_FILES = 200
_PARTS = ("intents", "lists", "expansion_rules")

Signature = tuple[tuple[str, int, int], ...]


def files_of(folder: Path, code: str) -> list[Path]:
    """Return the files of a language: of its folder, and of those of its regions (pt-BR)."""
    folders = [path for path in _sorted(folder) if path.name.split("-")[0].lower() == code]
    files = [file for path in folders for file in _sorted(path)]
    return [file for file in files if file.suffix in (".yaml", ".yml")][:MAX_FILES]


def signature(folder: Path, code: str) -> Signature:
    """Return what changes when one of the files does."""
    return tuple(_signature(file) for file in files_of(folder, code))


def read_custom_sentences(folder: Path, code: str) -> tuple[list[Mapping[str, Any]], list[str]]:
    """Return (intents of each file, one sentence for each file that can't be read)."""
    import yaml

    contents: list[Mapping[str, Any]] = []
    mistakes = []
    for file in files_of(folder, code):
        try:
            content = yaml.safe_load(read_text_file(file, plain_only=True))
        except ValueError as error:
            mistakes.append(str(error))
        except (yaml.YAMLError, RecursionError):
            mistakes.append(f"{file} is not YAML")
        else:
            if isinstance(content, Mapping):
                contents.append({part: content[part] for part in _PARTS if part in content})
            else:
                mistakes.append(f"{file} has no intents")
    return contents, mistakes


def _sorted(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _signature(file: Path) -> tuple[str, int, int]:
    try:
        status = file.stat()
    except OSError:
        return str(file), 0, 0
    return str(file), status.st_mtime_ns, status.st_size
