"""The soak, shortened: its figures are real, and what it promises to notice is noticed."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.lib.clips import read_clips
from benchmarks.lib.servers import Counts, Remains
from benchmarks.lib.speakers import Toll
from benchmarks.siege import soak
from benchmarks.siege.soak import Moment, Result

MB = 10**6


def moments(*megabytes: int, threads: int = 7) -> list[Moment]:
    """Return one moment for each size of memory; `threads` is what the last one holds."""
    held = [Counts(resident=size * MB, descriptors=7, threads=7, tasks=1) for size in megabytes]
    held[-1] = replace(held[-1], threads=threads)
    return [Moment(n, 100 * n, counts) for n, counts in enumerate(held)]


def test_what_comes_and_goes_is_no_growth() -> None:
    result = Result(moments=moments(100, *[150, 180, 160, 170] * 25, 101))
    slope, error = result.slope_bytes
    assert abs(slope) < 2 * error
    assert not result.failures


def test_what_grows_under_load_is() -> None:
    steady = Result(moments=moments(*range(100, 200), 100))
    assert steady.slope_bytes[0] == pytest.approx(10 * MB)
    assert [said for said in steady.failures if "under load grew by 10.0" in said]


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (Result(Toll(lost=["a.flac: no connection"])), "1 lost"),
        (Result(Toll(wrong=["a.flac: 'on', not 'off'"])), "1 wrong"),
        (Result(failed=["health: 503"]), "1 other requests failed, such as health: 503"),
        (Result(moments=moments(100, 100, threads=8)), "threads at rest grew from 7 to 8"),
        (Result(remains=Remains(trouble=["Traceback"])), "Traceback"),
        (Result(remains=Remains(5 * MB)), "memory grew by 5 MB"),
        (Result(remains=Remains(leaked={"descriptors": 1})), "left behind: {'descriptors': 1}"),
        (Result(remains=Remains(exit_status=1)), "exit status 1"),
    ],
)
def test_a_broken_promise_is_a_failure(result: Result, said: str) -> None:
    (failure,) = replace(result, moments=result.moments or moments(100, 100)).failures
    assert said in failure


def test_a_short_run_with_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(soak, "MAX_GROWTH_BYTES", float("inf"))
    monkeypatch.setattr(soak, "read_clips", lambda folder: read_clips(folder, limit=1))
    monkeypatch.setattr(soak, "REST_SECONDS", 0.5)  # what is free need not be given back here
    file = tmp_path / "soak.json"
    assert main(["soak", "--utterances", "8", "--speakers", "2", "--json", str(file)]) == 0
    written = json.loads(file.read_text())
    assert len(written["toll"]["seconds"]) == 8
    assert min(written["toll"]["seconds"]) > 0
    assert written["moments"][0]["utterances"] == 0
    assert written["moments"][-1]["utterances"] == 8
    assert written["moments"][-1]["counts"]["resident"] > 50 * MB
    assert set(written["answered"]) >= {*soak.NEIGHBOURS, *(kind.name for kind in soak.RUDE)}
    assert written["failed"] == []
    assert "| descriptors " in capsys.readouterr().out
