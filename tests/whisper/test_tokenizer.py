"""Languages and their tags; the tokenizer's order of special tokens."""

from __future__ import annotations

from typing import Any

import pytest
from faster_whisper.tokenizer import _LANGUAGE_CODES

from wyoming_whisper.whisper.tokenizer import LANGUAGES, Tokenizer, language_code


def test_languages_are_faster_whispers() -> None:
    assert set(LANGUAGES) == set(_LANGUAGE_CODES)


@pytest.mark.parametrize(
    ("tag", "code"),
    [
        ("en", "en"),
        ("EN", "en"),
        ("en-US", "en"),
        ("pt-BR", "pt"),
        ("pt_PT", "pt"),
        ("zh-HK", "yue"),
        ("zh-Hant-TW", "zh"),
        ("zh-CN", "zh"),
        ("nb", "no"),
        ("nb-NO", "no"),
        ("nn", "nn"),
        ("iw", "he"),
        ("fil", "tl"),
        ("de-CH", "de"),
        ("sr-Latn", "sr"),
        ("German", "de"),
        ("haitian creole", "ht"),
        ("castilian", "es"),
        ("tlh", None),
        ("", None),
        ("auto", None),
        ("x-y-z", None),
    ],
)
def test_tags_and_names_become_whispers_codes(tag: str, code: str | None) -> None:
    assert language_code(tag) == code


def test_every_code_and_name_is_its_own() -> None:
    for code, name in LANGUAGES.items():
        assert language_code(code) == code
        assert language_code(name) == code


def test_text_tokens_are_spelled_in_bytes() -> None:
    names = ["A", "\u0120b", "\u00e3\u0123", "\u0142", "\u4e00"]  # as byte-level BPE writes them

    class Vocabulary:
        def token_to_id(self, token: str, /) -> int | None:
            return len(names)

        def id_to_token(self, number: int, /) -> str | None:
            return names[number]

        def encode(self, text: str, /, *, add_special_tokens: bool) -> Any:
            raise NotImplementedError

        def decode(self, ids: list[int], /) -> str:
            raise NotImplementedError

    spelled = Tokenizer(Vocabulary(), multilingual=False).spelled()
    assert spelled == [b"A", b" b", b"\xe3\x81", b"\xa0", b""]
