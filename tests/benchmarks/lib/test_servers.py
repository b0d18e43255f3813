"""Server processes: what is read of them, and one that does not start."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.lib.errors import BenchmarkError
from benchmarks.lib.servers import (
    Memory,
    Program,
    read_memory,
    read_processor_seconds,
    running,
    turned,
)

STATUS = """\
Name:\tpython3
VmHWM:\t  150000 kB
VmRSS:\t  120000 kB
RssAnon:\t   70000 kB
"""


def test_memory_of_a_process() -> None:
    assert read_memory(STATUS) == Memory(
        resident=120000 * 1024, peak=150000 * 1024, own=70000 * 1024
    )


def test_memory_that_the_system_does_not_tell() -> None:
    with pytest.raises(BenchmarkError, match="VmRSS"):
        read_memory("")


def test_processor_time_of_a_process_whatever_its_name() -> None:
    stat = "1234 (py (3) ) S 1 " + " ".join(str(n) for n in range(5, 53))
    assert read_processor_seconds(stat, 100) == (14 + 15) / 100


def test_turns() -> None:
    assert [turned("abc", number) for number in range(4)] == [
        ["a", "b", "c"],
        ["b", "c", "a"],
        ["c", "a", "b"],
        ["a", "b", "c"],
    ]


def test_a_server_that_does_not_start(tmp_path: Path) -> None:
    broken = Program("broken", ("/bin/sh", "-c", "echo it is broken; exit 1", "sh"))
    with pytest.raises(BenchmarkError, match="it is broken"), running([broken], tmp_path):
        pass
