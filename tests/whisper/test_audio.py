"""The mel spectrogram, against faster-whisper's as the oracle."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from faster_whisper.feature_extractor import FeatureExtractor

from wyoming_whisper.transcriber import Samples
from wyoming_whisper.whisper.audio import (
    HOP_LENGTH,
    _mel_filters,
    log_mel_spectrogram,
    pad_or_trim,
    silence_level,
)


def noise(n_samples: int, level: float = 0.1) -> Samples:
    return np.random.default_rng(1).normal(0, level, n_samples).astype(np.float32)


@pytest.mark.parametrize("n_mels", [80, 128])
def test_filters_are_slaneys(n_mels: int) -> None:
    expected = FeatureExtractor(feature_size=n_mels).mel_filters
    np.testing.assert_allclose(_mel_filters(n_mels), expected, atol=1e-7)


@pytest.mark.parametrize("n_mels", [80, 128])
@pytest.mark.parametrize("n_samples", [16_000, 50_003, 3_010 * HOP_LENGTH])
def test_frames_are_those_of_faster_whisper(n_samples: int, n_mels: int) -> None:
    samples = noise(n_samples)
    expected = FeatureExtractor(feature_size=n_mels)(samples)
    mel = log_mel_spectrogram(samples, n_mels)
    assert mel.shape == (n_mels, n_samples // HOP_LENGTH)
    # The last frames look past the end, where faster-whisper mirrors and we see silence.
    inside = mel.shape[1] - 2
    np.testing.assert_allclose(mel[:, :inside], expected[:, :inside], atol=1e-5)


@pytest.mark.parametrize("samples", [noise(48_000), np.zeros(48_000, np.float32)])
def test_padding_is_what_silence_after_the_end_would_be(samples: Samples) -> None:
    silence = np.zeros(48_000, np.float32)
    expected = log_mel_spectrogram(np.concatenate([samples, silence]))
    mel = log_mel_spectrogram(samples)
    padded = pad_or_trim(mel, expected.shape[1], silence_level(mel))
    np.testing.assert_allclose(padded[:, :300], expected[:, :300], atol=1e-5)
    np.testing.assert_allclose(padded[:, 303:], expected[:, 303:], atol=1e-5)


def test_no_samples_are_no_frames() -> None:
    assert log_mel_spectrogram(np.zeros(100, np.float32)).shape == (80, 0)


def test_trimming_keeps_the_start() -> None:
    mel = log_mel_spectrogram(noise(16_000))
    assert np.array_equal(pad_or_trim(mel, 40, 0.0), mel[:, :40])


SPECTROGRAM = """
import wyoming_whisper
import numpy as np
from wyoming_whisper.whisper.audio import log_mel_spectrogram

log_mel_spectrogram(np.ones(48_000, np.float32))
status = open("/proc/self/status").read()
print(next(line for line in status.splitlines() if line.startswith("Threads:")).split()[1])
"""


def test_a_spectrogram_starts_no_threads() -> None:
    """They would spin beside the encoder, and take half of its cores (wyoming_whisper/__init__)."""
    environment = {name: value for name, value in os.environ.items() if "_NUM_THREADS" not in name}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SPECTROGRAM],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    assert done.stdout.split() == ["1"]
