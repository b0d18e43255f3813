"""The grammar of a home, token by token: what may follow, and what may not."""

from __future__ import annotations

import random
import sys
import threading
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import TIMEOUT_SECONDS
from wyoming_whisper.grammar.automaton import Grammar
from wyoming_whisper.grammar.filling import fill
from wyoming_whisper.grammar.positions import REFUSED
from wyoming_whisper.grammar.templates import compile_intents
from wyoming_whisper.grammar.vocabulary import Vocabulary
from wyoming_whisper.home.inventory import Entity, Home

HOME = Home(
    areas=("Kitchen", "Living Room"),
    floors=("Attic",),
    entities=(
        Entity(("Lamp", "Big Light"), "light"),
        Entity(("Door",), "lock"),
        Entity(("Gate",), "cover", "garage"),
        Entity(("l'Étagère",), "light"),
    ),
)
TEMPLATES: dict[str, Any] = {
    "language": "en",
    "skip_words": ["please", "could you"],
    "intents": {
        "On": {"data": [{"sentences": ["(turn|switch) on [the] {name}", "<on> (in;{area};now)"]}]},
        "Dim": {
            "data": [
                {
                    "sentences": ["dim [the] {name} to {level}[([ ]%)| percent]"],
                    "requires_context": {"domain": ["light"]},
                }
            ]
        },
        "NotGarage": {
            "data": [
                {
                    "sentences": ["raise {name}"],
                    "requires_context": {"domain": "cover"},
                    "excludes_context": {"device_class": ["garage"]},
                }
            ]
        },
        "Warm": {"data": [{"sentences": ["heat to {warmth} degree[s]"]}]},
        "Add": {"data": [{"sentences": ["add {item} to [the] list", "{item} onto the list"]}]},
        "Color": {"data": [{"sentences": ["make it {color}"]}]},
        "Here": {
            "data": [{"sentences": ["lights"], "requires_context": {"area": {"slot": True}}}],
        },
    },
    "expansion_rules": {"on": "[could you] turn on"},
    "lists": {
        "level": {"range": {"from": 0, "to": 100, "step": 5, "type": "percentage"}},
        "warmth": {"range": {"from": 20, "to": 22, "fractions": "halves"}},
        "item": {"wildcard": True},
        "color": {"values": ["red", {"in": "(dark|deep)[-]blue", "out": "navy"}]},
    },
}
WORDS = """turn on the Turn switch dim add heat to milk and list lamp Lamp Door Gate big light
kitchen Living Room percent now in please 50 25 21 degrees could you make it red"""


@cache
def vocabulary() -> Vocabulary:
    words = [f"{blank}{word}".encode() for word in WORDS.split() for blank in ("", " ")]
    letters = [bytes((byte,)) for byte in range(256)]
    beginnings = [b" " + byte for byte in letters[33:127]]
    return Vocabulary([*letters, *dict.fromkeys((*beginnings, *words))])


def grammar(content: dict[str, Any] = TEMPLATES, home: Home = HOME, **options: bool) -> Grammar:
    return fill(compile_intents(content), home, vocabulary(), **options)


@pytest.fixture(scope="module")
def of_the_home() -> Grammar:
    return grammar()


def walk(grammar: Grammar, text: str | bytes, r: random.Random | None = None) -> int:
    """Return the state after a text, in tokens as they come; both ways of asking must agree."""
    state, rest = grammar.begin(), text.encode() if isinstance(text, str) else text
    while rest and state != REFUSED:
        tokens = vocabulary().tokens
        fitting = [n for n, token in enumerate(tokens) if rest.startswith(token)]
        token = r.choice(fitting) if r else max(fitting, key=lambda n: len(tokens[n]))
        after = grammar.advance(state, token)
        allowed = grammar.continuations(state)
        if allowed is not None:
            told = dict(zip(*(part.tolist() for part in allowed), strict=True))
            assert told.get(token, REFUSED) == after
        state, rest = after, rest[len(tokens[token]) :]
    return state


SENTENCES = [
    " Turn on the lamp.",
    "turn on lamp",
    " Switch on, please, the big light!",
    " Please could you turn on the Door",
    " Turn on in Living Room now",
    " Turn on now Kitchen in.",
    " Dim lamp to 50%",
    " Dim lamp to 50 %.",
    " Dim the big light to fifty-five percent",
    " Dim lamp to 50.",  # of a sentence, not of a number
    " Heat to 21.5 degrees.",
    " Heat to 21,5 degree",
    " Heat to twenty-one degrees",
    " Add milk, eggs and T-shirts to the list.",
    " Add Käse 🧀 to list",
    " Make it red?",
    " Make it deep-blue",
    " Make it deepblue",
    " TURN ON THE LAMP",
    " Turn on l\u2019étagère",
    " Turn on L'ÉTAGÈRE",
    " lights",
]
OTHERS = [
    "",
    " ",
    " Turn",
    " Turn on the",
    " Turn on the lam",
    " Turn on the lamps",
    " Turnon the lamp",
    " Turn on the lamp lamp",
    " Turn on in in now",
    " Dim the door to 50%",  # a lock is not dimmed
    " Dim lamp to 51%",
    " Heat to 215 degrees",
    " Heat to 21.4 degrees",
    " Heat to 23 degrees",
    " Raise gate",  # a cover, but a garage's
    " Add to the list",
    " Add milk to the",
    " Make it deep blue",
    " Milk onto the list",  # begins with free text: it is matched, but not searched
    " What is the capital of France?",
]


@pytest.mark.parametrize("text", SENTENCES)
def test_a_sentence_is_reached_token_by_token(of_the_home: Grammar, text: str) -> None:
    assert of_the_home.is_final(walk(of_the_home, text))
    assert of_the_home.matches(text)


@pytest.mark.parametrize("text", OTHERS)
def test_no_other_text_is_a_sentence(of_the_home: Grammar, text: str) -> None:
    state = walk(of_the_home, text)
    assert state == REFUSED or not of_the_home.is_final(state)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(SENTENCES + OTHERS), st.randoms(use_true_random=False))
def test_every_way_to_cut_a_text_into_tokens_leads_to_the_same(text: str, r: random.Random) -> None:
    of_the_home = shared()
    whole, cut = walk(of_the_home, text), walk(of_the_home, text, r)
    assert whole == cut


@cache
def shared() -> Grammar:
    return grammar()


def test_what_begins_with_free_text_is_matched_and_not_searched(of_the_home: Grammar) -> None:
    assert of_the_home.matches("Milk onto the list.")
    assert walk(of_the_home, " Milk onto") == REFUSED


def test_free_text_is_told_by_advance_alone(of_the_home: Grammar) -> None:
    state = walk(of_the_home, " Add")
    assert of_the_home.is_free(state)
    assert of_the_home.continuations(state) is None
    assert not of_the_home.is_free(of_the_home.start)
    # A letter of two bytes, and what is no letter at all.
    assert of_the_home.is_final(walk(of_the_home, " Add é to list"))
    assert walk(of_the_home, b" Add \xff") == REFUSED
    assert not of_the_home.is_final(walk(of_the_home, b" Add a to lis\xc3"))


@pytest.mark.parametrize(
    ("text", "freely"),
    [
        ("cancel timer", False),  # "cancel egg timer" and "cancel timer timer" are sentences, too
        ("cancel the timer", False),
        ("cancel egg timer", True),  # one fixed word is little
        ("add milk to my list", False),
        ("announce dinner", True),
        ("announce dinner to my list", True),
    ],
)
def test_what_ends_in_free_text(text: str, freely: bool) -> None:
    sentences = ["cancel [the] timer", "cancel {item} timer", "add {item} to my list"]
    intents = {"Any": {"data": [{"sentences": [*sentences, "announce {item}"]}]}}
    content = {"language": "en", "intents": intents, "lists": {"item": {"wildcard": True}}}
    assert fill(compile_intents(content), Home(), vocabulary()).ends_freely(text) == freely


def test_without_free_text_all_that_may_follow_is_told() -> None:
    closed = grammar(free_text=False)
    assert walk(closed, " Add") == REFUSED
    assert walk(closed, " Turn on the lamp") != REFUSED
    allowed = closed.continuations(walk(closed, " Turn on the"))
    assert allowed is not None
    following = {vocabulary().tokens[token] for token in allowed[0].tolist()}
    assert {b" lamp", b" Lamp", b" Door", b" big", b" L", b" l", b" D", b","} <= following
    assert not {b" Living", b" add", b"lamp", b" 50"} & following


def test_a_state_is_refused_once_and_for_all(of_the_home: Grammar) -> None:
    state = walk(of_the_home, " Turn on the lamp")
    n = len(vocabulary().tokens)
    assert of_the_home.advance(state, n) == REFUSED  # no token of text
    assert of_the_home.advance(state, n + 100) == REFUSED


def test_states_are_forgotten_between_utterances_only(monkeypatch: pytest.MonkeyPatch) -> None:
    of_the_home = grammar()
    monkeypatch.setattr("wyoming_whisper.grammar.automaton.MAX_STATES", 10)
    start = of_the_home.begin()
    first = of_the_home.continuations(start)
    state = walk(of_the_home, " Turn on the lamp")
    assert of_the_home.is_final(state)
    again = of_the_home.continuations(of_the_home.begin())
    assert first is not None
    assert again is not None
    assert first[0].tolist() == again[0].tolist()
    assert of_the_home.is_final(walk(of_the_home, " Turn on the lamp"))


def test_states_by_letters_are_forgotten_between_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wyoming_whisper.grammar.automaton.MAX_STATES", 10)
    of_the_home = grammar()
    first = of_the_home.alike(["turn on the lam"])
    n_states = len(of_the_home._letters)
    assert of_the_home.alike(["turn on the lam"]) == first
    assert of_the_home.alike(["dim big light to 5"])
    assert of_the_home.alike(["turn on the lam"]) == first
    assert len(of_the_home._letters) == n_states > 10


def test_threads_ask_about_texts_one_after_the_other() -> None:
    of_the_home = grammar()
    begun, looks = threading.Event(), []

    def ask() -> None:
        begun.set()
        assert of_the_home.alike(["turn on the lam"], lambda: looks.append("other"))

    other = threading.Thread(target=ask)

    def checkpoint() -> None:
        if not looks:
            other.start()
            assert begun.wait(TIMEOUT_SECONDS)
        looks.append("first")

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        long = ["switch on the big light in the living room", "add milk and eggs to the list"]
        of_the_home.alike(long, checkpoint)
        other.join(TIMEOUT_SECONDS)
    finally:
        sys.setswitchinterval(before)
    assert {*looks} == {"first", "other"}
    assert looks == sorted(looks)


UNPARTED: dict[str, Any] = {
    "language": "zh",
    "settings": {"ignore_whitespace": True},
    "skip_words": ["请"],
    "intents": {
        "On": {"data": [{"sentences": ["打开{area}[的]灯", "把{item}加到清单", "调到{level}[%]"]}]}
    },
    "lists": {"item": {"wildcard": True}, "level": {"range": {"from": 0, "to": 100}}},
}


@pytest.mark.parametrize(
    ("text", "is_sentence"),
    [
        ("打开客厅的灯。", True),
        ("打开客厅灯", True),
        (" 打开 客厅 灯", True),
        ("请打开客厅灯", True),
        ("打开客厅灯,请", True),
        ("把牛奶加到清单", True),
        ("调到二十三", True),
        ("调到23%", True),
        ("打开厨房灯", False),
        ("把加到清单", False),
        ("打开客厅", False),
    ],
)
def test_words_without_blanks_follow_each_other(text: str, is_sentence: bool) -> None:
    chinese = grammar(UNPARTED, Home(areas=("客厅",)))
    state = walk(chinese, text)
    assert chinese.matches(text) == is_sentence
    assert (state != REFUSED and chinese.is_final(state)) == is_sentence


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (("Off",), " turn on off"),
        (("Lamp", "LAMP", "lamp "), " turn on lamp"),
        (("Zi. 3",), " turn on Zi 3"),
        (("  A  B ", "A"), " turn on a b"),
        (("🔥", "", "...", "x" * 500, "Lamp"), " turn on lamp"),
        (("\u0130stanbul I\u015f\u0131k",), " turn on istanbul \u0131\u015f\u0131k"),
        (("{area}", "[the] (a|b)", "Lamp"), " turn on lamp"),
        (("\x00\ud800", "Lamp"), " turn on lamp"),
    ],
)
def test_names_may_be_anything(names: tuple[str, ...], text: str) -> None:
    of_the_home = grammar(home=Home(entities=(Entity(names, "light"), Entity(names, "cover"))))
    assert of_the_home.is_final(walk(of_the_home, text))


def test_what_cant_be_said_is_left_out() -> None:
    of_the_home = grammar(home=Home(areas=("x" * 81, "🔥"), entities=(Entity(("...",), "light"),)))
    assert walk(of_the_home, " turn on in x") == REFUSED
    assert walk(of_the_home, " turn on the x") == REFUSED
    assert of_the_home.matches("make it red")
