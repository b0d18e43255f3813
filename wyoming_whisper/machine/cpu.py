"""What this machine is, as far as speed depends on it."""

from __future__ import annotations

import os
import platform
import re
from functools import lru_cache
from pathlib import Path


@lru_cache(maxsize=1)
def cpu_facts(cpuinfo: Path = Path("/proc/cpuinfo")) -> list[dict[str, str]]:
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
        for facts in cpu_facts()
        if "core id" in facts and int(facts.get("processor", -1)) in usable
    }
    return max(1, min(len(cores) or len(usable), _quota_cores()))


def usable_threads() -> int:
    """Return the logical processors that this process may use."""
    return max(1, min(len(os.sched_getaffinity(0)), _quota_cores()))


def fast_cores(cpus: Path = Path("/sys/devices/system/cpu")) -> int:
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


def instruction_set() -> str:
    """Return the widest vector instructions, such as AVX2 or NEON."""
    x86_sets = ("avx512_vnni", "avx512f", "avx2", "avx", "sse4_1")  # best first
    if platform.machine().lower().startswith(("aarch64", "arm")):
        return "NEON"
    flags = set(cpu_facts()[0].get("flags", "").split()) if cpu_facts() else set()
    return next((name.upper() for name in x86_sets if name in flags), "no AVX")


def adds_int8_exactly() -> bool:
    """Return whether sums of products of int8 are made in 32 bits at once.

    x86 without VNNI has them in 16 bits, two by two, which may be too few (vpmaddubsw).
    """
    vnni = ("avx512_vnni", "avx_vnni")
    if platform.machine().lower().startswith(("aarch64", "arm")):
        return True
    flags = set(cpu_facts()[0].get("flags", "").split()) if cpu_facts() else set()
    return not flags.isdisjoint(vnni)


def cpu_name() -> str:
    """Return the processor's model, for people and as part of a key."""
    facts = cpu_facts()
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
