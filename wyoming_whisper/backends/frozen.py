"""Whether a model bears the frozen tail (engine.tail): the full window is what it has to equal.

base and tiny.en were measured with it (docs/frozen-tail.md). Any model, those two as well, is tried
on a few spoken commands when its graphs are opened for the first time; the result is remembered.
"""

from __future__ import annotations

import dataclasses
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
    log_mel_spectrogram,
    pad_or_trim,
    silence_level,
)
from ..whisper.options import AudioContext

if TYPE_CHECKING:
    from ..engine.session import CpuSession
    from ..engine.tensorrt.session import TensorRTSession
    from ..models.folder import ModelFolder
    from ..settings.options import Settings
    from ..whisper.options import DecodingOptions

_LOGGER = logging.getLogger(__name__)

CLIPS = Path(__file__).parent / "clips"
"""Spoken commands, made with espeak-ng."""

MOST_CHANGE = 0.25
"""Of the audio features of speech. base and tiny.en have 0.16 and 0.12; in a window that ends where
the tail begins, with nothing in its place, 0.36 and 0.29."""


def can_have_frozen_tail(settings: Settings, model: ModelFolder) -> bool:
    """Return whether graphs of the model are to have the tail, to be tried with it."""
    return settings.audio_context == "auto" and not model.facts.tight_window


def with_frozen_tail(
    decoding: DecodingOptions,
    session: CpuSession | TensorRTSession,
    measurements: Measurements,
    graphs: str,
    multiple: int = FRAMES_PER_POSITION,
) -> DecodingOptions:
    """Return the options for a session that has the tail from now on, if its model bears that.

    That is tried once for graphs of this name. Windows that the tail follows are multiples of so
    many frames.
    """
    windows = dataclasses.replace(AudioContext.frozen(), multiple=multiple)
    key = f"frozen tail: {graphs}"
    session.has_tail = True
    change = measurements.get(key)
    if not isinstance(change, float):
        change = feature_change(session, windows)
        if math.isfinite(change):  # graphs that compute nonsense are made again, and then tried
            measurements.put(key, change)
    session.has_tail = change <= MOST_CHANGE
    _LOGGER.info(
        "the encoder computes %s: with the rest of the window frozen, what it makes of speech "
        "changes by %.2f",
        "the speech alone" if session.has_tail else "10 s at least",
        change,
    )
    return dataclasses.replace(decoding, audio_context=windows) if session.has_tail else decoding


def feature_change(session: CpuSession | TensorRTSession, windows: AudioContext) -> float:
    """Return how much these windows change the audio features of speech, beside full windows.

    Mean absolute change by mean absolute value, of the decoder's keys.
    """
    changes = []
    for clip in sorted(CLIPS.glob("*.wav")):
        longest_seconds = 10.0
        mel = log_mel_spectrogram(
            AudioFile(clip.read_bytes()).read(longest_seconds), session.n_mels
        )
        silence, n_frames = silence_level(mel), mel.shape[1]
        full, fitted = (
            session.audio_keys(pad_or_trim(mel, n, silence), n_frames // FRAMES_PER_POSITION)
            for n in (N_FRAMES, windows.frames(n_frames))
        )
        changes.append(np.abs(fitted - full).mean() / np.abs(full).mean())
    return float(np.mean(changes))
