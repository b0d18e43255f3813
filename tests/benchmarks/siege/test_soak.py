"""The soak, shortened: its figures are real, and what it promises to notice is noticed."""

import json
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.lib.clips import read_clips
from benchmarks.lib.servers import Counts
from benchmarks.siege import soak
from benchmarks.siege.soak import Found, Moment

MB = 10**6


def moments(*megabytes: int, **last: int) -> list[Moment]:
    """Return one moment for each size of memory; `last` is what the last one holds."""
    held = {"descriptors": 7, "threads": 7, "tasks": 1}
    found = [
        Moment(n, 100 * n, Counts(resident=size * MB, **held)) for n, size in enumerate(megabytes)
    ]
    counts = Counts(resident=megabytes[-1] * MB, **(held | last))
    return [*found[:-1], Moment(len(megabytes), 100 * len(megabytes), counts)]


def test_what_comes_and_goes_is_no_growth() -> None:
    found = Found(moments=moments(100, *[150, 180, 160, 170] * 25, 101))
    assert found.growth_bytes == MB
    slope, error = found.slope_bytes
    assert abs(slope) < 2 * error
    assert not found.failures


def test_what_grows_under_load_is() -> None:
    steady = Found(moments=moments(*range(100, 200), 100))
    assert steady.slope_bytes[0] == pytest.approx(10 * MB)
    assert [said for said in steady.failures if "under load grew by 10.0" in said]


def test_what_is_more_at_rest_is() -> None:
    (said,) = Found(moments=moments(100, *[150] * 9, 105)).failures
    assert said == "memory at rest grew by 5 MB"


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (Found(lost=["a.flac: no connection"], moments=moments(100, 100)), "1 lost"),
        (Found(wrong=["a.flac: 'on', not 'off'"], moments=moments(100, 100)), "1 wrong"),
        (Found(trouble=["Traceback"], moments=moments(100, 100)), "Traceback"),
        (Found(moments=moments(100, 100, descriptors=8)), "descriptors at rest grew from 7 to 8"),
        (Found(moments=moments(100, 100, tasks=2)), "tasks at rest grew from 1 to 2"),
        (Found(exit_status=1, moments=moments(100, 100)), "exit status 1"),
    ],
)
def test_a_broken_promise_is_a_failure(found: Found, said: str) -> None:
    (failure,) = found.failures
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
    assert len(written["seconds"]) == 8
    assert min(written["seconds"]) > 0
    assert written["moments"][0]["utterances"] == 0
    assert written["moments"][-1]["utterances"] == 8
    assert written["moments"][-1]["counts"]["resident"] > 50 * MB
    assert "file descriptors" in capsys.readouterr().out
