"""A vocabulary of bytes, for models that are scripted."""

from __future__ import annotations

from dataclasses import dataclass

TEXT_TOKENS = 256  # one a byte
SPECIAL = [
    "<|endoftext|>",
    "<|startoftranscript|>",
    "<|en|>",
    "<|de|>",
    "<|translate|>",
    "<|transcribe|>",
    "<|startoflm|>",
    "<|startofprev|>",
    "<|nospeech|>",
    "<|notimestamps|>",
]
IDS = {name: TEXT_TOKENS + index for index, name in enumerate(SPECIAL)}
TIMESTAMP_BEGIN = TEXT_TOKENS + len(SPECIAL)


@dataclass
class _Encoding:
    ids: list[int]


class ByteTokenizer:
    """Every byte is a token."""

    def encode(self, text: str, /, *, add_special_tokens: bool) -> _Encoding:
        assert not add_special_tokens
        return _Encoding(list(text.encode()))

    def decode(self, ids: list[int], /) -> str:
        return bytes(ids).decode(errors="replace")

    def token_to_id(self, token: str, /) -> int | None:
        return IDS.get(token)

    def id_to_token(self, number: int, /) -> str | None:
        return None
