"""Sentences of Home Assistant, how they are written, and what of them is understood."""

from __future__ import annotations

import random

import pytest

from benchmarks.intents import (
    OPTIONS,
    WAYS,
    Drawer,
    Result,
    Sentence,
    digits,
    draw,
    judge,
    main,
    table,
    written,
)
from benchmarks.understood import languages, matcher


def sentence(drawn: str, language: str = "en") -> Sentence:
    home = matcher(language)
    assert home is not None
    meaning = home.understand(digits(drawn))
    assert meaning is not None
    return Sentence(drawn, meaning, home, language)


def test_a_sentence_is_written_as_whisper_does() -> None:
    one = sentence("set bedroom light brightness to <45> percent")
    assert {name: write(one) for name, write in WAYS.items()} == {
        "as in the templates": "set bedroom light brightness to 45 percent",
        "numbers in words": "set bedroom light brightness to forty-five percent",
        "capital, mark at the end": "Set bedroom light brightness to 45 percent.",
        "and exclamation mark": "Set bedroom light brightness to 45 percent!",
        "and ellipsis": "Set bedroom light brightness to 45 percent...",
        "and a comma inside": "Set, bedroom light brightness to 45 percent.",
        "and a dash before": "- Set bedroom light brightness to 45 percent.",
        "all in quotes": "“Set bedroom light brightness to 45 percent.”",
        "a name in quotes": "Set “bedroom light” brightness to 45 percent.",
    }


def test_a_question_has_the_marks_of_its_language() -> None:
    assert sentence("qué hora es", "es").written == "¿Qué hora es?"
    assert sentence("what time is it").written == "What time is it?"


def test_quotes_are_what_the_matcher_fails_on() -> None:
    one = sentence("turn on the bedroom light")
    right = {r.option: r.right for r in judge("way", one, "“Turn on the bedroom light.”", OPTIONS)}
    assert right == {"as written": False, "strip": True, "lowercase": False, "both": True}


@pytest.mark.parametrize("language", languages())
def test_every_language_has_sentences_that_are_right_as_they_are(language: str) -> None:
    drawn = list(draw([language], 3, seed=1))
    assert len({one.plain for one in drawn}) == 3
    plain = [r for r in written(drawn) if r.way == "as in the templates"]
    assert len(plain) == 3 * len(OPTIONS)
    assert all(result.right for result in plain)


def test_draws_are_the_same_for_the_same_seed() -> None:
    home = matcher("en")
    assert home is not None
    drawer = Drawer("en", home)
    assert drawer.draw(random.Random(7)) == drawer.draw(random.Random(7))


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


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--languages", "en", "--sentences", "2"]) == 0
    assert "| as in the templates      |     2 |" in capsys.readouterr().out
