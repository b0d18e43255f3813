"""Announcing the server on the local network (zeroconf), so that Home Assistant finds it."""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import Sequence

from . import __version__

_LOGGER = logging.getLogger(__name__)

SERVICE_TYPE = "_wyoming._tcp.local."
PRODUCT = "wyoming-whisper"
MAX_LABEL_BYTES = 63  # of one part of a DNS name (RFC 1035)


class Announcement:
    """A service that others on the network see between `start` and `stop`."""

    def __init__(self, name: str, host: str, port: int, model: str) -> None:
        self._name = service_name(name)
        self._host = host
        self._port = port
        self._properties = {"version": __version__, "model": model}
        self._zeroconf: object | None = None

    async def start(self) -> None:
        """Announce the service; a network that can't is a warning, not the end."""
        from zeroconf import Error as ZeroconfError
        from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

        addresses = announced_addresses(self._host)
        if not addresses:
            _LOGGER.warning("not announced: %s can't be reached from other machines", self._host)
            return
        info = AsyncServiceInfo(
            SERVICE_TYPE,
            f"{self._name}.{SERVICE_TYPE}",
            port=self._port,
            properties=self._properties,
            server=f"{_host_label()}.local.",
            parsed_addresses=list(addresses),
        )
        try:
            zeroconf = AsyncZeroconf()
            await zeroconf.async_register_service(info, allow_name_change=True)
        except (OSError, ZeroconfError) as error:
            _LOGGER.warning("not announced on the network: %s", error)
            return
        self._zeroconf = zeroconf
        _LOGGER.info("announced as %r at %s:%d", info.name, ", ".join(addresses), self._port)

    async def stop(self) -> None:
        """Say goodbye, so that nobody waits for us."""
        from zeroconf.asyncio import AsyncZeroconf

        zeroconf, self._zeroconf = self._zeroconf, None
        if isinstance(zeroconf, AsyncZeroconf):
            await zeroconf.async_unregister_all_services()
            await zeroconf.async_close()


def service_name(wanted: str) -> str:
    """Return the instance name: what the user wants, or product and host, the same every start."""
    name = (wanted or f"{PRODUCT} {socket.gethostname().partition('.')[0]}").replace(".", "-")
    return name.encode()[:MAX_LABEL_BYTES].decode(errors="ignore")


def announced_addresses(host: str) -> Sequence[str]:
    """Return where others reach a server bound to `host`.

    Home Assistant drops an announcement of 0.0.0.0, of loopback, or of link-local addresses alone
    (its components/zeroconf/discovery.py), so those are never announced.
    """
    bound = _resolve(host)
    if bound is not None and not bound.is_unspecified:
        candidates = [str(bound)]
    else:
        candidates = _interface_addresses(ipv6=bound is None or bound.version == 6)
    return [address for address in candidates if _is_reachable(address)]


def _resolve(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address of `host`; None for the empty host, which is every interface."""
    if not host:
        return None
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return ipaddress.ip_address(socket.gethostbyname(host))


def _interface_addresses(*, ipv6: bool) -> list[str]:
    import ifaddr

    found = []
    for adapter in ifaddr.get_adapters():
        for ip in adapter.ips:
            if ip.is_IPv4:
                found.append(str(ip.ip))
            elif ipv6:
                found.append(str(ip.ip[0]))
    return found


def _is_reachable(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    return not (parsed.is_loopback or parsed.is_link_local or parsed.is_unspecified)


def _host_label() -> str:
    return socket.gethostname().partition(".")[0] or PRODUCT
