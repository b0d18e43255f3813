"""Readers of options that are numbers within bounds.

The bounds stand here once: the add-on's manifest has the same (tests/test_addon.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Whole:
    """Reads a whole number from `lowest` to `highest`, both included."""

    lowest: int
    highest: int

    def __call__(self, raw: object) -> int:
        """Return the number; the ValueError says what is allowed."""
        if isinstance(raw, str) and re.fullmatch(r"\d{1,6}", raw):
            number = int(raw)
            if self.lowest <= number <= self.highest:
                return number
        raise ValueError(f"it must be a whole number from {self.lowest} to {self.highest}")


@dataclass(frozen=True)
class Decimal:
    """Reads a number from `lowest` to `highest`, both included; `unit` is its name in messages."""

    _DECIMAL = re.compile(r"(\d{1,6}(\.\d{0,20})?|\.\d{1,20})([eE]-?\d{1,2})?")

    lowest: float
    highest: float
    unit: str = "a number"

    def __call__(self, raw: object) -> float:
        """Return the number; the ValueError says what is allowed."""
        if isinstance(raw, str) and self._DECIMAL.fullmatch(raw):
            number = float(raw)
            if self.lowest <= number <= self.highest:
                return number
        raise ValueError(f"it must be {self.unit} from {self.lowest:g} to {self.highest:g}")


PROBABILITY = Decimal(0, 1)
BEAM_SIZE = Whole(0, 20)
CPU_THREADS = Whole(0, 256)
"""More than any machine of one house; CTranslate2 starts as many as it is told to."""
SECONDS = Whole(0, 999_999)
MILLISECONDS = Whole(0, 999_999)
