"""A recording that is there as a whole: decoded in memory, block by block, and cut into pieces.

However long it is, one piece of it is held decoded, and nothing touches a disk. Importing this
loads numpy; what decodes compressed audio only once such a file is read.
"""

from __future__ import annotations

import math
import time
import wave
from collections.abc import Iterator
from enum import Enum
from importlib import import_module
from io import BytesIO
from typing import Any

import numpy as np

from ..errors import AudioError
from ..transcriber import SAMPLE_RATE, Samples
from .pcm import PcmFormat, PcmStream
from .speech import Section, Speech
from .vad import SpanOptions, Vad


class AudioFile:
    """A file of audio in memory, in any of FORMATS."""

    BLOCK_SECONDS = 10
    """Decoded and heard at a time: some 30 ms of work."""
    MAX_BLOCK_VALUES = 1_000_000
    """4 MB: fewer seconds at once where there are many channels."""
    BLOCK_PACKETS = 2000
    """Of a compressed file at a time, whatever comes of them."""
    MAX_DECODING_SECONDS = 300.0
    """Of work for one file, whatever comes of it: an hour of AAC takes a slow machine one
    minute."""
    FORMATS = "WAV, FLAC, OGG (Opus or Vorbis), MP3, M4A, WEBM, AAC, AMR, AIFF, CAF, AU and WMA"

    def __init__(self, data: bytes) -> None:
        self._data = data

    def blocks(self) -> Iterator[Samples]:
        """Yield the first audio track, mono at SAMPLE_RATE, BLOCK_SECONDS at a time or less.

        Each format has its own reader, and only that one is tried: FFmpeg's playlists, for example,
        would have it open other files. Raises AudioError.
        """
        kind, start = _Container.sniff(self._data)
        if kind is None:
            raise AudioError(f"the file is no audio that is known here: {self.FORMATS} are")
        try:
            yield from self._reader(kind, self._data[start:] if start else self._data)
        except AudioError:
            raise
        except _failures() as error:
            # libsndfile's own words: soundfile puts the Python object that was read before them.
            message = getattr(error, "strerror", None) or getattr(error, "error_string", None)
            reason = (message or str(error) or "it ends early").rstrip(".")
            raise AudioError(f"the {kind.name} file can't be decoded: {reason}") from None

    def read(self, max_seconds: float = math.inf) -> Samples:
        """Return all of it, mono at SAMPLE_RATE. Raises AudioError, also where it is longer."""
        parts, n_left = [np.zeros(0, np.float32)], max_seconds * SAMPLE_RATE
        for block in self.blocks():
            parts.append(block)
            n_left -= len(block)
            if n_left < 0:
                raise AudioError(f"a clip may last {max_seconds:.0f} seconds at most")
        return np.concatenate(parts)

    def speech(
        self, vad: Vad, options: SpanOptions, max_seconds: float
    ) -> Iterator[tuple[float, list[Section]]]:
        """Hear it block by block; yield its length by now, and what can be transcribed by then.

        That is speech, span by span. What is transcribed of a file that Whisper hears at once is
        what would be of a command. Not for several threads at once. Raises AudioError.
        """
        heard, blocks, decoding_seconds = Speech(vad, options), self.blocks(), 0.0
        while True:
            begun = time.monotonic()
            block = next(blocks, None)
            decoding_seconds += time.monotonic() - begun
            if decoding_seconds > self.MAX_DECODING_SECONDS:
                raise AudioError(
                    f"the file takes more than {self.MAX_DECODING_SECONDS:.0f} s to decode"
                )
            if block is None:
                break
            heard.add(block)
            if heard.seconds > max_seconds:
                raise AudioError(f"a recording may last {max_seconds:.0f} seconds at most")
            yield heard.seconds, _parts(heard.take_sections(), options)
        if not heard.seconds:
            raise AudioError("the file holds no audio")
        heard.finish()
        yield heard.seconds, _parts([heard.take_rest()], options)

    def _reader(self, kind: _Container, data: bytes) -> Iterator[Samples]:
        if kind is _Container.WAV and _is_plain_wav(data):
            return self._wav_blocks(data)
        soundfile, av = _module("soundfile"), _module("av")
        if soundfile and kind.sndfile and not (av and kind.is_mostly_ffmpegs):
            return self._sndfile_blocks(soundfile, kind, data)
        if av:
            return self._ffmpeg_blocks(av, kind, data)
        needed = "soundfile (the extra `audio`)" if kind.sndfile else "PyAV (pip install av)"
        raise AudioError(
            f"{kind.name} can't be read here, as {needed} is not installed; "
            f"{_readable(soundfile)} can"
        )

    def _wav_blocks(self, data: bytes) -> Iterator[Samples]:
        stream = PcmStream()
        with wave.open(BytesIO(data)) as file:
            pcm = PcmFormat(file.getframerate(), file.getsampwidth(), file.getnchannels())
            while audio := file.readframes(self.BLOCK_SECONDS * pcm.rate):
                yield stream.convert(pcm, audio)
        yield stream.flush()

    def _sndfile_blocks(self, soundfile: Any, kind: _Container, data: bytes) -> Iterator[Samples]:
        stream = PcmStream()
        with soundfile.SoundFile(_Bytes(data)) as file:
            if file.format not in kind.sndfile:
                raise AudioError(f"the file begins as {kind.name} does, but is none")
            rate = PcmFormat(file.samplerate, 4, file.channels).rate
            n_frames = min(self.BLOCK_SECONDS * rate, self.MAX_BLOCK_VALUES // file.channels)
            while len(block := file.read(n_frames, dtype="float32", always_2d=True)):
                yield stream.mix(_sound(block), rate)
        yield stream.flush()

    def _ffmpeg_blocks(self, av: Any, kind: _Container, data: bytes) -> Iterator[Samples]:
        """Decode with FFmpeg; packets that can't be decoded are passed over, as players do."""
        # Before PyAV 19, a file with a title that is not UTF-8 is refused unless this is given.
        lenient = {} if int(av.__version__.split(".")[0]) >= 19 else {"metadata_errors": "ignore"}
        # There is no protocol of this name: whatever a file refers to, it holds the audio itself.
        options = {"protocol_whitelist": "none"}
        with av.open(
            BytesIO(data), format=kind.ffmpeg, container_options=options, **lenient
        ) as file:
            if not file.streams.audio:
                raise AudioError(f"the {kind.name} file holds no audio")
            track, mixer = file.streams.audio[0], _Mixer(av)
            damage: Exception | None = None
            n_packets = 0
            for packet in file.demux(track):
                try:
                    frames = packet.decode()
                except av.FFmpegError as error:
                    damage = error
                    continue
                for frame in frames:
                    mixer.add(frame)
                n_packets += 1
                # Also where nothing comes of many packets, whoever asked has a say.
                if (
                    mixer.n_samples >= self.BLOCK_SECONDS * SAMPLE_RATE
                    or n_packets % self.BLOCK_PACKETS == 0
                ):
                    yield mixer.take()
            mixer.finish()
        if damage is not None and not mixer.has_heard:
            raise damage
        yield mixer.take()


def _parts(sections: list[Section], options: SpanOptions) -> list[Section]:
    return [part for section in sections for part in section.parts(options)]


def _readable(soundfile: Any) -> str:
    """Return the formats that can be read without PyAV."""
    names = [kind.name for kind in _Container if kind.sndfile] if soundfile else ["plain WAV"]
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _failures() -> tuple[type[Exception], ...]:
    """Return what readers raise: soundfile RuntimeErrors, PyAV errors of its own too."""
    av = _module("av")
    theirs = (av.FFmpegError,) if av else ()
    return (wave.Error, EOFError, OSError, RuntimeError, ValueError, *theirs)


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


class _Bytes(BytesIO):
    """Bytes that stay where they are when a damaged file has its reader go before their start."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        try:
            return super().seek(offset, whence)
        except ValueError:
            return self.tell()


class _Mixer:
    """Makes FFmpeg's frames, which may change in the middle of a file, mono at SAMPLE_RATE."""

    def __init__(self, av: Any) -> None:
        self._av = av
        self._resampler: Any = None
        self._format: tuple[object, ...] = ()
        self._stream = PcmStream()
        self._parts: list[Samples] = []
        self.n_samples = 0
        """Not taken yet."""
        self.has_heard = False

    def add(self, frame: Any) -> None:
        """Raises AudioError for a rate or a number of channels that nothing has."""
        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        if form != self._format:
            self.finish()
            PcmFormat(frame.sample_rate, 4, frame.layout.nb_channels)
            self._resampler = self._av.AudioResampler(format="fltp", rate=SAMPLE_RATE)
            self._format = form
        self._keep(self._resampler.resample(frame))

    def finish(self) -> None:
        if self._resampler is not None:
            self._keep(self._resampler.resample(None))
            self._resampler, self._format = None, ()

    def take(self) -> Samples:
        taken = np.concatenate([np.zeros(0, np.float32), *self._parts])
        self._parts, self.n_samples = [], 0
        return taken

    def _keep(self, frames: list[Any]) -> None:
        # The channels are mixed here: FFmpeg's own mix of stereo is 3 dB too loud.
        parts = [self._stream.mix(_sound(frame.to_ndarray().T), SAMPLE_RATE) for frame in frames]
        self._parts += parts
        self.n_samples += sum(map(len, parts))
        self.has_heard = self.has_heard or self.n_samples > 0


def _sound(samples: Samples) -> Samples:
    """Return what can be heard: files of floats may hold anything."""
    return np.clip(np.nan_to_num(samples), -1.0, 1.0).astype(np.float32, copy=False)


# -- what kind of file it is, by its bytes ------------------------------------------------------


class _Container(Enum):
    """A format of audio files: its name for people, and who reads it.

    Only formats that hold the audio themselves are known here. FFmpeg also knows playlists, which
    would have it open other files and addresses; as nothing is left to it to find out, it never
    sees one.
    """

    WAV = ("wav", ("WAV", "WAVEX", "RF64"))
    MP3 = ("mp3", ("MP3", "MPEG"))
    AAC = ("aac",)
    M4A = ("mov",)
    AIFF = ("aiff", ("AIFF",))
    FLAC = ("flac", ("FLAC",), b"fLaC")
    OGG = ("ogg", ("OGG",), b"OggS")
    WEBM = ("matroska", (), b"\x1a\x45\xdf\xa3")
    AMR = ("amr", (), b"#!AMR")
    CAF = ("caf", ("CAF",), b"caff")
    AU = ("au", ("AU",), b".snd")
    WMA = ("asf", (), bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"))

    def __init__(self, ffmpeg: str, sndfile: tuple[str, ...] = (), magic: bytes = b"") -> None:
        self.ffmpeg = ffmpeg
        """FFmpeg's name of what reads it."""
        self.sndfile = sndfile
        """libsndfile's names for it; none where it can't read it."""
        self.magic = magic
        """What a file begins with; empty where more than that tells."""

    @property
    def is_mostly_ffmpegs(self) -> bool:
        """Whether libsndfile reads only what of it is not compressed as usual."""
        return self is _Container.CAF

    @classmethod
    def sniff(cls, data: bytes) -> tuple[_Container | None, int]:
        """Return the format, None for what is none of them, and where the file begins.

        Zeros and tags come before some MP3 and AAC; other junk too, where frames follow it soon.
        """
        # Of what precedes the first frame of raw MP3 or AAC, besides zeros and tags.
        max_skipped_bytes = 64 * 1024
        start = 0
        for start in _beginnings(data):
            kind = _by_magic(data, start) or _raw(data, start)
            if kind is not None:
                return kind, start
        if start < len(data):
            for at in range(start, min(start + max_skipped_bytes, len(data))):
                kind = _raw(data, at, whole=True) if data[at] == 0xFF else None
                if kind is not None:
                    return kind, at
        return (cls.MP3, 0) if data.startswith(b"ID3") else (None, 0)


def _by_magic(data: bytes, start: int) -> _Container | None:
    head = data[start : start + 16]
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
        return _Container.WAV
    if head[4:8] == b"ftyp":
        return _Container.M4A
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return _Container.AIFF
    return next((kind for kind in _Container if kind.magic and head.startswith(kind.magic)), None)


def _beginnings(data: bytes) -> Iterator[int]:
    """Yield where the file may begin: where it does, and after zeros and tags (ID3v2)."""
    at, last = 0, -1
    while at != last:
        yield at
        last = at
        at += _tag_bytes(data, at)
        if data[at : at + 1] == b"\0":
            at = len(data) - len(data[at:].lstrip(b"\0"))


def _tag_bytes(data: bytes, at: int) -> int:
    """Return the length of the ID3v2 tag there; 0 where there is none."""
    head = data[at : at + 10]
    if len(head) < 10 or head[:3] != b"ID3" or head[3] > 4 or max(head[6:]) > 0x7F:
        return 0
    size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
    n_bytes = 10 + size + (10 if head[5] & 0x10 else 0)  # there may be a footer
    return n_bytes if at + n_bytes <= len(data) else 0


def _raw(data: bytes, at: int, *, whole: bool = False) -> _Container | None:
    """Return what frames begin there, as many as are enough to tell; fewer end with the file.

    `whole` asks for all of them.
    """
    # By which raw MP3 or AAC is told from any two bytes that look like a frame's.
    frames_in_a_row = 3
    kind = None
    for _ in range(frames_in_a_row):
        head = data[at : at + 6]
        if kind is not None and len(head) < 6:
            return None if whole else kind
        frame_kind, n_bytes = _frame(head)
        if frame_kind is None or kind not in (None, frame_kind):
            return None
        kind, at = frame_kind, at + n_bytes
    return kind


def _frame(head: bytes) -> tuple[_Container | None, int]:
    """Return the kind of a frame and its length in bytes, by its first six."""
    hertz_of_mpeg_1 = (44_100, 48_000, 32_000)
    kbps_of_mpeg_2 = (
        (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
        (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
        (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    )
    kbps_of_mpeg_1 = (
        (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
        (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
        (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    )
    if len(head) < 6 or head[0] != 0xFF:
        return None, 0
    if head[1] & 0xF6 == 0xF0:  # ADTS has no layer
        n_bytes = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
        is_aac = (head[2] >> 2) & 15 < 13 and n_bytes > 7
        return (_Container.AAC, n_bytes) if is_aac else (None, 0)
    version, layer = (head[1] >> 3) & 3, 3 - ((head[1] >> 1) & 3)  # 3 is MPEG 1; 0 is layer I
    kbps, hertz, padding = head[2] >> 4, (head[2] >> 2) & 3, (head[2] >> 1) & 1
    if head[1] & 0xE0 != 0xE0 or version == 1 or layer == 3 or kbps in (0, 15) or hertz == 3:
        return None, 0
    rate = hertz_of_mpeg_1[hertz] >> {3: 0, 2: 1, 0: 2}[version]
    bits = 1000 * (kbps_of_mpeg_1 if version == 3 else kbps_of_mpeg_2)[layer][kbps - 1]
    if layer == 0:
        return _Container.MP3, (12 * bits // rate + padding) * 4
    n_samples = 576 if layer == 2 and version != 3 else 1152
    return _Container.MP3, n_samples // 8 * bits // rate + padding
