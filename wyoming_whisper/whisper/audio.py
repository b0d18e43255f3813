"""Samples to log-mel spectrogram, as openai/whisper's audio.py defines it, in numpy."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ..transcriber import SAMPLE_RATE

N_FFT = 400  # 25 ms
HOP_LENGTH = 160  # 10 ms
N_FRAMES = 30 * SAMPLE_RATE // HOP_LENGTH  # of mel in one window of the encoder
FRAMES_PER_SECOND = SAMPLE_RATE // HOP_LENGTH
FRAMES_PER_POSITION = 2  # the encoder's second convolution has stride 2
SECONDS_PER_TIMESTAMP = 0.02

LOG_FLOOR = -10.0  # log10 of the smallest mel power told apart from nothing
DYNAMIC_RANGE = 8.0  # decades kept below the loudest value

Array = npt.NDArray[np.float32]


def log_mel_spectrogram(samples: Array, n_mels: int = 80) -> Array:
    """Return the normalised log-mel spectrogram, shape = (n_mels, n_frames).

    `samples` is mono 16 kHz, -1..1, shape = (n_samples,); n_frames = n_samples // 160. What lies
    past the end counts as silence, as if the audio had been padded to 30 s (openai/whisper).
    """
    n_frames = len(samples) // HOP_LENGTH
    if n_frames == 0:
        return np.zeros((n_mels, 0), np.float32)
    log_spec = np.log10(np.maximum(_mel_powers(samples, n_frames, n_mels), 10.0**LOG_FLOOR))
    log_spec = np.maximum(log_spec, log_spec.max() - DYNAMIC_RANGE)
    return np.asarray((log_spec + 4.0) / 4.0, np.float32)


def silence_level(mel: Array) -> float:
    """Return the value that silence has in this normalised spectrogram."""
    loudest = float(mel.max()) if mel.size else 0.0
    return max(loudest - DYNAMIC_RANGE / 4.0, (LOG_FLOOR + 4.0) / 4.0)


def pad_or_trim(mel: Array, n_frames: int, value: float) -> Array:
    """Return `mel` cut or filled up with `value` to shape = (n_mels, n_frames)."""
    missing = n_frames - mel.shape[1]
    if missing <= 0:
        return np.ascontiguousarray(mel[:, :n_frames])
    return np.pad(mel, ((0, 0), (0, missing)), constant_values=np.float32(value))


def white_noise(n_samples: int, deviation: float = 0.05) -> Array:
    """Return white noise, always the same, shape = (n_samples,)."""
    return np.random.default_rng(0).normal(0.0, deviation, n_samples).astype(np.float32)


def _mel_powers(samples: Array, n_frames: int, n_mels: int, block_frames: int = 3000) -> Array:
    """Return the mel powers of frames; so many are transformed at once, which bounds memory."""
    window = np.hanning(N_FFT + 1)[:-1].astype(np.float32)
    filters = _mel_filters(n_mels)
    half = N_FFT // 2
    # Centred frames: mirrored before the start, silence after the end.
    head = samples[half:0:-1] if len(samples) > half else np.zeros(half, np.float32)
    padded = np.concatenate([head, samples, np.zeros(N_FFT, np.float32)]).astype(np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[::HOP_LENGTH][:n_frames]
    powers = np.empty((n_mels, n_frames), np.float32)
    for start in range(0, n_frames, block_frames):
        spectrum = np.fft.rfft(frames[start : start + block_frames] * window, axis=-1)
        magnitudes = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
        powers[:, start : start + block_frames] = filters @ magnitudes.T
    return powers


@lru_cache(maxsize=2)
def _mel_filters(n_mels: int) -> Array:
    """Return Slaney's triangular mel filters, shape = (n_mels, n_fft // 2 + 1).

    Linear below 1 kHz (3 mels per 200 Hz), logarithmic above (27 mels per factor of 6.4), each of
    unit area: M. Slaney, Auditory Toolbox, 1998; librosa.filters.mel with its defaults.
    """
    hz_per_mel, break_hz, log_step = 200.0 / 3.0, 1000.0, np.log(6.4) / 27.0
    break_mel = break_hz / hz_per_mel
    highest = float(break_mel + np.log(SAMPLE_RATE / 2 / break_hz) / log_step)
    mels = np.linspace(0.0, highest, n_mels + 2)
    logarithmic = break_hz * np.exp(log_step * (mels - break_mel))
    corners = np.where(mels < break_mel, hz_per_mel * mels, logarithmic)
    fft_hz = np.fft.rfftfreq(N_FFT, 1.0 / SAMPLE_RATE)
    left, centre, right = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    rising = (fft_hz - left) / (centre - left)
    falling = (right - fft_hz) / (right - centre)
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    return np.asarray(triangles * (2.0 / (right - left)), dtype=np.float32)
