"""How far something is that takes long, for who looks on: a terminal, or a log."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable
from typing import Any

_LOGGER = logging.getLogger(__name__)


class Display:
    """A bar on a terminal, else a line in the log every `log_s`; `bar` are tqdm's arguments."""

    def __init__(self, log_s: float, **bar: Any) -> None:
        self._log_s = log_s
        self._state, self._logged = "", 0.0
        tqdm: Any = importlib.import_module("tqdm").tqdm if sys.stderr.isatty() else None
        self._bar = tqdm(**bar) if tqdm else None

    def show(self, done: float, seconds: float, line: Callable[[], str], state: str = "") -> None:
        """Say that so much is `done`, at a time in seconds; another `state` is logged at once."""
        if self._bar is not None:
            self._bar.set_postfix_str(state, refresh=False)
            self._bar.update(done - self._bar.n)
        elif state != self._state or seconds - self._logged >= self._log_s:
            self._state, self._logged = state, seconds
            _LOGGER.info("%s", line())

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()
