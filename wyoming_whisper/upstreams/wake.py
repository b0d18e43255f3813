"""Waking a machine by its network card (Wake-on-LAN): a packet with its address, sixteen times."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable

_LOGGER = logging.getLogger(__name__)


class Waker:
    """Wakes one machine, not too often."""

    PORT = 9  # discard: nobody listens, the network card reads it
    EVERY_SECONDS = 30.0
    """At most, however often somebody speaks: starting takes a machine about so long."""

    def __init__(
        self, mac: str, broadcast: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._packet = b"\xff" * 6 + bytes.fromhex(mac.replace(":", "")) * 16
        self._to = (broadcast, self.PORT)
        self._clock = clock
        self._last: float | None = None

    def wake(self) -> bool:
        """Send the packet if that is not too soon; return whether it was sent."""
        now = self._clock()
        if self._last is not None and now - self._last < self.EVERY_SECONDS:
            return False
        self._last = now
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
                sender.sendto(self._packet, self._to)
        except OSError as error:  # no network now, or a container that may not broadcast
            _LOGGER.warning("nobody can be woken at %s: %s", self._to[0], error)
            return False
        return True
