"""What an upstream gets of an utterance, and what of its answer is believed."""

from __future__ import annotations

import asyncio
import io
import re
import unicodedata
import wave
from collections.abc import AsyncIterator, Sequence

from ..audio.pcm import PcmFormat
from ..audio.vad import Span
from ..errors import UpstreamError
from ..transcriber import SAMPLE_RATE, Samples, Transcription
from ..whisper.tokenizer import language_code


class Recording:
    """One utterance's audio as it arrives, which each upstream reads from the beginning.

    Belongs to the event loop.
    """

    SAMPLE_BYTES = 2
    MIN_CHUNK_BYTES = 32 * SAMPLE_RATE // 1000 * SAMPLE_BYTES  # 32 ms, as satellites send
    MAX_CHUNK_BYTES = SAMPLE_RATE * SAMPLE_BYTES
    """A second: others may bound what they read, as we do."""

    # "ERROR: out of memory" is what some servers send as a transcript, as if it had been said.
    ERROR = re.compile(
        r"\W*(?:(?:\w+ ){0,3}\w*(?:error|exception|failure) ?[:：]|traceback \()",  # noqa: RUF001
        re.IGNORECASE,
    )
    MARKUP = ("<", "{")
    NO_LETTERS = ("Cc", "Cs")  # of Unicode's categories: control characters, half characters

    def __init__(self) -> None:
        self._chunks: list[bytes] = []  # 16-bit little-endian
        self._n_samples = 0
        self._news = asyncio.Event()
        self.ended: float | None = None
        """When the audio ended, on the loop's clock."""
        self._spans: Sequence[Span] = ()
        self.speech_end = 0
        """Samples up to the end of the last speech; 0 before it has ended."""

    @property
    def seconds(self) -> float:
        return self._n_samples / SAMPLE_RATE

    def add(self, samples: Samples) -> None:
        """Take more of it, float32 mono at SAMPLE_RATE."""
        self._chunks.append(PcmFormat.encoded(samples))
        self._n_samples += len(samples)
        self._notify()

    def take_over(self, other: Recording) -> None:
        """Begin with all that `other` has by now."""
        self._chunks = [*other._chunks, *self._chunks]
        self._n_samples += other._n_samples
        self._notify()

    def finish(self, spans: Sequence[Span], speech_end: int) -> None:
        """Say that this was all, where in it speech is worth hearing, and where the last ends."""
        self._spans = spans
        self.speech_end = min(speech_end, self._n_samples)  # the last frame may be cut off
        self.ended = asyncio.get_running_loop().time()
        self._notify()

    def wav(self) -> bytes:
        """Return its speech as a WAV file of 16-bit samples; nothing before it has ended."""
        pcm, size = b"".join(self._chunks), self.SAMPLE_BYTES
        file = io.BytesIO()
        with wave.open(file, "wb") as out:
            out.setnchannels(1)
            out.setsampwidth(size)
            out.setframerate(SAMPLE_RATE)
            for start, end in self._spans:
                out.writeframes(pcm[size * start : size * end])
        return file.getvalue()

    def transcript(self, text: object, language: object, asked: str | None) -> Transcription:
        """Return what an upstream says of it, if that can be true; `asked` is Whisper's code.

        Raises UpstreamError, whose message does not hold the text: it may be what was said.
        """
        if not isinstance(text, str):
            raise UpstreamError("its transcript is no text")
        # The fastest speakers of any script stay far below.
        if len(text) > 200 + 40 * self.seconds:
            raise UpstreamError(f"its transcript has {len(text)} letters of {self.seconds:.1f} s")
        text = " ".join(text.split())
        if any(unicodedata.category(letter) in self.NO_LETTERS for letter in text):
            raise UpstreamError("its transcript has characters that are no text")
        if self.ERROR.match(text) or text.startswith(self.MARKUP):
            raise UpstreamError("its transcript is an error message, or no text at all")
        code = language_code(language) if isinstance(language, str) else None
        return Transcription(text, code or asked, seconds=self.seconds)

    async def end(self) -> None:
        """Return when it has ended."""
        while self.ended is None:
            await self._news.wait()

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield all of it, as it arrives, in pieces of a length that is good to send."""
        n_taken = 0
        waiting = b""
        while True:
            news, has_ended = self._news, self.ended is not None
            fresh = self._chunks[n_taken:]
            n_taken += len(fresh)
            waiting += b"".join(fresh)
            if len(waiting) >= self.MIN_CHUNK_BYTES or has_ended:
                for start in range(0, len(waiting), self.MAX_CHUNK_BYTES):
                    yield waiting[start : start + self.MAX_CHUNK_BYTES]
                waiting = b""
            if has_ended:
                return
            if len(self._chunks) == n_taken:
                await news.wait()

    def _notify(self) -> None:
        self._news.set()
        if self.ended is None:
            self._news = asyncio.Event()
