"""Thousands of commands, one after the other: none is lost, none is wrong, nothing grows.

Speakers say the clips of tests/audio to our server with `tiny.en`, all at once rather than at the
pace of speech (real time would take hours, and adds nothing but waiting). The first answer to a
clip, with nobody else there, is what every later one must be. All the while it is read what the
process holds: memory, file descriptors, threads, tasks. At rest is when the server has given back
what was free; every clip has been said by then: the warm-up.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import itertools
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.lib import models, report
from benchmarks.lib.client import Heard, say, steady_texts
from benchmarks.lib.clips import BUNDLED_CLIPS, Clip, read_clips, with_silence
from benchmarks.lib.options import add_number
from benchmarks.lib.report import Outcome
from benchmarks.lib.servers import Counts, Watched
from wyoming_whisper.serving.server import Server

SAMPLES = 200  # of what the process holds
REST_SECONDS = Server.TIDY_SECONDS + 3  # until the server has given back what is free
MAX_GROWTH_BYTES = 5_000_000
"""Of the memory, from rest before to rest after."""
MAX_SLOPE_BYTES = 1_000_000
"""Of the memory held under load, per 1,000 utterances; what chance may do to it is granted."""
MIN_FITTED = 8  # moments that a line is fitted to


@dataclass(frozen=True)
class Moment:
    """What the process held when so many utterances were answered."""

    seconds: float
    utterances: int
    counts: Counts


@dataclass
class Found:
    """What came of the utterances."""

    seconds: list[float] = field(default_factory=list)
    """From audio-stop to transcript, of each."""
    lost: list[str] = field(default_factory=list)
    """What came instead of a transcript."""
    wrong: list[str] = field(default_factory=list)
    """Transcripts that were others than the first."""
    moments: list[Moment] = field(default_factory=list)
    exit_status: int = 0
    trouble: list[str] = field(default_factory=list)
    """Exceptions and errors in the server's log."""

    @property
    def growth_bytes(self) -> int:
        """How much more memory is held at rest after than before."""
        return self.moments[-1].counts.resident - self.moments[0].counts.resident

    @property
    def slope_bytes(self) -> tuple[float, float]:
        """The growth under load per 1,000 utterances, and its standard error, of a line fitted.

        Fitted to the second half: until then allocators find their size.
        """
        loaded = self.moments[len(self.moments) // 2 : -1]
        if len(loaded) < MIN_FITTED:
            return 0.0, float("inf")
        at = np.array([moment.utterances / 1000 for moment in loaded])
        held = np.array([float(moment.counts.resident) for moment in loaded])
        (slope, _), covariance = np.polyfit(at, held, 1, cov=True)
        return float(slope), float(covariance[0, 0] ** 0.5)

    @property
    def failures(self) -> list[str]:
        """Promises that were broken, a sentence each."""
        said = [
            f"{len(what)} {name}, such as {what[0]}"
            for name, what in (
                ("lost", self.lost),
                ("wrong", self.wrong),
                ("exceptions or errors in the log", self.trouble),
            )
            if what
        ]
        if self.growth_bytes >= MAX_GROWTH_BYTES:
            said.append(f"memory at rest grew by {report.megabytes(self.growth_bytes)}")
        slope, error = self.slope_bytes
        if slope - 2 * error >= MAX_SLOPE_BYTES:
            said.append(f"memory under load grew by {_slope(slope, error)}")
        first, last = self.moments[0].counts, self.moments[-1].counts
        said += [
            f"{name} at rest grew from {getattr(first, name)} to {getattr(last, name)}"
            for name in ("descriptors", "threads", "tasks")
            if getattr(last, name) > getattr(first, name)
        ]
        if self.exit_status:
            said.append(f"SIGTERM ended it with exit status {self.exit_status}")
        return said


def _slope(slope: float, error: float) -> str:
    return f"{slope / 1e6:.1f} ± {error / 1e6:.1f} MB per 1,000 utterances"


class Soak:
    """Speakers, who each wait for their answer, and one who looks at the process meanwhile."""

    def __init__(self, server: Watched, clips: Sequence[Clip], total: int) -> None:
        self._server = server
        self._clips = clips
        self._total = total
        self._answers: dict[str, str] = {}
        self.found = Found()

    async def run(self, speakers: int) -> None:
        """Say everything; at rest before and after, the process is looked at, too."""
        self._answers = await steady_texts(self._server.uri, self._clips)
        self._clips = [clip for clip in self._clips if clip.file in self._answers]
        # All at once, so that every thread there can be is there before they are counted.
        await asyncio.gather(*(self._say(clip) for clip in self._clips[:speakers]))
        await asyncio.sleep(REST_SECONDS)
        start = time.perf_counter()
        await self._look(start)
        clips = itertools.islice(itertools.cycle(self._clips), self._total)
        bar = importlib.import_module("tqdm").tqdm  # untyped
        progress = bar(total=self._total, unit=" utterances", mininterval=5)
        speaking = [asyncio.create_task(self._speak(clips, progress)) for _ in range(speakers)]
        every = max(1, self._total // SAMPLES)
        while not all(task.done() for task in speaking):
            await asyncio.wait(speaking, timeout=0.2)
            if len(self.found.seconds) >= self.found.moments[-1].utterances + every:
                await self._look(start)
        await asyncio.gather(*speaking)
        progress.close()
        await asyncio.sleep(REST_SECONDS)
        await self._look(start)

    async def _speak(self, clips: Iterator[Clip], progress: Any) -> None:
        for clip in clips:
            heard = await self._say(clip)
            expected = self._answers[clip.file]
            if heard.error:
                self.found.lost.append(f"{clip.file}: {heard.error}")
            elif heard.text != expected:
                self.found.wrong.append(f"{clip.file}: {heard.text!r}, not {expected!r}")
            self.found.seconds.append(heard.seconds)
            progress.update()

    async def _say(self, clip: Clip) -> Heard:
        return await say(self._server.uri, with_silence(clip.samples))

    async def _look(self, start: float) -> None:
        counts = await asyncio.to_thread(self._server.counts)
        seconds = time.perf_counter() - start
        self.found.moments.append(Moment(seconds, len(self.found.seconds), counts))


def soak(folder: Path, total: int, speakers: int) -> Found:
    """Have a server of its own hear `total` commands. Raises BenchmarkError."""
    clips = read_clips(BUNDLED_CLIPS)
    with Watched(folder, *models.serving()) as server:
        server.answering()
        server.ready()
        run = Soak(server, clips, total)
        asyncio.run(run.run(speakers))
        run.found.exit_status = server.stopped()
        run.found.trouble = server.trouble
        return run.found


# -- reporting -----------------------------------------------------------------------------


_HELD = {
    "memory (VmRSS)": "resident",
    "file descriptors": "descriptors",
    "threads": "threads",
    "tasks": "tasks",
}


def show(found: Found, speakers: int) -> str:
    rows = [
        ["utterances", str(len(found.seconds))],
        ["speakers at once", str(speakers)],
        ["lost", str(len(found.lost))],
        ["wrong: another text than the first time", str(len(found.wrong))],
        ["minutes", f"{found.moments[-1].seconds / 60:.1f}"],
        *(
            [f"audio-stop to transcript, {name}", report.milliseconds(value)]
            for name, value in (
                ("median", report.percentile(found.seconds, 50)),
                ("95 %", report.percentile(found.seconds, 95)),
            )
        ),
        ["growth of memory at rest", report.megabytes(found.growth_bytes)],
        ["growth of memory under load, second half", _slope(*found.slope_bytes)],
        ["exceptions and errors in the log", str(len(found.trouble))],
        ["exit status after SIGTERM", str(found.exit_status)],
    ]
    head = ["held by the process", "at rest before", "most", "at rest after"]
    held = [[name, *_held(found.moments, key)] for name, key in _HELD.items()]
    return f"{report.table(['', 'soak'], rows)}\n\n{report.table(head, held)}"


def _held(moments: Sequence[Moment], key: str) -> list[str]:
    values: list[int] = [getattr(moment.counts, key) for moment in moments]
    shown = report.megabytes if key == "resident" else str
    return [shown(value) for value in (values[0], max(values), values[-1])]


def plot(found: Found, file: Path) -> None:
    """Draw what the process held. Raises BenchmarkError where matplotlib is missing."""
    pyplot = report.pyplot()
    figure, axes = pyplot.subplots(4, 1, figsize=(8, 7), sharex=True, layout="constrained")
    at = [moment.utterances for moment in found.moments]
    for axis, (name, key) in zip(axes, _HELD.items(), strict=True):
        values = [getattr(moment.counts, key) for moment in found.moments]
        if key == "resident":
            name, values = "memory, MB", [value / 1e6 for value in values]
        axis.plot(at, values, linewidth=1)
        axis.set_ylabel(name)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    axes[-1].set_xlabel("utterances answered")
    figure.savefig(file, dpi=110)
    pyplot.close(figure)


def add_options(parser: argparse.ArgumentParser) -> None:
    add_number(parser, "--utterances", 5000)
    add_number(parser, "--speakers", 4)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw it (needs matplotlib)")


def run(args: argparse.Namespace) -> Outcome:
    """Speak; what is lost, wrong or grows is a failure."""
    with tempfile.TemporaryDirectory() as folder:
        found = soak(Path(folder), args.utterances, args.speakers)
    if args.plot:
        plot(found, args.plot)
    return Outcome([show(found, args.speakers)], asdict(found), found.failures)
