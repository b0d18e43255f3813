"""The JSON beside a model's weights: whatever is wrong with it is a ModelBrokenError that names the
file, so that it is compared with its hash and fetched again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ModelBrokenError
from ..whisper.tokenizer import LANGUAGES

EXTRAS = "wyoming_whisper.json"
"""What a model folder may say about itself: {"languages": ["en"], ...}."""
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read_json(file: Path) -> dict[str, Any]:
    """Return the object in `file`. Raises ModelBrokenError."""
    value = parse_json(read_text(file), file)
    if not isinstance(value, dict):
        raise ModelBrokenError(f"{file} is damaged: it is not a JSON object")
    return value


def read_text(file: Path) -> str:
    """Return the text of `file`. Raises ModelBrokenError."""
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ModelBrokenError(f"{file} is missing") from error
    except OSError as error:
        raise ModelBrokenError(f"{file} can't be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ModelBrokenError(f"{file} is damaged: {error}") from error


def parse_json(text: str, file: Path) -> object:
    """Return what JSON `text` says; `file` is where it came from. Raises ModelBrokenError."""
    try:
        value = json.loads(text)
        if _SURROGATE.search(text):  # half a surrogate pair is no text, and can't be written again
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise ModelBrokenError(f"{file} is damaged: {error}") from error
    return value


def damaged(file: Path, key: str, what: str) -> ModelBrokenError:
    """Return the error for a value that is not what it has to be."""
    return ModelBrokenError(f"{file} is damaged: {key} is not {what}")


def whole_numbers(content: Mapping[str, Any], key: str, file: Path) -> list[int]:
    """Return the whole numbers under `key`, none where it is absent. Raises ModelBrokenError."""
    value = content.get(key)
    if value is None:
        return []
    if not isinstance(value, list) or any(type(number) is not int for number in value):
        raise damaged(file, key, "a list of whole numbers")
    return value


def numbers_by_name(content: Mapping[str, Any], key: str, file: Path) -> dict[str, int]:
    """Return the whole numbers by name under `key`, none where it is absent.

    Raises ModelBrokenError.
    """
    value = content.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict) or any(type(number) is not int for number in value.values()):
        raise damaged(file, key, "an object of whole numbers")
    return value


def pairs(content: Mapping[str, Any], key: str, file: Path) -> list[tuple[int, int]]:
    """Return the pairs of whole numbers under `key`, none where it is absent.

    Raises ModelBrokenError.
    """
    value = content.get(key)
    if value is None:
        return []
    if not isinstance(value, list) or not all(map(_is_pair, value)):
        raise damaged(file, key, "a list of pairs of whole numbers")
    return [(first, second) for first, second in value]


def _is_pair(value: object) -> bool:
    return isinstance(value, list) and [type(number) for number in value] == [int, int]


@dataclass(frozen=True)
class ModelFacts:
    """What a model folder says about itself beyond CTranslate2's files."""

    languages: tuple[str, ...] | None = None
    """Whisper's codes of those that it was made to understand."""
    min_avg_logprob: float | None = None
    """Below it nothing is said rather than a guess."""
    tight_window: bool = False
    """It was trained on short windows."""


def read_facts(folder: Path) -> ModelFacts:
    """Return what the model in `folder` says about itself. Raises ModelBrokenError."""
    file = folder / EXTRAS
    if not file.is_file():
        return ModelFacts()
    content = read_json(file)
    return ModelFacts(
        _languages(content.get("languages", ["en"]), file),
        _number(content.get("min_avg_logprob"), file),
        _switch(content.get("tight_window", False), file),
    )


def _languages(value: object, file: Path) -> tuple[str, ...]:
    if isinstance(value, list) and value and all(code in LANGUAGES for code in map(str, value)):
        return tuple(map(str, value))
    raise damaged(file, "languages", "a list of Whisper's codes")


def _number(value: object, file: Path) -> float | None:
    max_logprob = 1e6  # and NaN is not below it
    if value is None:
        return None
    if isinstance(value, int | float) and type(value) is not bool and abs(value) <= max_logprob:
        return float(value)
    raise damaged(file, "min_avg_logprob", "a number")


def _switch(value: object, file: Path) -> bool:
    if isinstance(value, bool):
        return value
    raise damaged(file, "tight_window", "true or false")
