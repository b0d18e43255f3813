"""What is made of waits: rows, tables, notes, JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks.lib.waits import (
    BURST,
    EAGER,
    NOT_EAGER,
    OFFICIAL,
    REAL_TIME,
    WIDE,
    Agreement,
    Cell,
    Meter,
    Part,
    Take,
    agreement,
    as_json,
    cells,
    eager_cost,
    notes,
    show,
)


def take(server: str, seconds: float, **fields: Any) -> Take:
    values: dict[str, Any] = {"clip": "a", "silence": 0.7, "said": "stop it", "written": "stop it"}
    return Take(server=server, seconds=seconds, **(values | fields))


def part(mode: str, takes: list[Take], cpu: dict[str, float] | None = None, **fields: Any) -> Part:
    meters = {server: Meter(seconds, 10**8) for server, seconds in (cpu or {}).items()}
    return Part(mode, "base", 5, takes, meters, **fields)


def rows(table: str) -> list[list[str]]:
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


# -- figures -------------------------------------------------------------------------------


def test_waits_of_a_cell() -> None:
    takes = [take(EAGER, seconds) for seconds in (0.1, 0.2, 0.3)]
    takes.append(take(EAGER, 0.0, written="", error="it broke"))
    cell = Cell(part(BURST, takes), EAGER, None, takes)
    assert (cell.median, cell.percentile(95), cell.failed) == (0.2, 0.3, 1)
    assert (cell.words.errors, cell.words.words) == (2, 8)


def test_a_cell_without_answers() -> None:
    takes = [take(EAGER, 0.0, written="", error="it broke")]
    whole = part(BURST, takes)
    assert Cell(whole, EAGER, None, takes).median == 0
    assert rows(show([whole], BURST))[2][4:7] == ["-", "-", "-"]


def test_silences_are_told_apart_where_a_server_heard_them_all() -> None:
    takes = [take(OFFICIAL, 2.0, silence=s) for s in (0.25, 1.84)]
    takes += [take(EAGER, 0.5 / s, silence=s) for s in (1.84, 0.25)]
    found = cells(part(REAL_TIME, takes))
    assert [(cell.server, cell.silence, len(cell.takes)) for cell in found] == [
        (EAGER, 0.25, 1),
        (EAGER, 1.84, 1),
        (OFFICIAL, None, 2),
    ]


def test_table() -> None:
    takes = [take(OFFICIAL, 1.5), take(EAGER, 0.15), take(EAGER, 0.1), take(EAGER, 0.2)]
    table = rows(show([part(BURST, takes, {EAGER: 0.25, OFFICIAL: 2.0})], BURST))
    head = "model beam server number median 95 % worst official / it WER failed CPU peak RAM"
    assert " ".join(table[0]) == head
    assert [row[2:] for row in table[2:]] == [
        [EAGER, "3", "150 ms", "200 ms", "200 ms", "10.00x", "0.0 %", "0", "250 ms", "100 MB"],
        [OFFICIAL, "1", *["1500 ms"] * 3, "1.00x", "0.0 %", "0", "2000 ms", "100 MB"],
    ]


def test_table_of_silences() -> None:
    takes = [take(EAGER, 0.1), take(NOT_EAGER, 0.1)]
    table = rows(show([part(REAL_TIME, takes)], REAL_TIME))
    assert [row[2] for row in table] == ["silence", "-------", "0.7 s", "any"]


def test_texts_that_depend_on_when_work_began() -> None:
    takes = [
        take(EAGER, 0.1),
        take(NOT_EAGER, 0.1),
        take(EAGER, 0.1, clip="b", written="stop"),
        take(NOT_EAGER, 0.1, clip="b"),
        take(EAGER, 0.1, clip="c", written="heard with a silence that the other never got"),
        take(NOT_EAGER, 0.1, clip="c", silence=1.29),
        take(WIDE, 0.1, written="never compared"),
        take(EAGER, 0.1, clip="d", written="", error="it broke"),
        take(NOT_EAGER, 0.1, clip="d"),
    ]
    found = agreement([part(BURST, takes)])
    assert (found.same, found.random) == (1, [])
    (different,) = found.different
    assert (different["clip"], different[EAGER], different[NOT_EAGER]) == ("b", "stop", "stop it")
    assert notes([part(BURST, takes)]) == [
        "The same text, eager or not: 1 of 2",
    ]
    drawn = part(BURST, takes, unsteady=frozenset({("b", 0.7)}))
    assert agreement([drawn]) == Agreement(1, [], [different])
    assert notes([drawn])[1:] == ["Not the same, but random even when not eager: 1"]


def test_what_early_work_costs() -> None:
    assert eager_cost(part(REAL_TIME, [], {EAGER: 0.3, NOT_EAGER: 0.2})) == pytest.approx(1.5)
    assert eager_cost(part(REAL_TIME, [], {EAGER: 0.3, NOT_EAGER: 0.0})) is None
    assert eager_cost(part(REAL_TIME, [], {EAGER: 0.3})) is None
    told = notes([part(REAL_TIME, [], {EAGER: 0.3, NOT_EAGER: 0.2})])
    assert told == ["real-time, base: eager takes 1.50 times the processor time"]


def test_report() -> None:
    takes = [take(EAGER, 0.5, late=0.001), take(OFFICIAL, 1.0)]
    written = json.loads(json.dumps(as_json([part(REAL_TIME, takes, {EAGER: 0.25})])))
    ours, theirs = written["cells"]
    assert (ours["server"], ours["median_seconds"], ours["official_seconds"]) == (EAGER, 0.5, 1.0)
    assert (ours["cpu_seconds"], "cpu_seconds" in theirs) == (0.25, False)
    assert ours["words"] == {"substitutions": 0, "deletions": 0, "insertions": 0, "words": 2}
    assert written["agreement"] == {"same": 0, "different": [], "random": []}
    assert [row["late"] for row in written["utterances"]] == [0.001, 0.0]
