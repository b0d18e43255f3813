"""benchmarks.begin: when work would begin, and for nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import begin
from benchmarks.begin import SILENCES, main, mixed, starts
from tests.support import LoudnessVad, loud, quiet
from wyoming_whisper.vad import SpanOptions

OPTIONS = SpanOptions(pad_before_seconds=0.0, pad_after_seconds=0.2)


def test_a_pause_that_is_longer_has_work_begin_for_nothing() -> None:
    found = starts(np.concatenate([loud(0.512), quiet(0.512), loud(0.512)]), LoudnessVad(), OPTIONS)
    assert found is not None
    assert found.jobs == 2
    assert found.wasted == pytest.approx((0.512 + 0.2) * 16000, abs=1024)
    assert found.speech == pytest.approx((3 * 0.512 + 0.2) * 16000, abs=1024)
    assert 0.2 <= found.delay <= 0.2 + 0.096


def test_a_pause_that_is_shorter_has_not() -> None:
    found = starts(np.concatenate([loud(0.512), quiet(0.128), loud(0.512)]), LoudnessVad(), OPTIONS)
    assert found is not None
    assert (found.jobs, found.wasted) == (1, 0)


def test_where_nobody_speaks_nothing_begins() -> None:
    assert starts(quiet(1.0), LoudnessVad(), OPTIONS) is None


def test_noise_is_as_far_below_speech_as_it_should_be() -> None:
    speech, noise = np.ones(1000, np.float32), np.full(300, 7.0, np.float32)
    assert np.allclose(mixed(speech, noise, 3) - speech, 10 ** (-10 / 20), atol=1e-3)


def test_the_command_prints_a_row_for_each_silence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(begin, "SILENCES", SILENCES[-2:])
    report = tmp_path / "begin.json"
    assert main(["--limit", "2", "--json", str(report)]) == 0
    rows = json.loads(report.read_text())["rows"]
    assert [row["silence"] for row in rows] == [0.3, 0.4]
    assert all(row["clean"]["words"] and row["jobs"] >= row["recordings"] for row in rows)
    assert rows[0]["delay"] < rows[1]["delay"]
    assert "0.30 s |" in capsys.readouterr().out


def test_a_folder_without_labels_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--clips", str(tmp_path)]) == 1
    assert "labels.json" in capsys.readouterr().err
