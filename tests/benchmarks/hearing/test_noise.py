"""Sounds that are no speech, and the corpus of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.hearing.noise import LEVELS, SOUNDS, make
from benchmarks.lib.corpus import read_corpus
from wyoming_whisper.transcriber import SAMPLE_RATE


@pytest.mark.parametrize("name", SOUNDS)
def test_a_sound_has_its_length_and_level_and_is_the_same_again(name: str) -> None:
    sound = make(name, 1.5, -35.0, 7)
    assert sound.dtype == np.float32
    assert sound.shape == (round(1.5 * SAMPLE_RATE),)
    assert np.abs(sound).max() <= 1
    level = 10 * np.log10(np.mean(np.square(sound, dtype=np.float64)))
    assert level == pytest.approx(-35, abs=1)  # less where the loudest of it is clipped
    np.testing.assert_array_equal(sound, make(name, 1.5, -35.0, 7))
    assert not np.array_equal(sound, make(name, 1.5, -35.0, 8))


def test_a_corpus_of_sounds(tmp_path: Path) -> None:
    assert main(["noise", "--output", str(tmp_path), "--count", "3", "--seconds", "0.5"]) == 0
    found = read_corpus(tmp_path)
    counts = Counter(one.file.partition("-")[0] for one in found)
    assert counts == dict.fromkeys(SOUNDS, 3)
    assert {(one.kind, one.text, one.lang) for one in found} == {("noise", "", "")}
    loudest = [one for one in found if one.file.endswith("002.wav")]  # the last of the levels
    for one in loudest:
        samples = one.samples()
        assert len(samples) == SAMPLE_RATE // 2
        level = 10 * np.log10(np.mean(np.square(samples, dtype=np.float64)))
        assert level == pytest.approx(LEVELS[2], abs=3)
