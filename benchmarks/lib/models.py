"""The models that benchmarks run: stock weights, kept in `.models/` in the repository."""

from __future__ import annotations

import argparse
from pathlib import Path

from wyoming_whisper.errors import ModelError
from wyoming_whisper.models.store import ModelStore
from wyoming_whisper.settings.options import Settings

FOLDER = Path(__file__).parents[2] / ".models"
BASE = "base"
"""What figures are measured with."""

TINY = "tiny.en"
"""Where a server is to suffer, and what it hears is no figure."""


def stock(name: str) -> Path:
    """Return the folder of the stock model `name`, fetched if it isn't there. Raises ModelError."""
    return ModelStore(Settings(model=name, data_dir=(FOLDER,))).ensure(name)


def model_folder(name: str) -> Path:
    """Return the folder `name`, or that of the stock model so called: a type for argparse."""
    if Path(name).is_dir():
        return Path(name)
    try:
        return stock(name)
    except ModelError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def serving(name: str = TINY) -> tuple[str, ...]:
    """Return the flags of a server of ours that hears English with it. Raises ModelError."""
    return "--model", str(stock(name)), "--language", "en"
