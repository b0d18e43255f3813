"""What Home Assistant makes of a text, by its own templates and matcher."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.lib.errors import HomeError
from benchmarks.lib.understood import HOMES, Meaning, languages, meaning, read_home


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("turn on the living room lamp", "Turn on the living room lamp!"),
        ("set bedroom light brightness to fifty percent", "Set bedroom light brightness to 50%."),
        ("add milk to my shopping list", "Add Milk to my shopping list."),
        ("turn on the lamp", "turn on the living room lamp"),  # an alias
        ("set a timer for five minutes", "Set a timer for 5 minutes"),
    ],
)
def test_texts_mean_the_same_whatever_their_marks_and_numbers(said: str, written: str) -> None:
    assert meaning(said, "en") is not None
    assert meaning(said, "en") == meaning(written, "en")


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("turn on the bedroom light", "turn off the bedroom light"),
        ("turn on the bedroom light", "turn on the garage light"),
        ("set bedroom light brightness to fifty percent", "set bedroom light brightness to 15%"),
        ("add milk to my shopping list", "add silk to my shopping list"),
        ("turn on the bedroom light", "turn on the bad room light"),
    ],
)
def test_texts_that_do_not_mean_the_same(said: str, written: str) -> None:
    assert meaning(said, "en") is not None
    assert meaning(said, "en") != meaning(written, "en")


@pytest.mark.parametrize("text", ["", " ", "ask not what your country can do for you", "two"])
def test_texts_without_a_meaning(text: str) -> None:
    assert meaning(text, "en") is None


def test_a_meaning_has_its_slots() -> None:
    found = meaning("Make the bedroom light blue.", "en")
    assert found == Meaning("HassLightSet", (("color", "blue"), ("name", "bedroom light")))
    assert str(found) == "HassLightSet(color=blue, name=bedroom light)"


@pytest.mark.parametrize(
    ("language", "text", "intent"),
    [
        ("de", "Schalte das Wohnzimmerlicht ein.", "HassTurnOn"),
        ("el", "Σβήσε το φως του γκαράζ", "HassTurnOff"),
        ("es", "Apagar la luz del garaje.", "HassTurnOff"),
        ("fr", "Éteindre la lampe de salon.", "HassTurnOff"),
        ("it", "La porta del garage è aperta?", "HassGetState"),
        ("ko", "거실 불 켜줘.", "HassTurnOn"),
        ("nl", "Is de garagepoort open?", "HassGetState"),
        ("pt", "Acenda a luz do quarto.", "HassTurnOn"),
        ("ru", "Включить лампу в гостиной.", "HassTurnOn"),
        ("sv", "Är garage dörren stängd?", "HassGetState"),
        ("vi", "Tắt đèn phòng khách.", "HassTurnOff"),
        ("zh", "打开客厅的灯。", "HassTurnOn"),
    ],
)
def test_every_language_has_a_household(language: str, text: str, intent: str) -> None:
    found = meaning(text, language)
    assert found is not None
    assert found.intent == intent
    assert language in languages()


def test_a_language_without_a_household_understands_nothing() -> None:
    assert meaning("lülita tuli sisse", "et") is None


def test_every_household_can_be_read() -> None:
    assert languages()
    for language in languages():
        home = read_home(HOMES / f"{language}.yaml")
        assert home.satellite in home.areas
        assert any(entity.domain == "light" for entity in home.entities)


HOME = "satellite: Den\nareas: [Den]\nentities: [{name: Lamp, domain: light}]\n"


@pytest.mark.parametrize(
    ("content", "mistake"),
    [
        (None, "can't be read"),
        ("a: [", "can't be read"),
        ("- Den", "must have areas and entities"),
        (HOME + "doors: []", "nothing is known of 'doors'"),
        (HOME.replace("domain", "kind"), "missing or wrong: .*kind"),
        (HOME.replace("areas: [Den]\n", ""), "missing or wrong: 'areas'"),
        (HOME.replace("satellite: Den", "satellite: Attic"), "in an area, not in 'Attic'"),
    ],
)
def test_a_household_with_a_mistake(tmp_path: Path, content: str | None, mistake: str) -> None:
    file = tmp_path / "xx.yaml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(HomeError, match=rf"xx\.yaml.*{mistake}"):
        read_home(file)


def test_places_and_devices_have_aliases(tmp_path: Path) -> None:
    file = tmp_path / "xx.yaml"
    file.write_text(
        "satellite: Den\n"
        "areas: [{name: Den, aliases: [study]}]\n"
        "floors: [Attic]\n"
        "entities: [{name: Door, domain: cover, device_class: garage, aliases: [gate]}]\n"
    )
    home = read_home(file)
    assert home.areas == {"Den": "Den", "study": "Den"}
    assert home.floors == {"Attic": "Attic"}
    assert home.entities[0].names == ("Door", "gate")
    assert home.entities[0].context == {"domain": "cover", "device_class": "garage"}
