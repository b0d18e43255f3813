"""Faults of the machine, shortened: each is survived here too, and one that is not is noticed."""

from __future__ import annotations

import contextlib
import json
import subprocess
from argparse import Namespace
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.lib.client import Heard
from benchmarks.lib.errors import BenchmarkError
from benchmarks.siege import faults
from benchmarks.siege.faults import Broken, NotRunError, Suffered, expect, suffer


def test_what_is_not_as_it_should_be_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_: Path) -> str:
        """A fault"""
        expect([], "nothing came")
        return "never"

    monkeypatch.setattr(faults, "FAULTS", {"one": broken})
    file = tmp_path / "faults.json"
    assert main(["faults", "--json", str(file)]) == 1
    assert "A fault" in capsys.readouterr().out
    (outcome,) = json.loads(file.read_text())["faults"]
    assert outcome == {"fault": "A fault", "outcome": "broken", "told": "nothing came"}


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (Broken("as promised not"), "broken"),
        (BenchmarkError("it does not answer"), "broken"),
        (ConnectionResetError("gone"), "broken"),
        (NotRunError("that is for root"), "not run"),
    ],
)
def test_an_outcome_says_what_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, outcome: str
) -> None:
    def fault(_: Path) -> str:
        raise error

    monkeypatch.setattr(faults, "FAULTS", {"one": fault})
    assert suffer("one", tmp_path) == Suffered("one", outcome, str(error))


def test_a_fault_that_nobody_knows_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["faults", "earthquake"])
    assert "'earthquake' is none of stopped, killed" in capsys.readouterr().err


def test_a_server_that_does_not_answer_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checks are real: a command without a text is one."""

    def deaf(_: str, **__: bool) -> Heard:
        return Heard("", 0.1, "nothing heard")

    monkeypatch.setattr(faults, "said", deaf)
    monkeypatch.setattr(faults, "watched", lambda _: contextlib.nullcontext(Namespace(uri="")))
    outcome = suffer("stopped", tmp_path)
    assert (outcome.outcome, outcome.told) == (
        "broken",
        "a command was answered with: nothing heard",
    )


@pytest.fixture
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of each."""
    monkeypatch.setattr(faults, "KILLS", 1)
    monkeypatch.setattr(faults, "RESETS", 3)
    monkeypatch.setattr(faults, "STALL_SECONDS", 0.5)


# The others take real time: a retry after 15 seconds, commands at the pace of speech.
QUICK = ("stopped", "killed", "crashing", "first-start", "read-only", "cut-network")


@pytest.mark.usefixtures("_short")
@pytest.mark.parametrize("name", QUICK)
def test_a_fault_is_survived(tmp_path: Path, name: str) -> None:
    outcome = suffer(name, tmp_path / name)
    if outcome.outcome == "not run":
        pytest.skip(outcome.told)
    assert outcome.outcome == "survived", outcome.told


def test_netem_is_used_where_the_kernel_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 0, "netem, 50 ms late\n1 of 1\n", "")

    monkeypatch.setattr("subprocess.run", run)
    assert faults.lossy_network(tmp_path) == "1 of 1 (lost by netem, 50 ms late)"
    (script,) = [word for word in commands[-1] if "tc qdisc" in word]
    assert script.index("netem loss 5.000000% delay 50ms") < script.index("iptables")
