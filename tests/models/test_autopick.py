from __future__ import annotations

import json
import logging
import re
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import ctranslate2
import numpy as np
import pytest

from tests.models.conftest import MODEL_FILES, REPO
from tests.models.fakes import FakeSettings, model_files, write_cache, write_folder
from tests.models.hub_standin import HubStandin
from wyoming_whisper.engine.tensorrt.cuda import Gpu
from wyoming_whisper.errors import ModelUnavailableError, UnknownModelError
from wyoming_whisper.models import autopick
from wyoming_whisper.models.autopick import (
    SHAPES,
    Machine,
    Rates,
    Work,
    best_here,
    choose,
    choose_for_gpu,
    encoder_work,
    ensure_auto,
    pick_model,
    ram_bytes,
    solve_rates,
    work_of,
)
from wyoming_whisper.models.find import ensure_model, find_model
from wyoming_whisper.models.folder import ModelFolder
from wyoming_whisper.models.stock import STOCK_MODELS
from wyoming_whisper.models.store import ModelStore
from wyoming_whisper.models.yardstick import write_yardstick

GIB = 1024**3
MEASURE_RATES = autopick.measure_rates  # tests replace it
PI_4 = Rates(20e9, 6e9)
TWO_XEON_CORES = Rates(347e9, 26e9)  # of the latencies measured with official shapes, below
TWO_EPYC_CORES = Rates(592e9, 138e9)  # measured with the yardstick, beside stock weights, below
DESKTOP = Rates(1_500e9, 150e9)
SERVER = Rates(6_000e9, 800e9)


def machine(ram_gib: float = 8.0) -> Machine:
    return Machine("a CPU", 4, "NEON", int(ram_gib * GIB))


def gpu(gib: float, *, integrated: bool = False) -> Gpu:
    return Gpu(0, "RTX", (8, 6), int(gib * GIB), integrated, (12, 6))


@pytest.fixture(autouse=True)
def fake_machine(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A machine that answers base in time; returns the list to which measurements are added."""
    measured: list[str] = []

    def measure(threads: int, compute_type: str) -> Rates:
        measured.append(compute_type)
        return TWO_XEON_CORES

    monkeypatch.setattr(autopick, "look_at_machine", lambda settings: machine())
    monkeypatch.setattr(autopick, "measure_rates", measure)
    autopick._say_once.cache_clear()
    return measured


# The choice


@pytest.mark.parametrize(
    ("rates", "ram_gib", "english", "expected"),
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
def test_choice(rates: Rates, ram_gib: float, english: bool, expected: str) -> None:
    assert choose(machine(ram_gib), rates, english=english).model == expected


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
    choice = choose_for_gpu(gpu(memory, integrated=integrated), english=english)
    assert choice.model == expected
    assert f"a RTX with {memory:.1f} GiB" in choice.why
    assert ("shared with the system" in choice.why) is integrated


def test_for_a_gpu_the_cpu_is_not_measured(
    settings: FakeSettings, fake_machine: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert pick_model(settings, gpu(8)) == "turbo"
    assert fake_machine == []
    assert caplog.messages == ["auto: turbo, because a RTX with 8.0 GiB"]
    assert pick_model(settings) == "base-int8"


def test_int8_is_not_stored_where_it_is_not_computed() -> None:
    assert choose(machine(), DESKTOP, english=False, int8=False).model == "small"


def test_choice_says_why() -> None:
    why = choose(machine(3.2), TWO_XEON_CORES, english=True).why
    assert why == "4 threads, NEON, 3.2 GiB of memory; about 1.43 s a command"
    assert "though memory is short" in choose(machine(0.1), SERVER, english=True).why
    assert "though about 4." in choose(machine(), PI_4, english=True).why


# The arithmetic


@pytest.mark.parametrize(
    ("model", "n_positions", "milliseconds"),
    [("tiny", 1500, 597), ("tiny", 500, 81), ("base", 1500, 1248), ("base", 500, 175)],
)
def test_two_rates_tell_the_times_measured(
    model: str, n_positions: int, milliseconds: float
) -> None:
    """Official shapes, random weights, int8, two cores of a Xeon with AVX-512 VNNI."""
    seconds = TWO_XEON_CORES.seconds(encoder_work(SHAPES[model], n_positions))
    assert seconds == pytest.approx(milliseconds / 1000, rel=0.05)


@pytest.mark.parametrize(("model", "milliseconds"), [("tiny", 72), ("base", 164)])
def test_decoder_takes_about_the_time_measured(model: str, milliseconds: float) -> None:
    shape = SHAPES[model]
    work = work_of(shape, n_tokens=8)
    decoder = TWO_XEON_CORES.seconds(work) - TWO_XEON_CORES.seconds(encoder_work(shape, 1500))
    assert decoder == pytest.approx(milliseconds / 1000, rel=0.1)


@pytest.mark.parametrize(
    ("model", "encoder_ms", "decoder_ms"), [("tiny", 162, 54), ("base", 273, 87)]
)
def test_the_yardstick_tells_the_times_of_stock_weights(
    model: str, encoder_ms: float, decoder_ms: float
) -> None:
    """tiny.en and base, int8, full window, 12 tokens, two cores of an EPYC with AVX-512 VNNI."""
    encoder = TWO_EPYC_CORES.seconds(encoder_work(SHAPES[model], 1500))
    decoder = TWO_EPYC_CORES.seconds(work_of(SHAPES[model])) - encoder
    assert encoder == pytest.approx(encoder_ms / 1000, rel=0.2)
    assert decoder == pytest.approx(decoder_ms / 1000, rel=0.3)


def test_rates_are_solved_from_two_times() -> None:
    works = encoder_work(SHAPES["tiny"], 1500), encoder_work(SHAPES["tiny"], 250)
    times = TWO_XEON_CORES.seconds(works[0]), TWO_XEON_CORES.seconds(works[1])
    solved = solve_rates(works, times)
    assert solved.matrices == pytest.approx(TWO_XEON_CORES.matrices)
    assert solved.attention == pytest.approx(TWO_XEON_CORES.attention)


def test_noise_gives_one_rate() -> None:
    assert solve_rates((Work(100, 100), Work(100, 10)), (2.0, 3.0)) == Rates(100, 100)


@pytest.mark.parametrize("compute_type", ["default", "float32"])
def test_this_machine_is_measured(monkeypatch: pytest.MonkeyPatch, compute_type: str) -> None:
    monkeypatch.undo()
    rates = autopick.measure_rates(1, compute_type)
    assert 1e8 < rates.matrices < 1e14
    assert 1e8 < rates.attention < 1e14


def test_the_yardstick_is_a_whisper_of_the_shape_asked_for(tmp_path: Path) -> None:
    write_yardstick(tmp_path, 128, 3, 80)
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
    settings: FakeSettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(autopick, "measure_rates", MEASURE_RATES)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    assert pick_model(settings) == "tiny-int8"
    assert not (settings.data_dir[0] / "auto.json").exists()


# The memory


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, (8 * GIB, 4 * GIB)),
        ({"memory.max": "max\n", "memory.current": "5"}, (8 * GIB, 4 * GIB)),
        ({"memory.max": str(2 * GIB), "memory.current": str(GIB)}, (2 * GIB, GIB)),
        ({"memory.max": str(6 * GIB), "memory.current": str(GIB)}, (6 * GIB, 4 * GIB)),
        (
            {"memory/memory.limit_in_bytes": str(GIB), "memory/memory.usage_in_bytes": "0"},
            (GIB, GIB),
        ),
        ({"memory/memory.limit_in_bytes": str(2**63 - 4096)}, (8 * GIB, 4 * GIB)),
    ],
)
def test_memory_of_machine_and_container(
    tmp_path: Path, files: dict[str, str], expected: tuple[int, int]
) -> None:
    (tmp_path / "meminfo").write_text(
        f"MemTotal:  {8 * GIB // 1024} kB\nMemAvailable:  {4 * GIB // 1024} kB\nHugePages: 0\n"
    )
    (tmp_path / "memory").mkdir()
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    assert ram_bytes(tmp_path / "meminfo", tmp_path) == expected


def test_no_proc_means_no_memory_known(tmp_path: Path) -> None:
    assert ram_bytes(tmp_path / "meminfo", tmp_path) == (0, 0)


# Remembering


def test_choice_is_remembered(settings: FakeSettings, fake_machine: list[str]) -> None:
    assert pick_model(settings) == pick_model(settings) == "base-int8"
    assert len(fake_machine) == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"language": "en-GB"},
        {"compute_type": "float32"},
    ],
)
def test_other_settings_are_another_choice(
    settings: FakeSettings, fake_machine: list[str], changed: dict[str, str]
) -> None:
    pick_model(settings)
    pick_model(replace(settings, **changed))  # type: ignore[arg-type]
    assert len(fake_machine) == 2


@pytest.mark.parametrize("changed", [{"cpu": "another"}, {"threads": 2}, {"ram_bytes": GIB}])
def test_another_machine_is_another_choice(
    settings: FakeSettings, monkeypatch: pytest.MonkeyPatch, changed: dict[str, int]
) -> None:
    pick_model(settings)
    before = (settings.data_dir[0] / "auto.json").read_text()
    other = replace(machine(), **changed)  # type: ignore[arg-type]
    monkeypatch.setattr(autopick, "look_at_machine", lambda settings: other)
    pick_model(settings)
    assert (settings.data_dir[0] / "auto.json").read_text() != before


def test_new_version_decides_anew(
    settings: FakeSettings, fake_machine: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pick_model(settings)
    monkeypatch.setattr(autopick, "__version__", "999")
    pick_model(settings)
    assert len(fake_machine) == 2


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"{}", b"\xff", b'{"key": 1, "choice": {}}', "other model"],
)
def test_damaged_memory_is_written_anew(
    settings: FakeSettings, fake_machine: list[str], content: bytes | str
) -> None:
    pick_model(settings)
    memory = settings.data_dir[0] / "auto.json"
    good = memory.read_bytes()
    if isinstance(content, str):
        saved = json.loads(good)
        content = json.dumps({**saved, "choice": {"model": "home-en", "why": ""}}).encode()
    memory.write_bytes(content)
    assert pick_model(settings) == "base-int8"
    assert memory.read_bytes() == good
    assert len(fake_machine) == 2


def test_folder_that_can_not_be_written(settings: FakeSettings, fake_machine: list[str]) -> None:
    settings.data_dir[0].write_text("a file where the folder should be")
    assert pick_model(settings) == pick_model(settings) == "base-int8"
    assert len(fake_machine) == 2
    assert pick_model(replace(settings, data_dir=())) == "base-int8"


def test_guess_is_not_remembered(settings: FakeSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> Rates:
        raise RuntimeError("CTranslate2 can't")

    monkeypatch.setattr(autopick, "measure_rates", broken)
    assert pick_model(settings) == "tiny-int8"
    assert not (settings.data_dir[0] / "auto.json").exists()


def test_choice_is_logged_once(settings: FakeSettings, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    pick_model(settings)
    pick_model(settings)
    expected = "auto: base-int8, because 4 threads, NEON, 8.0 GiB of memory; about 1.43 s a command"
    assert caplog.messages == [expected]


# Having it


@pytest.fixture
def tiny_hub(hub: HubStandin, monkeypatch: pytest.MonkeyPatch) -> HubStandin:
    """A hub whose tiny-int8 is what this slow machine gets."""
    hub.repos["rhasspy/faster-whisper-tiny-int8"] = MODEL_FILES
    monkeypatch.setattr(autopick, "measure_rates", lambda *args: PI_4)
    return hub


def test_auto_downloads_its_choice(tiny_hub: HubStandin, settings: FakeSettings) -> None:
    name, path = ensure_auto(settings)
    assert name == "tiny-int8"
    assert path == find_model(name, settings)
    assert "faster-whisper-tiny-int8" in str(path)


def test_finding_auto_measures_nothing(settings: FakeSettings, fake_machine: list[str]) -> None:
    for find in (find_model, ensure_model):
        with pytest.raises(UnknownModelError, match="auto is a choice, not a model"):
            find("auto", settings)
    assert fake_machine == []


@pytest.mark.parametrize(
    ("language", "expected"), [("auto", "base"), ("en", "base.en"), ("de", "base")]
)
def test_offline_auto_takes_the_best_that_is_here(
    settings: FakeSettings,
    caplog: pytest.LogCaptureFixture,
    language: str,
    expected: str,
) -> None:
    data = settings.data_dir[0]
    for name in ("tiny", "base", "base.en", "small", "large-v3"):
        write_cache(data, STOCK_MODELS[name].repo, model_files(n_tokens=200))
    settings = replace(settings, local_files_only=True, language=language)
    autopick._remember(data / "auto.json", {}, autopick.Choice("x", ""))
    if language == "en":  # its choice is there: nothing to replace
        assert ensure_auto(settings) == ("base.en", find_model("base.en", settings))
        return
    assert ensure_auto(settings) == (expected, find_model(expected, settings))
    assert f"auto: using {expected}, which is here, because model base-int8" in caplog.text


def test_offline_auto_takes_none_that_does_not_know_the_language(settings: FakeSettings) -> None:
    write_cache(settings.data_dir[0], STOCK_MODELS["tiny.en"].repo)
    settings = replace(settings, local_files_only=True, language="de")
    with pytest.raises(ModelUnavailableError, match="auto: model base-int8"):
        ensure_auto(settings)


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
    settings: FakeSettings, shipped: str, language: str, expected: str
) -> None:
    ModelStore.SHIPPED.mkdir()
    (ModelStore.SHIPPED / ModelStore.SHIPPED_NAME).write_text(f"{shipped}\n")
    assert pick_model(replace(settings, language=language)) == expected


def test_what_came_along_is_found_and_no_download_goes_there(
    hub: HubStandin, settings: FakeSettings
) -> None:
    shipped = write_folder(ModelStore.SHIPPED / "faster-whisper-base")
    (ModelStore.SHIPPED / ModelStore.SHIPPED_NAME).write_text("base")
    assert ensure_auto(replace(settings, local_files_only=True)) == ("base", shipped)
    assert find_model("base", settings) == shipped
    assert hub.requests == []
    assert ensure_model("tiny", settings).is_relative_to(settings.data_dir[0])
    with pytest.raises(ModelUnavailableError, match="set --data-dir"):
        ensure_model("tiny", replace(settings, data_dir=()))


def test_the_best_that_is_here(settings: FakeSettings) -> None:
    assert best_here(settings) is None
    for name in ("tiny", "base.en"):
        write_cache(settings.data_dir[0], STOCK_MODELS[name].repo, model_files(n_tokens=200))
    assert best_here(settings) == ("tiny", find_model("tiny", settings))
    english = replace(settings, language="en")
    assert best_here(english) == ("base.en", find_model("base.en", settings))


def test_stopped_auto_does_not_look_elsewhere(tiny_hub: HubStandin, settings: FakeSettings) -> None:
    write_cache(settings.data_dir[0], REPO, MODEL_FILES)
    stop = threading.Event()
    stop.set()
    with pytest.raises(ModelUnavailableError, match="was stopped"):
        ensure_auto(settings, stop=stop)
