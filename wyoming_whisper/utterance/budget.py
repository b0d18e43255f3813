"""How much of others' data is held at once: of all together."""

from __future__ import annotations

from ..errors import BusyError


class Budget:
    """What all together may hold, in samples or bytes. Belongs to the event loop."""

    def __init__(self, amount: int, what: str) -> None:
        self.free = amount
        self._what = what

    def account(self) -> _Account:
        """Return what counts how much of it one has."""
        return _Account(self)

    def take(self, amount: int) -> None:
        """Take some of it, or give back what is negative. Raises BusyError where it is not left."""
        if amount > self.free:
            raise BusyError(f"too much {self._what} of others is here; try again in a moment")
        self.free -= amount


class _Account:
    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._amount = 0

    def hold(self, amount: int) -> None:
        """Hold so much in all. Raises BusyError when all hold too much."""
        self._budget.take(amount - self._amount)
        self._amount = amount
