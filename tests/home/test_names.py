"""Names of the home: which could be meant, which is, and what is left alone."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import AUDIO, HOME_EN, clips
from tests.whisper.scripted import ByteTokenizer
from wyoming_whisper.backends.faster_whisper import open_faster_whisper
from wyoming_whisper.backends.pipeline import WhisperTranscriber
from wyoming_whisper.commands.client import read_audio
from wyoming_whisper.grammar.service import HomeTexts
from wyoming_whisper.home.index import Candidate, NameIndex, fold
from wyoming_whisper.home.likeness import Likeness, _sound
from wyoming_whisper.home.snapper import Evidence, Snapper
from wyoming_whisper.settings.options import Settings
from wyoming_whisper.transcriber import Abandoned, TranscribeOptions
from wyoming_whisper.whisper.decoding import Decoder
from wyoming_whisper.whisper.inference import GenerateOptions, Hypothesis, Inference
from wyoming_whisper.whisper.options import DecodingOptions
from wyoming_whisper.whisper.tokenizer import Tokenizer

HOME = ("Zorbo Lamp", "Captain Sparkle", "Wendigo", "Kitchen", "The Bat Cave", "Müllers Büro")


def texts(index: NameIndex, *heard: str, language: str = "en") -> list[str]:
    return [candidate.text for candidate in index.candidates(heard, language)]


# -- what could be meant -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("heard", "meant"),
    [
        ("turn on the zorba lamp", "turn on the zorbo lamp"),
        ("start captain spircle", "start captain sparkle"),
        ("stop the wendy go please", "stop the wendigo please"),
        ("lock the bad gave", "lock the bat cave"),
        ("Turn on the Sorbo lamp.", "Turn on the Zorbo Lamp."),
        ("Ist Müllers Pyro offen?", "Ist Müllers Büro offen?"),
    ],
)
def test_a_name_misheard_is_found(heard: str, meant: str) -> None:
    assert meant in texts(NameIndex(HOME), heard)


def test_the_best_comes_first_and_there_are_not_many() -> None:
    index = NameIndex([f"zorbo {letter}amp" for letter in "abcdefghijklmnopqrstuvwxyz"])
    found = index.candidates(["turn on the zorbo lamb"], "en")
    assert len(found) == NameIndex.MAX_CANDIDATES
    assert found[0].similarity == max(candidate.similarity for candidate in found)


def test_what_else_the_model_could_have_written_counts() -> None:
    index = NameIndex(["Pixel"])
    assert "turn on pixel" not in texts(index, "turn on the hallway")
    assert "turn on pixel" in texts(index, "turn on pig sal", "turn on picsel")


@pytest.mark.parametrize(
    "heard",
    [
        "turn on the zorbo lamp",  # it is there
        "turn off the",  # "office" is no better
        "set it to fifty",
        "",
    ],
)
def test_what_was_heard_well_has_no_candidates(heard: str) -> None:
    assert texts(NameIndex(["zorbo lamp", "office", "fifty two"]), heard) == []


def test_a_name_that_was_heard_is_not_replaced_by_another() -> None:
    index = NameIndex(["bedroom", "bathroom"])
    assert texts(index, "turn on the bathroom") == []


def test_words_that_commands_are_made_of_are_protected_in_their_language() -> None:
    index = NameIndex(["Schaltwerk"])
    assert texts(index, "schalten auf", language="de") == []
    assert texts(index, "schalten auf", language="en") != []
    assert "schaltwerk auf" in texts(index, "schaltwerg auf", language="de")


def test_a_name_alone_is_no_command() -> None:
    assert texts(NameIndex(["speaker"]), "sucker") == []
    assert texts(NameIndex(["speaker"]), "start sucker") == ["start speaker"]


def test_long_texts_and_no_names_cost_nothing() -> None:
    assert texts(NameIndex(HOME), "zorba lamp " * 30) == []
    assert texts(NameIndex(()), "zorba lamp") == []


def test_names_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wyoming_whisper.home.index.NameIndex.MAX_NAMES", 3)
    many = [
        "TV",
        "x" * (NameIndex.MAX_NAME_CHARS + 1),
        "  ",
        "Lamp one",
        "lamp  ONE",
        "Lamp two",
        "Nook",
        "?",
    ]
    assert NameIndex([*many, "Over"]).names == ("Lamp one", "Lamp two", "Nook")


def test_scripts_without_letters_of_ours_are_compared_too() -> None:
    assert "打开 客厅大灯" in texts(NameIndex(["客厅大灯"]), "打开 客听大灯", language="zh")


@given(st.lists(st.text(max_size=30), max_size=5), st.text(max_size=60))
def test_no_text_and_no_name_can_break_it(names: list[str], heard: str) -> None:
    for candidate in NameIndex(names).candidates([" ".join(heard.split())], "en"):
        assert candidate.name
        assert 0 <= candidate.start < len(candidate.text.split())


def test_folding_and_sounds() -> None:
    assert fold("  Müller's  Café-Lampe! ") == "mullers cafe lampe"
    assert _sound("wendigo") == _sound("wendy go")
    assert Likeness.of("wendigo", "wendy go") > Likeness.of("wendigo", "kitchen")


# -- which it is ---------------------------------------------------------------------------


def candidate(similarity: float = 0.9, context: float = 0.9) -> Candidate:
    return Candidate("x y", "x", 0, (0, 1), similarity, context)


PLAUSIBLE = Evidence(gap=3.0, rest=-0.03, doubt=-0.9, logprob=-1.0, prior=-3.0)


def test_each_kind_of_evidence_counts() -> None:
    weight = PLAUSIBLE.weigh(candidate())
    assert weight > Snapper.MIN_EVIDENCE
    assert PLAUSIBLE.weigh(candidate(similarity=0.5)) < weight
    assert PLAUSIBLE.weigh(candidate(context=0.3)) < weight
    assert dataclasses.replace(PLAUSIBLE, gap=15.0).weigh(candidate()) < weight
    assert dataclasses.replace(PLAUSIBLE, logprob=-1.5).weigh(candidate()) < weight
    assert dataclasses.replace(PLAUSIBLE, prior=-2.0).weigh(candidate()) < weight


@pytest.mark.parametrize("changes", [{"gap": 30.0}, {"rest": -1.4}, {"doubt": -0.05}])
def test_some_evidence_is_against_it_whatever_else_there_is(changes: dict[str, float]) -> None:
    assert PLAUSIBLE.is_possible
    assert not dataclasses.replace(PLAUSIBLE, **changes).is_possible


@dataclass
class Scripted(Inference):
    """Says how likely it finds words: the log-probability of each of their tokens (bytes)."""

    words: dict[str, float] = field(default_factory=dict)
    others: float = -0.01
    expected: float = -4.0
    """What any word would be without having heard it."""
    asked: list[tuple[Any, int]] = field(default_factory=list)
    """(audio features, number of texts) of each call."""
    n_mels: int = 80
    fails: bool = False

    def score(
        self, audio_features: Any, prompt: Sequence[int], texts: Sequence[Sequence[int]]
    ) -> list[npt.NDArray[np.float32]]:
        if self.fails:
            raise RuntimeError("out of memory")
        self.asked.append((audio_features, len(texts)))
        if audio_features is NOISE:
            return [np.full(len(tokens), self.expected, np.float32) for tokens in texts]
        return [np.array(list(self._logprobs(tokens)), np.float32) for tokens in texts]

    def _logprobs(self, tokens: Sequence[int]) -> Iterator[float]:
        for word in bytes(tokens).decode().split():
            yield from [self.words.get(word, self.others)] * len(f" {word}".encode())

    def encode(self, mel: Any) -> Any:
        return None

    def detect_language(self, audio_features: Any) -> list[tuple[str, float]]:
        return [("en", 1.0)]

    def generate(
        self, audio_features: Any, prompt: Sequence[int], options: GenerateOptions
    ) -> Hypothesis:
        return heard("turn on the zorba lamb", -0.8)


NOISE = object()
"""Audio features of noise."""

TOKENIZER = Tokenizer(ByteTokenizer(), multilingual=True)
SAID, WRITTEN = "turn on the zorbo lamp", "turn on the zorba lamb"


def heard(text: str, avg_logprob: float = -0.3, *others: str) -> Hypothesis:
    tokens = [list(f" {other}".encode()) for other in others]
    return Hypothesis(list(f" {text}".encode()), avg_logprob, 0.0, tuple(tokens))


def snapped(model: Scripted, hypothesis: Hypothesis, *names: str) -> str:
    return TOKENIZER.decode(snapper(model, *names)(None, [1], "en", hypothesis).tokens).strip()


def snapper(model: Scripted, *names: str) -> Snapper:
    return Snapper(model, TOKENIZER, [NameIndex(names or HOME)], lambda: NOISE)


LIKELY = {"zorba": -1.0, "lamb": -1.0, "zorbo": -1.1, "lamp": -1.1}
"""What was written is in doubt, and the name is hardly less likely."""


def test_a_name_that_the_model_finds_likely_too_is_written() -> None:
    assert snapped(Scripted(LIKELY), heard(WRITTEN)) == SAID


def test_a_name_that_does_not_fit_the_audio_is_not() -> None:
    assert snapped(Scripted(LIKELY | {"zorbo": -12.0, "lamp": -12.0}), heard(WRITTEN)) == WRITTEN


def test_a_name_that_the_model_writes_anyway_is_not() -> None:
    """It says nothing that it is likely, when it is as likely in noise."""
    assert snapped(Scripted(LIKELY, expected=-0.2), heard(WRITTEN)) == WRITTEN


@pytest.mark.parametrize(
    ("understood", "expected", "written"),
    [
        (None, -4.0, SAID),
        (False, -4.0, SAID),
        (None, -2.2, SAID),
        (False, -2.2, WRITTEN),  # of what is no sentence of the home most is no command
        (True, -4.0, WRITTEN),
    ],
)
def test_beside_the_homes_sentences_a_name_needs_more(
    understood: bool | None, expected: float, written: str
) -> None:
    hypothesis = dataclasses.replace(heard(WRITTEN), understood=understood)
    assert snapped(Scripted(LIKELY, expected=expected), hypothesis) == written


def test_what_the_model_is_sure_of_stays_and_costs_one_pass() -> None:
    model = Scripted(LIKELY | {"zorba": -0.01, "lamb": -0.01})
    assert snapped(model, heard(WRITTEN)) == WRITTEN
    assert model.asked == [(None, 1)]


def test_each_candidate_costs_two_passes_at_most() -> None:
    model = Scripted(LIKELY)
    names = [f"zorbo {letter}amp" for letter in "abcdefghijklmnopqrstuvwxyz"]
    snapped(model, heard(WRITTEN), *names)
    assert 3 <= sum(count for _, count in model.asked) <= 1 + 2 * NameIndex.MAX_CANDIDATES


def test_comparing_ends_when_nobody_waits_for_it() -> None:
    model = Scripted(LIKELY)
    calls = 0

    def checkpoint() -> None:
        nonlocal calls
        calls += 1
        if calls > 2:
            raise Abandoned

    index = NameIndex([f"zorbo {letter}amp" for letter in "abcdefgh"])
    comparing = Snapper(model, TOKENIZER, [index], lambda: NOISE, checkpoint)
    with pytest.raises(Abandoned):
        comparing(None, [1], "en", heard(WRITTEN))
    assert len(model.asked) == 2


def test_the_confidence_of_a_corrected_text_is_that_of_what_is_not_the_name() -> None:
    model = Scripted(LIKELY)
    found = snapper(model)(None, [1], "en", heard(WRITTEN))
    n_tokens = len(" turn on the")
    assert found.avg_logprob == pytest.approx(model.others * n_tokens / (n_tokens + 1))


def test_a_model_that_fails_at_comparing_loses_nothing(caplog: pytest.LogCaptureFixture) -> None:
    assert snapped(Scripted(fails=True), heard(WRITTEN)) == WRITTEN
    assert "can't compare names: out of memory" in caplog.text
    assert "zorb" not in caplog.text


def test_what_is_spoken_is_logged_for_debugging_only(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert snapped(Scripted(LIKELY), heard(WRITTEN)) == SAID
    assert not caplog.records


@pytest.mark.parametrize("sure", [True, False])
def test_the_quality_gate_asks_for_the_rest_alone(sure: bool) -> None:
    """A name is never likely; a text with one is withheld where the rest is a guess as well."""
    model = Scripted(LIKELY, others=-0.01 if sure else -0.9)
    decoder = Decoder(model, TOKENIZER, ("en",), DecodingOptions(min_avg_logprob=-0.32))
    mel = np.zeros((80, 200), np.float32)
    assert decoder.decode(mel, "en").text == ""
    assert decoder.decode(mel, "en", correct=[snapper(model)]).text == (SAID if sure else "")


def test_long_audio_whose_windows_need_timestamps_is_left_alone() -> None:
    def never(*_: object) -> Hypothesis:
        raise AssertionError("asked")

    decoder = Decoder(Scripted(), TOKENIZER, ("en",), DecodingOptions(temperatures=(0.0,)))
    assert decoder.decode(np.zeros((80, 3200), np.float32), "en", correct=[never]).text


# -- with a real model ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def home_en() -> Iterator[WhisperTranscriber]:
    # In int8 what it makes of a name that it never saw differs from processor to processor.
    settings = Settings(
        model=str(HOME_EN), cpu_threads=1, beam_size=5, data_dir=(), compute_type="float32"
    )
    transcriber = open_faster_whisper(settings, HOME_EN)
    yield transcriber
    transcriber.close()


def transcribe(transcriber: WhisperTranscriber, file: str, *names: str) -> str:
    options = TranscribeOptions("en", home=HomeTexts(NameIndex(names)))
    return transcriber.transcribe(read_audio(AUDIO / file), options).text


NEAR = {
    "light": "lite",
    "lights": "lice",
    "fountain": "mountain",
    "pump": "bump",
    "conservatory": "observatory",
    "driveway": "highway",
    "window": "widow",
    "yard": "guard",
}


def test_names_that_are_nearly_what_was_said_do_not_replace_it(home_en: WhisperTranscriber) -> None:
    """Every clean recording, in a home whose things are called nearly as its words are."""
    names = [*NEAR.values(), *(f"the {a} {b}" for a in NEAR.values() for b in NEAR.values())]
    spoken = [clip for clip in clips("clean") if set(clip.text.split()) & set(NEAR)]
    assert len(spoken) >= 5
    for clip in spoken:
        assert transcribe(home_en, clip.file, *names) == transcribe(home_en, clip.file)


def test_a_name_that_the_model_never_saw_is_put_right(home_en: WhisperTranscriber) -> None:
    """A voice of espeak-ng; the weights are stock base's, and do for a model like this as well."""
    home = (*HOME, "Roborock", "Monstera", "Ceiling Light", "Living Room", "Hedwig")
    assert transcribe(home_en, "name-roborock.flac") == "switch on robot rock"
    assert transcribe(home_en, "name-roborock.flac", *home) == "switch on roborock"
    assert transcribe(home_en, "name-roborock.flac", *HOME) == "switch on robot rock"


def test_comparing_is_one_of_the_stages(home_en: WhisperTranscriber) -> None:
    samples = read_audio(AUDIO / clips("clean")[0].file)
    plain = home_en.transcribe(samples, TranscribeOptions("en"))
    named = home_en.transcribe(samples, TranscribeOptions("en", home=HomeTexts(NameIndex(HOME))))
    asked = home_en.transcribe(
        samples, TranscribeOptions("en", ("Zorbo",), home=HomeTexts(NameIndex(())))
    )
    assert "names" not in plain.stages
    assert "names" in named.stages
    assert "names" in asked.stages
