"""A recording that is there as a whole: decoded in memory, block by block, and cut into pieces.

However long it is, one piece of it is held decoded, and nothing touches a disk. Importing this
loads numpy; what decodes compressed audio only once such a file is read.
"""

from __future__ import annotations

import time
import wave
from collections.abc import Iterator
from importlib import import_module
from io import BytesIO
from typing import Any

import numpy as np

from ..errors import AudioError
from ..transcriber import SAMPLE_RATE, Samples
from .channels import Downmix
from .containers import Container
from .pcm import PcmFormat, PcmStream
from .pieces import Section
from .speech import Speech
from .vad import SpanOptions, Vad


class AudioFile:
    """A file of audio in memory, of any of the formats of `Container`."""

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
        kind, start = Container.sniff(self._data)
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

    def read(self, max_seconds: float) -> Samples:
        """Return all of it, mono at SAMPLE_RATE. Raises AudioError, also where it is longer."""
        parts, n_left = [np.zeros(0, np.float32)], round(max_seconds * SAMPLE_RATE)
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

    def _reader(self, kind: Container, data: bytes) -> Iterator[Samples]:
        if kind is Container.WAV and _is_plain_wav(data):
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

    def _sndfile_blocks(self, soundfile: Any, kind: Container, data: bytes) -> Iterator[Samples]:
        stream = PcmStream()
        with soundfile.SoundFile(_Bytes(data)) as file:
            if file.format not in kind.sndfile:
                raise AudioError(f"the file begins as {kind.name} does, but is none")
            rate = PcmFormat(file.samplerate, 4, file.channels).rate
            n_frames = min(self.BLOCK_SECONDS * rate, self.MAX_BLOCK_VALUES // file.channels)
            downmix = Downmix(rate)
            while len(block := file.read(n_frames, dtype="float32", always_2d=True)):
                yield stream.resample(downmix.mix(_sound(block)), rate)
        yield stream.flush()

    def _ffmpeg_blocks(self, av: Any, kind: Container, data: bytes) -> Iterator[Samples]:
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
    names = [kind.name for kind in Container if kind.sndfile] if soundfile else ["plain WAV"]
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
        self._downmix = Downmix(SAMPLE_RATE)
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
        parts = [self._downmix.mix(_sound(frame.to_ndarray().T)) for frame in frames]
        self._parts += parts
        self.n_samples += sum(map(len, parts))
        self.has_heard = self.has_heard or self.n_samples > 0


def _sound(samples: Samples) -> Samples:
    """Return what can be heard: files of floats may hold anything."""
    return np.clip(np.nan_to_num(samples), -1.0, 1.0).astype(np.float32, copy=False)
