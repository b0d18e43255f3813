"""When the frozen tail follows the speech, and that nothing else is understood with it."""

from __future__ import annotations

import dataclasses
import functools
import logging
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.engine import fakes
from tests.support import HOME_EN
from wyoming_whisper.backends import frozen
from wyoming_whisper.backends.engines import Engines
from wyoming_whisper.backends.frozen import CLIPS, feature_change, with_frozen_tail
from wyoming_whisper.backends.onnxruntime import OnnxRuntime
from wyoming_whisper.backends.pipeline import WhisperTranscriber
from wyoming_whisper.backends.tensorrt import Runtime
from wyoming_whisper.commands.client import read_audio
from wyoming_whisper.engine.checkpoint import Checkpoint
from wyoming_whisper.engine.cpu_graphs import write_cpu_graphs
from wyoming_whisper.engine.session import CpuSession
from wyoming_whisper.engine.spec import EngineSpec
from wyoming_whisper.engine.tensorrt.plan import PlanFacts
from wyoming_whisper.engine.tensorrt.session import TensorRTSession
from wyoming_whisper.machine.measured import Measurements
from wyoming_whisper.models.folder import ModelFolder
from wyoming_whisper.settings.options import Settings
from wyoming_whisper.transcriber import TranscribeOptions
from wyoming_whisper.whisper.audio import N_FRAMES, log_mel_spectrogram
from wyoming_whisper.whisper.options import AudioContext, DecodingOptions

ENGLISH = TranscribeOptions(language="en")
WINDOWS = AudioContext.frozen()


@pytest.fixture(scope="module")
def graphs(stock_tiny_en: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("graphs")
    write_cpu_graphs(Checkpoint.read(stock_tiny_en / "model.bin"), folder, "uint8")
    return folder


@pytest.fixture(scope="module")
def home_graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home-graphs")
    write_cpu_graphs(Checkpoint.read(HOME_EN / "model.bin"), folder, "uint8")
    return folder


def opened(model: Path, graphs: Path, data_dir: Path, window: str) -> WhisperTranscriber:
    settings = Settings(
        model=str(model), data_dir=(data_dir,), cpu_threads=1, beam_size=1, audio_context=window
    )
    transcriber = OnnxRuntime(settings, model).engines().open(graphs)
    assert isinstance(transcriber, WhisperTranscriber)
    return transcriber


def encoded_frames(transcriber: WhisperTranscriber, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the list to which each window's length will be added."""
    lengths: list[int] = []
    encode = CpuSession.encode

    def spy(self: CpuSession, mel: Any) -> Any:
        lengths.append(mel.shape[1])
        return encode(self, mel)

    monkeypatch.setattr(CpuSession, "encode", spy)
    return lengths


def bears(session: CpuSession, measurements: Measurements, graphs: str) -> bool:
    """Return whether a session gets the tail."""
    decoding = with_frozen_tail(DecodingOptions(), session, measurements, graphs)
    assert session.has_tail == (decoding.audio_context == WINDOWS)
    return session.has_tail


def words(text: str) -> list[str]:
    return text.lower().strip(". ").split()


@functools.cache
def command() -> Any:
    return read_audio(CLIPS / "switch-on-the-dining-room-printer.wav")


def test_auto_computes_the_speech_alone(
    stock_tiny_en: Path,
    graphs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    with closing(opened(stock_tiny_en, graphs, tmp_path, "auto")) as transcriber:
        lengths = encoded_frames(transcriber, monkeypatch)
        text = transcriber.transcribe(command(), ENGLISH).text
    n_frames = log_mel_spectrogram(command()).shape[1]
    assert lengths[0] == AudioContext.frozen().frames(n_frames) <= n_frames + 101
    assert "the encoder computes the speech alone" in caplog.text
    with closing(opened(stock_tiny_en, graphs, tmp_path, "full")) as transcriber:
        full = transcriber.transcribe(command(), ENGLISH).text
    assert words(full) == words(text) != []


@pytest.mark.parametrize(("window", "first"), [("full", N_FRAMES), ("15", 1500)])
def test_what_the_user_sets_is_computed(
    window: str,
    first: int,
    stock_tiny_en: Path,
    graphs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with closing(opened(stock_tiny_en, graphs, tmp_path, window)) as transcriber:
        lengths = encoded_frames(transcriber, monkeypatch)
        transcriber.transcribe(command(), ENGLISH)
    assert lengths[0] == first
    assert not (tmp_path / Measurements.FILE).exists()


def test_weights_for_short_windows_have_no_tail(
    home_graphs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frozen, "feature_change", pytest.fail)
    with closing(opened(HOME_EN, home_graphs, tmp_path, "auto")) as transcriber:
        assert transcriber.transcribe(command(), ENGLISH).text


def test_each_model_is_tried_once(
    graphs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = CpuSession(graphs, threads=1, has_tail=True)
    measurements = Measurements((tmp_path,))
    assert bears(session, measurements, "cpu-1")
    monkeypatch.setattr(frozen, "feature_change", pytest.fail)
    assert bears(session, measurements, "cpu-1")
    monkeypatch.setattr(frozen, "feature_change", lambda *_: frozen.MOST_CHANGE + 0.01)
    assert not bears(session, measurements, "cpu-2")
    assert not bears(session, Measurements(()), "cpu-3")


def test_a_model_that_leans_on_more_than_silence_has_windows_of_10_seconds(
    stock_tiny_en: Path,
    graphs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(frozen, "feature_change", lambda *_: 0.4)
    with closing(opened(stock_tiny_en, graphs, tmp_path, "auto")) as transcriber:
        lengths = encoded_frames(transcriber, monkeypatch)
        transcriber.transcribe(command(), ENGLISH)
    assert lengths[0] == AudioContext.safe().minimum
    assert "the encoder computes 10 s at least" in caplog.text


def test_a_window_that_is_cut_changes_more_than_one_with_a_tail(graphs: Path) -> None:
    with_tail = feature_change(CpuSession(graphs, threads=1, has_tail=True), WINDOWS)
    cut = feature_change(CpuSession(graphs, threads=1), WINDOWS)
    assert with_tail < frozen.MOST_CHANGE < cut


def test_numbers_that_are_none_bear_nothing_and_are_not_remembered(
    graphs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = CpuSession(graphs, threads=1, has_tail=True)
    nonsense = {"cross_k_0": np.full((1, 1, N_FRAMES // 2, 64), np.nan, np.float32)}
    monkeypatch.setattr(session, "encode", lambda _: nonsense)
    assert not bears(session, Measurements((tmp_path,)), "cpu")
    monkeypatch.undo()
    assert bears(session, Measurements((tmp_path,)), "cpu")


# -- on TensorRT ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def loose(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Home-en as a model that says nothing of its windows."""
    folder = tmp_path_factory.mktemp("loose")
    for file in HOME_EN.iterdir():
        if file.name != ModelFolder.EXTRAS:
            shutil.copy(file, folder)
    return folder


def tensorrt_engine(
    model: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch, window: str = "auto"
) -> tuple[Engines, Path]:
    """Return where the engine of a fake GPU comes from, and its folder."""
    for name, value in fakes.child_environment().items():
        monkeypatch.setenv(name, value)
    fakes.install(monkeypatch)
    settings = Settings(model=str(model), data_dir=(data_dir,), beam_size=1, audio_context=window)
    engines = Runtime.find("auto").engines(settings, model)
    return engines, engines.build(lambda _: None)


def gpu_frames(
    engines: Engines, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> list[tuple[int, bool]]:
    """Return the windows in which the engine hears a command, and whether the tail follows."""
    windows: list[tuple[int, bool]] = []
    encode = TensorRTSession.encode

    def spy(self: TensorRTSession, mel: Any) -> Any:
        windows.append((mel.shape[1], self.has_tail))
        return encode(self, mel)

    with closing(engines.open(folder)) as transcriber:
        monkeypatch.setattr(TensorRTSession, "encode", spy)
        transcriber.transcribe(command(), ENGLISH)
        monkeypatch.setattr(TensorRTSession, "encode", encode)
    return windows


@pytest.mark.parametrize(("change", "expected"), [(0.1, (400, True)), (0.4, (1200, False))])
def test_an_engine_has_it_where_the_model_bears_it(
    change: float,
    expected: tuple[int, bool],
    loose: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(frozen, "feature_change", lambda *_: change)
    engines, folder = tensorrt_engine(loose, tmp_path, monkeypatch)
    assert PlanFacts.read(folder).has_tail
    assert gpu_frames(engines, folder, monkeypatch)[0] == expected
    monkeypatch.setattr(frozen, "feature_change", pytest.fail)  # it is remembered
    assert gpu_frames(engines, folder, monkeypatch)[0] == expected


@pytest.mark.parametrize(("tight", "window"), [(True, "auto"), (False, "full"), (False, "15")])
def test_an_engine_that_is_not_to_have_it_is_another(
    tight: bool, window: str, loose: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frozen, "feature_change", pytest.fail)
    model = HOME_EN if tight else loose
    engines, folder = tensorrt_engine(model, tmp_path, monkeypatch, window)
    assert not PlanFacts.read(folder).has_tail
    assert not any(follows for _, follows in gpu_frames(engines, folder, monkeypatch))
    settings = Settings(model=str(loose), data_dir=(tmp_path,), beam_size=1)
    assert Runtime.find("auto").engines(settings, loose).find() is None


def test_an_engine_is_tried_on_the_gpu(
    loose: Path, home_graphs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines, folder = tensorrt_engine(loose, tmp_path, monkeypatch)
    follows = {follows for _, follows in gpu_frames(engines, folder, monkeypatch)}
    change = Measurements((tmp_path,)).get(f"frozen tail: {folder.name}")
    assert isinstance(change, float)
    windows = dataclasses.replace(WINDOWS, multiple=EngineSpec.FRAMES_MULTIPLE)
    on_cpu = feature_change(CpuSession(home_graphs, threads=1, has_tail=True), windows)
    assert change == pytest.approx(on_cpu, abs=0.01)
    assert follows == {change <= frozen.MOST_CHANGE}
