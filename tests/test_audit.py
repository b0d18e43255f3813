"""What script/audit.py makes of pip-audit's words: nothing audited is not nothing found."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "audit", Path(__file__).parent.parent / "script" / "audit.py"
    )
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GOOD = {"name": "good", "version": "1", "vulns": []}
BAD = {"name": "bad", "version": "1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2"]}]}
UNKNOWN = {"name": "unknown", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("packages", "exit_code", "strict_exit_code", "words"),
    [
        ([GOOD], 0, 0, "1 packages, no known vulnerability"),
        ([GOOD, BAD], 1, 1, "bad 1: PYSEC-1, fixed by 2"),
        ([UNKNOWN], 0, 1, "NOT AUDITED: unknown"),
        ([BAD, UNKNOWN], 1, 1, "NOT AUDITED: unknown"),
        ([], 0, 1, "NOT AUDITED: everything"),
    ],
)
def test_what_is_said_of_packages(
    audit: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    packages: list[dict[str, Any]],
    exit_code: int,
    strict_exit_code: int,
    words: str,
) -> None:
    monkeypatch.setattr(audit, "audit", lambda _: packages)
    for argv, expected in (([], exit_code), (["--strict"], strict_exit_code)):
        monkeypatch.setattr("sys.argv", ["audit.py", *argv])
        assert audit.main() == expected
        out, err = capsys.readouterr()
        assert words in out + err
        assert ("NOT AUDITED" in err) == (not packages or UNKNOWN in packages)
