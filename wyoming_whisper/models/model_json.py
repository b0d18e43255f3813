"""The JSON beside a model's weights: whatever is wrong with it is a ModelBrokenError that names the
file, so that it is compared with its hash and fetched again.
"""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

from ..errors import ModelBrokenError


class JsonFile:
    """One file of JSON, read when it is first asked for. All raise ModelBrokenError."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @functools.cached_property
    def text(self) -> str:
        """What is in the file."""
        try:
            return self.path.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise ModelBrokenError(f"{self.path} is missing") from error
        except OSError as error:
            raise ModelBrokenError(
                f"{self.path} can't be read: {error.strerror or error}"
            ) from error
        except ValueError as error:
            raise ModelBrokenError(f"{self.path} is damaged: {error}") from error

    def value(self) -> object:
        """Return what it says, whatever that is."""
        text = self.text
        try:
            value = json.loads(text)
            # Half a surrogate pair is no text, and can't be written again.
            if re.search(r"\\u[dD][89a-fA-F]", text):
                json.dumps(value, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            raise ModelBrokenError(f"{self.path} is damaged: {error}") from error
        return value

    @functools.cached_property
    def content(self) -> dict[str, Any]:
        """The object that it holds."""
        value = self.value()
        if not isinstance(value, dict):
            raise ModelBrokenError(f"{self.path} is damaged: it is not a JSON object")
        return value

    def damaged(self, key: str, what: str) -> ModelBrokenError:
        """Return the error for a value that is not what it has to be."""
        return ModelBrokenError(f"{self.path} is damaged: {key} is not {what}")

    def whole_numbers(self, key: str) -> list[int]:
        """Return the whole numbers under `key`, none where it is absent."""
        value = self.content.get(key)
        if value is None:
            return []
        if not isinstance(value, list) or any(type(number) is not int for number in value):
            raise self.damaged(key, "a list of whole numbers")
        return value

    def numbers_by_name(self, key: str) -> dict[str, int]:
        """Return the whole numbers by name under `key`, none where it is absent."""
        value = self.content.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict) or any(type(number) is not int for number in value.values()):
            raise self.damaged(key, "an object of whole numbers")
        return value

    def pairs(self, key: str) -> list[tuple[int, int]]:
        """Return the pairs of whole numbers under `key`, none where it is absent."""
        value = self.content.get(key)
        if value is None:
            return []
        if not isinstance(value, list) or any(
            not isinstance(pair, list) or [type(number) for number in pair] != [int, int]
            for pair in value
        ):
            raise self.damaged(key, "a list of pairs of whole numbers")
        return [(first, second) for first, second in value]
