"""Who is at the other end: whether they may connect, and how often the log speaks of them."""

from __future__ import annotations

import ipaddress
import logging
import time
from collections.abc import Sequence

_LOGGER = logging.getLogger(__name__)


class Allowed:
    """The addresses that may connect: all where none are named, this machine always."""

    def __init__(self, networks: Sequence[str]) -> None:
        self._networks = [ipaddress.ip_network(network) for network in networks]

    def __contains__(self, address: str | None) -> bool:
        """Whether an IP address may; None is a unix socket or a pipe, which the system guards."""
        if not self._networks or address is None:
            return True
        ip = address_of(address)
        return ip is not None and (
            ip.is_loopback or any(ip in network for network in self._networks)
        )


def address_of(text: str | None) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return an IP address, None for what is none; ::ffff:192.0.2.1 is 192.0.2.1."""
    try:
        address = ipaddress.ip_address((text or "").partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def shown(words: object) -> str:
    """Return what a peer has sent, which may be long, for people: in one line."""
    max_letters = 80
    text = repr(words) if isinstance(words, str) else " ".join(str(words).split())
    return text if len(text) <= max_letters else text[:max_letters] + "..."


class PeerLog:
    """Warnings about peers: one line a minute each, so that nobody can fill a disk."""

    QUIET_SECONDS = 60.0
    """After a line about a peer, further ones of it are only counted."""
    MAX_REMEMBERED = 256
    """Peers whose last line in the log is remembered."""

    def __init__(self) -> None:
        self._logged: dict[str, tuple[float, int]] = {}  # when last, and how many since

    def warn(self, peer: str, message: str) -> None:
        """Log a warning about `peer`, or only count it."""
        now = time.monotonic()
        last, n_unlogged = self._logged.pop(peer, (-self.QUIET_SECONDS, 0))
        if now - last < self.QUIET_SECONDS:
            self._logged[peer] = last, n_unlogged + 1
            _LOGGER.debug("%s: %s", peer, message)
            return
        more = f" (and {n_unlogged} more since its last line here)" if n_unlogged else ""
        _LOGGER.warning("%s: %s%s", peer, message, more)
        self._logged[peer] = now, 0
        if len(self._logged) > self.MAX_REMEMBERED:
            del self._logged[next(iter(self._logged))]
