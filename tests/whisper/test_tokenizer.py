"""Languages and their tags; the tokenizer's order of special tokens."""

from __future__ import annotations

import pytest
from faster_whisper.tokenizer import _LANGUAGE_CODES

from wyoming_whisper.whisper.tokenizer import LANGUAGES, language_code


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
