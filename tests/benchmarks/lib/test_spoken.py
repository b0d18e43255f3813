"""Sentences that synthesizers speak: what becomes of them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.lib import spoken
from benchmarks.lib.clips import read_clips
from benchmarks.lib.errors import ClipError
from benchmarks.lib.spoken import PEAK, Sentence, in_a_room, speak
from benchmarks.lib.synthesizers import VOICES
from tests.support import loud

STAND_IN = """
import json, sys, wave
for line in sys.stdin:
    job = json.loads(line)
    assert 0.9 <= job["pace"] <= 1.3 and job["lang"] == "en"
    with wave.open(job["file"], "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(b"".join((1000 * (n % 9)).to_bytes(2, "little") for n in range(16000)))
"""
SENTENCES = [Sentence("name", f"turn on lamp {number}", "slt") for number in range(2)]


def test_sentences_are_written_with_what_they_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "synthesizers.py"
    script.write_text(STAND_IN)
    monkeypatch.setattr(spoken, "SYNTHESIZERS", script)
    speak(tmp_path / "clips", SENTENCES, sys.executable)
    found = read_clips(tmp_path / "clips")
    assert [(clip.kind, clip.text) for clip in found] == [
        ("name", "turn on lamp 0"),
        ("name", "turn on lamp 1"),
    ]
    for clip in found:
        assert np.abs(clip.samples).max() == pytest.approx(PEAK, abs=1e-3)
    assert not np.allclose(found[0].samples, found[1].samples, atol=0.05)  # one is in a room


def test_synthesizers_that_fail_are_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "synthesizers.py"
    script.write_text("raise SystemExit('no module named piper')")
    monkeypatch.setattr(spoken, "SYNTHESIZERS", script)
    with pytest.raises(ClipError, match="no module named piper"):
        speak(tmp_path / "clips", SENTENCES, sys.executable)
    assert not (tmp_path / "clips").exists()


def test_a_room_is_the_same_for_the_same_seed_and_has_an_echo() -> None:
    click = np.zeros(16000, np.float32)
    click[:800] = loud(0.05)
    heard = in_a_room(click, "a")
    assert np.array_equal(heard, in_a_room(click, "a"))
    assert not np.array_equal(heard, in_a_room(click, "b"))
    early, late = (float(np.std(heard[a:b])) for a, b in ((1000, 3000), (12000, 16000)))
    assert early > 1.5 * late


def test_the_voices_are_there() -> None:
    assert set(spoken.VOICES) <= set(VOICES)
