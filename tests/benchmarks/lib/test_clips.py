"""Recordings with what is said in them, and what is done to them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks.lib.clips import (
    SECONDS_AFTER,
    SECONDS_BEFORE,
    noisy,
    read_clips,
    room_noise,
    speech_level,
    with_silence,
)
from benchmarks.lib.errors import ClipError
from wyoming_whisper.transcriber import Samples

AUDIO = Path(__file__).parents[2] / "audio"


def speech(seconds: float = 2.0) -> Samples:
    """Something of which half is loud and half is silent."""
    time = np.arange(round(seconds * 16000)) / 16000
    return (0.1 * np.sin(2 * np.pi * 300 * time) * (time % 1 < 0.5)).astype(np.float32)


def test_level_is_that_of_the_speech_not_of_the_pauses() -> None:
    assert speech_level(speech()) == pytest.approx(0.1 / math.sqrt(2), rel=0.01)
    assert speech_level(with_silence(speech())) == pytest.approx(speech_level(speech()), rel=0.01)
    assert speech_level(np.zeros(16000, np.float32)) == 0
    assert speech_level(np.zeros(0, np.float32)) == 0


@pytest.mark.parametrize("decibels", [0.0, 10.0, 20.0])
def test_noise_has_the_level_asked_for(decibels: float) -> None:
    added = noisy(speech(), decibels, "a clip") - speech()
    ratio = speech_level(speech()) / np.sqrt(np.mean(np.square(added)))
    assert 20 * np.log10(ratio) == pytest.approx(decibels, abs=0.1)


def test_noise_is_white_and_pink() -> None:
    power = np.abs(np.fft.rfft(room_noise(160000, np.random.default_rng(1)))) ** 2
    low, high = power[: len(power) // 8].sum(), power[-len(power) // 8 :].sum()
    assert 3 < low / high < 30  # white alone would be 1


def test_noise_is_the_same_for_the_same_clip_only() -> None:
    assert np.array_equal(noisy(speech(), 10, "a"), noisy(speech(), 10, "a"))
    assert not np.array_equal(noisy(speech(), 10, "a"), noisy(speech(), 10, "b"))


def test_loud_noise_does_not_clip() -> None:
    mixed = noisy(9 * speech(), -10, "a")
    assert mixed.dtype == np.float32
    assert np.abs(mixed).max() == pytest.approx(1.0)


def test_silence_around_a_command() -> None:
    samples = with_silence(np.ones(16000, np.float32))
    before, after = round(SECONDS_BEFORE * 16000), round(SECONDS_AFTER * 16000)
    assert len(samples) == before + 16000 + after
    assert not samples[:before].any()
    assert samples[before : before + 16000].all()
    assert not samples[-after:].any()


@pytest.mark.parametrize(
    "content", ["", "{", '["a.wav"]', '[{"file": "a.wav"}]', '[{"file": "a.wav", "text": ""}]']
)
def test_labels_that_are_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "labels.json").write_text(content)
    with pytest.raises(ClipError, match=r"labels\.json can't be read"):
        read_clips(tmp_path)


def test_labels_that_are_missing(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match="can't be read"):
        read_clips(tmp_path)


def test_clips_of_the_repository() -> None:
    clips = read_clips(AUDIO, limit=1)
    assert len(clips) == len({clip.kind for clip in clips}) > 1
    assert all(len(clip.samples) > 8000 for clip in clips)
