"""The add-on's announcement, against a stand-in that answers as the Supervisor does."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Queue

import pytest

from tests.support import TIMEOUT_SECONDS
from wyoming_whisper.serving.supervisor import SupervisorDiscovery

TOKEN = "a-token"
OK = (200, {"result": "ok", "data": {"uuid": "0123"}})


class StandIn(ThreadingHTTPServer):
    """Checks what comes to /discovery as the Supervisor does; fails as often as it is told to."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Requests)
        self.answers: list[tuple[int, object]] = []
        """What is answered first, before all is well."""
        self.asked: Queue[tuple[str, str | None, object]] = Queue()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def next_asked(self) -> tuple[str, str | None, object]:
        return self.asked.get(timeout=TIMEOUT_SECONDS)


class _Requests(BaseHTTPRequestHandler):
    server: StandIn

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status, answer = self.server.answers.pop(0) if self.server.answers else OK
        raw = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.server.asked.put((self.path, self.headers["Authorization"], body))
        self.wfile.write(raw)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def supervisor() -> Iterator[StandIn]:
    with StandIn() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class Quick(SupervisorDiscovery):
    FIRST_DELAY_SECONDS = 0.01


def announce(api: str) -> SupervisorDiscovery:
    discovery = Quick(TOKEN, 10300)
    discovery.API = api
    discovery.start()
    return discovery


def finished(discovery: SupervisorDiscovery) -> None:
    discovery._thread.join(TIMEOUT_SECONDS)
    assert not discovery._thread.is_alive()


def test_the_address_is_posted_as_the_supervisor_wants_it(
    supervisor: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    finished(announce(supervisor.url))
    assert supervisor.next_asked() == (
        "/discovery",
        f"Bearer {TOKEN}",
        {"service": "wyoming", "config": {"uri": f"tcp://{socket.gethostname()}:10300"}},
    )
    assert supervisor.asked.empty()
    assert "announced to Home Assistant" in caplog.text
    assert TOKEN not in caplog.text


@pytest.mark.parametrize(
    "failure",
    [
        (502, b"Bad gateway"),
        (500, {"result": "error", "message": "not now"}),
        (200, {"result": "error", "message": "starting up"}),
        (200, b"not JSON"),
        (200, ["not", "an", "object"]),
        (429, b""),
    ],
)
def test_what_may_pass_is_tried_again(
    supervisor: StandIn, failure: tuple[int, object], caplog: pytest.LogCaptureFixture
) -> None:
    supervisor.answers = [failure, failure]
    finished(announce(supervisor.url))
    assert supervisor.asked.qsize() == 3
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1, "the log is told once, not at every try"
    assert "tried again" in warnings[0].getMessage()


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_refusal_is_told_with_what_to_do_and_not_repeated(
    supervisor: StandIn, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    supervisor.answers = [(status, {"result": "error", "message": "Apps must list services"})]
    finished(announce(supervisor.url))
    assert supervisor.asked.qsize() == 1
    assert f"{status} Apps must list services" in caplog.text
    assert f"tcp://{socket.gethostname()}:10300" in caplog.text


async def test_a_supervisor_that_is_not_there_is_waited_for_until_stopped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        discovery = announce(f"http://127.0.0.1:{closed.getsockname()[1]}")
        while "tried again" not in caplog.text:  # noqa: ASYNC110  (a log tells nobody)
            await asyncio.sleep(0.01)
        assert discovery._thread.is_alive()
        await discovery.stop()
        finished(discovery)


def test_what_nobody_foresaw_is_in_the_log_and_tried_again(
    supervisor: StandIn, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failures = [ZeroDivisionError()]

    def dumps(value: object) -> str:
        if failures:
            raise failures.pop()
        return json.JSONEncoder().encode(value)

    monkeypatch.setattr("wyoming_whisper.serving.supervisor.json.dumps", dumps)
    discovery = announce(supervisor.url)
    assert supervisor.next_asked()[0] == "/discovery"
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info
    asyncio.run(discovery.stop())


def test_a_proxy_for_downloads_is_not_asked(
    supervisor: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    finished(announce(supervisor.url))
    assert supervisor.asked.qsize() == 1


def test_the_waits_grow_to_a_bound() -> None:
    delays = SupervisorDiscovery(TOKEN, 10300)._delays()
    first = [next(delays) for _ in range(20)]
    assert first[:4] == [1, 2, 4, 8]
    assert first[-1] == SupervisorDiscovery.MAX_DELAY_SECONDS
