"""One recording of a request, on its way: decoded, cut, transcribed piece by piece, written.

Answers have the shapes of whisper-1 at OpenAI: segments' texts begin with a blank where the
language has any, words come without blanks and punctuation, and times are in seconds from the
beginning of the file.
"""

from __future__ import annotations

import asyncio
import dataclasses
import html
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any

from aiohttp import web

from ..audio.recording import AudioFile
from ..audio.speech import Section
from ..text.scripts import joined
from ..transcriber import SAMPLE_RATE, Segment, TranscribeOptions, Transcription, Word
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


# -- response formats ----------------------------------------------------------------------


def _json(spoken: Spoken) -> web.Response:
    return web.json_response({"text": spoken.text, "usage": _usage(spoken)})


def _verbose_json(spoken: Spoken) -> web.Response:
    answer: dict[str, Any] = {
        "task": spoken.task,
        "language": spoken.language,
        "duration": round(spoken.seconds, 3),
        "text": spoken.text,
    }
    if "word" in spoken.granularities:
        answer["words"] = [
            _shown_word(start, word) for start, segment in spoken.segments for word in segment.words
        ]
    if "segment" in spoken.granularities:
        answer["segments"] = [
            _shown_segment(number, start, segment)
            for number, (start, segment) in enumerate(spoken.segments)
        ]
    return web.json_response({**answer, "usage": _usage(spoken)})


def _shown_segment(number: int, start: float, segment: Segment) -> dict[str, Any]:
    return {
        "id": number,
        "seek": round(100 * start),  # hundredths of a second, as Whisper counts
        "start": round(start + segment.start, 2),
        "end": round(start + segment.end, 2),
        "text": segment.text,
        "tokens": segment.tokens,
        "temperature": segment.temperature,
        "avg_logprob": round(segment.avg_logprob, 4),
        "compression_ratio": round(segment.compression_ratio, 4),
        "no_speech_prob": round(segment.no_speech_prob, 4),
    }


def _shown_word(start: float, word: Word) -> dict[str, Any]:
    return {
        "word": word.text,
        "start": round(start + word.start, 2),
        "end": round(start + word.end, 2),
    }


def _usage(spoken: Spoken) -> dict[str, Any]:
    return {"type": "duration", "seconds": round(spoken.seconds, 3)}


def _text(spoken: Spoken) -> web.Response:
    return web.Response(text=spoken.text + "\n")


def _srt(spoken: Spoken) -> web.Response:
    cues = (
        f"{number}\n{_clock(start + segment.start, ',')} --> {_clock(start + segment.end, ',')}\n"
        f"{segment.text.strip().replace('-->', '->')}\n\n"
        for number, (start, segment) in enumerate(spoken.segments, 1)
    )
    return web.Response(text="".join(cues))


def _vtt(spoken: Spoken) -> web.Response:
    cues = (
        f"{_clock(start + segment.start, '.')} --> {_clock(start + segment.end, '.')}\n"
        f"{html.escape(segment.text.strip(), quote=False)}\n\n"
        for start, segment in spoken.segments
    )
    return web.Response(text="WEBVTT\n\n" + "".join(cues))


def _clock(seconds: float, point: str) -> str:
    """Return a subtitle's time, such as 00:01:02.345."""
    whole, thousandths = divmod(round(1000 * seconds), 1000)
    minutes, second = divmod(whole, 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{second:02}{point}{thousandths:03}"


Render = Callable[[Spoken], web.Response]

RENDERED: Mapping[str, Render] = {
    "json": _json,
    "text": _text,
    "srt": _srt,
    "verbose_json": _verbose_json,
    "vtt": _vtt,
}
"""Response format -> what makes the answer."""
