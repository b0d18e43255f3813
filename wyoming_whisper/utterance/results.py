"""Waiting in the event loop for what the model's thread makes of a job."""

from __future__ import annotations

import asyncio
from typing import Any

from ..errors import StoppedError, TranscribeError
from ..transcriber import Transcription
from .job import Job


async def result_of(
    job: Job, deadline_seconds: float, hurrying: asyncio.Future[None] | None = None
) -> Transcription:
    """Wait for a job until the deadline, if that isn't 0; who stops waiting cancels it.

    Raises what the job failed of, TranscribeError; StoppedError when `hurrying` is done before.
    """
    future = asyncio.wrap_future(job.future)
    awaited: set[asyncio.Future[Any]] = {future, hurrying} if hurrying else {future}
    try:
        first = asyncio.FIRST_COMPLETED
        await asyncio.wait(awaited, timeout=deadline_seconds or None, return_when=first)
        if future.done():
            return future.result()
        if hurrying and hurrying.done():
            raise StoppedError("the server is shutting down")
        why = "its turn did not come: the model was not there, or had other work"
        if job.future.running():
            why = "the model was still at it"
        raise TranscribeError(
            f"there was no answer within {deadline_seconds:g} s (--deadline): {why}",
            "deadline-exceeded",
        )
    finally:
        if not future.done():
            job.cancel()
            future.cancel()
        job.forget()
        del future, awaited  # as in Job.forget
