"""How far a build is: reported by the child as lines of JSON, shown by its parent."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO

from ..machine.display import Display

READING, GRAPHS, ENCODER, DECODER = "weights", "graphs", "encoder engine", "decoder engine"


@dataclass(frozen=True)
class BuildProgress:
    """How far a build is."""

    phase: str
    fraction: float
    """Of the whole, roughly."""
    seconds: float
    """Since it began."""


class BuildDisplay(Display):
    """Shows how far a build is."""

    def __init__(self, label: str) -> None:
        bar = "{l_bar}{bar}| {elapsed}{postfix}"
        super().__init__(log_s=15.0, total=100, desc=label, bar_format=bar)
        self._label = label

    def show_build(self, progress: BuildProgress) -> None:
        phase, seconds, percent = progress.phase, progress.seconds, round(100 * progress.fraction)
        line = f"{self._label}: {phase}, {percent} %, {seconds:.0f} s"
        self.show(percent, seconds, lambda: line, phase)


class Report:
    """Lines of JSON to the parent, from any thread; the last progress again every few seconds."""

    PROGRESS_SECONDS = 0.5  # at least between two lines of one phase
    HEARTBEAT_SECONDS = 5.0

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self.shares: Mapping[str, float] = {}
        """About what part of the whole time each phase takes, in their order."""
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._phase, self._before, self._fraction = READING, 0.0, 0.0
        self._said = self._started
        threading.Thread(target=self._beat, daemon=True).start()

    def phase(self, name: str) -> None:
        phases = list(self.shares)
        self._before = sum(self.shares[phase] for phase in phases[: phases.index(name)])
        self._phase = name
        self.fraction(0.0)

    def fraction(self, done: float) -> None:
        """Say what share of the phase is done."""
        self._fraction = self._before + self.shares[self._phase] * min(max(done, 0.0), 1.0)
        if done == 0 or time.monotonic() - self._said >= self.PROGRESS_SECONDS:
            self._say_progress()

    def say(self, **fields: object) -> None:
        # The parent's end is this process's too: there is nobody to tell of a broken pipe.
        with self._lock, contextlib.suppress(BrokenPipeError):
            self._stream.write(json.dumps(fields) + "\n")
            self._stream.flush()

    def _say_progress(self) -> None:
        self._said = time.monotonic()
        seconds = round(self._said - self._started, 1)
        self.say(phase=self._phase, fraction=round(self._fraction, 4), seconds=seconds)

    def _beat(self) -> None:
        while True:
            time.sleep(self.HEARTBEAT_SECONDS)
            self._say_progress()
