"""Audio files for the commands, and a running server that transcribes them.

Knows nothing of models. Importing this loads numpy and wyoming; what decodes files only once one
is read.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

from wyoming.asr import Transcribe, Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.event import Eventable

from ..audio.pcm import PcmFormat
from ..audio.recording import AudioFile
from ..errors import AudioError
from ..transcriber import SAMPLE_RATE, Samples, Transcription
from .connection import ask_server


def read_audio(path: str | Path) -> Samples:
    """Return the first audio track of a file, resampled, its channels averaged; "-" is stdin.

    Raises AudioError, naming the file, when it can't be read or holds no audio.
    """
    try:
        data = sys.stdin.buffer.read() if str(path) == "-" else Path(path).read_bytes()
    except OSError as error:
        raise AudioError(f"{path} can't be read as audio ({error.strerror})") from None
    try:
        samples = AudioFile(data).read()
    except AudioError as error:
        raise AudioError(f"{path} can't be read as audio ({error})") from None
    if not len(samples):
        raise AudioError(f"{path} holds no audio")
    return samples


async def transcribe_remote(
    uri: str, samples: Samples, *, language: str | None = None, timeout: float = 60.0
) -> Transcription:
    """Have a server transcribe `samples`; stages["total"] is the wait for it, upload included.

    Raises what ask_server does.
    """
    start = time.perf_counter()
    event = await ask_server(uri, _spoken(samples, language), Transcript, timeout)
    transcript = Transcript.from_event(event)
    return Transcription(
        text=transcript.text,
        language=transcript.language or language,
        seconds=len(samples) / SAMPLE_RATE,
        stages={"total": time.perf_counter() - start},
    )


def _spoken(samples: Samples, language: str | None) -> Iterator[Eventable]:
    samples_per_chunk = 1024  # as Home Assistant's satellites send them
    yield Transcribe(language=language)
    yield AudioStart(rate=SAMPLE_RATE, width=2, channels=1)
    for start in range(0, len(samples), samples_per_chunk):
        audio = PcmFormat.encoded(samples[start : start + samples_per_chunk])
        yield AudioChunk(rate=SAMPLE_RATE, width=2, channels=1, audio=audio)
    yield AudioStop()
