"""Where the time of one utterance goes, stage by stage.

Transcribes one recording again and again in this process, in the steps of the server.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import tokenizers
from wyoming.audio import AudioChunk

from benchmarks.lib import report
from benchmarks.lib.client import SATELLITE_CHUNK_MS, command_events
from benchmarks.lib.clips import BUNDLED_CLIPS, read_clips, with_silence
from benchmarks.lib.errors import BenchmarkError
from benchmarks.lib.options import BACKENDS, add_decoding, add_model, add_number
from benchmarks.lib.report import Outcome
from wyoming_whisper.audio.pcm import PcmStream
from wyoming_whisper.audio.speech import Speech, span_options
from wyoming_whisper.audio.vad import SileroVad, Vad
from wyoming_whisper.backends.faster_whisper import open_faster_whisper
from wyoming_whisper.backends.onnxruntime import choose_arithmetic, cpu_engines
from wyoming_whisper.commands.client import read_audio
from wyoming_whisper.models.vocabulary import Vocabulary
from wyoming_whisper.settings.options import Settings
from wyoming_whisper.transcriber import (
    SAMPLE_RATE,
    Samples,
    TranscribeOptions,
    Transcriber,
    Transcription,
)

STAGES = ("pcm", "vad", "mel", "encode", "detect", "decode", "evidence", "rest")
AS_IT_ARRIVES = ("pcm", "vad")
"""Stages that are done while somebody still speaks."""


@dataclass(frozen=True)
class Heard:
    """What is the same in every run."""

    text: str
    audio_seconds: float
    speech_seconds: float
    """Of what is transcribed."""

    tokens: int
    """Of the text and its end."""


# -- running -------------------------------------------------------------------------------


def chunks(samples: Samples) -> list[AudioChunk]:
    """Return the samples as a satellite sends them."""
    events = command_events(samples, chunk_ms=SATELLITE_CHUNK_MS)
    return [AudioChunk.from_event(event) for event in events if AudioChunk.is_type(event.type)]


def run_once(
    samples: Samples, settings: Settings, vad: Vad, transcriber: Transcriber
) -> tuple[dict[str, float], Transcription, int]:
    """Return the seconds of each stage, the transcription, and how many samples are in it."""
    seconds = {"pcm": 0.0, "vad": 0.0}
    stream, speech = PcmStream(), Speech(vad, span_options(settings))
    for chunk in chunks(samples):
        begin = time.perf_counter()
        converted = stream.convert(chunk)
        middle = time.perf_counter()
        speech.add(converted)
        seconds["pcm"] += middle - begin
        seconds["vad"] += time.perf_counter() - middle
    begin = time.perf_counter()
    speech.finish()
    spans = speech.spans()
    if not spans:
        raise BenchmarkError("nobody speaks in this recording")
    cut = speech.cut(spans)
    middle = time.perf_counter()
    found = transcriber.transcribe(cut, TranscribeOptions("en"))
    seconds["vad"] += middle - begin
    seconds |= found.stages
    seconds["rest"] = time.perf_counter() - middle - sum(found.stages.values())
    return seconds, found, len(cut)


def medians(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the median of every stage, in their order; one that never ran is left out."""
    stages = [stage for stage in STAGES if any(stage in run for run in runs)]
    return {stage: median(run.get(stage, 0.0) for run in runs) for stage in stages}


def show(seconds: dict[str, float], heard: Heard) -> str:
    """Return the table of the stages, and sentences about them."""
    after = sum(value for stage, value in seconds.items() if stage not in AS_IT_ARRIVES)
    rows = [
        [
            stage,
            "as it arrives" if stage in AS_IT_ARRIVES else "then",
            report.milliseconds(value),
            report.NOTHING if stage in AS_IT_ARRIVES else report.percent(value, after),
        ]
        for stage, value in seconds.items()
    ]
    per_token = report.milliseconds(seconds.get("decode", 0.0) / heard.tokens)
    sentences = (
        f"{heard.speech_seconds:.2f} s transcribed of {heard.audio_seconds:.2f} s: {heard.text!r}",
        f"after the audio: {report.milliseconds(after)}",
        f"decoder: {heard.tokens} tokens, {per_token} each",
    )
    table = report.table(["stage", "when", "median", "share"], rows)
    return "\n".join([table, "", *sentences])


# -- the suite -----------------------------------------------------------------------------


def add_options(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument(
        "--audio", type=Path, metavar="FILE", help="recording (default: one of tests/audio)"
    )
    parser.add_argument("--backend", choices=BACKENDS, default=BACKENDS[0], help="%(default)s")
    add_number(parser, "--runs", 20)
    add_decoding(parser, 5)
    parser.add_argument("--audio-context", default="auto", help="default: auto")


def _opened(args: argparse.Namespace, settings: Settings) -> Transcriber:
    if args.backend == BACKENDS[0]:
        return open_faster_whisper(settings, args.model)
    with tempfile.TemporaryDirectory() as folder:  # what is open stays, files or not
        settings = replace(settings, data_dir=(Path(folder),))
        engines = cpu_engines(settings, args.model, choose_arithmetic(settings))
        return engines.open(engines.build(lambda _: None))


def run(args: argparse.Namespace) -> Outcome:
    """Run so often, and once more before that, which isn't counted."""
    settings = Settings(
        model=str(args.model.resolve()),
        language="en",
        cpu_threads=args.threads,
        beam_size=args.beam_size,
        compute_type=args.compute_type,
        audio_context=args.audio_context,
    )
    audio = read_audio(args.audio) if args.audio else read_clips(BUNDLED_CLIPS)[0].samples
    samples, vad, runs = with_silence(audio), SileroVad(), list[dict[str, float]]()
    with closing(_opened(args, settings)) as transcriber:
        for _ in range(args.runs + 1):
            seconds, transcription, length = run_once(samples, settings, vad, transcriber)
            runs.append(seconds)
    heard = Heard(
        text=transcription.text,
        audio_seconds=len(samples) / SAMPLE_RATE,
        speech_seconds=length / SAMPLE_RATE,
        tokens=_count_tokens(args.model, transcription.text),
    )
    stages = medians(runs[1:])
    return Outcome([show(stages, heard)], {"seconds": stages, "heard": asdict(heard)})


def _count_tokens(model: Path, text: str) -> int:
    tokenizer: Any = tokenizers.Tokenizer.from_str(Vocabulary(model).tokenizer_json())
    words = f" {text}" if text else ""
    return len(tokenizer.encode(words, add_special_tokens=False).ids) + 1
