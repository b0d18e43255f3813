"""A model folder's vocabulary: read as it is, and made into the tokenizer that some models lack.

The `rhasspy/faster-whisper-*-int8` models, which the official add-on uses by default, come without
`tokenizer.json`; faster-whisper then asks the hub for one at every start. All it says is already
in their vocabulary: Whisper's byte-pair merges were numbered in the order they were learned.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..errors import ModelBrokenError
from ..machine.files import write_file
from .model_json import JsonFile

_LOGGER = logging.getLogger(__name__)


class Vocabulary:
    """The vocabulary of one model folder, and its `tokenizer.json`; read when it is asked for."""

    TOKENIZER = "tokenizer.json"
    FILES = ("vocabulary.json", "vocabulary.txt")
    """In the order that CTranslate2 looks for them."""
    MULTILINGUAL = 51_865
    """Tokens of a stock model that is told its language; English-only ones have one token less, and
    no empty one, which is how CTranslate2 tells them apart."""
    NEEDED = ("<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>")
    """Special tokens that every Whisper has."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.tokenizer_file = folder / self.TOKENIZER

    @functools.cached_property
    def tokens(self) -> list[str]:
        """The tokens in the order of their ids.

        Raises ModelBrokenError naming the file that is missing or damaged.
        """
        file = self._file()
        if file is None:
            raise ModelBrokenError(f"{self._folder} has no vocabulary.json or vocabulary.txt")
        source = JsonFile(file)
        # Not splitlines(): it also splits at characters that are tokens.
        in_json = file.suffix == ".json"
        tokens = source.value() if in_json else source.text.removesuffix("\n").split("\n")
        if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
            raise ModelBrokenError(f"{file} is damaged: it is not a list of tokens")
        if len(tokens) < 2:
            raise ModelBrokenError(f"{file} is empty or cut off")
        return tokens

    @property
    def is_multilingual(self) -> bool:
        """Whether the model is told its language, as CTranslate2 decides it."""
        return len(self.tokens) >= self.MULTILINGUAL or "" in self.tokens

    def check(self, n_vocab: int | None) -> None:
        """Raise ModelBrokenError unless vocabulary and `tokenizer.json` are those of the weights.

        `n_vocab` is how many tokens the weights have, where that is known. A folder that has been
        put together of two models writes nonsense, or ends the process.
        """
        file = self._file()
        if file is None or file.stat().st_size == 0:
            raise ModelBrokenError(f"{file or self._folder / self.FILES[0]} is missing or empty")
        n_tokens = len(self.tokens)
        # Of English-only models, of multilingual ones, and of those since large-v3.
        stock_sizes = {self.MULTILINGUAL + i for i in (-1, 0, 1)}
        if n_vocab is not None and (
            n_tokens > n_vocab or ({n_tokens, n_vocab} <= stock_sizes and n_tokens != n_vocab)
        ):
            raise ModelBrokenError(
                f"{file} is of another model: it has {n_tokens} tokens, the weights have {n_vocab}"
            )
        ids = {token: i for i, token in enumerate(self.tokens) if token.startswith("<|")}
        missing = [token for token in self.NEEDED if token not in ids]
        if missing:
            raise ModelBrokenError(f"{file} is cut off, or no Whisper's: it has no {missing[0]}")
        if self.tokenizer_file.exists():
            advice = f"delete it (it is made again from {file.name}), or copy the model's own there"
            self._compare_tokenizer(ids, advice)

    def check_special_tokens(self, generation_config: Mapping[str, Any]) -> None:
        """Do the same in Hugging Face's layout. Raises ModelBrokenError."""
        keys = ("eos_token_id", "decoder_start_token_id", "no_timestamps_token_id")  # of NEEDED
        ids = {
            token: generation_config[key]
            for token, key in zip(self.NEEDED, keys, strict=True)
            if type(generation_config.get(key)) is int
        }
        self._compare_tokenizer(ids, "copy the model's own there")

    def tokenizer_json(self) -> str:
        """Return the text of the model's `tokenizer.json` (for `tokenizers.Tokenizer.from_str`).

        Where the folder has none it is rebuilt from the vocabulary (a second or a few, once) and
        kept in the folder if that can be written. The one of OpenAI's multilingual models is
        mended. Raises ModelBrokenError.
        """
        file = self.tokenizer_file
        if file.is_file():
            return _with_first_merge(JsonFile(file).text)
        text = json.dumps(_rebuild(self.tokens), ensure_ascii=False)
        _LOGGER.info("%s has no %s: rebuilt from its vocabulary", self._folder, self.TOKENIZER)
        with contextlib.suppress(OSError):  # a read-only folder: rebuilt again next time
            write_file(file, text.encode())
        return text

    def _file(self) -> Path | None:
        return next((f for f in (self._folder / name for name in self.FILES) if f.is_file()), None)

    def _compare_tokenizer(self, ids: Mapping[str, int], advice: str) -> None:
        """Compare the numbers of its special tokens with `ids`. Raises ModelBrokenError."""
        for token, number in self._special_numbers().items():
            if token in ids and ids[token] != number:
                raise ModelBrokenError(
                    f"{self.tokenizer_file} is the tokenizer of another model: its {token} is "
                    f"number {number}, this model's {ids[token]}; {advice}"
                )

    def _special_numbers(self) -> dict[str, int]:
        """Return token -> number of the tokenizer's special tokens, as far as it has the usual
        form.
        """
        content = JsonFile(self.tokenizer_file).content
        numbers: dict[str, Any] = {}
        model = content.get("model")
        vocab = model.get("vocab") if isinstance(model, dict) else None
        if isinstance(vocab, dict):
            numbers |= {token: vocab[token] for token in self.NEEDED if token in vocab}
        added = content.get("added_tokens")
        for entry in added if isinstance(added, list) else ():
            if isinstance(entry, dict) and _is_special(str(entry.get("content"))):
                numbers[str(entry["content"])] = entry.get("id")
        return {token: number for token, number in numbers.items() if type(number) is int}


def _is_special(token: str) -> bool:
    return re.fullmatch(r"<\|.*\|>", token) is not None


def _with_first_merge(text: str) -> str:
    """Return a `tokenizer.json` with the merge that was learned first, " t".

    The hub's file for OpenAI's multilingual models has all others (of the tokens there, only that
    one can't be made), so " to" and " turn" become two tokens that the model never saw in a row.
    """
    # The first token of two characters that Whisper's vocabulary learned.
    first_merge = "Ġt"  # " t", as byte-level vocabularies write it
    try:
        content = json.loads(text)
        vocab, merges = (content["model"][name] for name in ("vocab", "merges"))
        pairs = isinstance(merges[0], list)
        is_whole = first_merge not in vocab or any(
            "".join(merge).replace(" ", "") == first_merge for merge in merges
        )
        if is_whole:
            return text
        merges.insert(0, list(first_merge) if pairs else " ".join(first_merge))
        return json.dumps(content, ensure_ascii=False)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return text  # who loads it says what is wrong


def _rebuild(tokens: Sequence[str]) -> dict[str, Any]:
    """Return Whisper's `tokenizer.json`: byte-level BPE, nothing normalized, special tokens."""
    special = {token: i for i, token in enumerate(tokens) if _is_special(token)}
    # A nameless token behind the special ones only tells CTranslate2 that a model is multilingual;
    # as text it would shift their ids, which `tokenizers` counts on from the end of the text.
    last_text = min(special.values(), default=len(tokens))
    vocab = {token: i for i, token in enumerate(tokens[:last_text])}
    byte_level = {"type": "ByteLevel", "trim_offsets": True, "use_regex": True}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": i, "content": token, **flags, "special": True} for token, i in special.items()
        ],
        "normalizer": None,
        "pre_tokenizer": {**byte_level, "add_prefix_space": False},
        "post_processor": None,
        "decoder": {**byte_level, "add_prefix_space": True},
        "model": {"type": "BPE", "vocab": vocab, "merges": _merges(vocab)},
    }


def _merges(ranks: Mapping[str, int]) -> list[tuple[str, str]]:
    """Return the merges in the order they were learned.

    A token's last merge joins the two parts that the merges learned before it leave
    (openai/tiktoken, and transformers' converter for it, recover them the same way).
    """
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        parts = _split(token, ranks, rank)
        if len(parts) == 2:
            merges.append((parts[0], parts[1]))
    return merges


def _split(token: str, ranks: Mapping[str, int], limit: int) -> list[str]:
    """Return what byte-pair encoding makes of `token` with the merges before rank `limit`."""
    parts = list(token)
    while len(parts) > 2:
        pairs = [ranks.get(left + right, limit) for left, right in pairwise(parts)]
        best = min(pairs)
        if best >= limit:
            break
        at = pairs.index(best)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts
