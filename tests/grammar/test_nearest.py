"""What is spelled alike: the sentences nearest to a text, without following all there are."""

from __future__ import annotations

import pytest

from wyoming_whisper.grammar.automaton import Grammar
from wyoming_whisper.grammar.filling import fill
from wyoming_whisper.grammar.nearest import Nearest
from wyoming_whisper.grammar.templates import compile_intents
from wyoming_whisper.home.inventory import Entity, Home

INTENTS = {
    "On": {"data": [{"sentences": ["turn on [the] {name}", "switch {name} on"]}]},
    "Set": {"data": [{"sentences": ["set [the] {name} to {percent} percent"]}]},
}
LISTS = {"percent": {"range": {"from": 0, "to": 100}}}
TEMPLATES = compile_intents({"language": "en", "intents": INTENTS, "lists": LISTS})
HOME = Home(entities=(Entity(("Kitchen Lamp", "Garage Door", "Fan"), "light"),))


def grammar(home: Home = HOME) -> Grammar:
    return fill(TEMPLATES, home, None)


@pytest.mark.parametrize(
    ("written", "nearest"),
    [
        ("Turn on the kitten lamp.", "Turn on the kitchen lamp"),
        ("Durn on kitchenlamp", "Turn on kitchen lamp"),
        ("Switch the garage door on", "Switch garage door on"),
        ("turn on the karache tore", "Turn on the garage door"),
        ("Set the fan to 15 present", "Set the fan to 15 percent"),
        ("turn on the fan", "Turn on the fan"),
    ],
)
def test_the_nearest_sentence_comes_first(written: str, nearest: str) -> None:
    assert grammar().alike([written])[0] == nearest


def test_hypotheses_that_begin_alike_are_compared_as_each_by_itself() -> None:
    texts = ["Turn on the kitten lamp", "Turn on the kitten lump now", "Durn on the fan", ""]
    letters = grammar()._letters
    each = [Nearest(letters).find([text], 3) for text in texts]
    together = Nearest(letters).find(texts, 3)
    assert together == {
        sentence: min(costs[sentence] for costs in each if sentence in costs)
        for costs in each
        for sentence in costs
    }


def test_what_is_like_nothing_is_given_up_soon() -> None:
    text = "What is the capital of France, and how many people live in the city?"
    letters: list[int] = []
    assert grammar().alike([text], lambda: letters.append(1)) == []
    assert len(letters) < len(text) - 5


def test_a_large_home_has_hardly_more_states_that_are_followed() -> None:
    def n_states(n_names: int) -> int:
        rooms = ("Kitchen", "Garage", "Hall", "Attic", "Garden")
        names = tuple(f"{rooms[i % 5]} Lamp {i}" for i in range(n_names))
        large = grammar(Home(entities=(Entity(names, "light"),)))
        assert large.alike(["Turn on the gerage lamb 6"])[0] == "Turn on the garage lamp 6"
        return len(large._letters)

    assert n_states(5000) < 2 * n_states(20)
