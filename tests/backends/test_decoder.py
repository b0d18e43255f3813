"""Which decoder a CPU gets: what was asked for, else the faster one, and none at any price."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.widen import SIZES, widen
from tests.support import AUDIO, clips, words
from wyoming_whisper import autopick
from wyoming_whisper.backends import decoder, open_transcriber
from wyoming_whisper.backends.decoder import (
    CTRANSLATE2,
    ONNXRUNTIME,
    Arithmetic,
    OnnxDecoding,
    choose_decoder,
)
from wyoming_whisper.backends.faster_whisper import CTranslate2Inference
from wyoming_whisper.backends.pipeline import load_tokenizer
from wyoming_whisper.client import read_audio
from wyoming_whisper.errors import SettingsError
from wyoming_whisper.models import BUNDLED_FOLDER
from wyoming_whisper.settings import Settings
from wyoming_whisper.transcriber import TranscribeOptions
from wyoming_whisper.whisper.decoding import ScoringInference

INT8 = Arithmetic("cpu", "int8_float32", 1, 1)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return home-en in the shape of tiny, whose decoder is worth a thought."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    widen(BUNDLED_FOLDER, SIZES["tiny"], folder)
    return folder


@pytest.fixture(scope="module")
def theirs(tiny: Path) -> CTranslate2Inference:
    import ctranslate2

    return CTranslate2Inference(ctranslate2.models.Whisper(str(tiny), compute_type="int8_float32"))


Choose = Callable[..., tuple[ScoringInference, list[str]]]


@pytest.fixture
def choose(tiny: Path, theirs: CTranslate2Inference, tmp_path: Path) -> Choose:
    """Choose where CTranslate2 takes a second, onnxruntime `seconds`; return what was measured."""

    def chosen(
        wanted: str = "auto", seconds: float = 0.5, how: Arithmetic = INT8, path: Path = tiny
    ) -> tuple[ScoringInference, list[str]]:
        measured = []

        def measure(inference: ScoringInference) -> float:
            ours = isinstance(inference, OnnxDecoding)
            measured.append(ONNXRUNTIME if ours else CTRANSLATE2)
            return seconds if ours else 1.0

        settings = Settings(decoder=wanted, data_dir=(tmp_path,))
        tokenizer = load_tokenizer(path, multilingual=True)
        return choose_decoder(settings, path, theirs, tokenizer, how, measure), measured

    return chosen


def test_the_faster_one_is_taken_and_remembered(choose: Choose) -> None:
    found, measured = choose(seconds=0.5)
    assert isinstance(found, OnnxDecoding)
    assert measured == [CTRANSLATE2, ONNXRUNTIME]
    found, measured = choose(seconds=0.5)
    assert isinstance(found, OnnxDecoding)
    assert not measured


def test_a_small_gain_is_not_worth_the_memory(
    choose: Choose, theirs: CTranslate2Inference, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    found, measured = choose(seconds=0.85)
    assert found is theirs
    assert len(measured) == 2
    assert "decoder: ctranslate2, measured once" in caplog.text
    assert choose(seconds=0.85) == (theirs, [])


def test_what_was_asked_for_is_not_measured(choose: Choose, theirs: CTranslate2Inference) -> None:
    assert choose("ctranslate2") == (theirs, [])
    found, measured = choose("onnxruntime", seconds=9.0)
    assert isinstance(found, OnnxDecoding)
    assert not measured


@pytest.mark.parametrize(
    "how", [Arithmetic("cuda", "int8_float16", 1, 1), Arithmetic("cpu", "float32", 1, 1)]
)
def test_elsewhere_nothing_is_to_choose(
    how: Arithmetic, choose: Choose, theirs: CTranslate2Inference
) -> None:
    assert choose(how=how) == (theirs, [])
    with pytest.raises(SettingsError, match=f"in int8 on a CPU, not in {how.compute_type} on"):
        choose("onnxruntime", how=how)


def test_a_small_model_is_not_measured(choose: Choose, theirs: CTranslate2Inference) -> None:
    assert choose(path=BUNDLED_FOLDER) == (theirs, [])


def test_there_must_be_memory_for_it(
    choose: Choose,
    theirs: CTranslate2Inference,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(autopick, "ram_bytes", lambda: (10**9, 50 * 10**6))
    assert choose() == (theirs, [])
    assert "no memory for another" in caplog.text


def test_without_onnx_it_is_ctranslate2(
    choose: Choose,
    theirs: CTranslate2Inference,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.delitem(sys.modules, "wyoming_whisper.engine.quantized", raising=False)
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.delitem(sys.modules, "wyoming_whisper.engine.graphs", raising=False)
    found, _ = choose()
    assert found is theirs
    assert "the decoder stays with CTranslate2" in caplog.text
    with pytest.raises(SettingsError, match="--decoder onnxruntime is not possible here"):
        choose("onnxruntime")


def test_when_memory_ends_it_is_ctranslate2(
    choose: Choose, theirs: CTranslate2Inference, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError("no more")

    monkeypatch.setattr(decoder, "SessionInference", fail)
    assert choose()[0] is theirs


@pytest.mark.parametrize("beam_size", [1, 5])
def test_commands_are_understood_and_names_are_corrected(
    beam_size: int, tiny: Path, tmp_path: Path
) -> None:
    """The whole pipeline: a language detected, texts scored, at any temperature."""
    settings = Settings(
        model=str(tiny), decoder="onnxruntime", beam_size=beam_size, data_dir=(tmp_path,)
    )
    transcriber = open_transcriber(settings)
    assert "decoder on onnxruntime" in transcriber.description
    right = 0
    heard = clips("clean")[:4]
    for clip in heard:
        answer = transcriber.transcribe(read_audio(AUDIO / clip.file), TranscribeOptions())
        assert answer.language == "en"
        right += words(answer.text) == words(clip.text)
    assert right >= len(heard) - 1
    transcriber.close()
