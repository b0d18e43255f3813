"""Many connections: who is closed where there are too many, who waits, and that nothing is left."""

from __future__ import annotations

import asyncio
import gc
import itertools
import platform
import re
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest
from wyoming.ping import Ping

from tests.support import TIMEOUT_SECONDS, Client, FakeTranscriber, LoudnessVad, run_server
from wyoming_whisper.machine.process import give_back, settle
from wyoming_whisper.serving import connections, handler
from wyoming_whisper.serving import server as server_module
from wyoming_whisper.serving.connections import Connections, _origin
from wyoming_whisper.serving.handler import Handler
from wyoming_whisper.serving.server import Server

LIE = b'{"type": "audio-chunk", "payload_length": 4294967296}\n' + b"x" * 200_000


@pytest.mark.parametrize(
    ("address", "where"),
    [
        ("192.168.1.7", "192.168.1.7"),
        ("::ffff:192.168.1.7", "192.168.1.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_one_ipv6_network_is_one_neighbourhood(address: str, where: str) -> None:
    assert _origin(address) == where


async def test_the_address_that_holds_most_connections_loses_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though somebody else has been silent for longer."""
    addresses = itertools.chain(["198.51.100.1"], itertools.repeat("198.51.100.66"))
    monkeypatch.setattr(connections, "_tune", lambda *_: next(addresses))
    async with (
        run_server(tmp_path, lambda _: FakeTranscriber(), max_connections=4) as server,
        Client(tmp_path) as honest,
    ):
        crowd = [await asyncio.open_unix_connection(tmp_path / "socket") for _ in range(20)]
        ends = [asyncio.ensure_future(reader.read()) for reader, _ in crowd]
        while sum(end.done() for end in ends) < 17:
            there = [end for end in ends if not end.done()]
            await asyncio.wait(there, return_when=asyncio.FIRST_COMPLETED)
        assert all(b'"busy"' in end.result() for end in ends if end.done())
        assert len(server.connections) >= 4
        assert (await honest.ask(Ping("x").event())).data == {"text": "x"}
        for _, writer in crowd:
            writer.close()
        await asyncio.gather(*ends)


async def test_many_wait_in_the_kernel_though_few_are_taken_a_turn(tmp_path: Path) -> None:
    async with run_server(tmp_path, lambda _: FakeTranscriber(), max_connections=200):
        clients = [Client(tmp_path) for _ in range(100)]
        # All at once: with a short queue the kernel would refuse most of them.
        await asyncio.gather(*(client.__aenter__() for client in clients))
        for client in clients:
            assert (await client.ask(Ping("x").event())).data == {"text": "x"}
            await client.leave()


def test_questions_have_a_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(handler, "time", SimpleNamespace(monotonic=lambda: now))
    asked = Handler.__new__(Handler)
    asked._pace = 0.0
    waits = [asked._too_soon() for _ in range(Handler.EVENTS_AT_ONCE + 50)]
    assert waits[: Handler.EVENTS_AT_ONCE] == [0.0] * Handler.EVENTS_AT_ONCE
    assert waits[-1] == pytest.approx(50 / Handler.EVENTS_A_SECOND)
    now += 10
    assert asked._too_soon() == 0


async def leave(tmp_path: Path) -> None:
    _, writer = await asyncio.open_unix_connection(tmp_path / "socket")
    writer.close()


async def lie(tmp_path: Path) -> None:
    reader, writer = await asyncio.open_unix_connection(tmp_path / "socket")
    writer.write(LIE)
    assert b"payload_length" in await asyncio.wait_for(reader.read(), TIMEOUT_SECONDS)
    writer.close()


async def speak(tmp_path: Path) -> None:
    async with Client(tmp_path) as client:
        await client.speak(0.1)
        await client.transcript()


@pytest.mark.parametrize("how", [leave, lie, speak])
async def test_a_connection_that_has_ended_needs_no_search_for_garbage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: object
) -> None:
    """Its buffers are free at once; hundreds of them would otherwise wait for the search."""
    monkeypatch.setattr("wyoming_whisper.utterance.service.SileroVad", LoudnessVad)
    gone: list[weakref.ref[Handler]] = []
    track = Connections.track

    def remember(self: Connections, one: Handler) -> asyncio.Task[None]:
        gone.append(weakref.ref(one))
        return track(self, one)

    monkeypatch.setattr(Connections, "track", remember)
    async with run_server(tmp_path, lambda _: FakeTranscriber()) as server:
        await server.loaded_vad()
        gc.collect()
        gc.disable()
        try:
            await how(tmp_path)  # type: ignore[operator]
            await _alone(server)
            await asyncio.sleep(0.01)
            assert gone
            assert not [ref for ref in gone if ref() is not None]
        finally:
            gc.enable()


async def _alone(server: Server) -> None:
    while server.connections:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.01)


def test_what_is_there_when_the_model_is_ready_is_searched_no_more() -> None:
    before = gc.get_threshold()
    try:
        settle()
        assert gc.get_freeze_count() > 0
        assert gc.get_threshold() == (5_000, 20, 100)
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


async def test_memory_is_given_back_when_there_was_work_and_not_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = asyncio.Semaphore(0)
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(server_module.Server, "TIDY_SECONDS", 0.01)
    monkeypatch.setattr(
        server_module, "give_back", lambda: loop.call_soon_threadsafe(given.release)
    )
    async with run_server(tmp_path, lambda _: FakeTranscriber()) as server:
        await asyncio.wrap_future(server.scheduler.opened)
        await asyncio.sleep(0.1)
        while not given.locked():  # of the start
            await given.acquire()
        await asyncio.sleep(0.1)
        assert given.locked()  # nothing was done since
        await leave(tmp_path)
        await asyncio.wait_for(given.acquire(), TIMEOUT_SECONDS)


def test_a_system_that_keeps_nothing_has_nothing_to_give_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda _: SimpleNamespace())  # as musl
    give_back()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps what is freed")
def test_what_was_kept_is_given_back() -> None:
    small = [b"x" * 100_000 for _ in range(300)]  # below the size that is given back at once
    del small[:-1]  # the last one holds the rest in place
    before = resident()
    give_back()
    assert before - resident() > 20_000_000


def resident() -> int:
    found = re.search(r"^VmRSS:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found
    return 1024 * int(found[1])
