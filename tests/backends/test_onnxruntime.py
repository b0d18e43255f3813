"""The onnxruntime backend: the bundled model's graphs for CPUs, and when they answer."""

from __future__ import annotations

import functools
import importlib.util
import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.backends.test_engines import until
from tests.support import AUDIO, HOME_EN, TIMEOUT_SECONDS, FakeTranscriber, clips, on_state
from wyoming_whisper import backends
from wyoming_whisper.backends import onnxruntime, open_transcriber
from wyoming_whisper.backends.engines import Engines, EngineTranscriber
from wyoming_whisper.backends.faster_whisper import open_faster_whisper
from wyoming_whisper.backends.onnxruntime import OnnxRuntime
from wyoming_whisper.backends.pipeline import WhisperTranscriber
from wyoming_whisper.commands.client import read_audio
from wyoming_whisper.engine.checkpoint import Checkpoint, Dims
from wyoming_whisper.engine.progress import BuildProgress
from wyoming_whisper.engine.session import CpuSession
from wyoming_whisper.engine.spec import ONNXRUNTIME, CpuSpec
from wyoming_whisper.engine.tensorrt.cuda import Gpu
from wyoming_whisper.errors import NotPossibleError, SettingsError
from wyoming_whisper.grammar.service import HomeTexts
from wyoming_whisper.home.index import NameIndex
from wyoming_whisper.machine.host import HOST, Host
from wyoming_whisper.machine.measured import Measurements
from wyoming_whisper.models.folder import ModelFolder
from wyoming_whisper.settings.options import Settings
from wyoming_whisper.status import State, Status
from wyoming_whisper.transcriber import Samples, TranscribeOptions, Transcriber, Transcription
from wyoming_whisper.whisper.inference import Hypothesis
from wyoming_whisper.whisper.search import SessionInference

ENGLISH = TranscribeOptions(language="en")


def settings(tmp_path: Path, **values: Any) -> Settings:
    chosen = {"backend": ONNXRUNTIME, "cpu_threads": 1, **values}
    return Settings(model=str(HOME_EN), data_dir=(tmp_path,), language="en", **chosen)


def open_with_graphs(tmp_path: Path, **values: Any) -> tuple[Transcriber, Status]:
    status = Status()
    transcriber = open_transcriber(settings(tmp_path, **values), status)
    until(lambda: status.state.backend == ONNXRUNTIME)
    return transcriber, status


@functools.cache
def spoken() -> list[Samples]:
    return [read_audio(str(AUDIO / clip.file)) for clip in clips("clean")]


def heard(transcriber: Transcriber) -> list[Transcription]:
    return [transcriber.transcribe(samples, ENGLISH) for samples in spoken()]


def texts(transcriber: Transcriber) -> list[str]:
    return [found.text for found in heard(transcriber)]


def expected(tmp_path: Path, **values: Any) -> list[str]:
    """Return what faster-whisper writes."""
    transcriber = open_faster_whisper(settings(tmp_path, **values), HOME_EN)
    found = texts(transcriber)
    transcriber.close()
    assert any(found)
    return found


def refuse(*_: object) -> WhisperTranscriber:
    raise AssertionError("CTranslate2's model was loaded")


# -- asked for -----------------------------------------------------------------------------


def test_faster_whisper_answers_while_a_child_makes_the_graphs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "wyoming_whisper.engine.cpu_graphs", raising=False)
    may_build = threading.Event()
    build = Engines.build

    def held(self: Engines, on_progress: Callable[[BuildProgress], None]) -> Path:
        assert may_build.wait(TIMEOUT_SECONDS)
        return build(self, on_progress)

    monkeypatch.setattr(Engines, "build", held)
    status = Status()
    seen: list[State] = []
    on_state(status, seen.append)
    transcriber = open_transcriber(settings(tmp_path), status)
    assert status.state.backend == STAND_IN
    assert "(onnxruntime)" not in status.state.description
    before = texts(transcriber)
    may_build.set()
    until(lambda: status.state.backend == ONNXRUNTIME and not status.state.building)
    state = status.state
    assert state.description == transcriber.description
    assert state.description.startswith("home-en on CPU (")
    assert state.description.endswith("(onnxruntime)")
    assert (state.why, state.building) == ("it was asked for", "")
    assert "building the engine: graphs" in {state.building for state in seen}
    assert "wyoming_whisper.engine.cpu_graphs" not in sys.modules
    after = texts(transcriber)
    transcriber.close()
    # Both compute in int8, but not in the same order: what is a close call may fall otherwise.
    assert sum(a == b for a, b in zip(before, after, strict=True)) >= len(before) - 3


@pytest.mark.parametrize("beam_size", [1, 5])
def test_in_float32_both_write_the_same(tmp_path: Path, beam_size: int) -> None:
    values = {"compute_type": "float32", "beam_size": beam_size}
    transcriber, status = open_with_graphs(tmp_path, **values)
    assert "in float32 (onnxruntime)" in status.state.description
    assert texts(transcriber) == expected(tmp_path, **values)
    transcriber.close()


def test_at_the_next_start_the_graphs_are_there_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transcriber, _ = open_with_graphs(tmp_path)
    before = texts(transcriber)
    transcriber.close()
    monkeypatch.setattr(onnxruntime, "open_faster_whisper", refuse)
    status = Status()
    transcriber = open_transcriber(settings(tmp_path, strict_backend=True), status)
    assert (status.state.backend, status.state.building) == (ONNXRUNTIME, "")
    assert texts(transcriber) == before
    transcriber.close()
    transcriber = open_transcriber(settings(tmp_path, strict_backend=True), build_missing=False)
    assert transcriber.description.endswith("(onnxruntime)")
    transcriber.close()


def test_a_command_makes_no_graphs_and_faster_whisper_answers(tmp_path: Path) -> None:
    transcriber = open_transcriber(settings(tmp_path), build_missing=False)
    assert texts(transcriber) == expected(tmp_path)
    assert "(onnxruntime)" not in transcriber.description
    transcriber.close()
    assert Engines.cache_of(settings(tmp_path)).entries() == []


def test_a_command_that_must_have_the_graphs_is_told_how_to_make_them(tmp_path: Path) -> None:
    wanted = f"engine build --backend onnxruntime --model {HOME_EN} makes them"
    with pytest.raises(SettingsError, match=wanted):
        open_transcriber(settings(tmp_path, strict_backend=True), build_missing=False)


def test_graphs_that_were_cut_are_made_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    transcriber, _ = open_with_graphs(tmp_path)
    before = texts(transcriber)
    transcriber.close()
    (entry,) = Engines.cache_of(settings(tmp_path)).entries()
    data = entry.path / "decoder.onnx.data"
    whole = data.read_bytes()
    data.write_bytes(whole[:1000])
    transcriber, _ = open_with_graphs(tmp_path)
    assert "decoder.onnx.data is damaged" in caplog.text
    assert data.read_bytes() == whole
    assert texts(transcriber) == before
    transcriber.close()


def test_graphs_that_cannot_be_loaded_are_made_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    arithmetic = OnnxRuntime.choose_arithmetic(settings(tmp_path))
    key = CpuSpec("home-en", ModelFolder(HOME_EN).weights, arithmetic).key()

    def junk(folder: Path) -> None:
        (folder / "encoder.onnx").write_bytes(b"junk")

    Engines.cache_of(settings(tmp_path)).ensure(key, junk)
    transcriber, _ = open_with_graphs(tmp_path)
    assert "encoder.onnx can't be loaded by onnxruntime" in caplog.text
    assert any(texts(transcriber))
    transcriber.close()


@pytest.mark.parametrize("error", [RuntimeError, NotImplementedError, ValueError])
def test_with_graphs_that_fail_at_the_start_faster_whisper_answers(
    error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _ = open_with_graphs(tmp_path)
    made.close()

    def fail(*_: object) -> Hypothesis:
        raise error("no kernel for this operator")

    monkeypatch.setattr(CpuSession, "encode", fail)
    status = Status()
    transcriber = open_transcriber(settings(tmp_path), status)
    assert status.state.backend == STAND_IN
    assert "no kernel for this operator" in status.state.why
    assert texts(transcriber) == expected(tmp_path)
    transcriber.close()


def test_graphs_that_fail_lose_no_utterance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transcriber, status = open_with_graphs(tmp_path)

    def fail(*_: object) -> Hypothesis:
        raise RuntimeError("onnxruntime ran out of memory")

    monkeypatch.setattr(SessionInference, "generate", fail)
    assert texts(transcriber) == expected(tmp_path)
    assert status.state.backend == STAND_IN
    assert "ran out of memory" in status.state.why
    transcriber.close()


def test_what_onnxruntime_raises_is_told_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transcriber, status = open_with_graphs(tmp_path)
    score = SessionInference.score

    def score_no_token(self: SessionInference, audio: Any, prompt: Any, _: Any) -> Any:
        return score(self, audio, prompt, [[10**6, 10**6]])

    monkeypatch.setattr(SessionInference, "score", score_no_token)
    assert texts(transcriber) == expected(tmp_path)
    assert status.state.backend == STAND_IN
    assert "in 10 s: onnxruntime failed: [ONNXRuntimeError]" in status.state.why
    transcriber.close()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"device": "cuda"}, "runs on the CPU, not on cuda; use --device cpu"),
        ({"device": "cuda:1"}, "runs on the CPU, not on cuda:1; use --device cpu"),
        ({"compute_type": "float16"}, "--compute-type float16 is not possible"),
        ({"compute_type": "bfloat16"}, "--compute-type bfloat16 is not possible"),
    ],
)
def test_what_onnxruntime_cannot_do_is_one_sentence(
    tmp_path: Path, values: dict[str, str], words: str
) -> None:
    with pytest.raises(SettingsError, match="--backend onnxruntime") as caught:
        open_transcriber(settings(tmp_path, **values), Status())
    assert words in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def without_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnx" else find_spec(name)
    )


@pytest.mark.usefixtures("without_onnx")
def test_without_the_onnx_package_it_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="needs the package onnx: pip install onnx"):
        open_transcriber(settings(tmp_path), Status())


# -- as with faster-whisper ----------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Transcriber, Transcriber]]:
    """The bundled model in float32 on onnxruntime, and on faster-whisper."""
    folder = tmp_path_factory.mktemp("data")
    ours, _ = open_with_graphs(folder, compute_type="float32")
    theirs = open_faster_whisper(settings(folder, compute_type="float32"), HOME_EN)
    yield ours, theirs
    ours.close()
    theirs.close()


NAMED = ("name-roborock.flac", "name-monstera.flac")


def test_names_of_the_home_put_right_the_same(pair: tuple[Transcriber, Transcriber]) -> None:
    home = NameIndex(("Roborock", "Monstera", "Ceiling Light", "Living Room"))
    changed = 0
    for file in NAMED:
        samples = read_audio(str(AUDIO / file))
        plain, named = (
            [one.transcribe(samples, options).text for one in pair]
            for options in (ENGLISH, TranscribeOptions("en", home=HomeTexts(home)))
        )
        assert plain[0] == plain[1]
        assert named[0] == named[1]
        changed += plain != named
    assert changed


@pytest.mark.parametrize("bias_names", [True, False])
def test_the_first_command_encodes_no_more_than_the_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bias_names: bool
) -> None:
    transcriber, _ = open_with_graphs(tmp_path, bias_names=bias_names)
    encoded: list[Any] = []
    encode = SessionInference.encode

    def counted(self: SessionInference, mel: Any) -> Any:
        encoded.append(mel)
        return encode(self, mel)

    monkeypatch.setattr(SessionInference, "encode", counted)
    options = TranscribeOptions(
        "en", home=HomeTexts(NameIndex(("Roborock", "Monstera", "Living Room")))
    )
    samples = read_audio(str(AUDIO / NAMED[0]))
    counts: list[int] = []
    for _ in range(2):
        encoded.clear()
        transcriber.transcribe(samples, options)
        counts.append(len(encoded))
    transcriber.close()
    assert counts[0] == counts[1] > 0


def test_names_of_a_request_count_the_same(pair: tuple[Transcriber, Transcriber]) -> None:
    options = TranscribeOptions("en", ("Roborock", "Ceiling Light"), prompt="a list of commands")
    for samples in spoken()[:6]:
        ours, theirs = (one.transcribe(samples, options) for one in pair)
        assert ours.text == theirs.text
        assert ours.avg_logprob == pytest.approx(theirs.avg_logprob, abs=1e-3)


def test_evidence_and_language_are_the_same(pair: tuple[Transcriber, Transcriber]) -> None:
    for samples in spoken()[:6]:
        ours, theirs = (one.transcribe(samples, TranscribeOptions()) for one in pair)
        assert (ours.language, ours.language_probability) == ("en", 1.0)
        assert ours.avg_logprob == pytest.approx(theirs.avg_logprob, abs=1e-3)
        assert ours.no_speech_prob == pytest.approx(theirs.no_speech_prob, abs=1e-3)
        assert (ours.rejected is None) == (theirs.rejected is None)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (TranscribeOptions("de"), "unknown-language"),
        (TranscribeOptions("en", task="translate"), "unknown-task"),
    ],
)
def test_what_the_model_cannot_do_is_the_same_error(
    pair: tuple[Transcriber, Transcriber], options: TranscribeOptions, code: str
) -> None:
    said = []
    for one in pair:
        with pytest.raises(NotPossibleError) as caught:
            one.transcribe(spoken()[0], options)
        assert caught.value.code == code
        said.append(str(caught.value))
    assert said[0] == said[1]
    assert isinstance(pair[0], EngineTranscriber)
    assert pair[0].has_engine


# -- arithmetic ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("architecture", "cpuinfo", "exactly"),
    [
        ("aarch64", "processor\t: 0\nFeatures\t: fp asimd\n", True),
        ("x86_64", "processor\t: 0\nflags\t\t: avx avx2 avx512f avx512_vnni\n", True),
        ("x86_64", "processor\t: 0\nflags\t\t: avx avx2 avx_vnni\n", True),
        ("x86_64", "processor\t: 0\nflags\t\t: avx avx2\n", False),
        ("x86_64", "", False),
    ],
)
def test_sums_of_int8_are_exact_where_the_processor_makes_them_in_32_bits(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    architecture: str,
    cpuinfo: str,
    exactly: bool,
) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text(cpuinfo)
    monkeypatch.setattr("platform.machine", lambda: architecture)
    assert Host(tmp_path).adds_int8_exactly is exactly


def test_what_is_as_exact_on_every_processor_hears_the_same(tmp_path: Path) -> None:
    """uint8 holds the same numbers as int8: only who is to add them differs."""
    found = {}
    for arithmetic, exactly in (("int8", True), ("uint8", False)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Host, "adds_int8_exactly", exactly)
            transcriber, status = open_with_graphs(tmp_path)
        assert f"in {arithmetic} (onnxruntime)" in status.state.description
        found[arithmetic] = heard(transcriber)
        transcriber.close()
    if not HOST.adds_int8_exactly:  # int8 is then not to be trusted: that is what uint8 is for
        assert any(one.text for one in found["uint8"])
        return
    for one, other in zip(found["int8"], found["uint8"], strict=True):
        assert one.text == other.text
        assert one.avg_logprob == pytest.approx(other.avg_logprob, abs=1e-4)


# -- the faster one ------------------------------------------------------------------------


class Clock:
    """Tells what a command takes, instead of measuring it."""

    def __init__(self, ours: float, theirs: float) -> None:
        self.seconds = {ONNXRUNTIME: ours, STAND_IN: theirs}
        self.asked: list[str] = []

    def command_seconds(self, transcriber: WhisperTranscriber) -> float:
        ours = transcriber.description.endswith("(onnxruntime)")
        self.asked.append(ONNXRUNTIME if ours else STAND_IN)
        return self.seconds[self.asked[-1]]


FAST, SLOW = 0.1, 0.2
STAND_IN = EngineTranscriber.STAND_IN


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Callable[[float, float], Clock]:
    """Takes every model for a large one, and a command's time from a script."""
    monkeypatch.setattr(backends, "_is_small", lambda _: False)
    monkeypatch.setattr(onnxruntime._Comparison, "REST_SECONDS", 0.0)

    def script(ours: float, theirs: float) -> Clock:
        clock = Clock(ours, theirs)
        monkeypatch.setattr(
            WhisperTranscriber, "command_seconds", lambda self: clock.command_seconds(self)
        )
        return clock

    return script


Measured = Callable[[float, float], Clock]


def verdicts(tmp_path: Path) -> list[str]:
    """Return what is remembered of backends."""
    file = tmp_path / Measurements.FILE
    content = json.loads(file.read_text()) if file.exists() else {}
    return [result for key, result in content.items() if key.startswith("backend: ")]


def open_auto(tmp_path: Path, **values: Any) -> tuple[Transcriber, Status]:
    status = Status()
    chosen = settings(tmp_path, backend="auto", device="cpu", **values)
    return open_transcriber(chosen, status), status


def until_measured(status: Status) -> None:
    until(lambda: status.state.why.startswith("a command takes "))


def assert_only_faster_whisper(transcriber: Transcriber, tmp_path: Path) -> None:
    assert isinstance(transcriber, WhisperTranscriber)
    assert "(onnxruntime)" not in transcriber.description
    assert not (tmp_path / "engines").exists()
    transcriber.close()


def test_a_small_model_is_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WhisperTranscriber, "command_seconds", refuse)
    transcriber, status = open_auto(tmp_path)
    assert status.state.backend == STAND_IN
    assert_only_faster_whisper(transcriber, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_where_onnxruntime_is_faster_it_answers_and_is_not_measured_again(
    tmp_path: Path, measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = measured(FAST, SLOW)
    transcriber, status = open_auto(tmp_path)
    until(lambda: status.state.backend == ONNXRUNTIME)
    assert status.state.why == (
        "a command takes 100 ms on onnxruntime here, 200 ms on faster-whisper"
    )
    assert (
        clock.asked == [ONNXRUNTIME, STAND_IN] * WhisperTranscriber.COMMAND_RUNS
    )  # in turns, for fairness
    assert verdicts(tmp_path) == [ONNXRUNTIME]
    before = texts(transcriber)
    transcriber.close()
    with monkeypatch.context() as next_start:
        next_start.setattr(onnxruntime, "open_faster_whisper", refuse)
        transcriber, status = open_auto(tmp_path)
        assert status.state.backend == ONNXRUNTIME
        assert texts(transcriber) == before
        transcriber.close()
    (entry,) = Engines.cache_of(settings(tmp_path)).entries()
    Engines.cache_of(settings(tmp_path)).discard(entry.name)
    transcriber, status = open_auto(tmp_path)
    until(lambda: status.state.backend == ONNXRUNTIME)
    transcriber.close()
    assert len(clock.asked) == 2 * WhisperTranscriber.COMMAND_RUNS


@pytest.mark.parametrize("ours", [SLOW, 0.95 * FAST])  # what is as fast but for noise, too
def test_where_onnxruntime_is_no_faster_faster_whisper_stays_for_good(
    tmp_path: Path, measured: Measured, ours: float
) -> None:
    clock = measured(ours, FAST)
    transcriber, status = open_auto(tmp_path)
    until_measured(status)
    assert status.state.backend == STAND_IN
    assert Engines.cache_of(settings(tmp_path)).entries() == []
    assert verdicts(tmp_path) == [STAND_IN]
    assert texts(transcriber) == expected(tmp_path)
    transcriber.close()
    n_asked = len(clock.asked)
    transcriber, _ = open_auto(tmp_path)
    assert isinstance(transcriber, WhisperTranscriber)
    transcriber.close()
    assert len(clock.asked) == n_asked
    assert Engines.cache_of(settings(tmp_path)).entries() == []


def test_graphs_that_are_there_answer_only_when_they_were_measured(
    tmp_path: Path, measured: Measured
) -> None:
    made, _ = open_with_graphs(tmp_path)
    made.close()
    clock = measured(SLOW, FAST)
    transcriber, status = open_auto(tmp_path)
    assert status.state.backend == STAND_IN
    until_measured(status)
    assert (status.state.backend, verdicts(tmp_path)) == (
        STAND_IN,
        [STAND_IN],
    )
    assert len(clock.asked) == 2 * WhisperTranscriber.COMMAND_RUNS
    transcriber.close()


def test_what_is_remembered_is_for_one_way_to_decode(tmp_path: Path, measured: Measured) -> None:
    measured(SLOW, FAST)
    for beam_size in (1, 5):
        transcriber, status = open_auto(tmp_path, beam_size=beam_size)
        until_measured(status)
        transcriber.close()
    assert verdicts(tmp_path) == [STAND_IN] * 2


def test_who_asks_for_onnxruntime_gets_it_unmeasured(tmp_path: Path, measured: Measured) -> None:
    clock = measured(SLOW, FAST)
    transcriber, status = open_with_graphs(tmp_path)
    assert status.state.why == "it was asked for"
    assert (clock.asked, verdicts(tmp_path)) == ([], [])
    transcriber.close()


def test_a_measurement_that_fails_leaves_faster_whisper(
    tmp_path: Path, measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured(FAST, SLOW)

    def fail(_: WhisperTranscriber) -> float:
        raise RuntimeError("no memory for this window")

    monkeypatch.setattr(WhisperTranscriber, "command_seconds", fail)
    transcriber, status = open_auto(tmp_path)
    until(lambda: "no memory for this window" in status.state.why)
    assert texts(transcriber) == expected(tmp_path)
    assert (status.state.backend, verdicts(tmp_path)) == (STAND_IN, [])
    transcriber.close()


MODEL_BYTES = Dims.of(Checkpoint.read(ModelFolder(HOME_EN).weights)).int8_bytes
ENOUGH = 8 * MODEL_BYTES
"""Memory of a machine of which half is four times the model."""


def with_memory(monkeypatch: pytest.MonkeyPatch, total: int) -> None:
    monkeypatch.setattr(Host, "ram_bytes", total)


def test_without_memory_for_both_nothing_is_measured(
    tmp_path: Path,
    measured: Measured,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    clock = measured(FAST, SLOW)
    with_memory(monkeypatch, ENOUGH - 1)
    transcriber, _ = open_auto(tmp_path)
    assert_only_faster_whisper(transcriber, tmp_path)
    assert clock.asked == []
    assert "because there is not enough memory to compare them" in caplog.text


def test_with_memory_for_both_they_are_compared(
    tmp_path: Path, measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured(FAST, SLOW)
    with_memory(monkeypatch, ENOUGH)
    transcriber, status = open_auto(tmp_path)
    until(lambda: status.state.backend == ONNXRUNTIME)
    transcriber.close()


def test_that_there_was_too_little_memory_holds_until_there_is_more(
    tmp_path: Path, measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured(FAST, SLOW)
    for total in (ENOUGH - 1, ENOUGH + 1, round(1.05 * ENOUGH)):  # it varies from start to start
        with_memory(monkeypatch, total)
        transcriber, _ = open_auto(tmp_path)
        assert_only_faster_whisper(transcriber, tmp_path)
    with_memory(monkeypatch, 2 * ENOUGH)
    transcriber, status = open_auto(tmp_path)
    until(lambda: status.state.backend == ONNXRUNTIME)
    assert verdicts(tmp_path) == [ONNXRUNTIME]
    transcriber.close()


def test_what_was_measured_needs_memory_for_one_alone(
    tmp_path: Path, measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured(FAST, SLOW)
    transcriber, status = open_auto(tmp_path)
    until(lambda: status.state.backend == ONNXRUNTIME)
    transcriber.close()
    with_memory(monkeypatch, 1 << 20)
    transcriber, status = open_auto(tmp_path)
    assert status.state.backend == ONNXRUNTIME
    assert status.state.why == "it was faster here when a command was measured on both"
    transcriber.close()


@pytest.mark.usefixtures("measured", "without_onnx")
def test_without_the_onnx_package_faster_whisper_answers(tmp_path: Path) -> None:
    transcriber, _ = open_auto(tmp_path)
    assert_only_faster_whisper(transcriber, tmp_path)


@pytest.mark.usefixtures("measured")
def test_arithmetic_that_onnxruntime_lacks_is_left_to_faster_whisper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = FakeTranscriber()
    monkeypatch.setattr(onnxruntime, "open_faster_whisper", lambda *_: opened)
    chosen = settings(tmp_path, backend="auto", device="cpu", compute_type="int16")
    status = Status()
    assert OnnxRuntime.open_fastest(chosen, HOME_EN, status) is opened
    assert status.state.why.startswith("rather than onnxruntime, because --compute-type int16")
    assert not (tmp_path / "engines").exists()


@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize(
    ("device", "cuda_devices", "compared"),
    [("auto", 1, False), ("auto", 0, True), ("cpu", 1, True)],
)
def test_a_gpu_that_ctranslate2_can_use_is_faster_unmeasured(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    cuda_devices: int,
    compared: bool,
) -> None:
    gpu = Gpu(0, "RTX 3060", (8, 6), 12 << 30, False, (12, 6))
    monkeypatch.setattr(Gpu, "all", lambda: [gpu])
    monkeypatch.setattr("ctranslate2.get_cuda_device_count", lambda: cuda_devices)
    opened = FakeTranscriber()
    monkeypatch.setattr(onnxruntime, "open_faster_whisper", lambda *_: opened)
    chosen = settings(tmp_path, backend="auto", device=device)
    transcriber = OnnxRuntime.open_fastest(chosen, HOME_EN, Status(), build_missing=False)
    assert (transcriber is not opened) is compared
    assert transcriber.transcribe(np.zeros(16000, np.float32), ENGLISH).text
    transcriber.close()
