"""What was measured once on this machine and is not measured again: a small JSON file."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

_LOGGER = logging.getLogger(__name__)


def recall(file: Path) -> dict[str, Any]:
    """Return what is remembered; nothing where the file is missing or damaged."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def remember(file: Path, key: str, value: object) -> None:
    """Add one thing, unless the file can't be written: then it is measured again."""
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({**recall(file), key: value}, indent=2) + "\n"
        aside.write_text(text, encoding="utf-8")
        aside.replace(file)
    except OSError as error:
        _LOGGER.debug("what was measured can't be kept in %s: %s", file, error)
