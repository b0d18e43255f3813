"""--home FILE: what may stand in it, and one sentence for what may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from wyoming_whisper.home import home_file
from wyoming_whisper.home.home_file import HomeFile
from wyoming_whisper.home.inventory import CustomFile, Entity, Home


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "home.yaml"


def test_a_home_has_places_entities_and_sentences(file: Path) -> None:
    file.write_text(
        """
areas:
  - Kitchen
  - {name: Living Room, aliases: [Lounge, "  Salon\\tgrand "]}
floors: [{name: Attic}, 2]
entities:
  - {name: Lamp, domain: light}
  - {name: Gate, aliases: [Big Gate], domain: cover, device_class: gate}
sentences:
  - it's party time
  - "(play|start) {album} [by {artist}]"
"""
    )
    assert HomeFile(file).home == Home(
        ("Kitchen", "Living Room", "Lounge", "Salon grand"),
        ("Attic", "2"),
        (Entity(("Lamp",), "light"), Entity(("Gate", "Big Gate"), "cover", "gate")),
        ("it's party time", "(play|start) {album} [by {artist}]"),
    )


@pytest.mark.parametrize("text", ["{}", "areas:\nfloors: []\n", "entities: []"])
def test_nothing_need_be_there(file: Path, text: str) -> None:
    file.write_text(text)
    assert HomeFile(file).home == Home()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "it must have areas, floors and entities"),
        ("- a", "it must have areas, floors and entities"),
        ("areas: [", r"home\.yaml is not YAML \(line 1\)$"),
        ("room: [a]", "the file has 'room', which nothing is known of"),
        ("area: [a]", r"the file has 'area', .*; did you mean areas\?$"),
        ("1: [a]", "the file has 1, which nothing is known of$"),
        ("areas: Kitchen", "areas must be a list"),
        ("areas: [a, '']", "area 2 must be a text of 1 to 500 letters"),
        ("floors: [off]", "floor 1 must be in quotation marks: YAML reads it as yes or no"),
        ("areas: [[a]]", "area 1 must be a text"),
        ("areas: [{aliases: [a]}]", "the name of area 1 must be a text"),
        ("areas: [{name: a, aliases: b}]", "the aliases of area 1 must be a list"),
        ("areas: [{name: a, aliases: [{}]}]", "an alias of area 1 must be a text"),
        ("areas: [{name: a, alias: [b]}]", r"area 1 has 'alias', .*; did you mean aliases\?$"),
        ("entities: [Lamp]", "entity 1 must have a name and a domain"),
        ("entities: [{name: Lamp}]", "the domain of entity 1 must be a text"),
        ("entities: [{domain: light}]", "the name of entity 1 must be a text"),
        ("entities: [{name: a, domain: b, device_class: []}]", "the device_class of entity 1 must"),
        ("entities: {}", "entities must be a list"),
        (f"areas: [{'x' * 501}]", "area 1 must be a text of 1 to 500 letters"),
        ("areas: [" + "a," * 10_001 + "]", "areas must be 10000 at most"),
        ("sentences: [7.5, {a: b}]", "sentence 2 must be a text"),
        ("custom_sentences: [a]", "custom_sentences must be a text"),
    ],
)
def test_each_mistake_is_one_sentence(file: Path, text: str, sentence: str) -> None:
    file.write_text(text)
    with pytest.raises(ValueError, match=sentence) as caught:
        HomeFile(file)
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)


def test_what_is_no_text_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="can't be read"):
        HomeFile(tmp_path)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not UTF-8"):
        HomeFile(tmp_path / "bytes")


def test_changes_are_noticed_once(file: Path) -> None:
    file.write_text("areas: [a]")
    home = HomeFile(file)
    assert not home.has_changed()
    file.write_text("areas: [a, b]")
    assert home.has_changed()
    assert home.home.areas == ("a", "b")
    file.write_text("areas: [a,  b]")  # another file, the same home
    assert not home.has_changed()
    file.unlink()
    with pytest.raises(ValueError, match="can't be read"):
        home.has_changed()
    assert not home.has_changed()
    assert home.home.areas == ("a", "b")


# -- custom sentences ----------------------------------------------------------------------


@pytest.fixture
def folder(file: Path) -> Path:
    """The folder of custom sentences of a home, with one file."""
    file.write_text("custom_sentences: mine")
    folder = file.parent / "mine"
    for language in ("en", "pt-BR"):
        (folder / language).mkdir(parents=True)
    (folder / "en" / "tea.yaml").write_text("intents: {}")
    return folder


def test_custom_sentences_are_read_with_the_home(file: Path, folder: Path) -> None:
    (folder / "en" / "readme.txt").write_text("no sentences")
    (folder / "en" / "bytes.yml").write_bytes(b"\xff")
    (folder / "pt-BR" / "tea.yaml").write_text("[")
    broken, tea, portuguese = HomeFile(file).home.custom_sentences
    assert (broken.language, broken.mistake) == ("en", f"{broken.name} is not UTF-8 text")
    assert tea == CustomFile("en", str(folder / "en" / "tea.yaml"), "intents: {}")
    assert (portuguese.language, portuguese.text) == ("pt", "[")  # whoever needs it may parse it


def test_a_folder_that_is_not_there_has_none(file: Path) -> None:
    file.write_text("custom_sentences: mine")
    home = HomeFile(file)
    assert home.home == Home()
    (file.parent / "mine" / "en").mkdir(parents=True)
    assert not home.has_changed()
    (file.parent / "mine" / "en" / "tea.yaml").write_text("intents: {}")
    assert home.has_changed()
    assert home.home != Home()


def test_changes_of_custom_sentences_are_noticed_once(file: Path, folder: Path) -> None:
    home = HomeFile(file)
    assert not home.has_changed()
    changed = file.parent / "changed.yaml"
    changed.write_text("intents: {Tea: {}}")
    changed.replace(folder / "en" / "tea.yaml")
    assert home.has_changed()
    assert not home.has_changed()
    (folder / "en" / "tea.yaml").rename(folder / "pt-BR" / "tea.yaml")
    assert home.has_changed()
    (tea,) = home.home.custom_sentences
    assert (tea.language, tea.text) == ("pt", "intents: {Tea: {}}")
    file.write_text("areas: [a]")
    assert home.has_changed()
    (folder / "en" / "more.yaml").write_text("intents: {}")
    assert not home.has_changed()


def test_custom_sentences_are_bounded(
    file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        (folder / "pt-BR" / f"{number}.yaml").write_text("x" * 100)
    monkeypatch.setattr(home_file, "MAX_CUSTOM_FILES", 2)
    monkeypatch.setattr(home_file, "MAX_CUSTOM_CHARS", 150)
    tea, first, second = HomeFile(file).home.custom_sentences
    assert (bool(tea.text), len(first.text), second.text) == (True, 100, "")
    assert second.mistake.endswith("custom sentences are 150 letters at most, together")
