"""Python runs this at its start, where its folder is in PYTHONPATH: in the server of the house.

time.time() is shifted by the seconds (a float64, native) at the beginning of the file that
CLOCK_SHIFT_FILE names, which may change at any time. Only what Python code asks of `time` is
shifted: libraries in C keep the right time. `python -m benchmarks faults clock` shifts theirs, too,
where libfaketime is installed.

SIGUSR2 is answered on stderr with what is allocated: bytes by malloc, blocks by Python.
"""

import ctypes
import gc
import mmap
import os
import signal
import struct
import sys
import time
from pathlib import Path


class _MallInfo(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def _shift(path: str) -> None:
    with Path(path).open("rb") as file:
        shared = mmap.mmap(file.fileno(), 8, prot=mmap.PROT_READ)
    right_time = time.time

    def shifted() -> float:
        return right_time() + float(struct.unpack_from("d", shared)[0])

    time.time = shifted
    time.time_ns = lambda: int(shifted() * 1e9)


def _tell(*_: object) -> None:
    gc.collect()
    try:
        mallinfo2 = ctypes.CDLL(None).mallinfo2
    except AttributeError:  # glibc before 2.33, or another library
        allocated = -1
    else:
        mallinfo2.restype = _MallInfo
        told = mallinfo2()
        allocated = told.uordblks + told.hblkhd
    # Not through sys.stderr: a signal may come while that is being written.
    os.write(2, f"allocated: {allocated} {sys.getallocatedblocks()}\n".encode())


if os.environ.get("CLOCK_SHIFT_FILE"):
    _shift(os.environ["CLOCK_SHIFT_FILE"])
    signal.signal(signal.SIGUSR2, _tell)
