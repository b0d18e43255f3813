"""Which addresses are announced, under which name; and real announcements on this machine."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import ifaddr
import pytest
from zeroconf import ServiceStateChange
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from tests.support import TIMEOUT_SECONDS
from wyoming_whisper.serving import discovery
from wyoming_whisper.serving.discovery import (
    Announcement,
    _announced_addresses,
    _is_behind_bridge,
    _server_name,
    _service_name,
)


def adapter(name: str, *ips: str) -> ifaddr.Adapter:
    both = [ifaddr.IP((ip, 0, 0) if ":" in ip else ip, 24, name) for ip in ips]
    return ifaddr.Adapter(name, name, both, 1)


HOME = (
    adapter("lo", "127.0.0.1", "::1"),
    adapter("eth0", "192.168.1.5", "2001:db8::5", "fd00::5", "fe80::5"),
    adapter("wlan0", "192.168.1.6", "169.254.7.7"),
    adapter("docker0", "172.17.0.1"),
    adapter("br-0123456789ab", "172.18.0.1"),
    adapter("br-lan", "192.168.2.1"),
    adapter("hassio", "172.30.32.1"),
    adapter("veth12ab", "169.254.1.1", "2001:db8::99"),
)


@pytest.mark.parametrize(
    ("bound", "announced"),
    [
        (["0.0.0.0"], ["192.168.1.5", "192.168.1.6", "192.168.2.1"]),
        (["::"], ["2001:db8::5", "fd00::5"]),
        (
            ["0.0.0.0", "::"],
            ["192.168.1.5", "192.168.1.6", "192.168.2.1", "2001:db8::5", "fd00::5"],
        ),
        (["192.168.1.6"], ["192.168.1.6"]),
        (["fd00::5", "192.168.1.5"], ["192.168.1.5", "fd00::5"]),
        (["172.17.0.1"], ["172.17.0.1"]),  # bound to it on purpose
        (["127.0.0.1", "::1"], []),
        (["fe80::5%eth0"], []),
    ],
)
def test_others_are_told_the_addresses_that_reach_us(
    bound: list[str], announced: list[str]
) -> None:
    assert _announced_addresses(bound, HOME) == announced


def test_only_bridges_to_containers_is_no_network() -> None:
    assert _announced_addresses(["0.0.0.0"], [adapter("docker0", "172.17.0.1")]) == []


@pytest.mark.parametrize(
    ("addresses", "in_container", "behind"),
    [
        (["172.17.0.2"], True, True),
        (["10.88.0.7", "fd00::7"], True, True),
        (["172.17.0.2"], False, False),
        (["192.168.1.5"], True, False),
        (["192.168.1.5", "172.17.0.2"], True, False),
        ([], True, False),
    ],
)
def test_a_containers_own_network_is_noticed(
    addresses: list[str], in_container: bool, behind: bool, tmp_path: Path
) -> None:
    mark = tmp_path / ".dockerenv"
    if in_container:
        mark.touch()
    assert _is_behind_bridge(addresses, [mark]) is behind


def test_the_name_is_product_and_host_the_same_every_start() -> None:
    host = socket.gethostname().partition(".")[0]
    assert _service_name("") == f"wyoming-whisper {host}" == _service_name("")
    assert _service_name("", 10301) == f"wyoming-whisper {host} 10301"


def test_a_wanted_name_becomes_one_label() -> None:
    assert _service_name("Kitchen No. 1") == "Kitchen No- 1"
    assert _service_name("a\x00b\n") == "a b"
    assert len(_service_name("ü" * 60).encode()) <= Announcement.MAX_LABEL_BYTES


def test_two_servers_of_a_host_have_addresses_under_different_names() -> None:
    assert _server_name(10300) != _server_name(10301)
    labels = _server_name(10300).split(".")
    assert all(len(label) <= Announcement.MAX_LABEL_BYTES for label in labels)


# -- on this machine's network, which is why the addresses are this machine's ---------------


class Listener:
    """What another machine would see."""

    def __init__(self, zeroconf: AsyncZeroconf) -> None:
        self._zeroconf = zeroconf
        self.changes: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self.browser = AsyncServiceBrowser(
            zeroconf.zeroconf, Announcement.SERVICE_TYPE, handlers=[self._changed]
        )

    def _changed(
        self,
        zeroconf: object,
        service_type: str,
        name: str,
        state_change: ServiceStateChange,
    ) -> None:
        if OURS in name:
            self.changes.put_nowait((state_change.name, name))

    async def next(self, change: str) -> str:
        """Return the name of the service that is next to change so."""
        while True:
            found, name = await asyncio.wait_for(self.changes.get(), TIMEOUT_SECONDS)
            if found == change:
                return name

    async def info(self, name: str) -> AsyncServiceInfo:
        info = AsyncServiceInfo(Announcement.SERVICE_TYPE, name)
        assert await info.async_request(self._zeroconf.zeroconf, 3000)
        return info


OURS = f"test {socket.gethostname()} of wyoming-whisper"


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> str:
    """Return an address of this machine that others reach."""
    monkeypatch.setattr(discovery.Announcement, "LOOK_SECONDS", 0.05)
    found = [address for address in _announced_addresses(["0.0.0.0"]) if ":" not in address]
    assert found, "these tests need a network interface"
    return found[0]


@pytest.fixture
async def listener(here: str) -> AsyncIterator[Listener]:
    zeroconf = AsyncZeroconf(interfaces=[here])
    listener = Listener(zeroconf)
    yield listener
    await listener.browser.async_cancel()
    await zeroconf.async_close()


async def test_a_server_is_seen_with_what_it_is_and_says_goodbye(
    listener: Listener, here: str
) -> None:
    announcement = Announcement(OURS, [here], 10399, lambda: {"model": "tiny"})
    announcement.start()
    info = await listener.info(await listener.next("Added"))
    assert info.parsed_addresses() == [here]
    assert info.port == 10399
    assert info.decoded_properties == {"model": "tiny"}
    await announcement.stop()
    await listener.next("Removed")


async def test_what_changes_is_told(listener: Listener, here: str) -> None:
    properties: dict[str, str] = {"backend": "auto"}
    announcement = Announcement(OURS, [here], 10399, lambda: properties)
    announcement.start()
    try:
        name = await listener.next("Added")
        properties["backend"] = "faster-whisper"
        while (await listener.info(name)).decoded_properties != properties:
            await listener.next("Updated")
    finally:
        await announcement.stop()


async def test_a_new_address_is_announced(
    listener: Listener, here: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses: list[str] = []
    monkeypatch.setattr(discovery, "_announced_addresses", lambda bound: list(addresses))
    announcement = Announcement(OURS, ["0.0.0.0"], 10399, dict)
    announcement.start()
    try:
        await asyncio.sleep(0.2)
        assert listener.changes.empty()  # nothing to say yet
        addresses.append(here)
        assert (await listener.info(await listener.next("Added"))).parsed_addresses() == [here]
        addresses.clear()  # the network goes away
        await listener.next("Removed")
    finally:
        await announcement.stop()


async def test_a_name_that_another_has_is_changed(listener: Listener, here: str) -> None:
    first = Announcement(OURS, [here], 10399, dict)
    second = Announcement(OURS, [here], 10398, dict)
    first.start()
    name = await listener.next("Added")
    second.start()
    try:
        other = await listener.next("Added")
        assert other == name.replace(OURS, f"{OURS}-2")
        assert (await listener.info(other)).port == 10398
        await first.stop()
        await listener.next("Removed")
        assert (await listener.info(other)).parsed_addresses() == [here]
    finally:
        await second.stop()


async def test_a_network_that_fails_is_a_line_in_the_log_and_tried_again(
    here: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried = asyncio.Event()
    tries = 0

    async def fail(self: Announcement, addresses: object, properties: Mapping[str, str]) -> None:
        nonlocal tries
        tries += 1
        if tries == 3:
            tried.set()
        raise OSError("Network is unreachable")

    monkeypatch.setattr(Announcement, "_register", fail)
    announcement = Announcement(OURS, [here], 10399, dict)
    announcement.start()
    await asyncio.wait_for(tried.wait(), TIMEOUT_SECONDS)
    await announcement.stop()
    assert caplog.text.count("Network is unreachable") == 1


async def test_what_nobody_foresaw_is_in_the_log_and_it_is_announced_all_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("wyoming_whisper.tasks.FIRST_RESTART_SECONDS", 0.01)
    again = asyncio.Event()
    looks: list[int] = []

    async def refresh(_: Announcement) -> None:
        looks.append(1)
        if len(looks) == 1:
            raise ZeroDivisionError
        again.set()

    monkeypatch.setattr(Announcement, "refresh", refresh)
    announcement = Announcement(OURS, ["192.0.2.1"], 10399, dict)
    announcement.start()
    await asyncio.wait_for(again.wait(), TIMEOUT_SECONDS)
    await announcement.stop()
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.exc_info
    assert "announcing by zeroconf has failed" in record.getMessage()


async def test_a_network_that_says_nothing_in_time_is_no_surprise(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Before Python 3.11 asyncio's TimeoutError is no OSError."""
    monkeypatch.setattr(discovery.Announcement, "LOOK_SECONDS", 0.01)
    again = asyncio.Event()
    looks: list[int] = []

    async def refresh(_: Announcement) -> None:
        looks.append(1)
        if len(looks) == 1:
            raise asyncio.TimeoutError
        again.set()

    monkeypatch.setattr(Announcement, "refresh", refresh)
    announcement = Announcement(OURS, ["192.0.2.1"], 10399, dict)
    announcement.start()
    await asyncio.wait_for(again.wait(), TIMEOUT_SECONDS)
    await announcement.stop()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_loopback_is_not_announced(caplog: pytest.LogCaptureFixture) -> None:
    announcement = Announcement("", ["127.0.0.1", "::1"], 10399, dict)
    announcement.start()
    assert "nobody but this machine" in caplog.text
    await announcement.stop()
