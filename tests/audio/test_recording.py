"""Recordings: every format is the same audio, and pieces are whole and where they say."""

from __future__ import annotations

import contextlib
import re
import struct
import sys
import wave
from io import BytesIO
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import av
import numpy as np
import pytest
import soundfile

from tests.support import LoudnessVad, loud, quiet, wav
from wyoming_whisper.audio.recording import (
    AudioFile,
)
from wyoming_whisper.audio.speech import Section
from wyoming_whisper.audio.vad import FRAME_SAMPLES, SpanOptions
from wyoming_whisper.errors import AudioError
from wyoming_whisper.transcriber import SAMPLE_RATE, Samples

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
        if codec == "wmav2":
            track.bit_rate = 64_000
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.rate = rate
        form = track.codec_context.format.name
        resampler = av.AudioResampler(format=form, layout="mono", rate=rate)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            out.mux(track.encode(part))
        out.mux(track.encode(None))
    return file.getvalue()


FFMPEGS = {
    "aac": (RATE, "adts", "aac"),
    "amr": (8000, "amr", "libopencore_amrnb"),
    "aifc": (RATE, "aiff", "pcm_s16le"),
    "mp3.caf": (RATE, "caf", "libmp3lame"),
    "caf": (RATE, "caf", "pcm_s16le"),
    "wma": (RATE, "asf", "wmav2"),
}
"""Rate, FFmpeg's name of the format, and of the codec."""


def made(name: str) -> bytes:
    """Return two seconds of a tone as a file."""
    if name == "m4a":
        return with_ffmpeg(tone(), RATE, "ipod", "aac")
    if name == "webm":
        return with_ffmpeg(tone(48000), 48000, "webm", "libopus")
    if name in FFMPEGS:
        return with_ffmpeg(tone(FFMPEGS[name][0]), *FFMPEGS[name])
    if name == "opus":
        return with_sndfile(tone(48000), 48000, format="OGG", subtype="OPUS")
    subtypes = {"wav": "PCM_24", "float.wav": "FLOAT", "ulaw.wav": "ULAW"}
    kind = name.rpartition(".")[2].upper()
    return with_sndfile(tone(), RATE, format=kind, subtype=subtypes.get(name))


KINDS = (
    *("wav", "float.wav", "ulaw.wav", "flac", "ogg", "opus", "mp3", "m4a", "webm"),
    *("aiff", "au", *FFMPEGS),
)


def decoded(data: bytes) -> Samples:
    return np.concatenate(list(AudioFile(data).blocks()))


def assert_is_the_tone(samples: Samples) -> None:
    assert len(samples) / SAMPLE_RATE == pytest.approx(2.0, abs=0.1)  # coders add some silence
    middle = samples[SAMPLE_RATE // 2 : -SAMPLE_RATE // 2]
    assert np.abs(middle).max() == pytest.approx(0.5, abs=0.1)  # AMR's is 0.58
    spectrum = np.abs(np.fft.rfft(middle))
    assert np.argmax(spectrum) * SAMPLE_RATE / len(middle) == pytest.approx(300, abs=2)


@pytest.mark.parametrize("name", KINDS)
def test_every_format_is_the_same_audio(name: str) -> None:
    assert_is_the_tone(decoded(made(name)))


ZEROS = bytes(512)
TAG = b"ID3\x04\0\0\0\0\x0f\x7f" + bytes(2047)  # of 2 KiB, whose length has 7 bits a byte


@pytest.mark.parametrize(
    "junk",
    [
        ZEROS,
        TAG,
        TAG + TAG + ZEROS,
        ZEROS + TAG,
        b"ID3 no tag\xff\xff\xff",
        b"\xff\xfb\xffjunk" * 100,
        np.random.default_rng(1).bytes(20_000),
    ],
    ids=["zeros", "tag", "tags and zeros", "zeros and tag", "no tag", "syncs", "noise"],
)
@pytest.mark.parametrize("name", ["mp3", "aac"])
@pytest.mark.parametrize("reader", ["soundfile", "av"])
def test_raw_audio_is_found_behind_what_is_none(
    name: str, junk: bytes, reader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = made(name)
    if reader == "av":
        monkeypatch.setitem(sys.modules, "soundfile", None)
    assert_is_the_tone(decoded(junk + data))


def test_a_tag_before_flac_is_no_obstacle() -> None:
    assert_is_the_tone(decoded(TAG + made("flac")))


def test_raw_audio_whose_channels_change_is_read_to_its_end() -> None:
    stereo = BytesIO()
    with av.open(stereo, "w", format="adts") as out:
        track = out.add_stream("aac", rate=RATE, layout="stereo")
        both = np.stack([tone(), tone()])
        frame = av.AudioFrame.from_ndarray(both, format="fltp", layout="stereo")
        frame.rate = RATE
        out.mux(track.encode(frame))
        out.mux(track.encode(None))
    samples = decoded(made("aac") + stereo.getvalue())
    assert len(samples) / SAMPLE_RATE == pytest.approx(4.0, abs=0.2)
    for half in np.split(samples[: len(samples) // 2 * 2], 2):
        assert np.abs(half[8000:-8000]).max() == pytest.approx(0.5, abs=0.05)


def test_damage_in_the_middle_costs_what_is_damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    for name in ("mp3", "aac"):
        data = bytearray(made(name))
        middle = len(data) // 2
        data[middle : middle + 300] = bytes(300)
        assert 1.6 < len(decoded(bytes(data))) / SAMPLE_RATE < 2.2


@pytest.mark.parametrize("name", ["flac", "ogg", "mp3"])
def test_pyav_reads_what_soundfile_is_not_there_for(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = made(name)
    monkeypatch.setitem(sys.modules, "soundfile", None)
    assert_is_the_tone(decoded(data))


@pytest.mark.parametrize(("name", "needed"), [("mp3", "soundfile"), ("webm", "PyAV")])
def test_where_nothing_can_read_a_format_a_sentence_says_what_would(
    name: str, needed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, plain = made(name), made("wav")
    for module in ("soundfile", "av"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(AudioError, match=needed):
        decoded(data)
    assert_is_the_tone(decoded(plain))


def test_without_pyav_a_sentence_says_what_is_readable_and_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unreadable = {name: made(name) for name in ("aac", "amr", "wma", "m4a", "webm")}
    readable = [made(name) for name in ("wav", "flac", "ogg", "mp3", "aiff", "caf", "au")]
    compressed = made("mp3.caf")
    monkeypatch.setitem(sys.modules, "av", None)
    for name, data in unreadable.items():
        with pytest.raises(AudioError) as caught:
            decoded(data)
        assert str(caught.value) == (
            f"{name.upper()} can't be read here, as PyAV (pip install av) is not installed; "
            "WAV, MP3, AIFF, FLAC, OGG, CAF and AU can"
        )
    for data in readable:
        assert_is_the_tone(decoded(data))
    with pytest.raises(AudioError, match="CAF file can't be decoded"):
        decoded(compressed)


PLAYLISTS = {
    "m3u": b"#EXTM3U\n#EXTINF:1,\n{url}\n",
    "hls": b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{url}\n#EXT-X-ENDLIST\n",
    "concat": b"ffconcat version 1.0\nfile {url}\n",
    "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=audio 9 RTP/AVP 0\n{url}\n",
    "dash": b'<?xml version="1.0"?><MPD><BaseURL>{url}</BaseURL></MPD>',
    "pls": b"[playlist]\nFile1={url}\n",
    "asx": b'<asx version="3.0"><entry><ref href="{url}"/></entry></asx>',
    "asf reference": b"[Reference]\nRef1={url}\n",
    "wpl": b'<?wpl version="1.0"?><smil><body><seq><media src="{url}"/></seq></body></smil>',
}


@pytest.mark.parametrize("before", [b"", bytes(100), TAG, b"\xff\xfb"])
@pytest.mark.parametrize("name", PLAYLISTS)
def test_what_makes_ffmpeg_open_other_files_is_refused(
    name: str, before: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other.wav"
    other.write_bytes(made("wav"))
    data = before + PLAYLISTS[name].replace(b"{url}", str(other).encode())
    opened = Mock(side_effect=av.open)
    monkeypatch.setattr(av, "open", opened)
    with pytest.raises(AudioError, match=r"no audio that is known|MP3 file can't be decoded"):
        decoded(data)
    for call in opened.call_args_list:
        assert call.kwargs["format"] == "mp3"
        assert call.kwargs["container_options"] == {"protocol_whitelist": "none"}


def test_every_format_is_named() -> None:
    names = {name.rpartition(".")[2].upper() for name in KINDS} - {"AIFC"}  # a kind of AIFF
    assert names <= set(re.findall(r"\w+", AudioFile.FORMATS.upper()))


def test_packets_that_give_nothing_are_handed_on_little_by_little(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(AudioFile, "BLOCK_PACKETS", 10)
    blocks = list(AudioFile(made("aac")).blocks())  # some 87 packets
    assert len(blocks) > 8
    assert_is_the_tone(np.concatenate(blocks))


def test_a_clip_is_read_as_a_whole_and_no_longer_than_it_may_be() -> None:
    assert_is_the_tone(AudioFile(made("amr")).read(2.5))
    with pytest.raises(AudioError, match="1 seconds at most"):
        AudioFile(made("amr")).read(1)


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"\xff\xf1aac", b"RIFF\0\0\0\0AVI ", bytes(1000), b"\xff" * 70_000]
)
def test_what_is_no_audio_is_told_what_would_be(data: bytes) -> None:
    with pytest.raises(AudioError, match=AudioFile.FORMATS.replace("(", r"\(").replace(")", r"\)")):
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
    monkeypatch.setattr(AudioFile, "MAX_BLOCK_VALUES", 20_000)
    blocks = list(AudioFile(made("flac")).blocks())
    assert len(blocks) > 8
    assert_is_the_tone(np.concatenate(blocks))


def test_a_wav_file_whose_length_was_not_known_when_it_was_begun_is_read() -> None:
    data = bytearray(made("wav"))
    data[4:8] = data[40:44] = struct.pack("<I", 0xFFFFFFFF)
    assert_is_the_tone(decoded(bytes(data)))


# -- pieces --------------------------------------------------------------------------------

SPANS = SpanOptions(pad_before_seconds=0.4, pad_after_seconds=0.3)


def heard(*parts: Samples) -> tuple[list[Section], float]:
    """Return the pieces, and the seconds of all of it."""
    pieces: list[Section] = []
    for now, more in AudioFile(wav(*parts)).speech(LoudnessVad(), SPANS, 1000):
        pieces, seconds = pieces + more, now
    return pieces, seconds


def test_a_short_recording_is_cut_as_a_command_is() -> None:
    (piece,), seconds = heard(quiet(2.0), loud(3.0), quiet(5.0), loud(1.0), quiet(2.0))
    assert seconds == 13.0
    assert piece.start / SAMPLE_RATE == pytest.approx(1.6, abs=FRAME_SAMPLES / SAMPLE_RATE)
    assert len(piece.samples) / SAMPLE_RATE == pytest.approx(9.7, abs=0.1)
    voicing = piece.voicing(SPANS)
    assert voicing.voiced_seconds == pytest.approx(4.0, abs=0.1)
    assert 0 < voicing.clear_frames <= voicing.voiced_seconds * SAMPLE_RATE / FRAME_SAMPLES


def test_silence_is_no_piece_however_long_it_is() -> None:
    for seconds in (1.0, 100.0):
        assert heard(quiet(seconds)) == ([], seconds)


def test_a_long_recording_is_cut_in_pauses_and_nothing_is_lost_or_moved() -> None:
    phrases = [(4.0, 0.5), (9.0, 2.0), (9.0, 0.3), (5.0, 40.0), (11.0, 1.0), (10.0, 0.2)]
    parts = [part for speech, pause in phrases for part in (loud(speech), quiet(pause))]
    whole = np.concatenate(parts)
    pieces, _ = heard(*parts)
    assert len(pieces) >= 3
    voiced = np.zeros(len(whole), bool)
    for piece in pieces:
        assert len(piece.samples) <= Section.WHOLE_SECONDS * SAMPLE_RATE
        start, end = piece.start, piece.start + len(piece.samples)
        expected = whole[start:end]
        assert np.allclose(piece.samples, expected, atol=1e-4)
        voiced[start:end] = True
    assert np.all(voiced[np.abs(whole) > 0.1])  # no speech was left out
    ends = [piece.start + len(piece.samples) for piece in pieces]
    assert all(end <= piece.start for end, piece in zip(ends, pieces[1:], strict=False))
    for end in ends[:-1]:  # cut where nobody speaks
        assert abs(whole[end - 1]) < 0.1


def test_a_long_recording_is_cut_about_a_sentence_long_and_one_of_half_a_minute_not() -> None:
    sentence = (loud(4.5), quiet(0.5))
    pieces, _ = heard(*sentence * 12)
    assert len(pieces) >= 10
    assert max(len(piece.samples) for piece in pieces) <= 12 * SAMPLE_RATE
    assert len(heard(*sentence * 6)[0]) == 1


def test_speech_without_any_pause_is_cut_all_the_same() -> None:
    pieces, _ = heard(loud(100.0))
    assert sum(len(piece.samples) for piece in pieces) == 100 * SAMPLE_RATE
    assert max(len(piece.samples) for piece in pieces) <= Section.WHOLE_SECONDS * SAMPLE_RATE


def test_what_lasts_too_long_is_refused_before_it_is_heard_to_its_end() -> None:
    steps = AudioFile(wav(quiet(100.0))).speech(LoudnessVad(), SPANS, max_seconds=15)
    assert next(steps) == (AudioFile.BLOCK_SECONDS, [])
    with pytest.raises(AudioError, match="15 seconds"):
        next(steps)


def test_what_takes_too_long_to_decode_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AudioFile, "MAX_DECODING_SECONDS", 0.0)
    with pytest.raises(AudioError, match="to decode"):
        heard(quiet(1.0))


def test_no_audio_at_all_is_a_sentence() -> None:
    with pytest.raises(AudioError, match="no audio"):
        heard(np.zeros(0, np.float32))


@pytest.mark.parametrize("name", ["WAV", "FLAC"])
def test_channels_that_cancel_are_heard_in_every_format(name: str) -> None:
    left = tone(SAMPLE_RATE)
    file = BytesIO()
    soundfile.write(file, np.stack([left, -left], axis=1), SAMPLE_RATE, format=name)
    samples = np.concatenate(list(AudioFile(file.getvalue()).blocks()))
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
    samples = np.concatenate(list(AudioFile(file.getvalue()).blocks()))
    np.testing.assert_allclose(samples[200:], left[200:], atol=1e-3)


def test_a_header_without_audio_is_refused_without_a_python_object() -> None:
    header = b"RIFF\x24\x00\x00\x00WAVEfmt \x10\x00\x00\x00" + b"\x99" * 24
    with pytest.raises(AudioError, match="can't be decoded") as refused:
        list(AudioFile(header).blocks())
    assert "object at" not in str(refused.value)
    assert "_Bytes" not in str(refused.value)
