"""How soon a server listens, and its memory: tables, and the real thing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.lib.servers import Memory
from benchmarks.speed.responsiveness import Start, show_memory, show_starts


def cells(table: str) -> list[list[str]]:
    rows = (row.strip("|").split("|") for row in table.splitlines())
    return [[cell.strip() for cell in row] for row in rows]


def test_starts_side_by_side() -> None:
    found = {
        "ours": [Start(0.1, 0.2, 0.4), Start(0.3, 0.4, 0.5), Start(0.2, 0.3, 0.6)],
        "official": [Start(0.4, 0.5, 1.5)] * 3,
    }
    head, _, *rows = cells(show_starts(found))
    assert head == ["", "ours", "official", "official / ours"]
    assert rows[0] == ["start to listening, median", "200 ms", "400 ms", "2.00x"]
    assert rows[-1] == ["start to first transcript, slowest", "600 ms", "1500 ms", "2.50x"]


def test_ours_alone_has_no_ratio() -> None:
    assert cells(show_starts({"ours": [Start(0.1, 0.2, 0.4)]}))[0] == ["", "ours"]


def test_memory_side_by_side() -> None:
    found = {"ours": Memory(10**8, 2 * 10**8, 5 * 10**7, 9 * 10**7)}
    found["official"] = Memory(3 * 10**8, 3 * 10**8, 10**8, 10**8)
    rows = cells(show_memory(found))
    assert rows[2] == ["resident (VmRSS)", "100 MB", "300 MB", "3.00x"]
    assert rows[-1] == [
        "proportional (Pss)",
        "90 MB",
        "100 MB",
        "",
    ]  # ours shares with this process


def test_our_server_with_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "responsiveness.json"
    argv = ["--no-official", "--starts", "1", "--utterances", "1", "--json", str(file)]
    assert main(["responsiveness", *argv]) == 0
    written = json.loads(file.read_text())
    (start,) = written["starts"]["ours"]
    assert start["listening"] < start["info"] < start["transcript"]
    assert written["memory"]["ours"]["resident"] > 10**7
    assert "start to listening" in capsys.readouterr().out
