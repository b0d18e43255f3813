"""How much audio is taken on: of one utterance, and of all together."""

from __future__ import annotations

from ..errors import BusyError
from ..transcriber import SAMPLE_RATE


class Limits:
    """What is taken on. Belongs to the event loop."""

    # Three times what Home Assistant's own clients send at most (300 s, from browsers and apps),
    # and half of the audio that may be held for all speakers.
    MAX_UTTERANCE_SECONDS = 900.0

    # Audio held for all speakers together, in seconds: 115 MB. Each of 64 may speak for half a
    # minute; who speaks for longer is transcribed meanwhile, and holds a minute at most as a rule.
    MAX_HELD_SECONDS = 1800.0

    def __init__(
        self,
        utterance_seconds: float = MAX_UTTERANCE_SECONDS,
        deadline_seconds: float = 0.0,
        held_seconds: float = MAX_HELD_SECONDS,
    ) -> None:
        self.utterance_samples = round(utterance_seconds * SAMPLE_RATE)
        self.deadline_seconds = deadline_seconds
        """From the end of the audio, or from the piece before, to an answer; 0 is any time."""
        self.free_samples = max(round(held_seconds * SAMPLE_RATE), self.utterance_samples)

    def account(self) -> _Account:
        """Return what counts the samples that one utterance holds."""
        return _Account(self)


class _Account:
    """What one utterance holds of the audio that all together may."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._n_samples = 0

    def hold(self, n_samples: int) -> None:
        """Hold so many in all. Raises BusyError when all speakers hold too much."""
        more = n_samples - self._n_samples
        if more > self._limits.free_samples:
            raise BusyError("too much audio of others waits here; try again in a moment")
        self._limits.free_samples -= more
        self._n_samples = n_samples
