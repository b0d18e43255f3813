"""The rehearsal's gates do what they say, and its verdict sees what is broken."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import pytest

from benchmarks.lib.proxy import Gate
from benchmarks.siege.failover import (
    FAULTS,
    HTTP_ANSWERS,
    WYOMING_ANSWERS,
    Found,
    http_gate,
    table,
    wyoming_gate,
)
from tests.support import TIMEOUT_SECONDS, loud
from tests.upstreams.fakes import FakeHttp, FakeWyoming, http, says
from wyoming_whisper.errors import UpstreamError
from wyoming_whisper.settings.upstreams import Upstream
from wyoming_whisper.transcriber import TranscribeOptions
from wyoming_whisper.upstreams.exchange import Recording
from wyoming_whisper.upstreams.openai import OpenAIUpstream
from wyoming_whisper.upstreams.pool import Client
from wyoming_whisper.upstreams.wyoming import WyomingUpstream

SECOND = loud(1.0)
SILENT_FAULTS = ("hang", "no answer")
"""Nothing comes: the hedge is what ends the waiting."""


async def ask(client: Client) -> str:
    recording = Recording()
    recording.add(SECOND)
    recording.finish(SECOND, len(SECOND))
    reply = await client.transcribe(recording, TranscribeOptions("en"), {})
    return reply.text


async def outcome(client: Client, fault: str) -> str:
    """Return the text, "nothing" when there is none for a while; raises UpstreamError."""
    asking = asyncio.ensure_future(ask(client))
    timeout = 0.3 if fault in SILENT_FAULTS else TIMEOUT_SECONDS
    await asyncio.wait({asking}, timeout=timeout)
    if asking.done():
        return asking.result()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    return "nothing"


@pytest.mark.parametrize(
    "fault", ["refused", "black hole", "reset", "hang", "no answer", *WYOMING_ANSWERS]
)
async def test_a_wyoming_gate_does_what_it_says(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WyomingUpstream, "CONNECT_SECONDS", 0.2)
    async with FakeWyoming(says("yes")).running() as fake:
        gate = wyoming_gate(urlsplit(fake.uri).port or 0)
        await gate.set("")
        client = WyomingUpstream(Upstream.read(f"tcp://127.0.0.1:{gate.port}"))
        assert await ask(client) == "yes"
        assert (await client.check())[0] == "a fake model"
        if fault == "reset":
            await _reset_in_the_middle(client, gate)
        else:
            await gate.set(fault)
            await _fails(client, fault)
        await gate.set("")
        assert await ask(client) == "yes"
        await gate.close()


async def _reset_in_the_middle(client: Client, gate: Gate) -> None:
    recording = Recording()
    asking = asyncio.ensure_future(client.transcribe(recording, TranscribeOptions("en"), {}))
    recording.add(SECOND)
    while not gate._exchanges:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    await asyncio.sleep(0.05)
    await gate.set("reset")
    with pytest.raises(UpstreamError):
        await asyncio.wait_for(asking, TIMEOUT_SECONDS)


async def _fails(client: Client, fault: str) -> None:
    if fault in SILENT_FAULTS:
        assert await outcome(client, fault) == "nothing"
    elif fault == "empty text":
        assert await outcome(client, fault) == ""
    else:
        with pytest.raises(UpstreamError) as caught:
            await outcome(client, fault)
        assert (caught.value.fault == "absent") == (fault in ("refused", "black hole"))


@pytest.mark.parametrize("fault", ["refused", "hang", *HTTP_ANSWERS])
async def test_an_http_gate_does_what_it_says(fault: str) -> None:
    async with FakeHttp(http({"text": "yes"})).running() as fake:
        gate = http_gate(urlsplit(fake.uri).port or 0)
        await gate.set("")
        client = OpenAIUpstream(Upstream.read(f"http://127.0.0.1:{gate.port}/v1"), "transcribe")
        assert await ask(client) == "yes"
        await gate.set(fault)
        await _fails(client, fault)
        await gate.set("")
        assert await ask(client) == "yes"
        await client.close()
        await gate.close()


def test_each_fault_has_a_name_of_its_own() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    assert FAULTS[0].name == "nothing"


def test_what_is_broken_is_said() -> None:
    well = Found([0.1, 0.2, 0.3], fault="nothing", by={"wyoming": 3}, recovered_seconds=0.0)
    assert well.failures == []
    ill = Found([0.1, 1.3], ["a"], ["b", "c"], fault="kill", by={"here": 2})
    assert len(ill.failures) == 4
    row = [cell.strip() for cell in table([well, ill]).splitlines()[-1].split("|")[1:-1]]
    assert row[:4] == ["kill", "2", "1", "2"]
    assert row[6] == "1100 ms"  # the slowest, beyond what is usual
    assert row[-1] == "never"
