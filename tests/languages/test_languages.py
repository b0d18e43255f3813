"""The files of words: all of one schema, which docs/languages.md describes."""

from __future__ import annotations

import itertools
import json
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.test_addon import TRANSLATIONS
from wyoming_whisper import languages
from wyoming_whisper.languages.words import LanguageWords, language_words
from wyoming_whisper.text.wording import Wording
from wyoming_whisper.transcriber import Transcription
from wyoming_whisper.utterance import endpointing
from wyoming_whisper.whisper.tokenizer import LANGUAGES

CODES = sorted(path.stem for path in Path(languages.__file__).parent.glob("*.json"))
DOCS = Path(__file__).parents[2] / "docs" / "languages.md"


def words_of(language: str) -> LanguageWords:
    words = language_words(language)
    assert words
    return words


def mistakes(value: object, schema: Any, place: str = "") -> Iterator[str]:
    """Yield where a value is not what a TypedDict, or a type of JSON, says."""
    arguments = typing.get_args(schema)
    if typing.is_typeddict(schema):
        hints = typing.get_type_hints(schema)
        if not isinstance(value, dict) or list(value) != list(hints):
            yield f"{place}: not {list(hints)}"
            return
        for key, hint in hints.items():
            yield from mistakes(value[key], hint, f"{place}.{key}")
    elif typing.get_origin(schema) is list and isinstance(value, list):
        for number, item in enumerate(value):
            yield from mistakes(item, arguments[0], f"{place}[{number}]")
    elif typing.get_origin(schema) is dict and isinstance(value, dict):
        for key, item in value.items():
            yield from mistakes(key, arguments[0], f"{place}.{key}")
            yield from mistakes(item, arguments[1], f"{place}.{key}")
    elif type(value) is not schema:
        yield f"{place}: {value!r} is no {schema}"


def keys(schema: Any) -> set[str]:
    """Return the keys of a TypedDict and of those within it."""
    if not typing.is_typeddict(schema):
        return set[str]().union(*map(keys, typing.get_args(schema)))
    hints = typing.get_type_hints(schema)
    return {*hints}.union(*map(keys, hints.values()))


@pytest.mark.parametrize("language", CODES)
def test_a_file_has_the_schema_with_no_word_twice(language: str) -> None:
    words: Any = words_of(language)
    assert list(mistakes(words, LanguageWords)) == []
    assert list(words["measures"]["units"]) == ["hour", "minute", "second"]
    lists = [words, words["endings"], words["measures"], *words["measures"]["units"].values()]
    for name, values in itertools.chain.from_iterable(map(dict.items, lists)):
        if isinstance(values, list) and all(isinstance(value, str) for value in values):
            assert name == "write" or len(values) == len(set(values)), name


def test_mistakes_are_noticed() -> None:
    words: Any = json.loads(json.dumps(words_of("de")))
    words["fillers"].append(1)
    words["measures"]["numbers"]["elf"] = "11"
    del words["endings"]["suffixes"]
    assert [one.split(":")[0] for one in mistakes(words, LanguageWords)] == [
        f".fillers[{len(words['fillers']) - 1}]",
        ".endings",
        ".measures.numbers.elf",
    ]


def test_every_key_is_described() -> None:
    described = set(re.findall(r"`(\w+)`", DOCS.read_text(encoding="utf-8")))
    assert keys(LanguageWords) <= described


def test_the_addons_languages_have_files_each_with_its_reason() -> None:
    assert set(TRANSLATIONS) <= set(CODES) <= set(LANGUAGES)
    for language in CODES:
        words = words_of(language)
        assert words["about"].startswith("Fillers: "), language
        wording = Wording.of(language)
        assert wording
        assert all(wording.is_filler(one) for one in words["fillers"]), language


def test_a_language_without_a_file_is_left_alone() -> None:
    for language in ("fi", "../de", None):
        assert language_words(language) is None
        assert Wording.of(language) is None


@pytest.mark.parametrize("language", CODES)
def test_the_words_of_endings_are_as_texts_are_compared(language: str) -> None:
    endings = words_of(language)["endings"]
    groups = endings["verbs_with_particle"]
    listed = [
        *(endings["dangling"], endings["open_ended"], endings["lead_ins"]),
        *(endings["verbs_with_object"], endings["verbs_with_free_text"]),
        *itertools.chain.from_iterable((group["verbs"], group["particles"]) for group in groups),
    ]
    for word in set(itertools.chain.from_iterable(listed)):
        assert endpointing._words(f" {word.title()}, ") == [word.casefold()]


@pytest.mark.parametrize("language", CODES)
def test_no_verb_is_listed_twice(language: str) -> None:
    endings = words_of(language)["endings"]
    groups = [group["verbs"] for group in endings["verbs_with_particle"]]
    verbs = list(
        itertools.chain(*groups, endings["verbs_with_object"], endings["verbs_with_free_text"])
    )
    assert len(verbs) == len(set(verbs))


@pytest.mark.parametrize("language", CODES)
def test_a_command_is_not_over_after_its_verb(language: str) -> None:
    endings = words_of(language)["endings"]
    for group in endings["verbs_with_particle"]:
        for verb in group["verbs"]:
            draft = Transcription(f"{verb} {group['particles'][0]}", language, avg_logprob=-0.1)
            assert endpointing._ending(draft) == "dangling"
