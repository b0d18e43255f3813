"""What this machine is, as far as speed depends on it."""

from __future__ import annotations

import logging
import os
import platform
import re
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from .measured import Measurements

_LOGGER = logging.getLogger(__name__)


class Host:
    """The processor and the memory that this process may use. `root` is the system's files."""

    X86_SETS = ("avx512_vnni", "avx512f", "avx2", "avx", "sse4_1")  # best first
    VNNI = frozenset({"avx512_vnni", "avx_vnni"})

    def __init__(self, root: Path = Path("/")) -> None:
        self._proc = root / "proc"
        self._cgroup = root / "sys" / "fs" / "cgroup"
        self._cpus = root / "sys" / "devices" / "system" / "cpu"

    @property
    def cores(self) -> int:
        """The cores that this process may use, hyper-threads not counted.

        Two threads of one core share its arithmetic units: more workers than cores only get in each
        other's way.
        """
        usable = os.sched_getaffinity(0)
        cores = {
            (facts.get("physical id", "0"), facts["core id"])
            for facts in self._processors
            if "core id" in facts and int(facts.get("processor", -1)) in usable
        }
        return max(1, min(len(cores) or len(usable), self._quota_cores))

    @property
    def cpu_name(self) -> str:
        """The processor's model, for people and as part of a key."""
        return self._first.get("model name") or platform.processor() or platform.machine()

    @property
    def instruction_set(self) -> str:
        """The widest vector instructions, such as AVX2 or NEON."""
        if self._is_arm:
            return "NEON"
        return next((name.upper() for name in self.X86_SETS if name in self._flags), "no AVX")

    @property
    def adds_int8_exactly(self) -> bool:
        """Whether sums of products of int8 are made in 32 bits at once.

        x86 without VNNI has them in 16 bits, two by two, which may be too few (vpmaddubsw).
        """
        return self._is_arm or not self.VNNI.isdisjoint(self._flags)

    @property
    def ram_bytes(self) -> int:
        """All memory that there is, or less where a container has a limit; 0: not known.

        What happens to be free at a start decides nothing: the next one may find another amount.
        """
        meminfo = _text(self._proc / "meminfo")
        kilobytes = re.search(r"^MemTotal: +(\d+) kB$", meminfo, re.MULTILINE)
        total = int(kilobytes[1]) * 1024 if kilobytes else 0
        limits = ("memory.max", "memory/memory.limit_in_bytes")
        texts = (_text(self._cgroup / file).strip() for file in limits)
        return min([total, *(int(text) for text in texts if text.isdecimal())])

    def fastest_threads(
        self,
        seconds: Callable[[int], float],
        memory: Measurements,
        name: str,
        worth: float = 0.9,
    ) -> int:
        """Return how many threads suit what `name` stands for: the cores, unless others pay.

        As many as there are cores is right for most machines. Where two threads share a core, or
        slow cores stand beside fast ones, nobody knows before it was tried: every layer waits for
        its slowest thread.

        `seconds` opens a model with so many threads, runs it once or more and returns the shortest
        time; it is only called where `memory` has no answer for this machine. Another number pays
        where it takes no more than `worth` of the usual one's time: anything closer is noise.
        """
        counts = self._thread_counts()
        if len(counts) == 1:
            return counts[0]
        key = f"threads: {name} on {self.cpu_name}, {'/'.join(map(str, counts))}"
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

    def _thread_counts(self) -> list[int]:
        """Return the numbers worth trying, the usual one first."""
        usable = max(1, min(len(os.sched_getaffinity(0)), self._quota_cores))
        return list(dict.fromkeys((self.cores, self._fast_cores, usable)))

    @property
    def _fast_cores(self) -> int:
        """How many of the cores are the fast ones, where slow ones stand beside them.

        Linux tells their capacity on Arm only (Documentation/scheduler/sched-capacity.rst);
        elsewhere it is the number of physical cores.
        """
        capacities: list[int] = []
        for number in os.sched_getaffinity(0):
            try:
                capacities.append(int((self._cpus / f"cpu{number}" / "cpu_capacity").read_text()))
            except (OSError, ValueError):
                return self.cores
        return min(capacities.count(max(capacities)), self._quota_cores)

    @property
    def _quota_cores(self) -> int:
        """The cores that a container's CPU quota allows, rounded up."""
        try:
            quota, period = (self._cgroup / "cpu.max").read_text().split()
            return max(1, -(-int(quota) // int(period)))
        except (OSError, ValueError):
            return 2**16

    @cached_property
    def _processors(self) -> list[dict[str, str]]:
        """/proc/cpuinfo, one dict a logical processor; empty where there is none."""
        blocks = [block for block in _text(self._proc / "cpuinfo").split("\n\n") if block.strip()]
        return [
            {
                key.strip(): value.strip()
                for key, _, value in (line.partition(":") for line in block.splitlines())
            }
            for block in blocks
        ]

    @property
    def _first(self) -> dict[str, str]:
        return self._processors[0] if self._processors else {}

    @property
    def _flags(self) -> set[str]:
        return set(self._first.get("flags", "").split())

    @property
    def _is_arm(self) -> bool:
        return platform.machine().lower().startswith(("aarch64", "arm"))


HOST = Host()
"""This machine."""


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError:
        return ""
