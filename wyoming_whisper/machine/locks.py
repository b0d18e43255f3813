"""Lock files: one process at a time does what many may want; a killed one lets go of its lock."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

_LOGGER = logging.getLogger(__name__)


@contextlib.contextmanager
def locked(
    file: Path, busy: str = "", check_stop: Callable[[], None] = lambda: None, poll_s: float = 0.5
) -> Iterator[bool]:
    """Hold the lock `file`, as the hub's library takes it; give whether it is held for sure.

    It is not on a file system without locks. While another process has it, which is logged once as
    `busy`, `check_stop` is called again and again; what that raises ends the wait. With no `busy`
    there is no wait.
    """
    import filelock

    file.parent.mkdir(parents=True, exist_ok=True)
    lock, has_waited = filelock.FileLock(file), False
    while True:
        check_stop()
        try:
            lock.acquire(timeout=poll_s, blocking=bool(busy))
            break
        except TimeoutError:
            if not busy:
                break
            if not has_waited:
                _LOGGER.info("%s: waiting for it", busy)
            has_waited = True
        except NotImplementedError:
            break
    try:
        yield lock.is_locked
    finally:
        lock.release()
