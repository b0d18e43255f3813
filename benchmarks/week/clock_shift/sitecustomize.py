"""Python runs this at its start, where its folder is in PYTHONPATH: time.time() is shifted.

By the seconds (a float64, native) at the beginning of the file that CLOCK_SHIFT_FILE names, which
may change at any time. Only what Python code asks of `time` is shifted: libraries in C keep the
right time. `python -m benchmarks.faults clock` shifts theirs, too, where libfaketime is installed.
"""

import mmap
import os
import struct
import time
from pathlib import Path


def _shift(path: str) -> None:
    with Path(path).open("rb") as file:
        shared = mmap.mmap(file.fileno(), 8, prot=mmap.PROT_READ)
    right_time = time.time

    def shifted() -> float:
        return right_time() + float(struct.unpack_from("d", shared)[0])

    time.time = shifted
    time.time_ns = lambda: int(shifted() * 1e9)


if os.environ.get("CLOCK_SHIFT_FILE"):
    _shift(os.environ["CLOCK_SHIFT_FILE"])
