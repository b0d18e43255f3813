"""The repository's scripts, with stand-ins for what they call."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent / "script"
PROGRAM = """#!/bin/sh
echo "$@" >>"$CALLS"
[ "$1" != models ] || [ "$2" != path ] || [ -n "${THERE:-}" ]
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with our scripts, a setup that does nothing and a program that notes its words."""
    (tmp_path / "script").mkdir()
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for name in ("run", "models"):
        shutil.copy(SCRIPTS / name, tmp_path / "script" / name)
    stand_ins = {"script/setup": "#!/bin/sh\n", ".venv/bin/wyoming-whisper": PROGRAM}
    for file, text in stand_ins.items():
        (tmp_path / file).write_text(text)
        (tmp_path / file).chmod(0o755)
    return tmp_path


def run(checkout: Path, script: str, *options: str, **variables: str) -> tuple[list[str], str]:
    """Return how the program was called, and what the script said."""
    calls = checkout / "calls"
    environ = {"PATH": os.environ["PATH"], "CALLS": str(calls), **variables}
    done = subprocess.run(
        [checkout / "script" / script, *options],
        env=environ,
        capture_output=True,
        text=True,
        check=True,
    )
    return calls.read_text().splitlines(), done.stderr


def test_run_serves_base_and_says_that_it_is_fetched(checkout: Path) -> None:
    calls, said = run(checkout, "run", "--language", "en")
    assert calls[-1] == "serve --model base --language en"
    assert said.startswith("script/run: fetching the model base first, about 150 MB")
    assert said.count("\n") == 1


def test_run_says_nothing_when_base_is_here(checkout: Path) -> None:
    calls, said = run(checkout, "run", THERE="yes")
    assert calls == ["models path base", "serve --model base"]
    assert said == ""


@pytest.mark.parametrize(
    ("options", "variables"),
    [
        (("--model", "tiny"), {}),
        (("--debug", "--model=tiny"), {}),
        (("--options", "file.json"), {}),
        ((), {"WYOMING_WHISPER_MODEL": "tiny"}),
        ((), {"WYO_WHISPER_MODEL": "tiny"}),
    ],
)
def test_run_leaves_the_choice_to_who_makes_it(
    checkout: Path, options: tuple[str, ...], variables: dict[str, str]
) -> None:
    calls, said = run(checkout, "run", *options, **variables)
    assert calls == [" ".join(("serve", *options))]
    assert said == ""


def test_models_fetches_each_once(checkout: Path) -> None:
    calls, said = run(checkout, "models")
    assert calls == [
        *("models path base --data-dir .models", "models download base --data-dir .models"),
        *("models path tiny.en --data-dir .models", "models download tiny.en --data-dir .models"),
    ]
    assert "fetching base into .models" in said
    (checkout / "calls").unlink()
    calls, said = run(checkout, "models", THERE="yes")
    assert not any("download" in call for call in calls)
    assert said == ""
