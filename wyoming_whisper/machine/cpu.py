"""What this machine is, as far as speed depends on it."""

from __future__ import annotations

import logging
import os
import platform
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from .measured import Measurements

_LOGGER = logging.getLogger(__name__)


@lru_cache(maxsize=1)
def _cpu_facts(cpuinfo: Path = Path("/proc/cpuinfo")) -> list[dict[str, str]]:
    """Return /proc/cpuinfo, one dict a logical processor; empty where there is none."""
    text = _text(cpuinfo)
    blocks = [block for block in text.split("\n\n") if block.strip()]
    return [
        {
            key.strip(): value.strip()
            for key, _, value in (line.partition(":") for line in block.splitlines())
        }
        for block in blocks
    ]


def physical_cores() -> int:
    """Return the cores that this process may use, hyper-threads not counted.

    Two threads of one core share its arithmetic units: more workers than cores only get in each
    other's way.
    """
    usable = os.sched_getaffinity(0)
    cores = {
        (facts.get("physical id", "0"), facts["core id"])
        for facts in _cpu_facts()
        if "core id" in facts and int(facts.get("processor", -1)) in usable
    }
    return max(1, min(len(cores) or len(usable), _quota_cores()))


def instruction_set() -> str:
    """Return the widest vector instructions, such as AVX2 or NEON."""
    x86_sets = ("avx512_vnni", "avx512f", "avx2", "avx", "sse4_1")  # best first
    if platform.machine().lower().startswith(("aarch64", "arm")):
        return "NEON"
    flags = set(_cpu_facts()[0].get("flags", "").split()) if _cpu_facts() else set()
    return next((name.upper() for name in x86_sets if name in flags), "no AVX")


def adds_int8_exactly() -> bool:
    """Return whether sums of products of int8 are made in 32 bits at once.

    x86 without VNNI has them in 16 bits, two by two, which may be too few (vpmaddubsw).
    """
    vnni = ("avx512_vnni", "avx_vnni")
    if platform.machine().lower().startswith(("aarch64", "arm")):
        return True
    flags = set(_cpu_facts()[0].get("flags", "").split()) if _cpu_facts() else set()
    return not flags.isdisjoint(vnni)


def cpu_name() -> str:
    """Return the processor's model, for people and as part of a key."""
    facts = _cpu_facts()
    named = facts[0].get("model name") if facts else None
    return named or platform.processor() or platform.machine()


def ram_bytes(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return all memory that there is, or less where a container has a limit; 0: not known.

    What happens to be free at a start decides nothing: the next one may find another amount.
    """
    kilobytes = re.search(r"^MemTotal: +(\d+) kB$", _text(meminfo), re.MULTILINE)
    total = int(kilobytes[1]) * 1024 if kilobytes else 0
    limits = (cgroup / "memory.max", cgroup / "memory" / "memory.limit_in_bytes")
    texts = (_text(file).strip() for file in limits)
    return min([total, *(int(text) for text in texts if text.isdecimal())])


def fastest_threads(
    seconds: Callable[[int], float],
    memory: Measurements,
    name: str,
    worth: float = 0.9,
) -> int:
    """Return how many threads suit what `name` stands for: the cores, unless another number pays.

    As many as there are cores is right for most machines. Where two threads share a core, or slow
    cores stand beside fast ones, nobody knows before it was tried: every layer waits for its
    slowest thread.

    `seconds` opens a model with so many threads, runs it once or more and returns the shortest
    time; it is only called where `memory` has no answer for this machine. Another number pays where
    it takes no more than `worth` of the usual one's time: anything closer is noise.
    """
    counts = _thread_counts()
    if len(counts) == 1:
        return counts[0]
    key = f"threads: {name} on {cpu_name()}, {'/'.join(map(str, counts))}"
    remembered = memory.get(key)
    if remembered in counts:
        return int(remembered)
    _LOGGER.info("measuring how many threads suit this model: %s", ", ".join(map(str, counts)))
    times = {count: seconds(count) for count in counts}
    best = min(times, key=lambda count: times[count])
    if times[best] > worth * times[counts[0]]:
        best = counts[0]
    shown = ", ".join(f"{count}: {time * 1000:.0f} ms" for count, time in times.items())
    _LOGGER.info("%d threads, measured once for this model (%s)", best, shown)
    memory.put(key, best)
    return best


def _thread_counts() -> list[int]:
    """Return the numbers worth trying, the usual one first."""
    counts = (physical_cores(), _fast_cores(), _usable_threads())
    return list(dict.fromkeys(counts))


def _usable_threads() -> int:
    """Return the logical processors that this process may use."""
    return max(1, min(len(os.sched_getaffinity(0)), _quota_cores()))


def _fast_cores(cpus: Path = Path("/sys/devices/system/cpu")) -> int:
    """Return how many of the cores are the fast ones, where slow ones stand beside them.

    Linux tells their capacity on Arm only (Documentation/scheduler/sched-capacity.rst); elsewhere
    it is the number of physical cores.
    """
    capacities: list[int] = []
    for number in os.sched_getaffinity(0):
        try:
            capacities.append(int((cpus / f"cpu{number}" / "cpu_capacity").read_text()))
        except (OSError, ValueError):
            return physical_cores()
    return min(capacities.count(max(capacities)), _quota_cores())


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError:
        return ""


def _quota_cores() -> int:
    """Return the cores that a container's CPU quota allows, rounded up."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, -(-int(quota) // int(period)))
    except (OSError, ValueError):
        return 2**16
