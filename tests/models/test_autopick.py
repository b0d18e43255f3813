from __future__ import annotations

import json
import logging
import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
import pytest

from tests.models.conftest import MODEL_FILES
from tests.models.fakes import model_files, write_cache, write_folder
from tests.models.hub_standin import HubStandin
from wyoming_whisper.engine.tensorrt.cuda import Gpu
from wyoming_whisper.errors import ModelError, ModelUnavailableError
from wyoming_whisper.models import autopick
from wyoming_whisper.models.autopick import (
    AutoModel,
    _Machine,
)
from wyoming_whisper.models.folder import ModelFolder
from wyoming_whisper.models.stock import STOCK_MODELS
from wyoming_whisper.models.store import ModelStore
from wyoming_whisper.settings.options import Settings

GIB = 1024**3
MEASURE = autopick._yardstick_s  # tests replace it
# How long a window of the yardstick takes.
PI_4 = 1.78
TWO_XEON_CORES = 0.302
TWO_EPYC_CORES = 0.0712
ONE_EPYC_CORE = 0.139
DESKTOP = 0.054
SERVER = 0.011


def machine(ram_gib: float = 8.0) -> _Machine:
    return _Machine("a CPU", 4, "NEON", ram_gib)


def gpu(gib: float, *, integrated: bool = False) -> Gpu:
    return Gpu(0, "RTX", (8, 6), int(gib * GIB), integrated, (12, 6))


@pytest.fixture(autouse=True)
def fake_machine(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A machine that answers base in time; returns the list to which measurements are added."""
    measured: list[str] = []

    def measure(threads: int, compute_type: str) -> float:
        measured.append(compute_type)
        return TWO_XEON_CORES

    monkeypatch.setattr(_Machine, "here", lambda settings: machine())
    monkeypatch.setattr(autopick, "_yardstick_s", measure)
    autopick._say_once.cache_clear()
    return measured


# The choice


@pytest.mark.parametrize(
    ("yardstick_s", "ram_gib", "english", "expected"),
    [
        (PI_4, 8, True, "tiny.en"),
        (PI_4, 8, False, "tiny-int8"),
        (TWO_XEON_CORES, 8, True, "base.en"),
        (TWO_XEON_CORES, 8, False, "base-int8"),
        (DESKTOP, 8, True, "small.en"),
        (DESKTOP, 8, False, "small-int8"),
        (SERVER, 8, True, "small.en"),
        (SERVER, 8, False, "medium-int8"),
        # Memory is short.
        (SERVER, 2.0, False, "small-int8"),
        (SERVER, 1.5, True, "base.en"),
        (SERVER, 0.7, True, "tiny.en"),
        (SERVER, 0.2, False, "tiny-int8"),
    ],
)
def test_choice(yardstick_s: float, ram_gib: float, english: bool, expected: str) -> None:
    choice = machine(ram_gib).choose(yardstick_s, english=english, int8=True)
    assert choice.model == expected


@pytest.mark.parametrize(
    ("memory", "integrated", "english", "expected"),
    [
        (24, False, True, "turbo"),
        (4.0, False, False, "turbo"),
        (3.0, False, False, "small"),
        (2.0, False, True, "small.en"),
        (1.0, False, False, "base"),
        (0.5, False, True, "base.en"),
        (15.3, True, False, "turbo"),  # a Jetson with 16 GB
        (7.4, True, False, "small"),
        (3.3, True, False, "base"),
    ],
)
def test_a_gpu_gets_what_its_memory_has_room_for(
    memory: float, integrated: bool, english: bool, expected: str
) -> None:
    settings = Settings(data_dir=(), language="en" if english else "de")
    choice = AutoModel(settings).for_gpu(gpu(memory, integrated=integrated))
    assert choice.model == expected
    assert f"a RTX with {memory:.1f} GiB" in choice.why
    assert ("shared with the system" in choice.why) is integrated


def test_for_a_gpu_the_cpu_is_not_measured(
    settings: Settings, fake_machine: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert AutoModel(settings, gpu(8)).pick() == "turbo"
    assert fake_machine == []
    assert caplog.messages == ["auto: turbo, because a RTX with 8.0 GiB"]
    assert AutoModel(settings).pick() == "base-int8"


def test_int8_is_not_stored_where_it_is_not_computed() -> None:
    assert machine().choose(DESKTOP, english=False, int8=False).model == "small"


def test_choice_says_why() -> None:
    def why(ram_gib: float, yardstick_s: float) -> str:
        return machine(ram_gib).choose(yardstick_s, english=True, int8=True).why

    expected = "4 threads, NEON, 3.2 GiB of memory; about 1.48 s a command"
    assert why(3.2, TWO_XEON_CORES) == expected
    assert "though memory is short" in why(0.1, SERVER)
    assert "though about 4." in why(8, PI_4)


# The yardstick


@pytest.mark.parametrize(
    ("yardstick_s", "model", "milliseconds"),
    [
        # Official shapes, random weights, int8, two cores of a Xeon with AVX-512 VNNI.
        (TWO_XEON_CORES, "tiny", 597 + 108),
        (TWO_XEON_CORES, "base", 1248 + 246),
        # tiny.en and base, int8, two cores of an EPYC with AVX-512 VNNI.
        (TWO_EPYC_CORES, "tiny", 162 + 54),
        (TWO_EPYC_CORES, "base", 273 + 87),
        # The same, on one core of another.
        (ONE_EPYC_CORE, "tiny", 342),
        (ONE_EPYC_CORE, "base", 632),
    ],
)
def test_the_table_tells_the_times_measured_of_a_full_window_and_12_tokens(
    yardstick_s: float, model: str, milliseconds: float
) -> None:
    ram_gib = {"tiny": 0.6, "base": 0.7}[model]  # the best that fits
    why = machine(ram_gib).choose(yardstick_s, english=False, int8=True).why
    said = re.search(r"about (\d\.\d\d) s a command", why)
    assert said
    assert float(said[1]) == pytest.approx(milliseconds / 1000, rel=0.15)


@pytest.mark.parametrize("compute_type", ["default", "float32"])
def test_this_machine_is_measured(monkeypatch: pytest.MonkeyPatch, compute_type: str) -> None:
    monkeypatch.undo()
    assert 0 < autopick._yardstick_s(1, compute_type) < 600


def test_the_yardstick_is_a_whisper_of_the_shape_asked_for(tmp_path: Path) -> None:
    autopick._write_yardstick(tmp_path, 128, 3, 80)
    shapes = ModelFolder(tmp_path).shapes
    assert shapes["encoder/conv1/weight"] == (128, 80, 3)
    assert shapes["encoder/position_encodings/encodings"] == (1500, 128)
    layers = {name.split("/")[1] for name in shapes if re.match(r"encoder/layer_\d", name)}
    assert layers == {"layer_0", "layer_1", "layer_2"}
    model = ctranslate2.models.Whisper(str(tmp_path), device="cpu", intra_threads=1)
    mel = np.linspace(-1, 1, 80 * 400, dtype=np.float32).reshape(1, 80, 400)
    states = model.encode(ctranslate2.StorageView.from_array(mel), to_cpu=True)
    assert states.shape == [1, 200, 128]
    assert np.isfinite(np.array(states)).all()  # other numbers take another time


def test_no_temporary_folder_means_a_guess(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(autopick, "_yardstick_s", MEASURE)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    assert AutoModel(settings).pick() == "tiny-int8"
    assert not (settings.data_dir[0] / "measured.json").exists()


# Remembering


def test_choice_is_remembered(settings: Settings, fake_machine: list[str]) -> None:
    assert AutoModel(settings).pick() == AutoModel(settings).pick() == "base-int8"
    assert len(fake_machine) == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"language": "en-GB"},
        {"compute_type": "float32"},
    ],
)
def test_other_settings_are_another_choice(
    settings: Settings, fake_machine: list[str], changed: dict[str, str]
) -> None:
    AutoModel(settings).pick()
    AutoModel(replace(settings, **changed)).pick()  # type: ignore[arg-type]
    assert len(fake_machine) == 2


@pytest.mark.parametrize("changed", [{"cpu": "another"}, {"threads": 2}, {"ram_gib": 1.0}])
def test_another_machine_is_another_choice(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any]
) -> None:
    AutoModel(settings).pick()
    before = (settings.data_dir[0] / "measured.json").read_text()
    other = replace(machine(), **changed)
    monkeypatch.setattr(_Machine, "here", lambda settings: other)
    AutoModel(settings).pick()
    assert (settings.data_dir[0] / "measured.json").read_text() != before


def test_new_version_decides_anew(
    settings: Settings, fake_machine: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    AutoModel(settings).pick()
    monkeypatch.setattr(autopick, "__version__", "999")
    AutoModel(settings).pick()
    assert len(fake_machine) == 2


@pytest.mark.parametrize("result", [None, [], {}, {"model": "home-en", "why": ""}, "base"])
def test_damaged_memory_is_written_anew(
    settings: Settings, fake_machine: list[str], result: object
) -> None:
    AutoModel(settings).pick()
    memory = settings.data_dir[0] / "measured.json"
    good = memory.read_bytes()
    memory.write_text(json.dumps(dict.fromkeys(json.loads(good), result)))
    assert AutoModel(settings).pick() == "base-int8"
    assert memory.read_bytes() == good
    assert len(fake_machine) == 2


def test_folder_that_can_not_be_written(settings: Settings, fake_machine: list[str]) -> None:
    settings.data_dir[0].write_text("a file where the folder should be")
    assert AutoModel(settings).pick() == AutoModel(settings).pick() == "base-int8"
    assert len(fake_machine) == 1  # kept for as long as the process runs
    assert AutoModel(replace(settings, data_dir=())).pick() == "base-int8"


def test_guess_is_not_remembered(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> float:
        raise RuntimeError("CTranslate2 can't")

    monkeypatch.setattr(autopick, "_yardstick_s", broken)
    assert AutoModel(settings).pick() == "tiny-int8"
    assert not (settings.data_dir[0] / "measured.json").exists()


def test_choice_is_logged_once(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    AutoModel(settings).pick()
    AutoModel(settings).pick()
    expected = "auto: base-int8, because 4 threads, NEON, 8.0 GiB of memory; about 1.48 s a command"
    assert caplog.messages == [expected]


# Having it


@pytest.fixture
def tiny_hub(hub: HubStandin, monkeypatch: pytest.MonkeyPatch) -> HubStandin:
    """A hub whose tiny-int8 is what this slow machine gets."""
    hub.repos["rhasspy/faster-whisper-tiny-int8"] = MODEL_FILES
    monkeypatch.setattr(autopick, "_yardstick_s", lambda *args: PI_4)
    return hub


def test_auto_downloads_its_choice(tiny_hub: HubStandin, settings: Settings) -> None:
    name, path = AutoModel(settings).ensure()
    assert name == "tiny-int8"
    assert path == ModelStore(settings).find(name)
    assert "faster-whisper-tiny-int8" in str(path)


def test_finding_auto_measures_nothing(settings: Settings, fake_machine: list[str]) -> None:
    store = ModelStore(settings)
    for find in (store.find, store.ensure):
        with pytest.raises(ModelError, match="auto is a choice, not a model"):
            find("auto")
    assert fake_machine == []


@pytest.mark.parametrize(
    ("language", "expected"), [("auto", "base"), ("en", "base.en"), ("de", "base")]
)
def test_offline_auto_takes_the_best_that_is_here(
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
    language: str,
    expected: str,
) -> None:
    data = settings.data_dir[0]
    for name in ("tiny", "base", "base.en", "small", "large-v3"):
        write_cache(data, STOCK_MODELS[name].repo, model_files(n_tokens=200))
    settings = replace(settings, local_files_only=True, language=language)
    if language == "en":  # its choice is there: nothing to replace
        assert AutoModel(settings).ensure() == ("base.en", ModelStore(settings).find("base.en"))
        return
    assert AutoModel(settings).ensure() == (expected, ModelStore(settings).find(expected))
    assert f"auto: using {expected}, which is here, because model base-int8" in caplog.text


def test_offline_auto_takes_none_that_does_not_know_the_language(settings: Settings) -> None:
    write_cache(settings.data_dir[0], STOCK_MODELS["tiny.en"].repo)
    settings = replace(settings, local_files_only=True, language="de")
    with pytest.raises(ModelUnavailableError, match="auto: model base-int8"):
        AutoModel(settings).ensure()


@pytest.mark.parametrize(
    ("shipped", "language", "expected"),
    [
        ("tiny.en", "en", "tiny.en"),
        ("tiny.en", "auto", "tiny.en"),
        ("tiny.en", "de", "base-int8"),
        ("base", "de-AT", "base"),
        ("", "de", "base-int8"),
    ],
)
def test_auto_is_the_model_that_came_along(
    settings: Settings, shipped: str, language: str, expected: str
) -> None:
    ModelStore.SHIPPED.mkdir()
    (ModelStore.SHIPPED / ModelStore.SHIPPED_NAME).write_text(f"{shipped}\n")
    assert AutoModel(replace(settings, language=language)).pick() == expected


def test_what_came_along_is_found_and_no_download_goes_there(
    hub: HubStandin, settings: Settings
) -> None:
    shipped = write_folder(ModelStore.SHIPPED / "faster-whisper-base")
    (ModelStore.SHIPPED / ModelStore.SHIPPED_NAME).write_text("base")
    assert AutoModel(replace(settings, local_files_only=True)).ensure() == ("base", shipped)
    assert ModelStore(settings).find("base") == shipped
    assert hub.requests == []
    assert ModelStore(settings).ensure("tiny").is_relative_to(settings.data_dir[0])
    with pytest.raises(ModelUnavailableError, match="set --data-dir"):
        ModelStore(replace(settings, data_dir=())).ensure("tiny")


def test_the_best_that_is_here(settings: Settings) -> None:
    assert AutoModel(settings).best_here() is None
    for name in ("tiny", "base.en"):
        write_cache(settings.data_dir[0], STOCK_MODELS[name].repo, model_files(n_tokens=200))
    assert AutoModel(settings).best_here() == ("tiny", ModelStore(settings).find("tiny"))
    english = replace(settings, language="en")
    assert AutoModel(english).best_here() == ("base.en", ModelStore(settings).find("base.en"))
