"""Ten minutes of dictation: words lost, the wait after its end, and what it takes of memory.

Recordings are joined, with pauses between them, and spoken to a server as they would be, in real
time or faster. What it writes is compared with what the same server writes of each recording alone,
and with what was said.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from wyoming.audio import AudioStop

from benchmarks.lib import report
from benchmarks.lib.client import (
    ANSWER_SECONDS,
    SATELLITE_CHUNK_MS,
    command_events,
    connected,
    say,
    transcript,
)
from benchmarks.lib.clips import BUNDLED_CLIPS, Clip, read_clips
from benchmarks.lib.corpus import read_corpus
from benchmarks.lib.errors import BenchmarkError
from benchmarks.lib.official import ours
from benchmarks.lib.options import add_decoding, add_folders, add_model, add_number
from benchmarks.lib.report import Outcome
from benchmarks.lib.servers import Server, running
from benchmarks.lib.words import WordErrors, word_errors
from wyoming_whisper.transcriber import SAMPLE_RATE, Samples

KINDS = ("clean", "human", "long")

MIN_CLIP_SECONDS = 3.0  # a word alone is no dictation
CHUNKS_A_LOOK = 15  # at the server's memory: every half second of audio
PAUSES = (0.3, 1.2)  # seconds
HELD_OUT = ("speech-to-phrase", "hmofrad/viot", "rhasspy-speech", "virufy")


@dataclass(frozen=True)
class Spoken:
    """Recordings as one dictation."""

    clips: list[Clip]
    samples: Samples

    @property
    def seconds(self) -> float:
        return len(self.samples) / SAMPLE_RATE

    @property
    def text(self) -> str:
        return " ".join(clip.text for clip in self.clips)


def joined(clips: Sequence[Clip], seconds: float) -> Spoken:
    """Join recordings, again and again, to so many seconds; the same at every call."""
    rng = np.random.default_rng(0)
    taken: list[Clip] = []
    parts: list[Samples] = []
    n_samples = 0
    while n_samples < seconds * SAMPLE_RATE:
        clip = clips[len(taken) % len(clips)]
        pause = np.zeros(round(rng.uniform(*PAUSES) * SAMPLE_RATE), np.float32)
        if n_samples + len(clip.samples) + len(pause) > seconds * SAMPLE_RATE and taken:
            break
        taken.append(clip)
        parts += [clip.samples, pause]
        n_samples += len(clip.samples) + len(pause)
    return Spoken(taken, np.concatenate(parts))


def all_clips(corpora: Sequence[Path] = ()) -> list[Clip]:
    """Return what is dictated, each source's recordings together. Raises ClipError, AudioError."""
    clips = [clip for clip in read_clips(BUNDLED_CLIPS) if clip.text and clip.kind in KINDS]
    for recording in (one for folder in corpora for one in read_corpus(folder)):
        is_held_out = any(name in recording.source for name in HELD_OUT)
        if recording.lang == "en" and recording.text and not is_held_out:
            clips.append(Clip(recording.file, recording.text, "corpus", recording.samples()))
    return [clip for clip in clips if len(clip.samples) >= MIN_CLIP_SECONDS * SAMPLE_RATE]


@dataclass(frozen=True)
class Dictated:
    """What one server made of a dictation."""

    seconds: float
    text: str
    waited: float
    """Seconds from audio-stop to the transcript."""
    peak: int
    """Bytes of the server's process in RAM, at most, from its beginning to the transcript."""
    before: int
    """Bytes that were in RAM before."""


async def dictate(server: Server, spoken: Spoken, speed: float) -> Dictated:
    """Speak it to a server; `speed` is how many times faster than it was spoken."""
    before = peak = server.memory().resident
    async with connected(server.uri) as client:
        began, sent = time.perf_counter(), 0
        for number, event in enumerate(command_events(spoken.samples, chunk_ms=SATELLITE_CHUNK_MS)):
            await client.write_event(event)
            sent += len(event.payload or b"")
            late = began + sent / 2 / SAMPLE_RATE / speed - time.perf_counter()
            await asyncio.sleep(max(0.0, late))
            if number % CHUNKS_A_LOOK == 0:
                peak = max(peak, server.memory().resident)
        end = time.perf_counter()
        await client.write_event(AudioStop().event())
        text, at = await asyncio.wait_for(transcript(client), ANSWER_SECONDS)
    peak = max(peak, server.memory().resident)
    return Dictated(spoken.seconds, text, at - end, peak, before)


async def alone(server: Server, clips: Sequence[Clip]) -> list[str]:
    """Return what the server writes of each recording by itself."""
    known: dict[str, str] = {}
    for clip in clips:
        if clip.file not in known:
            heard = await say(server.uri, clip.samples)
            if heard.error:
                raise BenchmarkError(f"{clip.file}: {heard.error}")
            known[clip.file] = heard.text
    return [known[clip.file] for clip in clips]


def _row(name: str, errors: WordErrors) -> list[str]:
    return [
        name,
        str(errors.words),
        str(errors.deletions),
        str(errors.insertions),
        str(errors.substitutions),
        report.percent(errors.errors, errors.words),
    ]


def tables(spoken: Spoken, parts: Sequence[str], found: Dictated) -> list[str]:
    """Return what is printed."""
    reference = " ".join(parts)
    rows = [
        _row("dictated, beside each recording alone", word_errors(reference, found.text, "en")),
        _row("dictated, beside what was said", word_errors(spoken.text, found.text, "en")),
        _row(
            "each recording alone, beside what was said", word_errors(spoken.text, reference, "en")
        ),
    ]
    head = ["", "words", "lost", "added", "changed", "wrong"]
    facts = [
        ["audio", f"{found.seconds:.0f} s of {len(spoken.clips)} recordings"],
        ["audio-stop to transcript", report.milliseconds(found.waited)],
        ["memory before", report.megabytes(found.before)],
        ["memory at its peak", report.megabytes(found.peak)],
    ]
    return [report.table(head, rows), report.table(["", ""], facts)]


# -- the suite -----------------------------------------------------------------------------


def add_options(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_folders(parser)
    add_number(parser, "--seconds", 600.0)
    add_number(parser, "--speed", 1.0, "times faster than spoken")
    add_decoding(parser, compute_type="default")
    parser.add_argument("--option", action="append", default=[], help="more of the server's")


def run(args: argparse.Namespace) -> Outcome:
    """Dictate to our server."""
    spoken = joined(all_clips(args.corpus), args.seconds)
    program = ours(args, "ours", *args.option)
    with (
        tempfile.TemporaryDirectory() as folder,
        running([program], Path(folder)) as (server,),
    ):
        try:
            parts = asyncio.run(alone(server, spoken.clips))
            found = asyncio.run(dictate(server, spoken, args.speed))
        except (OSError, ValueError, asyncio.TimeoutError) as error:
            raise BenchmarkError(f"the dictation is not answered: {error}") from error
    return Outcome(tables(spoken, parts, found), {"parts": parts, **asdict(found)})
