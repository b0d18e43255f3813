"""Commands in the words of Home Assistant's sentences."""

# ruff: noqa: RUF001  (letters and marks of all languages)

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.lib.understood import meaning
from tests.test_addon import TRANSLATIONS
from tests.text.ways import Way, in_seconds, kept, ways
from wyoming_whisper.text.style import TextStyle
from wyoming_whisper.text.wording import Wording

MAX_CHARS = 1000  # of a command

# -- fillers -------------------------------------------------------------------------------


def reworded(text: str, language: str | None, names: Sequence[str] = ()) -> str:
    wording = Wording.of(language)
    return wording.reworded(text, names) if wording else text


@pytest.mark.parametrize(
    ("language", "text", "result"),
    [
        ("en", "Uh, turn on the light.", "Turn on the light."),
        ("en", "uhhh turn on the light", "turn on the light"),
        ("en", "Um... uh, turn on the light", "Turn on the light"),
        ("en", "Ah, weather.", "Weather."),
        ("en", "Uh date", "Date"),
        ("en", "Er, iPhone on", "iPhone on"),
        ("de", "Äh, mach das Licht an", "Mach das Licht an"),
        ("de", "Ähm äääh Licht an", "Licht an"),
        ("fr", "Euh allume la lampe", "Allume la lampe"),
        ("nl", "Eh, doe het licht aan", "Doe het licht aan"),
        ("it", "Ehm, accendi la luce", "Accendi la luce"),
        ("es", "Eh, enciende la luz", "Enciende la luz"),
        ("pl", "Yyy, włącz światło", "Włącz światło"),
        ("pt", "Hum, liga a luz", "Liga a luz"),
    ],
)
def test_fillers_at_the_start_are_dropped(language: str, text: str, result: str) -> None:
    assert reworded(text, language) == result


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", "Uh."),  # never the whole text
        ("en", "Um, uh..."),
        ("en", "Uh-huh, yes"),
        ("en", "Umbrella light on"),
        ("en", "Turn on the, uh, light"),  # at the start alone
        ("de", "Um fünf Uhr"),  # words of their languages
        ("de", "Er ist da"),
        ("en", "ER is on channel 5"),
        ("en", "Oh Happy Day"),
        ("nl", "AH boodschappen toevoegen"),
        ("de", "Oh Tannenbaum spielen"),
        ("pt", "Um temporizador"),
        ("pt", "Em 5 minutos apaga a luz"),
        ("nl", "Er is iemand"),
        ("fr", "Ben allume la lampe"),
        ("ja", "えーと、電気をつけて"),  # no list
        (None, "Uh, turn on the light"),
    ],
)
def test_what_is_no_filler_stays(language: str | None, text: str) -> None:
    assert reworded(text, language) == text


def test_the_name_of_a_thing_is_no_filler() -> None:
    names = ["Um Bongo", "Kitchen"]
    assert reworded("Um Bongo off", "en", names) == "Um Bongo off"
    assert reworded("Uh, um bongo off", "en", names) == "Um bongo off"
    assert reworded("Um bongos off", "en", names) == "Bongos off"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("turn on the ½ hour timer lamp", "½ hour timer lamp"),
        ("set the 21.5 °C sensor", "21.5 °c Sensor"),
    ],
)
def test_the_name_of_a_thing_is_no_measure(text: str, name: str) -> None:
    assert reworded(text, "en") != text
    assert reworded(text, "en", ["Kitchen", name]) == text


def test_no_command_of_another_kind_begins_with_a_filler() -> None:
    """What is said first in Home Assistant's sentences is no filler of that language."""
    for one in kept(TRANSLATIONS, 20, 3):
        assert TextStyle().is_begun(one.text.split()[0], one.language), one


def test_live_text_waits_for_more_than_fillers() -> None:
    assert not TextStyle().is_begun("Uh, um", "en")
    assert TextStyle().is_begun("Uh, turn", "en")
    assert TextStyle().is_begun("", "en")
    assert TextStyle(hass_wording=False).is_begun("Uh", "en")


# -- measures ------------------------------------------------------------------------------


@pytest.mark.parametrize("way", list(ways()), ids=lambda way: f"{way.language}: {way.text}")
def test_every_way_to_write_a_measure_is_understood(way: Way) -> None:
    not_yet = way.text in (  # numbers in words within a word, and before a half
        "ustaw pięciominutowy minutnik",
        "ustaw temperaturę na dwadzieścia jeden i pół stopnia",
    )
    assert way.is_understood() is not not_yet


@pytest.mark.parametrize(
    ("language", "text", "result"),
    [
        ("en", "Set a timer for ½ hour", "Set a timer for 30 minutes"),
        ("en", "Set a 1 1/2-hour timer", "Set a 1 hour 30 minutes timer"),
        ("en", "turn off the lamp in half an hour and 10 min", "turn off the lamp in 40 minutes"),
        ("en", "add 1/2 hour to my timer", "add 30 minutes to my timer"),
        ("en", "set a timer for 90.5 minutes", "set a timer for 90 minutes 30 seconds"),
        (
            "en",
            "start a timer called 5 min for ½ hour",
            "start a timer called 5 min for 30 minutes",
        ),
        ("it", "spegni la luce tra 1h e 30", "spegni la luce tra 1 ora 30 minuti"),
        (
            "fr",
            "éteins la lampe dans une heure et demie",
            "éteins la lampe dans 1 heure 30 minutes",
        ),
        ("fr", "un minuteur d’une demi-heure", "un minuteur de 30 minutes"),
        ("it", "un timer di un’ora e mezza", "un timer di 1 ora 30 minuti"),
        ("pl", "za pół godziny zgaś światło", "za 30 minut zgaś światło"),
        ("pl", "minutnik na 2 godz. i 22 min", "minutnik na 2 godziny 22 minuty"),
        ("de", "Stell die Heizung auf 21½ °C", "Stell die Heizung auf 21,5 Grad"),
        ("nl", "zet de thermostaat op 20 °C", "zet de thermostaat op 20 graden"),
    ],
)
def test_measures_are_written_as_the_templates_have_them(
    language: str, text: str, result: str
) -> None:
    assert reworded(text, language) == result


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", "add ½ pound of butter to the shopping list"),
        ("en", "put 1/2 hour of yoga on my todo list"),
        ("en", "add 50 per cent rye bread to groceries"),
        ("en", "broadcast dinner is in 1/2 hour"),
        ("en", "announce that it is 30 °C outside"),
        ("en", "play music from the 80s"),
        ("en", "how far is a 5 min walk"),  # neither a timer nor a delay
        ("en", "set a timer for 1:30"),  # hours or minutes
        ("en", "what is 70 °F in celsius"),
        ("en", "convert 70 °F"),
        ("en", "is it 70 °F outside or 21 °C"),
        ("en", "set the temperature to -5 °C"),  # of no template
        ("en", "set a timer for 1.001 seconds"),
        ("en", "set a timer for 5000 hours"),
        ("en", "set a timer for 5 \u017fec"),  # a letter that patterns take for s
        ("en", "set a timer for 0.33 minutes"),
        ("en", "set a timer for fifty eight and a half minutes"),  # not 8 and a half
        ("en", "play the song half an hour in 1/2 hour"),
        ("en", "set a 5 minute timer called half hour"),  # its name
        ("en", "set a timer named an hour for 5 minutes"),
        ("it", "imposta un timer chiamato mezz'ora"),
        ("it", "accendi la luce tra 1 ora e 2 luci"),  # no minutes
        ("es", "pon un temporizador de una hora y treinta y nueve segundos"),
        ("de", "alle wissen lassen Essen in 1/2 Stunde"),
        ("de", "den Podcast Wein bei 21½ Grad anhören"),
        ("it", "fa' sapere questo messaggio cena tra 1/2 ora"),
        ("es", "ver la serie media hora en ½ hora"),
        ("de", "setze ½ Pfund Butter auf die Einkaufsliste"),
        ("fr", "réveille-moi à 7h30"),  # a time of day
        ("fr", "rendez-vous à 14 h"),
        ("fr", "ajoute 1/2 litre de lait à la liste de courses"),
        ("it", "metti ½ litro di latte nella lista della spesa"),
        ("ru", "поставь таймер на ½ часа"),  # no file
    ],
)
def test_what_others_are_to_read_stays(language: str, text: str) -> None:
    assert reworded(text, language) == text


def test_items_and_messages_are_what_they_were() -> None:
    """These are understood as they are, with a measure in what somebody else reads."""
    for text in (
        "add ½ pound butter to the shopping list",
        "broadcast dinner is in 1/2 hour",
        "play 80s music in the living room",
    ):
        meant = meaning(text, "en")
        assert meant is not None, text
        assert meaning(TextStyle().tidy(text, "en"), "en") == meant


def test_what_is_understood_means_the_same_afterwards() -> None:
    sentences = list(kept(TRANSLATIONS, 30, 5))
    assert len(sentences) >= 30 * len(TRANSLATIONS)  # and some in words
    assert [one for one in sentences if not one.same] == []
    assert any(one.text != one.sent for one in sentences)


def test_an_hour_and_30_minutes_are_90_minutes() -> None:
    assert in_seconds(meaning("set a timer for 90 minutes", "en")) == in_seconds(
        meaning("set a timer for 1 hour and 30 minutes", "en")
    )
    assert in_seconds(None) is None


@pytest.mark.parametrize(
    "part", ["1 ", "uh ", "1/2 ", "half an ", "one and a half ", "½ ", "1h", "a ", "1", "-", "' "]
)
def test_no_text_takes_long(part: str) -> None:
    """Texts of peers: each of these is read in steps that grow with its length alone."""
    text = (f"set timer {part * MAX_CHARS}")[:MAX_CHARS]
    for language in TRANSLATIONS:
        assert reworded(text, language).startswith("set timer")
    assert reworded(f"uh {'x' * MAX_CHARS}", "en").startswith("uh ")  # that is no command


PIECES = st.sampled_from(
    [
        *("½", "1/2", "1 1/2", "1.5", "0", "00", "5", "120", "-", ",", ".", "'", "’", "°", "°C"),
        *("a", "an", "un'", "d'", "half", "and a half", "et demie", "und", "e mezza", "i pół"),
        *("hour", "h", "min.", "sec", "s", "heure", "Stunden", "ora", "godzinę", "uur", "degrees"),
        *("timer", "set", "in", "na", "za", "temperature", "per cent", "2,700 K", "uh", "hmm"),
        *("ſec", "mİn", "mın", "٥", "１", "\0", "K"),
    ]
)


@given(text=st.lists(PIECES | st.text(max_size=3), max_size=12).map(" ".join) | st.text())
@settings(max_examples=300, deadline=None)
def test_whatever_a_peer_writes_becomes_a_text(text: str) -> None:
    for language in TRANSLATIONS:
        assert isinstance(reworded(text, language), str)


def test_the_option_switches_it_off() -> None:
    text = "Uh, set a timer for ½ hour"
    assert TextStyle().tidy(text, "en") == "Set a timer for 30 minutes"
    assert TextStyle(hass_wording=False).tidy(text, "en") == text
    assert TextStyle().verbatim.tidy(text, "en") == text
