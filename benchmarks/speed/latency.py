"""How long a person waits: from audio-stop to transcript, of ours and the official server.

burst      all audio at once: the pure work
real-time  audio at the pace of speech, then the silence that Home Assistant waits for

It takes about as long as `--minutes` says: what is slow here is measured less often.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.lib import models, report
from benchmarks.lib.client import SATELLITE_CHUNK_MS, say
from benchmarks.lib.clips import BUNDLED_CLIPS, SECONDS_BEFORE, Clip, short_clips
from benchmarks.lib.errors import BenchmarkError, ClipError
from benchmarks.lib.official import install_official, official, ours
from benchmarks.lib.options import (
    add_clips,
    add_decoding,
    add_models,
    add_number,
    add_official,
    add_parts,
    numbers,
    one_of,
)
from benchmarks.lib.report import Outcome, progress
from benchmarks.lib.servers import Program, Server, turned
from benchmarks.lib.words import WordErrors, word_errors
from wyoming_whisper.audio.speech import Speech
from wyoming_whisper.audio.vad import SileroVad, SpanOptions, Vad
from wyoming_whisper.transcriber import SAMPLE_RATE, Samples

BURST, REAL_TIME = PARTS = ("burst", "real-time")
EAGER, NOT_EAGER, WIDE, OFFICIAL = "ours", "ours, not eager", "ours, 30 s", "official"
PLAIN = "ours, faster-whisper"
MODELS = (models.TINY, models.BASE)
WEIGHTS = {BURST: 1, REAL_TIME: 4}
"""How the time is shared; about what each part takes."""

MIDDLE_SILENCE = 0.7  # where the silence is not what is measured
SETTLE_SECONDS = 0.5  # before the processor time of all is read
LEAST_ROUNDS = 3
ASKED_AGAIN = 5  # where a text seems to depend on when work began


@dataclass(frozen=True)
class Take:
    """One utterance, heard by one server."""

    server: str
    clip: str
    silence: float
    """Seconds after the speech, before audio-stop."""
    said: str
    written: str
    seconds: float
    """From audio-stop to transcript."""
    late: float = 0.0
    """Seconds by which this client sent audio-stop too late."""
    error: str | None = None


@dataclass(frozen=True)
class Meter:
    """What a server's process took."""

    cpu_seconds: float
    """Of all its threads, for one utterance."""
    peak_bytes: int
    """The most that was ever in RAM (VmHWM)."""


@dataclass(frozen=True)
class Cell:
    """What one row is made of: a server's takes, of one silence or of all in turn."""

    server: str
    silence: float | None
    takes: list[Take]

    @property
    def seconds(self) -> list[float]:
        return [take.seconds for take in self.takes if take.error is None]

    @property
    def words(self) -> WordErrors:
        return sum((word_errors(take.said, take.written) for take in self.takes), WordErrors())

    def figures(self) -> dict[str, Any]:
        """Return what is counted; times are None where nothing was answered."""
        seconds = self.seconds
        return {
            "server": self.server,
            "silence": self.silence,
            "number": len(self.takes),
            "failed": len(self.takes) - len(seconds),
            "median_seconds": median(seconds) if seconds else None,
            "p95_seconds": report.percentile(seconds, 95) if seconds else None,
            "worst_seconds": max(seconds, default=None),
            "words": asdict(self.words),
        }


@dataclass(frozen=True)
class Part:
    """What was measured of some servers with one model and beam."""

    mode: str
    model: str
    beam_size: int
    takes: list[Take]
    meters: dict[str, Meter]
    unsteady: frozenset[tuple[str, float]] = field(default=frozenset())
    """Clips and silences to which the same server writes now this, now that."""

    @property
    def where(self) -> dict[str, Any]:
        return {"mode": self.mode, "model": self.model, "beam_size": self.beam_size}

    def cells(self) -> list[Cell]:
        """Return the rows: by silence where a server heard all of them."""
        cells: list[Cell] = []
        for server in (EAGER, NOT_EAGER, PLAIN, WIDE, OFFICIAL):
            takes = [take for take in self.takes if take.server == server]
            every = self.mode == REAL_TIME and server == EAGER
            for silence in sorted({take.silence for take in takes}) if every else [None]:
                of_it = [take for take in takes if silence in (None, take.silence)]
                if of_it:
                    cells.append(Cell(server, silence, of_it))
        return cells

    def as_json(self) -> list[dict[str, Any]]:
        return [
            {
                **(self.where | cell.figures()),
                **(asdict(self.meters[cell.server]) if cell.server in self.meters else {}),
            }
            for cell in self.cells()
        ]

    def rows(self) -> list[list[str]]:
        official = [cell.seconds for cell in self.cells() if cell.server == OFFICIAL]
        theirs = median(official[0]) if official and official[0] else 0.0
        rows = []
        for cell in self.cells():
            figures, words, meter = cell.figures(), cell.words, self.meters.get(cell.server)
            times = [figures[name] for name in ("median_seconds", "p95_seconds", "worst_seconds")]
            silence = "any" if cell.silence is None else f"{cell.silence:g} s"
            rows.append(
                [
                    *(self.model, str(self.beam_size)),
                    *([silence] if self.mode == REAL_TIME else []),
                    *(cell.server, str(figures["number"])),
                    *(report.milliseconds(time) if time else report.NOTHING for time in times),
                    report.times(theirs, times[0]) if theirs and times[0] else report.NOTHING,
                    *(report.percent(words.errors, words.words), str(figures["failed"])),
                ]
            )
            if meter:
                rows[-1] += [report.milliseconds(meter.cpu_seconds)]
                rows[-1] += [report.megabytes(meter.peak_bytes)]
        return rows


# -- tables --------------------------------------------------------------------------------


def show(parts: Sequence[Part], mode: str) -> str:
    """Return the table of one mode."""
    shown = [part for part in parts if part.mode == mode]
    head = ["model", "beam", *(["silence"] if mode == REAL_TIME else []), "server", "number"]
    head += ["median", "95 %", "worst", "official / it", "WER", "failed"]
    if any(part.meters for part in shown):
        head += ["CPU", "peak RAM"]
    return f"{mode}\n\n{report.table(head, [row for part in shown for row in part.rows()])}"


@dataclass(frozen=True)
class Agreement:
    """Whether early work changes a text: it must not."""

    same: list[dict[str, Any]] = field(default_factory=list)
    different: list[dict[str, Any]] = field(default_factory=list)
    random: list[dict[str, Any]] = field(default_factory=list)
    """Different too, but they are without early work."""


def agreement(parts: Sequence[Part]) -> Agreement:
    """Compare the texts of the same audio, eager and not."""
    all_ = Agreement()
    for part in parts:
        texts: dict[tuple[str, float], dict[str, str]] = {}
        for take in part.takes:
            if take.error is None and take.server in (EAGER, NOT_EAGER):
                texts.setdefault((take.clip, take.silence), {})[take.server] = take.written
        for key, both in texts.items():
            if len(both) == 2:
                apart = all_.random if key in part.unsteady else all_.different
                kind = all_.same if both[EAGER] == both[NOT_EAGER] else apart
                kind.append({**part.where, "clip": key[0], "silence": key[1], **both})
    return all_


def notes(parts: Sequence[Part]) -> list[str]:
    """Return the sentences below the tables."""
    lines = []
    for part in parts:
        eager, other = (part.meters.get(server) for server in (EAGER, NOT_EAGER))
        if part.mode == REAL_TIME and eager and other and other.cpu_seconds:
            cost = f"eager takes {eager.cpu_seconds / other.cpu_seconds:.2f} times"
            lines.append(f"{part.mode}, {part.model}: {cost} the processor time")
    both = agreement(parts)
    if compared := len(both.same + both.different + both.random):
        lines.append(f"The same text, eager or not: {len(both.same)} of {compared}")
    if both.random:
        lines.append(f"Not the same, but random even when not eager: {len(both.random)}")
    late = [take.late for part in parts if part.mode != BURST for take in part.takes]
    if late:
        lines.append(f"This client sent audio-stop {report.milliseconds(max(late))} late at most")
    return lines


# -- audio ---------------------------------------------------------------------------------


def trimmed(clip: Clip, vad: Vad) -> Clip:
    """Return the clip without the silence after its speech, and with little before it.

    Raises ClipError where nobody speaks.
    """
    speech = Speech(vad, SpanOptions(pad_before_seconds=SECONDS_BEFORE, pad_after_seconds=0.0))
    speech.add(clip.samples)
    speech.finish()
    spans = speech.spans()
    if not spans:
        raise ClipError(f"nobody speaks in {clip.file}")
    return replace(clip, samples=speech.cut(spans))


def followed_by_silence(samples: Samples, seconds: float) -> Samples:
    return np.pad(samples, (0, round(seconds * SAMPLE_RATE)))


# -- servers -------------------------------------------------------------------------------


async def _take(server: Server, clip: Clip, silence: float, mode: str) -> Take:
    samples, in_time = followed_by_silence(clip.samples, silence), mode != BURST
    heard = await say(server.uri, samples, chunk_ms=SATELLITE_CHUNK_MS, in_time=in_time)
    written = " ".join(heard.text.split())
    return Take(
        server.name, clip.file, silence, clip.text, written, heard.seconds, heard.late, heard.error
    )


@contextlib.contextmanager
def metered(programs: Sequence[Program], folder: Path) -> Iterator[list[Server]]:
    """Run servers side by side until the block ends; all of them listen.

    Ours have been started before: a model's first start is once, and needs more memory.
    """
    for program in programs:
        if program.is_ours:
            with Server(program, _folder(program, folder)) as server:
                server.settle()
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(Server(one, _folder(one, folder))) for one in programs]
        for server in servers:
            server.listening()
        yield servers


def _folder(program: Program, folder: Path) -> Path:
    return folder / ("ours" if program.is_ours else program.name)


def _warm_up(servers: Sequence[Server], clip: Clip) -> None:
    """Wait until every model is ready; nobody pays for being first."""
    for server in servers:
        heard = asyncio.run(say(server.uri, followed_by_silence(clip.samples, MIDDLE_SILENCE)))
        if heard.error:
            raise BenchmarkError(f"{server.name}: {heard.error}")


@contextlib.contextmanager
def _meters(servers: Sequence[Server], takes: list[Take]) -> Iterator[dict[str, Meter]]:
    """Fill a dictionary at the end of the block, with what each server took for its `takes`."""
    time.sleep(SETTLE_SECONDS)
    before = {server.name: server.processor_seconds() for server in servers}
    meters: dict[str, Meter] = {}
    yield meters
    time.sleep(SETTLE_SECONDS)
    for server in servers:
        server.check()
        number = sum(take.server == server.name for take in takes)
        spent = server.processor_seconds() - before[server.name]
        meters[server.name] = Meter(spent / max(1, number), server.memory().peak)


def programs(args: argparse.Namespace, model: Path, beam_size: int) -> list[Program]:
    """Return the servers of a table: the same model, threads, beam and arithmetic for all."""
    same = argparse.Namespace(
        model=model, threads=args.threads, beam_size=beam_size, compute_type=args.compute_type
    )
    found = [
        ours(same, EAGER, "--eager"),
        ours(same, NOT_EAGER, "--no-eager"),
        ours(same, PLAIN, "--no-eager", "--backend", "faster-whisper"),
        ours(same, WIDE, "--no-eager", "--audio-context", "full"),
    ]
    return found if args.no_official else [*found, official(same)]


# -- time ----------------------------------------------------------------------------------


def rounds(
    count: int,
    seconds: float,
    least: int = LEAST_ROUNDS,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[int]:
    """Count the rounds of a part: `count`, or what there is time for, but `least`."""
    begin = clock()
    for number in range(count):
        now = clock()
        mean = (now - begin) / max(1, number)
        if number >= least and now + mean > begin + seconds:
            return
        yield number


def shares(args: argparse.Namespace) -> list[tuple[str, int, str, float]]:
    """Return (model, beam, part, seconds) of all that is measured, in its order."""
    plan = [(*cell, part) for cell in _cells(args) for part in _parts(args, *cell)]
    total = sum(WEIGHTS[part] for _, _, part in plan)
    return [(*one, 60 * args.minutes * WEIGHTS[one[2]] / total) for one in plan]


def _cells(args: argparse.Namespace) -> list[tuple[str, int]]:
    names = dict.fromkeys((*args.models, *args.real_time))
    return [(model, beam_size) for model in names for beam_size in args.beam_size]


def _parts(args: argparse.Namespace, model: str, beam_size: int) -> list[str]:
    """Return what is measured with one model and beam: real time with the last beam alone."""
    in_time = model in (args.real_time or args.models[-1:]) and beam_size == args.beam_size[-1]
    return [part for part in PARTS if part in args.parts and (part == BURST or in_time)]


# -- measuring -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    """What runs, and what it gets to hear."""

    servers: list[Server]
    clips: list[Clip]
    model: str
    beam_size: int


def measure(args: argparse.Namespace, clips: list[Clip], folder: Path) -> list[Part]:
    """Return all parts."""
    measured: list[Part] = []
    for (model, beam_size), plan in itertools.groupby(shares(args), lambda one: one[:2]):
        path = models.stock(model)
        with metered(programs(args, path, beam_size), folder / "servers") as servers:
            _warm_up(servers, clips[0])
            setting = Setting(servers, clips, model, beam_size)
            for _, _, part, seconds in plan:
                progress(f"{part}, {model}, beam {beam_size}")
                measuring = measure_burst if part == BURST else measure_real_time
                one = measuring(setting, args, seconds)
                measured.append(replace(one, unsteady=unsteady(one, setting)))
    return measured


def measure_burst(setting: Setting, args: argparse.Namespace, seconds: float) -> Part:
    """Have every server hear every clip at once; who hears it first takes turns."""
    return _measure(BURST, setting, args, seconds, lambda *_: [MIDDLE_SILENCE])


def measure_real_time(setting: Setting, args: argparse.Namespace, seconds: float) -> Part:
    """Have every server hear clips at the pace of speech, one after the other.

    Only where work begins early can the wait depend on the silence: that server hears each clip
    with every silence, the others with one after the other.
    """

    def silences(server: Server, number: int) -> list[float]:
        every: list[float] = args.silences
        return every if server.name == EAGER else [every[number % len(every)]]

    return _measure(REAL_TIME, setting, args, seconds, silences)


def _measure(
    mode: str,
    setting: Setting,
    args: argparse.Namespace,
    seconds: float,
    silences: Callable[[Server, int], list[float]],
) -> Part:
    takes: list[Take] = []
    with _meters(setting.servers, takes) as meters:
        for number in rounds(args.utterances, seconds):
            clip = setting.clips[number % len(setting.clips)]
            for server in turned(setting.servers, number):
                for silence in silences(server, number):
                    takes.append(asyncio.run(_take(server, clip, silence, mode)))
                    time.sleep(0.05)  # OpenMP's threads spin for a moment after their work
    return Part(mode, setting.model, setting.beam_size, takes, meters)


def unsteady(part: Part, setting: Setting) -> frozenset[tuple[str, float]]:
    """Return the audio to which ours, never eager, writes something else when it hears it again.

    Whisper's answer to a doubtful text is to draw another one at random. Early work isn't to blame
    for that, so where it seems to have changed a text, this is looked at.
    """
    found = set()
    for one in agreement([part]).different:
        server = next(server for server in setting.servers if server.name == NOT_EAGER)
        clip = next(clip for clip in setting.clips if clip.file == one["clip"])
        again = [
            asyncio.run(_take(server, clip, one["silence"], BURST)).written
            for _ in range(ASKED_AGAIN)
        ]
        if {*again} != {one[NOT_EAGER]}:
            found.add((clip.file, one["silence"]))
    return frozenset(found)


# -- the suite -----------------------------------------------------------------------------


def add_options(parser: argparse.ArgumentParser) -> None:
    add_parts(parser, PARTS)
    add_models(parser, ",".join(MODELS), one_of([*MODELS]))
    parser.add_argument(
        "--real-time",
        type=lambda text: tuple(map(one_of([*MODELS]), text.split(","))),
        default=(),
        metavar="LIST",
        help="models for real-time (default: the last of --models)",
    )
    add_clips(parser, BUNDLED_CLIPS)
    add_number(parser, "--limit", 12, "clips")
    add_decoding(parser, [1, 5])
    add_number(parser, "--utterances", 12, "in a cell, at most")
    parser.add_argument(
        "--silences",
        type=numbers(float),
        default=[0.25, 0.7, 1.29, 1.84],
        metavar="LIST",
        help="seconds after the speech, in real time (default: 0.25,0.7,1.29,1.84)",
    )
    add_number(parser, "--minutes", 7.0, "that it takes, about")
    add_official(parser)


def run(args: argparse.Namespace) -> Outcome:
    """Measure; a text that depends on when work began is a failure."""
    vad = SileroVad()
    clips = [trimmed(clip, vad) for clip in short_clips(args.clips)[: args.limit]]
    runtime = {} if args.no_official else install_official()
    with tempfile.TemporaryDirectory() as temporary:
        parts = measure(args, clips, Path(temporary))
    tables = [show(parts, mode) for mode in PARTS if mode in args.parts]
    different = [f"DIFFERENT: {one}" for one in agreement(parts).different]
    facts = {
        "official": runtime,
        "cells": [row for part in parts for row in part.as_json()],
        "agreement": asdict(agreement(parts)),
        "utterances": [{**part.where, **asdict(take)} for part in parts for take in part.takes],
    }
    return Outcome([*tables, "\n".join(notes(parts))], facts, different)
