"""One utterance's audio on its way to upstreams."""

from __future__ import annotations

import asyncio

import pytest

from wyoming_whisper.settings.upstreams import Upstream
from wyoming_whisper.transcriber import TranscribeOptions, Transcription
from wyoming_whisper.upstreams.exchange import Recording
from wyoming_whisper.upstreams.pool import Member


class Well:
    """A Client that is always there."""

    async def check(self) -> tuple[str, frozenset[str]]:
        return "well", frozenset()

    async def transcribe(
        self, recording: Recording, options: TranscribeOptions, context: object
    ) -> Transcription:
        raise AssertionError("nobody asks")

    async def close(self) -> None:
        """There is nothing to close."""


async def test_who_looks_after_an_upstream_leaves_no_task_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("wyoming_whisper.upstreams.pool.Member.SOONEST_CHECK_SECONDS", 0.0)
    checked = asyncio.Event()
    before = asyncio.all_tasks()
    member = Member(Upstream.read("tcp://192.0.2.1:10300"), Well())
    looking = asyncio.create_task(member.look_after(checked.set))
    await checked.wait()
    while not [t for t in asyncio.all_tasks() if "resting" in t.get_name()]:  # noqa: ASYNC110
        await asyncio.sleep(0)
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)
    assert asyncio.all_tasks() == before  # at once, not in the next turn of the loop
