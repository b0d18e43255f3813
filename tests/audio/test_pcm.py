"""Chunks to samples: formats, streaming, bounds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wyoming_whisper.audio.pcm import PcmFormat, PcmStream
from wyoming_whisper.errors import AudioError
from wyoming_whisper.transcriber import SAMPLE_RATE, Samples


def tone(hertz: float, rate: int, seconds: float = 1.0) -> Samples:
    times = np.arange(round(rate * seconds)) / rate
    return (0.5 * np.sin(2 * np.pi * hertz * times)).astype(np.float32)


def pcm16(samples: Samples) -> bytes:
    return np.round(samples * 32767).astype("<i2").tobytes()


def collect(audio: bytes, rate: int, step: int) -> Samples:
    stream = PcmStream()
    parts = [
        stream.convert(PcmFormat(rate, 2, 1), audio[start : start + step])
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
    assert PcmFormat(16000, width, 1).frames(audio)[:, 0].tolist() == samples


def test_channels_are_averaged_not_added_or_dropped() -> None:
    audio = np.array([[16384, -8192], [8192, 8192]], "<i2").tobytes()
    assert PcmStream().convert(PcmFormat(16000, 2, 2), audio).tolist() == [0.125, 0.25]


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
        stream.convert(PcmFormat(44100, 2, 1), pcm16(tone(440, 44100, 0.5))),
        stream.convert(PcmFormat(16000, 2, 1), pcm16(tone(440, 16000, 0.5))),
        stream.convert(PcmFormat(16000, 2, 2), pcm16(np.repeat(tone(440, 16000, 0.5), 2))),
        stream.convert(PcmFormat(8000, 2, 1), pcm16(tone(440, 8000, 0.5))),
        stream.flush(),
    ]
    assert abs(sum(map(len, parts)) - 32000) <= 2


def test_no_audio_is_no_samples() -> None:
    assert len(PcmStream().flush()) == 0


CUTS = st.lists(st.integers(0, 200), max_size=20)


@given(
    width=st.integers(1, 4),
    channels=st.integers(1, 3),
    rate=st.sampled_from([8000, 16000, 44100]),
    audio=st.binary(max_size=2000),
    cuts=CUTS,
)
def test_chunks_may_end_anywhere(
    width: int, channels: int, rate: int, audio: bytes, cuts: list[int]
) -> None:
    """Within a sample or a frame: the whole frames are heard as if they came at once."""
    whole, parts = PcmStream(), PcmStream()
    n_whole = len(audio) - len(audio) % (width * channels)
    expected = [
        whole.convert(PcmFormat(rate, width, channels), audio[:n_whole]),
        whole.flush(),
    ]
    chunks, start = [], 0
    for n_bytes in [*cuts, len(audio)]:
        chunks.append(audio[start : start + n_bytes])
        start += n_bytes
    got = [parts.convert(PcmFormat(rate, width, channels), chunk) for chunk in chunks]
    got.append(parts.flush())
    np.testing.assert_allclose(np.concatenate(got), np.concatenate(expected), atol=1e-5)


def test_a_sample_is_carried_over_a_change_of_rate_but_into_no_other_kind_of_frame() -> None:
    stream = PcmStream()
    assert len(stream.convert(PcmFormat(16000, 2, 1), b"\x00\x40\x00")) == 1
    stream.convert(PcmFormat(8000, 2, 1), b"\x40")  # 0.5, in the filter
    stream.convert(PcmFormat(8000, 2, 1), b"\x00")
    samples = stream.convert(PcmFormat(16000, 1, 2), b"\xc0\xc0")
    assert samples[-1] == 0.5
    assert len(stream.convert(PcmFormat(16000, 2, 1), b"\x00")) == 0
    assert len(stream.flush()) == 0
    assert stream.convert(PcmFormat(16000, 2, 1), b"\x00\x40").tolist() == [0.5]


@pytest.mark.parametrize(
    ("rate", "seconds", "costly"), [(16000, 0.1, False), (48000, 0.4, False), (44100, 5, True)]
)
def test_only_long_chunks_are_costly(rate: int, seconds: float, costly: bool) -> None:
    audio = bytes(2 * round(rate * seconds))
    assert PcmStream.is_costly(PcmFormat(rate, 2, 1), audio) is costly


def test_a_rate_that_is_no_whole_number_is_refused_as_such() -> None:
    with pytest.raises(
        AudioError, match=r"rate '16k' is not .*: a whole number from 1000 to 384000"
    ):
        PcmFormat("16k", 2, 1)  # type: ignore[arg-type]
