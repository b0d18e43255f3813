"""What this process asks of Python and of the C library, for as long as it serves."""

from __future__ import annotations

import contextlib
import ctypes
import gc

# Allocations before a search of the youngest; searches of these before one of the older; searches
# of those before one of all. Connections come by the hundred, and 32 ms were spent on them at once.
THRESHOLDS = (5_000, 20, 100)


def settle() -> None:
    """Spare what is there now, libraries and model, from being searched for garbage ever again.

    A search through all of it stops every thread for 60 ms (EPYC), in the middle of an answer.
    """
    gc.unfreeze()  # a model that was unloaded since the last time may be garbage by now
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)


def give_back() -> None:
    """Return to the system the memory that work has left free. Some milliseconds, without the GIL.

    glibc keeps it, in pieces in every thread's arena, and takes more when none of them fits: of
    185 MB after two minutes of commands 47 MB were free.
    """
    with contextlib.suppress(AttributeError, OSError):  # another C library has no such thing
        ctypes.CDLL(None).malloc_trim(0)
