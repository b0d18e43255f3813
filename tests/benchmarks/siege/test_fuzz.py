"""The fuzz runs, shortened: what they send is what they say, and what breaks is noticed."""

import json
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.lib import fuzzing
from benchmarks.lib.fuzzing import LENGTHS, Result
from benchmarks.lib.servers import Remains
from benchmarks.siege.fuzz import (
    conversations,
    ending,
    event_types,
    http_ending,
    http_streams,
    requests,
    streams,
    systematic,
)
from tests.support import loud

SEEDS = conversations(loud(0.1))
REQUESTS = requests(loud(0.2))


def test_every_beginning_of_every_conversation_is_sent() -> None:
    sent = set(systematic(SEEDS))
    assert all(seed[:length] in sent for seed in SEEDS for length in range(len(seed) + 1))


def test_every_length_is_lied_about() -> None:
    lies = [b'"payload_length": 4294967296', b'"data_length": -1', b'"data_length": null']
    sent = list(systematic(SEEDS[:1]))
    n_lengths = len(LENGTHS.findall(SEEDS[0]))
    assert n_lengths == 9  # six events with data, three of them with audio
    for lie in lies:
        assert any(lie in stream for stream in sent)


def test_a_replaced_value_is_read_as_one() -> None:
    """The length of its data is made right, so that it arrives rather than a broken frame."""
    (stream,) = [s for s in systematic(SEEDS[:1]) if b'{"language": 1000000000}' in s]
    assert stream.startswith(
        b'{"type": "transcribe", "version": "1.10.2", "data_length": 24}\n{"language": 1000000000}'
    ), stream[:100]


def test_a_number_is_always_the_same_stream() -> None:
    assert list(streams(SEEDS, b"whole", 10**6, 5)) == list(streams(SEEDS, b"whole", 10**6, 5))
    assert len({stream for _, stream in streams(SEEDS, b"whole", 10**6, 100)}) > 90
    assert list(http_streams(REQUESTS, 10**6, 5)) == list(http_streams(REQUESTS, 10**6, 5))
    assert len({request for _, request in http_streams(REQUESTS, 10**6, 100)}) > 90


def test_of_requests_beginnings_come_first_and_lengths_are_lied_about() -> None:
    assert [request for _, request in http_streams(REQUESTS, 0, 3)] == [b"", b"GET", b"GET / "]
    sent = [request for _, request in http_streams(REQUESTS, 10**6, 400)]
    assert any(b"Content-Length: 99999999999\r\n" in request for request in sent)


def test_a_server_that_is_busy_is_told_from_one_that_fails() -> None:
    line = b"HTTP/1.1 503 Service Unavailable\r\n\r\n"
    assert http_ending(line + b'{"error": "try again", "code": "busy"}').startswith("503 (busy: ")
    assert http_ending(line + b'{"error": "no model", "code": "model-unavailable"}') == "503"
    assert http_ending(b"HTTP/1.1 200 OK\r\n\r\n") == "200"
    assert http_ending(b"") == http_ending(b"<html>") == "none"


def test_answers_are_read() -> None:
    assert event_types(b'{"type": "info", "data_length": 2}\n{}{"type": "pong"}\n') == [
        "info",
        "pong",
    ]
    assert ending(b"") == "closed"
    assert ending(b'{"type": "pong"}\n{"type": "error"}\n') == "error"


@pytest.mark.parametrize(
    "answer",
    [
        b'{"type": "pong"}',
        b'{"type": "info", "data_length": 9}\n{}',
        b"nonsense\n",
        b'{"type": "error"}\n{"type": "pong"}\n',
    ],
)
def test_what_is_no_answer_is_noticed(answer: bytes) -> None:
    with pytest.raises(ValueError):
        ending(answer)


@pytest.mark.parametrize("flags", [[], ["--", "--endpointing", "0.3", "--live-text"]])
def test_a_short_run_against_a_real_server(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
) -> None:
    monkeypatch.setattr(fuzzing, "SETTLE_SECONDS", 0.5)  # what is free need not be given back here
    file = tmp_path / "fuzz.json"
    argv = ["--streams", "60", "--first", "1900", "--workers", "4", "--json", str(file), *flags]
    assert main(["fuzz", *argv]) == 0, capsys.readouterr().err
    written = json.loads(file.read_text())
    assert sum(written["answers"].values()) == written["sent"] == 60
    assert written["answers"]["error"] > 0
    assert "connections hung" in capsys.readouterr().out


def test_a_short_run_of_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fuzzing, "SETTLE_SECONDS", 0.5)  # what is free need not be given back
    file = tmp_path / "fuzz.json"
    argv = ["--http", "--streams", "60", "--first", "8000", "--json", str(file)]
    assert main(["fuzz", *argv]) == 0, capsys.readouterr().err
    written = json.loads(file.read_text())
    assert sum(written["answers"].values()) == 60
    assert written["answers"]["200"] > 0
    assert written["answers"]["400"] > 0
    assert written["honest"] == 1


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (Result(broken={"connections hung": [7]}), "1 connections hung: numbers, such as 7"),
        (Result(remains=Remains(trouble=["Traceback"])), "Traceback"),
        (Result(remains=Remains(20_000_000)), "memory grew by 20 MB"),
        (Result(remains=Remains(leaked={"tasks": 1})), "left behind"),
        (Result(remains=Remains(exit_status=-9)), "exit status -9"),
    ],
)
def test_a_broken_promise_is_a_failure(result: Result, said: str) -> None:
    (failure,) = result.outcome("streams").failures
    assert said in failure


def test_nothing_left_is_none() -> None:
    sound = Result(broken={"connections hung": []}, remains=Remains(leaked={"tasks": 0}))
    assert sound.outcome("streams").failures == []
