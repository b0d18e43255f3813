"""What the server is doing right now, for those who ask: `health --json`, the web page, the log.

Written by whichever thread does the work, read by any other.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import Literal

Phase = Literal["starting", "downloading", "loading", "building", "ready", "idle", "unavailable"]


@dataclass(frozen=True)
class State:
    """One moment. `fraction` of the current phase is done, where that is known."""

    phase: Phase = "starting"
    detail: str = ""
    """One sentence for people."""
    fraction: float | None = None
    backend: str | None = None
    """`faster-whisper` or `tensorrt`: what answers, or will."""
    why: str = ""
    """Why this backend, one sentence."""
    description: str = ""
    """Transcriber.description of what answers now; empty before anything does."""
    building: str = ""
    """What is built in the background while requests are answered; empty when nothing is."""
    building_fraction: float | None = None


class Status:
    """The current State; every change replaces it as a whole."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._state = State()

    @property
    def state(self) -> State:
        return self._state

    def update(self, **changes: object) -> None:
        """Replace fields of the State."""
        with self._lock:
            self._state = replace(self._state, **changes)  # type: ignore[arg-type]
