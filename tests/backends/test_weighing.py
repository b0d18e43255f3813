"""What the audio says of a text, with a scripted model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from tests.whisper.scripted import IDS, TIMESTAMP_BEGIN, ByteTokenizer
from wyoming_whisper.backends.weighing import Weighing
from wyoming_whisper.whisper.audio import Array
from wyoming_whisper.whisper.inference import GenerateOptions, Hypothesis, Inference
from wyoming_whisper.whisper.tokenizer import Tokenizer

SOT = [IDS["<|startoftranscript|>"], IDS["<|en|>"], IDS["<|transcribe|>"]]
PLAIN = [*SOT, IDS["<|notimestamps|>"]]
PROMPTED = [IDS["<|startofprev|>"], *b" Turn on the lamp.", *PLAIN]
LAMP = "Turn on the lamp."


@dataclass
class ScriptedScorer(Inference):
    """Says how likely it finds texts by the audio and by noise, and what it hears by itself."""

    heard: dict[str, float]
    noise: dict[str, float]
    alone: Hypothesis
    n_mels: int = 80
    calls: list[str] = field(default_factory=list)
    decoded: list[tuple[list[int], GenerateOptions]] = field(default_factory=list)

    def encode(self, mel: Array) -> Any:
        raise AssertionError("features are kept")

    def detect_language(self, audio_features: Any) -> list[tuple[str, float]]:
        raise AssertionError("the language is known")

    def generate(
        self, audio_features: Any, prompt: Sequence[int], options: GenerateOptions
    ) -> Hypothesis:
        assert audio_features == "audio"
        self.calls.append("decode")
        self.decoded.append((list(prompt), options))
        return self.alone

    def score(
        self, audio_features: Any, prompt: Sequence[int], texts: Sequence[Sequence[int]]
    ) -> list[Array]:
        assert list(prompt) == PLAIN
        self.calls.append(audio_features)
        table = self.heard if audio_features == "audio" else self.noise
        return [
            np.full(len(text), table[bytes(text).decode().strip()], np.float32) for text in texts
        ]


def text(written: str, avg_logprob: float, *around: int) -> Hypothesis:
    return Hypothesis([*around, *written.encode(), *around], avg_logprob, 0.1)


def weighed(
    model: ScriptedScorer, hypothesis: Hypothesis, prompt: Sequence[int] = PROMPTED
) -> Hypothesis:
    tokenizer = Tokenizer(ByteTokenizer(), multilingual=True)
    weighing = Weighing(model, tokenizer, lambda: "noise", beam_size=3)
    return weighing("audio", prompt, "en", hypothesis)


def scorer(
    heard: float, noise: float, alone: str = "Thank you.", other: tuple[float, float] = (-0.5, -3.0)
) -> ScriptedScorer:
    return ScriptedScorer(
        {LAMP: heard, alone: other[0]}, {LAMP: noise, alone: other[1]}, text(alone, other[0])
    )


def test_without_a_prompt_noise_alone_is_asked() -> None:
    model = scorer(0.0, -3.0)
    result = weighed(model, text(LAMP, -0.2), PLAIN)
    assert (result.heard_logprob, result.noise_logprob) == (-0.2, -3.0)
    assert model.calls == ["noise"]


def test_a_text_that_needs_no_prompt_is_not_decoded_again() -> None:
    model = scorer(-0.9, -3.0)
    result = weighed(model, text(LAMP, -0.2))
    assert result.heard_logprob == pytest.approx(-0.9)
    assert result.noise_logprob == pytest.approx(-3.0)
    assert model.calls == ["audio", "noise"]


def test_the_prompt_s_words_that_nobody_said_give_way_to_what_the_audio_says() -> None:
    model = scorer(-4.4, -4.3)
    result = weighed(model, text(LAMP, -0.6))
    assert bytes(result.tokens) == b"Thank you."
    assert (result.avg_logprob, result.heard_logprob, result.noise_logprob) == (-0.5, -0.5, -3.0)
    ((prompt, options),) = model.decoded
    assert prompt == PLAIN
    assert (options.beam_size, options.temperature) == (3, 0.0)


def test_the_audio_is_asked_before_noise_is_encoded() -> None:
    model = scorer(-4.4, -4.3)
    weighed(model, text(LAMP, -0.6))
    assert model.calls == ["audio", "decode", "audio", "noise", "noise"]


def test_the_prompt_s_words_that_the_audio_bears_out_stay() -> None:
    model = scorer(-2.0, -5.0, alone="Tony's lap.")
    result = weighed(model, text(LAMP, -0.1))
    assert bytes(result.tokens) == LAMP.encode()
    assert result.heard_logprob == -0.1
    assert result.noise_logprob == pytest.approx(-3.1)  # the audio's gain is the same


@pytest.mark.parametrize(
    ("alone", "kept"), [("Turn on the lamb?", LAMP), ("What do you want?", "What do you want?")]
)
def test_a_similar_text_without_the_prompt_bears_it_out(alone: str, kept: str) -> None:
    result = weighed(scorer(-2.0, -3.2, alone), text(LAMP, -0.1))
    assert bytes(result.tokens).decode() == kept


@pytest.mark.parametrize("alone", ["", "Thank you. " * 20])
def test_without_another_text_the_prompt_s_has_its_own_evidence(alone: str) -> None:
    others = {"Thank you.": -0.1, alone.strip(): -0.1}
    model = ScriptedScorer({LAMP: -4.4} | others, {LAMP: -4.3} | others, text(alone, -0.1))
    result = weighed(model, text(LAMP, -0.6))
    assert bytes(result.tokens) == LAMP.encode()
    assert result.heard_logprob == pytest.approx(-4.4)
    assert result.noise_logprob == pytest.approx(-4.3)


def test_timestamps_are_no_part_of_the_evidence_but_of_the_text() -> None:
    model = scorer(-4.4, -4.3)
    model.alone = text("Thank you.", -0.5, TIMESTAMP_BEGIN)
    result = weighed(model, text(LAMP, -0.6, TIMESTAMP_BEGIN), [*PROMPTED[:-1]])
    assert result.tokens == [TIMESTAMP_BEGIN, *b"Thank you.", TIMESTAMP_BEGIN]
    assert model.decoded[0][0] == SOT


def test_repeated_and_chained_farewells_have_the_evidence_of_single_ones() -> None:
    farewells = "Thank you. Thank you. Thank you. Bye. Bye."
    heard, noise = {"Thank you. Bye.": -0.9}, {"Thank you. Bye.": -2.4, farewells: -1.8}
    result = weighed(ScriptedScorer(heard, noise, text("", 0.0)), text(farewells, -0.2), PLAIN)
    assert result.heard_logprob == pytest.approx(-0.9)
    assert result.noise_logprob == pytest.approx(-2.4)
    assert bytes(result.tokens).decode() == farewells


def test_repetitions_do_not_make_up_for_what_they_lack_themselves() -> None:
    laughter = "Ha ha ha ha"
    model = ScriptedScorer({"Ha": -0.3}, {"Ha": -4.0, laughter: -1.0}, text("", 0.0))
    result = weighed(model, text(laughter, -0.6), PLAIN)
    assert (result.heard_logprob, result.noise_logprob) == (-0.6, -1.0)


def test_nothing_written_needs_no_evidence() -> None:
    model = scorer(0.0, 0.0)
    assert weighed(model, Hypothesis([], 0.0, 0.9)) == Hypothesis([], 0.0, 0.9)
    assert not model.calls
