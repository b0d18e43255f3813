"""Words are compared the same way in every script, whoever wrote them."""

from __future__ import annotations

import pytest

from benchmarks.lib.words import WordErrors, normalised, paired, spelled, word_errors


@pytest.mark.parametrize(
    ("text", "language", "words"),
    [
        ("", "en", ""),
        (" Turn on the LAMP. ", "en", "turn on the lamp"),
        ("Don't!", "en", "don't"),
        ("don’t 'quoted'", "en", "don't quoted"),  # noqa: RUF001
        ("living-room_lamp", "en", "living room lamp"),
        ("21 °C", "en", "twenty one c"),
        ("Set it to 50%", "en", "set it to fifty"),
        ("um 21 Uhr, Straße", "de", "um einundzwanzig uhr strasse"),
        ("21", "", "21"),  # no language, no words
        ("21", "tlh", "21"),  # nobody knows its numbers
        ("¿Qué hora es?", "es", "qué hora es"),
        ("Éteins l’éclairage !", "fr", "éteins l'éclairage"),  # noqa: RUF001
        ("e\u0301teins", "fr", "éteins"),
        ("Ещё 2 лампы", "ru", "еще два лампы"),
        ("mở đèn 3", "vi", "mở đèn ba"),
        ("打开客厅的灯。", "zh", "打 开 客 厅 的 灯"),
        ("打开TV", "zh", "打 开 tv"),
        ("ライトをつけて", "ja", "ラ イ ト を つ け て"),
        ("거실 불 켜줘.", "ko", "거실 불 켜줘"),
        ("लाइट जलाओ", "hi", "लाइट जलाओ"),  # vowel signs part no words
        ("เปิดไฟ", "th", "เ ปิ ด ไ ฟ"),  # nor their letters from them
        ("ＡＢＣ", "en", "abc"),  # noqa: RUF001
        ("?!", "en", ""),
    ],
)
def test_words_are_compared_without_case_and_signs(text: str, language: str, words: str) -> None:
    assert normalised(text, language) == words.split()


def test_a_long_number_is_said_in_pieces_rather_than_not_at_all() -> None:
    assert normalised("1234567890", "") == ["123456789", "0"]


@pytest.mark.parametrize(
    ("value", "language", "words"),
    [(-5, "en", "minus five"), (1984, "nl", "duizendnegenhonderdvierentachtig"), (7, "xx", "7")],
)
def test_numbers_in_words(value: int, language: str, words: str) -> None:
    assert spelled(value, language) == words


@pytest.mark.parametrize(
    ("reference", "written", "substitutions", "deletions", "insertions"),
    [
        ("turn on the lamp", "Turn on the lamp.", 0, 0, 0),
        ("turn on the lamp", "", 0, 4, 0),
        ("", "thank you", 0, 0, 2),
        ("", "", 0, 0, 0),
        ("turn on the lamp", "turn off the lamp", 1, 0, 0),
        ("turn on the lamp", "turn on lamp", 0, 1, 0),
        ("turn on the lamp", "turn on the big lamp", 0, 0, 1),
        ("a b c d", "b c d e", 0, 1, 1),  # not four substitutions
        ("a b c", "x y", 2, 1, 0),
        ("a", "x y z", 1, 0, 2),
        ("turn it on on", "turn on", 0, 2, 0),
    ],
)
def test_fewest_word_errors(
    reference: str, written: str, substitutions: int, deletions: int, insertions: int
) -> None:
    found = word_errors(reference, written)
    words = len(reference.split())
    assert found == WordErrors(substitutions, deletions, insertions, words)
    assert found.errors == substitutions + deletions + insertions


def test_a_number_is_the_same_in_digits_and_in_words() -> None:
    assert word_errors("set it to fifty", "Set it to 50.", "en").errors == 0
    assert word_errors("set it to fifty", "Set it to 15.", "en").errors == 1


def test_word_errors_add_up() -> None:
    assert WordErrors(1, 2, 3, 4) + WordErrors(4, 3, 2, 1) == WordErrors(5, 5, 5, 5)


def errors(*counts: int) -> list[WordErrors]:
    return [WordErrors(substitutions=count, words=4) for count in counts]


def test_recordings_are_compared_one_by_one() -> None:
    found = paired(errors(0, 2, 1, 0), errors(1, 0, 1, 0))
    assert (found.better, found.worse) == (1, 1)
    assert found.points == pytest.approx(100 / 16)
    assert found.low < found.points < found.high


def test_the_same_errors_are_no_points_apart_in_any_draw() -> None:
    found = paired(errors(1, 0), errors(1, 0))
    assert (found.better, found.worse, found.points, found.low, found.high) == (0, 0, 0, 0, 0)


def test_what_is_always_worse_is_surely_worse() -> None:
    assert paired(errors(*[2] * 40), errors(*[1] * 40)).low == 25


@pytest.mark.parametrize(("one", "other"), [(errors(1), errors(1, 2)), ([], [])])
def test_only_the_same_recordings_are_compared(
    one: list[WordErrors], other: list[WordErrors]
) -> None:
    with pytest.raises(ValueError, match="the same recordings"):
        paired(one, other)
