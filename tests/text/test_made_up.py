"""Noise that the voice activity detector takes for a voice, through stock weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from tests.support import AUDIO
from wyoming_whisper.audio.speech import Speech
from wyoming_whisper.audio.vad import SileroVad, SpanOptions
from wyoming_whisper.backends.faster_whisper import open_faster_whisper
from wyoming_whisper.commands.client import read_audio
from wyoming_whisper.settings.options import Settings
from wyoming_whisper.transcriber import (
    SAMPLE_RATE,
    Samples,
    TranscribeOptions,
    Transcriber,
    Transcription,
)

PROMPT = "Turn on the kitchen light. Set the living room to 21 degrees. Pause the music."
FORMANTS = ((700, 90, 1.0), (1450, 120, 0.6), (2700, 200, 0.4))  # Hz, bandwidth, loudness
N_LAUGHS = 16


def resonance(samples: Samples, hertz: float, bandwidth: float) -> Samples:
    """Return what a resonator makes of the samples: its impulse response, convolved."""
    times = np.arange(SAMPLE_RATE // 20) / SAMPLE_RATE
    response = np.exp(-np.pi * bandwidth * times) * np.sin(2 * np.pi * hertz * times)
    return np.convolve(samples, response)[: len(samples)].astype(np.float32)


def laughter(seed: int) -> Samples:
    """Return "ha ha ha" without a word in it: pulses of a voice, and breath between them."""
    random = np.random.default_rng(seed)
    pitch = random.uniform(120, 350)
    parts: list[Samples] = [np.zeros(SAMPLE_RATE // 2, np.float32)]
    for _ in range(int(random.integers(6, 12))):
        n_samples = round(SAMPLE_RATE * random.uniform(0.09, 0.15))
        phase = np.arange(n_samples) * pitch * random.uniform(0.95, 1.05) / SAMPLE_RATE
        pulses = (phase % 1.0 < 0.1).astype(np.float32) - 0.1
        breath = 0.3 * random.standard_normal(n_samples).astype(np.float32)
        for source, loudness in ((pulses, 0.3), (breath, 0.1)):
            voice = sum(g * resonance(source, f, b) for f, b, g in FORMANTS) * np.hanning(n_samples)
            parts.append((loudness * voice / np.abs(voice).max()).astype(np.float32))
    parts.append(np.zeros(SAMPLE_RATE, np.float32))
    hiss = 1e-4 * random.standard_normal(sum(map(len, parts)))
    return (np.concatenate(parts) + hiss).astype(np.float32)


@pytest.fixture(scope="module", params=[None, PROMPT], ids=["no prompt", "prompt"])
def base(request: pytest.FixtureRequest, stock_base: Path) -> Iterator[Transcriber]:
    settings = Settings(model=str(stock_base), beam_size=1, initial_prompt=request.param)
    with closing(open_faster_whisper(settings, stock_base)) as transcriber:
        yield transcriber


class Overhearing:
    """A Transcriber that keeps what it wrote before anybody judged it."""

    def __init__(self, transcriber: Transcriber) -> None:
        self._transcriber = transcriber
        self.languages = transcriber.languages
        self.description = transcriber.description
        self.written: list[Transcription] = []

    def transcribe(self, samples: Samples, options: TranscribeOptions) -> Transcription:
        self.written.append(self._transcriber.transcribe(samples, options))
        return self.written[-1]

    def close(self) -> None:
        """The other one is closed by whom it belongs to."""


def test_laughter_is_no_sentence(base: Transcriber) -> None:
    overhearing = Overhearing(base)
    texts = []
    for seed in range(N_LAUGHS):
        answer = Speech.whole(laughter(seed), SileroVad(), SpanOptions()).transcribed(
            overhearing, TranscribeOptions("en")
        )
        texts.append(answer.text)
    # It is taken for a voice, and Whisper makes words of it; or this would show nothing.
    assert sum(bool(one.text) for one in overhearing.written) >= 2
    assert texts == [""] * N_LAUGHS


@pytest.mark.parametrize("gain", [1.0, 0.02])
def test_a_person_is_heard_however_quietly(base: Transcriber, gain: float) -> None:
    speech = read_audio(AUDIO / "jfk.flac") * np.float32(gain)
    answer = Speech.whole(speech, SileroVad(), SpanOptions()).transcribed(
        base, TranscribeOptions("en")
    )
    assert "ask not what your country can do for you" in answer.text.lower()


def test_a_text_of_several_windows_is_weighed(base: Transcriber) -> None:
    speech = np.tile(read_audio(AUDIO / "jfk.flac"), 4)
    whole = base.transcribe(speech, TranscribeOptions("en"))
    assert whole.n_tokens > 50
    assert whole.heard_logprob is not None
    assert whole.noise_logprob is not None
    assert whole.heard_logprob - whole.noise_logprob > 1.0
