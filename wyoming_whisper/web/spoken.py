"""One recording of a request, on its way: decoded, cut, transcribed piece by piece."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, Sequence

from ..audio.recording import AudioFile
from ..audio.speech import Section
from ..text.scripts import joined
from ..transcriber import SAMPLE_RATE, Segment, TranscribeOptions, Transcription
from ..utterance.job import Priority
from ..utterance.languages import DetectedLanguage
from ..utterance.service import Service
from ..whisper.tokenizer import LANGUAGES
from .form import Granularity


class Spoken:
    """A recording on its way through the model, and what was heard of it by now."""

    MAX_RECORDING_SECONDS = 3600
    COURTESY_SECONDS = 0.1
    MAX_COURTESY_SECONDS = 30.0
    """While somebody speaks, no more of a long recording is decoded, and no further piece of it
    begun: the model would be at it when the command ends. A piece waits no longer than this, as a
    microphone may be left open."""

    def __init__(
        self,
        service: Service,
        decoding: asyncio.Semaphore,
        file: bytes,
        options: TranscribeOptions,
        granularities: Sequence[Granularity] = ("segment",),
    ) -> None:
        """`decoding` is held while some of `file` is decoded."""
        self._service = service
        self._decoding = decoding
        self._patience = self.MAX_COURTESY_SECONDS
        self._options = options
        self._file = file
        self.granularities = granularities
        """What has times in the answer."""
        self.seconds = 0.0
        self.segments: list[tuple[float, Segment]] = []
        """With where the piece of each begins."""
        self.text = ""
        self._detected = DetectedLanguage()

    @property
    def task(self) -> str:
        return self._options.task or "transcribe"

    @property
    def language(self) -> str:
        """OpenAI's name of the text's language."""
        code = self._options.language or self._detected.likeliest
        if self.task == "translate":
            code = "en"
        return LANGUAGES.get(code or "", "unknown")

    async def pieces(self) -> AsyncGenerator[str, None]:
        """Yield the text as it comes; together it is `text`. Raises WyomingWhisperError."""
        vad = await self._service.loaded_vad()
        options = self._service.span_options
        steps = AudioFile(self._file).speech(vad, options, self.MAX_RECORDING_SECONDS)
        while True:
            await self._courtesy()
            async with self._decoding:
                step = await asyncio.to_thread(next, steps, None)
            if step is None:
                return
            self.seconds, pieces = step
            for piece in pieces:
                await self._courtesy()
                transcription = await self._transcribe(piece)
                if transcription.text:
                    before, self.text = self.text, joined((self.text, transcription.text))
                    yield self.text[len(before) :]

    async def _transcribe(self, piece: Section) -> Transcription:
        """Return what is said in a piece; its segments are kept."""
        job = self._service.submit(piece.samples, self._options, Priority.RECORDING)
        transcription = await self._service.result_of(job)
        self._patience = self.MAX_COURTESY_SECONDS
        voicing = piece.voicing(self._service.span_options)
        transcription = self._service.text_style.verbatim.finished(transcription, voicing)
        if transcription.text:
            start = piece.start / SAMPLE_RATE
            self.segments += [(start, segment) for segment in transcription.segments]
        if self._options.language is None:
            self._detected.add(transcription, voicing.voiced_seconds)
            self._options = dataclasses.replace(self._options, language=self._detected.settled)
        return transcription

    async def _courtesy(self) -> None:
        """Let those who speak go first, where there is much to hear."""
        if self.seconds <= Section.WHOLE_SECONDS:
            return
        while self._service.is_spoken_to and self._patience > 0:
            self._patience -= self.COURTESY_SECONDS
            await asyncio.sleep(self.COURTESY_SECONDS)
