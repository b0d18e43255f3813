"""Sentences of Home Assistant, how they are written, and what of them is understood."""

from __future__ import annotations

import random

import pytest

from benchmarks.intents import (
    HOMES,
    OPTIONS,
    WAYS,
    Matcher,
    Result,
    Sentence,
    digits,
    draw,
    judge,
    table,
    written,
)


@pytest.fixture(scope="module")
def english() -> Matcher:
    return Matcher("en", HOMES["en"])


def sentence(matcher: Matcher, drawn: str, language: str = "en") -> Sentence:
    meaning = matcher.understand(digits(drawn))
    assert meaning is not None
    return Sentence(drawn, meaning, matcher, HOMES[language])


def test_a_text_is_understood_whatever_its_capitals_and_the_form_of_its_numbers(
    english: Matcher,
) -> None:
    meant = english.understand("set desk lamp brightness to 50%")
    assert meant is not None
    assert meant.intent == "HassLightSet"
    assert dict(meant.slots) == {"name": "desk lamp", "brightness": "50"}
    assert meant.means(english.understand("Set desk lamp brightness to fifty percent."))
    assert not meant.means(english.understand("set desk lamp brightness to 51%"))
    assert not meant.means(english.understand("ask not what your country can do"))


def test_a_sentence_is_written_as_whisper_does(english: Matcher) -> None:
    one = sentence(english, "set desk lamp brightness to <45> percent")
    ways = {name: write(one) for name, write in WAYS.items()}
    assert ways == {
        "as in the templates": "set desk lamp brightness to 45 percent",
        "numbers in words": "set desk lamp brightness to forty-five percent",
        "capital, mark at the end": "Set desk lamp brightness to 45 percent.",
        "and exclamation mark": "Set desk lamp brightness to 45 percent!",
        "and ellipsis": "Set desk lamp brightness to 45 percent...",
        "and a comma inside": "Set, desk lamp brightness to 45 percent.",
        "and a dash before": "- Set desk lamp brightness to 45 percent.",
        "all in quotes": "“Set desk lamp brightness to 45 percent.”",
        "a name in quotes": "Set “desk lamp” brightness to 45 percent.",
    }


def test_a_question_has_the_marks_of_its_language() -> None:
    spanish = Matcher("es", HOMES["es"])
    one = sentence(spanish, "qué hora es", "es")
    assert one.written == "¿Qué hora es?"


def test_quotes_are_what_the_matcher_fails_on(english: Matcher) -> None:
    one = sentence(english, "turn on the desk lamp")
    right = {
        r.option: r.right for r in judge("en", "way", one, "“Turn on the desk lamp.”", OPTIONS)
    }
    assert right == {"as written": False, "strip": True, "lowercase": False, "both": True}


@pytest.mark.parametrize("language", HOMES)
def test_every_language_has_sentences_that_are_right_as_they_are(language: str) -> None:
    drawn = list(draw([language], 3, seed=1))
    assert len({one.plain for _, one in drawn}) == 3
    plain = [r for r in written(drawn) if r.way == "as in the templates"]
    assert len(plain) == 3 * len(OPTIONS)
    assert all(result.right for result in plain)


def test_draws_are_the_same_for_the_same_seed(english: Matcher) -> None:
    assert english.draw(random.Random(7)) == english.draw(random.Random(7))


def test_the_table_has_the_share_that_is_right() -> None:
    results = [
        Result("en", "quoted", "as written", "", matched=True, right=False),
        Result("en", "quoted", "as written", "", matched=True, right=True),
        Result("en", "quoted", "strip", "", matched=True, right=True),
        Result("de", "plain", "strip", "", matched=False, right=False),
    ]
    lines = table(results, "way", lambda result: result.way).splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert rows[0] == ["way", "texts", "as written", "strip"]
    assert rows[2] == ["quoted", "2", "50.0 %", "100.0 %"]
    assert rows[3] == ["plain", "1", "-", "0.0 %"]
