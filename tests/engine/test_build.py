"""Building engines in a child process, on a fake TensorRT of every kind that is supported."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import onnx
import pytest

from tests.engine import fakes
from tests.engine.fakes import tensorrt as fake_tensorrt
from tests.support import HOME_EN
from wyoming_whisper.engine import graphs
from wyoming_whisper.engine.builder import EngineBuild
from wyoming_whisper.engine.checkpoint import Checkpoint, Dims
from wyoming_whisper.engine.progress import (
    DECODER,
    ENCODER,
    GRAPHS,
    READING,
    BuildDisplay,
    BuildProgress,
)
from wyoming_whisper.engine.spec import BuildRequest, EngineSpec
from wyoming_whisper.engine.tail import Tail
from wyoming_whisper.engine.tensorrt import compile as compile_module
from wyoming_whisper.engine.tensorrt.compile import (
    _Compiler,
    _progress_monitor,
    _workspace_bytes,
    import_graphs,
)
from wyoming_whisper.engine.tensorrt.cuda import Gpu
from wyoming_whisper.engine.tensorrt.library import TENSORRT
from wyoming_whisper.engine.tensorrt.plan import PlanFacts
from wyoming_whisper.errors import ModelError
from wyoming_whisper.models.folder import ModelFolder

MODEL = str(ModelFolder(HOME_EN).weights)
TIMEOUT_SECONDS = 60.0


def request(tmp_path: Path, **changes: Any) -> BuildRequest:
    folder = tmp_path / "engine"
    folder.mkdir(exist_ok=True)
    values = {"model_bin": MODEL, "folder": str(folder), "timing_cache": str(tmp_path / "timings")}
    return BuildRequest(**(values | changes))


def in_child(monkeypatch: pytest.MonkeyPatch, version: str = "10.3.0", **options: Any) -> None:
    for name, value in fakes.child_environment(version, **options).items():
        monkeypatch.setenv(name, value)


def plan(file: Path) -> dict[str, Any]:
    """Return what the fake TensorRT wrote of the engine."""
    body = file.read_bytes()[len(fake_tensorrt.MAGIC) + fake_tensorrt.DIGEST_BYTES :]
    length = int.from_bytes(body[:4], "little")
    found: dict[str, Any] = json.loads(body[4 : 4 + length])
    return found


# -- a build that goes well ----------------------------------------------------------------


@pytest.mark.parametrize("version", fakes.VERSIONS)
def test_both_plans_and_their_facts_are_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    in_child(monkeypatch, version)
    runtime = runtime_of(version)
    progress: list[BuildProgress] = []
    EngineBuild(request(tmp_path, beam_size=2, runtime=runtime), progress.append).run()
    folder = tmp_path / "engine"
    assert {path.name for path in folder.iterdir()} == {
        "encoder.plan",
        "decoder.plan",
        "engine.json",
    }
    facts = PlanFacts.read(folder)
    assert (facts.n_mels, facts.beam_size, facts.max_batch, facts.precision) == (
        80,
        2,
        5,
        "float16",
    )
    assert facts.n_frames[0][0] == 200
    assert facts.n_frames[-1][1] == 3000
    phases = list(dict.fromkeys(step.phase for step in progress))
    assert phases == [READING, GRAPHS, ENCODER, DECODER]
    fractions = [step.fraction for step in progress]
    assert fractions == sorted(fractions)
    assert 0 <= fractions[0] < fractions[-1] <= 1


def test_profiles_take_every_window_and_every_way_of_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_child(monkeypatch)
    EngineBuild(request(tmp_path, beam_size=5)).run()
    folder = tmp_path / "engine"
    encoder = [profile["mel"] for profile in plan(folder / "encoder.plan")["profiles"]]
    windows = [(shapes[0][2], shapes[2][2]) for shapes in encoder]
    assert all(any(first <= n <= last for first, last in windows) for n in range(200, 3001, 200))
    for profile, shapes in zip(
        PlanFacts.read(folder).profiles, plan(folder / "decoder.plan")["profiles"], strict=True
    ):
        for end, batch, n_tokens in (
            (0, profile.batch[0], profile.n_tokens[0]),
            (2, profile.batch[1], profile.n_tokens[1]),
        ):
            assert shapes["tokens"][end] == [batch, n_tokens]
            assert shapes["parents"][end] == [batch]
            assert shapes["self_k_0"][end][0] == batch
            assert shapes["cross_k_0"][end][0] == 1
        assert shapes["slots"][2] == [448]
        assert shapes["cross_v_0"][2][2] == 1500
    taken = PlanFacts.read(folder).profiles
    for rows, n_tokens in [(1, 1), (1, 2), (1, 64), (2, 1), (5, 1), (5, 64)]:
        assert any(profile.takes(rows, n_tokens) for profile in taken), (rows, n_tokens)


def test_timings_are_kept_for_the_next_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_child(monkeypatch)
    EngineBuild(request(tmp_path)).run()
    first = (tmp_path / "timings").read_bytes()
    assert first.count(b"\n") >= 2  # of both engines
    EngineBuild(request(tmp_path)).run()
    assert (tmp_path / "timings").read_bytes() == first


def test_timings_of_another_tensorrt_or_none_at_all_are_left_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_child(monkeypatch)
    (tmp_path / "timings").write_bytes(b"\x00 cut")
    EngineBuild(request(tmp_path)).run()
    assert b"timings of 10.3.0" in (tmp_path / "timings").read_bytes()


# -- a build that fails --------------------------------------------------------------------


def error_of(build: EngineBuild) -> str:
    with pytest.raises(ModelError) as caught:
        build.run()
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("fail", "encoder engine: Error Code 10"),
        ("memory", "OutOfMemory"),
        ("crash", "SIGSEGV"),
    ],
)
def test_what_goes_wrong_in_tensorrt_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, words: str
) -> None:
    in_child(monkeypatch, build=how)
    assert words in error_of(EngineBuild(request(tmp_path)))


def test_a_broken_model_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_child(monkeypatch)
    broken = tmp_path / "model.bin"
    broken.write_bytes((ModelFolder(HOME_EN).weights).read_bytes()[:100_000])
    assert str(broken) in error_of(EngineBuild(request(tmp_path, model_bin=str(broken))))


def test_a_driver_that_went_away_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_child(monkeypatch, installed=False)
    assert "no NVIDIA driver" in error_of(EngineBuild(request(tmp_path)))


def test_a_folder_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_child(monkeypatch)
    error = error_of(EngineBuild(request(tmp_path, folder=str(tmp_path / "none"))))
    assert str(tmp_path / "none") in error


def test_without_onnx_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "wyoming_whisper.engine.graphs", raising=False)
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.delattr("wyoming_whisper.engine.graphs", raising=False)
    with pytest.raises(ModelError, match=r"onnx.*wyoming-whisper\[tensorrt\]"):
        import_graphs()


def test_where_no_process_can_be_started_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    assert "no process can be started" in error_of(EngineBuild(request(tmp_path)))


def test_a_child_that_does_not_even_start_is_told_by_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "path" / "sitecustomize.py"
    folder.parent.mkdir()
    folder.write_text("import os, sys\nsys.stderr.write('out of luck\\n')\nos._exit(7)\n")
    monkeypatch.setenv("PYTHONPATH", str(folder.parent))
    error = error_of(EngineBuild(request(tmp_path)))
    assert "code 7" in error
    assert "out of luck" in error


# -- a build that never ends ---------------------------------------------------------------


def test_a_build_can_be_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_child(monkeypatch, build="hang")
    compiling = threading.Event()

    def listen(progress: BuildProgress) -> None:
        if progress.phase == ENCODER:
            compiling.set()

    build = EngineBuild(request(tmp_path), listen)
    errors: list[str] = []
    thread = threading.Thread(target=lambda: errors.append(error_of(build)))
    thread.start()
    assert compiling.wait(TIMEOUT_SECONDS)
    build.cancel()
    thread.join(TIMEOUT_SECONDS)
    assert errors == ["the building of the engine was stopped"]
    assert children_of(os.getpid()) == []


def test_a_build_ended_before_it_began_ends_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_child(monkeypatch, build="hang")
    build = EngineBuild(request(tmp_path))
    build.cancel()
    assert "stopped" in error_of(build)


def test_a_build_that_gets_no_further_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its heartbeat alone is no progress."""
    in_child(monkeypatch, build="hang")
    monkeypatch.setattr("wyoming_whisper.engine.builder.EngineBuild.STALL_SECONDS", 8.0)
    beats: list[BuildProgress] = []
    assert "got no further" in error_of(EngineBuild(request(tmp_path), beats.append))
    assert [beat.phase for beat in beats].count(ENCODER) > 1
    assert children_of(os.getpid()) == []


def test_a_child_does_not_outlive_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_child(monkeypatch, build="hang")
    code = f"""
        from wyoming_whisper.engine.builder import EngineBuild
        from wyoming_whisper.engine.spec import BuildRequest
        told = BuildRequest.from_json({request(tmp_path).to_json()!r})
        request = BuildRequest(told.model_bin, told.folder, told.timing_cache)
        EngineBuild(request, lambda progress: print(progress.phase, flush=True)).run()
    """
    parent = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout
    while ENCODER not in parent.stdout.readline():
        assert parent.poll() is None
    (child,) = children_of(parent.pid)
    parent.send_signal(signal.SIGKILL)
    parent.communicate(timeout=TIMEOUT_SECONDS)
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while alive(child):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def children_of(pid: int) -> list[int]:
    """Return the living processes that build for this one."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            found += [int(child) for child in (task / "children").read_text().split()]
    return [child for child in found if alive(child) and "engine.child" in command(child)]


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


# -- what TensorRT is told -----------------------------------------------------------------


class Quiet:
    """A report that nobody reads."""

    def phase(self, name: str) -> None:
        pass

    def fraction(self, done: float) -> None:
        pass

    def say(self, **told: object) -> None:
        pass


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """The networks and configurations that a build in this process makes."""
    made: dict[str, list[Any]] = {"Network": [], "BuilderConfig": []}
    for name, list_of in made.items():
        kind = getattr(fake_tensorrt, name)

        def make(*args: Any, kind: Any = kind, list_of: list[Any] = list_of) -> Any:
            list_of.append(kind(*args))
            return list_of[-1]

        monkeypatch.setattr(fake_tensorrt, name, make)
    return made


def runtime_of(version: str) -> str:
    return "tensorrt-rtx" if version == fakes.RTX else "tensorrt"


def build_here(tmp_path: Path, **changes: Any) -> None:
    compile_module.build(request(tmp_path, **changes), Quiet())  # type: ignore[arg-type]


@pytest.mark.parametrize("version", fakes.VERSIONS)
def test_nothing_of_the_gpu_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    gpu = fakes.install(monkeypatch, version)
    build_here(tmp_path, runtime=runtime_of(version))
    gpu.assert_nothing_left()


def test_tensorrt_8_is_told_which_layers_stay_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: dict[str, list[Any]]
) -> None:
    gpu = fakes.install(monkeypatch, "8.6.1")
    asked: list[tuple[str, Any]] = []
    real = fake_tensorrt.Layer.set_output_type

    def spy(self: Any, index: int, dtype: Any) -> None:
        asked.append((self.type.name, dtype))
        real(self, index, dtype)

    monkeypatch.setattr(fake_tensorrt.Layer, "set_output_type", spy)
    build_here(tmp_path)
    trt = gpu.tensorrt.module
    assert {dtype for _, dtype in asked} == {trt.DataType.FLOAT}
    assert "NORMALIZATION" in {kind for kind, _ in asked}
    assert all(kind in _Compiler.EXACT for kind, _ in asked)
    for config in told["BuilderConfig"]:
        assert config.get_flag(trt.BuilderFlag.FP16)
        assert config.get_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
        assert config.shares_profiles
    halves = [
        layer
        for network in told["Network"]
        for layer in (network.get_layer(i) for i in range(network.num_layers))
        if layer.get_output(0).dtype == trt.DataType.HALF
    ]
    assert halves


@pytest.mark.parametrize("version", fakes.VERSIONS[1:])
def test_later_ones_are_strongly_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: dict[str, list[Any]], version: str
) -> None:
    fakes.install(monkeypatch, version)
    build_here(tmp_path, runtime=runtime_of(version))
    assert len(told["Network"]) == 2
    assert all(network.strongly_typed for network in told["Network"])


def test_sources_whose_libraries_are_missing_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: dict[str, list[Any]]
) -> None:
    gpu = fakes.install(monkeypatch, "8.6.1")
    here = ctypes.CDLL

    def load(name: Any, *args: Any, **kwargs: Any) -> Any:
        if name in ("libcublas.so.12", "libcublasLt.so.11"):
            return object()
        if str(name).startswith(("libcublas", "libcudnn")):
            raise OSError(name)
        return here(name, *args, **kwargs)

    monkeypatch.setattr(ctypes, "CDLL", load)
    build_here(tmp_path)
    source = gpu.tensorrt.module.TacticSource
    for config in told["BuilderConfig"]:
        taken = {kind.name for kind in source if config.get_tactic_sources() >> kind & 1}
        assert taken == {"CUBLAS", "CUBLAS_LT", "EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS"}


def test_float32_is_not_rounded_to_tf32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: dict[str, list[Any]]
) -> None:
    gpu = fakes.install(monkeypatch)
    build_here(tmp_path, precision="float32")
    tf32 = gpu.tensorrt.module.BuilderFlag.TF32
    assert not any(config.get_flag(tf32) for config in told["BuilderConfig"])


def test_the_workspace_follows_free_memory_within_bounds() -> None:
    assert _workspace_bytes(0) == 256 << 20
    assert _workspace_bytes(2 << 30) == 1 << 30
    assert _workspace_bytes(80 << 30) == 4 << 30


def test_nested_phases_of_tensorrt_make_one_fraction(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = fakes.install(monkeypatch)
    told: list[float] = []
    monitor = _progress_monitor(gpu.tensorrt.module, told.append)
    monitor.phase_start("Building", None, 4)
    assert monitor.step_complete("Building", 0)
    monitor.phase_start("Tactics", "Building", 2)
    assert monitor.step_complete("Tactics", 0)
    monitor.phase_finish("Tactics")
    assert monitor.step_complete("Building", 3)
    monitor.phase_finish("Building")
    assert told == [0.25, 0.375, 1.0]


HALVES = ("encoder", "decoder")
GRAPHS_OF_SCHEMA = {2: "3d5506278a4c4f38"}
"""The digest of the graphs, without a tail and with one: where it changes, engines that are cached
would be of the old ones."""


def test_other_graphs_have_another_schema(tmp_path: Path) -> None:
    """Where this fails, raise GRAPH_SCHEMA and write the new digest here."""
    weights = Checkpoint.read(Path(MODEL))
    digest = hashlib.sha256()
    graphs.write_graphs(weights, tmp_path / "without", "float16", 2)
    tail = Tail.frozen(weights, Dims.of(weights))
    graphs.write_graphs(weights, tmp_path / "with", "float16", 2, tail=tail)
    files = [tmp_path / f / f"{half}.onnx" for f in ("without", "with") for half in HALVES]
    for model in map(onnx.load, files):
        for node in model.graph.node:
            attributes = sorted(a.SerializeToString(deterministic=True) for a in node.attribute)
            digest.update(repr((node.op_type, *node.input, *node.output, *attributes)).encode())
        for value in (*model.graph.input, *model.graph.output):
            digest.update(value.SerializeToString(deterministic=True))
    assert {EngineSpec.GRAPH_SCHEMA: digest.hexdigest()[:16]} == GRAPHS_OF_SCHEMA


# -- requests, keys, display ---------------------------------------------------------------


def test_a_request_survives_its_way_to_the_child(tmp_path: Path) -> None:
    sent = request(tmp_path, has_tail=True, beam_size=3)
    assert BuildRequest.from_json(sent.to_json()) == sent


def test_a_key_has_nothing_that_varies_from_start_to_start() -> None:
    gpu = Gpu(0, "Orin", (8, 7), 8 << 30, True, (12, 6))
    like_it = Gpu(1, "Orin", (8, 7), 7 << 30, True, (12, 8))
    spec = EngineSpec("base", Path(MODEL), TENSORRT, "10.3.0", TENSORRT.target(gpu))
    other = EngineSpec("another name", Path(MODEL), TENSORRT, "10.3.0", TENSORRT.target(like_it), 1)
    assert spec.key() == other.key()
    assert spec.key().facts["compute_capability"] == "8.7"


def test_a_log_gets_a_line_for_each_phase_and_now_and_then(
    caplog: pytest.LogCaptureFixture,
) -> None:
    display = BuildDisplay("the engine of base")
    with caplog.at_level(logging.INFO):
        for seconds, fraction in [(0, 0.1), (1, 0.11), (14, 0.2), (15, 0.25), (16, 0.26)]:
            display.show_build(BuildProgress(ENCODER, fraction, seconds))
        display.show_build(BuildProgress(DECODER, 0.5, 17))
    display.close()
    assert [record.getMessage() for record in caplog.records] == [
        "the engine of base: encoder engine, 10 %, 0 s",
        "the engine of base: encoder engine, 25 %, 15 s",
        "the engine of base: decoder engine, 50 %, 17 s",
    ]
