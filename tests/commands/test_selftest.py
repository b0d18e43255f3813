"""The selftest: that it passes where it should, and fails where an engine is wrong."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from tests.engine import fakes
from tests.engine.fakes.plans import write_plans
from tests.support import HOME_EN
from wyoming_whisper.commands.engine import _selftest_parser
from wyoming_whisper.commands.selftest.command import _choose_runtime, _selftest, run
from wyoming_whisper.commands.selftest.compare import Case, Reference
from wyoming_whisper.commands.selftest.report import (
    Comparison,
    Decoded,
    Report,
)
from wyoming_whisper.commands.selftest.tail import TailCase
from wyoming_whisper.engine.checkpoint import Dims
from wyoming_whisper.engine.graphs import write_graphs
from wyoming_whisper.engine.session import OracleSession
from wyoming_whisper.engine.spec import EngineSpec
from wyoming_whisper.engine.tail import Tail
from wyoming_whisper.engine.tensorrt.cuda import NoGpuError
from wyoming_whisper.engine.tensorrt.library import RTX, TENSORRT
from wyoming_whisper.engine.tensorrt.session import TensorRTSession
from wyoming_whisper.errors import ModelBrokenError, ModelUnavailableError
from wyoming_whisper.machine.host import Host
from wyoming_whisper.models.folder import ModelFolder
from wyoming_whisper.settings.options import Settings
from wyoming_whisper.whisper.audio import N_FRAMES, Array
from wyoming_whisper.whisper.inference import Hypothesis
from wyoming_whisper.whisper.search import SessionInference


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times are not what is tested."""
    monkeypatch.setattr("wyoming_whisper.commands.selftest.compare.Case.RUNS", 1)
    monkeypatch.setattr(Host, "cores", 1)  # threads wait for each other
    monkeypatch.setattr("wyoming_whisper.commands.selftest.compare.Case.TIMED_STEPS", 4)


HOME = Settings(model=str(HOME_EN))


def arguments(*argv: str) -> argparse.Namespace:
    return _selftest_parser("engine selftest").parse(argv)


def test_onnxruntime_passes_and_prints_its_table(capsys: pytest.CaptureFixture[str]) -> None:
    status = run(arguments("--runtime", "onnxruntime"), HOME)
    out = capsys.readouterr().out
    assert status == 0
    assert out.splitlines()[-1] == "selftest PASSED"
    for words in ("turn off the pump", "play the previous song again", "home-en", "GPU: none"):
        assert words in out


def test_without_a_name_the_best_stock_model_here_is_tested(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("tiny.en", "base"):
        (tmp_path / name).symlink_to(HOME_EN)
    settings = Settings(data_dir=(tmp_path,), language="de")
    assert run(arguments("--runtime", "onnxruntime", "--json"), settings) == 0
    told = capsys.readouterr()
    assert "base is tested, as it is here" in told.err
    assert json.loads(told.out)["model"] == "base"


def test_without_a_model_the_command_that_gets_one_is_named(tmp_path: Path) -> None:
    wanted = f"no model in {tmp_path} .*`wyoming-whisper models download base`"
    with pytest.raises(ModelUnavailableError, match=wanted):
        run(arguments("--runtime", "onnxruntime"), Settings(data_dir=(tmp_path,)))


def test_float16_and_a_beam_pass_and_json_holds_it_all(capsys: pytest.CaptureFixture[str]) -> None:
    args = arguments("--runtime", "onnxruntime", "--precision", "float16", "--json")
    status = run(args, dataclasses.replace(HOME, beam_size=3))
    told = json.loads(capsys.readouterr().out)
    assert (status, told["passed"], told["failures"]) == (0, True, [])
    assert told["precision"] == "float16"
    found = {(row["name"], row["beam_size"]): row for row in told["comparisons"]}
    pump = found["turn off the pump", 1]
    assert pump["text"] == "turn off the pump"
    assert pump["engine"]["tokens"] == pump["reference"]["tokens"]
    assert ("turn off the pump", 3) in found
    assert {row["window_seconds"] for row in told["comparisons"]} >= {2.0, 30.0}
    assert all(value > 0 for value in told["stages"].values())
    assert told["machine"]["Python"]


@pytest.mark.parametrize("version", ["8.6.1", "10.16.1.11"])
def test_tensorrt_passes_on_a_fake_gpu_with_the_servers_own_engine(
    version: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    gpu = fakes.install(monkeypatch, version)
    for name, value in fakes.child_environment(version).items():
        monkeypatch.setenv(name, value)
    settings = dataclasses.replace(HOME, data_dir=(tmp_path,))
    status = run(arguments("--json"), settings)
    told = json.loads(capsys.readouterr().out)
    assert (status, told["failures"]) == (0, [])
    library = RTX if version == fakes.RTX else TENSORRT
    assert (told["runtime"], told["precision"]) == (library.runtime, "float16")
    assert told["machine"][library.name] == version.removeprefix("rtx-")
    assert told["memory_mb"]["GPU, held by the engine"] > 0
    assert len(list(tmp_path.glob("engines/*/encoder.plan"))) == 1
    gpu.assert_nothing_left()


class _Wrong(OracleSession):
    """Its encoder does not hear the first half of the window."""

    def encode(self, mel: Any) -> Any:
        deaf = mel.copy()
        deaf[:, : mel.shape[1] // 2] = mel.min()
        return super().encode(deaf)


class _Shifted(OracleSession):
    """The same words, with other probabilities."""

    def greedy(self, *args: Any) -> Iterator[tuple[int, float]]:
        for token, logprob in super().greedy(*args):
            yield token, logprob - 0.01


@pytest.mark.parametrize(
    ("session", "complaint"), [(_Wrong, "other tokens"), (_Shifted, "avg_logprob")]
)
def test_an_engine_that_hears_wrongly_fails(
    session: type[OracleSession],
    complaint: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("wyoming_whisper.commands.selftest.command.OracleSession", session)
    status = run(arguments("--runtime", "onnxruntime"), HOME)
    last = capsys.readouterr().out.splitlines()[-1]
    assert status == 1
    assert last.startswith("selftest FAILED: ")
    assert complaint in last


# -- judging -------------------------------------------------------------------------------


def heard(*tokens: int, avg_logprob: float = -0.1, no_speech_prob: float = 0.0) -> Decoded:
    return Decoded(tokens, avg_logprob, no_speech_prob, encode=0.1, decode=0.1)


@pytest.mark.parametrize(
    ("engine", "precision", "verdict"),
    [
        (heard(1, 2), "float32", "same"),
        (heard(1, 2, avg_logprob=-0.1005), "float32", "same"),
        (heard(1, 2, avg_logprob=-0.12), "float32", "avg_logprob -0.1200, not -0.1000"),
        (heard(1, 2, avg_logprob=-0.12), "float16", "same"),
        (heard(1, 2, avg_logprob=-0.2), "float16", "avg_logprob -0.2000, not -0.1000"),
        (heard(1, 2, avg_logprob=float("nan")), "float16", "avg_logprob nan, not -0.1000"),
        (heard(1, 2, no_speech_prob=0.1), "float16", "no_speech_prob 0.1000, not 0.0000"),
        (heard(1, 2, no_speech_prob=float("nan")), "float16", "no_speech_prob nan, not 0.0000"),
        (heard(1, 3), "float16", "other tokens from number 2 on"),
        (heard(1), "float16", "other tokens from number 2 on"),
        (heard(), "float16", "other tokens from number 1 on"),
    ],
)
def test_what_differs_is_named(engine: Decoded, precision: str, verdict: str) -> None:
    assert engine.verdict(heard(1, 2), precision) == verdict


def test_a_text_that_ours_ended_for_its_repetitions_is_the_same_as_far_as_it_goes() -> None:
    endless = heard(*[7] * 60)
    n = SessionInference.STOP_REPEATS
    assert heard(*[7] * n, avg_logprob=-0.9).verdict(endless, "float32") == "same"
    assert heard(*[7] * (n - 1)).verdict(endless, "float32") == f"other tokens from number {n} on"
    assert heard(*[8] * n).verdict(endless, "float32") == "other tokens from number 1 on"


def report(*comparisons: Comparison) -> Report:
    stages = {"encode": 0.1, "prefill": 0.1, "step": 0.1}
    return Report({}, "m", "onnxruntime", "float32", 0, 0, {}, stages, list(comparisons))


def compared(verdict: str, *tokens: int) -> Comparison:
    return Comparison("clip", 2.0, 1, "", heard(*tokens), heard(*tokens), verdict)


def test_nothing_heard_proves_nothing() -> None:
    assert report(compared("same", 1), compared("tie", 2)).passed
    assert not report(compared("same")).passed
    assert not report(compared("tie", 1)).passed
    assert not report().passed
    assert report(compared("same", 1), compared("other tokens", 1)).failures == [
        "clip: other tokens"
    ]


class _Scripted:
    """A session whose logits are given."""

    def __init__(self, **logits: float) -> None:
        self._logits = np.full((1, 10), -20.0, np.float32)
        for token, value in logits.items():
            self._logits[0, int(token[1:])] = value

    def encode(self, _mel: object) -> None: ...
    def bias(self, _suppressed: object) -> None: ...
    def open_cache(self, _features: object, _batch: int, _n_slots: int) -> None: ...

    def step(self, _cache: object, tokens: Any, _position: int, _bias: object) -> _Scripted:
        self.past = tokens.tolist()
        return self

    def logits(self) -> Any:
        return self._logits


def test_a_tie_is_measured_where_the_texts_part() -> None:
    session: Any = _Scripted(t3=5.0, t4=4.75)
    case = Case("clip", np.zeros((80, 200), np.float32), (1, 2))
    gap = case.gap(session, heard(8, 4), heard(8, 3), eot=9)
    assert gap == pytest.approx(0.25)
    assert session.past == [[1, 2, 8]]
    # One text ends where the other goes on.
    ended: Any = _Scripted(t3=5.0, t9=4.0)
    assert case.gap(ended, heard(8), heard(8, 3), eot=9) == pytest.approx(1.0)


# -- around it -----------------------------------------------------------------------------


def test_a_long_prompt_takes_more_than_one_call() -> None:
    from wyoming_whisper.engine.tensorrt.plan import PlanFacts
    from wyoming_whisper.whisper.options import AudioContext

    cases = Case.all(80, ModelFolder(HOME_EN).tokenizer, AudioContext.trained())
    assert max(len(case.prompt) for case in cases) > PlanFacts.MAX_PREFILL_TOKENS
    assert {case.mel.shape[1] % EngineSpec.FRAMES_MULTIPLE for case in cases} == {0}


def test_a_jetson_says_which_it_is(tmp_path: Path) -> None:
    release, board = tmp_path / "etc" / "nv_tegra_release", tmp_path / "proc/device-tree/model"
    for file in (release, board):
        file.parent.mkdir(parents=True)
    release.write_text("# R36 (release), REVISION: 4.3, GCID: 1\n# more\n")
    board.write_bytes(b"NVIDIA Jetson Orin Nano Developer Kit\0")
    facts = Report.of_machine(tmp_path)
    assert facts["L4T"] == "R36 (release), REVISION: 4.3, GCID: 1"
    assert facts["board"] == "NVIDIA Jetson Orin Nano Developer Kit"


def test_a_report_names_no_folder_of_the_user(tmp_path: Path) -> None:
    folder = tmp_path / "my-model"
    folder.mkdir()
    assert Settings(model=str(folder)).model_name == "my-model"
    assert Settings(model="./mine/my-model").model_name == "my-model"
    assert Settings(model="owner/model").model_name == "owner/model"


def test_a_broken_model_is_one_sentence(tmp_path: Path) -> None:
    for file in HOME_EN.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    whole = (tmp_path / "model.bin").read_bytes()
    (tmp_path / "model.bin").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelBrokenError):
        _selftest(Settings(model=str(tmp_path)), tmp_path, "onnxruntime")


def test_tensorrt_asked_for_without_a_gpu_says_what_is_missing() -> None:
    with pytest.raises(NoGpuError, match="NVIDIA"):
        run(arguments("--runtime", "tensorrt"), Settings())


def test_without_a_gpu_auto_is_onnxruntime_and_says_why(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _choose_runtime("auto", "auto") == "onnxruntime"
    assert "NVIDIA" in capsys.readouterr().err


def test_reports_can_be_rebuilt_from_json() -> None:
    told = json.loads(json.dumps(report(compared("same", 1)).as_json()))
    assert told["passed"] is True
    assert {field.name for field in dataclasses.fields(Report)} <= set(told)


# -- the frozen tail -----------------------------------------------------------------------


class Listener:
    """An inference that writes two tokens, and scores texts by how long the window was."""

    def __init__(self, tokens: list[int], lost: float) -> None:
        self._tokens, self._lost = tokens, lost

    def encode(self, mel: Array) -> int:
        return int(mel.shape[1])

    def generate(self, *_: object) -> Hypothesis:
        return Hypothesis(self._tokens, -0.3, 0.0)

    def score(self, n_frames: int, _: object, texts: list[list[int]]) -> list[Array]:
        logprob = -0.3 if n_frames == N_FRAMES else -0.3 - self._lost
        return [np.full(len(text), logprob, np.float32) for text in texts]


@pytest.mark.parametrize(
    ("tokens", "lost", "verdict"),
    [
        ([1, 2], 0.0, "same"),
        ([1, 3], 0.2, "as likely"),
        ([1, 3], -0.5, "as likely"),
        ([1, 2], 0.3, "the full window's text loses 0.30 nats a token"),
        ([1, 3], float("nan"), "the full window's text loses nan nats a token"),
    ],
)
def test_the_frozen_tail_loses_nothing_of_the_full_window(
    tokens: list[int], lost: float, verdict: str
) -> None:
    tokenizer = ModelFolder(HOME_EN).tokenizer
    case = TailCase.all(80, tokenizer)[0]
    full, fitted = case.full.mel.shape[1], case.fitted.mel.shape[1]
    assert (full, fitted < 400) == (N_FRAMES, True)
    inference = cast("SessionInference", Listener(tokens, lost))
    compared = case.compared(inference, Decoded((1, 2), -0.3, 0.0, 0.1, 0.1), tokenizer)
    assert compared.verdict == verdict
    assert compared.good == (verdict in ("same", "as likely"))


def test_the_graphs_for_cpus_are_compared_with_the_full_window(stock_tiny_en: Path) -> None:
    settings = Settings(model=str(stock_tiny_en), cpu_threads=1)
    model = ModelFolder(stock_tiny_en)
    cases = TailCase.all(80, model.tokenizer)[:1]
    text = tuple(model.tokenizer.encode(" Play the previous song again."))
    reference = Reference(
        model.tokenizer, model.suppressed_begin, (), [Decoded(text, -0.9, 0.0, 0.1, 0.1)]
    )
    [compared] = TailCase.compare_all_on_cpu(cases, settings, stock_tiny_en, reference)
    assert compared.good
    assert compared.window_seconds < 4


def test_an_engine_is_compared_with_the_full_window(
    stock_tiny_en: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ModelFolder(stock_tiny_en)
    checkpoint = model.checkpoint()
    tail = Tail.frozen(checkpoint, Dims.of(checkpoint))
    write_graphs(checkpoint, tmp_path / "graphs", "float16", tail=tail)
    gpu = fakes.install(monkeypatch)
    session = TensorRTSession(write_plans(gpu, tmp_path / "graphs", tmp_path / "engine"))
    session.has_tail = True
    cases = TailCase.all(80, model.tokenizer, EngineSpec.FRAMES_MULTIPLE)[:1]
    text = tuple(model.tokenizer.encode(" Play the previous song again."))
    reference = Reference(
        model.tokenizer, model.suppressed_begin, (), [Decoded(text, -0.9, 0.0, 0.1, 0.1)]
    )
    [compared] = TailCase.compare_all(cases, session, reference)
    session.close()
    assert compared.good
    assert compared.window_seconds == 4
    gpu.assert_nothing_left()
