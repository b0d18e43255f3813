"""The vocabulary of `home-en`: a small byte-level BPE with Whisper's special tokens after it.

`python -m training.tokens --work DIR` reads DIR/text/train.txt and writes DIR/tokenizer.json.
"""

import argparse
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.trainers import BpeTrainer

TEXT_TOKENS = 640
SPECIAL = (
    ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|translate|>", "<|transcribe|>"]
    + ["<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]
    + [f"<|{i * 0.02:.2f}|>" for i in range(1501)]
)
LETTERS = "abcdefghijklmnopqrstuvwxyz"
SPELLING = " '" + LETTERS  # what the CTC helper writes; its blank is len(SPELLING)
SPACE = "Ġ"  # how byte-level BPE writes a space
PRIVATE = 0xE000  # first of 26 characters that stand for space + letter while merges are learnt


def train(sentences: Iterable[str], size: int = TEXT_TOKENS) -> Tokenizer:
    """A tokenizer of `size` text tokens whose words never begin with a lone space.

    faster-whisper suppresses a lone space (it takes it for the start of a musical note), so a
    space is always merged with the letter after it first.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    starts = {chr(PRIVATE + i): SPACE + letter for i, letter in enumerate(LETTERS)}
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    merges = size - len(alphabet) - len(LETTERS)
    trainer = BpeTrainer(
        vocab_size=len(LETTERS) + 1 + len(starts) + merges,
        initial_alphabet=[*LETTERS, "'", *starts],
        limit_alphabet=len(LETTERS) + 1 + len(starts),
        show_progress=False,
    )
    learner.train_from_iterator(map(_marked, sentences), trainer)
    learnt = json.loads(learner.to_str())["model"]["merges"]
    expand = str.maketrans(starts)
    pairs = [(SPACE, letter) for letter in LETTERS]
    pairs += [(a.translate(expand), b.translate(expand)) for a, b in learnt]
    vocabulary = dict.fromkeys([*alphabet, *(a + b for a, b in pairs)])
    ids = {token: i for i, token in enumerate(vocabulary)}
    if len(ids) != size:
        raise ValueError(f"{len(ids)} text tokens learnt, {size} wanted: too little text?")
    return _assemble(ids, pairs)


def spell(text: str) -> list[int]:
    """The CTC targets of a text: a space, then its letters."""
    return [SPELLING.index(letter) for letter in " " + text]


def _marked(sentence: str) -> str:
    """Each word with its first letter replaced by the private one for space + letter."""
    shift = PRIVATE - ord("a")
    return " ".join(chr(ord(word[0]) + shift) + word[1:] for word in sentence.split())


def _assemble(ids: dict[str, int], pairs: list[tuple[str, str]]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(ids, pairs))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    return tokenizer


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer with the ids that training and decoding speak of."""

    tokenizer: Tokenizer

    @classmethod
    def load(cls, path: Path) -> "Vocabulary":
        """Read a tokenizer.json."""
        return cls(Tokenizer.from_file(str(path)))

    @property
    def size(self) -> int:
        """Text, special and timestamp tokens."""
        return int(self.tokenizer.get_vocab_size())

    @property
    def eot(self) -> int:
        """The end of the text; text tokens are below."""
        return self.id("<|endoftext|>")

    @property
    def timestamp(self) -> int:
        """<|0.00|>"""
        return self.id("<|0.00|>")

    def id(self, token: str) -> int:
        """A special token's id."""
        found = self.tokenizer.token_to_id(token)
        if found is None:
            raise KeyError(token)
        return int(found)

    def time(self, seconds: float) -> int:
        """The timestamp token nearest to `seconds`, at most <|30.00|>."""
        return self.timestamp + min(max(round(seconds / 0.02), 0), 1500)

    def encode(self, text: str) -> list[int]:
        """Text tokens, with the leading space every Whisper text has."""
        ids: list[int] = self.tokenizer.encode(" " + text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the text tokens among `ids`."""
        return str(self.tokenizer.decode([i for i in ids if i < self.eot])).strip()

    def prompt(self, timestamps: bool) -> list[int]:
        """<|startoftranscript|><|en|><|transcribe|> and, unless timestamps, <|notimestamps|>."""
        names = ["<|startoftranscript|>", "<|en|>", "<|transcribe|>"]
        return [self.id(name) for name in names + ([] if timestamps else ["<|notimestamps|>"])]


def main() -> None:
    """Learn the vocabulary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for everything made here")
    args = parser.parse_args()
    sentences = (args.work / "text" / "train.txt").read_text(encoding="utf-8").splitlines()
    tokenizer = train(sentences)
    tokenizer.save(str(args.work / "tokenizer.json"))
    vocabulary = Vocabulary(tokenizer)
    sample = sentences[:2000]
    tokens = sum(len(vocabulary.encode(text)) for text in sample)
    wrong = [text for text in sample if vocabulary.decode(vocabulary.encode(text)) != text]
    print(f"{vocabulary.size} tokens; {tokens / len(sample):.1f} a sentence; {len(wrong)} unlike")


if __name__ == "__main__":
    main()
