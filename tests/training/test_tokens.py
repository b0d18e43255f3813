from pathlib import Path

import pytest
from faster_whisper.tokenizer import Tokenizer as StockTokenizer

from training import words
from training.tokens import LETTERS, SPECIAL, Vocabulary, train

SENTENCES = [
    f"{verb} the {adjective} {noun}'s {letter}{noun}"
    for verb, adjective, noun, letter in zip(
        words.VERBS * 3, words.ADJECTIVES * 2, words.NOUNS, LETTERS * 20, strict=False
    )
]


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary(train(SENTENCES, size=400))


def test_layout_is_whispers(vocabulary: Vocabulary) -> None:
    assert vocabulary.eot == 400
    assert [vocabulary.id(token) for token in SPECIAL] == list(range(400, 400 + len(SPECIAL)))
    assert vocabulary.size == 400 + len(SPECIAL)
    assert vocabulary.time(0.33) == vocabulary.id("<|0.32|>")
    assert vocabulary.time(99) == vocabulary.id("<|30.00|>")


@pytest.mark.parametrize("text", [*SENTENCES[:40], "xylophone zoo", "it's o'clock"])
def test_text_survives(vocabulary: Vocabulary, text: str) -> None:
    assert vocabulary.decode(vocabulary.encode(text)) == text


def test_no_word_begins_with_a_lone_space(vocabulary: Vocabulary) -> None:
    lone = vocabulary.tokenizer.token_to_id("Ġ")
    for letter in LETTERS:
        assert lone not in vocabulary.encode(f"a {letter}qz")


def test_names_may_be_written_any_way(vocabulary: Vocabulary) -> None:
    assert vocabulary.encode("Küche Lamp") == vocabulary.encode("kuche lamp")


def test_stock_suppression_spares_all_words(vocabulary: Vocabulary) -> None:
    stock = StockTokenizer(vocabulary.tokenizer, True, "transcribe", "en")
    used = {token for text in SENTENCES for token in vocabulary.encode(text)}
    assert not used & set(stock.non_speech_tokens)


def test_it_loads_again(vocabulary: Vocabulary, tmp_path: Path) -> None:
    vocabulary.tokenizer.save(str(tmp_path / "tokenizer.json"))
    loaded = Vocabulary.load(tmp_path / "tokenizer.json")
    assert loaded.encode("the lamp") == vocabulary.encode("the lamp")
    with pytest.raises(KeyError):
        loaded.id("<|de|>")


def test_too_little_text_is_refused() -> None:
    with pytest.raises(ValueError, match="too little text"):
        train(["a b c"], size=2000)
