"""What is made of texts: punctuation, case, and phrases that Whisper makes up."""

from __future__ import annotations

# ruff: noqa: RUF001  (letters and marks of all scripts)
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import AUDIO, Client, FakeTranscriber, clips, run_server
from wyoming_whisper.client import read_audio
from wyoming_whisper.settings import Settings
from wyoming_whisper.text import (
    CREDITS,
    FAREWELLS,
    TextStyle,
    finished,
    lowercase,
    made_up,
    text_style,
    tidy,
    without_punctuation,
)
from wyoming_whisper.transcriber import Samples, TranscribeOptions, Transcription

# -- punctuation and case ------------------------------------------------------------------

STRIPPED = {
    "Turn on the kitchen light.": "Turn on the kitchen light",
    "Really!?": "Really",
    "Turn on—": "Turn on",
    "- Turn on the light": "Turn on the light",
    ">> Turn on the light": "Turn on the light",
    '"Turn on the kitchen light."': "Turn on the kitchen light",
    '"Turn on the kitchen light".': "Turn on the kitchen light",
    'Turn on the "kitchen light".': "Turn on the kitchen light",
    "“Turn on the light,” he said.": "Turn on the light, he said",
    "'Turn on the light.'": "Turn on the light",
    "play ‘Yesterday’ now": "play Yesterday now",
    "„Licht an.“": "Licht an",
    "‚Licht an.‘": "Licht an",
    "»Licht an«": "Licht an",
    "« Allume la lampe » !": "Allume la lampe",
    "¿Qué hora es?": "Qué hora es",
    "Hola, ¿qué hora es?": "Hola, qué hora es",
    "¡Enciende la luz!": "Enciende la luz",
    "Τι ώρα είναι;": "Τι ώρα είναι",
    "リビングの電気をつけて。": "リビングの電気をつけて",
    "打开「客厅灯」！": "打开客厅灯",
    "打开，台灯": "打开 台灯",
    "打开,台灯。": "打开 台灯",
    "給料、リビング": "給料 リビング",
    "बत्ती जलाओ।": "बत्ती जलाओ",
    "أطفئ الضوء؟": "أطفئ الضوء",
    "Միացրու լույսը։": "Միացրու լույսը",
    "50%.": "50%",
    "20,5 °C.": "20,5 °C",
    "Set it to 3.5.": "Set it to 3.5",
    "...": "",
    " . ": "",
    "": "",
}

KEPT = [
    "Set it to 3.5",
    "Wake me at 8 p.m.",
    "Turn on the A.C.",
    "Wake me at 8:30",
    "Turn off, kitchen sink",
    "Turn on the light. Then close the blinds",
    "Dr. No",
    "Am 3. Mai",
    "Bob's lamp",
    "l'eau",
    "l’eau",
    "the boys' room",
    "'Til dawn",
    "rock 'n' roll",
    "-5 degrees",
    ".5 degrees",
    "the air-conditioner",
    'the 55" TV',
    'turn on the 55"',
    'צה"ל',
    "C#",
    "50 %",
    "Milch, Eier und 1,5 l Saft",
    "设置1，000元",
]


@pytest.mark.parametrize(("written", "wanted"), STRIPPED.items())
def test_punctuation_is_stripped(written: str, wanted: str) -> None:
    assert without_punctuation(written) == wanted


@pytest.mark.parametrize("text", KEPT)
def test_what_belongs_to_words_and_numbers_is_kept(text: str) -> None:
    assert without_punctuation(text) == text
    assert without_punctuation(text + "?") == text


@given(st.text())
def test_stripping_twice_is_stripping_once_and_adds_nothing(text: str) -> None:
    once = without_punctuation(text)
    assert without_punctuation(once) == once
    left = iter(text)
    assert all(letter in left for letter in once.replace(" ", ""))


@given(st.lists(st.text("abcäöüßéñçžабв日本語", min_size=1), min_size=1))
def test_words_are_never_touched(words: list[str]) -> None:
    assert without_punctuation(" ".join(words)) == " ".join(words)


def test_small_letters_are_those_of_the_language() -> None:
    assert lowercase("Schalte die LAMPE ein") == "schalte die lampe ein"
    assert lowercase("IŞIK İyi", "tr") == "ışık iyi"
    assert lowercase("Iffy") == "iffy"


def test_style_is_what_the_user_wants() -> None:
    assert tidy(" “Turn  on.” ", TextStyle(), "en") == "Turn on"
    assert tidy(" “Turn  on.” ", TextStyle(strip_punctuation=False), "en") == "“Turn on.”"
    assert tidy("Turn on.", TextStyle(lowercase=True), "en") == "turn on"


def test_a_translation_has_the_letters_of_english() -> None:
    settings = Settings(data_dir=(), lowercase=True, whisper_task="translate")
    answer = finished(Transcription("I SAID IT.", "tr"), 1.0, text_style(settings))
    assert answer.text == "i said it"
    assert text_style(Settings(data_dir=())) == TextStyle()


# -- what Whisper makes up -----------------------------------------------------------------


def transcription(
    text: str, *, avg_logprob: float = -0.1, no_speech_prob: float = 0.0
) -> Transcription:
    return Transcription(text, "en", avg_logprob=avg_logprob, no_speech_prob=no_speech_prob)


CREDIT_TEXTS = [
    "Untertitel der Amara.org-Community",
    "Untertitelung im Auftrag des ZDF für funk, 2017",
    "Sous-titres réalisés para la communauté d'Amara.org",
    "Sous-titrage ST' 501",
    "Subtítulos realizados por la comunidad de Amara.org",
    "中文字幕由Amara.org社区提供",
    "Субтитры создавал DimaTorzok",
    "Danske tekster af Jesper Buhl Scandinavian Text Service 2018",
]


@pytest.mark.parametrize("text", CREDIT_TEXTS)
def test_credits_are_dropped_on_one_sign(text: str) -> None:
    assert made_up(transcription(text), voiced_seconds=5.0) is None
    assert made_up(transcription(text, no_speech_prob=0.4), voiced_seconds=5.0)
    assert made_up(transcription(text, avg_logprob=-0.7), voiced_seconds=5.0)
    assert made_up(transcription(text), voiced_seconds=0.2)


@pytest.mark.parametrize(
    "text", ["Thank you.", "Thanks for watching!", "you", " Merci. ", "ありがとうございました。"]
)
def test_what_people_say_too_is_dropped_on_two_signs(text: str) -> None:
    assert made_up(transcription(text), voiced_seconds=5.0) is None
    assert made_up(transcription(text, no_speech_prob=0.9), voiced_seconds=5.0) is None
    assert made_up(transcription(text, avg_logprob=-0.9), voiced_seconds=5.0) is None
    assert made_up(transcription(text, avg_logprob=-0.9, no_speech_prob=0.9), voiced_seconds=5.0)
    assert made_up(transcription(text, no_speech_prob=0.9), voiced_seconds=0.1)


@pytest.mark.parametrize("text", ["Turn on the light.", "Thank you for the light", "you too", ""])
def test_no_other_text_is_ever_dropped(text: str) -> None:
    worst = transcription(text, avg_logprob=-3.0, no_speech_prob=1.0)
    assert made_up(worst, voiced_seconds=0.0) is None


@pytest.mark.parametrize("table", [CREDITS, FAREWELLS], ids=["credits", "farewells"])
def test_every_phrase_of_the_tables_is_recognised(table: dict[str, tuple[str, ...]]) -> None:
    for phrase in (phrase for phrases in table.values() for phrase in phrases):
        worst = transcription(phrase, avg_logprob=-3.0, no_speech_prob=1.0)
        assert made_up(worst, voiced_seconds=0.0), phrase


def test_a_dropped_text_is_empty_and_its_reason_does_not_quote_it() -> None:
    said = transcription("Thanks for watching!", avg_logprob=-0.9, no_speech_prob=0.9)
    answer = finished(said, 0.1, TextStyle())
    assert answer.text == ""
    assert answer.rejected is not None
    assert "watching" not in answer.rejected
    assert "no_speech_prob is 0.90, avg_logprob is -0.90, only 0.1 s were speech" in answer.rejected


def test_a_text_that_was_withheld_stays_so() -> None:
    withheld = Transcription("", "en", rejected="avg_logprob -0.50 is below -0.32")
    assert finished(withheld, 0.0, TextStyle()) == withheld


# -- both, in the server -------------------------------------------------------------------


class Writer(FakeTranscriber):
    """Writes the same text every time, without being sure of it."""

    text = ""

    def transcribe(self, samples: Samples, options: TranscribeOptions) -> Transcription:
        return Transcription(self.text, "en", avg_logprob=-0.9, no_speech_prob=0.9)


@pytest.mark.parametrize(
    ("written", "strip", "answered"),
    [
        ("“Turn on the light.”", True, "Turn on the light"),
        ("“Turn on the light.”", False, "“Turn on the light.”"),
        ("Thanks for watching!", False, ""),
    ],
)
async def test_the_client_gets_the_finished_text(
    written: str, strip: bool, answered: str, tmp_path: Path
) -> None:
    writer = Writer()
    writer.text = written
    samples = read_audio(str(AUDIO / clips("clean")[0].file))
    async with (
        run_server(tmp_path, lambda _: writer, strip_punctuation=strip),
        Client(tmp_path) as client,
    ):
        await client.speak(samples=samples, language="en")
        assert (await client.transcript()).text == answered
