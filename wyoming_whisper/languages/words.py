"""What a language's file has, and reading it: once.

`LanguageWords` is what a file has, all of it; docs/languages.md says it to those who speak one.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TypedDict, cast


class _Verbs(TypedDict):
    verbs: list[str]
    particles: list[str]


class _EndingWords(TypedDict):
    """What tells a finished command from the beginning of one (utterance/endpointing.py)."""

    dangling: list[str]
    open_ended: list[str]
    suffixes: list[str]
    lead_ins: list[str]
    verbs_with_particle: list[_Verbs]
    verbs_with_object: list[str]
    verbs_with_free_text: list[str]


class _Forms(TypedDict):
    accepted: list[str]
    variants: list[str]
    write: list[str]


class _Degrees(TypedDict):
    accepted: list[str]
    variants: list[str]
    write: str


class _MeasureWords(TypedDict):
    """How durations, temperatures and shares are said and written (text/wording.py).

    "accepted" is what Home Assistant's templates have; other ways to write it are "variants".
    """

    timer_words: list[str]
    delay_words: list[str]
    name_words: list[str]
    temperature_words: list[str]
    conversion_words: list[str]
    wildcards: list[str]
    wildcards_unless_timer: list[str]
    numbers: dict[str, int]
    number_variants: dict[str, int]
    tens: list[str]
    decimal: str
    point_five: str
    half_before: list[str]
    half_after: list[str]
    fraction_of: list[str]
    accepts_half_before: bool
    accepts_half_after: bool
    units: dict[str, _Forms]
    accepts_hyphen: bool
    lone_units: bool
    minutes_after_hours: dict[str, int]
    joins: list[str]
    elisions: dict[str, str]
    durations: dict[str, int]
    accepted_durations: list[str]
    degrees: _Degrees
    scales: list[str]
    accepts_scales: bool
    kelvin: str
    percent_variants: list[str]
    patterns: list[list[str]]


class LanguageWords(TypedDict):
    about: str
    fillers: list[str]
    command_words: list[str]
    endings: _EndingWords
    measures: _MeasureWords


@cache
def _codes() -> frozenset[str]:
    """Return Whisper's codes of the languages that there is a file of."""
    return frozenset(file.stem for file in Path(__file__).parent.glob("*.json"))


def language_words(language: str | None) -> LanguageWords | None:
    """Return the words of a language, by Whisper's code; None where there is no file of it."""
    return _read(language) if language in _codes() else None


@cache
def _read(language: str) -> LanguageWords:
    text = (Path(__file__).parent / f"{language}.json").read_text(encoding="utf-8")
    return cast("LanguageWords", json.loads(text))
