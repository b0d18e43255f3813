"""Announcing the server on the local network (zeroconf), so that Home Assistant finds it.

For servers on their own; an add-on is announced by the Supervisor (supervisor.py), never by both.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import ifaddr
from zeroconf import Error
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

from ..tasks import end_tasks, start_lasting_task

_LOGGER = logging.getLogger(__name__)


class Announcement:
    """A service that others on the network see between `start` and `stop`.

    `bound` are the addresses that the server listens at, as numbers. `properties` is asked for
    what else to tell (TXT); what has changed, here or of the machine's addresses, is told again.
    """

    PRODUCT = "wyoming-whisper"
    STANDARD_PORT = 10300
    SERVICE_TYPE = "_wyoming._tcp.local."
    NETWORK_ERRORS = (OSError, RuntimeError, asyncio.TimeoutError, Error)
    """What sockets and zeroconf raise; RuntimeError is of interfaces that went away. Before Python
    3.11, asyncio's TimeoutError is no OSError."""
    MAX_LABEL_BYTES = 63  # of one part of a DNS name (RFC 1035)
    MAX_PROPERTY_BYTES = 200  # of one value in a TXT record; key=value has 255 (RFC 6763)
    LOOK_SECONDS = 10.0  # between two looks at this machine's addresses
    GOODBYE_SECONDS = 2.0  # within the time that the Supervisor and Docker leave us

    def __init__(
        self,
        name: str,
        bound: Sequence[str],
        port: int,
        properties: Callable[[], Mapping[str, str]],
    ) -> None:
        self._name = _service_name(name, port)
        self._bound = tuple(bound)
        self._port = port
        self._properties = properties
        self._announced: tuple[Sequence[str], Mapping[str, str]] = ((), {})
        self._zeroconf: AsyncZeroconf | None = None
        self._task: asyncio.Task[None] | None = None
        self._last_words = ""

    def start(self) -> None:
        """Begin to announce; a network that can't be told is a warning, not the end."""
        if all(ipaddress.ip_address(address).is_loopback for address in self._bound):
            self._warn("not announced: nobody but this machine reaches %s", ", ".join(self._bound))
            return
        self._task = start_lasting_task(self._keep_announced, "announcing by zeroconf")

    async def stop(self) -> None:
        """Say goodbye, so that nobody waits for us."""
        if self._task:
            await end_tasks(self._task)
        try:
            await asyncio.wait_for(self._withdraw(), self.GOODBYE_SECONDS)
        except self.NETWORK_ERRORS as error:
            _LOGGER.debug("no goodbye was said on the network: %s", error)
        except Exception:  # whatever it is, the server goes on to end
            _LOGGER.exception("no goodbye was said on the network")

    async def _keep_announced(self) -> None:
        while True:
            try:
                await self.refresh()
            except self.NETWORK_ERRORS as error:  # an interface that is not up yet, or gone again
                self._warn("not announced on the network (%s); it is tried again", error)
            await asyncio.sleep(self.LOOK_SECONDS)

    async def refresh(self) -> None:
        """Make what is announced what is true. Raises what zeroconf and sockets raise."""
        addresses = await asyncio.to_thread(_announced_addresses, self._bound)
        properties = {
            key: value.encode()[: self.MAX_PROPERTY_BYTES].decode(errors="ignore")
            for key, value in self._properties().items()
        }
        if (addresses, properties) == self._announced:
            return
        if addresses and self._zeroconf and addresses == self._announced[0]:
            await (await self._zeroconf.async_update_service(self._info(addresses, properties)))
        else:
            # Zeroconf speaks on the interfaces that there were when it was made.
            await self._withdraw()
            if addresses:
                await self._register(addresses, properties)
            else:
                self._warn("not announced until this machine has an address in a network")
        self._announced = (addresses, properties)

    async def _register(self, addresses: Sequence[str], properties: Mapping[str, str]) -> None:
        logging.getLogger("zeroconf").addFilter(_without_traceback)
        self._zeroconf = AsyncZeroconf(interfaces=list(addresses))
        info = self._info(addresses, properties)
        registering = self._zeroconf.async_register_service(info, allow_name_change=True)
        await (await registering)
        self._name = info.name.removesuffix(f".{self.SERVICE_TYPE}")  # another may have had it
        self._last_words = ""
        _LOGGER.info("announced as %r at %s port %d", info.name, ", ".join(addresses), self._port)
        if _is_behind_bridge(addresses):
            self._warn(
                "%s looks like a container's own network, which announcements do not leave: give "
                "the container the host's network (--network host), or add the server in Home "
                "Assistant by address and port",
                addresses[0],
            )

    async def _withdraw(self) -> None:
        zeroconf, self._zeroconf, self._announced = self._zeroconf, None, ((), {})
        if zeroconf:
            try:
                await zeroconf.async_unregister_all_services()
            finally:
                await zeroconf.async_close()

    def _info(self, addresses: Sequence[str], properties: Mapping[str, str]) -> AsyncServiceInfo:
        return AsyncServiceInfo(
            self.SERVICE_TYPE,
            f"{self._name}.{self.SERVICE_TYPE}",
            port=self._port,
            properties=dict(properties),
            server=_server_name(self._port),
            parsed_addresses=list(addresses),
        )

    def _warn(self, words: str, *arguments: object) -> None:
        """Log it, but not every ten seconds."""
        sentence = words % arguments
        if sentence != self._last_words:
            self._last_words = sentence
            _LOGGER.warning("%s", sentence)


def _without_traceback(record: logging.LogRecord) -> bool:
    """Keep the sentence alone of what zeroconf logs when an interface goes away."""
    record.exc_info = None
    return True


def _service_name(name: str, port: int = Announcement.STANDARD_PORT) -> str:
    """Return the instance name: what the user wants, or product and host, the same every start.

    Home Assistant knows a server by it, so two on one host differ by their ports.
    """
    number = "" if port == Announcement.STANDARD_PORT else f" {port}"
    name = name or f"{Announcement.PRODUCT} {_host()}{number}"
    label = "".join(char if char.isprintable() else " " for char in name).replace(".", "-")
    return label.encode()[: Announcement.MAX_LABEL_BYTES].decode(errors="ignore").strip()


def _server_name(port: int) -> str:
    """Return the host name that the addresses are announced under.

    Not the host's own, which belongs to its Avahi or systemd-resolved, and one for each server:
    the goodbye of one takes its name's addresses back.
    """
    host = re.sub(r"[^A-Za-z0-9-]", "-", _host())
    return f"{Announcement.PRODUCT}-{host}"[: Announcement.MAX_LABEL_BYTES - 6] + f"-{port}.local."


def _announced_addresses(
    bound: Iterable[str], adapters: Iterable[ifaddr.Adapter] | None = None
) -> list[str]:
    """Return where others reach a server bound to these addresses: IPv4 first, none twice.

    Home Assistant drops an announcement of 0.0.0.0, of loopback, or of link-local addresses alone
    (its components/zeroconf/discovery.py), so those are never announced; nor are the addresses
    that only this machine's containers reach.
    """
    addresses: list[str] = []
    for text in bound:
        address = ipaddress.ip_address(text.partition("%")[0])
        if address.is_unspecified:
            addresses += _interface_addresses(address.version, adapters)
        else:
            addresses.append(str(address))
    reachable = [text for text in dict.fromkeys(addresses) if _is_reachable(text)]
    return sorted(reachable, key=lambda text: ":" in text)


def _interface_addresses(version: int, adapters: Iterable[ifaddr.Adapter] | None) -> list[str]:
    # They lead to this machine's own containers and virtual machines.
    to_containers = r"(docker|podman|cni|lxcbr|lxdbr|virbr|veth|hassio).*|br-[0-9a-f]{12}"
    return [
        str(ip.ip if ip.is_IPv4 else ip.ip[0])
        for adapter in (ifaddr.get_adapters() if adapters is None else adapters)
        if not re.fullmatch(to_containers, adapter.name)
        for ip in adapter.ips
        if ip.is_IPv4 == (version == 4)
    ]


def _is_reachable(text: str) -> bool:
    address = ipaddress.ip_address(text)
    return not (address.is_loopback or address.is_link_local or address.is_unspecified)


def _is_behind_bridge(
    addresses: Sequence[str],
    marks: Iterable[Path] = (Path("/.dockerenv"), Path("/run/.containerenv")),
) -> bool:
    """Whether this looks like a container in a network of its own: multicast doesn't leave it."""
    networks = (
        ipaddress.ip_network("172.16.0.0/12"),  # Docker's own choice, and the Supervisor's
        ipaddress.ip_network("10.88.0.0/15"),  # Podman's
    )
    ours = [ipaddress.ip_address(text) for text in addresses if ":" not in text]
    return (
        any(mark.exists() for mark in marks)
        and bool(ours)
        and all(any(address in network for network in networks) for address in ours)
    )


def _host() -> str:
    return socket.gethostname().partition(".")[0] or "server"
