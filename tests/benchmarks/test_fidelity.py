"""benchmarks.fidelity, on a few clips."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import fidelity
from benchmarks.fidelity import Text, recordings, row, without_gate
from tests.support import AUDIO, HOME_EN

FACTS = "wyoming_whisper.json"


def test_rows_count_what_is_the_same() -> None:
    reference = [Text("turn it on", -0.1), Text("a b", -0.2), Text("c", -0.3)]
    found = [Text("turn it on", -0.2), Text("a d", -0.2), Text("c", -0.3)]
    counted = row("x", ["turn it on", "a b", ""], found, reference)
    assert (counted.same, counted.clips) == (2, 3)
    assert counted.apart == pytest.approx(0.05)
    assert counted.wer == pytest.approx(1 / 5)  # what has no words doesn't count


def test_the_copy_differs_in_the_gate_alone(tmp_path: Path) -> None:
    told = json.loads((HOME_EN / FACTS).read_text())
    copied = without_gate(HOME_EN, tmp_path / "copy")
    del told["min_avg_logprob"]
    assert json.loads((copied / FACTS).read_text()) == told
    assert (copied / "model.bin").samefile(HOME_EN / "model.bin")


def test_folders_without_labels_are_heard_too(tmp_path: Path) -> None:
    (tmp_path / "one.flac").symlink_to(AUDIO / "02-clean.flac")
    (clip,) = recordings([tmp_path], None)
    assert (clip.file, clip.text) == ("one.flac", "")
    assert len(clip.samples) > 16000


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.json"
    assert fidelity.main(["--limit", "2", "--json", str(report)]) == 0
    rows = json.loads(report.read_text())["rows"]
    names = [found["name"] for found in rows]
    assert names[:2] == ["faster-whisper, float32", "faster-whisper, int8"]
    assert names[2].startswith("onnxruntime, ")
    assert rows[0]["same"] == rows[0]["clips"] >= 4
    assert all(name in capsys.readouterr().out for name in names[:1])
