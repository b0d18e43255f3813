"""What README says of the options is what they are."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from wyoming_whisper.settings import OPTIONS, Settings, flag_name

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
SHOWN = [field for field in dataclasses.fields(Settings) if not OPTIONS[field.name].hidden]


@pytest.mark.parametrize("field", SHOWN, ids=lambda field: field.name)
def test_every_option_is_in_the_table_with_its_default_and_help(
    field: dataclasses.Field[object],
) -> None:
    option = OPTIONS[field.name]
    shown = f"`{flag_name(field.name)}`" if option.flag else f"`{field.name}`"
    rows = [line for line in README.splitlines() if line.startswith(f"| {shown} |")]
    assert len(rows) == 1, shown
    _, _, default, about, _ = (cell.strip() for cell in rows[0].split("|"))
    if field.default is not dataclasses.MISSING:
        assert default == _written(field.default)
    assert about == option.help.partition(" (default:")[0]


def _written(default: object) -> str:
    if default is None or default == ():
        return ""
    return {True: "on", False: "off"}[default] if isinstance(default, bool) else f"`{default}`"


@pytest.mark.parametrize(
    "command", ["script/run", "script/test", "script/lint", "script/format", "script/api-test"]
)
def test_the_commands_named_exist(command: str) -> None:
    assert command in README
    assert (ROOT / command).stat().st_mode & 0o100


def test_the_documents_linked_exist() -> None:
    for link in (
        "docs/architecture.md",
        "docs/protocol.md",
        "docs/benchmarks.md",
        "docs/engines.md",
        "docs/troubleshooting.md",
        "addon/DOCS.md",
    ):
        assert f"({link})" in README
        assert (ROOT / link).is_file()


def test_the_supervisor_finds_no_manifest_but_the_roots() -> None:
    """It reads every config.* and repository.* outside dot folders, and every build.* anywhere."""
    for file in ROOT.rglob("*"):
        parts = file.relative_to(ROOT).parts
        if parts[0] in (".git", ".venv", ".venv-official") or file.suffix not in (
            ".yaml",
            ".yml",
            ".json",
        ):
            continue
        hidden = any(part.startswith(".") or part == "rootfs" for part in parts)
        assert file.stem != "build", file
        if not hidden and len(parts) > 1:
            assert file.stem not in ("config", "repository"), file
