"""The stages of one utterance: their medians, their table, and those of a model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.speed import profile

AUDIO = Path(__file__).parents[2] / "audio"
SHORTEST = "04-clean.flac"


def test_stages_in_their_order() -> None:
    found = profile.medians(
        [
            {"vad": 1.0, "pcm": 2.0, "encode": 1.0},
            {"vad": 2.0, "pcm": 2.0, "encode": 3.0, "detect": 0.1},
            {"vad": 9.0, "pcm": 2.0, "encode": 2.0},
        ]
    )
    assert list(found.items()) == [("pcm", 2.0), ("vad", 2.0), ("encode", 2.0), ("detect", 0.0)]


def test_table() -> None:
    seconds = {"pcm": 0.001, "vad": 0.002, "mel": 0.01, "encode": 0.02, "decode": 0.01}
    heard = profile.Heard("stop it", 3.0, 2.0, 4)
    told = profile.show(seconds, heard)
    (encode,) = (row for row in told.splitlines() if row.startswith("| encode"))
    assert [cell.strip() for cell in encode.split("|")[2:-1]] == ["then", "20.0 ms", "50.0 %"]
    assert "after the audio: 40.0 ms" in told
    assert "4 tokens, 2.50 ms each" in told


def test_profile_of_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "profile.json"
    argv = ["--runs", "1", "--audio", str(AUDIO / SHORTEST), "--json", str(file)]
    assert main(["profile", *argv]) == 0
    written = json.loads(file.read_text())
    assert list(written["seconds"]) == ["pcm", "vad", "mel", "encode", "decode", "evidence", "rest"]
    assert "after the audio" in capsys.readouterr().out


def test_profile_of_a_model_that_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["profile", "--model", str(tmp_path)]) == 1
    assert "benchmarks profile: " in capsys.readouterr().err
