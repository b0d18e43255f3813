"""The benchmark of GPUs: rehearsed on the CPU, and on a GPU made of Python."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.lib.packed import FACTS, MELS, WEIGHTS
from benchmarks.speed import gpu
from benchmarks.speed.gpu import Size
from tests.engine import fakes
from tests.support import HOME_EN
from wyoming_whisper.engine.checkpoint import Checkpoint
from wyoming_whisper.engine.session import OracleSession
from wyoming_whisper.machine.host import Host

MODEL = HOME_EN / "model.bin"


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What --prepare writes of one model."""
    folder = tmp_path_factory.mktemp("packed")
    with pytest.MonkeyPatch.context() as patch:
        # Threads wait for each other.
        patch.setattr(Host, "cores", 1)
        assert main(["gpu", str(folder), "--prepare", "--models", "tiny.en"]) == 0
    return folder


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times are not what is tested."""
    monkeypatch.setattr("wyoming_whisper.commands.selftest.compare.Case.RUNS", 1)
    monkeypatch.setattr(gpu, "WINDOWS", (3, 5))
    monkeypatch.setattr(gpu, "COPIED_BYTES", 1 << 16)


def measured(folder: Path, out: Path, *flags: str) -> tuple[int, dict[str, Any]]:
    argv = [str(folder), "--models", "tiny.en", "--runs", "1", "--json", str(out), *flags]
    status = main(["gpu", *argv])
    return status, json.loads(out.read_text())


def test_the_rehearsal_measures_everything(
    packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, told = measured(packed, tmp_path / "out.json", "--rehearse", "--bandwidth", "20")
    assert status == 0
    (model,) = told["models"]
    heard = {c["name"]: c for c in model["comparisons"]}
    assert heard["turn off the pump"]["text"] == "turn off the pump"
    assert heard["turn off the pump"]["engine"]["tokens"]
    assert [window["seconds"] for window in model["windows"]] == [3, 5]
    assert all(window["stages"]["step"] > 0 for window in model["windows"])
    assert heard["a person"]["engine"]["tokens"]
    ctranslate2, torch = model["beside"]
    assert ctranslate2["n_same"] == len(heard)
    assert all(seconds > 0 for seconds in ctranslate2["seconds"].values())
    assert torch["seconds"] or torch["why_not"]
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "PASSED"
    assert "nothing here is a GPU's time" in out


@pytest.mark.parametrize("version", ["8.6.1", "11.4.0.106", fakes.RTX])
def test_a_fake_gpu_goes_all_the_way(
    version: str, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = fakes.install(monkeypatch, version)
    for name, value in fakes.child_environment(version).items():
        monkeypatch.setenv(name, value)
    status, told = measured(packed, tmp_path / "out.json")
    assert status == 0
    library = "TensorRT-RTX" if version == fakes.RTX else "TensorRT"
    assert told["machine"][library] == version.removeprefix("rtx-")
    assert told["bandwidth"] > 0
    (model,) = told["models"]
    assert model["precision"] == "float16"
    assert all(window["plain_step"] > 0 for window in model["windows"])
    names = [one["name"] for one in model["comparisons"]]
    assert names[: len(names) // 2] == names[len(names) // 2 :]  # with CUDA graphs and without
    device.assert_nothing_left()


class _Deaf(OracleSession):
    """Its encoder hears silence."""

    def encode(self, mel: Any) -> Any:
        return super().encode(np.full_like(mel, mel.min()))


def test_an_engine_that_hears_wrongly_fails(
    packed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("wyoming_whisper.engine.session.OracleSession", _Deaf)
    status, told = measured(packed, tmp_path / "out.json", "--rehearse")
    assert status == 1
    (model,) = told["models"]
    verdicts = {one["name"]: one["verdict"] for one in model["comparisons"]}
    assert verdicts["turn off the pump"].startswith("other tokens")
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == "FAILED"
    assert "benchmarks gpu: tiny.en: turn off the pump: other tokens" in said.err


# -- arithmetic ----------------------------------------------------------------------------


def test_a_step_reads_the_decoders_matrices_once() -> None:
    checkpoint = Checkpoint.read(MODEL)
    size = Size.of(MODEL)
    matrices = {
        name: checkpoint[name].size
        for name in checkpoint.variables
        if name.startswith("decoder/") and name.endswith("/weight") and "/linear" in name
    }
    # Keys and values of the audio are made once, in the encoder's graph.
    read_once = sum(n for name, n in matrices.items() if "/attention/linear_1/" not in name)
    vocabulary = checkpoint["decoder/embeddings/weight"].size
    assert size.step_bytes(0, 0, 2) == 2 * (read_once + vocabulary)
    audio = size.step_bytes(1500, 0, 2) - size.step_bytes(0, 0, 2)
    assert audio == 2 * 2 * 1500 * size.width * size.decoder_layers


# -- what can be wrong ---------------------------------------------------------------------


def test_a_folder_that_was_not_packed_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["gpu", str(tmp_path), "--rehearse"]) == 1
    assert "is not a model that --prepare packed" in capsys.readouterr().err


@pytest.mark.parametrize("file", [WEIGHTS, FACTS, MELS])
def test_a_cut_file_is_one_sentence(
    file: str, packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "tiny.en"
    folder.mkdir()
    for path in filter(Path.is_file, (packed / "tiny.en").iterdir()):
        data = path.read_bytes()
        (folder / path.name).write_bytes(data[: len(data) // 2] if path.name == file else data)
    assert main(["gpu", str(tmp_path), "--rehearse", "--models", "tiny.en"]) == 1
    assert "--prepare" in capsys.readouterr().err


def test_without_a_gpu_it_says_what_is_missing(
    packed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["gpu", str(packed), "--models", "tiny.en"]) == 1
    assert "NVIDIA" in capsys.readouterr().err


def test_it_needs_nothing_but_numpy_and_onnx(packed: Path) -> None:
    # What a bare machine lacks must not be imported by packing's other end.
    import subprocess

    absent = ("ctranslate2", "tokenizers", "faster_whisper", "wyoming", "huggingface_hub", "yaml")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({absent!r})); from pathlib import Path; "
        "from benchmarks.lib import packed; packed.read_packed(Path(sys.argv[1])); "
        "import benchmarks.__main__, benchmarks.speed.gpu; "
        "import wyoming_whisper.engine.child, wyoming_whisper.engine.tensorrt.session, "
        "wyoming_whisper.engine.graphs"
    )
    command = [sys.executable, "-c", code, str(packed / "tiny.en")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
