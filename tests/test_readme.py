"""What README and docs say is so: the options are what they are, what is linked is there."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from wyoming_whisper.settings.option import Option
from wyoming_whisper.settings.options import OPTIONS, Settings

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
OPTIONS_PAGE = (ROOT / "docs" / "options.md").read_text()
DEVELOPMENT = (ROOT / "docs" / "development.md").read_text()
PAGES = (ROOT / "README.md", ROOT / "addon" / "DOCS.md", *sorted((ROOT / "docs").glob("*.md")))
COMMANDS = [
    path.name
    for path in sorted((ROOT / "script").iterdir())
    if path.suffix != ".py" and path.name != "image-entrypoint"  # the image's, not a developer's
]
FIELDS = dataclasses.fields(Settings)


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_every_option_is_in_its_table_with_its_default_and_help(
    field: dataclasses.Field[object],
) -> None:
    option = OPTIONS[field.name]
    shown = f"`{Option.flag_of(field.name)}`" if option.flag else f"`{field.name}`"
    rows = [line for line in _table(rare=option.rare) if line.startswith(f"| {shown} |")]
    assert len(rows) == 1, shown
    _, _, default, about, _ = (cell.strip() for cell in rows[0].split("|"))
    if field.default is not dataclasses.MISSING:
        assert default == _written(field.default)
    assert about == option.help.partition(" (default:")[0]


def test_the_tables_have_no_option_that_there_is_not() -> None:
    for rare in (False, True):
        rows = [line for line in _table(rare=rare) if line.startswith("| `")]
        assert len(rows) == sum(option.rare is rare for option in OPTIONS.values())


def _table(*, rare: bool) -> list[str]:
    usual, heading, others = OPTIONS_PAGE.partition("\n## Options that most homes never need\n")
    assert heading
    table = (others if rare else usual).partition("| option | default |")[2]
    return table.partition("\n\n")[0].splitlines()


def _written(default: object) -> str:
    if default is None or default == ():
        return ""
    return {True: "on", False: "off"}[default] if isinstance(default, bool) else f"`{default}`"


def test_the_first_command_is_in_the_readme() -> None:
    assert "script/run" in README


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_named_and_can_be_run(command: str) -> None:
    assert f"\nscript/{command} " in DEVELOPMENT
    assert (ROOT / "script" / command).stat().st_mode & 0o100


def test_no_other_command_is_named() -> None:
    named = set(re.findall(r"^script/([\w-]+)", DEVELOPMENT, re.MULTILINE))
    assert named == set(COMMANDS)


def test_the_recordings_named_exist() -> None:
    named = re.findall(r"tests/audio/[\w.-]+", README)
    assert named
    for file in named:
        assert (ROOT / file).is_file(), file


@pytest.mark.parametrize("page", ["architecture.md", "where.md"])
def test_the_files_named_exist(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    named = re.findall(r"`([a-z_]+(?:/[a-z0-9_]+)*/(?:[a-z0-9_]+\.\w+)?)`(?! of commit)", text)
    assert len(named) > 3
    missing = [
        name
        for name in named
        if not ((ROOT / "wyoming_whisper" / name).exists() or (ROOT / name).exists())
    ]
    assert missing == []


def _links(page: Path) -> Iterator[str]:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"", text):
        yield "".join(link)


def _anchors(page: Path) -> set[str]:
    """Return the names that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_linked_exists(page: Path) -> None:
    for link in _links(page):
        file, _, anchor = link.partition("#")
        if re.match(r"\w+:", file):
            continue
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), link
        assert not anchor or anchor in _anchors(target), link


def test_every_page_can_be_reached_from_the_readme() -> None:
    for page in PAGES[1:]:
        assert str(page.relative_to(ROOT)) in {link.partition("#")[0] for link in _links(PAGES[0])}


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
