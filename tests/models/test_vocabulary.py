from __future__ import annotations

import json
from pathlib import Path

import pytest
import tokenizers

from wyoming_whisper.errors import ModelBrokenError
from wyoming_whisper.models.vocabulary import Vocabulary

TEXT = (
    Path(__file__).read_text().replace("<|", "") * 2
    + "Türe zu, naïve Œuvre, 東京タワー, Привет! 🙂 don't we'll"
)
SPECIAL = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|0.00|>"]


def trained() -> tokenizers.Tokenizer:
    """Return a byte-level tokenizer, made as Whisper's was: bytes, merges, special tokens."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    tokenizer.add_special_tokens(SPECIAL)
    return tokenizer


@pytest.mark.parametrize("name", ["vocabulary.json", "vocabulary.txt"])
def test_rebuilt_tokenizer_is_the_same(tmp_path: Path, name: str) -> None:
    original = trained()
    tokens = [original.id_to_token(i) or "" for i in range(original.get_vocab_size())]
    tokens.insert(600, "")  # as Whisper's has one before its special tokens
    text = json.dumps(tokens) if name.endswith("json") else "\n".join(tokens) + "\n"
    (tmp_path / name).write_text(text, encoding="utf-8")
    rebuilt = tokenizers.Tokenizer.from_str(Vocabulary(tmp_path).tokenizer_json())
    for line in [*TEXT.splitlines(), TEXT]:
        ids = rebuilt.encode(line, add_special_tokens=False).ids
        assert ids == original.encode(line, add_special_tokens=False).ids
        assert rebuilt.decode(ids) == line
    assert rebuilt.token_to_id("<|en|>") == tokens.index("<|en|>")
    assert rebuilt.encode("a<|en|>", add_special_tokens=False).tokens == ["a", "<|en|>"]


def test_tokenizer_is_kept_where_it_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vocabulary.txt").write_text("a\nb\nab\n")

    def forbidden(*args: object, **kwargs: object) -> None:
        raise PermissionError

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", forbidden)
        text = Vocabulary(tmp_path).tokenizer_json()
    assert not (tmp_path / "tokenizer.json").exists()
    assert (
        Vocabulary(tmp_path).tokenizer_json() == text == (tmp_path / "tokenizer.json").read_text()
    )
    assert json.loads(text)["model"]["merges"] == [["a", "b"]]


def test_tokenizer_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("mine")
    assert Vocabulary(tmp_path).tokenizer_json() == "mine"


@pytest.mark.parametrize("merges", [["Ġ a", "Ġt o"], [["Ġ", "a"], ["Ġt", "o"]]])
def test_the_first_merge_is_added_where_it_is_missing(tmp_path: Path, merges: list[object]) -> None:
    """As in the hub's file for OpenAI's multilingual models."""
    vocab = {token: i for i, token in enumerate(["Ġ", "a", "t", "o", "Ġa", "Ġt", "Ġto"])}
    model = {"type": "BPE", "vocab": vocab, "merges": merges}
    text = json.dumps({"version": "1.0", "added_tokens": [], "model": model})
    (tmp_path / "tokenizer.json").write_text(text)
    mended = tokenizers.Tokenizer.from_str(Vocabulary(tmp_path).tokenizer_json())
    assert mended.encode("ĠtoĠa").tokens == ["Ġto", "Ġa"]
    assert tokenizers.Tokenizer.from_str(text).encode("ĠtoĠa").tokens != ["Ġto", "Ġa"]
    (tmp_path / "tokenizer.json").write_text(Vocabulary(tmp_path).tokenizer_json())
    assert (
        Vocabulary(tmp_path).tokenizer_json() == (tmp_path / "tokenizer.json").read_text()
    )  # once is enough


def test_no_vocabulary(tmp_path: Path) -> None:
    with pytest.raises(ModelBrokenError, match=r"no vocabulary\.json or vocabulary\.txt"):
        _ = Vocabulary(tmp_path).tokens
