"""What is made of a text after Whisper wrote it: fit for an intent matcher, or withheld.

Knows neither models nor audio. What is dropped is dropped on evidence, never for its words alone.
"""

# ruff: noqa: RUF001  (letters and marks of all scripts)

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..transcriber import Segment, Transcription
from .evidence import Voicing, is_loop, made_up
from .repetition import said_once
from .replacements import NO_REPLACEMENTS, Replacer
from .wording import is_filler, reworded

if TYPE_CHECKING:
    from ..settings.options import Settings


@dataclass(frozen=True)
class TextStyle:
    """How texts are given to the client."""

    strip_punctuation: bool = True
    hass_wording: bool = True
    lowercase: bool = False
    replacer: Replacer = NO_REPLACEMENTS
    names: tuple[str, ...] = ()
    """The home's: what one of them begins with is no filler."""

    language: str | None = None
    """What texts are in, if not in the language spoken: translations are in English."""

    @property
    def verbatim(self) -> TextStyle:
        """For those who want what was said rather than a command; replacements stay."""
        return TextStyle(strip_punctuation=False, hass_wording=False, replacer=self.replacer)


def text_style(settings: Settings) -> TextStyle:
    """Return what the user wants of texts."""
    return TextStyle(
        strip_punctuation=settings.strip_punctuation,
        hass_wording=settings.hass_wording,
        lowercase=settings.lowercase,
        replacer=Replacer(settings.replace),
        names=settings.names,
        language="en" if settings.whisper_task == "translate" else None,
    )


def finished(transcription: Transcription, voicing: Voicing, style: TextStyle) -> Transcription:
    """Return the answer for the client."""
    return styled(judged(transcription, voicing), style)


def judged(transcription: Transcription, voicing: Voicing) -> Transcription:
    """Return what of it was said, as it was written; `voicing` is that of just its audio."""
    why = made_up(transcription, voicing)
    if why:
        return replace(transcription, text="", rejected=why)
    if transcription.noise_logprob is None and is_loop(transcription.text, voicing):
        return replace(transcription, text=said_once(transcription.text))
    return transcription


def styled(transcription: Transcription, style: TextStyle) -> Transcription:
    """Return what was said as the client is to have it."""
    if transcription.rejected and not transcription.text:
        return transcription
    return replace(
        transcription,
        text=tidy(transcription.text, style, style.language or transcription.language),
        segments=tuple(_replaced(segment, style) for segment in transcription.segments),
    )


def _replaced(segment: Segment, style: TextStyle) -> Segment:
    blank = segment.text[: -len(segment.text.lstrip()) or None]
    return replace(segment, text=blank + style.replacer(segment.text.lstrip()))


def is_begun(text: str, style: TextStyle, language: str | None = None) -> bool:
    """Whether a text that may go on has more than fillers, without which the whole may begin."""
    return not (text and style.hass_wording and is_filler(text, style.language or language))


# What ends sentences and their parts in the scripts that Whisper writes, and dashes, which stand
# where somebody broke off. Not the hyphen and the apostrophe, which are letters of words.
MARKS = ".,;:!?…‥;·。．、，！？；：｡､؟،؛۔।॥։።፣፤፥፧၊။។៕—–―"
_OPENING = "¿¡"
QUOTES = "“”„‟«»‹›「」『』〝〞〟"  # letters of no word

# Scripts without blanks: a comma between words keeps a sentence from matching, a blank doesn't.
_CJK = r"\u3040-\u30ff\u3400-\u9fff"
_COMMA = re.compile(rf"(?<!\d)[，、､]|[，、､](?!\d)|(?<=[{_CJK}]),(?=[{_CJK}])")
_INITIALS = re.compile(r"(?:(?<!\w)[^\W\d_]\.){2,}\Z")  # "8 p.m.", "A.C."
_QUOTED = re.compile(r'(?<!\w)"([^"]*)"(?!\w)')
_SINGLE_QUOTED = re.compile(r"(?<!\w)[‘‚]([^‘’‚]+)[’‘](?!\w)")
_SINGLE_QUOTES = re.compile(r"\A(?:'(.*)'|‘(.*)’)\Z")
_START = re.compile(rf'\A(?:[{re.escape(_OPENING)}"]|[{re.escape(MARKS)}](?!\d)|[->]+\s)+\s*')


def tidy(text: str, style: TextStyle, language: str | None = None) -> str:
    """Return the text as `style` wants it, with single spaces; `language` is Whisper's code.

    Replacements are made last: in the text as it would be sent, and what they write stays.
    """
    if style.strip_punctuation:
        text = without_punctuation(text)
    if style.hass_wording:
        text = reworded(text, language, style.names)
    if style.lowercase:
        text = lowercase(text, language)
    return " ".join(style.replacer(text).split())


def without_punctuation(text: str) -> str:
    """Return the text without marks at its ends, quotation marks, and inverted ¿ and ¡.

    Marks within stay: they part numbers ("3.5"), words ("Dr. No") and sentences. Only where words
    are written without blanks, commas become some.
    """
    text = _COMMA.sub(" ", text)
    text = _SINGLE_QUOTED.sub(r"\1", _QUOTED.sub(r"\1", text))
    text = text.translate(dict.fromkeys(map(ord, QUOTES + _OPENING)))
    before = ""
    while text != before:  # marks may stand inside quotes, or around them
        before = text
        text = _without_end(_START.sub("", text.strip()))
        found = _SINGLE_QUOTES.match(text)
        if found:
            text = found[1] or found[2] or ""
    return " ".join(text.split())


def _without_end(text: str) -> str:
    """Return the text without its last mark, if it is one."""
    text = text.rstrip()
    if text.endswith('"') and not text[:-1][-1:].isdigit():  # 55" are inches
        return text[:-1]
    if text[-1:] in tuple(MARKS) and not _INITIALS.search(text):
        return text[:-1]
    return text


def lowercase(text: str, language: str | None = None) -> str:
    """Return the text in small letters, as the language has them."""
    if language in ("tr", "az"):
        text = text.replace("I", "ı").replace("İ", "i")
    return text.lower()
