"""What the model's thread is at, and when that has hung: native code that will never return.

Knows neither clock nor thread: it is told how many seconds have passed, so that a process that was
stopped for an hour has not been at it for so long.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    """Something that the model's thread is at."""

    key: object
    """The same for as long as it is the same work; compared by identity."""
    kind: str
    """What it is called where it hangs."""
    step: object
    """Changes when the work gets on: a checkpoint was passed, a download has more."""
    audio_seconds: float | None = None
    """Length of what is transcribed; None is no transcription."""
    is_recording: bool = False
    """Whether it is a piece of a recording, for which nobody has a deadline."""


class HangWatch:
    """Says when a piece of work has been at one step for longer than can be.

    A step is what native code does between two checkpoints. The limit is twice `deadline` seconds
    for a command of up to WINDOW_SECONDS, more in proportion for longer windows, RECORDING_FACTOR
    times that for recordings, and at least MARGIN times what such a step took lately here.
    With a `deadline` of 0 nothing hangs.
    """

    WINDOW_SECONDS = 10.0
    """The shortest window that a stock model hears: less audio costs no less."""
    MAX_WINDOW_SECONDS = 30.0
    """The longest: more audio is more steps."""
    RECORDING_FACTOR = 2.0
    """A piece of a recording may take so much longer than a command: nobody has a deadline for
    it."""
    MARGIN = 10.0
    """Times the longest step measured here, for audio of the same length."""
    N_MEASURED = 20
    """The last steps whose durations count."""
    MAX_LIMIT_SECONDS = 3600.0
    """Whatever was measured: while a process was stopped, or its machine had no memory left."""
    UPKEEP_SECONDS = 1800.0
    """For opening or closing a model without any progress: a large one from a slow disk, an
    engine."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._watched: dict[int, tuple[Work, float]] = {}  # with the seconds since its last step
        self._paces: deque[float] = deque(maxlen=self.N_MEASURED)  # seconds per second of audio

    def look(self, under_way: Iterable[Work], seconds: float) -> str | None:
        """Take in what is under way, `seconds` after the last look; return what hangs, if anything.

        That is one sentence without a capital.
        """
        before, self._watched = self._watched, {}
        for work in under_way:
            # What is new is at its step from now on.
            last, waited = before.pop(id(work.key), (work, -seconds))
            if work.step == last.step:
                waited += seconds
            else:
                self._measure(last, waited)
                waited = 0.0
            self._watched[id(work.key)] = work, waited
        for ended, waited in before.values():
            self._measure(ended, waited)
        for work, waited in self._watched.values():
            if self._deadline and waited >= (limit := self.limit_seconds(work)):
                return f"{work.kind} has not got on for {limit:.0f} s: it hangs"
        return None

    def limit_seconds(self, work: Work) -> float:
        """Return for how long it may be at one step."""
        if work.audio_seconds is None:
            return self.UPKEEP_SECONDS
        audio = self._window(work.audio_seconds)
        limit = 2 * self._deadline * audio / self.WINDOW_SECONDS
        if work.is_recording:
            limit *= self.RECORDING_FACTOR
        measured = self.MARGIN * audio * max(self._paces, default=0.0)
        return max(min(max(limit, measured), self.MAX_LIMIT_SECONDS), 2 * self._deadline)

    def _window(self, audio_seconds: float) -> float:
        return min(max(audio_seconds, self.WINDOW_SECONDS), self.MAX_WINDOW_SECONDS)

    def _measure(self, work: Work, seconds: float) -> None:
        if work.audio_seconds is not None and seconds:
            self._paces.append(seconds / self._window(work.audio_seconds))
