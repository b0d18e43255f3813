"""How many threads are used: what is tried, what wins, and that it is asked once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import HOME_EN
from wyoming_whisper.backends import faster_whisper
from wyoming_whisper.backends.pipeline import (
    WhisperTranscriber,
)
from wyoming_whisper.machine.host import HOST, Host
from wyoming_whisper.machine.measured import Measurements
from wyoming_whisper.models.folder import ModelFolder
from wyoming_whisper.settings.options import Settings
from wyoming_whisper.whisper.inference import GenerateOptions, Hypothesis, Inference

GIB = 1024**3


def fastest(
    counts: list[int], seconds: Callable[[int], float], memory: Measurements, name: str
) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Host, "_thread_counts", lambda _: counts)
        return HOST.fastest_threads(seconds, memory, name)


def timed(times: dict[int, float], asked: list[int]) -> Callable[[int], float]:
    def seconds(count: int) -> float:
        asked.append(count)
        return times[count]

    return seconds


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ({4: 0.2, 8: 0.3}, 4),
        ({4: 0.2, 8: 0.1}, 8),
        ({4: 0.2, 8: 0.195}, 4),  # noise
        ({8: 0.3, 4: 0.1, 2: 0.2}, 4),
    ],
)
def test_another_number_must_pay(times: dict[int, float], expected: int, tmp_path: Path) -> None:
    assert fastest(list(times), timed(times, []), Measurements([tmp_path]), "m") == expected


def test_it_is_measured_once_for_a_model_and_a_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    measure = timed({4: 0.2, 8: 0.1}, asked)
    memory = Measurements([tmp_path / "data"])
    assert fastest([4, 8], measure, memory, "base") == 8
    assert fastest([4, 8], measure, memory, "base") == 8
    assert asked == [4, 8]
    fastest([4, 8], measure, memory, "small")
    monkeypatch.setattr(Host, "cpu_name", "another")
    fastest([4, 8], measure, memory, "base")
    assert len(asked) == 6
    assert len(json.loads((tmp_path / "data" / memory.FILE).read_text())) == 3


@pytest.mark.parametrize("content", ["", "[]", "{", '{"x": 3}', "\xff"])
def test_a_memory_that_is_damaged_is_written_anew(content: str, tmp_path: Path) -> None:
    memory = Measurements([tmp_path])
    (tmp_path / memory.FILE).write_bytes(content.encode("latin-1"))
    assert fastest([4, 8], timed({4: 0.2, 8: 0.1}, []), memory, "base") == 8
    assert 8 in json.loads((tmp_path / memory.FILE).read_text()).values()


def test_a_number_remembered_from_another_container_is_not_used(tmp_path: Path) -> None:
    memory = Measurements([tmp_path])
    fastest([4, 8], timed({4: 0.2, 8: 0.1}, []), memory, "base")
    asked: list[int] = []
    assert fastest([2, 4], timed({2: 0.2, 4: 0.2}, asked), memory, "base") == 2
    assert asked == [2, 4]


def test_a_folder_that_is_read_only_is_no_reason_to_stop(tmp_path: Path) -> None:
    memory = Measurements([tmp_path / "file"])
    (tmp_path / "file").touch()
    assert fastest([4, 8], timed({4: 0.2, 8: 0.1}, []), memory, "base") == 8


def test_fast_cores_are_told_from_slow_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(Host, "_quota_cores", 99)
    cpus = tmp_path / "sys" / "devices" / "system" / "cpu"
    for number in range(8):
        (cpus / f"cpu{number}").mkdir(parents=True)
        capacity = "1024\n" if number >= 4 else "530\n"
        (cpus / f"cpu{number}" / "cpu_capacity").write_text(capacity)
    assert Host(tmp_path)._fast_cores == 4
    monkeypatch.setattr(Host, "_quota_cores", 3)
    assert Host(tmp_path)._fast_cores == 3
    nothing = Host(tmp_path / "nothing")
    assert nothing._fast_cores == nothing.cores


def test_only_numbers_that_differ_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(Host, "_quota_cores", 99)
    for name in ("cores", "_fast_cores"):
        monkeypatch.setattr(Host, name, 4)
    assert HOST._thread_counts() == [4, 8]
    monkeypatch.setattr(Host, "_quota_cores", 4)
    assert HOST._thread_counts() == [4]


class Counting(Inference):
    """An Inference that remembers what it was asked."""

    n_mels = 80

    def __init__(self) -> None:
        self.asked: list[GenerateOptions] = []

    def encode(self, mel: Any) -> Any:
        assert mel.dtype == np.float32
        return mel

    def detect_language(self, audio_features: Any) -> list[tuple[str, float]]:
        raise AssertionError("nobody asked")

    def generate(self, audio_features: Any, prompt: Any, options: GenerateOptions) -> Hypothesis:
        self.asked.append(options)
        return Hypothesis([], 0.0, 0.0)

    def score(self, audio_features: Any, prompt: Any, texts: Any) -> Any:
        raise AssertionError("nobody asked")


def test_every_measurement_decodes_as_many_tokens() -> None:
    tokenizer = ModelFolder(HOME_EN).tokenizer
    inference = Counting()
    assert (
        WhisperTranscriber.time_command(inference, tokenizer, 5, WhisperTranscriber.COMMAND_FRAMES)
        >= 0
    )
    (options,) = inference.asked
    assert options.max_new_tokens == 10
    assert tokenizer.eot in options.suppressed_tokens


@pytest.mark.parametrize(("wanted", "expected"), [(0, 1), (2, 2)])
def test_the_model_is_opened_with_what_was_measured_unless_the_user_says(
    wanted: int, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Host, "_thread_counts", lambda _: [2, 1])
    n_runs = WhisperTranscriber.COMMAND_RUNS
    times = iter([0.2] * n_runs + [0.1] * n_runs)
    monkeypatch.setattr(WhisperTranscriber, "time_command", lambda *_: next(times))
    settings = Settings(model=str(HOME_EN), data_dir=(tmp_path,), cpu_threads=wanted)
    opened = faster_whisper.open_faster_whisper(settings, HOME_EN)
    assert f"{expected} threads" in opened.description
    assert (tmp_path / Measurements.FILE).exists() == (wanted == 0)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8 * GIB),
        ({"memory.max": "max\n"}, 8 * GIB),
        ({"memory.max": str(2 * GIB)}, 2 * GIB),
        ({"memory/memory.limit_in_bytes": str(GIB)}, GIB),
        ({"memory/memory.limit_in_bytes": str(2**63 - 4096)}, 8 * GIB),
    ],
)
def test_memory_of_machine_and_container(
    tmp_path: Path, files: dict[str, str], expected: int
) -> None:
    proc, cgroup = tmp_path / "proc", tmp_path / "sys" / "fs" / "cgroup"
    proc.mkdir()
    (proc / "meminfo").write_text(
        f"MemTotal:  {8 * GIB // 1024} kB\nMemAvailable:  {GIB // 1024} kB\nHugePages: 0\n"
    )
    (cgroup / "memory").mkdir(parents=True)
    for name, content in files.items():
        (cgroup / name).write_text(content)
    assert Host(tmp_path).ram_bytes == expected


def test_no_proc_means_no_memory_known(tmp_path: Path) -> None:
    assert Host(tmp_path).ram_bytes == 0
