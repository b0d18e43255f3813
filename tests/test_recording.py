"""Recordings: every format is the same audio, and pieces are whole and where they say."""

from __future__ import annotations

import contextlib
import struct
import wave
from io import BytesIO
from typing import Any

import av
import numpy as np
import pytest
import soundfile

from tests.support import LoudnessVad, loud, quiet
from wyoming_whisper import recording
from wyoming_whisper.errors import AudioError
from wyoming_whisper.pieces import MAX_PIECE_SECONDS
from wyoming_whisper.recording import (
    BLOCK_SECONDS,
    FORMATS,
    Piece,
    Recording,
    audio_blocks,
    container,
)
from wyoming_whisper.transcriber import SAMPLE_RATE, Samples
from wyoming_whisper.vad import FRAME_SAMPLES, SpanOptions

RATE = 44100


def tone(rate: int = RATE, seconds: float = 2.0) -> Samples:
    return (0.5 * np.sin(2 * np.pi * 300 * np.arange(round(rate * seconds)) / rate)).astype("f4")


def with_sndfile(samples: Samples, rate: int, **options: Any) -> bytes:
    file = BytesIO()
    soundfile.write(file, np.stack([samples, samples], axis=1), rate, **options)
    return file.getvalue()


def with_ffmpeg(samples: Samples, rate: int, name: str, codec: str) -> bytes:
    file = BytesIO()
    with av.open(file, "w", format=name) as out:
        track = out.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.rate = rate
        for packet in [*track.encode(frame), *track.encode(None)]:
            out.mux(packet)
    return file.getvalue()


def made(name: str) -> bytes:
    """Return two seconds of a tone as a file."""
    if name == "m4a":
        return with_ffmpeg(tone(), RATE, "ipod", "aac")
    if name == "webm":
        return with_ffmpeg(tone(48000), 48000, "webm", "libopus")
    if name == "opus":
        return with_sndfile(tone(48000), 48000, format="OGG", subtype="OPUS")
    subtypes = {"wav": "PCM_24", "float.wav": "FLOAT", "ulaw.wav": "ULAW"}
    kind = name.rpartition(".")[2].upper()
    return with_sndfile(tone(), RATE, format=kind, subtype=subtypes.get(name))


KINDS = ("wav", "float.wav", "ulaw.wav", "flac", "ogg", "opus", "mp3", "m4a", "webm")


def decoded(data: bytes) -> Samples:
    return np.concatenate(list(audio_blocks(data)))


def assert_is_the_tone(samples: Samples) -> None:
    assert len(samples) / SAMPLE_RATE == pytest.approx(2.0, abs=0.1)  # coders add some silence
    middle = samples[SAMPLE_RATE // 2 : -SAMPLE_RATE // 2]
    assert np.abs(middle).max() == pytest.approx(0.5, abs=0.05)
    spectrum = np.abs(np.fft.rfft(middle))
    assert np.argmax(spectrum) * SAMPLE_RATE / len(middle) == pytest.approx(300, abs=2)


@pytest.mark.parametrize("name", KINDS)
def test_every_format_is_the_same_audio(name: str) -> None:
    assert_is_the_tone(decoded(made(name)))


@pytest.mark.parametrize("name", ["flac", "ogg", "mp3"])
def test_pyav_reads_what_soundfile_is_not_there_for(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = made(name)
    monkeypatch.setitem(__import__("sys").modules, "soundfile", None)
    assert_is_the_tone(decoded(data))


@pytest.mark.parametrize(("name", "needed"), [("mp3", "soundfile"), ("webm", "PyAV")])
def test_where_nothing_can_read_a_format_a_sentence_says_what_would(
    name: str, needed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, plain = made(name), made("wav")
    for module in ("soundfile", "av"):
        monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(AudioError, match=needed):
        decoded(data)
    assert_is_the_tone(decoded(plain))


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"#EXTM3U\nfile:///etc/passwd", b"\xff\xf1aac", b"RIFF\0\0\0\0AVI "]
)
def test_what_is_no_audio_is_told_what_would_be(data: bytes) -> None:
    assert container(data) is None
    with pytest.raises(AudioError, match=FORMATS.replace("(", r"\(").replace(")", r"\)")):
        decoded(data)


@pytest.mark.parametrize("name", KINDS)
def test_a_file_that_is_cut_off_or_corrupt_is_heard_as_far_as_it_goes_or_a_sentence(
    name: str,
) -> None:
    data = made(name)
    noise = np.random.default_rng(0).bytes(len(data))
    for broken in (data[:40], data[: len(data) // 2], data[:100] + noise[100:]):
        samples = np.zeros(0, np.float32)
        with contextlib.suppress(AudioError):
            samples = decoded(broken)
        assert len(samples) <= 3 * SAMPLE_RATE
        assert np.all(np.abs(samples) <= 1.5)  # the resampler's filter rings


def test_a_file_of_floats_that_are_none_is_silence() -> None:
    samples = np.full(SAMPLE_RATE, np.nan, np.float32)
    samples[::2] = np.inf
    heard = decoded(with_sndfile(samples, SAMPLE_RATE, format="WAV", subtype="FLOAT"))
    assert np.all(np.isfinite(heard))
    assert np.abs(heard).max() <= 1.0


@pytest.mark.parametrize("channels", [33, 200])
def test_impossible_numbers_of_channels_are_a_sentence(channels: int) -> None:
    file = BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((channels, 2, 16000, 0, "NONE", ""))
        out.writeframes(bytes(2 * channels * 100))
    with pytest.raises(AudioError, match="channels"):
        decoded(file.getvalue())


def test_many_channels_are_decoded_little_by_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "MAX_BLOCK_VALUES", 20_000)
    blocks = list(audio_blocks(made("flac")))
    assert len(blocks) > 8
    assert_is_the_tone(np.concatenate(blocks))


def test_a_wav_file_whose_length_was_not_known_when_it_was_begun_is_read() -> None:
    data = bytearray(made("wav"))
    data[4:8] = data[40:44] = struct.pack("<I", 0xFFFFFFFF)
    assert_is_the_tone(decoded(bytes(data)))


# -- pieces --------------------------------------------------------------------------------

SPANS = SpanOptions(pad_before_seconds=0.4, pad_after_seconds=0.3)


def wav(*parts: Samples) -> bytes:
    file = BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        out.writeframes((np.concatenate(parts) * 32767).astype("<i2").tobytes())
    return file.getvalue()


def heard(*parts: Samples, max_seconds: float = 1000) -> tuple[list[Piece], Recording]:
    file = Recording(wav(*parts), LoudnessVad(), SPANS, max_seconds)
    pieces: list[Piece] = []
    while not file.is_over:
        pieces += file.step()
    return pieces, file


def test_a_short_recording_is_cut_as_a_command_is() -> None:
    (piece,), file = heard(quiet(2.0), loud(3.0), quiet(5.0), loud(1.0), quiet(2.0))
    assert file.seconds == 13.0
    assert piece.start == pytest.approx(1.6, abs=FRAME_SAMPLES / SAMPLE_RATE)
    assert len(piece.samples) / SAMPLE_RATE == pytest.approx(9.7, abs=0.1)
    assert piece.voicing.voiced_seconds == pytest.approx(4.0, abs=0.1)
    assert (
        0 < piece.voicing.clear_frames <= piece.voicing.voiced_seconds * SAMPLE_RATE / FRAME_SAMPLES
    )


def test_silence_is_no_piece_however_long_it_is() -> None:
    for seconds in (1.0, 100.0):
        pieces, file = heard(quiet(seconds))
        assert pieces == []
        assert file.seconds == seconds


def test_a_long_recording_is_cut_in_pauses_and_nothing_is_lost_or_moved() -> None:
    phrases = [(4.0, 0.5), (9.0, 2.0), (9.0, 0.3), (5.0, 40.0), (12.0, 1.0), (14.0, 0.2)]
    parts = [part for speech, pause in phrases for part in (loud(speech), quiet(pause))]
    whole = np.concatenate(parts)
    pieces, _ = heard(*parts)
    assert len(pieces) >= 3
    voiced = np.zeros(len(whole), bool)
    for piece in pieces:
        assert len(piece.samples) <= MAX_PIECE_SECONDS * SAMPLE_RATE
        start = round(piece.start * SAMPLE_RATE)
        expected = whole[start : start + len(piece.samples)]
        assert np.allclose(piece.samples, expected, atol=1e-4)
        voiced[start : start + len(piece.samples)] = True
    assert np.all(voiced[np.abs(whole) > 0.1])  # no speech was left out
    ends = [piece.start + len(piece.samples) / SAMPLE_RATE for piece in pieces]
    assert all(end <= piece.start + 0.001 for end, piece in zip(ends, pieces[1:], strict=False))
    for end in ends[:-1]:  # cut where nobody speaks
        assert abs(whole[round(end * SAMPLE_RATE) - 1]) < 0.1


def test_speech_without_any_pause_is_cut_all_the_same() -> None:
    pieces, _ = heard(loud(100.0))
    assert sum(len(piece.samples) for piece in pieces) == 100 * SAMPLE_RATE
    assert max(len(piece.samples) for piece in pieces) <= MAX_PIECE_SECONDS * SAMPLE_RATE


def test_what_lasts_too_long_is_refused_before_it_is_heard_to_its_end() -> None:
    file = Recording(wav(quiet(100.0)), LoudnessVad(), SPANS, max_seconds=15)
    file.step()
    with pytest.raises(AudioError, match="15 seconds"):
        file.step()
    assert file.seconds == 2 * BLOCK_SECONDS


def test_no_audio_at_all_is_a_sentence() -> None:
    with pytest.raises(AudioError, match="no audio"):
        heard(np.zeros(0, np.float32))


@pytest.mark.parametrize("name", ["WAV", "FLAC"])
def test_channels_that_cancel_are_heard_in_every_format(name: str) -> None:
    left = tone(SAMPLE_RATE)
    file = BytesIO()
    soundfile.write(file, np.stack([left, -left], axis=1), SAMPLE_RATE, format=name)
    samples = np.concatenate(list(audio_blocks(file.getvalue())))
    np.testing.assert_allclose(samples[200:], left[200:], atol=1e-3)


def test_channels_that_cancel_are_heard_by_ffmpeg() -> None:
    left = tone(SAMPLE_RATE)
    file = BytesIO()
    with av.open(file, "w", format="matroska") as out:
        track = out.add_stream("pcm_s16le", rate=SAMPLE_RATE, layout="stereo")
        pair = (np.stack([left, -left], axis=1).ravel() * 32767).astype("<i2")[None]
        frame = av.AudioFrame.from_ndarray(pair, format="s16", layout="stereo")
        frame.rate = SAMPLE_RATE
        for packet in [*track.encode(frame), *track.encode(None)]:
            out.mux(packet)
    samples = np.concatenate(list(audio_blocks(file.getvalue())))
    np.testing.assert_allclose(samples[200:], left[200:], atol=1e-3)
