"""Whether an upstream may be asked now: a circuit that opens when it fails.

closed     it is asked
open       it is not asked: it can't be reached, or it has failed a moment ago
half-open  one utterance at a time is tried on it, while the next in line is asked as well

Being reached again closes a circuit that not being reached has opened. What failed otherwise has to
answer an utterance first: who lies may well be there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

State = Literal["closed", "open", "half-open"]


class Circuit:
    """What is known of one upstream. Not for several threads."""

    FIRST_BACKOFF_SECONDS = 2.0
    LONGEST_BACKOFF_SECONDS = 300.0
    MAX_DOUBLINGS = 10
    UNASKED = "it has not been asked yet"
    MAX_DOUBTS = 3
    """How often in a row another's answer may be taken before that counts as a failure."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.is_reachable = False
        """Whether it was there when it was last looked after."""
        self._n_failures = 0  # of requests, in a row
        self._n_doubts = 0
        self._open_until = 0.0
        self._trying = False
        self.why = self.UNASKED
        """Why it is not closed; one sentence without a capital."""

    @property
    def state(self) -> State:
        if not self.is_reachable:
            return "open"
        if not self._n_failures:
            return "closed"
        return "open" if self._clock() < self._open_until else "half-open"

    def take_trial(self) -> bool:
        """Return whether an utterance may be tried on it; then `succeeded`, `failed` or `untried`
        has to be called.
        """
        if self.state != "half-open" or self._trying:
            return False
        self._trying = True
        return True

    def untried(self) -> None:
        """A trial was broken off, which says nothing."""
        self._trying = False

    def reached(self) -> None:
        """It has answered a question after its health."""
        self.is_reachable = True

    def unreachable(self, why: str) -> None:
        """It has not."""
        self.is_reachable = False
        self.why = why

    def succeeded(self) -> None:
        """It has answered an utterance, and well."""
        self.is_reachable = True
        self._trying = False
        self._n_failures = self._n_doubts = 0

    def failed(self, why: str, at_least_seconds: float = 0.0) -> None:
        """It has not answered an utterance, or with what is no answer."""
        self._trying = False
        self._n_doubts = 0
        self.why = why
        if self._n_failures and self._clock() < self._open_until:
            return  # an utterance that was under way already: the same failure
        backoff = self.FIRST_BACKOFF_SECONDS * 2 ** min(self._n_failures, self.MAX_DOUBLINGS)
        self._n_failures += 1
        seconds = min(max(backoff, at_least_seconds), self.LONGEST_BACKOFF_SECONDS)
        self._open_until = self._clock() + seconds

    def doubted(self, why: str) -> None:
        """Another's answer was taken, though it had had its time."""
        self._n_doubts += 1
        if self._n_doubts >= self.MAX_DOUBTS:
            self.failed(f"{why}, {self.MAX_DOUBTS} times in a row")
