"""The model of queues beside what is known of them, and beside a simulation; the tables."""

from __future__ import annotations

import heapq
import math
import random
from typing import Any

import pytest

from benchmarks.scaling import (
    MAX_WAIT_SECONDS,
    Load,
    Spoken,
    capacity,
    most_per_second,
    show_failover,
    show_replicas,
    speakers,
)


@pytest.mark.parametrize(
    ("replicas", "offered", "expected"),
    [(1, 0.5, 0.5), (2, 1.0, 1 / 3), (4, 2.0, 4 / 23), (8, 6.0, 0.35698)],
)
def test_erlang_c_is_as_tables_have_it(replicas: int, offered: float, expected: float) -> None:
    assert Load(replicas, offered, 1.0, 1.0).p_wait == pytest.approx(expected, rel=1e-4)


def test_one_replica_waits_as_pollaczek_and_khinchine_say() -> None:
    # E[W] = lambda E[S^2] / (2 (1 - rho)), with E[S^2] = E[S]^2 (1 + variation)
    for variation in (0.0, 0.3, 1.0):
        load = Load(1, 3.0, 0.2, variation)
        exact = 3.0 * 0.2**2 * (1 + variation) / (2 * (1 - 0.6))
        assert load.mean_wait == pytest.approx(exact)


def test_a_queue_that_can_not_keep_up_waits_for_ever() -> None:
    assert Load(2, 10.0, 0.2, 0.0).mean_wait == math.inf
    assert Load(2, 10.0, 0.2, 0.0).p_wait == 1.0


def simulated(load: Load, n: int) -> list[float]:
    """Return the waits of n commands in turn, each of them taking a time of gamma distribution."""
    chance = random.Random(5)
    free = [0.0] * load.replicas
    now, waits = 0.0, []
    for _ in range(n):
        now += chance.expovariate(load.per_second)
        start = max(now, heapq.heappop(free))
        shape = 1 / load.variation
        heapq.heappush(free, start + chance.gammavariate(shape, load.service / shape))
        waits.append(start - now)
    return sorted(waits)


@pytest.mark.parametrize("replicas", [1, 2, 4])
@pytest.mark.parametrize("utilisation", [0.5, 0.8])
def test_the_model_agrees_with_a_simulation(replicas: int, utilisation: float) -> None:
    load = Load(replicas, utilisation * replicas / 0.2, 0.2, 0.25)
    waits = simulated(load, 40_000)
    assert load.mean_wait == pytest.approx(sum(waits) / len(waits), rel=0.15, abs=0.002)
    assert load.wait(95) == pytest.approx(waits[int(0.95 * len(waits))], rel=0.2, abs=0.01)


def test_the_capacity_is_where_waits_reach_the_limit() -> None:
    for replicas in (1, 2, 8):
        most = most_per_second(replicas, 0.2, 0.2)
        assert Load(replicas, most, 0.2, 0.2).wait(95) == pytest.approx(MAX_WAIT_SECONDS, rel=0.01)
    assert speakers(1, 0.2, 0.2, 60) == int(most_per_second(1, 0.2, 0.2) * 60)
    assert capacity([0.2], 0.2, [1, 2]).count("\n") == 3


def test_replicas_are_shown_beside_the_model() -> None:
    at = {"utilisation": 0.5, "per_second": 2.5, "waits": [0.0, 0.1, 0.2]}
    run: dict[str, Any] = {"replicas": 1, "max_ongoing": 128, "sleeping": False, "service": 0.2}
    run |= {"variation": 0.0, "overhead": 0.01, "per_second": 5.0, "open": [at]}
    cells = [cell.strip() for cell in show_replicas([run]).splitlines()[-1].split("|")]
    assert cells[1:4] == ["tiny.en", "1", "128"]
    assert cells[4:-1] == [
        *("200 ms", "10.0 ms", "5.0", "0.5"),
        *("100 ms",) * 2,
        "200 ms",
        "461 ms",
    ]


def test_lost_commands_are_counted() -> None:
    before = Spoken([(0.0, 0.1)])
    after = Spoken([(1.0, 0.1), (2.0, 2.0)], ["ConnectionError()"])
    row = show_failover([("killed", before, after)]).splitlines()[-1]
    assert [cell.strip() for cell in row.split("|")[1:4]] == ["killed", "3", "1"]
