"""Asks as programs for OpenAI's API do."""

from __future__ import annotations

from aiohttp import ClientSession, ClientTimeout, FormData

from wyoming_whisper.transcriber import Samples
from wyoming_whisper.upstreams.exchange import Recording


async def transcribe(url: str, samples: Samples, timeout_seconds: float = 60.0) -> str:
    """Return the text of English speech. Raises ConnectionError."""
    form = FormData({"model": "whisper-1", "language": "en"})
    form.add_field("file", Recording.wav(samples), filename="a.wav", content_type="audio/wav")
    async with (
        ClientSession(timeout=ClientTimeout(total=timeout_seconds)) as session,
        session.post(f"{url}/v1/audio/transcriptions", data=form) as answer,
    ):
        if answer.status != 200:
            raise ConnectionError(f"HTTP {answer.status}: {(await answer.text())[:300]}")
        return str((await answer.json())["text"])
