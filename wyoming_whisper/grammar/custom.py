"""Sentences of the user's own, as Home Assistant has them in its folder custom_sentences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..home.inventory import CustomFile

_PARTS = ("intents", "lists", "expansion_rules")


def parse_custom_sentences(
    files: Iterable[CustomFile],
) -> tuple[list[Mapping[str, Any]], list[str]]:
    """Return (intents of each file, one sentence for each file that can't be used)."""
    import yaml

    contents: list[Mapping[str, Any]] = []
    mistakes = []
    for file in files:
        if file.mistake:
            mistakes.append(file.mistake)
            continue
        try:
            content = yaml.safe_load(file.text)
        except (yaml.YAMLError, ValueError, RecursionError):
            mistakes.append(f"{file.name} is not YAML")
            continue
        if isinstance(content, Mapping):
            contents.append({part: content[part] for part in _PARTS if part in content})
        else:
            mistakes.append(f"{file.name} has no intents")
    return contents, mistakes
