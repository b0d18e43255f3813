"""How many threads a model runs fastest with on this machine: measured once, then remembered.

As many as there are cores is right for most machines. Where two threads share a core, or slow cores
stand beside fast ones, nobody knows before it was tried: every layer waits for its slowest thread.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .machine import cpu_name, fast_cores, physical_cores, usable_threads

_LOGGER = logging.getLogger(__name__)

REMEMBERED = "threads.json"  # in the first data folder
WORTH = 0.9  # of the usual number's time, or less: anything closer is noise


def thread_counts() -> list[int]:
    """Return the numbers worth trying, the usual one first."""
    counts = (physical_cores(), fast_cores(), usable_threads())
    return list(dict.fromkeys(counts))


def fastest_threads(
    counts: Sequence[int],
    seconds: Callable[[int], float],
    memory: Path,
    name: str,
) -> int:
    """Return the best of `counts` for what `name` stands for; the first unless another pays.

    `seconds` opens a model with so many threads, runs it once or more and returns the shortest
    time; it is only called where `memory` knows no answer for this machine.
    """
    key = f"{name} on {cpu_name()}, {'/'.join(map(str, counts))}"
    remembered = _recall(memory)
    if remembered.get(key) in counts:
        return int(remembered[key])
    times = {count: seconds(count) for count in counts}
    best = min(times, key=lambda count: times[count])
    if times[best] > WORTH * times[counts[0]]:
        best = counts[0]
    shown = ", ".join(f"{count}: {time * 1000:.0f} ms" for count, time in times.items())
    _LOGGER.info("%d threads, measured once for this model (%s)", best, shown)
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
