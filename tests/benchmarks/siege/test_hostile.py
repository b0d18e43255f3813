"""The siege, shortened: it is one, the honest are answered, and what is promised is checked."""

import json
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.lib.attackers import ATTACKS, PROCESSOR
from benchmarks.lib.clips import short_clips
from benchmarks.lib.servers import Remains
from benchmarks.lib.speakers import Toll
from benchmarks.siege import hostile
from benchmarks.siege.hostile import Result


def result(**changes: object) -> Result:
    values: dict[str, object] = {"quiet": Toll([0.1] * 20), "siege": Toll([0.15] * 20)}
    return Result(**(values | changes))  # type: ignore[arg-type]


def test_half_as_long_again_is_no_failure() -> None:
    assert result().failures == []
    assert result().slowdown == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"siege": Toll([0.21] * 20)}, "2.1 times as long"),
        ({"siege": Toll()}, "inf times as long"),
        ({"siege": Toll([0.1], ["a.flac: no answer"])}, "in a siege: 1 lost, such as a.flac"),
        ({"quiet": Toll([0.1], [], ["a.flac: 'on'"])}, "in quiet: 1 wrong, such as a.flac"),
        ({"remains": Remains(trouble=["Traceback"])}, "Traceback"),
        ({"remains": Remains(leaked={"descriptors": 3})}, "left behind"),
        ({"remains": Remains(exit_status=1)}, "exit status 1"),
    ],
)
def test_a_broken_promise_is_a_failure(changes: dict[str, object], said: str) -> None:
    (failure,) = result(**changes).failures
    assert said in failure


def test_a_short_siege_of_a_real_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(hostile, "MAX_SLOWDOWN", float("inf"))  # tests assert no times
    monkeypatch.setattr(hostile, "SETTLE_SECONDS", 2.5)  # attackers' connections linger for two
    monkeypatch.setattr(hostile, "short_clips", lambda: short_clips()[:4])
    file = tmp_path / "hostile.json"
    argv = ["--seconds", "3", "--rounds", "1", "--speakers", "2", "--json", str(file)]
    assert main(["hostile", *argv]) == 0, capsys.readouterr().err
    written = json.loads(file.read_text())
    assert written["quiet"]["seconds"]
    assert written["siege"]["seconds"]
    assert {kind.name for kind in ATTACKS} <= written["attacks"].keys()
    assert written["attacks"]["silent connections"] >= 500
    assert written["processor_seconds"][1] > 0
    assert PROCESSOR in written["attacks"]
    assert "in a siege" in capsys.readouterr().out
