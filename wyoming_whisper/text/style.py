"""What is made of a text after Whisper wrote it: fit for an intent matcher.

Knows neither models nor audio.
"""

# ruff: noqa: RUF001  (letters and marks of all scripts)

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..transcriber import Segment, Transcription
from .evidence import Voicing
from .replacements import Replacements
from .scripts import MARKS, QUOTES
from .wording import Wording

if TYPE_CHECKING:
    from ..settings.options import Settings


@dataclass(frozen=True)
class TextStyle:
    """How texts are given to the client."""

    strip_punctuation: bool = True
    hass_wording: bool = True
    lowercase: bool = False
    replacements: Replacements = Replacements()  # noqa: RUF009
    names: tuple[str, ...] = ()
    """The home's: what one of them begins with is no filler."""

    language: str | None = None
    """What texts are in, if not in the language spoken: translations are in English."""

    @classmethod
    def from_settings(cls, settings: Settings) -> TextStyle:
        return cls(
            strip_punctuation=settings.strip_punctuation,
            hass_wording=settings.hass_wording,
            lowercase=settings.lowercase,
            replacements=settings.replace,
            names=settings.names,
            language="en" if settings.whisper_task == "translate" else None,
        )

    @property
    def verbatim(self) -> TextStyle:
        """For those who want what was said rather than a command; replacements stay."""
        return TextStyle(
            strip_punctuation=False, hass_wording=False, replacements=self.replacements
        )

    def finished(self, transcription: Transcription, voicing: Voicing) -> Transcription:
        """Return the answer for the client: what was said, in this style."""
        return self.styled(voicing.judged(transcription))

    def styled(self, transcription: Transcription) -> Transcription:
        """Return what was said as the client is to have it."""
        if transcription.rejected and not transcription.text:
            return transcription
        return replace(
            transcription,
            text=self.tidy(transcription.text, transcription.language),
            segments=tuple(map(self._replaced, transcription.segments)),
        )

    def tidy(self, text: str, language: str | None = None) -> str:
        """Return the text in this style, with single spaces; `language` is Whisper's code.

        Replacements are made last: in the text as it would be sent, and what they write stays.
        """
        language = self.language or language
        if self.strip_punctuation:
            text = _Punctuation.stripped(text)
        wording = Wording.of(language) if self.hass_wording else None
        if wording:
            text = wording.reworded(text, self.names)
        if self.lowercase:
            text = _lowercase(text, language)
        return " ".join(self.replacements(text).split())

    def is_begun(self, text: str, language: str | None = None) -> bool:
        """Whether a text that may go on has more than fillers, without which it may begin."""
        wording = Wording.of(self.language or language) if self.hass_wording else None
        return not (text and wording and wording.is_filler(text))

    def _replaced(self, segment: Segment) -> Segment:
        blank = segment.text[: -len(segment.text.lstrip()) or None]
        return replace(segment, text=blank + self.replacements(segment.text.lstrip()))


class _Punctuation:
    """Which marks say nothing to an intent matcher."""

    OPENING = "¿¡"

    # Scripts without blanks: a comma between words keeps a sentence from matching, a blank doesn't.
    CJK = r"\u3040-\u30ff\u3400-\u9fff"
    COMMA = re.compile(rf"(?<!\d)[，、､]|[，、､](?!\d)|(?<=[{CJK}]),(?=[{CJK}])")
    INITIALS = re.compile(r"(?:(?<!\w)[^\W\d_]\.){2,}\Z")  # "8 p.m.", "A.C."
    QUOTED = re.compile(r'(?<!\w)"([^"]*)"(?!\w)')
    SINGLE_QUOTED = re.compile(r"(?<!\w)[‘‚]([^‘’‚]+)[’‘](?!\w)")
    SINGLE_QUOTES = re.compile(r"\A(?:'(.*)'|‘(.*)’)\Z")
    START = re.compile(rf'\A(?:[{re.escape(OPENING)}"]|[{re.escape(MARKS)}](?!\d)|[->]+\s)+\s*')

    @classmethod
    def stripped(cls, text: str) -> str:
        """Return the text without marks at its ends, quotation marks, and inverted ¿ and ¡.

        Marks within stay: they part numbers ("3.5"), words ("Dr. No") and sentences. Only where
        words are written without blanks, commas become some.
        """
        text = cls.COMMA.sub(" ", text)
        text = cls.SINGLE_QUOTED.sub(r"\1", cls.QUOTED.sub(r"\1", text))
        text = text.translate(dict.fromkeys(map(ord, QUOTES + cls.OPENING)))
        before = ""
        while text != before:  # marks may stand inside quotes, or around them
            before = text
            text = cls._without_end(cls.START.sub("", text.strip()))
            quoted = cls.SINGLE_QUOTES.match(text)
            if quoted:
                text = quoted[1] or quoted[2] or ""
        return " ".join(text.split())

    @classmethod
    def _without_end(cls, text: str) -> str:
        """Return the text without its last mark, if it is one."""
        text = text.rstrip()
        if text.endswith('"') and not text[:-1][-1:].isdigit():  # 55" are inches
            return text[:-1]
        if text[-1:] in tuple(MARKS) and not cls.INITIALS.search(text):
            return text[:-1]
        return text


def _lowercase(text: str, language: str | None) -> str:
    """Return the text in small letters, as the language has them."""
    if language in ("tr", "az"):
        text = text.replace("I", "ı").replace("İ", "i")
    return text.lower()
