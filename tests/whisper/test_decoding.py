"""The decoding policy against a scripted model: no weights, no runtime, milliseconds."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from tests.whisper.scripted import IDS, TEXT_TOKENS, TIMESTAMP_BEGIN, ByteTokenizer
from wyoming_whisper.text.repetition import compression_ratio, loops
from wyoming_whisper.transcriber import Transcription
from wyoming_whisper.whisper.audio import Array
from wyoming_whisper.whisper.decoding import Decoder
from wyoming_whisper.whisper.inference import GenerateOptions, Hypothesis, Inference
from wyoming_whisper.whisper.options import (
    AudioContext,
    DecodingOptions,
)
from wyoming_whisper.whisper.tokenizer import Tokenizer
from wyoming_whisper.whisper.window import WindowDecoder


def said(text: str, avg_logprob: float = -0.1, no_speech_prob: float = 0.0) -> Hypothesis:
    return Hypothesis(list(text.encode()), avg_logprob, no_speech_prob)


def at(seconds: float) -> int:
    return TIMESTAMP_BEGIN + round(seconds / 0.02)


@dataclass
class ScriptedInference(Inference):
    """Gives its hypotheses one after the other, the last one for ever; remembers what it saw."""

    script: list[Hypothesis]
    languages: list[tuple[str, float]] = field(default_factory=list)
    n_mels: int = 80
    windows: list[Array] = field(default_factory=list)
    prompts: list[list[int]] = field(default_factory=list)
    options: list[GenerateOptions] = field(default_factory=list)
    detections: int = 0

    def encode(self, mel: Array) -> Any:
        self.windows.append(mel)
        return len(self.windows)

    def detect_language(self, audio_features: Any) -> list[tuple[str, float]]:
        assert audio_features == len(self.windows)
        self.detections += 1
        return self.languages

    def generate(
        self, audio_features: Any, prompt: Sequence[int], options: GenerateOptions
    ) -> Hypothesis:
        assert audio_features == len(self.windows)
        self.prompts.append(list(prompt))
        self.options.append(options)
        return self.script[min(len(self.prompts), len(self.script)) - 1]

    def score(self, audio_features: Any, prompt: Any, texts: Any) -> list[Array]:
        raise AssertionError("a decoder doesn't ask for likelihoods")


def mel_of(seconds: float) -> Array:
    frames = round(seconds * 100)
    return np.linspace(0, 1, 80 * frames, dtype=np.float32).reshape(80, frames)


def decoder(
    inference: ScriptedInference,
    *,
    multilingual: bool = True,
    languages: Sequence[str] = ("en", "de"),
    **options: Any,
) -> Decoder:
    tokenizer = Tokenizer(ByteTokenizer(), multilingual=multilingual)
    return Decoder(inference, tokenizer, languages, DecodingOptions(**options))


def test_text_is_stripped_and_has_single_spaces() -> None:
    result = decoder(ScriptedInference([said("  turn  on\nthe lamp ")])).decode(mel_of(2), "en")
    assert result.text == "turn on the lamp"
    assert result.avg_logprob == pytest.approx(-0.1)


def test_no_frames_are_no_text_and_no_work() -> None:
    inference = ScriptedInference([said("no")])
    assert decoder(inference).decode(mel_of(0), "en").text == ""
    assert not inference.windows


def test_short_audio_is_decoded_without_timestamps() -> None:
    inference = ScriptedInference([said("a")])
    decoder(inference).decode(mel_of(30), "de")
    names = ["<|startoftranscript|>", "<|de|>", "<|transcribe|>", "<|notimestamps|>"]
    assert inference.prompts == [[IDS[name] for name in names]]


def test_the_task_is_part_of_the_prompt() -> None:
    inference = ScriptedInference([said("a")])
    decoder(inference, task="translate").decode(mel_of(1), "de")
    assert inference.prompts[0][2] == IDS["<|translate|>"]


def test_english_models_get_neither_language_nor_task() -> None:
    inference = ScriptedInference([said("a")])
    result = decoder(inference, multilingual=False, languages=["en"]).decode(mel_of(1))
    assert inference.prompts == [[IDS["<|startoftranscript|>"], IDS["<|notimestamps|>"]]]
    assert (result.language, inference.detections) == ("en", 0)


def test_previous_text_stands_before_the_start_of_the_transcript() -> None:
    inference = ScriptedInference([said("a")])
    decoder(inference).decode(mel_of(1), "en", " Brimlow ")
    expected = [IDS["<|startofprev|>"], *b" Brimlow", IDS["<|startoftranscript|>"]]
    assert inference.prompts[0][: len(expected)] == expected


def test_of_a_long_previous_text_the_end_is_kept() -> None:
    inference = ScriptedInference([said("a")])
    decoder(inference).decode(mel_of(1), "en", "x" * 1000 + "end")
    start = inference.prompts[0].index(IDS["<|startoftranscript|>"])
    assert start == 224
    assert bytes(inference.prompts[0][start - 3 : start]) == b"end"


def test_the_language_is_detected_from_the_encoding_that_is_decoded() -> None:
    inference = ScriptedInference([said("a")], [("fr", 0.6), ("de", 0.3), ("en", 0.1)])
    result = decoder(inference).decode(mel_of(1))
    assert result.language == "de"  # French is none of this model's
    assert result.language_probability == pytest.approx(0.75)
    assert (len(inference.windows), inference.detections) == (1, 1)


def test_a_prior_decides_where_the_model_is_unsure() -> None:
    def detected(**prior: float) -> tuple[str | None, float]:
        inference = ScriptedInference([said("a")], [("fr", 0.6), ("de", 0.22), ("en", 0.18)])
        result = decoder(inference).decode(mel_of(1), language_prior=prior)
        return result.language, round(result.language_probability, 6)

    assert detected() == ("de", 0.55)
    assert detected(en=1.2) == ("de", 0.55)
    assert detected(en=2.0, fr=9.0) == ("en", 0.45)  # the model's own share


def test_a_given_language_is_not_detected() -> None:
    inference = ScriptedInference([said("a")])
    assert decoder(inference).decode(mel_of(1), "en").language == "en"
    assert inference.detections == 0


@pytest.mark.parametrize(
    ("context", "seconds", "n_frames"),
    [
        (AudioContext(), 2, 3000),
        (AudioContext(), 30, 3000),
        (AudioContext.trained(), 2.01, 202),
        (AudioContext.trained(), 0.3, 100),
        (AudioContext.trained(), 8, 800),
        (AudioContext.safe(), 2, 1024),
        (AudioContext.safe(), 10, 1256),
        (AudioContext.safe(), 28, 3000),
        (AudioContext(1500, 256), 2, 1500),
        (AudioContext(100, multiple=200), 1, 200),
        (AudioContext(100, multiple=200), 2.01, 400),
        (AudioContext(100, multiple=200), 29.9, 3000),
    ],
)
def test_the_window_is_30_seconds_or_fits_the_speech(
    context: AudioContext, seconds: float, n_frames: int
) -> None:
    inference = ScriptedInference([said("a")])
    mel = mel_of(seconds)
    decoder(inference, audio_context=context).decode(mel, "en")
    (window,) = inference.windows
    assert window.shape == (80, n_frames)
    assert np.array_equal(window[:, : mel.shape[1]], mel)
    assert np.all(window[:, mel.shape[1] :] <= mel.min())


@pytest.mark.parametrize(
    "doubtful",
    [
        said("guess", -1.5),
        said("on and " * 30, -0.1),
        said("la la la la la la", -0.1),
        said("x" * 200, -0.1),
        said("Turn it off. Turn it off.", -0.1),
        said("Book a room Book a room book a room", -0.1),
        said("打开客厅灯。打开客厅灯", -0.1),
    ],
    ids=["unlikely", "repetitive", "short loop", "no end", "twice", "three times", "no blanks"],
)
def test_a_doubtful_text_is_heard_again_in_the_full_window(doubtful: Hypothesis) -> None:
    inference = ScriptedInference([doubtful, said("good", -0.5)])
    assert (
        decoder(inference, audio_context=AudioContext.safe()).decode(mel_of(2), "en").text == "good"
    )
    assert [window.shape[1] for window in inference.windows] == [1024, 3000]
    assert np.array_equal(inference.windows[1][:, :200], mel_of(2))
    assert [o.temperature for o in inference.options] == [0.0, 0.0]


def test_what_was_said_twice_stays() -> None:
    inference = ScriptedInference(
        [said("Stop it! Stop it!", -0.1), said("Stop it, stop it.", -0.1)]
    )
    result = decoder(inference, audio_context=AudioContext.safe()).decode(mel_of(2), "en")
    assert result.text == "Stop it, stop it."
    assert len(inference.options) == 2


@pytest.mark.parametrize(
    "text", ["Turn it off.", "no, no", "bye bye", "Turn it on, turn it off", "20 20"]
)
def test_no_phrase_written_over_again(text: str) -> None:
    inference = ScriptedInference([said(text, -0.1)])
    result = decoder(inference, audio_context=AudioContext.safe()).decode(mel_of(2), "en")
    assert (result.text, len(inference.windows)) == (text, 1)


def test_the_full_window_is_tried_once_and_then_temperatures() -> None:
    inference = ScriptedInference([said("a", -1.5), said("b", -1.4), said("c", -0.5)])
    assert decoder(inference, audio_context=AudioContext.safe()).decode(mel_of(2), "en").text == "c"
    assert len(inference.windows) == 2
    assert [o.temperature for o in inference.options] == [0.0, 0.0, 0.2]


def test_weights_trained_for_short_windows_are_not_asked_twice() -> None:
    inference = ScriptedInference([said("a", -1.5), said("b", -0.5)])
    assert (
        decoder(inference, audio_context=AudioContext.trained()).decode(mel_of(2), "en").text == "b"
    )
    assert len(inference.windows) == 1


def test_an_unlikely_text_is_tried_again_at_higher_temperatures() -> None:
    inference = ScriptedInference([said("bad", -1.5), said("worse", -2.0), said("good", -0.5)])
    assert decoder(inference).decode(mel_of(1), "en").text == "good"
    assert [o.temperature for o in inference.options] == [0.0, 0.2, 0.4]
    assert [o.beam_size for o in inference.options] == [5, 1, 1]
    assert len(inference.windows) == 1  # every round decodes the same encoding


def test_a_loop_is_tried_again() -> None:
    inference = ScriptedInference([said("on and " * 30, -0.1), said("on and off", -0.5)])
    assert decoder(inference).decode(mel_of(1), "en").text == "on and off"


def test_when_all_fail_the_likeliest_that_is_no_loop_is_taken() -> None:
    script = [said("la " * 50, -0.1), said("b", -1.4), said("a", -1.2), said("c", -1.9)]
    result = decoder(ScriptedInference(script)).decode(mel_of(1), "en")
    assert result.text == "a"


PHRASE = "Turn on the light. "


def test_a_loop_at_every_temperature_is_said_once() -> None:
    inference = ScriptedInference([said(PHRASE * 3, -0.3)])
    result = decoder(inference, compression_ratio_threshold=1.5).decode(mel_of(2), "en")
    assert result.text == PHRASE.strip()
    assert len(inference.options) == len(DecodingOptions().temperatures)


def test_a_text_without_end_is_said_once() -> None:
    budget = 52
    inference = ScriptedInference([Hypothesis(list((PHRASE * 9).encode())[:budget], -0.2, 0.0)])
    assert decoder(inference).decode(mel_of(1), "en").text == PHRASE.strip()


def test_what_is_too_long_to_have_been_said_is_withheld() -> None:
    endless = bytes(97 + 7 * n % 26 if n % 6 else 32 for n in range(52)).decode()
    result = decoder(ScriptedInference([said(endless, -0.2)])).decode(mel_of(1), "en")
    assert result.text == ""
    assert result.rejected is not None
    assert "no end" in result.rejected
    assert endless[:6] not in result.rejected


def test_a_phrase_that_is_said_in_both_halves_again_is_no_loop() -> None:
    inference = ScriptedInference([said(PHRASE * 8), said(PHRASE * 4), said(PHRASE * 3)])
    result = decoder(inference).decode(mel_of(12), "en")
    assert result.text == (PHRASE * 8).strip()
    assert [o.temperature for o in inference.options] == [0.0, 0.0, 0.0]
    assert [window[0, 0] for window in inference.windows] == [0.0, 0.0, mel_of(12)[0, 400]]


def test_what_is_said_many_times_and_written_once_is_heard_in_parts() -> None:
    inference = ScriptedInference([said(PHRASE), said(PHRASE * 2), said(PHRASE * 3)])
    result = decoder(inference).decode(mel_of(12), "en")
    assert result.text == (PHRASE * 5).strip()


@pytest.mark.parametrize(
    ("seconds", "script"),
    [
        (16, [said("Turn on the light."), said("Turn on"), said("the light.")]),
        (16, [said("Turn on the light."), said("Close the door.")]),
        (16, [said("Turn on the light."), said("Turn on the light.", -1.2)]),
        (16, [said("Thank you.")]),
        (3, [said("Turn on the light.")]),
    ],
)
def test_a_phrase_that_is_said_once_stays(seconds: int, script: list[Hypothesis]) -> None:
    result = decoder(ScriptedInference(script)).decode(mel_of(seconds), "en")
    assert result.text == bytes(script[0].tokens).decode().strip()


def test_of_a_loop_the_parts_say_what_was_said() -> None:
    inference = ScriptedInference([said(PHRASE * 8), said(PHRASE), said("Close the door.")])
    result = decoder(inference).decode(mel_of(12), "en")
    assert result.text == "Turn on the light. Close the door."
    assert result.avg_logprob == pytest.approx(-0.1)


def test_a_part_that_goes_round_is_divided_again() -> None:
    """Its halves are good; and what one window said in parts is not cut by timestamps."""
    script = [said(PHRASE * 8, -1.2), said("la " * 30), said("One."), said("Two."), said("Three.")]
    result = decoder(ScriptedInference(script)).decode(mel_of(12), "en")
    assert result.text == "Two. Three. One."


def test_a_part_that_repeats_what_the_other_says_is_not_divided() -> None:
    script = [said(PHRASE * 8, -1.2), said(PHRASE * 5), said(PHRASE * 3)]
    inference = ScriptedInference(script)
    result = decoder(inference).decode(mel_of(12), "en")
    assert result.text == (PHRASE * 8).strip()
    assert len(inference.options) == len(script)


def test_parts_that_go_round_at_every_temperature_are_said_once() -> None:
    inference = ScriptedInference([said(PHRASE * 8, -1.2)])
    result = decoder(inference).decode(mel_of(3), "en")
    assert result.text == "Turn on the light. Turn on the light."  # once in each


def test_of_a_loop_there_is_one_segment() -> None:
    tokens = [t for n in range(6) for t in (at(n / 4), *PHRASE.encode(), at(n / 4 + 0.2))]
    inference = ScriptedInference([Hypothesis(tokens, -0.3, 0.0)])
    result = decoder(inference, timestamps=True).decode(mel_of(2), "en")
    (segment,) = result.segments
    assert (segment.start, segment.end, segment.text) == (0.0, 1.44, f" {PHRASE.strip()}")
    assert segment.compression_ratio < 2.4
    assert result.text == PHRASE.strip()


def test_segments_of_parts_are_counted_from_the_beginning() -> None:
    loop = Hypothesis([at(0), *(PHRASE * 8).encode(), at(9)], -0.3, 0.0)
    first = Hypothesis([at(0), *b"One.", at(1)], -0.1, 0.0)
    second = Hypothesis([at(0.5), *b"Two.", at(2)], -0.1, 0.0)
    inference = ScriptedInference([loop, first, second])
    result = decoder(inference, timestamps=True).decode(mel_of(12), "en")
    assert [(s.start, s.end, s.text) for s in result.segments] == [
        (0.0, 1.0, "One."),
        (4.5, 6.0, "Two."),
    ]


def weigh(features: Any, prompt: Sequence[int], language: str, text: Hypothesis) -> Hypothesis:
    heard = -0.2 if text.tokens == list(b"one") else -0.8
    return dataclasses.replace(text, heard_logprob=heard, noise_logprob=heard - 2)


def test_texts_of_several_windows_are_weighed_by_their_length() -> None:
    inference = ScriptedInference([said("one"), said("twotwo")])
    result = decoder(inference).decode(mel_of(40), "en", weigh=weigh)
    assert result.heard_logprob == pytest.approx((3 * -0.2 + 6 * -0.8) / 9)
    assert result.noise_logprob == pytest.approx((3 * -0.2 + 6 * -0.8) / 9 - 2)


def test_what_is_withheld_is_no_evidence() -> None:
    inference = ScriptedInference([said("one"), said("twotwo", -0.9)])
    gated = decoder(inference, min_avg_logprob=-0.5)
    result = gated.decode(mel_of(40), "en", weigh=weigh)
    assert result.text == "one"
    assert result.heard_logprob == pytest.approx(-0.2)


@pytest.mark.parametrize(("keeps_features", "n_windows"), [(True, 1), (False, 2)])
def test_features_that_may_be_gone_are_made_again(keeps_features: bool, n_windows: int) -> None:
    """Comparing names encodes noise."""
    inference = ScriptedInference([said("one")])
    tokenizer = Tokenizer(ByteTokenizer(), multilingual=True)
    hearing = Decoder(
        inference, tokenizer, ["en"], DecodingOptions(), keeps_features=keeps_features
    )
    asked: list[Any] = []

    def remember(features: Any, *_: Any) -> Hypothesis:
        asked.append(features)
        return said("one")

    hearing.decode(mel_of(2), "en", correct=[remember], weigh=remember)
    assert asked == [1, n_windows]


def test_scripts_that_are_spelled_have_more_tokens() -> None:
    assert WindowDecoder.token_budget(1.0, "en") == 52
    assert WindowDecoder.token_budget(1.0, "ka") == 72


def test_fallback_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 3))
    monkeypatch.setattr("time.monotonic", lambda: float(next(clock)))
    inference = ScriptedInference([said("bad", -1.5)])
    decoder(inference, fallback_seconds=4.0).decode(mel_of(1), "en")
    assert len(inference.options) == 2


@pytest.mark.parametrize(
    ("avg_logprob", "no_speech_prob", "text"),
    [(-1.5, 0.9, ""), (-0.5, 0.9, "thank you"), (-0.5, 0.1, "thank you")],
)
def test_nothing_said_needs_no_speech_and_an_unlikely_text(
    avg_logprob: float, no_speech_prob: float, text: str
) -> None:
    script = [said("thank you", avg_logprob, no_speech_prob)]
    result = decoder(ScriptedInference(script)).decode(mel_of(1), "en")
    assert result.text == text
    assert result.no_speech_prob == no_speech_prob


def test_the_gate_withholds_a_guess() -> None:
    gated = decoder(ScriptedInference([said("unlock the door", -0.6)]), min_avg_logprob=-0.5)
    result = gated.decode(mel_of(1), "en")
    assert result.text == ""
    assert result.rejected is not None
    assert "-0.60" in result.rejected


def test_the_gate_lets_a_sure_text_pass() -> None:
    gated = decoder(ScriptedInference([said("unlock the door", -0.4)]), min_avg_logprob=-0.5)
    assert gated.decode(mel_of(1), "en").text == "unlock the door"


@pytest.mark.parametrize(("seconds", "tokens"), [(1, 52), (2, 72), (30, 224)])
def test_the_token_budget_follows_the_audio(seconds: float, tokens: int) -> None:
    inference = ScriptedInference([said("a")])
    decoder(inference).decode(mel_of(seconds), "en")
    assert inference.options[0].max_new_tokens == tokens


def test_long_audio_goes_on_where_the_last_whole_segment_ended() -> None:
    first = Hypothesis(
        [at(0), *b" one", at(9), at(9), *b" two", at(20), at(20), *b" thr"], -0.1, 0.0
    )
    second = Hypothesis([at(0), *b" three", at(8), at(8), *b" four", at(15)], -0.3, 0.0)
    inference = ScriptedInference([first, second])
    result = decoder(inference).decode(mel_of(40), "en")
    assert result.text == "one two three four"
    assert np.array_equal(inference.windows[0][:, :10], mel_of(40)[:, :10])
    assert np.array_equal(inference.windows[1][:, :10], mel_of(40)[:, 2000:2010])
    assert inference.prompts[0][-1] == IDS["<|transcribe|>"]  # with timestamps
    assert bytes(t for t in inference.prompts[1] if t < TEXT_TOKENS) == b" one two"


def test_weights_trained_on_commands_hear_long_audio_piece_by_piece_cut_in_pauses() -> None:
    mel = np.ones((80, 4000), np.float32)
    for second in (6, 12, 19, 24, 31, 35):
        mel[:, 100 * second : 100 * second + 30] = 0.0
    inference = ScriptedInference([said("one"), said("two", -2.0, 0.9), said("three")])
    result = decoder(inference, audio_context=AudioContext.trained()).decode(mel, "en")
    assert result.text.startswith("one three")  # the second was silent
    lengths = [window.shape[1] for window in inference.windows]
    assert all(window.shape[1] <= 800 for window in inference.windows)
    assert sum(lengths) == pytest.approx(4000, abs=2 * len(lengths))
    starts = np.cumsum([0, *lengths[:-1]])
    assert all(mel[0, min(start, 3999)] == 0.0 for start in starts[1:])
    assert all(prompt[-1] == IDS["<|notimestamps|>"] for prompt in inference.prompts)
    assert all(IDS["<|startofprev|>"] not in prompt for prompt in inference.prompts)


def test_every_piece_is_given_the_prompt_but_not_the_piece_before() -> None:
    inference = ScriptedInference([said("one")])
    decoder(inference, audio_context=AudioContext.trained()).decode(mel_of(40), "en", "Brimlow")
    start = [IDS["<|startofprev|>"], *b" Brimlow", IDS["<|startoftranscript|>"]]
    assert len(inference.prompts) > 4
    assert all(prompt[: len(start)] == start for prompt in inference.prompts)


def test_a_single_timestamp_at_the_end_means_nothing_follows() -> None:
    first = Hypothesis([at(0), *b" one", at(9), at(9), *b" two", at(20)], -0.1, 0.0)
    inference = ScriptedInference([first, said(" rest")])
    assert decoder(inference).decode(mel_of(40), "en").text == "one two rest"
    assert np.array_equal(inference.windows[1][:, :10], mel_of(40)[:, 3000:3010])


def test_a_timestamp_at_zero_cannot_stop_the_clock() -> None:
    stuck = Hypothesis([at(0), at(0), at(0), *b" x"], -0.1, 0.0)
    inference = ScriptedInference([stuck])
    decoder(inference).decode(mel_of(31), "en")
    assert len(inference.windows) == 31


def heard(result: Transcription) -> list[tuple[float, float, str]]:
    return [
        (round(segment.start, 2), round(segment.end, 2), segment.text)
        for segment in result.segments
    ]


def test_segments_are_when_and_what_was_said_with_the_evidence_of_their_window() -> None:
    tokens = [at(0.5), *b" one", at(1.5), at(2.0), *b" two", at(2.8)]
    inference = ScriptedInference([Hypothesis(tokens, -0.2, 0.1)])
    result = decoder(inference, timestamps=True).decode(mel_of(3), "en")
    assert (result.text, heard(result)) == ("one two", [(0.5, 1.5, " one"), (2.0, 2.8, " two")])
    first = result.segments[0]
    assert first.tokens == (at(0.5), *b" one", at(1.5))
    assert (first.avg_logprob, first.no_speech_prob, first.temperature) == (-0.2, 0.1, 0.0)
    assert first.compression_ratio == pytest.approx(compression_ratio("one two"))
    assert inference.prompts[0][-1] == IDS["<|transcribe|>"]


def test_without_being_asked_for_there_are_no_segments() -> None:
    inference = ScriptedInference([Hypothesis([at(0), *b" one", at(9)], -0.1, 0.0)])
    assert decoder(inference).decode(mel_of(40), "en").segments == ()


def test_segments_of_later_windows_and_pieces_are_counted_from_the_beginning() -> None:
    first = Hypothesis([at(0), *b" one", at(20), at(20), *b" tw"], -0.1, 0.0)
    second = Hypothesis([at(1), *b" two", at(8)], -0.1, 0.0)
    inference = ScriptedInference([first, second])
    result = decoder(inference, timestamps=True).decode(mel_of(40), "en")
    assert heard(result) == [(0, 20, " one"), (21, 28, " two")]

    mel = np.ones((80, 1500), np.float32)
    mel[:, 700:730] = 0.0
    inference = ScriptedInference([Hypothesis([at(0.3), *b" one", at(2)], -0.1, 0.0)])
    result = decoder(inference, timestamps=True, audio_context=AudioContext.trained()).decode(
        mel, "en"
    )
    starts = np.cumsum([0, *(window.shape[1] for window in inference.windows)])[:-1]
    assert len(starts) > 1
    assert [start for start, *_ in heard(result)] == pytest.approx(starts / 100 + 0.3, abs=0.011)


def test_a_segment_ends_no_later_than_its_audio_even_when_it_is_broken_off() -> None:
    for tokens in ([at(0), *b" one", at(9)], [at(0), *b" one"]):
        inference = ScriptedInference([Hypothesis(tokens, -0.1, 0.0)])
        result = decoder(inference, timestamps=True).decode(mel_of(2), "en")
        assert heard(result) == [(0, 2, " one")]


def test_the_silence_after_the_last_segment_is_not_heard_again() -> None:
    tokens = [at(0), *b" one", at(1.7), at(1.7)]
    inference = ScriptedInference([Hypothesis(tokens, -0.1, 0.0), said("made up")])
    assert decoder(inference, timestamps=True).decode(mel_of(2), "en").text == "one"


def test_what_the_gate_withholds_has_no_segments() -> None:
    inference = ScriptedInference([Hypothesis([at(0), *b" one", at(1)], -0.6, 0.0)])
    gated = decoder(inference, timestamps=True, min_avg_logprob=-0.5)
    result = gated.decode(mel_of(2), "en")
    assert (result.text, result.segments) == ("", ())
    assert result.rejected


def test_the_first_temperature_is_the_one_asked_for() -> None:
    inference = ScriptedInference([said("bad", -1.5), said("good")])
    result = decoder(inference, temperatures=(0.7,)).decode(mel_of(1), "en")
    assert result.text == "bad"  # there is no other
    assert [(o.temperature, o.beam_size) for o in inference.options] == [(0.7, 1)]


def test_a_silent_window_is_passed_over() -> None:
    inference = ScriptedInference([said("thanks", -2.0, 0.9), said(" hello", -0.1)])
    assert decoder(inference).decode(mel_of(40), "en").text == "hello"
    assert len(inference.windows) == 2


def test_text_found_at_a_high_temperature_does_not_lead_the_next_window() -> None:
    script = [said("bad", -2.0)] * 3 + [said("wild", -0.5), said(" rest", -0.1)]
    inference = ScriptedInference(script)
    decoder(inference).decode(mel_of(40), "en")
    assert IDS["<|startofprev|>"] not in inference.prompts[-1]


def test_symbols_and_special_tokens_are_never_spoken() -> None:
    suppressed = Tokenizer(ByteTokenizer(), multilingual=True).suppressed_tokens
    assert {ord("("), ord("["), ord("#"), IDS["<|nospeech|>"], IDS["<|translate|>"]} <= set(
        suppressed
    )
    assert not {ord("a"), ord("."), IDS["<|endoftext|>"], TIMESTAMP_BEGIN} & set(suppressed)


def test_a_vocabulary_without_whispers_tokens_is_refused() -> None:
    class Empty(ByteTokenizer):
        def token_to_id(self, token: str, /) -> int | None:
            return None

        def id_to_token(self, number: int, /) -> str | None:
            return None

    with pytest.raises(ValueError, match="endoftext"):
        Tokenizer(Empty(), multilingual=True)


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ([1, 2, 3], False),
        ([7] * 4, False),
        ([9, *[7] * 5], True),
        ([1, 2, 3] * 5, True),
        ([], False),
    ],
)
def test_the_same_tokens_over_and_over_are_a_loop(tokens: list[int], expected: bool) -> None:
    assert loops(tokens) is expected


@pytest.mark.parametrize(("text", "loop"), [("turn on the lamp", False), ("la la la " * 20, True)])
def test_loops_compress_well(text: str, loop: bool) -> None:
    assert (compression_ratio(text) > 2.4) is loop


class Left(BaseException):
    """Nobody waits any more."""


@pytest.mark.parametrize("allowed", range(5))
def test_work_is_broken_off_before_a_window_and_between_attempts(allowed: int) -> None:
    """One window that takes four attempts."""
    calls = []

    def checkpoint() -> None:
        calls.append(1)
        if len(calls) > allowed:
            raise Left

    inference = ScriptedInference([said("a", -2.0), said("b", -2.0), said("c", -2.0), said("d")])
    with pytest.raises(Left):
        decoder(inference).decode(mel_of(1), "en", checkpoint=checkpoint)
    assert len(inference.windows) + len(inference.options) == allowed
