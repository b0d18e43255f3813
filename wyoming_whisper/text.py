"""What is made of a text after Whisper wrote it: fit for an intent matcher, or withheld.

Knows neither models nor audio. What is dropped is dropped on evidence, never for its words alone.
"""

# ruff: noqa: RUF001  (letters and marks of all scripts)

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .transcriber import Transcription

if TYPE_CHECKING:
    from .settings import Settings


@dataclass(frozen=True)
class TextStyle:
    """How texts are given to the client."""

    strip_punctuation: bool = True
    lowercase: bool = False
    language: str | None = None
    """What texts are in, if not in the language spoken: translations are in English."""


def text_style(settings: Settings) -> TextStyle:
    """Return what the user wants of texts."""
    return TextStyle(
        strip_punctuation=settings.strip_punctuation,
        lowercase=settings.lowercase,
        language="en" if settings.whisper_task == "translate" else None,
    )


def finished(
    transcription: Transcription, voiced_seconds: float, style: TextStyle
) -> Transcription:
    """Return the answer for the client; `voiced_seconds` is how much of the audio was speech."""
    why = made_up(transcription, voiced_seconds)
    if why:
        return replace(transcription, text="", rejected=why)
    language = style.language or transcription.language
    return replace(transcription, text=tidy(transcription.text, style, language))


# -- style ---------------------------------------------------------------------------------

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
    """Return the text as `style` wants it, with single spaces; `language` is Whisper's code."""
    if style.strip_punctuation:
        text = without_punctuation(text)
    if style.lowercase:
        text = lowercase(text, language)
    return " ".join(text.split())


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


# -- what Whisper makes up -----------------------------------------------------------------

# Whisper learned from subtitles, and so hears their credits and the ends of videos in noise. The
# phrases are those that its users collected: https://github.com/openai/whisper/discussions/928 and
# lists made of it, /discussions/679, and https://github.com/Vexa-ai/vexa/issues/617.

CREDITS: Mapping[str, tuple[str, ...]] = {
    "any": ("Amara.org", "www.mooji.org", "DimaTorzok", "SousTitreur.com"),
    "cs": ("Titulky vytvořil JohnyX",),
    "da": ("Danske tekster af", "Undertekster af Nicolai Winther", "Scandinavian Text Service"),
    "de": (
        "Untertitel im Auftrag des ZDF",
        "Untertitelung im Auftrag des ZDF",
        "Untertitelung des ZDF",
        "Untertitel von Stephanie Geiges",
        "Copyright WDR",
    ),
    "el": ("Υπότιτλοι AUTHORWAVE",),
    "en": ("Transcription by CastingWords", "Subtitles by SteamTeamExtra"),
    "fr": ("Sous-titrage ST' 501", "Sous-titrage Société Radio-Canada"),
    "it": ("Sottotitoli e revisione a cura di", "Sottotitoli a cura di QTSS"),
    "no": ("Teksting av Nicolai Winther",),
    "ru": ("Редактор субтитров",),
    "sv": ("Textning Stina Hedin", "Textat av Karin Schill"),
    "tr": ("Altyazı M.K.",),
    "zh": (
        "请不吝点赞 订阅 转发 打赏支持明镜与点点栏目",
        "請不吝點贊 訂閱 轉發 打賞支持明鏡與點點欄目",
        "字幕志愿者",
    ),
}
"""What is in texts that nobody says to a house, by their language."""

FAREWELLS: Mapping[str, tuple[str, ...]] = {
    "de": ("Vielen Dank.", "Vielen Dank fürs Zuschauen!", "Bis zum nächsten Mal."),
    "en": (
        "Thank you.",
        "Thank you very much.",
        "Thank you for watching!",
        "Thanks for watching!",
        "Please subscribe.",
        "See you next time.",
        "See you in the next video.",
        "Bye.",
        "Bye bye.",
        "You",
    ),
    "es": ("Gracias.", "¡Gracias por ver el video!", "¡Suscríbete al canal!"),
    "fr": ("Merci.", "Merci d'avoir regardé cette vidéo !", "Abonnez-vous !"),
    "it": ("Grazie.", "Grazie per la visione!", "Grazie a tutti."),
    "ja": ("ご視聴ありがとうございました", "ありがとうございました", "次の動画でお会いしましょう"),
    "ko": ("시청해주셔서 감사합니다", "감사합니다"),
    "nl": ("Bedankt.", "Bedankt voor het kijken!"),
    "pl": ("Dziękuję.", "Dziękuję za uwagę.", "Dzięki za oglądanie!"),
    "pt": ("Obrigado.", "Obrigado por assistir!", "Inscreva-se no canal!"),
    "ru": ("Спасибо.", "Спасибо за просмотр!", "Продолжение следует..."),
    "tr": ("Teşekkürler.", "İzlediğiniz için teşekkür ederim.", "Abone olmayı unutmayın"),
    "zh": ("谢谢观看", "謝謝觀看", "谢谢大家", "感谢观看"),
}
"""Whole texts that Whisper makes up, and that people say too."""

# What speaks for a text that was made up. They are careful guesses: no stock model was at hand to
# measure them with. Whisper's own thresholds for silence are 0.6 and -1.0, taken together.
DOUBTFUL_NO_SPEECH_PROB = 0.3
DOUBTFUL_AVG_LOGPROB = -0.6
FASTEST_LETTERS_PER_SECOND = 25  # fast speech has 15 to 20

SIGNS_FOR_CREDITS = 1
SIGNS_FOR_FAREWELLS = 2


def made_up(transcription: Transcription, voiced_seconds: float) -> str | None:
    """Return why the text is taken for one that Whisper made up, or None.

    It has to be a known phrase, and the evidence has to agree that it was not said.
    """
    words = _words(transcription.text)
    needed = _signs_needed(words)
    if needed is None:
        return None
    signs = list(_signs(transcription, len(words.replace(" ", "")), voiced_seconds))
    if len(signs) < needed:
        return None
    return f"a phrase that Whisper is known to make up, and {', '.join(signs)}"


def _signs_needed(words: str) -> int | None:
    """Return how much has to speak against a text; None where nothing could."""
    if not words:
        return None
    if any(credit in words for credit in _CREDITS):
        return SIGNS_FOR_CREDITS
    return SIGNS_FOR_FAREWELLS if words in _FAREWELLS else None


def _signs(transcription: Transcription, n_letters: int, voiced_seconds: float) -> Iterator[str]:
    if transcription.no_speech_prob > DOUBTFUL_NO_SPEECH_PROB:
        yield f"no_speech_prob is {transcription.no_speech_prob:.2f}"
    if transcription.avg_logprob < DOUBTFUL_AVG_LOGPROB:
        yield f"avg_logprob is {transcription.avg_logprob:.2f}"
    if n_letters > FASTEST_LETTERS_PER_SECOND * voiced_seconds:
        yield f"only {voiced_seconds:.1f} s were speech"


def _words(text: str) -> str:
    """Return what is compared: letters and digits, words parted by one space."""
    return re.sub(r"[\W_]+", " ", text.casefold()).strip()


_CREDITS = tuple(_words(phrase) for phrases in CREDITS.values() for phrase in phrases)
_FAREWELLS = frozenset(_words(phrase) for phrases in FAREWELLS.values() for phrase in phrases)
