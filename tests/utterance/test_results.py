"""What a failed job leaves behind: nothing that only a search for garbage finds."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from tests.support import (
    TIMEOUT_SECONDS,
    Client,
    FakeTranscriber,
    loud,
    quiet,
    run_server,
)
from tests.web.test_transcriptions import CLIP, asked, post, serving
from wyoming_whisper.errors import TranscribeError
from wyoming_whisper.transcriber import Samples, TranscribeOptions, Transcription
from wyoming_whisper.utterance.job import Job
from wyoming_whisper.utterance.service import Service


@dataclass
class Failing(FakeTranscriber):
    """Raises a new error for each request, and keeps no samples."""

    gone: list[weakref.ref[Samples]] = field(default_factory=list)

    def transcribe(self, samples: Samples, options: TranscribeOptions) -> Transcription:
        self.gone.append(weakref.ref(samples))
        raise TranscribeError("no")  # of others a log keeps the traceback


class Waiting(Service):
    """Has no more than a deadline."""

    def __init__(self) -> None:
        self.deadline_seconds = 0.01


pytestmark = pytest.mark.usefixtures("_hear_loudness")


@pytest.fixture
def _without_searches() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def all_gone(failing: Failing) -> None:
    """Wait until no samples are left: threads and tasks may be at their ends."""
    while any(ref() is not None for ref in failing.gone):  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.005)


SPOKEN = {
    "a command": [loud(0.5)],
    "dictation": [loud(20.0), quiet(5.0), loud(20.0), quiet(5.0), loud(1.0)],
}


@pytest.mark.usefixtures("_without_searches")
@pytest.mark.parametrize("upstreams", [(), ("tcp://127.0.0.1:9",)], ids=["here", "relayed"])
@pytest.mark.parametrize("spoken", SPOKEN)
async def test_what_a_command_failed_of_keeps_no_samples(
    tmp_path: Path, spoken: str, upstreams: tuple[str, ...]
) -> None:
    failing = Failing()
    async with run_server(tmp_path, lambda _: failing, upstreams=upstreams) as server:
        await asyncio.wrap_future(server.scheduler.opened)
        async with Client(tmp_path) as client:
            await client.speak(samples=np.concatenate(SPOKEN[spoken]))
            await client.error()
        assert failing.gone
        await asyncio.wait_for(all_gone(failing), TIMEOUT_SECONDS)


@pytest.mark.usefixtures("_without_searches")
async def test_what_a_recording_failed_of_keeps_no_samples(tmp_path: Path) -> None:
    failing = Failing()
    async with serving(tmp_path, failing) as (_, session):
        assert (await post(session, asked(CLIP)))[0] == 500
        assert failing.gone
        await asyncio.wait_for(all_gone(failing), TIMEOUT_SECONDS)


async def test_what_is_too_late_is_cancelled_and_why_is_told() -> None:
    service = Waiting()
    job = Job(loud(0.1), TranscribeOptions("en"))
    with pytest.raises(TranscribeError, match=r"within 0\.01 s \(--deadline\): its turn"):
        await service.result_of(job)
    assert job.future.cancelled()
    job = Job(loud(0.1), TranscribeOptions("en"))
    assert job.future.set_running_or_notify_cancel()
    with pytest.raises(TranscribeError, match="still at it"):
        await service.result_of(job)
    assert isinstance(job.future, Future)
    assert not job.future.done()
