"""Waiting in the event loop for what the model's thread makes of a job."""

from __future__ import annotations

import asyncio

from .errors import DeadlineError
from .scheduler import Job
from .transcriber import Transcription


async def result_of(job: Job, deadline_seconds: float) -> Transcription:
    """Wait for a job until the deadline, if that isn't 0; who stops waiting cancels it.

    Raises what the job failed of, DeadlineError.
    """
    future = asyncio.wrap_future(job.future)
    try:
        await asyncio.wait({future}, timeout=deadline_seconds or None)
        if future.done():
            return future.result()
        why = "its turn did not come: the model was not there, or had other work"
        if job.future.running():
            why = "the model was still at it"
        raise DeadlineError(
            f"there was no answer within {deadline_seconds:g} s (--deadline): {why}"
        )
    finally:
        if not future.done():
            job.cancel()
            future.cancel()
        job.forget()
        del future  # as in Job.forget
