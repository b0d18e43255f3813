"""Languages spoken lately: what is remembered, for how long, and how far it goes."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wyoming.audio import AudioStop

from tests.support import Client, FakeTranscriber, loud, quiet
from tests.utterance.test_utterance import say, speaking, started
from wyoming_whisper.transcriber import Samples, TranscribeOptions, Transcription
from wyoming_whisper.utterance.languages import (
    DetectedLanguage,
    SpokenLanguages,
)
from wyoming_whisper.whisper.window import _likeliest_language

SURE = Transcription("schalte das Licht ein", "de", 0.97)


def remembering(n_answers: int, answer: Transcription = SURE) -> SpokenLanguages:
    memory = SpokenLanguages(clock=lambda: 0.0)
    for _ in range(n_answers):
        memory.note(answer)
    return memory


def test_nothing_is_preferred_at_first() -> None:
    assert SpokenLanguages().prior() == {}


def test_what_is_spoken_often_is_likelier_but_never_certain() -> None:
    assert 1 < remembering(1).prior()["de"] < remembering(4).prior()["de"]
    assert remembering(1000).prior()["de"] == SpokenLanguages.MAX_ODDS


@pytest.mark.parametrize(
    "changes",
    [
        {"language_probability": SpokenLanguages.SURE_PROBABILITY - 0.01},
        {"text": ""},
        {"language": None},
    ],
)
def test_what_was_not_surely_heard_is_not_remembered(changes: dict[str, object]) -> None:
    assert remembering(5, dataclasses.replace(SURE, **changes)).prior() == {}  # type: ignore[arg-type]


def test_switched_off_nothing_is_remembered() -> None:
    memory = SpokenLanguages(enabled=False)
    memory.note(SURE)
    assert memory.prior() == {}


def test_another_language_takes_its_place() -> None:
    memory = remembering(50)
    for _ in range(12):
        memory.note(dataclasses.replace(SURE, language="en"))
    assert memory.prior()["en"] > memory.prior()["de"]


def test_time_makes_it_forget() -> None:
    now = 0.0
    memory = SpokenLanguages(clock=lambda: now)
    memory.note(SURE)
    now = SpokenLanguages.HALF_LIFE_SECONDS
    assert memory.prior()["de"] == pytest.approx(1.5)
    now = 1000 * SpokenLanguages.HALF_LIFE_SECONDS
    assert memory.prior()["de"] == pytest.approx(1.0)


def test_a_prior_that_was_taken_stays_what_it_was() -> None:
    memory = remembering(3)
    before = memory.prior()
    taken = dict(before)
    memory.note(SURE)
    assert before == taken


def test_in_doubt_it_is_the_language_of_the_house() -> None:
    unsure = [("nl", 0.5), ("de", 0.4), ("en", 0.1)]
    assert _likeliest_language(unsure, {}) == ("nl", 0.5)
    assert _likeliest_language(unsure, remembering(3).prior()) == ("de", 0.4)


@given(
    st.lists(st.floats(0.001, 1), min_size=2, max_size=5),
    st.lists(st.sampled_from("abcde"), max_size=40),
)
def test_a_clear_detection_always_wins(weights: list[float], spoken: list[str]) -> None:
    memory = SpokenLanguages(clock=lambda: 0.0)
    for code in spoken:
        memory.note(dataclasses.replace(SURE, language=code))
    found = [(code, weight / sum(weights)) for code, weight in zip("abcde", weights, strict=False)]
    best, share = max(found, key=lambda item: item[1])
    chosen, its_share = _likeliest_language(found, memory.prior())
    assert (chosen, its_share) in found
    if share > SpokenLanguages.MAX_ODDS / (1 + SpokenLanguages.MAX_ODDS) + 1e-9:
        assert chosen == best


# -- in the server -------------------------------------------------------------------------


class Detecting(FakeTranscriber):
    """Hears German, surely, wherever it has to detect a language."""

    def transcribe(self, samples: Samples, options: TranscribeOptions) -> Transcription:
        heard = super().transcribe(samples, options)
        if options.language is not None:
            return heard
        return dataclasses.replace(heard, language="de", language_probability=0.97)


@pytest.mark.usefixtures("_hear_loudness", "_without_a_clock")
async def test_an_utterance_keeps_what_was_known_when_it_began(tmp_path: Path) -> None:
    fake = Detecting()
    async with speaking(tmp_path, fake) as client, Client(tmp_path) as other:
        await say(client, loud(0.5), quiet(1.0))  # transcribed early
        await started(fake, 1)
        await other.speak(0.3)
        assert (await other.transcript()).language == "de"
        await say(client, loud(0.5), quiet(1.0))  # that was for nothing: again, and longer
        await client.send(AudioStop().event())
        await client.transcript()
        await client.speak(0.2)
        await client.transcript()
    priors = [options.language_prior for _, options in fake.requests]
    assert len(priors) == 4
    # What was given up has taught nothing; both answers have.
    assert [dict(prior) for prior in priors[:3]] == [{}, {}, {}]
    assert priors[3]["de"] == pytest.approx(2.9, abs=0.01)


@pytest.mark.usefixtures("_hear_loudness", "_without_a_clock")
async def test_a_language_that_was_asked_for_is_not_remembered(tmp_path: Path) -> None:
    fake = Detecting()
    async with speaking(tmp_path, fake) as client:
        for language in ("en", None):
            await client.speak(0.2, language=language)
            await client.transcript()
    assert [dict(options.language_prior) for _, options in fake.requests] == [{}, {}]


@pytest.mark.usefixtures("_hear_loudness", "_without_a_clock")
@pytest.mark.parametrize(("configured", "used"), [("auto", None), ("en", "en")])
async def test_the_clients_language_can_be_ignored(
    tmp_path: Path, configured: str, used: str | None
) -> None:
    fake = Detecting()
    options = {"language": configured, "ignore_client_language": True}
    async with speaking(tmp_path, fake, **options) as client:
        for asked in ("de-DE", "tlh"):
            await client.speak(0.2, language=asked)
            await client.transcript()
    assert [options.language for _, options in fake.requests] == [used, used]


# -- a home --------------------------------------------------------------------------------


def wrong_share(german: float, *, remembers: bool) -> float:
    """Return the share of 1,000 commands that are taken for the other language.

    A home says a command every ten minutes, so many of them in German; the model takes two of ten
    recordings for the other language, in doubt.
    """
    choose, now = random.Random(7), 0.0
    memory = SpokenLanguages(remembers, lambda: now)
    errors = 0
    for _ in range(1000):
        now += 600
        spoken, other = ("de", "en") if choose.random() < german else ("en", "de")
        share = 0.3 / 0.8 if choose.random() < 0.2 else 0.96
        detected = [(spoken, share), (other, 1 - share)]
        code, probability = _likeliest_language(detected, memory.prior())
        memory.note(Transcription("something", code, probability))
        errors += code != spoken
    return errors / 1000


@pytest.mark.parametrize("german", [1.0, 0.5])
def test_without_memory_a_home_is_misunderstood_as_its_recordings_are(german: float) -> None:
    assert wrong_share(german, remembers=False) == pytest.approx(0.2, abs=0.03)


def test_a_home_that_speaks_one_language_is_understood_far_better() -> None:
    assert wrong_share(1.0, remembers=True) < wrong_share(1.0, remembers=False) / 2


def test_the_language_of_long_speech_is_settled_when_it_is_sure_or_much_was_heard() -> None:
    doubtful = (Transcription("Okay.", "pt", 0.5), 1.0)
    unsure = (Transcription("Das ist schon etwas mehr.", "de", 0.6), 5.0)
    assert DetectedLanguage([]).settled is None
    assert DetectedLanguage([doubtful, unsure]).settled is None
    assert DetectedLanguage([doubtful, unsure]).likeliest == "de"
    assert DetectedLanguage([doubtful, unsure, unsure]).settled == "de"
    assert DetectedLanguage([doubtful, (SURE, 2.0)]).settled == "de"
    assert DetectedLanguage([(Transcription("", "fr", 1.0), 20.0)]).settled is None
