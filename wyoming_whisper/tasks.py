"""Background tasks of the event loop: each is kept until it ends, has a name, and fails aloud.

asyncio itself keeps no task that nobody refers to, and says of one that has failed at most that
nobody looked at it, whenever its garbage is collected.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

_LOGGER = logging.getLogger(__name__)

Result = TypeVar("Result")

FIRST_RESTART_SECONDS = 1.0

_kept: set[asyncio.Task[Any]] = set()


def start_task(
    work: Coroutine[Any, Any, Result], name: str, *, is_awaited: bool = False
) -> asyncio.Task[Result]:
    """Run `work` in the background, to its end.

    What it fails of is logged with its traceback, unless it `is_awaited`: then it is for the one
    who awaits the task.
    """
    task = asyncio.get_running_loop().create_task(work, name=name)
    _kept.add(task)
    task.add_done_callback(_kept.discard if is_awaited else _log_failure)
    return task


def start_lasting_task(
    work: Callable[[], Coroutine[Any, Any, None]], name: str
) -> asyncio.Task[None]:
    """Run `work` in the background, again whenever it fails of what nobody foresaw."""
    return start_task(_restarted(work, name), name)


async def end_tasks(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks, and wait until they have ended, however that is."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _log_failure(task: asyncio.Task[Any]) -> None:
    _kept.discard(task)
    if not task.cancelled() and (error := task.exception()):
        _LOGGER.error("%s has failed", task.get_name(), exc_info=error)


async def _restarted(work: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
    longest_restart_seconds = 300.0
    delay = FIRST_RESTART_SECONDS
    loop = asyncio.get_running_loop()
    while True:
        began = loop.time()
        try:
            return await work()
        except (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt):
            raise
        except BaseException:  # also a panic of a library in Rust, which is no Exception
            if loop.time() - began > longest_restart_seconds:
                delay = FIRST_RESTART_SECONDS  # it had been well
            _LOGGER.exception("%s has failed; it is started again in %.0f s", name, delay)
        await asyncio.sleep(delay)
        delay = min(2 * delay, longest_restart_seconds)
