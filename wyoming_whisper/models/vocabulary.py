"""A model folder's vocabulary: read as it is, and made into the tokenizer that some models lack.

The `rhasspy/faster-whisper-*-int8` models, which the official add-on uses by default, come without
`tokenizer.json`; faster-whisper then asks the hub for one at every start. All it says is already
in their vocabulary: Whisper's byte-pair merges were numbered in the order they were learned.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..errors import ModelBrokenError
from .model_json import parse_json, read_json, read_text

_LOGGER = logging.getLogger(__name__)

TOKENIZER = "tokenizer.json"
VOCABULARIES = ("vocabulary.json", "vocabulary.txt")
"""In the order that CTranslate2 looks for them."""


NEEDED = ("<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>")
"""Special tokens that every Whisper has."""
STOCK_SIZES = {51_864, 51_865, 51_866}
"""Tokens of English-only models, of multilingual ones, and of those since large-v3."""

_SPECIAL = re.compile(r"<\|.*\|>")


def vocabulary_file(path: Path) -> Path | None:
    """Return the vocabulary of the model folder `path`, or None."""
    return next((path / name for name in VOCABULARIES if (path / name).is_file()), None)


def read_vocabulary(path: Path) -> list[str]:
    """Return the tokens of the model folder `path`, in the order of their ids.

    Raises ModelBrokenError naming the file that is missing or damaged.
    """
    file = vocabulary_file(path)
    if file is None:
        raise ModelBrokenError(f"{path} has no vocabulary.json or vocabulary.txt")
    text = read_text(file)
    # Not splitlines(): it also splits at characters that are tokens.
    in_json = file.suffix == ".json"
    tokens = parse_json(text, file) if in_json else text.removesuffix("\n").split("\n")
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise ModelBrokenError(f"{file} is damaged: it is not a list of tokens")
    if len(tokens) < 2:
        raise ModelBrokenError(f"{file} is empty or cut off")
    return tokens


def check_vocabulary(path: Path, n_vocab: int | None) -> None:
    """Raise ModelBrokenError unless vocabulary and `tokenizer.json` are those of the weights.

    `n_vocab` is how many tokens the weights in folder `path` have, where that is known. A folder
    that has been put together of two models writes nonsense, or ends the process.
    """
    file = vocabulary_file(path)
    if file is None or file.stat().st_size == 0:
        raise ModelBrokenError(f"{file or path / VOCABULARIES[0]} is missing or empty")
    tokens = read_vocabulary(path)
    if n_vocab is not None and (
        len(tokens) > n_vocab or ({len(tokens), n_vocab} <= STOCK_SIZES and len(tokens) != n_vocab)
    ):
        raise ModelBrokenError(
            f"{file} is of another model: it has {len(tokens)} tokens, the weights have {n_vocab}"
        )
    ids = {token: i for i, token in enumerate(tokens) if token.startswith("<|")}
    missing = [token for token in NEEDED if token not in ids]
    if missing:
        raise ModelBrokenError(f"{file} is cut off, or no Whisper's: it has no {missing[0]}")
    if (path / TOKENIZER).exists():
        advice = f"delete it (it is made again from {file.name}), or copy the model's own there"
        _compare_tokenizer(path / TOKENIZER, ids, advice)


def check_special_tokens(path: Path, generation_config: Mapping[str, Any]) -> None:
    """Do the same in Hugging Face's layout. Raises ModelBrokenError."""
    # The same in generation_config.json.
    generation_keys = ("eos_token_id", "decoder_start_token_id", "no_timestamps_token_id")
    ids = {
        token: generation_config[key]
        for token, key in zip(NEEDED, generation_keys, strict=True)
        if type(generation_config.get(key)) is int
    }
    _compare_tokenizer(path / TOKENIZER, ids, "copy the model's own there")


def _compare_tokenizer(file: Path, ids: Mapping[str, int], advice: str) -> None:
    """Compare the numbers of the special tokens in `file` with `ids`. Raises ModelBrokenError."""
    numbers = _special_numbers(read_json(file))
    for token, number in numbers.items():
        if token in ids and ids[token] != number:
            raise ModelBrokenError(
                f"{file} is the tokenizer of another model: its {token} is number {number}, this "
                f"model's {ids[token]}; {advice}"
            )


def _special_numbers(content: Mapping[str, Any]) -> dict[str, int]:
    """Return token -> number of the special tokens, as far as `content` has the usual form."""
    numbers: dict[str, Any] = {}
    model = content.get("model")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocab, dict):
        numbers |= {token: vocab[token] for token in NEEDED if token in vocab}
    added = content.get("added_tokens")
    for entry in added if isinstance(added, list) else ():
        if isinstance(entry, dict) and _SPECIAL.fullmatch(str(entry.get("content"))):
            numbers[str(entry["content"])] = entry.get("id")
    return {token: number for token, number in numbers.items() if type(number) is int}


def tokenizer_json(path: Path) -> str:
    """Return the text of the model's `tokenizer.json` (for `tokenizers.Tokenizer.from_str`).

    Where the folder has none it is rebuilt from the vocabulary (a second or a few, once) and kept
    in the folder if that can be written. The one of OpenAI's multilingual models is mended.
    Raises ModelBrokenError.
    """
    file = path / TOKENIZER
    if file.is_file():
        return _with_first_merge(read_text(file))
    text = json.dumps(_rebuild(read_vocabulary(path)), ensure_ascii=False)
    _LOGGER.info("%s has no %s: rebuilt from its vocabulary", path, TOKENIZER)
    aside = file.with_name(f".{TOKENIZER}.{os.getpid()}")
    with contextlib.suppress(OSError):  # a read-only folder: rebuilt again next time
        aside.write_text(text, encoding="utf-8")
        aside.replace(file)
    return text


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
    special = {token: i for i, token in enumerate(tokens) if _SPECIAL.fullmatch(token)}
    # A nameless token behind the special ones only tells CTranslate2 that a model is multilingual;
    # as text it would shift their ids, which `tokenizers` counts on from the end of the text.
    last_text = min(special.values(), default=len(tokens))
    vocab = {token: i for i, token in enumerate(tokens[:last_text])}
    byte_level = {"type": "ByteLevel", "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added_token(token, i) for token, i in special.items()],
        "normalizer": None,
        "pre_tokenizer": {**byte_level, "add_prefix_space": False},
        "post_processor": None,
        "decoder": {**byte_level, "add_prefix_space": True},
        "model": {"type": "BPE", "vocab": vocab, "merges": _merges(vocab)},
    }


def _added_token(token: str, token_id: int) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": token_id, "content": token, **flags, "special": True}


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
