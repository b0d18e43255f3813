"""What this process asks of Python and of the C library, while it serves and when it ends."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os
import sys
import threading
from collections.abc import Callable
from typing import NoReturn


def settle() -> None:
    """Freeze what is there now, libraries and model: the cyclic garbage collector ignores it.

    A collection of all of it stops every thread for 60 ms (EPYC), in the middle of an answer.
    """
    # Allocations before a search of the youngest; searches of these before one of the older;
    # searches of those before one of all: of connections that come by the hundred, 32 ms at once.
    thresholds = 5_000, 20, 100
    gc.unfreeze()  # a model that was unloaded since the last time may be in a cycle
    gc.collect()
    gc.freeze()
    gc.set_threshold(*thresholds)


def give_back() -> None:
    """Return to the system the memory that work has left free. Some milliseconds, without the GIL.

    glibc keeps it, in pieces in every thread's arena, and takes more when none of them fits: of
    185 MB after two minutes of commands 47 MB were free.
    """
    with contextlib.suppress(AttributeError, OSError):  # another C library has no such thing
        ctypes.CDLL(None).malloc_trim(0)


class NativeThread(threading.Thread):
    """A daemon thread that may be in native code when the process is to end."""

    def __init__(self, target: Callable[[], None], name: str) -> None:
        super().__init__(target=target, name=name, daemon=True)

    @classmethod
    def is_any_alive(cls) -> bool:
        """Whether there is one: a library that loads a model aborts as Python ends."""
        return any(isinstance(thread, cls) for thread in threading.enumerate())


def leave(status: int) -> NoReturn:
    """End the process at once, whatever its threads are at."""
    logging.shutdown()
    os._exit(status)


def start_again() -> NoReturn:
    """Replace this process by a new one: nothing less ends a thread that hangs in native code."""
    logging.shutdown()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606  (as it was)
