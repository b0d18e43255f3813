"""Who may connect, and what the log says of those who may not."""

from __future__ import annotations

import asyncio
import logging
import stat
from pathlib import Path

import pytest
from wyoming.event import async_read_event
from wyoming.ping import Ping

from tests.support import TIMEOUT_SECONDS, Client, FakeTranscriber, run_server
from wyoming_whisper.peers import Allowed, PeerLog
from wyoming_whisper.serving.server import Server
from wyoming_whisper.settings.options import Settings


@pytest.mark.parametrize(
    ("networks", "address", "may"),
    [
        ((), "203.0.113.9", True),
        ((), None, True),
        (("192.168.1.0/24",), "192.168.1.77", True),
        (("192.168.1.0/24",), "192.168.2.77", False),
        (("192.168.1.0/24",), "::ffff:192.168.1.77", True),
        (("192.168.1.0/24",), "::ffff:192.168.2.77", False),
        (("192.168.1.0/24",), "127.0.0.1", True),
        (("192.168.1.0/24",), "::1", True),
        (("192.168.1.0/24",), None, True),
        (("192.168.1.0/24",), "fe80::1%eth0", False),
        (("192.168.1.0/24", "fe80::/10"), "fe80::1%eth0", True),
        (("2001:db8::5/128",), "2001:db8::5", True),
    ],
)
def test_who_is_allowed(networks: tuple[str, ...], address: str | None, may: bool) -> None:
    assert (address in Allowed(networks)) is may


async def test_a_peer_that_is_not_allowed_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(
        uri="tcp://127.0.0.1:0", model="tiny", data_dir=(tmp_path,), allow=("192.0.2.0/24",)
    )
    server = Server(settings, lambda _: FakeTranscriber())
    with caplog.at_level(logging.INFO):
        running = asyncio.create_task(server.run())
        while "listening" not in caplog.text:  # noqa: ASYNC110 - the log tells nobody
            await asyncio.sleep(0.01)
    port = int(caplog.text.split("port ")[1].split()[0])

    async def answer() -> tuple[str, str]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b'{"type":"ping"}\n')
        event = await asyncio.wait_for(async_read_event(reader), TIMEOUT_SECONDS)
        writer.close()
        assert event is not None
        return event.type, event.data.get("code", "")

    assert await answer() == ("pong", "")  # this machine
    monkeypatch.setattr("wyoming_whisper.serving.connections._tune", lambda *_: "198.51.100.7")
    assert await answer() == ("error", "access-denied")
    assert await answer() == ("error", "access-denied")
    assert caplog.text.count("198.51.100.7 is not among those in --allow") == 1
    server.stop()
    await asyncio.wait_for(running, TIMEOUT_SECONDS)


@pytest.mark.parametrize("mode", ["660", "0600", "777"])
async def test_the_unix_socket_has_the_mode_that_was_asked_for(tmp_path: Path, mode: str) -> None:
    async with run_server(tmp_path, lambda _: FakeTranscriber(), socket_mode=mode):
        found = stat.S_IMODE((tmp_path / "socket").stat().st_mode)
        assert found == int(mode, 8)
        async with Client(tmp_path) as client:
            assert (await client.ask(Ping().event())).type == "pong"


def test_the_log_remembers_so_many_peers_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    peers = PeerLog()
    for number in range(2 * PeerLog.MAX_REMEMBERED):
        for _ in range(3):
            peers.warn(f"peer {number}", "no")
    assert len(peers._logged) == PeerLog.MAX_REMEMBERED
    assert len(caplog.records) == 2 * PeerLog.MAX_REMEMBERED
