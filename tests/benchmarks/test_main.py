"""The entry of the benchmarks: it lists all, runs each, and is what the pages name."""

from __future__ import annotations

import argparse
import re
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks.__main__ import listing, main, parser_of, suites
from benchmarks.lib.errors import BenchmarkError
from benchmarks.lib.report import Outcome

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))


def commands() -> list[tuple[str, str, tuple[str, ...]]]:
    """Return (page, suite, flags) of each benchmark that a page names."""
    return [
        (page.name, name, tuple(re.findall(r"(?<=[ \[])--[\w-]+", rest.partition(" -- ")[0])))
        for page in PAGES
        for name, rest in re.findall(
            r"python(?:[\d.]*) -m benchmarks (\w+)([^#`\n]*)",
            page.read_text().replace("-m\n", "-m "),
        )
        if name != "SUITE"
    ]


def flags_of(name: str) -> set[str]:
    parser = parser_of(name, import_module(suites()[name]))
    return {flag for action in parser._actions for flag in action.option_strings}


def test_every_suite_is_listed_with_one_line() -> None:
    lines = {line.split()[0]: line.split()[1:] for line in listing().splitlines() if "  " in line}
    assert len(suites()) >= 10
    for name in suites():
        assert lines[name], name


@pytest.mark.parametrize("name", suites())
def test_every_suite_has_a_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([name, "--help"])
    assert "--json" in capsys.readouterr().out


def test_every_command_that_a_page_names_exists() -> None:
    named = commands()
    assert {name for _, name, _ in named} >= {"accuracy", "latency", "faults", "household", "gpu"}
    for page, name, flags in named:
        assert name in suites(), f"{page}: {name}"
        missing = set(flags) - flags_of(name)
        assert not missing, f"{page}: {name} has no {missing}"


def test_every_suite_is_named_by_a_page() -> None:
    assert {name for _, name, _ in commands()} == set(suites())


def test_without_a_suite_there_is_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "accuracy" in capsys.readouterr().out
    assert main(["earthquake"]) == 2
    assert "'earthquake' is none of" in capsys.readouterr().err


def a_suite(outcome: Outcome | Exception) -> ModuleType:
    suite = ModuleType("suite", "A suite.")

    def run(_: argparse.Namespace) -> Outcome:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    suite.add_options = lambda _: None  # type: ignore[attr-defined]
    suite.run = run  # type: ignore[attr-defined]
    return suite


@pytest.mark.parametrize(
    ("outcome", "status", "said"),
    [
        (Outcome(["a table"], {"found": 1}), 0, ""),
        (Outcome(["a table"], {"found": 1}, ["it broke"]), 1, "benchmarks soak: it broke"),
        (BenchmarkError("no server"), 1, "benchmarks soak: no server"),
    ],
)
def test_an_outcome_is_printed_written_and_judged(
    outcome: Outcome | Exception,
    status: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("benchmarks.__main__.import_module", lambda _: a_suite(outcome))
    file = tmp_path / "out.json"
    assert main(["soak", "--json", str(file)]) == status
    told = capsys.readouterr()
    assert told.err.strip() == said
    assert ("a table" in told.out) is file.exists() is isinstance(outcome, Outcome)
    if file.exists():
        assert '"found": 1' in file.read_text()
        assert '"cores"' in file.read_text()
