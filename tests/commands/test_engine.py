"""`wyoming-whisper engine ...`, as a user types it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest

from tests.engine import fakes
from tests.engine.test_cache import KEY, fill
from tests.support import HOME_EN
from wyoming_whisper.__main__ import main
from wyoming_whisper.engine.cache import EngineCache
from wyoming_whisper.engine.session import OracleSession
from wyoming_whisper.models.folder import ModelFolder, _safetensors_shapes
from wyoming_whisper.whisper.inference import Hypothesis
from wyoming_whisper.whisper.search import SessionInference


def run(tmp_path: Path, action: str, *words: str) -> int:
    return main(["engine", action, *words, "--data-dir", str(tmp_path)])


def on_a_gpu(monkeypatch: pytest.MonkeyPatch, **options: Any) -> fakes.FakeGpu:
    for name, value in fakes.child_environment(**options).items():
        monkeypatch.setenv(name, value)
    return fakes.install(monkeypatch, **options)


def told(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


def sentence(capsys: pytest.CaptureFixture[str]) -> str:
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("wyoming-whisper: ")
    assert err.count("\n") == 1
    return err


# -- build ---------------------------------------------------------------------------------


def test_an_engine_is_built_tried_out_and_then_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu = on_a_gpu(monkeypatch)
    assert run(tmp_path, "build", "--model", str(HOME_EN)) == 0
    folder = Path(told(capsys).strip())
    assert {"encoder.plan", "decoder.plan", "engine.json"} < {p.name for p in folder.iterdir()}
    gpu.assert_nothing_left()
    before = (folder / "decoder.plan").stat().st_mtime_ns
    assert run(tmp_path, "build", "--model", str(HOME_EN)) == 0
    assert Path(told(capsys).strip()) == folder
    assert (folder / "decoder.plan").stat().st_mtime_ns == before
    assert run(tmp_path, "build", "--model", str(HOME_EN), "--beam-size", "2") == 0
    assert Path(told(capsys).strip()) != folder


def test_without_a_gpu_build_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    on_a_gpu(monkeypatch, installed=False)
    assert run(tmp_path, "build", "--model", str(HOME_EN)) == 1
    assert "no NVIDIA driver is installed" in sentence(capsys)


def test_a_build_that_fails_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    on_a_gpu(monkeypatch, build="crash")
    assert run(tmp_path, "build", "--model", str(HOME_EN)) == 1
    assert "SIGSEGV" in sentence(capsys)


def test_graphs_for_onnxruntime_are_made_and_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "build", "--backend", "onnxruntime", "--model", str(HOME_EN)) == 0
    folder = Path(told(capsys).strip())
    graphs = {"encoder.onnx", "encoder.onnx.data", "decoder.onnx", "decoder.onnx.data"}
    assert {path.name for path in folder.iterdir()} == {*graphs, EngineCache.SIDECAR}
    before = (folder / "decoder.onnx").stat().st_mtime_ns
    again = ("--backend", "onnxruntime", "--model", str(HOME_EN), "--beam-size", "2")
    assert run(tmp_path, "build", *again) == 0  # one decoder does for any beam
    assert Path(told(capsys).strip()) == folder
    assert (folder / "decoder.onnx").stat().st_mtime_ns == before
    assert run(tmp_path, "list") == 0
    head, row = told(capsys).splitlines()
    device = head.index("DEVICE")
    assert row[device:].split()[:2] == ["CPU", "onnxruntime"]
    assert head.index("RUNTIME") == row.index("onnxruntime")
    assert (row.split()[0], row.split()[-1]) == ("home-en", folder.name)


def test_graphs_that_compute_nonsense_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(SessionInference, "generate", lambda *_: Hypothesis([1], float("nan"), 0.0))
    assert run(tmp_path, "build", "--backend", "onnxruntime", "--model", str(HOME_EN)) == 1
    assert "computes nonsense" in sentence(capsys)
    assert run(tmp_path, "list") == 0
    assert told(capsys) == "no engine is built yet\n"


# -- list, remove --------------------------------------------------------------------------


@pytest.fixture
def two(tmp_path: Path) -> list[str]:
    """Two engines in the cache; returns their names."""
    cache = EngineCache(tmp_path / "engines", 10**9)
    cache.ensure(KEY, fill, "base")
    (cache.root / "cut-off").mkdir()
    return [KEY.name, "cut-off"]


def test_engines_are_listed(
    tmp_path: Path, two: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "list") == 0
    head, *rows = told(capsys).splitlines()
    columns = ("MODEL", "DEVICE", "RUNTIME", "PRECISION", "SIZE", "LAST USED", "NAME")
    assert head.split() == " ".join(columns).split()
    assert [row.split()[-1] for row in rows] == two
    assert rows[0].split()[:5] == ["base", "Orin", "TensorRT", "10.3.0", "float16"]
    assert rows[1].split()[:4] == ["?"] * 4
    assert run(tmp_path, "list", "--json") == 0
    entries = json.loads(told(capsys))
    assert [entry["name"] for entry in entries] == two
    assert entries[0]["size_bytes"] > 8000
    assert entries[0]["path"] == str(tmp_path / "engines" / KEY.name)


def test_where_there_is_none_the_list_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "list") == 0
    assert told(capsys) == "no engine is built yet\n"
    assert run(tmp_path, "list", "--json") == 0
    assert json.loads(told(capsys)) == []
    assert not (tmp_path / "engines").exists()


def test_engines_are_removed_by_name_or_all(
    tmp_path: Path, two: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "remove", two[1]) == 0
    assert told(capsys) == "cut-off removed, 0.0 MB are free\n"
    assert run(tmp_path, "remove", "all") == 0
    assert not (tmp_path / "engines" / two[0]).exists()


@pytest.mark.parametrize("name", ["../../etc", ".locks", "cut_off"])
def test_only_engines_are_removed(
    tmp_path: Path, two: list[str], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "remove", two[0], name) == 1
    assert f"there is no engine {name}" in sentence(capsys)
    assert (tmp_path / "engines" / two[0]).is_dir()  # nothing is removed by half


# -- export --------------------------------------------------------------------------------


@pytest.mark.parametrize(("precision", "kind"), [("float16", 10), ("float32", 1)])
def test_graphs_are_exported_that_onnxruntime_runs(
    tmp_path: Path, precision: str, kind: int, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out" / "deeper"
    assert run(tmp_path, "export", "--model", str(HOME_EN), "--output", str(output)) == 0
    told(capsys)
    flags = ("--precision", precision, "--beam-size", "3")
    assert run(tmp_path, "export", "--model", str(HOME_EN), "--output", str(output), *flags) == 0
    files = told(capsys).split()
    assert sorted(Path(file).name for file in files) == ["decoder.onnx", "encoder.onnx"]
    assert sorted(path.name for path in output.iterdir()) == ["decoder.onnx", "encoder.onnx"]
    cache = next(i for i in onnx.load(output / "decoder.onnx").graph.input if i.name == "self_k_0")
    assert cache.type.tensor_type.elem_type == kind
    session = OracleSession(output)
    assert session.n_candidates == 6
    session.close()


def test_a_model_is_exported_for_transformers_and_tensorrt_llm(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)  # it is not needed for this
    output = tmp_path / "out"
    flags = ("--layout", "huggingface", "--precision", "float32", "--output", str(output))
    assert run(tmp_path, "export", "--model", str(HOME_EN), *flags) == 0
    assert {Path(file).name for file in told(capsys).split()} == {f.name for f in output.iterdir()}
    ModelFolder(output).check("huggingface")
    assert _safetensors_shapes(output / "model.safetensors")


def test_what_cannot_be_exported_leaves_what_was_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    assert run(tmp_path, "export", "--model", str(HOME_EN), "--output", str(tmp_path / "file")) == 1
    assert f"--output {tmp_path}/file" in sentence(capsys)
    assert (tmp_path / "file").read_text() == "mine"


# -- mistakes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["biuld"], "'biuld' is nothing that engine does; did you mean build?"),
        (["xyzzy"], "there are build, list, remove, export, selftest"),
        (["export", "--model", str(HOME_EN)], "--output"),
        (["export", "--output", "x", "--precision", "int8"], "float16"),
        (["export", "--output", "x", "--layout", "ggml"], "huggingface"),
        (["export", "--output", "x", "--model", "tny"], "did you mean tiny"),
        (["remove"], "NAME"),
        (["list", "--max-cache-size", "8"], "--max-cache-size is not an option"),
        (["build", "--backend", "ray"], "--backend ray has no engines; tensorrt and onnxruntime"),
        (["build", "--backend", "onnxruntime", "--device", "cuda"], "use --device cpu"),
        (["build", "--max-cache-size", "8"], "it must be a size such as 500MB or 8GB"),
    ],
)
def test_a_mistake_is_one_sentence(
    argv: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["engine", *argv]) == 1
    assert words in sentence(capsys)


@pytest.mark.parametrize(
    "argv",
    [[], ["--help"], *([a, "--help"] for a in ("build", "list", "remove", "export", "selftest"))],
)
def test_help_is_help(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["engine", *argv]) == 0
    assert told(capsys).startswith("usage: wyoming-whisper engine")
