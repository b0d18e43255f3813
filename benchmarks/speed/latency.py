"""How long a person waits: from audio-stop to transcript, of ours and the official server.

burst      all audio at once: the pure work
real-time  audio at the pace of speech, then the silence that Home Assistant waits for

That early work changes no text is tested (tests/utterance/test_eager_clips.py).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.lib import models, report
from benchmarks.lib.client import SATELLITE_CHUNK_MS, say
from benchmarks.lib.clips import SECONDS_BEFORE, Clip, short_clips
from benchmarks.lib.errors import ClipError
from benchmarks.lib.official import install_official, official, ours
from benchmarks.lib.options import add, add_number, add_parts, numbers, one_of, several
from benchmarks.lib.report import Outcome, progress
from benchmarks.lib.servers import Program, Server, prepare, running, turned
from benchmarks.lib.words import WordErrors, word_errors
from wyoming_whisper.audio.speech import Speech
from wyoming_whisper.audio.vad import SileroVad, SpanOptions, Vad
from wyoming_whisper.transcriber import SAMPLE_RATE, Samples

BURST, REAL_TIME = PARTS = ("burst", "real-time")
EAGER, NOT_EAGER, WIDE, OFFICIAL = "ours", "ours, not eager", "ours, 30 s", "official"
PLAIN, CUT = "ours, faster-whisper", "ours, 10 s"
MODELS = (models.TINY, models.BASE)

MIDDLE_SILENCE = 0.7  # where the silence is not what is measured
SETTLE_SECONDS = 0.5  # before the processor time of all is read


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

    def row(self, theirs: float) -> list[str]:
        """Return the cells from the server's name on; `theirs` is the official server's median."""
        seconds, words = self.seconds, self.words
        times, ratio = [report.NOTHING] * 3, report.NOTHING
        if seconds:
            waits = median(seconds), report.percentile(seconds, 95), max(seconds)
            times = [report.milliseconds(wait) for wait in waits]
            ratio = report.times(theirs, waits[0]) if theirs else ratio
        rate = report.percent(words.errors, words.words)
        failed = str(len(self.takes) - len(seconds))
        return [self.server, str(len(self.takes)), *times, ratio, rate, failed]


@dataclass(frozen=True)
class Part:
    """What was measured of some servers with one model and beam."""

    mode: str
    model: str
    beam_size: int
    takes: list[Take]
    meters: dict[str, Meter]

    def cells(self) -> list[Cell]:
        """Return the rows: by silence where a server heard all of them."""
        cells: list[Cell] = []
        for server in (EAGER, NOT_EAGER, PLAIN, CUT, WIDE, OFFICIAL):
            takes = [take for take in self.takes if take.server == server]
            every = self.mode == REAL_TIME and server == EAGER
            for silence in sorted({take.silence for take in takes}) if every else [None]:
                of_it = [take for take in takes if silence in (None, take.silence)]
                if of_it:
                    cells.append(Cell(server, silence, of_it))
        return cells

    def rows(self) -> list[list[str]]:
        official = [cell.seconds for cell in self.cells() if cell.server == OFFICIAL]
        theirs = median(official[0]) if official and official[0] else 0.0
        rows = []
        for cell in self.cells():
            silence = "any" if cell.silence is None else f"{cell.silence:g} s"
            where = [self.model, str(self.beam_size)]
            where += [silence] if self.mode == REAL_TIME else []
            rows.append([*where, *cell.row(theirs)])
            if meter := self.meters.get(cell.server):
                rows[-1].append(report.milliseconds(meter.cpu_seconds))
                rows[-1].append(report.megabytes(meter.peak_bytes))
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


def notes(parts: Sequence[Part]) -> list[str]:
    """Return the sentences below the tables."""
    lines = []
    for part in parts:
        eager, other = (part.meters.get(server) for server in (EAGER, NOT_EAGER))
        if part.mode == REAL_TIME and eager and other and other.cpu_seconds:
            cost = f"eager takes {eager.cpu_seconds / other.cpu_seconds:.2f} times"
            lines.append(f"{part.mode}, {part.model}: {cost} the processor time")
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
        ours(same, CUT, "--no-eager", "--audio-context", "10"),
        ours(same, WIDE, "--no-eager", "--audio-context", "full"),
    ]
    return found if args.no_official else [*found, official(same)]


# -- measuring -----------------------------------------------------------------------------


def plan(args: argparse.Namespace) -> list[tuple[str, int, str]]:
    """Return (model, beam, part) of all that is measured: real time with the last beam alone."""
    in_time = args.real_time or args.models[-1:]
    return [
        (model, beam_size, part)
        for model in dict.fromkeys((*args.models, *args.real_time))
        for beam_size in args.beam_size
        for part in PARTS
        if part in args.parts
        if part == BURST or (model in in_time and beam_size == args.beam_size[-1])
    ]


def measure(args: argparse.Namespace, clips: list[Clip], folder: Path) -> Iterator[Part]:
    """Yield every part; those with the same model and beam ask the same servers."""
    for (model, beam_size), parts in itertools.groupby(plan(args), lambda one: one[:2]):
        path = models.stock(model)
        compared = programs(args, path, beam_size)
        prepare(compared, folder)
        with running(compared, folder) as servers:
            for server in servers:  # nobody pays for being first
                server.transcribing(followed_by_silence(clips[0].samples, MIDDLE_SILENCE))
            for _, _, mode in parts:
                progress(f"{mode}, {model}, beam {beam_size}")
                takes, meters = take_turns(args, mode, servers, clips)
                yield Part(mode, model, beam_size, takes, meters)


def take_turns(
    args: argparse.Namespace, mode: str, servers: Sequence[Server], clips: Sequence[Clip]
) -> tuple[list[Take], dict[str, Meter]]:
    """Have every server hear one clip after the other; who hears it first takes turns.

    Only where work begins early can the wait depend on the silence: in real time that server hears
    each clip with every silence, the others with one after the other.
    """
    takes: list[Take] = []
    with _meters(servers, takes) as meters:
        for number in range(args.utterances):
            clip = clips[number % len(clips)]
            for server in turned(servers, number):
                silences = args.silences
                if mode == BURST:
                    silences = [MIDDLE_SILENCE]
                elif server.name != EAGER:
                    silences = [silences[number % len(silences)]]
                for silence in silences:
                    takes.append(asyncio.run(_take(server, clip, silence, mode)))
                    time.sleep(0.05)  # OpenMP's threads spin for a moment after their work
    return takes, meters


# -- the suite -----------------------------------------------------------------------------


def add_options(parser: argparse.ArgumentParser) -> None:
    add_parts(parser, PARTS)
    stock = several(one_of(MODELS))
    add(parser, "--models", type=stock, default=",".join(MODELS))
    parser.add_argument(
        "--real-time",
        type=stock,
        default=(),
        metavar="LIST",
        help="models for real-time (default: the last of --models)",
    )
    add(parser, "--clips", "--threads", "--compute-type", "--no-official")
    beams = {"type": numbers(int), "default": [1, 5], "metavar": "LIST"}
    add(parser, "--beam-size", **beams, help="default: 1,5")
    add_number(parser, "--limit", 12, "clips")
    add_number(parser, "--utterances", 12, "of each server, in a part")
    parser.add_argument(
        "--silences",
        type=numbers(float),
        default=[0.25, 0.7, 1.29, 1.84],
        metavar="LIST",
        help="seconds after the speech, in real time (default: 0.25,0.7,1.29,1.84)",
    )


def run(args: argparse.Namespace) -> Outcome:
    """Measure all parts."""
    vad = SileroVad()
    clips = [trimmed(clip, vad) for clip in short_clips(args.clips)[: args.limit]]
    runtime = {} if args.no_official else install_official()
    with tempfile.TemporaryDirectory() as temporary:
        parts = list(measure(args, clips, Path(temporary)))
    facts = {"official": runtime, "parts": [asdict(part) for part in parts]}
    tables = [show(parts, mode) for mode in PARTS if mode in args.parts]
    return Outcome([*tables, "\n".join(notes(parts))], facts)
