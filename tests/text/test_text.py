"""What is made of texts: punctuation, case, and what Whisper makes up."""

from __future__ import annotations

# ruff: noqa: RUF001  (letters and marks of all scripts)
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import AUDIO, Client, FakeTranscriber, clips, run_server
from wyoming_whisper.commands.client import read_audio
from wyoming_whisper.settings.options import Settings
from wyoming_whisper.text.evidence import Voicing
from wyoming_whisper.text.style import TextStyle
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


def without_punctuation(text: str) -> str:
    return TextStyle(hass_wording=False).tidy(text)


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
    style = TextStyle(lowercase=True)
    assert style.tidy("Schalte die LAMPE ein") == "schalte die lampe ein"
    assert style.tidy("IŞIK İyi", "tr") == "ışık iyi"
    assert style.tidy("Iffy") == "iffy"


def test_style_is_what_the_user_wants() -> None:
    assert TextStyle().tidy(" “Turn  on.” ", "en") == "Turn on"
    assert TextStyle(strip_punctuation=False).tidy(" “Turn  on.” ", "en") == "“Turn on.”"
    assert TextStyle(lowercase=True).tidy("Turn on.", "en") == "turn on"


def test_a_translation_has_the_letters_of_english() -> None:
    settings = Settings(data_dir=(), lowercase=True, whisper_task="translate")
    answer = TextStyle.from_settings(settings).finished(
        Transcription("I SAID IT.", "tr"), Voicing(1.0, 20)
    )
    assert answer.text == "i said it"
    assert TextStyle.from_settings(Settings(data_dir=())) == TextStyle()


# -- what Whisper makes up -----------------------------------------------------------------


def weighed(
    text: str, heard: float, noise: float, no_speech_prob: float, n_tokens: int
) -> Transcription:
    return Transcription(
        text,
        "en",
        no_speech_prob=no_speech_prob,
        n_tokens=n_tokens,
        heard_logprob=heard,
        noise_logprob=noise,
    )


# As stock base weighed them.
NOISES = {
    "a kitchen": (weighed("Thank you.", -0.92, -3.17, 0.64, 3), Voicing(2.94, 0)),
    "laughter": (weighed("Thank you for watching!", -1.01, -3.2, 0.56, 5), Voicing(2.46, 63)),
    "a baby": (weighed("I don't understand.", -0.67, -2.62, 0.3, 5), Voicing(3.58, 6)),
    "a hum": (weighed("Hmm.", -0.89, -4.81, 0.37, 2), Voicing(0.22, 0)),
    "its prompt": (weighed("Pause the music.", -2.4, -2.1, 0.4, 4), Voicing(1.0, 0)),
}
SPEECH = {
    "thanks": (weighed("Thank you.", -0.25, -3.17, 0.04, 3), Voicing(0.5, 12)),
    "distant": (weighed("Turn the living room lamp off.", -0.45, -3.9, 0.07, 8), Voicing(1.34, 8)),
    "quiet": (weighed("What time is it?", -0.21, -2.5, 0.17, 6), Voicing(0.9, 13)),
    "one word": (weighed("Happy.", -0.81, -7.0, 0.5, 2), Voicing(0.19, 0)),
    "hesitant": (weighed("Can I have a latte?", -0.3, -3.0, 0.05, 6), Voicing(2.6, 70)),
}


@pytest.mark.parametrize("name", NOISES)
def test_what_nobody_said_is_made_up(name: str) -> None:
    transcription, voicing = NOISES[name]
    assert voicing.judged(transcription).text == ""


@pytest.mark.parametrize("name", SPEECH)
def test_what_somebody_said_is_not(name: str) -> None:
    transcription, voicing = SPEECH[name]
    assert voicing.judged(transcription) == transcription


def test_evidence_of_each_kind_counts() -> None:
    said, voicing = weighed("Turn it on.", -0.5, -3.0, 0.3, 5), Voicing(1.0, 10)
    evidence = voicing.evidence(said)
    assert replace(voicing, clear_frames=20).evidence(said) > evidence
    assert voicing.evidence(replace(said, noise_logprob=-4.0)) > evidence
    assert voicing.evidence(replace(said, heard_logprob=-0.3)) > evidence
    assert voicing.evidence(replace(said, no_speech_prob=0.1)) > evidence
    assert replace(voicing, voiced_seconds=4.0).evidence(said) < evidence


def test_a_text_that_was_not_weighed_is_taken_as_it_is() -> None:
    """Such as an upstream's, whose evidence nobody has."""
    unweighed = Transcription("Thanks for watching!", avg_logprob=-3.0, no_speech_prob=1.0)
    assert Voicing(0.0, 0).judged(unweighed) == unweighed
    with pytest.raises(ValueError, match="not weighed"):
        Voicing(0.0, 0).evidence(unweighed)


PHRASE = "Turn on the light. "


@pytest.mark.parametrize(
    ("written", "voiced_seconds", "answered"),
    [
        (PHRASE * 45, 4.0, "Turn on the light"),
        (PHRASE * 6, 5.0, (PHRASE * 6).strip(" .")),
        ("no " * 30, 3.0, ("no " * 30).strip()),
        ("ha " * 200, 3.0, "ha"),
        ("The quick brown fox jumps over the lazy dog and runs into the woods.", 0.2, None),
    ],
    ids=["loop", "said six times", "no no no", "laughter without end", "distant speech"],
)
def test_of_another_server_s_loop_one_phrase_is_left(
    written: str, voiced_seconds: float, answered: str | None
) -> None:
    answer = TextStyle().finished(Transcription(written, "en"), Voicing(voiced_seconds, 20))
    assert answer.text == (written.strip(" .") if answered is None else answered)


def test_nothing_said_is_not_made_up() -> None:
    silence = weighed("", -3.0, -0.1, 1.0, 0)
    assert Voicing(0.0, 0).judged(silence) == silence


def test_a_dropped_text_is_empty_and_its_reason_does_not_quote_it() -> None:
    answer = TextStyle().finished(*NOISES["laughter"])
    assert answer.text == ""
    assert answer.rejected is not None
    assert "watching" not in answer.rejected
    assert "that nobody said it" in answer.rejected


def test_a_text_that_was_withheld_stays_so() -> None:
    withheld = Transcription("", "en", rejected="avg_logprob -0.50 is below -0.32")
    assert TextStyle().finished(withheld, Voicing(0.0, 0)) == withheld


# -- both, in the server -------------------------------------------------------------------


class Writer(FakeTranscriber):
    """Writes the same text every time; of farewells, it is as sure without the audio."""

    text = ""

    def transcribe(self, samples: Samples, options: TranscribeOptions) -> Transcription:
        noise = -1.0 if "watching" in self.text else -4.0
        return weighed(self.text, -0.3, noise, 0.1, len(self.text.split()))


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
