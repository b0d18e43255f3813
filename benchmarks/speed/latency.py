"""How long a person waits: from audio-stop to transcript, over TCP on the loopback interface.

`python -m benchmarks.speed.latency` measures, of ours and of the official server side by side:

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
import importlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from wyoming.asr import Transcript
from wyoming.audio import AudioStop
from wyoming.client import AsyncClient
from wyoming.error import Error

from benchmarks.lib import models, report
from benchmarks.lib.client import ANSWER_SECONDS, Heard, command_events, connected, say
from benchmarks.lib.clips import SECONDS_BEFORE, Clip, ClipError
from benchmarks.lib.servers import (
    BenchmarkError,
    Program,
    Server,
    asked,
    install_official,
    official,
    ours,
    started,
)
from benchmarks.lib.words import WordErrors, word_errors
from benchmarks.speed.responsiveness import BUNDLED_CLIPS, short_clips
from wyoming_whisper.errors import ModelError
from wyoming_whisper.machine import physical_cores
from wyoming_whisper.speech import Speech
from wyoming_whisper.transcriber import SAMPLE_RATE, Samples
from wyoming_whisper.vad import SileroVad, SpanOptions, Vad

BURST, SPEAKERS, PAUSES, REAL_TIME = PARTS = ("burst", "speakers", "pauses", "real-time")
EAGER, NOT_EAGER, WIDE, OFFICIAL = "ours", "ours, not eager", "ours, 30 s", "official"
PLAIN = "ours, faster-whisper"

CHUNK_MS = 32  # as satellites send
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


# -- speaking ------------------------------------------------------------------------------


async def say_in_time(uri: str, samples: Samples, chunk_ms: int = CHUNK_MS) -> tuple[Heard, float]:
    """Send a command as it is spoken; return what came back, and how late audio-stop was.

    Each chunk goes out at the moment at which a microphone would have all of it.
    """
    events = list(command_events(samples, chunk_ms=chunk_ms))
    ends = [0.0, 0.0, *(chunk_ms / 1000 * (n + 1) for n in range(len(events) - 2))]
    ends[-1] = len(samples) / SAMPLE_RATE  # the last chunk may be shorter
    async with connected(uri) as client:
        # Reading from the start: whatever comes has the time at which it came.
        answer = asyncio.ensure_future(_answer(client))
        begin = time.perf_counter()
        try:
            for event, end in zip(events, ends, strict=True):
                await asyncio.sleep(max(0.0, begin + end - time.perf_counter()))
                await client.write_event(event)
            stopped = time.perf_counter()
            await client.write_event(AudioStop().event())
            text, at = await asyncio.wait_for(answer, ANSWER_SECONDS)
        except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError, ValueError) as problem:
            answer.cancel()
            await asyncio.gather(answer, return_exceptions=True)
            return Heard("", 0.0, str(problem) or type(problem).__name__), 0.0
        return Heard(text, at - stopped), stopped - begin - ends[-1]


async def _answer(client: AsyncClient) -> tuple[str, float]:
    while (event := await client.read_event()) is not None:
        if Transcript.is_type(event.type):
            return Transcript.from_event(event).text, time.perf_counter()
        if Error.is_type(event.type):
            raise ValueError(Error.from_event(event).text)
    raise ConnectionError("the server closed the connection without a transcript")


async def _take(server: Server, clip: Clip, silence: float, mode: str) -> Take:
    samples, late = followed_by_silence(clip.samples, silence), 0.0
    if mode == BURST:
        heard = await say(server.uri, samples, chunk_ms=CHUNK_MS)
    else:
        heard, late = await say_in_time(server.uri, samples)
    written = " ".join(heard.text.split())
    return Take(
        server.name, clip.file, silence, clip.text, written, heard.seconds, late, heard.error
    )


# -- servers -------------------------------------------------------------------------------


class MeteredServer(Server):
    """A server whose processor time can be read."""

    def cpu_seconds(self) -> float:
        """Return the processor time of all threads so far, the kernel's work included."""
        stat = Path("/proc") / str(self._process.pid) / "stat"
        return read_cpu_seconds(stat.read_text(), os.sysconf("SC_CLK_TCK"))

    def check(self) -> None:
        """Raise BenchmarkError if the server has ended: nothing more can be read of it."""
        if (status := self._process.poll()) is not None:
            raise BenchmarkError(f"{self.name} ended with {status}:\n{self._log_end()}")


def read_cpu_seconds(stat: str, ticks_per_second: int) -> float:
    """Read utime and stime of /proc/PID/stat; the name before them may hold anything."""
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / ticks_per_second


@contextlib.contextmanager
def metered(programs: Sequence[Program], folder: Path) -> Iterator[list[MeteredServer]]:
    """Run servers side by side until the block ends; all of them listen.

    Ours have been started before: a model's first start is once, and needs more memory.
    """
    _start_once([program for program in programs if program.is_ours], folder)
    with contextlib.ExitStack() as stack:
        servers: list[MeteredServer] = []
        for program in programs:
            servers.append(MeteredServer(program, _folder(program, folder)))
            stack.callback(servers[-1].stop)
        for server in servers:
            server.listening()
        yield servers


def _start_once(programs: Sequence[Program], folder: Path) -> None:
    for program in programs:
        with started(program, _folder(program, folder)) as server:
            server.settle()


def _folder(program: Program, folder: Path) -> Path:
    return folder / ("ours" if program.is_ours else program.name)


def _warm_up(servers: Sequence[Server], clip: Clip) -> None:
    """Wait until every model is ready; nobody pays for being first."""
    for server in servers:
        heard = asyncio.run(say(server.uri, followed_by_silence(clip.samples, MIDDLE_SILENCE)))
        if heard.error:
            raise BenchmarkError(f"{server.name}: {heard.error}")


@contextlib.contextmanager
def _meters(servers: Sequence[MeteredServer], takes: list[Take]) -> Iterator[dict[str, Meter]]:
    """Fill a dictionary at the end of the block, with what each server took for its `takes`."""
    time.sleep(SETTLE_SECONDS)
    before = {server.name: server.cpu_seconds() for server in servers}
    meters: dict[str, Meter] = {}
    yield meters
    time.sleep(SETTLE_SECONDS)
    for server in servers:
        server.check()
        number = sum(take.server == server.name for take in takes)
        spent = server.cpu_seconds() - before[server.name]
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
    return [(model, beam_size) for model in args.models for beam_size in args.beam_size]


def _parts(args: argparse.Namespace, model: str, beam_size: int) -> list[str]:
    """Return what is measured with one model and beam: not everything with all of them."""
    last = beam_size == args.beam_size[-1]
    wanted = {
        BURST: True,
        SPEAKERS: last and model == args.models[0],
        PAUSES: last and model in args.real_time,
        REAL_TIME: last and model in args.real_time,
    }
    return [part for part in args.parts if wanted[part]]


# -- measuring -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    """What runs, and what it gets to hear."""

    servers: list[MeteredServer]
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
                _tell(f"{part}, {model}, beam {beam_size}")
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
            for server, silence in turned(_with_silences(setting, args, number), number):
                takes.append(asyncio.run(_take(server, clip, silence, REAL_TIME)))
            _tell(f"  {number + 1} of at most {args.utterances} rounds")
    return [Part(REAL_TIME, setting.model, setting.beam_size, takes, meters)]


def _with_silences(
    setting: Setting, args: argparse.Namespace, number: int
) -> list[tuple[MeteredServer, float]]:
    found = []
    for server in setting.servers:
        one = [args.silences[number % len(args.silences)]]
        found += [(server, silence) for silence in (args.silences if server.name == EAGER else one)]
    return found


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
            _tell(f"  {speakers} at once")
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


def turned(items: Sequence[Any], number: int) -> list[Any]:
    """Return the items, beginning with another one each time."""
    start = number % len(items)
    return [*items[start:], *items[:start]]


_MEASURES: dict[str, Callable[[Setting, argparse.Namespace, Budget], list[Part]]] = {
    BURST: measure_burst,
    REAL_TIME: measure_real_time,
    PAUSES: measure_pauses,
    SPEAKERS: measure_speakers,
}


_BEGIN = time.monotonic()


def _tell(line: str) -> None:
    print(f"{time.monotonic() - _BEGIN:5.0f} s  {line}", file=sys.stderr, flush=True)


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
    lines += [f"DIFFERENT: {one}" for one in found.different]
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


# -- the plot ------------------------------------------------------------------------------


def _pyplot() -> Any:
    """Return matplotlib's functions; nothing else here needs it. Raises BenchmarkError."""
    try:
        importlib.import_module("matplotlib").use("Agg")
        return importlib.import_module("matplotlib.pyplot")
    except ImportError as error:
        raise BenchmarkError("--plot needs matplotlib: pip install matplotlib") from error


def plot(parts: Sequence[Part], file: Path) -> None:
    """Draw which share of the utterances was answered after how long."""
    pyplot = _pyplot()
    shown = [part for part in parts if part.mode in (BURST, REAL_TIME)]
    figure, axes = pyplot.subplots(
        len(shown), 1, figsize=(6, 2.2 * len(shown)), sharex=True, squeeze=False
    )
    for part, axis in zip(shown, axes[:, 0], strict=True):
        for cell in cells(part):
            if not cell.seconds:
                continue
            waits = [1000 * seconds for seconds in sorted(cell.seconds)]
            share = [n / len(waits) for n in range(len(waits) + 1)]
            silence = "" if cell.silence is None else f", {cell.silence:g} s"
            axis.step([waits[0], *waits], share, where="post", label=cell.server + silence)
        axis.set_title(f"{part.mode}, {part.model}, beam {part.beam_size}", fontsize=8)
        axis.set_xscale("log")
        axis.legend(fontsize=6)
    axes[-1, 0].set_xlabel("ms from audio-stop to transcript")
    figure.tight_layout()
    figure.savefig(file, dpi=100)


# -- the command ---------------------------------------------------------------------------


def _listed(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    """Return what reads a list with commas, every item of which is positive if a number."""

    def read(text: str) -> list[Any]:
        items = [kind(item) for item in text.split(",")]
        if any(isinstance(item, int | float) and item <= 0 for item in items):
            raise ValueError
        return items

    read.__name__ = "list"  # named so in argparse's complaint
    return read


def _model(name: str) -> str:
    if name not in BURST_SECONDS:
        raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(BURST_SECONDS)}")
    return name


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    _add_choices(parser)
    _add_amounts(parser)
    parser.add_argument("--no-official", action="store_true", help="ours alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there, too")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw it (needs matplotlib)")
    args = parser.parse_args(argv)
    for part in args.parts:
        if part not in PARTS:
            parser.error(f"{part!r} is none of {', '.join(PARTS)}")
    args.parts = [part for part in PARTS if part in (args.parts or PARTS)]
    if args.plot and not {BURST, REAL_TIME} & {*args.parts}:
        parser.error("--plot draws burst and real-time")
    args.real_time = args.real_time or args.models[-1:]
    args.models += [model for model in args.real_time if model not in args.models]
    return args


def _add_choices(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("parts", nargs="*", metavar="PART", help="default: all four")
    parser.add_argument(
        "--models",
        type=_listed(_model),
        default=[*BURST_SECONDS],
        metavar="LIST",
        help=f"stock models (default: {','.join(BURST_SECONDS)})",
    )
    parser.add_argument(
        "--real-time",
        type=_listed(_model),
        metavar="LIST",
        help="models for real-time and pauses (default: the last of --models)",
    )
    parser.add_argument(
        "--audio", type=Path, default=BUNDLED_CLIPS, metavar="DIR", help="default: tests/audio"
    )
    parser.add_argument(
        "--beam-size", type=_listed(int), default=[1, 5], metavar="LIST", help="default: 1,5"
    )
    parser.add_argument(
        "--threads", type=int, default=physical_cores(), help="of each server (default: all cores)"
    )
    parser.add_argument(
        "--compute-type",
        default="int8",
        help="of each server (default: int8, which the official one wouldn't choose itself)",
    )


def _add_amounts(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--clips", type=int, default=12, metavar="N", help="default: 12")
    parser.add_argument(
        "--utterances", type=int, default=12, metavar="N", help="in a cell, at most (default: 12)"
    )
    parser.add_argument(
        "--silences",
        type=_listed(float),
        default=[0.25, 0.7, 1.29, 1.84],
        metavar="LIST",
        help="seconds after the speech, in real time (default: 0.25,0.7,1.29,1.84)",
    )
    parser.add_argument(
        "--speakers", type=_listed(int), default=[1, 2, 4, 8], metavar="LIST", help="at once"
    )
    parser.add_argument(
        "--minutes", type=float, default=7.0, help="that it takes, about (default: 7)"
    )


def _clips(args: argparse.Namespace) -> list[Clip]:
    vad = SileroVad()
    return [trimmed(clip, vad) for clip in short_clips(args.audio)[: args.clips]]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write; 1 when that fails, or a text depends on when work began."""
    args = _arguments(argv)
    facts = report.machine()
    try:
        if args.plot:
            _pyplot()
        clips = _clips(args)
        runtime = {} if args.no_official else install_official()
        with tempfile.TemporaryDirectory() as temporary:
            parts = measure(args, clips, Path(temporary))
    except (BenchmarkError, ClipError, ModelError) as error:
        print(f"benchmarks.speed.latency: {error}", file=sys.stderr)
        return 1
    tables = [show(parts, mode) for mode in args.parts]
    print(report.machine_line(facts), *tables, "\n".join(notes(parts)), sep="\n\n")
    written = {"machine": facts, "official": runtime, "asked": asked(args), **as_json(parts)}
    report.write_json(args.json, written)
    if args.plot:
        plot(parts, args.plot)
    return 1 if agreement(parts).different else 0


if __name__ == "__main__":
    sys.exit(main())
