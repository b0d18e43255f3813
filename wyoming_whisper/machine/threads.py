"""How many threads a model runs fastest with on this machine: measured once, then remembered.

As many as there are cores is right for most machines. Where two threads share a core, or slow cores
stand beside fast ones, nobody knows before it was tried: every layer waits for its slowest thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from .cpu import cpu_name, fast_cores, physical_cores, usable_threads
from .measured import Measurements

_LOGGER = logging.getLogger(__name__)


def thread_counts() -> list[int]:
    """Return the numbers worth trying, the usual one first."""
    counts = (physical_cores(), fast_cores(), usable_threads())
    return list(dict.fromkeys(counts))


def fastest_threads(
    counts: Sequence[int],
    seconds: Callable[[int], float],
    memory: Measurements,
    name: str,
    worth: float = 0.9,
) -> int:
    """Return the best of `counts` for what `name` stands for; the first unless another pays.

    `seconds` opens a model with so many threads, runs it once or more and returns the shortest
    time; it is only called where `memory` has no answer for this machine. Another number pays where
    it takes no more than `worth` of the first one's time: anything closer is noise.
    """
    key = f"threads: {name} on {cpu_name()}, {'/'.join(map(str, counts))}"
    remembered = memory.get(key)
    if remembered in counts:
        return int(remembered)
    times = {count: seconds(count) for count in counts}
    best = min(times, key=lambda count: times[count])
    if times[best] > worth * times[counts[0]]:
        best = counts[0]
    shown = ", ".join(f"{count}: {time * 1000:.0f} ms" for count, time in times.items())
    _LOGGER.info("%d threads, measured once for this model (%s)", best, shown)
    memory.put(key, best)
    return best
