"""What was measured once on this machine and is not measured again: a small JSON file."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from .files import write_file

_LOGGER = logging.getLogger(__name__)


class Measurements:
    """A key, which names all that the measurement depends on -> its result.

    They lie in the first of the data folders; without one, nothing is remembered.
    """

    FILE = "measured.json"

    _unwritten: ClassVar[dict[tuple[Path, str], object]] = {}
    """What could not be kept: a model that is opened again is not measured again."""

    def __init__(self, data_dir: Sequence[Path]) -> None:
        self._file = data_dir[0] / self.FILE if data_dir else None

    def get(self, key: str) -> Any:
        """Return the result; None where there is none, or the file is missing or damaged."""
        results = self._all()
        if self._file and key not in results:
            return self._unwritten.get((self._file, key))
        return results.get(key)

    def put(self, key: str, result: object) -> None:
        """Keep one result; until the process ends where the file can't be written."""
        if self._file is None:
            return
        text = json.dumps({**self._all(), key: result}, indent=2) + "\n"
        try:
            write_file(self._file, text.encode())
        except OSError as error:
            self._unwritten[self._file, key] = result
            _LOGGER.debug("what was measured can't be kept in %s: %s", self._file, error)

    def _all(self) -> dict[str, Any]:
        try:
            content = json.loads(self._file.read_text(encoding="utf-8")) if self._file else {}
        except (OSError, ValueError, RecursionError):
            return {}
        return content if isinstance(content, dict) else {}
