"""The bundled model through the backend, beside stock faster-whisper as the oracle."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from tests.support import AUDIO, HOME_EN, Clip, clips, words
from wyoming_whisper.audio.speech import Speech
from wyoming_whisper.audio.vad import SileroVad, SpanOptions
from wyoming_whisper.backends import open_transcriber
from wyoming_whisper.backends.faster_whisper import (
    CTranslate2Inference,
    open_faster_whisper,
)
from wyoming_whisper.backends.pipeline import WhisperTranscriber
from wyoming_whisper.commands.client import read_audio
from wyoming_whisper.errors import ModelBrokenError, NotPossibleError, SettingsError
from wyoming_whisper.models.store import ModelStore
from wyoming_whisper.settings.options import Settings
from wyoming_whisper.transcriber import Samples, TranscribeOptions, Transcriber, Transcription
from wyoming_whisper.whisper.audio import log_mel_spectrogram
from wyoming_whisper.whisper.inference import GenerateOptions, Hypothesis

ENGLISH = TranscribeOptions(language="en")
SPANS = SpanOptions.of(Settings())


def open_bundled(tmp_path: Path, **options: Any) -> Transcriber:
    return open_transcriber(Settings(model=str(HOME_EN), data_dir=(tmp_path,), **options))


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Transcriber:
    return open_bundled(tmp_path_factory.mktemp("data"))


def samples_of(clip: Clip) -> Samples:
    return read_audio(str(AUDIO / clip.file))


def errors(transcriber: Transcriber, spoken: list[Clip], spans: SpanOptions = SPANS) -> float:
    """Return the word error rate over these clips."""
    wrong = total = 0
    vad = SileroVad()
    for clip in spoken:
        text = Speech.whole(samples_of(clip), vad, spans).transcribed(transcriber, ENGLISH).text
        wrong += edits(words(text), words(clip.text))
        total += len(words(clip.text))
    return wrong / total


def edits(left: list[str], right: list[str]) -> int:
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(right, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
    return row[-1]


# Bounds for a handful of clips; the real figures, over hundreds, are in docs/benchmarks.md.
@pytest.mark.parametrize(
    ("kind", "options", "bound"),
    [
        ("clean", {}, 0.15),
        ("clean", {"audio_context": "full"}, 0.25),
        ("clean", {"beam_size": 1}, 0.20),
        ("clean", {"compute_type": "float32"}, 0.15),
        ("clean", {"vad_filter": True}, 0.15),
        ("noisy", {}, 0.80),  # most of it is withheld: it can't be sure of it
    ],
)
def test_held_out_voices_and_sentences_are_understood(
    tmp_path: Path, kind: str, options: dict[str, Any], bound: float
) -> None:
    spans = SpanOptions.of(Settings(data_dir=(tmp_path,), **options))
    assert errors(open_bundled(tmp_path, **options), clips(kind), spans) <= bound


def test_audio_over_30_seconds_is_transcribed_whole(bundled: Transcriber) -> None:
    (clip,) = clips("long")
    samples = samples_of(clip)
    assert len(samples) > 30 * 16000
    text = Speech.whole(samples, SileroVad(), SPANS).transcribed(bundled, ENGLISH).text
    assert edits(words(text), words(clip.text)) <= 0.25 * len(words(clip.text)), text


def test_silence_and_noise_never_reach_the_model(
    bundled: Transcriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the model was asked")

    monkeypatch.setattr(CTranslate2Inference, "encode", refuse)
    vad = SileroVad()
    silent = [samples_of(clip) for clip in clips("silence", "noise")]
    for samples in [np.zeros(0, np.float32), np.zeros(80_000, np.float32), *silent]:
        answer = Speech.whole(samples, vad, SPANS).transcribed(bundled, ENGLISH)
        assert answer == Transcription("", "en", seconds=len(samples) / 16000)


def test_the_language_is_told_when_it_was_detected(bundled: Transcriber) -> None:
    transcription = bundled.transcribe(samples_of(clips("clean")[0]), TranscribeOptions())
    assert (transcription.language, transcription.language_probability) == ("en", 1.0)


def test_a_language_that_the_model_lacks_is_refused_with_what_it_has(
    bundled: Transcriber,
) -> None:
    with pytest.raises(NotPossibleError, match=r"german.*understands en"):
        bundled.transcribe(np.zeros(16000, np.float32), TranscribeOptions(language="de"))


def test_stages_and_evidence_are_told(bundled: Transcriber) -> None:
    clip = clips("clean")[0]
    transcription = bundled.transcribe(samples_of(clip), ENGLISH)
    assert set(transcription.stages) == {"mel", "encode", "decode", "evidence"}
    assert all(seconds > 0 for seconds in transcription.stages.values())
    assert -2 < transcription.avg_logprob < 0
    assert 0 <= transcription.no_speech_prob < 0.5
    assert transcription.n_tokens > 2
    assert transcription.heard_logprob == transcription.avg_logprob
    assert transcription.noise_logprob is not None
    assert transcription.noise_logprob < transcription.avg_logprob - 1
    assert transcription.seconds == len(samples_of(clip)) / 16000


def test_the_first_command_encodes_its_own_audio_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    transcriber = open_faster_whisper(Settings(model=str(HOME_EN), data_dir=()), HOME_EN)
    encoded: list[int] = []
    encode = CTranslate2Inference.encode

    def counted(self: CTranslate2Inference, mel: Any) -> Any:
        encoded.append(mel.shape[1])
        return encode(self, mel)

    monkeypatch.setattr(CTranslate2Inference, "encode", counted)
    said = transcriber.transcribe(samples_of(clips("clean")[0]), ENGLISH)
    transcriber.close()
    assert said.noise_logprob is not None
    assert len(encoded) == 1


def test_a_prompt_is_no_evidence(bundled: Transcriber) -> None:
    """It makes its own words likely: the audio is asked without it."""
    samples = samples_of(clips("clean")[0])
    plain = bundled.transcribe(samples, ENGLISH)
    prompted = bundled.transcribe(samples, dataclasses.replace(ENGLISH, prompt="the kitchen lamp"))
    assert prompted.text == plain.text
    assert prompted.heard_logprob is not None
    assert plain.heard_logprob is not None
    assert prompted.heard_logprob != prompted.avg_logprob
    assert prompted.heard_logprob == pytest.approx(plain.heard_logprob, abs=0.2)
    assert prompted.noise_logprob == pytest.approx(plain.noise_logprob, abs=0.1)


def test_what_runs_is_described(bundled: Transcriber) -> None:
    assert bundled.description.startswith("home-en on CPU (")
    assert "int8" in bundled.description
    assert "threads" in bundled.description


def test_names_in_the_request_reach_the_prompt(
    bundled: Transcriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts: list[list[int]] = []
    generate = CTranslate2Inference.generate

    def spy(self: CTranslate2Inference, features: Any, prompt: Any, options: Any) -> Any:
        prompts.append(list(prompt))
        return generate(self, features, prompt, options)

    monkeypatch.setattr(CTranslate2Inference, "generate", spy)
    samples = samples_of(clips("clean")[0])
    bundled.transcribe(samples, ENGLISH)
    bundled.transcribe(samples, TranscribeOptions("en", ("Brimlow", "Tessaly")))
    assert len(prompts[-1]) > len(prompts[0])
    assert prompts[-1][-len(prompts[0]) :] == prompts[0]


def test_the_same_tokens_as_stock_faster_whisper_from_the_same_window() -> None:
    """Greedy and beam 5, with the window, prompt and filters of WhisperModel."""
    from faster_whisper import WhisperModel

    stock = WhisperModel(str(HOME_EN), device="cpu", compute_type="int8")
    ours = CTranslate2Inference(stock.model)
    for clip in clips("clean"):
        samples = samples_of(clip)
        for beam in (1, 5):
            segments, _ = stock.transcribe(
                samples,
                "en",
                beam_size=beam,
                temperature=0.0,
                without_timestamps=True,
                no_speech_threshold=None,  # what to withhold is not asked here
            )
            expected = [token for segment in segments for token in segment.tokens]
            mel = stock.feature_extractor(samples)[:, :-1].astype(np.float32)
            mel = np.pad(mel, ((0, 0), (0, 3000 - mel.shape[1])))  # 0.0, as it does
            options = GenerateOptions(beam, 0.0, 5, 224, _suppressed(stock))
            prompt = _prompt(stock)
            assert ours.generate(ours.encode(mel), prompt, options).tokens == expected


def _prompt(stock: Any) -> list[int]:
    names = ("startoftranscript", "en", "transcribe", "notimestamps")
    return [stock.hf_tokenizer.token_to_id(f"<|{name}|>") for name in names]


def _suppressed(stock: Any) -> list[int]:
    from faster_whisper.tokenizer import Tokenizer
    from faster_whisper.transcribe import get_suppressed_tokens

    tokenizer = Tokenizer(stock.hf_tokenizer, True, task="transcribe", language="en")
    return list(get_suppressed_tokens(tokenizer, [-1]))


def test_the_token_budget_is_what_was_asked_for() -> None:
    """CTranslate2 halves its max_length; a budget must not shrink with it."""
    import ctranslate2

    model = ctranslate2.models.Whisper(str(HOME_EN), compute_type="int8")
    inference = CTranslate2Inference(model)
    features = inference.encode(log_mel_spectrogram(samples_of(clips("clean")[2])))
    eot = json.loads((HOME_EN / "vocabulary.json").read_text()).index("<|endoftext|>")
    for budget in (5, 20, 60):
        endless = GenerateOptions(1, 0.0, 1, budget, [eot])
        prompt = [eot + 1, eot + 2, eot + 4, eot + 8]
        assert len(inference.generate(features, prompt, endless).tokens) == budget


def test_a_repaired_tokenizer_reads_the_same(tmp_path: Path, bundled: Transcriber) -> None:
    folder = copied(tmp_path)
    (folder / "tokenizer.json").unlink()
    repaired = open_transcriber(Settings(model=str(folder), data_dir=(tmp_path,)))
    for clip in clips("clean")[:4]:
        expected = bundled.transcribe(samples_of(clip), ENGLISH).text
        assert repaired.transcribe(samples_of(clip), ENGLISH).text == expected


def copied(tmp_path: Path) -> Path:
    folder = tmp_path / "copy"
    shutil.copytree(HOME_EN, folder)
    return folder


@pytest.mark.parametrize("damage", ["cut", "no config", "other tokens", "no model"])
def test_a_damaged_model_is_named(tmp_path: Path, damage: str) -> None:
    folder = copied(tmp_path)
    if damage == "cut":
        data = (folder / "model.bin").read_bytes()
        (folder / "model.bin").write_bytes(data[: len(data) // 2])
    elif damage == "no config":
        (folder / "config.json").unlink()
    elif damage == "other tokens":
        (folder / "tokenizer.json").write_text('{"model": {"type": "BPE"}}')
    else:
        (folder / "model.bin").unlink()
    with pytest.raises(ModelBrokenError, match=str(folder)):
        open_transcriber(Settings(model=str(folder), data_dir=(tmp_path,)))


@pytest.mark.parametrize(("wanted", "device"), [("cpu", "cpu"), ("auto", "cpu")])
def test_without_a_gpu_the_cpu_is_used(
    wanted: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ctranslate2.get_cuda_device_count", lambda: 0)
    assert CTranslate2Inference.choose_device(wanted) == (device, 0)


@pytest.mark.parametrize(("wanted", "index"), [("auto", 0), ("cuda", 0), ("cuda:1", 1)])
def test_gpus_are_used_when_they_are_there(
    wanted: str, index: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ctranslate2.get_cuda_device_count", lambda: 2)
    assert CTranslate2Inference.choose_device(wanted) == ("cuda", index)


def test_a_gpu_that_is_not_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctranslate2.get_cuda_device_count", lambda: 1)
    with pytest.raises(SettingsError, match=r"cuda:1.*1 CUDA device"):
        CTranslate2Inference.choose_device("cuda:1")


@pytest.mark.parametrize(
    ("supported", "device", "chosen"),
    [
        ({"int8", "int8_float32", "float32"}, "cpu", "int8_float32"),
        ({"float32"}, "cpu", "float32"),
        ({"float16", "float32"}, "cuda", "float16"),
        ({"float32"}, "cuda", "float32"),
    ],
)
def test_the_default_arithmetic_is_the_fastest_that_keeps_the_words(
    supported: set[str], device: str, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ctranslate2.get_supported_compute_types", lambda _: supported)
    assert CTranslate2Inference.choose_compute_type("default", device) == chosen


@pytest.mark.parametrize(
    ("machine", "wanted", "beam"),
    [("x86_64", 0, 5), ("aarch64", 0, 1), ("armv7l", 0, 1), ("aarch64", 3, 3), ("x86_64", 1, 1)],
)
def test_the_beam_suits_the_processor_unless_it_was_chosen(
    machine: str, wanted: int, beam: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert WhisperTranscriber.choose_beam_size(wanted) == beam


def test_close_frees_the_model(tmp_path: Path) -> None:
    transcriber = open_bundled(tmp_path)
    transcriber.close()
    with pytest.raises(AttributeError):
        transcriber.transcribe(samples_of(clips("clean")[0]), ENGLISH)


def test_settings_are_not_changed_by_opening(tmp_path: Path) -> None:
    settings = Settings(model=str(HOME_EN), data_dir=(tmp_path,))
    before = dataclasses.asdict(settings)
    open_transcriber(settings)
    assert dataclasses.asdict(settings) == before


def test_a_model_that_only_looks_right_is_compared_with_its_hashes_and_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = copied(tmp_path)
    (folder / "tokenizer.json").write_text('{"model": {"type": "BPE"}}')
    asked: list[bool] = []

    def ensure(_: ModelStore, name: str, *, verify: bool = False, **__: object) -> Path:
        assert name == "tiny"
        asked.append(verify)
        return HOME_EN if verify else folder

    monkeypatch.setattr(ModelStore, "ensure", ensure)
    transcriber = open_transcriber(Settings(model="tiny", data_dir=(tmp_path,)))
    assert transcriber.transcribe(np.zeros(16000, np.float32), ENGLISH).text == ""
    assert asked == [False, True]
    assert str(folder) in caplog.text


def test_nothing_said_is_no_number_out_of_order() -> None:
    """CTranslate2 divides an empty text's score by its length."""

    class Silent:
        n_mels = 80

        def generate(self, *_: Any, **__: Any) -> list[Any]:
            class Result:
                sequences_ids: ClassVar[list[list[int]]] = [[]]
                scores: ClassVar[list[float]] = [-np.inf]
                no_speech_prob = 0.3

            return [Result()]

    options = GenerateOptions(1, 0.0, 5, 10, ())
    assert CTranslate2Inference(Silent()).generate(None, [1], options) == Hypothesis([], 0.0, 0.3)


def test_a_text_is_scored_once_for_an_audio() -> None:
    """Who compares a text with the home, and who weighs it, ask the same of speech and noise."""
    asked: list[tuple[str, list[int]]] = []

    class Features:
        def __init__(self, name: str) -> None:
            self.name = name

    class Aligner:
        n_mels = 80

        def align(self, features: Features, _: Any, texts: list[list[int]], __: int) -> list[Any]:
            asked.append((features.name, texts[0]))

            class Words:
                text_token_probs = np.full(len(texts[0]), 0.5 if texts[0] == [7] else 0.0)

            return [Words()]

    inference = CTranslate2Inference(Aligner())
    speech, noise = Features("speech"), Features("noise")
    for features in (speech, noise, speech, noise):
        scores = inference.score(features, [1, 2], [[7], [8, 9]])
        assert [one.tolist() for one in scores] == [
            pytest.approx([np.log(0.5)]),
            pytest.approx([np.log(CTranslate2Inference.TINY)] * 2),
        ]
    first = [(name, text) for name in ("speech", "noise") for text in ([7], [8, 9])]
    assert asked == first
    inference.score(speech, [1], [[7]])  # another prompt
    inference.score(Features("more"), [1, 2], [[7]])
    inference.score(noise, [1, 2], [[7]])  # gone by now: speech and noise take turns
    assert asked[4:] == [("speech", [7]), ("more", [7]), ("noise", [7])]
