"""Whisper's log-mel spectrogram in torch, equal to faster-whisper's, and its warped relatives."""

import functools

import numpy as np
import torch
from faster_whisper.feature_extractor import FeatureExtractor
from torch import Tensor

RATE = 16000
HOP = 160
FFT = 400
MELS = 80
WINDOW_FRAMES = 3000  # 30 s


@functools.cache
def filters(warp: float = 1.0) -> Tensor:
    """Mel filters (80, 201); `warp` stretches the frequency axis, as another vocal tract does."""
    bank = torch.from_numpy(np.asarray(FeatureExtractor(feature_size=MELS).mel_filters))
    if warp == 1.0:
        return bank
    position = (torch.arange(bank.shape[1]) * warp).clamp(0, bank.shape[1] - 1.001)
    below = position.long()
    share = position - below
    return bank[:, below] * (1 - share) + bank[:, below + 1] * share


@functools.cache
def _hann() -> Tensor:
    return torch.hann_window(FFT)


def power(samples: Tensor) -> Tensor:
    """Power spectrogram (201, frames) of samples in -1..1, one frame for each 160 samples."""
    padded = torch.nn.functional.pad(samples, (0, HOP))
    spectrum = torch.stft(padded, FFT, HOP, window=_hann(), return_complex=True)
    return spectrum[:, :-1].abs().square()


def log_mel(power_spectrum: Tensor, bank: Tensor | None = None) -> Tensor:
    """Whisper's normalised log-mel (80, frames) of a power spectrogram."""
    mel = ((filters() if bank is None else bank) @ power_spectrum).clamp(min=1e-10).log10()
    return (torch.maximum(mel, mel.max() - 8.0) + 4.0) / 4.0


def log_mel_spectrogram(samples: Tensor) -> Tensor:
    """Whisper's normalised log-mel (80, frames) of samples in -1..1."""
    return log_mel(power(samples))
