"""What a model runs fastest with on this machine: measured once, then remembered.

As many as there are cores is right for most machines. Where two threads share a core, or slow cores
stand beside fast ones, nobody knows before it was tried: every layer waits for its slowest thread.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from .machine import cpu_name, fast_cores, physical_cores, usable_threads

_LOGGER = logging.getLogger(__name__)

REMEMBERED = "threads.json"  # in the first data folder
WORTH = 0.9  # of the usual choice's time, or less: anything closer is noise

Choice = TypeVar("Choice", int, str)


def thread_counts() -> list[int]:
    """Return the numbers worth trying, the usual one first."""
    counts = (physical_cores(), fast_cores(), usable_threads())
    return list(dict.fromkeys(counts))


def fastest(
    choices: Sequence[Choice],
    seconds: Callable[[Choice], float],
    memory: Path,
    name: str,
    *,
    what: str = "threads",
    worth: float = WORTH,
) -> Choice:
    """Return the best of `choices` of `what` for `name`; the first unless another pays.

    `seconds` opens a model that way, runs it once or more and returns the shortest time; it is only
    called where `memory` knows no answer for this machine. Another pays if it takes at most `worth`
    times as long as the first.
    """
    key = f"{name} on {cpu_name()}, {'/'.join(map(str, choices))}"
    remembered = _recall(memory)
    for choice in choices:
        if remembered.get(key) == choice:
            return choice
    times = {choice: seconds(choice) for choice in choices}
    best = min(times, key=lambda choice: times[choice])
    if times[best] > worth * times[choices[0]]:
        best = choices[0]
    shown = ", ".join(f"{choice}: {time * 1000:.0f} ms" for choice, time in times.items())
    _LOGGER.info("%s: %s, measured once for this model (%s)", what, best, shown)
    _remember(memory, {**remembered, key: best})
    return best


def _recall(memory: Path) -> dict[str, Any]:
    try:
        found = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _remember(memory: Path, numbers: dict[str, Any]) -> None:
    aside = memory.with_name(f".{memory.name}.{os.getpid()}")
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
        aside.replace(memory)
    except OSError as error:
        _LOGGER.debug("the number of threads can't be kept in %s: %s", memory, error)
