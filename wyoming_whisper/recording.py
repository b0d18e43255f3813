"""A recording that is there as a whole: decoded in memory, block by block, and cut into pieces.

However long it is, one piece of it is held decoded, and nothing touches a disk. Importing this
loads numpy; what decodes compressed audio only once such a file is read.
"""

from __future__ import annotations

import wave
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from .channels import Downmix
from .errors import AudioError
from .pcm import PcmFormat, PcmStream
from .pieces import RECORDING, Section
from .speech import Speech
from .text import Voicing
from .transcriber import SAMPLE_RATE, Samples
from .vad import SpanOptions, Vad

BLOCK_SECONDS = 10
"""Decoded and heard at a time: some 30 ms of work."""

MAX_BLOCK_VALUES = 1_000_000
"""4 MB: fewer seconds at once where there are many channels."""

# -- decoding ------------------------------------------------------------------------------

FORMATS = "WAV, FLAC, OGG (Opus or Vorbis), MP3, M4A and WEBM"

_FFMPEG_NAMES = {
    "WAV": "wav",
    "FLAC": "flac",
    "OGG": "ogg",
    "MP3": "mp3",
    "M4A": "mov",
    "WEBM": "matroska",
}
_SNDFILE_NAMES = {
    "WAV": ("WAV", "WAVEX", "RF64"),
    "FLAC": ("FLAC",),
    "OGG": ("OGG",),
    "MP3": ("MP3", "MPEG"),
}


def container(data: bytes) -> str | None:
    """Return the format by the first bytes, as nothing else that a sender says can be trusted."""
    if data[:4] in (b"RIFF", b"RF64") and data[8:12] == b"WAVE":
        return "WAV"
    if data[4:8] == b"ftyp":
        return "M4A"
    for magic, name in (
        (b"fLaC", "FLAC"),
        (b"OggS", "OGG"),
        (b"ID3", "MP3"),
        (b"\x1a\x45\xdf\xa3", "WEBM"),
    ):
        if data.startswith(magic):
            return name
    # A frame's sync, and a layer, which AAC's frames don't have.
    is_mp3 = len(data) > 1 and data[0] == 0xFF and data[1] & 0xE0 == 0xE0 and data[1] & 0x06
    return "MP3" if is_mp3 else None


def audio_blocks(data: bytes) -> Iterator[Samples]:
    """Yield the first audio track of a file, mono at SAMPLE_RATE, BLOCK_SECONDS at a time or less.

    Each format has its own reader, and only that one is tried: FFmpeg's playlists, for example,
    would have it open other files. Raises AudioError.
    """
    name = container(data)
    if name is None:
        raise AudioError(f"the file is no audio that is known here: {FORMATS} are")
    try:
        yield from _reader(name, data)
    except AudioError:
        raise
    except (wave.Error, EOFError, OSError, RuntimeError, ValueError) as error:
        # soundfile raises RuntimeErrors, PyAV ValueErrors and OSErrors.
        reason = getattr(error, "strerror", None) or str(error) or "it ends early"
        raise AudioError(f"the {name} file can't be decoded: {reason}") from None


def _reader(name: str, data: bytes) -> Iterator[Samples]:
    if name == "WAV" and _is_plain_wav(data):
        return wav_blocks(BytesIO(data))
    if name in _SNDFILE_NAMES and (soundfile := _module("soundfile")):
        return _sndfile_blocks(soundfile, name, data)
    if av := _module("av"):
        return _ffmpeg_blocks(av, name, data)
    needed = "soundfile (the extra `audio`)" if name in _SNDFILE_NAMES else "PyAV (`av`)"
    raise AudioError(f"{name} can't be read here, as {needed} is not installed; plain WAV can")


def _module(name: str) -> Any:
    try:
        return import_module(name)
    except (ImportError, OSError):  # soundfile without its library is an OSError
        return None


def _is_plain_wav(data: bytes) -> bool:
    """Whether Python's own reader can read it: integers, no compression."""
    try:
        with wave.open(BytesIO(data)):
            return True
    except (wave.Error, EOFError):
        return False


@dataclass
class _Block:
    """Part of a WAV file, as Pcm."""

    rate: int
    width: int
    channels: int
    audio: bytes


def wav_blocks(source: str | Path | BytesIO) -> Iterator[Samples]:
    """Yield a WAV file as audio_blocks() does. Raises wave.Error, EOFError, OSError, AudioError."""
    stream = PcmStream()
    with wave.open(str(source) if isinstance(source, Path) else source) as file:
        rate = file.getframerate()
        width, channels = file.getsampwidth(), file.getnchannels()
        while audio := file.readframes(BLOCK_SECONDS * rate):
            yield stream.convert(_Block(rate, width, channels, audio))
    yield stream.flush()


def _sndfile_blocks(soundfile: Any, name: str, data: bytes) -> Iterator[Samples]:
    stream = PcmStream()
    with soundfile.SoundFile(BytesIO(data)) as file:
        if file.format not in _SNDFILE_NAMES[name]:
            raise AudioError(f"the file begins as {name} does, but is none")
        rate = PcmFormat(file.samplerate, 4, file.channels).rate
        n_frames = min(BLOCK_SECONDS * rate, MAX_BLOCK_VALUES // file.channels)
        downmix = Downmix(rate)
        while len(block := file.read(n_frames, dtype="float32", always_2d=True)):
            yield stream.resample(downmix.mix(_sound(block)), rate)
    yield stream.flush()


def _ffmpeg_blocks(av: Any, name: str, data: bytes) -> Iterator[Samples]:
    # Before PyAV 19, a file with a title that is not UTF-8 is refused unless this is given.
    lenient = {} if int(av.__version__.split(".")[0]) >= 19 else {"metadata_errors": "ignore"}
    with av.open(BytesIO(data), format=_FFMPEG_NAMES[name], **lenient) as file:
        if not file.streams.audio:
            raise AudioError(f"the {name} file holds no audio")
        track = file.streams.audio[0]
        PcmFormat(track.rate, 4, track.channels)
        resampler = av.AudioResampler(format="fltp", rate=SAMPLE_RATE)
        downmix = Downmix(SAMPLE_RATE)
        parts: list[Samples] = []
        for frame in file.decode(track):
            # The channels are mixed here: FFmpeg's own mix of stereo is 3 dB too loud.
            parts += [downmix.mix(_sound(out.to_ndarray().T)) for out in resampler.resample(frame)]
            if sum(map(len, parts)) >= BLOCK_SECONDS * SAMPLE_RATE:
                yield np.concatenate(parts)
                parts = []
        parts += [downmix.mix(_sound(out.to_ndarray().T)) for out in resampler.resample(None)]
    yield np.concatenate([np.zeros(0, np.float32), *parts])


def _sound(samples: Samples) -> Samples:
    """Return what can be heard: files of floats may hold anything."""
    return np.clip(np.nan_to_num(samples), -1.0, 1.0).astype(np.float32, copy=False)


# -- pieces --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Piece:
    """Speech that is transcribed at once."""

    start: float
    """Seconds from the beginning of the recording."""
    samples: Samples
    voicing: Voicing


class Recording:
    """A file, heard step by step; what is transcribed of one of MAX_PIECE_SECONDS or less is what
    would be of a command.

    Not for several threads at once.
    """

    def __init__(self, data: bytes, vad: Vad, options: SpanOptions, max_seconds: float) -> None:
        self._blocks = audio_blocks(data)
        self._speech = Speech(vad, options)
        self._options = options
        self._max_seconds = max_seconds
        self.seconds = 0.0
        """Length of what was heard so far."""
        self.is_over = False

    def step(self) -> list[Piece]:
        """Hear BLOCK_SECONDS more; return what can be transcribed by now. Raises AudioError."""
        block = next(self._blocks, None)
        if block is None:
            self.is_over = True
            if not self.seconds:
                raise AudioError("the file holds no audio")
            self._speech.finish()
            return self._pieces([self._speech.take_rest()])
        self.seconds += len(block) / SAMPLE_RATE
        if self.seconds > self._max_seconds:
            raise AudioError(f"a recording may last {self._max_seconds:.0f} seconds at most")
        self._speech.add(block)
        return self._pieces(self._speech.take_sections(RECORDING))

    def _pieces(self, sections: list[Section]) -> list[Piece]:
        return [
            Piece(
                (section.start + start) / SAMPLE_RATE,
                section.samples[start:end],
                section.voicing(self._options, (start, end)),
            )
            for section in sections
            for start, end in section.spans(self._options)
        ]
