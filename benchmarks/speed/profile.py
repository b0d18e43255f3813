"""Where the time of one utterance goes, stage by stage, beside what the arithmetic alone takes.

`python -m benchmarks.speed.profile` transcribes one recording again and again in this process, in the
steps of the server: samples from chunks, Silero, mel spectrogram, encoder, decoder.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import tokenizers
from wyoming.audio import AudioChunk

from benchmarks.lib import models, report
from benchmarks.lib.client import command_events
from benchmarks.lib.clips import read_clips, with_silence
from benchmarks.lib.servers import BenchmarkError, asked
from benchmarks.speed.responsiveness import BUNDLED_CLIPS
from wyoming_whisper.autopick import Rates, Shape, Work, encoder_work, measure_rates
from wyoming_whisper.backends.faster_whisper import open_faster_whisper
from wyoming_whisper.backends.onnxruntime import choose_arithmetic, cpu_engines
from wyoming_whisper.backends.pipeline import choose_audio_context
from wyoming_whisper.client import read_audio
from wyoming_whisper.errors import WyomingWhisperError
from wyoming_whisper.machine import physical_cores
from wyoming_whisper.models import WEIGHTS, weights_shapes
from wyoming_whisper.pcm import PcmStream
from wyoming_whisper.settings import Settings
from wyoming_whisper.speech import Speech, span_options
from wyoming_whisper.transcriber import (
    SAMPLE_RATE,
    Samples,
    TranscribeOptions,
    Transcriber,
    Transcription,
)
from wyoming_whisper.vad import SileroVad, Vad
from wyoming_whisper.vocabulary import tokenizer_json
from wyoming_whisper.whisper.audio import FRAMES_PER_POSITION, HOP_LENGTH, N_FRAMES

CHUNK_MS = 32
BACKENDS = ("faster-whisper", "onnxruntime")
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


@dataclass(frozen=True)
class Floor:
    """The encoder's arithmetic alone, at the rate that was measured on this machine."""

    positions: int
    """In the window that was encoded."""

    operations: float
    seconds: float


# -- running -------------------------------------------------------------------------------


def chunks(samples: Samples) -> list[AudioChunk]:
    """Return the samples as a satellite sends them."""
    events = command_events(samples, chunk_ms=CHUNK_MS)
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


def shape_of(folder: Path) -> Shape:
    """Return the dimensions of a model."""
    shapes = weights_shapes(folder / WEIGHTS)
    width, n_mels, _ = shapes["encoder/conv1/weight"]
    layers = {match[0] for name in shapes if (match := re.match(r"(en|de)coder/layer_\d+", name))}
    n_encoder = sum(name.startswith("en") for name in layers)
    return Shape(width, n_encoder, len(layers) - n_encoder, n_mels)


def floor(shape: Shape, positions: int, rates: Rates) -> Floor:
    work: Work = encoder_work(shape, positions)
    return Floor(positions, work.matrices + work.attention, rates.seconds(work))


def positions_of(samples: int, context: str, model: Path) -> int:
    """Return the encoder positions of the first window for so many samples."""
    facts = model / "wyoming_whisper.json"
    trained = facts.is_file() and bool(json.loads(facts.read_text()).get("tight_window"))
    frames = min(samples // HOP_LENGTH, N_FRAMES)
    return choose_audio_context(context, trained=trained).frames(frames) // FRAMES_PER_POSITION


# -- reporting -----------------------------------------------------------------------------


def show(seconds: dict[str, float], heard: Heard, floor: Floor) -> str:
    """Return the table of the stages, and sentences about them."""
    after = sum(value for stage, value in seconds.items() if stage not in AS_IT_ARRIVES)
    rows = [
        [
            stage,
            "as it arrives" if stage in AS_IT_ARRIVES else "then",
            report.milliseconds(value),
            report.NOTHING if stage in AS_IT_ARRIVES else report.percent(value, after),
            report.milliseconds(floor.seconds) if stage == "encode" else report.NOTHING,
            report.times(value, floor.seconds) if stage == "encode" else report.NOTHING,
        ]
        for stage, value in seconds.items()
    ]
    table = report.table(["stage", "when", "median", "share", "floor", "stage / floor"], rows)
    per_token = report.milliseconds(seconds.get("decode", 0.0) / heard.tokens)
    sentences = (
        f"{heard.speech_seconds:.2f} s transcribed of {heard.audio_seconds:.2f} s: {heard.text!r}",
        f"after the audio: {report.milliseconds(after)}",
        f"encoder: {floor.operations / 1e9:.2f} billion operations, {floor.positions} positions",
        f"decoder: {heard.tokens} tokens, {per_token} each",
    )
    return "\n".join([table, "", *sentences])


# -- the command ---------------------------------------------------------------------------


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    models.add_model(parser)
    parser.add_argument(
        "--audio", type=Path, metavar="FILE", help="recording (default: one of tests/audio)"
    )
    parser.add_argument(
        "--backend", choices=BACKENDS, default=BACKENDS[0], help="default: %(default)s"
    )
    parser.add_argument("--runs", type=int, default=20, help="default: 20")
    parser.add_argument("--threads", type=int, default=physical_cores(), help="default: all cores")
    parser.add_argument("--beam-size", type=int, default=5, help="default: 5")
    parser.add_argument("--compute-type", default="int8", help="default: int8")
    parser.add_argument("--audio-context", default="auto", help="default: auto")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there, too")
    return parser.parse_args(argv)


def _settings(args: argparse.Namespace) -> Settings:
    return Settings(
        model=str(args.model.resolve()),
        language="en",
        cpu_threads=args.threads,
        beam_size=args.beam_size,
        compute_type=args.compute_type,
        audio_context=args.audio_context,
    )


def _opened(args: argparse.Namespace, settings: Settings) -> Transcriber:
    if args.backend == BACKENDS[0]:
        return open_faster_whisper(settings, args.model)
    with tempfile.TemporaryDirectory() as folder:  # what is open stays, files or not
        settings = replace(settings, data_dir=(Path(folder),))
        engines = cpu_engines(settings, args.model, choose_arithmetic(settings))
        return engines.open(engines.build(lambda _: None))


def _samples(audio: Path | None) -> Samples:
    samples = read_audio(audio) if audio else read_clips(BUNDLED_CLIPS)[0].samples
    return with_silence(samples)


def measure(args: argparse.Namespace) -> tuple[dict[str, float], Heard, Floor]:
    """Run so often, and once more before that, which isn't counted."""
    samples, settings, vad = _samples(args.audio), _settings(args), SileroVad()
    transcriber = _opened(args, settings)
    runs: list[dict[str, float]] = []
    for _ in range(args.runs + 1):
        seconds, found, length = run_once(samples, settings, vad, transcriber)
        runs.append(seconds)
    heard = Heard(
        text=found.text,
        audio_seconds=len(samples) / SAMPLE_RATE,
        speech_seconds=length / SAMPLE_RATE,
        tokens=_count_tokens(args.model, found.text),
    )
    rates = measure_rates(args.threads, args.compute_type)
    positions = positions_of(length, args.audio_context, args.model)
    return medians(runs[1:]), heard, floor(shape_of(args.model), positions, rates)


def _count_tokens(model: Path, text: str) -> int:
    tokenizer: Any = tokenizers.Tokenizer.from_str(tokenizer_json(model))
    words = f" {text}" if text else ""
    return len(tokenizer.encode(words, add_special_tokens=False).ids) + 1


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    args = _arguments(argv)
    facts = report.machine()
    try:
        seconds, heard, least = measure(args)
    except (BenchmarkError, WyomingWhisperError) as error:
        print(f"benchmarks.speed.profile: {error}", file=sys.stderr)
        return 1
    print(report.machine_line(facts), show(seconds, heard, least), sep="\n\n")
    written = {
        "machine": facts,
        "asked": asked(args),
        "seconds": seconds,
        "heard": asdict(heard),
        "floor": asdict(least),
    }
    report.write_json(args.json, written)
    return 0


if __name__ == "__main__":
    sys.exit(main())
