"""Chunks to samples: formats, streaming, bounds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wyoming.audio import AudioChunk

from wyoming_whisper.errors import AudioError
from wyoming_whisper.pcm import PcmFormat, PcmStream
from wyoming_whisper.transcriber import SAMPLE_RATE, Samples


def tone(hertz: float, rate: int, seconds: float = 1.0) -> Samples:
    times = np.arange(round(rate * seconds)) / rate
    return (0.5 * np.sin(2 * np.pi * hertz * times)).astype(np.float32)


def pcm16(samples: Samples) -> bytes:
    return np.round(samples * 32767).astype("<i2").tobytes()


def collect(audio: bytes, rate: int, step: int) -> Samples:
    stream = PcmStream()
    parts = [
        stream.convert(AudioChunk(rate, 2, 1, audio[start : start + step]))
        for start in range(0, len(audio), step)
    ]
    return np.concatenate([*parts, stream.flush()])


@pytest.mark.parametrize(
    ("width", "audio", "samples"),
    [
        (1, bytes([0, 64, 128, 192, 255]), [-1.0, -0.5, 0.0, 0.5, 127 / 128]),
        (2, b"\x00\x80\x00\x00\xff\x7f", [-1.0, 0.0, 32767 / 32768]),
        (3, b"\x00\x00\x80\x00\x00\x00\x00\x00\x40", [-1.0, 0.0, 0.5]),
        (4, b"\x00\x00\x00\x80\x00\x00\x00\xc0\x00\x00\x00\x40", [-1.0, -0.5, 0.5]),
    ],
)
def test_every_width_has_its_full_scale(width: int, audio: bytes, samples: list[float]) -> None:
    assert PcmFormat(16000, width, 1).to_mono(audio).tolist() == samples


def test_channels_are_averaged_not_added_or_dropped() -> None:
    audio = np.array([[16384, -8192], [8192, 8192]], "<i2").tobytes()
    assert PcmFormat(16000, 2, 2).to_mono(audio).tolist() == [0.125, 0.25]


@given(step=st.integers(1, 4000).map(lambda frames: 2 * frames))
def test_resampling_does_not_depend_on_how_the_audio_was_cut(step: int) -> None:
    audio = pcm16(tone(440, 44100, 0.3))
    whole = collect(audio, 44100, len(audio))
    pieces = collect(audio, 44100, step)
    assert len(whole) == len(pieces) == round(0.3 * SAMPLE_RATE)
    np.testing.assert_allclose(pieces, whole, atol=1e-5)


def test_what_16_khz_cannot_carry_is_filtered_out_not_folded_down() -> None:
    samples = collect(pcm16(tone(11_000, 44100)), 44100, 2048)  # would alias to 5 kHz
    assert np.abs(samples[1000:-1000]).max() < 0.001


def test_a_format_may_change_in_the_middle() -> None:
    stream = PcmStream()
    parts = [
        stream.convert(AudioChunk(44100, 2, 1, pcm16(tone(440, 44100, 0.5)))),
        stream.convert(AudioChunk(16000, 2, 1, pcm16(tone(440, 16000, 0.5)))),
        stream.convert(AudioChunk(16000, 2, 2, pcm16(np.repeat(tone(440, 16000, 0.5), 2)))),
        stream.convert(AudioChunk(8000, 2, 1, pcm16(tone(440, 8000, 0.5)))),
        stream.flush(),
    ]
    assert abs(sum(map(len, parts)) - 32000) <= 2


def test_no_audio_is_no_samples() -> None:
    assert len(PcmStream().flush()) == 0


def test_bytes_that_are_no_whole_frames_are_refused() -> None:
    with pytest.raises(AudioError, match="5 bytes are not whole frames"):
        PcmStream().convert(AudioChunk(16000, 2, 1, b"12345"))


@pytest.mark.parametrize(
    ("rate", "seconds", "costly"), [(16000, 0.1, False), (48000, 0.4, False), (44100, 5, True)]
)
def test_only_long_chunks_are_costly(rate: int, seconds: float, costly: bool) -> None:
    chunk = AudioChunk(rate, 2, 1, bytes(2 * round(rate * seconds)))
    assert PcmStream.is_costly(chunk) is costly
