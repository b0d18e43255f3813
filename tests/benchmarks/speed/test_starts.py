"""How soon a server listens: its table, and the real thing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.speed.starts import Start, show_starts


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


def test_our_server_with_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "starts.json"
    argv = ["--no-official", "--starts", "1", "--json", str(file)]
    assert main(["starts", *argv]) == 0
    written = json.loads(file.read_text())
    (start,) = written["starts"]["ours"]
    assert start["listening"] < start["info"] < start["transcript"]
    assert "start to listening" in capsys.readouterr().out
