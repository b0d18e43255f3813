"""The OpenAI-compatible endpoint: the official client's texts, every bound, and who may use it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import shlex
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import openai
import pytest
import soundfile
from aiohttp import ClientSession, FormData

from tests.support import (
    AUDIO,
    HOME_EN,
    TIMEOUT_SECONDS,
    Client,
    FakeTranscriber,
    clips,
    loud,
    quiet,
    run_server,
    voice_probabilities,
    wav,
    words,
)
from tests.web.test_web import free_port, ready, scrape, speak, until_open, web_server
from wyoming_whisper.audio.vad import SileroVad, SpanOptions
from wyoming_whisper.backends import open_transcriber
from wyoming_whisper.commands.client import read_audio
from wyoming_whisper.errors import (
    BusyError,
    ModelUnavailableError,
    NotPossibleError,
    SettingsError,
    TranscribeError,
)
from wyoming_whisper.models.stock import ALIAS, StockModel
from wyoming_whisper.settings.options import Settings
from wyoming_whisper.text.replacements import Replacements
from wyoming_whisper.transcriber import (
    SAMPLE_RATE,
    Samples,
    Segment,
    TranscribeOptions,
    Transcriber,
    Transcription,
    Word,
)
from wyoming_whisper.utterance.job import Priority
from wyoming_whisper.web import web_page
from wyoming_whisper.web.app import _Site
from wyoming_whisper.web.form import Form
from wyoming_whisper.web.spoken import RENDERED, Spoken
from wyoming_whisper.web.transcriptions import Api

ROOT = AUDIO.parent.parent
TRANSCRIPTIONS = "/v1/audio/transcriptions"
TRANSLATIONS = "/v1/audio/translations"
FORMATS = tuple(RENDERED)
SPANS = SpanOptions.of(Settings())


pytestmark = pytest.mark.usefixtures("_hear_loudness")


@dataclass
class Timed(FakeTranscriber):
    """Says where it was in each piece, when asked."""

    def transcribe(self, samples: Samples, options: TranscribeOptions) -> Transcription:
        super().transcribe(samples, options)
        n = len(self.requests)
        text = f"piece {n} <i> --> ü"
        end = len(samples) / SAMPLE_RATE
        times = (Word(0.25, 0.75, "piece"), Word(0.8, end, str(n))) if options.words else ()
        segments = (Segment(0.25, end, f" {text}", (1, 2), -0.1, 0.9, 0.01, 0.0, times),)
        return Transcription(
            text, options.language or "de", segments=segments if options.timestamps else ()
        )


CLIP = wav(quiet(1.0), loud(2.0), quiet(1.0))
LONG = wav(loud(11.0), quiet(5.0), loud(11.0), quiet(5.0), loud(10.0))  # three pieces


def asked(file: bytes | None = CLIP, /, **fields: Any) -> FormData:
    """Return a form with a model, unless it is named otherwise."""
    data = FormData(default_to_multipart=True)
    for name, values in {"model": "tiny", **fields}.items():
        for value in [values] if isinstance(values, str) else values:
            data.add_field(name, value)
    if file is not None:
        data.add_field("file", BytesIO(file), filename="clip.bin")
    return data


async def post(
    session: ClientSession,
    data: Any,
    path: str = TRANSCRIPTIONS,
    headers: dict[str, str] | None = None,
) -> tuple[int, Any]:
    async with session.post(path, data=data, headers=headers) as response:
        if response.content_type == "application/json":
            return response.status, await response.json()
        return response.status, await response.text()


async def refusal(session: ClientSession, data: Any, path: str = TRANSCRIPTIONS) -> tuple[Any, ...]:
    """Return (status, message, param, code), and check that the shape is OpenAI's."""
    status, told = await post(session, data, path)
    assert set(told) == {"error"}
    error = told["error"]
    assert set(error) == {"message", "type", "param", "code"}
    expected = "requests" if status == 429 else "invalid_request_error"
    assert error["type"] == (expected if status < 500 else "server_error")
    return status, error["message"], error["param"], error["code"]


def serving(tmp_path: Path, fake: FakeTranscriber, **settings: object) -> Any:
    return ready(tmp_path, fake, openai_api=True, **settings)


# -- the official client and the bundled model ---------------------------------------------

SPOKEN = [clip for clip in clips("clean") if clip.file[:2] in ("02", "07", "13")]


def encoded(samples: Samples, kind: str) -> bytes:
    """Return the samples as a file of this kind, at a rate that people use."""
    file = BytesIO()
    loudest = samples.repeat(3)  # 48 kHz
    options: dict[str, Any] = {"format": kind.upper()}
    if kind == "opus":
        options = {"format": "OGG", "subtype": "OPUS"}
    soundfile.write(file, loudest, 48000, **options)
    return file.getvalue()


@contextlib.asynccontextmanager
async def real_server(tmp_path: Path, **settings: object) -> AsyncIterator[str]:
    port = free_port()
    options = {"model": str(HOME_EN), "http_port": port, "openai_api": True, **settings}
    async with run_server(tmp_path, open_transcriber, **options):
        await until_open(port)
        yield f"http://127.0.0.1:{port}/v1"


def ask_synchronously(url: str, file: bytes) -> dict[str, Any]:
    """Return the answer in every format."""
    with openai.OpenAI(base_url=url, api_key="a-key", max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["home-en", ALIAS]
        assert client.models.retrieve("home-en").owned_by == "wyoming-whisper"
        return {
            name: client.audio.transcriptions.create(
                model=str(HOME_EN),
                file=("clip.flac", file),
                language="en",
                response_format=name,  # type: ignore[call-overload]
            )
            for name in FORMATS
        }


async def test_the_official_client_gets_the_right_text_in_every_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wyoming_whisper.utterance.service.SileroVad", SileroVad)
    first = SPOKEN[0]
    flac = (AUDIO / first.file).read_bytes()
    async with real_server(tmp_path, openai_key="a-key") as url:
        told = await asyncio.to_thread(ask_synchronously, url, flac)
        async with openai.AsyncOpenAI(base_url=url, api_key="a-key", max_retries=0) as client:
            for clip in SPOKEN:
                data = (AUDIO / clip.file).read_bytes()
                answer = await client.audio.transcriptions.create(
                    model=ALIAS, file=("clip.flac", data)
                )
                assert words(answer.text) == words(clip.text)
            for kind in ("wav", "ogg", "opus", "mp3"):
                data = encoded(read_audio(AUDIO / first.file), kind)
                answer = await client.audio.transcriptions.create(
                    model=ALIAS, file=(f"clip.{kind}", data), temperature=0, prompt="Yard."
                )
                assert words(answer.text) == words(first.text), kind
            stream = await client.audio.transcriptions.create(
                model=ALIAS, file=("clip.flac", flac), stream=True
            )
            events: list[Any] = [event async for event in stream]
        async with openai.AsyncOpenAI(base_url=url, api_key="no", max_retries=0) as client:
            with pytest.raises(openai.AuthenticationError, match="Incorrect API key"):
                await client.models.list()
    text = told["json"].text
    assert words(text) == words(first.text)
    assert told["text"] == text + "\n"
    verbose = told["verbose_json"]
    assert (verbose.text, verbose.language) == (text, "english")
    assert verbose.duration == pytest.approx(4.012, abs=0.001)
    assert told["json"].usage.seconds == verbose.duration
    (segment,) = verbose.segments
    assert (segment.id, segment.text) == (0, f" {text}")
    assert 0.1 < segment.start < segment.end < 4.012
    assert segment.avg_logprob < 0 <= segment.no_speech_prob < segment.compression_ratio
    assert told["srt"].splitlines()[0] == "1"
    assert told["srt"].splitlines()[1].startswith("00:00:00,")
    assert told["srt"].splitlines()[2:] == [text, "", ""][: len(told["srt"].splitlines()) - 2]
    assert told["vtt"].splitlines()[:2] == ["WEBVTT", ""]
    assert told["vtt"].splitlines()[3] == text
    assert [event.type for event in events] == ["transcript.text.delta", "transcript.text.done"]
    assert (events[0].delta, events[1].text) == (text, text)


async def test_the_long_clip_is_heard_in_pieces_and_its_times_are_those_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wyoming_whisper.utterance.service.SileroVad", SileroVad)
    (clip,) = clips("long")
    samples = read_audio(AUDIO / clip.file)
    spoken_at = voice_probabilities(samples) > 0.5
    async with (
        real_server(tmp_path) as url,
        openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client,
    ):
        told = await client.audio.transcriptions.create(
            model=str(HOME_EN),
            file=("clip.flac", (AUDIO / clip.file).read_bytes()),
            response_format="verbose_json",
            timestamp_granularities=["segment"],
        )
        stream = await client.audio.transcriptions.create(
            model=str(HOME_EN), file=("clip.flac", (AUDIO / clip.file).read_bytes()), stream=True
        )
        events: list[Any] = [event async for event in stream]
    assert told.duration == pytest.approx(len(samples) / SAMPLE_RATE, abs=0.01)
    # Half of these sentences are beyond this model, but what it hears it hears where it is.
    right = words(clip.text)
    heard = [word for word in words(told.text) if word in right]
    assert len(heard) > 0.4 * len(right)
    assert told.segments
    assert told.segments[-1].end > 35
    for segment in told.segments:
        frames = spoken_at[int(segment.start * 31.25) : int(segment.end * 31.25) + 1]
        assert frames.mean() > 0.6, segment
    *deltas, done = events
    assert len(deltas) > 1
    assert "".join(event.delta for event in deltas) == done.text


def examples() -> tuple[str, str]:
    """Return the command and the program of docs/openai.md."""
    page = (ROOT / "docs" / "openai.md").read_text()
    command = re.search(r"```sh\n(.*?)```", page, re.DOTALL)
    program = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert command
    assert program
    return command[1], program[1]


def as_curl_does(command: str) -> tuple[str, FormData]:
    """Return the address and the form: -F adds a field, @ reads a file."""
    curl, address, *options = shlex.split(command)
    assert curl == "curl"
    data = FormData(default_to_multipart=True)
    for flag, option in zip(options[::2], options[1::2], strict=True):
        name, _, value = option.partition("=")
        assert flag == "-F"
        if value.startswith("@"):
            data.add_field(name, BytesIO((ROOT / value[1:]).read_bytes()), filename="clip")
        else:
            data.add_field(name, value)
    return address, data


async def test_the_examples_in_the_docs_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("wyoming_whisper.utterance.service.SileroVad", SileroVad)
    monkeypatch.chdir(ROOT)
    command, program = examples()
    here = "http://127.0.0.1:8099/v1"
    async with real_server(tmp_path) as url:
        names: dict[str, Any] = {}
        await asyncio.to_thread(exec, program.replace(here, url), names)
        names["client"].close()
        assert words(capsys.readouterr().out) == words(SPOKEN[0].text)
        address, data = as_curl_does(command.replace(here, url))
        async with ClientSession() as session, session.post(address, data=data) as response:
            assert response.status == 200
            lines = (await response.text()).splitlines()
    assert lines[0] == "1"
    assert words(lines[2]) == words(SPOKEN[0].text)


# -- what is asked for ---------------------------------------------------------------------


async def test_parameters_reach_the_model(tmp_path: Path) -> None:
    fake = Timed()
    async with serving(tmp_path, fake) as (_, session):
        status, told = await post(
            session,
            asked(
                language="en-GB",
                prompt="Brimlow.",
                temperature="0.4",
                **{"keywords[]": ["Ada", "Grace"], "timestamp_granularities[]": "segment"},
                response_format="verbose_json",
                chunking_strategy="auto",
                stream="false",
            ),
        )
    assert status == 200, told
    ((samples, options),) = fake.requests
    assert (options.language, options.prompt, options.temperature) == ("en", "Brimlow.", 0.4)
    assert (options.names, options.timestamps, options.task) == (
        ("Ada", "Grace"),
        True,
        "transcribe",
    )
    assert len(samples) / SAMPLE_RATE == pytest.approx(
        2.0 + SPANS.pad_before_seconds + SPANS.pad_after_seconds, abs=0.05
    )
    (segment,) = told["segments"]
    # In the file, not in the piece.
    assert segment["start"] == pytest.approx(1.0 - SPANS.pad_before_seconds + 0.25, abs=0.04)
    assert told["duration"] == 4.0


async def test_what_a_command_would_be_stripped_of_is_left_to_other_programs(
    tmp_path: Path,
) -> None:
    class Punctuated(FakeTranscriber):
        def transcribe(self, samples: Samples, options: TranscribeOptions) -> Transcription:
            return Transcription('"Hello, there!" she said.', "en")

    async with serving(tmp_path, Punctuated()) as (_, session):
        assert (await post(session, asked()))[1]["text"] == '"Hello, there!" she said.'


async def test_words_are_replaced_for_other_programs_too_and_fillers_stay(tmp_path: Path) -> None:
    class Spoken(FakeTranscriber):
        def transcribe(self, samples: Samples, options: TranscribeOptions) -> Transcription:
            text = "Uh, tee vee for ½ hour."
            segments = (Segment(0.0, 1.0, text, (1, 2), -0.1, 0.9, 0.01, 0.0),)
            return Transcription(text, "en", segments=segments)

    replaced = Replacements.read(["tee vee=TV"])
    async with serving(tmp_path, Spoken(), replace=replaced) as (_, session):
        _, told = await post(session, asked(response_format="verbose_json"))
    assert told["text"] == "Uh, TV for ½ hour."
    assert [segment["text"].strip() for segment in told["segments"]] == ["Uh, TV for ½ hour."]


async def test_a_long_recording_is_one_text_with_times_of_the_whole(tmp_path: Path) -> None:
    fake = Timed()
    async with serving(tmp_path, fake) as (_, session):
        _, told = await post(session, asked(LONG, response_format="verbose_json"))
        _, subtitles = await post(session, asked(LONG, response_format="srt"))
        _, cues = await post(session, asked(LONG, response_format="vtt"))
    first, *rest = fake.requests
    assert [options.language for _, options in [first, *rest][:3]] == [None, "de", "de"]
    assert [segment["id"] for segment in told["segments"]] == [0, 1, 2]
    starts = [segment["start"] for segment in told["segments"]]
    begun = [0.0, 16.0 - SPANS.pad_before_seconds, 32.0 - SPANS.pad_before_seconds]
    assert starts == pytest.approx([start + 0.25 for start in begun], abs=0.05)
    assert told["segments"][-1]["end"] == pytest.approx(42.0, abs=0.05)
    assert told["text"] == "".join(segment["text"] for segment in told["segments"]).strip()
    assert told["language"] == "german"
    lines = subtitles.splitlines()
    assert lines[0] == "1"
    assert re.fullmatch(r"00:00:00,250 --> 00:00:11,\d{3}", lines[1])
    assert lines[2] == "piece 4 <i> -> ü"
    assert lines[9].endswith("--> 00:00:42,000")
    assert "piece 9 &lt;i&gt; --&gt; ü" in cues


async def test_a_language_that_is_in_doubt_is_detected_again(tmp_path: Path) -> None:
    class Doubtful(Timed):
        def transcribe(self, samples: Samples, options: TranscribeOptions) -> Transcription:
            heard = super().transcribe(samples, options)
            language, probability = (("pt", 0.5), ("de", 0.95))[min(len(self.requests), 2) - 1]
            return replace(
                heard, language=options.language or language, language_probability=probability
            )

    fake = Doubtful()
    short = wav(loud(3.0), quiet(3.0), loud(11.0), quiet(5.0), loud(11.0))  # a word or two first
    async with serving(tmp_path, fake) as (_, session):
        _, told = await post(session, asked(short, response_format="verbose_json"))
    assert [options.language for _, options in fake.requests] == [None, None, "de"]
    assert told["language"] == "german"


async def test_translations_are_of_the_task_and_in_english(tmp_path: Path) -> None:
    fake = Timed()
    async with serving(tmp_path, fake) as (_, session):
        status, told = await post(session, asked(response_format="verbose_json"), TRANSLATIONS)
    assert (status, told["task"], told["language"]) == (200, "translate", "english")
    assert (fake.requests[0][1].task, fake.requests[0][1].language) == ("translate", None)


async def test_a_model_that_was_not_trained_to_translate_is_not_asked_to(tmp_path: Path) -> None:
    async with serving(tmp_path, Timed(), model="turbo") as (_, session):
        data = asked(model="turbo")
        status, message, *_ = await refusal(session, data, TRANSLATIONS)
    assert status == 400
    assert "not trained to translate" in message


@pytest.mark.parametrize(
    ("granularities", "expected"),
    [
        ([], {"segments"}),
        (["segment"], {"segments"}),
        (["word"], {"words"}),
        (["word", "segment"], {"words", "segments"}),
    ],
)
async def test_words_and_segments_have_times_as_they_are_asked_for(
    tmp_path: Path, granularities: list[str], expected: set[str]
) -> None:
    fake = Timed()
    fields: dict[str, Any] = {"timestamp_granularities[]": granularities}
    async with serving(tmp_path, fake) as (_, session):
        data = asked(LONG, response_format="verbose_json", **fields)
        status, told = await post(session, data)
    assert status == 200, told
    assert {"words", "segments"} & set(told) == expected
    assert {options.words for _, options in fake.requests} == {"words" in expected}
    if "words" in expected:
        texts = [word["word"] for word in told["words"]]
        assert texts == ["piece", "1", "piece", "2", "piece", "3"]
        third = told["words"][4]
        assert set(third) == {"word", "start", "end"}
        begun = 32.0 - SPANS.pad_before_seconds  # in the file, not in the piece
        assert (third["start"], third["end"]) == pytest.approx(
            (begun + 0.25, begun + 0.75), abs=0.05
        )


async def test_word_times_of_a_backend_without_them_are_a_sentence(tmp_path: Path) -> None:
    fake = FakeTranscriber(error=NotPossibleError("times of words", "no-word-times"))
    async with serving(tmp_path, fake) as (_, session):
        granularities = {"timestamp_granularities[]": "word"}
        found = await refusal(session, asked(response_format="verbose_json", **granularities))
    assert found == (400, "times of words", "timestamp_granularities", "no-word-times")


async def test_the_official_client_gets_word_times_of_people(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stock_base: Path
) -> None:
    monkeypatch.setattr("wyoming_whisper.utterance.service.SileroVad", SileroVad)
    jfk = (AUDIO / "jfk.flac").read_bytes()
    async with (
        real_server(tmp_path, model=str(stock_base), backend="faster-whisper") as url,
        openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client,
    ):
        told = await client.audio.transcriptions.create(
            model="Systran/faster-whisper-base",
            file=("jfk.flac", jfk),
            response_format="verbose_json",
            timestamp_granularities=["word", "segment"],
        )
    assert told.words
    assert told.segments
    assert [word.word for word in told.words][:5] == ["And", "so", "my", "fellow", "Americans"]
    assert (told.words[5].word, told.words[-1].word) == ("ask", "country")
    assert told.words[5].start == pytest.approx(3.28, abs=0.15)
    assert told.words[-1].end == pytest.approx(10.45, abs=0.35)
    assert "".join(segment.text for segment in told.segments) == f" {told.text}"


@pytest.mark.parametrize("response_format", FORMATS)
async def test_silence_is_an_empty_text_in_every_format(
    tmp_path: Path, response_format: str
) -> None:
    fake = FakeTranscriber()
    async with serving(tmp_path, fake) as (_, session):
        data = asked(wav(quiet(2.0)), response_format=response_format)
        status, told = await post(session, data)
    assert (status, fake.requests) == (200, [])
    empty = {"text": "\n", "srt": "", "vtt": "WEBVTT\n\n"}
    assert told == empty[response_format] if response_format in empty else told["text"] == ""


async def test_each_piece_is_sent_when_it_is_there(tmp_path: Path) -> None:
    fake = Timed()
    async with (
        serving(tmp_path, fake) as (_, session),
        session.post(TRANSCRIPTIONS, data=asked(LONG, stream="true")) as response,
    ):
        assert response.content_type == "text/event-stream"
        assert _Site.HEADERS.items() <= dict(response.headers).items()
        first = await response.content.readuntil(b"\n\n")
        assert b"piece 1" in first
        rest = await response.text()
    assert rest.count("transcript.text.delta") == 2
    assert "piece 1 <i> --> \\u00fc piece 2 <i> --> \\u00fc piece 3" in rest
    assert rest.endswith("data: [DONE]\n\n")


async def test_a_failure_in_the_middle_of_a_stream_is_told_in_it(tmp_path: Path) -> None:
    class Failing(Timed):
        def transcribe(self, samples: Samples, options: TranscribeOptions) -> Transcription:
            if self.requests:
                raise TranscribeError("out of memory")
            return super().transcribe(samples, options)

    async with real_client(tmp_path, Failing()) as client:
        stream = await client.audio.transcriptions.create(
            model=ALIAS, file=("a.wav", LONG), stream=True
        )
        assert (await anext(stream)).type == "transcript.text.delta"
        with pytest.raises(openai.APIError, match="out of memory"):
            await anext(stream)


@contextlib.asynccontextmanager
async def real_client(
    tmp_path: Path, fake: FakeTranscriber, **settings: object
) -> AsyncIterator[openai.AsyncOpenAI]:
    async with serving(tmp_path, fake, **settings) as (_, session):
        url = f"{str(session._base_url).rstrip('/')}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
            yield client


# -- which model is meant ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "names"),
    [
        ("base", ["Systran/faster-whisper-base", "openai/whisper-base", "whisper-base", "BASE"]),
        ("base.en", ["Systran/faster-whisper-base.en", "openai/whisper-base.en"]),
        ("base-int8", ["base", "rhasspy/faster-whisper-base-int8", "openai/whisper-base"]),
        ("Systran/faster-whisper-base", ["base", "guillaumekln/faster-whisper-base"]),
        ("faster-whisper-base", ["base", "Systran/faster-whisper-base"]),  # a folder's name
        ("large-v3", ["large", "whisper-large", "whisper-large-v3", "openai/whisper-large-v3"]),
        ("large", ["large-v3", "Systran/faster-whisper-large-v3"]),
        ("large-v1", ["openai/whisper-large"]),
        ("turbo", ["large-v3-turbo", "openai/whisper-large-v3-turbo", "whisper-turbo"]),
        ("turbo", ["deepdml/faster-whisper-large-v3-turbo-ct2", "turbo"]),
        (
            "distil-large-v3",
            ["distil-whisper/distil-large-v3", "Systran/faster-distil-whisper-large-v3"],
        ),
        ("auto", ["tiny", "Systran/faster-whisper-medium.en", "auto"]),
        ("me/kitchen", ["me/kitchen"]),
        *((model, ["whisper-1", "gpt-4o-transcribe"]) for model in ("me/kitchen", "tiny", "auto")),
        ("base", ["gpt-4o-mini-transcribe", "gpt-4o-mini-transcribe-2025-12-15"]),
    ],
)
def test_other_names_of_the_weights_that_run_are_theirs(model: str, names: list[str]) -> None:
    assert [name for name in names if not StockModel.is_meant(name, model)] == []


@pytest.mark.parametrize(
    ("model", "names"),
    [
        (
            "base",
            ["small", "base.en", "Systran/faster-whisper-base.en", "me/whisper-base", "me/base"],
        ),
        ("large-v3", ["openai/whisper-large", "large-v2", "large-v3-turbo", "distil-large-v3", ""]),
        ("me/kitchen", ["kitchen", "base", "you/kitchen"]),
        ("base", ["gpt-4o", "gpt-4o-transcribe-diarize", "whisper-2", "whisper-1x", "auto"]),
        ("auto", ["me/kitchen", "gpt-5"]),
    ],
)
def test_names_of_other_weights_are_not(model: str, names: list[str]) -> None:
    assert [name for name in names if StockModel.is_meant(name, model)] == []


@pytest.mark.parametrize("fields", [{}, {"model": ""}, {"model": "openai/whisper-tiny"}])
async def test_a_request_without_a_model_or_with_another_name_of_it_is_answered(
    tmp_path: Path, fields: dict[str, str]
) -> None:
    data = FormData(fields, default_to_multipart=True)
    data.add_field("file", BytesIO(CLIP), filename="clip.wav")
    async with serving(tmp_path, FakeTranscriber()) as (_, session):
        assert (await post(session, data))[0] == 200
        async with session.get("/v1/models/openai/whisper-tiny") as response:
            assert (await response.json())["id"] == "openai/whisper-tiny"
        async with session.get("/v1/models") as response:  # one model, and what OpenAI calls it
            assert [model["id"] for model in (await response.json())["data"]] == ["tiny", ALIAS]


async def test_unknown_parameters_are_ignored_with_one_line_each(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    def noted() -> list[str]:
        return [line for line in caplog.messages if "is ignored" in line]

    async with serving(tmp_path, FakeTranscriber()) as (_, session):
        for _ in range(2):
            assert (await post(session, asked(vad_filter="true", **{"hotwords[]": "a"})))[0] == 200
        assert (await post(session, asked(language="en"), TRANSLATIONS))[0] == 200
        assert [line.split("'")[1] for line in noted()] == ["vad_filter", "hotwords", "language"]
        for start in range(0, 100, 50):  # names are the client's to make up
            fields = {f"x{start + i}": "1" for i in range(50)}
            assert (await post(session, asked(**fields)))[0] == 200
        assert (await post(session, asked(**{"y" * 1000: "1"})))[0] == 200
    assert len(noted()) == Api.MAX_NOTED_PARAMETERS
    assert max(map(len, noted())) < 200


# -- what is refused -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "expected", "param"),
    [
        (asked(model="gpt-5"), "'gpt-5' does not exist", "model"),
        (asked(None), "you must provide a file", "file"),
        (asked(b"not audio"), "no audio that is known here", "file"),
        (asked(b"RIFF____WAVEfmt "), "can't be decoded", "file"),
        (asked(wav(np.zeros(0, np.float32))), "holds no audio", "file"),
        (asked(language="klingon"), "klingon", "language"),
        (asked(**{"languages[]": ["en", "de"]}), "one language", "languages"),
        (asked(temperature="2"), "from 0 to 1", "temperature"),
        (asked(temperature="nan"), "from 0 to 1", "temperature"),
        (asked(response_format="xml"), "json, text, srt, verbose_json or vtt", "response_format"),
        (asked(response_format="diarized_json"), "must be json", "response_format"),
        (asked(stream="maybe"), "true or false", "stream"),
        (asked(stream="true", response_format="srt"), "json or text", "stream"),
        (asked(**{"include[]": "logprobs"}), "not possible", "include"),
        (asked(**{"timestamp_granularities[]": "word"}), "verbose_json", "timestamp_granularities"),
        (
            asked(response_format="verbose_json", **{"timestamp_granularities[]": "letter"}),
            "must be segment or word",
            "timestamp_granularities",
        ),
        (asked(**{"chunking_strategy[type]": "server_vad"}), "must be auto", "chunking_strategy"),
        (asked(colour="blue", temperature="warm"), "from 0 to 1", "temperature"),
        (asked(prompt=["a", "b"]), "2 times", "prompt"),
        (
            asked(prompt="x" * (Form.MAX_FIELD_BYTES + 1)),
            f"{Form.MAX_FIELD_BYTES} bytes",
            "prompt",
        ),
        (
            asked(**{"keywords[]": ["x"] * (Form.MAX_FIELDS + 1)}),
            f"{Form.MAX_FIELDS} fields",
            None,
        ),
        (asked(**{"keywords[]": ["x" * 101]}), "100 letters", "keywords"),
        ({"model": "tiny"}, "multipart/form-data", None),
        (b"{}", "multipart/form-data", None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_is_not_possible_is_one_sentence_that_names_the_parameter(
    tmp_path: Path, data: Any, expected: str, param: str | None
) -> None:
    fake = FakeTranscriber()
    async with serving(tmp_path, fake) as (_, session):
        status, message, named, _ = await refusal(session, data)
        assert (await session.get("/health")).status == 200
    assert status == (404 if "does not exist" in expected else 400)
    assert expected in message
    assert named == param
    assert not fake.requests


@pytest.mark.filterwarnings("ignore::aiohttp.BadContentDispositionHeader")
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--x\r\n",
        b"--y\r\n\r\nno\r\n--y--",
        b"--x\r\nContent-Disposition: form-data\r\n\r\nno name\r\n--x--\r\n",
        b"--x\r\nContent-Type: multipart/mixed; boundary=z\r\n\r\n--z\r\n\r\n--z--\r\n--x--\r\n",
        b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\n\xff\xfe\r\n--x--\r\n',
        b'--x\r\nContent-Disposition: ; name="model"\r\n\r\ntiny\r\n--x--\r\n',
        b"--x\r\n" + b"A: b\r\n" * 1000 + b"\r\n\r\n--x--\r\n",
    ],
)
async def test_a_form_that_is_none_is_a_sentence(tmp_path: Path, body: bytes) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    async with serving(tmp_path, FakeTranscriber()) as (_, session):
        status, told = await post(session, body, headers=headers)
        assert (await session.get("/health")).status == 200
    assert (status, told["error"]["type"]) == (400, "invalid_request_error")


async def test_a_body_that_breaks_off_or_is_packed_wrongly_is_no_error_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    head = f"POST {TRANSCRIPTIONS} HTTP/1.1\r\nHost: localhost\r\n"
    head += "Content-Type: multipart/form-data; boundary=x\r\n"
    length = b"Content-Length: 100\r\n"
    async with serving(tmp_path, FakeTranscriber()) as (_, session):
        for rest in (
            length + b"\r\n--x\r\nCont",
            length + b"Content-Encoding: gzip\r\n\r\n" + bytes(100),
            length + b"Expect: a miracle\r\n\r\n",
            b"Transfer-Encoding: chunked\r\n\r\nno number\r\n",
            b"Transfer-Encoding: chunked\r\n\r\n3\r\n--x\r\nno number\r\n",
        ):
            _, writer = await asyncio.open_connection("127.0.0.1", session._base_url.port)
            writer.write(head.encode() + rest)
            await writer.drain()
            await asyncio.sleep(0.02)  # until the server is at it
            writer.close()
        assert (await post(session, asked()))[0] == 200
    assert [record for record in caplog.records if record.levelno > logging.WARNING] == []


async def test_other_paths_and_methods_are_told_in_the_same_shape(tmp_path: Path) -> None:
    async with serving(tmp_path, FakeTranscriber()) as (_, session):
        for method, path, expected in (
            ("GET", "/v1/chat/completions", 404),
            ("GET", TRANSCRIPTIONS, 405),
            ("OPTIONS", TRANSCRIPTIONS, 405),
            ("GET", "/v1/models/other", 404),
        ):
            async with session.request(method, path) as response:
                assert (response.status, path) == (expected, path)
                assert (await response.json())["error"]["message"]
                assert "Access-Control-Allow-Origin" not in response.headers
        async with session.get("/nowhere") as response:  # the page's own are as they were
            assert response.content_type == "text/plain"


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (BusyError("later"), 429, "rate_limit_exceeded"),
        (TranscribeError("late", "deadline-exceeded"), 503, "deadline-exceeded"),
        (TranscribeError("no memory"), 500, "transcribe-failed"),
        (MemoryError(), 500, "transcribe-failed"),
        (RuntimeError("secret"), 500, "internal-error"),
    ],
)
async def test_a_failure_of_the_model_has_its_status(
    tmp_path: Path, error: Exception, status: int, code: str
) -> None:
    async with serving(tmp_path, FakeTranscriber(error=error)) as (_, session):
        found = await refusal(session, asked())
        assert (found[0], found[3]) == (status, code)
        assert "secret" not in found[1]
        counted = await scrape(session)
    assert counted[f"wyoming_whisper_api_requests_total {status}"] == 1


async def test_a_model_that_cannot_be_had_is_unavailable_and_not_listed(tmp_path: Path) -> None:
    def fail(_: Settings) -> Transcriber:
        raise ModelUnavailableError("no way to the hub")

    async with web_server(tmp_path, fail, openai_api=True) as (server, session):
        while server.status.state.phase != "unavailable":  # noqa: ASYNC110 - another thread's
            await asyncio.sleep(0.005)
        assert (await refusal(session, asked()))[:2] == (503, "no way to the hub")
        async with session.get("/v1/models") as response:
            assert response.status == 503
            assert response.headers["Retry-After"] == "1"


# -- bounds --------------------------------------------------------------------------------


async def test_a_file_that_is_too_large_is_refused_by_its_length_or_when_it_has_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Form.MAX_FILE_BYTES == 25 * 1024 * 1024
    monkeypatch.setattr(Form, "MAX_FILE_BYTES", 100_000)

    async def endless() -> AsyncIterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(40):
            yield bytes(65536)
            await asyncio.sleep(0)  # the server must have its turn: it is in the same loop

    async with serving(tmp_path, FakeTranscriber()) as (_, session):
        assert (await refusal(session, asked(bytes(100_001))))[0] == 413
        length = {"Content-Length": str(10**9), "Content-Type": "multipart/form-data; boundary=x"}
        reader, writer = await asyncio.open_connection("127.0.0.1", session._base_url.port)
        lines = [f"POST {TRANSCRIPTIONS} HTTP/1.1", "Host: localhost"]
        lines += [f"{name}: {value}" for name, value in length.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        assert b" 413 " in await asyncio.wait_for(reader.readline(), TIMEOUT_SECONDS)
        writer.close()
        with contextlib.suppress(ConnectionError, OSError):
            headers = {"Content-Type": "multipart/form-data; boundary=x"}
            assert (await post(session, endless(), headers=headers))[0] == 413
        assert (await session.get("/health")).status == 200


async def test_all_uploads_together_are_bounded_and_their_room_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Api, "MAX_UPLOADED_BYTES", 150_000)
    fake = FakeTranscriber()
    fake.gate.clear()
    async with serving(tmp_path, fake) as (_, session):
        first = asyncio.create_task(post(session, asked()))  # 128 KB
        await asyncio.to_thread(fake.started.wait, TIMEOUT_SECONDS)
        assert (await refusal(session, asked()))[0] == 429
        fake.gate.set()
        assert (await first)[0] == 200
        assert (await post(session, asked()))[0] == 200


async def test_so_many_requests_are_taken_at_once(tmp_path: Path) -> None:
    fake = FakeTranscriber()
    fake.gate.clear()
    async with serving(tmp_path, fake) as (_, session):
        posts = [asyncio.create_task(post(session, asked())) for _ in range(Api.MAX_REQUESTS + 1)]
        done, _ = await asyncio.wait(
            posts, timeout=TIMEOUT_SECONDS, return_when=asyncio.FIRST_COMPLETED
        )
        assert [task.result()[0] for task in done] == [429]
        fake.gate.set()
        answers = await asyncio.gather(*posts)
        assert sorted(status for status, _ in answers) == [200] * Api.MAX_REQUESTS + [429]
        assert (await post(session, asked()))[0] == 200


async def test_a_recording_that_lasts_too_long_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wyoming_whisper.web.spoken.Spoken.MAX_RECORDING_SECONDS", 30)
    async with serving(tmp_path, FakeTranscriber()) as (_, session):
        status, message, param, _ = await refusal(session, asked(LONG))
    assert (status, param) == (400, "file")
    assert "30 seconds at most" in message


async def test_a_wrong_head_of_a_part_is_told_in_one_line(tmp_path: Path) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    async with serving(tmp_path, FakeTranscriber()) as (_, session):
        status, answer = await post(session, b"--x\r\nfoo\r\n", headers=headers)
    message = answer["error"]["message"]
    assert status == 400
    assert message.startswith("the form can't be understood: ")
    assert "\n" not in message


async def test_a_body_that_does_not_come_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Form, "MAX_SECONDS", 0.05)

    async def stalling() -> AsyncIterator[bytes]:
        yield b"--x\r\n"
        await asyncio.sleep(TIMEOUT_SECONDS)

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    async with serving(tmp_path, FakeTranscriber()) as (_, session):
        assert (await post(session, stalling(), headers=headers))[0] == 408


async def test_a_head_that_does_not_come_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wyoming_whisper.web.app._Site.IDLE_SECONDS", 0.05)
    async with serving(tmp_path, FakeTranscriber()) as (_, session):
        for beginning in (b"", b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: lo"):
            reader, writer = await asyncio.open_connection("127.0.0.1", session._base_url.port)
            writer.write(beginning)
            assert await asyncio.wait_for(reader.read(), TIMEOUT_SECONDS) == b""
            writer.close()


async def test_what_nobody_waits_for_any_more_is_dropped(tmp_path: Path) -> None:
    fake = FakeTranscriber()
    fake.gate.clear()
    async with serving(tmp_path, fake) as (_, session):
        sender = asyncio.create_task(post(session, asked(LONG)))
        await asyncio.to_thread(fake.started.wait, TIMEOUT_SECONDS)
        sender.cancel()
        await asyncio.gather(sender, return_exceptions=True)
        fake.gate.set()
        assert (await post(session, asked()))[0] == 200
    lengths = [len(samples) / SAMPLE_RATE for samples, _ in fake.requests]
    assert len(lengths) == 2  # the piece that ran when its sender left, and the clip after it


async def test_a_model_that_takes_too_long_for_a_piece_is_given_up(tmp_path: Path) -> None:
    fake = FakeTranscriber()
    fake.gate.clear()
    async with serving(tmp_path, fake, deadline=1) as (server, session):
        server.deadline_seconds = 0.05
        status, message, _, code = await refusal(session, asked())
        assert (status, code) == (503, "deadline-exceeded")
        assert "--deadline" in message
        fake.gate.set()


# -- beside those who speak ----------------------------------------------------------------


async def test_a_command_goes_before_every_recording_that_waits(tmp_path: Path) -> None:
    fake = FakeTranscriber()
    fake.gate.clear()
    async with serving(tmp_path, fake) as (server, session):

        def waiting() -> list[bool]:
            return sorted(job.priority is Priority.RECORDING for job in server.scheduler._jobs)

        posts = [asyncio.create_task(post(session, asked())) for _ in range(3)]
        async with Client(tmp_path) as client:
            while waiting() != [True, True]:  # noqa: ASYNC110 - beside the one that runs
                await asyncio.sleep(0.005)
            await client.speak(seconds=0.5)
            while waiting() != [False, True, True]:  # noqa: ASYNC110 - another task's
                await asyncio.sleep(0.005)
            fake.gate.set()
            await client.transcript()
        assert [status for status, _ in await asyncio.gather(*posts)] == [200] * 3
    lengths = [len(samples) for samples, _ in fake.requests]
    assert lengths.index(min(lengths)) == 1  # right after what the model was at


async def test_no_piece_of_a_long_recording_is_begun_while_somebody_speaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeTranscriber()
    async with serving(tmp_path, fake) as (server, session), Client(tmp_path) as client:
        from wyoming.audio import AudioStart, AudioStop

        await client.send(AudioStart(16000, 2, 1).event())
        while not server.is_spoken_to:  # noqa: ASYNC110 - until it has come
            await asyncio.sleep(0.005)
        sender = asyncio.create_task(post(session, asked(LONG)))
        assert (await post(session, asked()))[0] == 200  # a short one is no burden
        await asyncio.sleep(2 * Spoken.COURTESY_SECONDS)
        assert len(fake.requests) == 1
        await client.send(AudioStop().event())
        await client.transcript()
        assert (await sender)[0] == 200
        assert not server.is_spoken_to
        monkeypatch.setattr("wyoming_whisper.web.spoken.Spoken.MAX_COURTESY_SECONDS", 0.0)
        await client.send(AudioStart(16000, 2, 1).event())
        assert (await post(session, asked(LONG)))[0] == 200  # a microphone that is left open


async def test_a_server_that_stops_takes_nothing_new(tmp_path: Path) -> None:
    fake = FakeTranscriber()
    async with serving(tmp_path, fake) as (server, session):
        fake.gate.clear()
        speaking = asyncio.create_task(speak(tmp_path))
        await asyncio.to_thread(fake.started.wait, TIMEOUT_SECONDS)
        server.stop()
        assert (await refusal(session, asked()))[0] == 503
        fake.gate.set()
        assert await speaking


# -- who may use it ------------------------------------------------------------------------


async def test_it_is_there_only_where_it_was_switched_on(tmp_path: Path) -> None:
    async with ready(tmp_path, FakeTranscriber()) as (_, session):
        for path in ("/v1/models", TRANSCRIPTIONS):
            async with session.get(path) as response:
                assert response.status == 404
                assert response.content_type == "text/plain"


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"http_port": 0}, "name one, such as 8099"),
        ({"http_port": 8099, "backend": "none"}, "--backend none leaves out"),
    ],
)
async def test_switched_on_where_it_cant_be_answered_is_one_sentence(
    settings: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(SettingsError, match=sentence):
        async with web_page(Mock(settings=Settings(openai_api=True, **settings))):
            pass


@pytest.mark.parametrize(
    ("given", "status"),
    [
        (None, 401),
        ("Bearer other", 401),
        ("Bearer ", 401),
        ("Basic secret", 401),
        ("Bearer secr", 401),
        ("Bearer sécret", 401),
        ("Bearer secret", 200),
        ("bearer secret", 200),
    ],
)
async def test_a_key_is_needed_where_one_is_set(
    tmp_path: Path, given: str | None, status: int
) -> None:
    headers = {} if given is None else {"Authorization": given}
    async with serving(tmp_path, FakeTranscriber(), openai_key="secret") as (_, session):
        async with session.get("/v1/models", headers=headers) as response:
            assert response.status == status
            assert ("WWW-Authenticate" in response.headers) == (status == 401)
            assert (await response.json()).get("error", {}).get("code") == (
                "invalid_api_key" if status == 401 else None
            )
        async with session.get("/health") as response:  # the page has its own rules
            assert response.status == 200


def test_the_key_comes_from_a_variable_or_a_file_and_is_never_shown(tmp_path: Path) -> None:
    from tests.support import load_settings

    file = tmp_path / "key"
    file.write_text("secret\n")
    environ = {"HOME": str(tmp_path), "WYOMING_WHISPER_OPENAI_KEY_FILE": str(file)}
    loaded = load_settings([], environ)
    assert loaded.openai_key == "secret"
    assert "secret" not in repr(loaded)


async def test_pages_of_other_sites_can_neither_post_nor_point_their_name_here(
    tmp_path: Path,
) -> None:
    fake = FakeTranscriber()
    evil, foreign = {"Host": "evil.test"}, {"Origin": "http://evil.test"}
    async with serving(tmp_path, fake) as (_, session):
        for headers in (evil, foreign, {"Origin": "null"}, {"Origin": "http://[::"}):
            status, told = await post(session, asked(), headers=headers)
            assert (status, told["error"]["type"]) == (403, "invalid_request_error"), headers
        own = {"Origin": f"http://127.0.0.1:{session._base_url.port}"}
        assert (await post(session, asked(), headers=own))[0] == 200
    async with serving(tmp_path, fake, openai_key="k") as (_, session):
        key = {"Authorization": "Bearer k"}
        assert (await post(session, asked(), headers=foreign | key))[0] == 403
        assert (await post(session, asked(), headers=evil | key))[0] == 200  # it knows the key
    assert len(fake.requests) == 2


async def test_whom_allow_leaves_out_may_not_but_the_pages_own_list_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path, FakeTranscriber(), http_allow=("172.30.32.2/32",)) as (_, session):
        monkeypatch.setattr("aiohttp.web.Request.remote", "192.168.1.7")
        assert (await session.get("/health")).status == 403
        assert (await session.get("/v1/models")).status == 200
    async with (
        serving(tmp_path, FakeTranscriber(), allow=("10.0.0.0/8",)) as (_, session),
        session.get("/v1/models") as response,
    ):
        assert response.status == 403
        assert "--allow" in (await response.json())["error"]["message"]


# -- pages and apps of other origins -------------------------------------------------------

APP = "app://obsidian.md"
PREFLIGHT = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,x-stainless-lang",
}


def cors(response: Any) -> dict[str, str]:
    names = [name for name in response.headers if name.startswith("Access-Control-")]
    return {name.removeprefix("Access-Control-"): response.headers[name] for name in names}


@pytest.mark.parametrize(
    "origin", [APP, "https://notes.example:8443", "HTTPS://Notes.example:8443"]
)
async def test_a_page_that_is_named_may_ask_post_and_read_what_it_is_told(
    tmp_path: Path, origin: str
) -> None:
    origins = (APP, "https://notes.example:8443")
    theirs, key = {"Origin": origin}, {"Authorization": "Bearer k"}
    settings: dict[str, Any] = {"openai_key": "k", "openai_origins": origins}
    async with serving(tmp_path, FakeTranscriber(), **settings) as (_, session):
        async with session.options(TRANSCRIPTIONS, headers=theirs | PREFLIGHT) as response:
            assert response.status == 204  # a browser sends no key with it
            asked_for = cors(response)
            assert asked_for["Allow-Origin"] == origin
            assert asked_for["Allow-Methods"] == "GET, POST"
            assert asked_for["Allow-Headers"] == PREFLIGHT["Access-Control-Request-Headers"]
            assert "Allow-Credentials" not in asked_for
        for data, headers, status in (
            (asked(), theirs | key, 200),
            (asked(stream="true"), theirs | key, 200),
            (asked(temperature="9"), theirs | key, 400),
            (asked(), theirs, 401),
        ):
            async with session.post(TRANSCRIPTIONS, data=data, headers=headers) as response:
                assert response.status == status
                assert cors(response)["Allow-Origin"] == origin
                assert response.headers["Vary"] == "Origin"
        async with session.get("/v1/nothing", headers=theirs | key) as response:
            assert (response.status, cors(response)["Allow-Origin"]) == (404, origin)


@pytest.mark.parametrize(
    ("origins", "origin"),
    [
        ((), APP),
        ((APP,), "app://obsidian.md.evil"),
        ((APP,), "null"),
        (("https://notes.example",), "http://notes.example"),
        (("https://notes.example",), "https://notes.example:444"),
        (("https://notes.example",), "https://a.notes.example"),
    ],
)
async def test_a_page_that_is_not_named_may_neither_ask_nor_post(
    tmp_path: Path, origins: tuple[str, ...], origin: str
) -> None:
    fake, theirs = FakeTranscriber(), {"Origin": origin}
    async with serving(tmp_path, fake, openai_origins=origins) as (_, session):
        async with session.options(TRANSCRIPTIONS, headers=theirs | PREFLIGHT) as response:
            assert (response.status, cors(response)) == (403, {})
        async with session.post(TRANSCRIPTIONS, data=asked(), headers=theirs) as response:
            assert (response.status, cors(response)) == (403, {})
            assert "--openai-origins" in (await response.json())["error"]["message"]
        async with session.post(TRANSCRIPTIONS, data=asked()) as response:  # no browser at all
            assert (response.status, cors(response)) == (200, {})
    assert len(fake.requests) == 1


async def test_any_page_may_where_all_are_named_but_not_under_a_name_of_its_own(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, FakeTranscriber(), openai_origins=("*",)) as (_, session):
        for origin in ("https://anywhere.test", "null", APP):
            async with session.post(
                TRANSCRIPTIONS, data=asked(), headers={"Origin": origin}
            ) as response:
                assert (response.status, cors(response)["Allow-Origin"]) == (200, origin)
        evil = {"Host": "evil.test", "Origin": "http://evil.test"}
        for method, headers in (("POST", evil), ("OPTIONS", evil | PREFLIGHT)):
            async with session.request(method, TRANSCRIPTIONS, headers=headers) as response:
                assert response.status == 403


async def test_the_page_itself_stays_as_it_was(tmp_path: Path) -> None:
    theirs = {"Origin": APP, "X-Wyoming-Whisper": "1"}
    async with serving(tmp_path, FakeTranscriber(), openai_origins=(APP,)) as (_, session):
        for method, path, headers in (
            ("GET", "/state", theirs),
            ("GET", "/", theirs),
            ("OPTIONS", "/transcribe", theirs | PREFLIGHT),
            ("POST", "/transcribe", {"Origin": APP}),
        ):
            async with session.request(method, path, headers=headers) as response:
                assert response.status == {"GET": 200, "OPTIONS": 405, "POST": 403}[method]
                assert cors(response) == {}
                assert "Vary" not in response.headers


async def test_headers_that_are_no_names_are_not_repeated(tmp_path: Path) -> None:
    async with serving(tmp_path, FakeTranscriber(), openai_origins=("*",)) as (_, session):
        for names in ("a, <script>", "a;b", ""):
            headers = {"Origin": APP, **PREFLIGHT, "Access-Control-Request-Headers": names}
            async with session.options(TRANSCRIPTIONS, headers=headers) as response:
                assert response.status == 204
                assert "Allow-Headers" not in cors(response)


@pytest.mark.parametrize(
    "origins",
    ["notes.example", "https://notes.example/path", "https://a@b", "https://a,b", "null://x y"],
)
def test_what_is_no_origin_is_one_sentence(origins: str) -> None:
    from tests.support import load_settings

    with pytest.raises(SettingsError, match=r"origins such as https://notes\.example"):
        load_settings(["--openai-origins", origins], {"HOME": "/nowhere"})


@pytest.mark.parametrize(
    ("named", "origin", "is_same"),
    [
        ("https://a.example", "https://a.example:443", True),
        ("https://a.example:443", "https://A.example", True),
        ("http://a.example:80", "http://a.example", True),
        ("http://[::1]", "http://[::1]:80", True),
        ("https://a.example", "https://a.example:80", False),
        ("http://a.example", "http://a.example:443", False),
        ("app://a.example", "app://a.example:443", False),
    ],
)
async def test_a_default_port_makes_no_other_origin(
    named: str, origin: str, is_same: bool, tmp_path: Path
) -> None:
    async with (
        serving(tmp_path, FakeTranscriber(), openai_origins=(named,)) as (_, session),
        session.options(TRANSCRIPTIONS, headers={"Origin": origin, **PREFLIGHT}) as response,
    ):
        assert response.status == (204 if is_same else 403)


async def test_origins_without_the_api_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings(data_dir=(), openai_origins=(APP,))
    async with web_page(Mock(settings=settings)):
        pass
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "--openai-origins does nothing without --openai-api" in caplog.text


def test_origins_are_a_list_in_small_letters() -> None:
    from tests.support import load_settings

    loaded = load_settings(
        ["--openai-origins", "https://Notes.example,app://x *"], {"HOME": "/nowhere"}
    )
    assert loaded.openai_origins == ("https://notes.example", "app://x", "*")


# -- what is kept --------------------------------------------------------------------------


async def test_nothing_spoken_is_logged_and_the_requests_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with serving(tmp_path, Timed(), http_text=True) as (server, session):
        await post(session, asked(prompt="a private name"))
        await post(session, asked(prompt="a private name", language="a private colour"))
        counted = await scrape(session)
        assert server.status.answers == ()  # it is no command: the page's list is of those
    assert "piece 1" not in caplog.text
    assert "private name" not in caplog.text
    assert "a recording of 4.0 s answered" in caplog.text
    assert counted["wyoming_whisper_api_requests_total 200"] == 1
    assert counted["wyoming_whisper_api_requests_total 400"] == 1
    assert counted["wyoming_whisper_api_audio_seconds_total"] == pytest.approx(4.0)
