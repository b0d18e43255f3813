"""The fuzz run of HTTP, shortened: its requests are what they say, and what breaks is noticed."""

import json
from pathlib import Path

import pytest

from benchmarks.siege import fuzz_http
from benchmarks.siege.fuzz_http import STATUS, Found, Outcome, requests, streams
from tests.support import loud

SEEDS = requests(loud(0.2))


def outcome(**changes: object) -> Outcome:
    values: dict[str, object] = {
        "found": Found(),
        "trouble": [],
        "growth_bytes": 0,
        "leaked": {},
        "exit_status": 0,
    }
    return Outcome(**(values | changes))  # type: ignore[arg-type]


def test_beginnings_come_first_and_a_number_is_always_the_same_request() -> None:
    assert [request for _, request in streams(SEEDS, 0, 3)] == [b"", b"GET", b"GET / "]
    assert list(streams(SEEDS, 10**6, 5)) == list(streams(SEEDS, 10**6, 5))
    assert len({request for _, request in streams(SEEDS, 10**6, 100)}) > 90


def test_lengths_of_bodies_are_lied_about() -> None:
    sent = [request for _, request in streams(SEEDS, 10**6, 400)]
    assert any(b"Content-Length: 99999999999\r\n" in request for request in sent)


def test_a_status_is_read() -> None:
    found = STATUS.match(b"HTTP/1.1 404 Not Found\r\n")
    assert found
    assert found[1] == b"404"
    assert STATUS.match(b"<html>") is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"found": Found(failed=[7])}, "1 answers were failures of ours: requests [7]"),
        ({"found": Found(broken=[7])}, "not HTTP"),
        ({"found": Found(wrong=[7])}, "honest requests"),
        ({"trouble": ["Traceback"]}, "Traceback"),
        ({"growth_bytes": 20_000_000}, "memory grew by 20 MB"),
        ({"leaked": {"descriptors": 1}}, "left behind"),
        ({"exit_status": -9}, "exit status -9"),
    ],
)
def test_a_broken_promise_is_a_failure(changes: dict[str, object], said: str) -> None:
    assert outcome().failures == []
    (failure,) = outcome(**changes).failures
    assert said in failure


def test_a_short_run_against_a_real_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fuzz_http, "SETTLE_SECONDS", 0.5)  # what is free need not be given back
    file = tmp_path / "fuzz.json"
    argv = ["--requests", "60", "--first", "8000", "--json", str(file)]
    assert fuzz_http.main(argv) == 0, capsys.readouterr().err
    written = json.loads(file.read_text())
    assert sum(written["found"]["statuses"].values()) == 60
    assert written["found"]["statuses"]["200"] > 0
    assert written["found"]["statuses"]["400"] > 0
    assert written["found"]["honest"] == 1
