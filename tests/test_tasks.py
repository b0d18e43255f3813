"""Background tasks: kept, named, and never ended without a word."""

from __future__ import annotations

import ast
import asyncio
import gc
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

import wyoming_whisper
from tests.support import Panic
from wyoming_whisper import tasks
from wyoming_whisper.tasks import end_tasks, start_lasting_task, start_task

PACKAGE = Path(wyoming_whisper.__file__).parent

STARTERS = {"create_task", "ensure_future", "run_coroutine_threadsafe", "TaskGroup"}


def calls_that_start_tasks(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute | ast.Name):
            name = node.attr if isinstance(node, ast.Attribute) else node.id
            if name in STARTERS:
                yield f"{path.relative_to(PACKAGE)}:{node.lineno} {name}"


def test_every_task_of_the_package_is_started_in_one_place() -> None:
    found = [call for path in PACKAGE.rglob("*.py") for call in calls_that_start_tasks(path)]
    assert [call.partition(":")[0] for call in found] == ["tasks.py"], found


def test_no_task_is_started_and_dropped() -> None:
    """Who starts one has to end it, too."""
    dropped = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Name)
        and node.value.func.id in ("start_task", "start_lasting_task")
    ]
    assert dropped == []


async def fail_with(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize("error", [ZeroDivisionError(), Panic("index out of bounds")])
async def test_what_a_task_fails_of_is_logged_with_its_name_and_traceback(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    await asyncio.wait({start_task(fail_with(error), "counting sheep")})
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.ERROR, "counting sheep has failed")
    assert record.exc_info
    assert record.exc_info[1] is error


async def test_what_an_awaited_task_fails_of_is_for_who_awaits_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    task = start_task(fail_with(ZeroDivisionError()), "asking", is_awaited=True)
    with pytest.raises(ZeroDivisionError):
        await task
    assert not caplog.records


async def test_a_task_that_nobody_refers_to_goes_on() -> None:
    """The event loop itself has no reference to one that waits for a future of its own."""
    ended = asyncio.Event()
    waiting: list[asyncio.Future[None]] = []

    async def work() -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting.append(future)
        del future
        await waiting[0]
        ended.set()

    start_task(work(), "waiting")
    await asyncio.sleep(0)
    gc.collect()
    waiting[0].set_result(None)
    await asyncio.wait_for(ended.wait(), 5)
    await asyncio.sleep(0)
    assert not [task for task in tasks._kept if task.get_name() == "waiting"]


async def test_cancelling_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    task = start_task(asyncio.Event().wait(), "waiting")
    await end_tasks(task)
    assert task.cancelled()
    assert not caplog.records


async def test_a_task_that_must_last_is_started_again_less_and_less_often(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    errors = [ZeroDivisionError(), Panic(), *(OSError("no route") for _ in range(9))]

    async def work() -> None:
        if errors:
            raise errors.pop(0)

    await start_lasting_task(work, "looking")
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    assert len(caplog.records) == 11
    assert all(record.levelno == logging.ERROR and record.exc_info for record in caplog.records)
    assert caplog.messages[1] == "looking has failed; it is started again in 2 s"


async def test_a_task_that_must_last_ends_when_it_is_cancelled() -> None:
    began = asyncio.Event()

    async def work() -> None:
        began.set()
        await asyncio.Event().wait()

    task = start_lasting_task(work, "looking")
    await began.wait()
    await end_tasks(task)
    assert task.cancelled()
