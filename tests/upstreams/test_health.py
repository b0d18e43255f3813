"""Circuits in virtual time, and packets that wake."""

from __future__ import annotations

import socket
from typing import Any
from unittest.mock import Mock

import pytest

from tests.support import Clock
from wyoming_whisper.settings.upstreams import Upstream
from wyoming_whisper.upstreams.pool import Member, _Waker


@pytest.fixture
def clock() -> Clock:
    return Clock(1000.0)


@pytest.fixture
def circuit(clock: Clock) -> Any:
    return Member(Upstream.read("tcp://a:1"), Mock(), clock).circuit


def test_nobody_is_asked_who_has_not_been_reached(clock: Clock, circuit: Any) -> None:
    assert circuit.state == "open"
    circuit.reached()
    assert circuit.state == "closed"
    circuit.unreachable("it is off")
    assert (circuit.state, circuit.why) == ("open", "it is off")
    circuit.reached()
    assert circuit.state == "closed"


def test_a_failure_opens_it_and_one_trial_closes_it_again(clock: Clock, circuit: Any) -> None:
    circuit.reached()
    circuit.failed("it lied")
    assert not circuit.take_trial()
    assert (circuit.state, circuit.why) == ("open", "it lied")
    circuit.reached()  # being there is not enough
    assert circuit.state == "open"
    clock.now += circuit.FIRST_BACKOFF_SECONDS
    assert circuit.state == "half-open"
    assert circuit.take_trial()
    assert not circuit.take_trial()  # one at a time
    circuit.succeeded()
    assert circuit.state == "closed"


def test_each_failed_trial_doubles_the_wait(clock: Clock, circuit: Any) -> None:
    circuit.reached()
    waits = []
    for _ in range(20):
        circuit.failed("again")
        start = clock.now
        while circuit.state == "open":
            clock.now += 1
        waits.append(clock.now - start)
        assert circuit.take_trial()
    assert waits[:4] == [2, 4, 8, 16]
    assert waits[-1] == circuit.LONGEST_BACKOFF_SECONDS
    circuit.succeeded()
    circuit.failed("once")
    clock.now += circuit.FIRST_BACKOFF_SECONDS
    assert circuit.state == "half-open"


def test_many_that_fail_at_once_are_one_failure(clock: Clock, circuit: Any) -> None:
    circuit.reached()
    for _ in range(10):
        circuit.failed("reset")
    clock.now += circuit.FIRST_BACKOFF_SECONDS
    assert circuit.state == "half-open"


def test_a_trial_that_was_broken_off_says_nothing(clock: Clock, circuit: Any) -> None:
    circuit.reached()
    circuit.failed("once")
    clock.now += circuit.FIRST_BACKOFF_SECONDS
    assert circuit.take_trial()
    circuit.untried()
    assert circuit.take_trial()


def test_who_is_off_is_not_tried(clock: Clock, circuit: Any) -> None:
    circuit.reached()
    circuit.failed("refused")
    circuit.unreachable("refused")
    clock.now += circuit.LONGEST_BACKOFF_SECONDS
    assert circuit.state == "open"
    circuit.reached()
    assert circuit.state == "half-open"


def test_what_it_asks_for_is_waited_within_bounds(clock: Clock, circuit: Any) -> None:
    circuit.reached()
    circuit.failed("busy", 100)
    clock.now += 99
    assert circuit.state == "open"
    clock.now += 1
    assert circuit.state == "half-open"
    circuit.take_trial()
    circuit.failed("busy", 1e9)
    clock.now += circuit.LONGEST_BACKOFF_SECONDS
    assert circuit.state == "half-open"


def test_doubts_in_a_row_open_it(clock: Clock, circuit: Any) -> None:
    circuit.reached()
    for _ in range(5):
        for _ in range(circuit.MAX_DOUBTS - 1):
            circuit.doubted("it is late")
        circuit.succeeded()
    assert circuit.state == "closed"
    for _ in range(circuit.MAX_DOUBTS):
        circuit.doubted("it is late")
    assert circuit.state == "open"
    assert "late" in circuit.why


# -- waking --------------------------------------------------------------------------------


def test_the_packet_is_what_network_cards_wait_for() -> None:
    packet = _Waker("00:11:22:aa:bb:cc", "127.0.0.1")._packet
    assert len(packet) == 102
    assert packet[:6] == b"\xff" * 6
    assert packet[6:] == bytes.fromhex("001122aabbcc") * 16


def test_it_is_sent_to_the_network_but_not_too_often(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(10)
        monkeypatch.setattr(_Waker, "PORT", listener.getsockname()[1])
        waker = _Waker("00:11:22:aa:bb:cc", "127.0.0.1", clock)
        assert waker.wake()
        assert listener.recv(200) == _Waker("00:11:22:aa:bb:cc", "127.0.0.1")._packet
        for _ in range(100):
            assert not waker.wake()
        clock.now += _Waker.EVERY_SECONDS
        assert waker.wake()


def test_a_network_that_does_not_let_it_is_no_failure(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    assert not _Waker("00:11:22:aa:bb:cc", "256.0.0.1", clock).wake()
    assert "nobody can be woken" in caplog.text
