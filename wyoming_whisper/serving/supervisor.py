"""The add-on's side of the Supervisor: telling Home Assistant, through it, where the server is."""

from __future__ import annotations

import http.client
import json
import logging
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator

_LOGGER = logging.getLogger(__name__)


class _RefusedError(Exception):
    """Asking again would change nothing."""


class SupervisorDiscovery:
    """Posts the server's address until the Supervisor has it, at every start.

    To post the same again changes nothing there. No failure of it is more than a line in the log.
    It has a daemon thread of its own, so that a Supervisor that hangs holds nobody up.
    """

    API = "http://supervisor"
    SERVICE = "wyoming"
    ANSWER_SECONDS = 10.0
    FIRST_DELAY_SECONDS = 1.0
    MAX_DELAY_SECONDS = 300.0
    MAX_ANSWER_BYTES = 64 * 1024
    REFUSED = (400, 401, 403)
    """Answers that asking again doesn't change: what we send, the token, or the manifest is
    wrong."""

    def __init__(self, token: str, port: int) -> None:
        self._token = token
        self._uri = f"tcp://{socket.gethostname()}:{port}"
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)

    def start(self) -> None:
        """Begin to post; the server must be listening already, as Home Assistant comes at once."""
        self._thread.start()

    async def stop(self) -> None:
        """Post no more. Nothing is taken back: the Supervisor does that with the add-on."""
        self._stopping.set()

    def _run(self) -> None:
        for delay in self._delays():
            try:
                self._post()
            except _RefusedError as error:
                _LOGGER.warning(
                    "The Supervisor refuses to announce this app (%s); add the server in "
                    "Home Assistant by hand: %s",
                    error,
                    self._uri,
                )
                return
            except (OSError, ValueError, http.client.HTTPException) as error:
                reason = str(getattr(error, "reason", None) or error)
                level = logging.WARNING if delay == self.FIRST_DELAY_SECONDS else logging.DEBUG
                _LOGGER.log(
                    level, "The Supervisor can't be told yet (%s); it is tried again", reason
                )
            except Exception:  # the thread must not end of it
                _LOGGER.exception("telling the Supervisor has failed; it is tried again")
            else:
                _LOGGER.info("announced to Home Assistant through the Supervisor: %s", self._uri)
                return
            if self._stopping.wait(delay):
                return

    def _delays(self) -> Iterator[float]:
        delay = self.FIRST_DELAY_SECONDS
        while True:
            yield delay
            delay = min(2 * delay, self.MAX_DELAY_SECONDS)

    def _post(self) -> None:
        """Post once.

        Raises OSError, HTTPException or ValueError when that was not accepted, _RefusedError when
        it never will be.
        """
        request = urllib.request.Request(  # noqa: S310  (the address is ours)
            f"{self.API}/discovery",
            json.dumps({"service": self.SERVICE, "config": {"uri": self._uri}}).encode(),
            {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"},
        )
        # The Supervisor is next door: a proxy that is set for downloads has no business here.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=self.ANSWER_SECONDS) as answer:
                answer = _parsed(answer.read(self.MAX_ANSWER_BYTES))
        except urllib.error.HTTPError as error:
            with error:
                reason = f"{error.code} {_message(error.read(self.MAX_ANSWER_BYTES))}".strip()
            kind = _RefusedError if error.code in self.REFUSED else ValueError
            raise kind(reason) from None
        if answer.get("result") != "ok":
            raise ValueError(f"it answered {answer.get('message') or 'something else'}")


def _parsed(body: bytes) -> dict[str, object]:
    """Return the JSON object; raises ValueError for what is none."""
    answer = json.loads(body)
    if not isinstance(answer, dict):
        raise ValueError("it answered something else")  # noqa: TRY004  (of what a peer sent)
    return answer


def _message(body: bytes) -> str:
    try:
        return str(_parsed(body).get("message") or "")
    except ValueError:
        return ""
