"""Texts that repeat themselves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wyoming_whisper.text.repetition import said_once, words

ONCE = {
    "Turn on the light. " * 45: "Turn on the light.",
    "Turn on the light. Turn on the light. Turn on": "Turn on the light.",
    "Turn on the light. Turn on the light. Turn on the li": "Turn on the light.",
    "I see. I": "I see. I",
    "Bird, bird. BIRD bird": "Bird",
    "Thank you. Thank you. Bye.": "Thank you. Bye.",
    "Okay. Thank you. Thank you. Bye bye.": "Okay. Thank you. Bye",
    "no no no. No, thanks": "no thanks",
    "打开客厅灯。打开客厅灯。打开客厅灯": "打开客厅灯。",
    "เปิดไฟเปิดไฟ": "เปิดไฟ",
    "don't don't": "don't",
    "1 2 3 4 5 6": "1 2 3 4 5 6",
    "Turn on the light, turn on the lamp": "Turn on the light, turn on the lamp",
    "all balloons": "all balloons",
    "...": "...",
    "": "",
}


@pytest.mark.parametrize(("text", "once"), ONCE.items())
def test_every_phrase_is_there_once(text: str, once: str) -> None:
    assert said_once(text) == once


@given(st.lists(st.sampled_from(["on", "off", "lamp"])))
def test_nothing_is_added_and_nothing_repeats_itself_any_more(spoken: list[str]) -> None:
    once = said_once(" ".join(spoken))
    assert said_once(once) == once
    left = iter(spoken)
    assert all(word in left for word in words(once))
    assert all(first != second for first, second in zip(words(once), words(once)[1:], strict=False))


def test_a_long_text_keeps_its_end() -> None:
    text = " ".join(str(number) for number in range(10_000))
    assert said_once(text) == text


def test_a_long_loop_is_there_once() -> None:
    text = " ".join(["Turn on the light in the kitchen."] * 200)
    assert words(said_once(text + " Good night.")) == words(
        "Turn on the light in the kitchen. Good night."
    )
