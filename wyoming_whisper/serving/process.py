"""What this process asks of Python and of the C library, while it serves and when it ends."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os
import sys
import threading
from typing import NoReturn

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


MODEL_THREAD = "transcriber"
ENGINE_THREAD = "engine"
"""Names of the threads that may be in native code when the process is to end."""


def is_in_native_code() -> bool:
    """Whether one of these is still there: a library that loads a model aborts as Python ends."""
    names = {thread.name for thread in threading.enumerate()}
    return not names.isdisjoint((MODEL_THREAD, ENGINE_THREAD))


def leave(status: int) -> NoReturn:
    """End the process at once, whatever its threads are at."""
    logging.shutdown()
    os._exit(status)


def start_again() -> NoReturn:
    """Replace this process by a new one: nothing less ends a thread that hangs in native code."""
    logging.shutdown()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606  (as it was)
