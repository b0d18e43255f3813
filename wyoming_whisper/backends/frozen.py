"""Whether a model bears the frozen tail (engine.tail): the full window is what it has to equal.

base and tiny.en were measured with it (docs/frozen-tail.md). Any model, those two as well, is tried
on a few spoken commands when its graphs are opened for the first time; the result is remembered.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..audio.recording import AudioFile
from ..machine.measured import Measurements
from ..whisper.audio import (
    FRAMES_PER_POSITION,
    N_FRAMES,
    Array,
    log_mel_spectrogram,
    pad_or_trim,
    silence_level,
)
from ..whisper.options import AudioContext

if TYPE_CHECKING:
    from ..engine.session import Arrays, CpuSession

_LOGGER = logging.getLogger(__name__)

CLIPS = Path(__file__).parent / "clips"
"""Spoken commands, made with espeak-ng."""

MOST_CHANGE = 0.25
"""Of the audio features of speech. base and tiny.en have 0.17 and 0.13; in a window that ends where
the tail begins, with nothing in its place, 0.38 and 0.31."""


def bears_frozen_tail(session: CpuSession, measurements: Measurements, graphs: str) -> bool:
    """Return whether the session may have a tail; tried once for graphs of this name."""
    key = f"frozen tail: {graphs}"
    change = measurements.get(key)
    if not isinstance(change, float):
        change = feature_change(session)
        if math.isfinite(change):  # graphs that compute nonsense are made again, and then tried
            measurements.put(key, change)
    bears = change <= MOST_CHANGE
    _LOGGER.info(
        "the encoder computes %s: with the rest of the window frozen, what it makes of speech "
        "changes by %.2f",
        "the speech alone" if bears else "10 s at least",
        change,
    )
    return bears


def feature_change(session: CpuSession) -> float:
    """Return how much fitted windows change the audio features of speech, beside full windows.

    Mean absolute change by mean absolute value, of the decoder's keys.
    """
    mels = []
    for clip in sorted(CLIPS.glob("*.wav")):
        longest_seconds = 10.0
        samples = AudioFile(clip.read_bytes()).read(longest_seconds)
        mels.append(log_mel_spectrogram(samples, session.n_mels))
    return float(np.mean([_change(session, mel) for mel in mels]))


def _change(session: CpuSession, mel: Array) -> float:
    silence, n_frames = silence_level(mel), mel.shape[1]
    n_positions = n_frames // FRAMES_PER_POSITION
    full, fitted = (
        _keys(session.encode(pad_or_trim(mel, n, silence)), n_positions)
        for n in (N_FRAMES, AudioContext.frozen().frames(n_frames))
    )
    return float(np.abs(fitted - full).mean() / np.abs(full).mean())


def _keys(features: Arrays, n_positions: int) -> Array:
    """Return the keys of the first positions, shape = (n_layers, n_head, n_positions, 64)."""
    keys = [values for name, values in features.items() if name.startswith("cross_k_")]
    return np.concatenate(keys)[:, :, :n_positions]
