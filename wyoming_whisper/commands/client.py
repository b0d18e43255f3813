"""Audio files for the commands, and a running server that transcribes them.

Knows nothing of models. Importing this loads numpy and wyoming; what decodes files only once one
is read.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
from wyoming.asr import Transcribe, Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop

from ..audio.pcm import PcmFormat
from ..audio.recording import AudioFile
from ..errors import AudioError
from ..tasks import end_tasks, start_task
from ..transcriber import SAMPLE_RATE, Samples, Transcription
from .connection import Connection


def read_audio(path: str | Path) -> Samples:
    """Return the first audio track of a file, resampled, its channels averaged; "-" is stdin.

    Raises AudioError, naming the file, when it can't be read or holds no audio.
    """
    try:
        data = sys.stdin.buffer.read() if str(path) == "-" else Path(path).read_bytes()
    except OSError as error:
        raise AudioError(f"{path} can't be read as audio ({error.strerror})") from None
    try:
        samples = np.concatenate([np.zeros(0, np.float32), *AudioFile(data).blocks()])
    except AudioError as error:
        raise AudioError(f"{path} can't be read as audio ({error})") from None
    if not len(samples):
        raise AudioError(f"{path} holds no audio")
    return samples


async def transcribe_remote(
    uri: str, samples: Samples, *, language: str | None = None, timeout: float = 60.0
) -> Transcription:
    """Have a server transcribe `samples`; stages["total"] is the wait for it, upload included.

    Raises TranscribeError with the server's words when it answers with an error, otherwise as
    Connection.talk does.
    """

    async def ask(connection: Connection) -> Transcript:
        # A server may answer, or fail, before it has heard everything.
        upload = start_task(_upload(connection, samples, language), "uploading", is_awaited=True)
        try:
            return Transcript.from_event(await connection.receive(Transcript.is_type))
        finally:
            await end_tasks(upload)

    start = time.perf_counter()
    transcript = await Connection.talk(uri, timeout, ask)
    return Transcription(
        text=transcript.text,
        language=transcript.language or language,
        seconds=len(samples) / SAMPLE_RATE,
        stages={"total": time.perf_counter() - start},
    )


async def _upload(connection: Connection, samples: Samples, language: str | None) -> None:
    await connection.send(Transcribe(language=language))
    await connection.send(AudioStart(rate=SAMPLE_RATE, width=2, channels=1))
    samples_per_chunk = 1024  # as Home Assistant's satellites send them
    for start in range(0, len(samples), samples_per_chunk):
        audio = PcmFormat.encoded(samples[start : start + samples_per_chunk])
        await connection.send(AudioChunk(rate=SAMPLE_RATE, width=2, channels=1, audio=audio))
    await connection.send(AudioStop())
