"""How long a person waits: from audio-stop to transcript, of ours and the official server.

burst      all audio at once: the pure work
speakers   several people who speak at the same time, in real time
pauses     in real time, with a pause inside: what early work costs when it was for nothing
real-time  audio at the pace of speech, then the silence that Home Assistant waits for

It takes about as long as `--minutes` says: what is slow here is measured less often.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
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
    add_official,
    add_parts,
    numbers,
    one_of,
)
from benchmarks.lib.report import Outcome, progress
from benchmarks.lib.servers import Program, Server, turned
from benchmarks.lib.words import WordErrors, word_errors
from wyoming_whisper.speech import Speech
from wyoming_whisper.transcriber import SAMPLE_RATE, Samples
from wyoming_whisper.vad import SileroVad, SpanOptions, Vad

BURST, SPEAKERS, PAUSES, REAL_TIME = PARTS = ("burst", "speakers", "pauses", "real-time")
EAGER, NOT_EAGER, WIDE, OFFICIAL = "ours", "ours, not eager", "ours, 30 s", "official"
PLAIN = "ours, faster-whisper"

MIDDLE_SILENCE = 0.7  # where the silence is not what is measured
JOINED = " + "
PAUSE_SECONDS = 0.8  # long enough for early work to begin and to be finished, for nothing

REST_SECONDS = 0.05  # OpenMP's threads spin for a moment after their work: not into another's time
SETTLE_SECONDS = 0.5  # before the processor time of all is read

LEAST_ROUNDS = 3
ASKED_AGAIN = 5  # where a text seems to depend on when work began
SPEAKERS_SAY = 2  # utterances of each, one after the other

BURST_SECONDS = {models.TINY: 30.0, models.BASE: 55.0}
PART_SECONDS = {SPEAKERS: 70.0, PAUSES: 45.0, REAL_TIME: 170.0}
"""How the time is shared; about what each part takes on two cores of 2.5 GHz."""


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
class Part:
    """What was measured of some servers with one model and beam."""

    mode: str
    model: str
    beam_size: int
    takes: list[Take]
    meters: dict[str, Meter]
    speakers: int = 1

    unsteady: frozenset[tuple[str, float]] = frozenset()
    """Clips and silences to which the same server writes now this, now that."""


@dataclass(frozen=True)
class Cell:
    """What one row is made of: a server's takes, of one silence or of all in turn."""

    part: Part
    server: str
    silence: float | None
    takes: list[Take]

    @property
    def seconds(self) -> list[float]:
        return [take.seconds for take in self.takes if take.error is None]

    @property
    def failed(self) -> int:
        return sum(take.error is not None for take in self.takes)

    @property
    def words(self) -> WordErrors:
        return sum((word_errors(take.said, take.written) for take in self.takes), WordErrors())

    def percentile(self, percent: float) -> float:
        """Return the wait that so many don't exceed; 0 where nothing was answered."""
        return report.percentile(self.seconds, percent) if self.seconds else 0.0

    @property
    def median(self) -> float:
        return median(self.seconds) if self.seconds else 0.0


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


def joined(first: Clip, second: Clip) -> Clip:
    """Return one utterance of both, with a pause between them."""
    samples = np.concatenate([followed_by_silence(first.samples, PAUSE_SECONDS), second.samples])
    file, text = f"{first.file}{JOINED}{second.file}", f"{first.text} {second.text}"
    return Clip(file, text, first.kind, samples)


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


class Budget:
    """Shares the time that is left among the parts still to come, in proportion to `shares`."""

    def __init__(
        self, seconds: float, shares: Sequence[float], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._end = clock() + seconds
        self._shares = list(shares)

    def rounds(self, count: int, least: int = LEAST_ROUNDS) -> Iterator[int]:
        """Count the rounds of the next part: `count`, or what it has time for, but `least`."""
        begin = self._clock()
        share = self._shares[0] / sum(self._shares)
        deadline = begin + share * max(0.0, self._end - begin)
        del self._shares[0]
        for number in range(count):
            now = self._clock()
            mean = (now - begin) / max(1, number)
            if number >= least and now + mean > deadline:
                return
            yield number


def shares(args: argparse.Namespace) -> list[float]:
    """Return the shares of all parts, in the order in which they are measured."""
    return [
        BURST_SECONDS[model] if part == BURST else PART_SECONDS[part]
        for model, beam_size in _cells(args)
        for part in _parts(args, model, beam_size)
    ]


def _cells(args: argparse.Namespace) -> list[tuple[str, int]]:
    names = dict.fromkeys((*args.models, *args.real_time))
    return [(model, beam_size) for model in names for beam_size in args.beam_size]


def _parts(args: argparse.Namespace, model: str, beam_size: int) -> list[str]:
    """Return what is measured with one model and beam: not everything with all of them."""
    last = beam_size == args.beam_size[-1]
    real_time = model in (args.real_time or args.models[-1:])
    wanted = {
        BURST: True,
        SPEAKERS: last and model == args.models[0],
        PAUSES: last and real_time,
        REAL_TIME: last and real_time,
    }
    return [part for part in PARTS if part in args.parts and wanted[part]]


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
    budget = Budget(args.minutes * 60, shares(args))
    found: list[Part] = []
    for model, beam_size in _cells(args):
        parts = _parts(args, model, beam_size)
        if not parts:
            continue
        path = models.stock(model)
        with metered(programs(args, path, beam_size), folder / "servers") as servers:
            _warm_up(servers, clips[0])
            setting = Setting(servers, clips, model, beam_size)
            for part in parts:
                progress(f"{part}, {model}, beam {beam_size}")
                found += [
                    replace(measured, unsteady=unsteady(measured, setting))
                    for measured in _MEASURES[part](setting, args, budget)
                ]
    return found


def measure_burst(setting: Setting, args: argparse.Namespace, budget: Budget) -> list[Part]:
    """Have every server hear every clip at once; who hears it first takes turns."""
    takes: list[Take] = []
    with _meters(setting.servers, takes) as meters:
        for number in budget.rounds(args.utterances):
            clip = setting.clips[number % len(setting.clips)]
            for server in turned(setting.servers, number):
                takes.append(asyncio.run(_take(server, clip, MIDDLE_SILENCE, BURST)))
                time.sleep(REST_SECONDS)
    return [Part(BURST, setting.model, setting.beam_size, takes, meters)]


def measure_real_time(setting: Setting, args: argparse.Namespace, budget: Budget) -> list[Part]:
    """Have every server hear clips at the pace of speech, one after the other.

    Only where work begins early can the wait depend on the silence: that server hears each clip
    with every silence, the others with one after the other.
    """
    takes: list[Take] = []
    with _meters(setting.servers, takes) as meters:
        for number in budget.rounds(args.utterances):
            clip = setting.clips[number % len(setting.clips)]
            for server, silence in _with_silences(setting, args, number):
                takes.append(asyncio.run(_take(server, clip, silence, REAL_TIME)))
            progress(f"  {number + 1} of at most {args.utterances} rounds")
    return [Part(REAL_TIME, setting.model, setting.beam_size, takes, meters)]


def _with_silences(
    setting: Setting, args: argparse.Namespace, number: int
) -> list[tuple[Server, float]]:
    one = [args.silences[number % len(args.silences)]]
    return [
        (server, silence)
        for server in turned(setting.servers, number)
        for silence in (args.silences if server.name == EAGER else one)
    ]


def measure_pauses(setting: Setting, args: argparse.Namespace, budget: Budget) -> list[Part]:
    """Have ours, eager and not, hear utterances with a pause inside."""
    takes: list[Take] = []
    servers = [server for server in setting.servers if server.name in (EAGER, NOT_EAGER)]
    clips = setting.clips
    with _meters(servers, takes) as meters:
        for number in budget.rounds(args.utterances):
            clip = joined(clips[number % len(clips)], clips[(number + 1) % len(clips)])
            takes += [
                asyncio.run(_take(server, clip, MIDDLE_SILENCE, PAUSES))
                for server in turned(servers, number)
            ]
    return [Part(PAUSES, setting.model, setting.beam_size, takes, meters)]


def measure_speakers(setting: Setting, args: argparse.Namespace, budget: Budget) -> list[Part]:
    """Have so many people speak at once, to ours and to the official server in turn."""
    servers = [server for server in setting.servers if server.name in (EAGER, OFFICIAL)]
    takes: dict[int, list[Take]] = {speakers: [] for speakers in args.speakers}
    for number in budget.rounds(args.utterances, least=1):
        for speakers in args.speakers:
            for server in turned(servers, number):
                takes[speakers] += asyncio.run(_crowd(server, setting.clips, speakers))
            progress(f"  {speakers} at once")
    return [
        Part(SPEAKERS, setting.model, setting.beam_size, heard, {}, speakers)
        for speakers, heard in takes.items()
    ]


async def _crowd(server: Server, clips: Sequence[Clip], speakers: int) -> list[Take]:
    async def speak(first: int) -> list[Take]:
        chosen = [clips[(first + n * speakers) % len(clips)] for n in range(SPEAKERS_SAY)]
        return [await _take(server, clip, MIDDLE_SILENCE, SPEAKERS) for clip in chosen]

    each = await asyncio.gather(*(speak(number) for number in range(speakers)))
    return [take for takes in each for take in takes]


def unsteady(part: Part, setting: Setting) -> frozenset[tuple[str, float]]:
    """Return the audio to which ours, never eager, writes something else when it hears it again.

    Whisper's answer to a doubtful text is to draw another one at random. Early work isn't to blame
    for that, so where it seems to have changed a text, this is looked at.
    """
    found = set()
    for one in agreement([part]).different:
        server = next(server for server in setting.servers if server.name == NOT_EAGER)
        clip = _named(setting.clips, one["clip"])
        again = [
            asyncio.run(_take(server, clip, one["silence"], BURST)).written
            for _ in range(ASKED_AGAIN)
        ]
        if {*again} != {one[NOT_EAGER]}:
            found.add((clip.file, one["silence"]))
    return frozenset(found)


def _named(clips: Sequence[Clip], file: str) -> Clip:
    """Return a clip, or two joined ones, by its name."""
    one, *other = (next(c for c in clips if c.file == name) for name in file.split(JOINED))
    return joined(one, other[0]) if other else one


_MEASURES: dict[str, Callable[[Setting, argparse.Namespace, Budget], list[Part]]] = {
    BURST: measure_burst,
    REAL_TIME: measure_real_time,
    PAUSES: measure_pauses,
    SPEAKERS: measure_speakers,
}


# -- reporting -----------------------------------------------------------------------------


def cells(part: Part) -> list[Cell]:
    """Return the rows of a part: by silence where a server heard all of them."""
    found: list[Cell] = []
    for server in dict.fromkeys(take.server for take in part.takes):
        takes = [take for take in part.takes if take.server == server]
        every = part.mode == REAL_TIME and server == EAGER
        silences = sorted({take.silence for take in takes}) if every else [None]
        for silence in silences:
            of_it = [take for take in takes if silence is None or take.silence == silence]
            found.append(Cell(part, server, silence, of_it))
    return sorted(found, key=lambda cell: _ORDER.index(cell.server))


_ORDER = (EAGER, NOT_EAGER, PLAIN, WIDE, OFFICIAL)


def official_median(part: Part) -> float:
    """Return the official server's median; 0 where it was left out."""
    return next((cell.median for cell in cells(part) if cell.server == OFFICIAL), 0.0)


def show(parts: Sequence[Part], mode: str) -> str:
    """Return the table of one mode."""
    head = ["model", "beam", *_SPECIAL.get(mode, ()), "server", "number", "median", "95 %", "worst"]
    head += ["official / it", "WER", "failed"]
    shown = [part for part in parts if part.mode == mode]
    if any(part.meters for part in shown):
        head += ["CPU", "peak RAM"]
    rows = [
        [part.model, str(part.beam_size), *_special(cell), cell.server, *_numbers(cell)]
        for part in shown
        for cell in cells(part)
    ]
    return f"{mode}\n\n{report.table(head, rows)}"


_SPECIAL = {REAL_TIME: ("silence",), SPEAKERS: ("speakers",)}


def _special(cell: Cell) -> list[str]:
    if cell.part.mode == SPEAKERS:
        return [str(cell.part.speakers)]
    if cell.part.mode == REAL_TIME:
        return ["any" if cell.silence is None else f"{cell.silence:g} s"]
    return []


def _numbers(cell: Cell) -> list[str]:
    meter, words = cell.part.meters.get(cell.server), cell.words
    percentiles = (cell.median, cell.percentile(95), cell.percentile(100))
    numbers = [
        str(len(cell.takes)),
        *(report.milliseconds(seconds) if seconds else report.NOTHING for seconds in percentiles),
        _ratio(official_median(cell.part), cell.median),
        report.percent(words.errors, words.words),
        str(cell.failed),
    ]
    if meter:
        numbers += [report.milliseconds(meter.cpu_seconds), report.megabytes(meter.peak_bytes)]
    return numbers


def _ratio(theirs: float, its: float) -> str:
    return report.times(theirs, its) if theirs else report.NOTHING


@dataclass(frozen=True)
class Agreement:
    """Whether early work changes a text: it must not."""

    same: int
    different: list[dict[str, Any]]
    random: list[dict[str, Any]]
    """Different too, but they are without early work."""


def agreement(parts: Sequence[Part]) -> Agreement:
    """Compare the texts of the same audio, eager and not."""
    found = Agreement(0, [], [])
    for part in parts:
        texts: dict[tuple[str, float], dict[str, str]] = {}
        for take in part.takes:
            if take.error is None and take.server in (EAGER, NOT_EAGER):
                texts.setdefault((take.clip, take.silence), {})[take.server] = take.written
        for (clip, silence), both in texts.items():
            if len(both) < 2:
                continue
            if both[EAGER] == both[NOT_EAGER]:
                found = replace(found, same=found.same + 1)
                continue
            where = {"mode": part.mode, "model": part.model, "beam_size": part.beam_size}
            one = {**where, "clip": clip, "silence": silence, **both}
            drawn = (clip, silence) in part.unsteady
            (found.random if drawn else found.different).append(one)
    return found


def eager_cost(part: Part) -> float | None:
    """Return how many times the processor time it takes to begin early, if that was measured."""
    meters = part.meters
    if EAGER not in meters or NOT_EAGER not in meters or not meters[NOT_EAGER].cpu_seconds:
        return None
    return meters[EAGER].cpu_seconds / meters[NOT_EAGER].cpu_seconds


def notes(parts: Sequence[Part]) -> list[str]:
    """Return the sentences below the tables."""
    lines = []
    for part in parts:
        cost = eager_cost(part)
        if cost is not None and part.mode in (REAL_TIME, PAUSES):
            lines.append(
                f"{part.mode}, {part.model}: eager takes {cost:.2f} times the processor time"
            )
    found = agreement(parts)
    if compared := found.same + len(found.different) + len(found.random):
        lines.append(f"The same text, eager or not: {found.same} of {compared}")
    if found.random:
        lines.append(f"Not the same, but random even when not eager: {len(found.random)}")
    late = [take.late for part in parts if part.mode != BURST for take in part.takes]
    if late:
        lines.append(f"This client sent audio-stop {report.milliseconds(max(late))} late at most")
    return lines


def as_json(parts: Sequence[Part]) -> dict[str, Any]:
    """Return rows with their figures, what is compared, and every utterance."""
    return {
        "cells": [_cell_as_json(cell) for part in parts for cell in cells(part)],
        "eager_cost": [
            {"mode": part.mode, "model": part.model, "cpu_ratio": eager_cost(part)}
            for part in parts
            if part.mode in (REAL_TIME, PAUSES)
        ],
        "agreement": asdict(agreement(parts)),
        "utterances": [
            {**_part_as_json(part), **asdict(take)} for part in parts for take in part.takes
        ],
    }


def _part_as_json(part: Part) -> dict[str, Any]:
    return {
        "mode": part.mode,
        "model": part.model,
        "beam_size": part.beam_size,
        "speakers": part.speakers,
    }


def _cell_as_json(cell: Cell) -> dict[str, Any]:
    meter, theirs = cell.part.meters.get(cell.server), official_median(cell.part)
    return {
        **_part_as_json(cell.part),
        "server": cell.server,
        "silence": cell.silence,
        "number": len(cell.takes),
        "failed": cell.failed,
        "median_seconds": cell.median,
        "p95_seconds": cell.percentile(95),
        "worst_seconds": cell.percentile(100),
        "official_ratio": theirs / cell.median if theirs and cell.median else None,
        "cpu_seconds": meter.cpu_seconds if meter else None,
        "peak_bytes": meter.peak_bytes if meter else None,
        "words": asdict(cell.words),
    }


# -- the suite -----------------------------------------------------------------------------


def add_options(parser: argparse.ArgumentParser) -> None:
    add_parts(parser, PARTS)
    add_models(parser, ",".join(BURST_SECONDS), one_of([*BURST_SECONDS]))
    parser.add_argument(
        "--real-time",
        type=lambda text: tuple(map(one_of([*BURST_SECONDS]), text.split(","))),
        default=(),
        metavar="LIST",
        help="models for real-time and pauses (default: the last of --models)",
    )
    add_clips(parser, BUNDLED_CLIPS)
    parser.add_argument("--limit", type=int, default=12, metavar="N", help="clips (default: 12)")
    add_decoding(parser, [1, 5])
    parser.add_argument(
        "--utterances", type=int, default=12, metavar="N", help="in a cell, at most (default: 12)"
    )
    parser.add_argument(
        "--silences",
        type=numbers(float),
        default=[0.25, 0.7, 1.29, 1.84],
        metavar="LIST",
        help="seconds after the speech, in real time (default: 0.25,0.7,1.29,1.84)",
    )
    parser.add_argument(
        "--speakers", type=numbers(int), default=[1, 2, 4, 8], metavar="LIST", help="at once"
    )
    parser.add_argument(
        "--minutes", type=float, default=7.0, help="that it takes, about (default: 7)"
    )
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
    facts = {"official": runtime, **as_json(parts)}
    return Outcome([*tables, "\n".join(notes(parts))], facts, different)
