import random

import pytest

from training import text, words


@pytest.mark.parametrize(
    ("n", "said"),
    [
        (0, "zero"),
        (13, "thirteen"),
        (20, "twenty"),
        (45, "forty five"),
        (100, "one hundred"),
        (245, "two hundred forty five"),
        (6500, "six thousand five hundred"),
    ],
)
def test_numbers_are_said_in_words(n: int, said: str) -> None:
    assert text.number(n) == said


@pytest.mark.parametrize(
    ("written", "normalised"),
    [
        ("Set it to 45%", "set it to forty five percent"),
        ("What's the forty-five  minute timer?", "what's the forty five minute timer"),
        ("21° please", "twenty one degrees please"),
        ("{unfilled}", ""),
        ("Küche", ""),
    ],
)
def test_normalised_text_has_words_only(written: str, normalised: str) -> None:
    assert text.normalise(written) == normalised


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> text.Writer:
    dictionary = tmp_path_factory.mktemp("words") / "words"
    dictionary.write_text("\n".join([*words.NOUNS, "quartz", "it's", "Berlin"]), encoding="utf-8")
    return text.Writer(dictionary)


def test_sets_share_no_sentence(writer: text.Writer) -> None:
    train = text.sentences(400, 1, False, writer)
    dev = text.sentences(100, 2, True, writer)
    assert len(set(train)) == 400
    assert not set(train) & set(dev)
    assert set(words.EVERYDAY) <= set(train)


def test_sentences_repeat_with_their_seed(writer: text.Writer) -> None:
    assert text.sentences(50, 3, False, writer) == text.sentences(50, 3, False, writer)


def test_every_sentence_can_be_written_and_spoken(writer: text.Writer) -> None:
    r = random.Random(4)
    for _ in range(300):
        sentence = writer.sentence(r)
        assert sentence == text.normalise(sentence)
        assert 1 <= len(sentence.split()) <= text.MAX_WORDS
