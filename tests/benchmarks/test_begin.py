"""benchmarks.begin: when work would begin, and for nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import begin
from benchmarks.begin import SILENCES, main, starts
from tests.support import AUDIO, HOME_EN, LoudnessVad, clips, loud, quiet
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


def corpus(folder: Path) -> Path:
    """Two recordings of different parts, with what is said in them."""
    rows = []
    for number, clip in enumerate(clips("clean")[:2]):
        (folder / clip.file).write_bytes((AUDIO / clip.file).read_bytes())
        row = {"file": clip.file, "text": clip.text, "lang": "en", "kind": "command"}
        rows.append({**row, "voice": "human", "source": str(number)})
    manifest = "\n".join(json.dumps(row) for row in rows)
    (folder / "manifest.jsonl").write_text(manifest)
    return folder


def test_the_command_prints_a_row_for_each_silence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(begin, "SILENCES", SILENCES[-2:])
    report = tmp_path / "begin.json"
    (tmp_path / "corpus").mkdir()
    folder = corpus(tmp_path / "corpus")
    arguments = ["--model", str(HOME_EN), "--threads", "1", "--corpus", str(folder)]
    arguments += ["--recordings", str(folder), "--part", "all", "--json", str(report)]
    assert main(arguments) == 0
    rows = json.loads(report.read_text())["rows"]
    assert [row["silence"] for row in rows] == list(SILENCES[-2:])
    assert all(row["clean"]["words"] and row["recordings"] == 4 for row in rows)
    assert all(row["jobs"] >= row["recordings"] for row in rows)
    assert rows[0]["delay"] < rows[1]["delay"]
    assert f"{SILENCES[-2]:.2f} s |" in capsys.readouterr().out


def test_a_folder_without_a_manifest_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--model", str(HOME_EN), "--corpus", str(tmp_path)]) == 1
    assert "manifest.jsonl" in capsys.readouterr().err
