import numpy as np
import pytest
import torch
from faster_whisper.feature_extractor import FeatureExtractor

from training.features import filters, log_mel_spectrogram


@pytest.mark.parametrize("samples", [16000, 16080, 40001])
def test_features_are_faster_whispers(samples: int) -> None:
    audio = np.random.default_rng(samples).standard_normal(samples).astype(np.float32) * 0.1
    mel = log_mel_spectrogram(torch.from_numpy(audio)).numpy()
    np.testing.assert_allclose(mel, FeatureExtractor()(audio), atol=1e-4)


def test_a_warped_bank_hears_another_pitch() -> None:
    bank, warped = filters(), filters(1.2)
    assert bank.shape == warped.shape == (80, 201)
    assert int(warped[60].argmax()) < int(bank[60].argmax())
