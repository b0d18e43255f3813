"""What a recording's text looks like in each of OpenAI's response formats.

Shapes are those of whisper-1: segments' texts begin with a blank where the language has any, words
come without blanks and punctuation, and times are in seconds from the beginning of the file.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from aiohttp import web

from ..transcriber import Segment, Word

if TYPE_CHECKING:
    from .spoken import Spoken


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


Render = Callable[["Spoken"], web.Response]

RENDERED: Mapping[str, Render] = {
    "json": _json,
    "text": _text,
    "srt": _srt,
    "verbose_json": _verbose_json,
    "vtt": _vtt,
}
"""Response format -> what makes the answer."""
