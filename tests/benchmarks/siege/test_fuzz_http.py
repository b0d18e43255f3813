"""The fuzz run of HTTP, shortened: its requests are what they say, and what breaks is noticed."""

import json
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.lib import fuzzing
from benchmarks.siege.fuzz_http import STATUS, ending, requests, streams
from tests.support import loud

SEEDS = requests(loud(0.2))


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


def test_a_server_that_is_busy_is_told_from_one_that_fails() -> None:
    line = b"HTTP/1.1 503 Service Unavailable\r\n\r\n"
    assert ending(line + b'{"error": "try again", "code": "busy"}').startswith("503 (busy: ")
    assert ending(line + b'{"error": "no model", "code": "model-unavailable"}') == "503"
    assert ending(b"HTTP/1.1 200 OK\r\n\r\n") == "200"
    assert ending(b"") == "none"


def test_a_short_run_against_a_real_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fuzzing, "SETTLE_SECONDS", 0.5)  # what is free need not be given back
    file = tmp_path / "fuzz.json"
    argv = ["--requests", "60", "--first", "8000", "--json", str(file)]
    assert main(["fuzz_http", *argv]) == 0, capsys.readouterr().err
    written = json.loads(file.read_text())
    assert sum(written["answers"].values()) == 60
    assert written["answers"]["200"] > 0
    assert written["answers"]["400"] > 0
    assert written["honest"] == 1
