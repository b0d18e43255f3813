"""How soon a server listens and answers after its start, of ours and the official server.

From the process's start to its first accepted connection, info and transcript. What commands take
is in the suite latency, memory in accuracy and soak.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from benchmarks.lib import report
from benchmarks.lib.clips import Clip, short_clips, with_silence
from benchmarks.lib.official import install_official, official, ours
from benchmarks.lib.options import DECODING, add, add_number
from benchmarks.lib.report import Outcome
from benchmarks.lib.servers import Program, Server


@dataclass(frozen=True)
class Start:
    """Seconds from the start of the process."""

    listening: float
    info: float
    transcript: float


def measure_starts(
    programs: Sequence[Program], clip: Clip, count: int, folder: Path
) -> dict[str, list[Start]]:
    """Start every program `count` times in turn, after one start that fills the file cache."""
    starts: dict[str, list[Start]] = {program.name: [] for program in programs}
    for number in range(count + 1):
        for program in programs:
            with Server(program, folder) as server:
                listening, info = server.listening(), server.answering()
                start = Start(listening, info, server.transcribing(with_silence(clip.samples)))
            if number:
                starts[program.name].append(start)
    return starts


def show_starts(starts: Mapping[str, Sequence[Start]]) -> str:
    """Return a table with a column for each server, and how many times ours the last is."""
    named = (("listening", "listening"), ("info", "first info"), ("transcript", "first transcript"))
    how: tuple[tuple[str, Callable[[Sequence[float]], float]], ...]
    how = (("median", median), ("slowest", max))
    rows = []
    for part, name in named:
        of_servers = [[getattr(start, part) for start in all_] for all_ in starts.values()]
        for word, of in how:
            values = [of(values) for values in of_servers]
            rows.append([f"start to {name}, {word}", *_compared(values)])
    first, *others = starts
    ratio = [f"{others[-1]} / {first}"] if others else []
    return report.table(["", *starts, *ratio], rows)


def _compared(values: Sequence[float]) -> list[str]:
    ratio = [report.times(values[-1], values[0])] if len(values) > 1 else []
    return [*map(report.milliseconds, values), *ratio]


def add_options(parser: argparse.ArgumentParser) -> None:
    add(parser, "--model", "--clips", "--no-official", *DECODING)
    add_number(parser, "--starts", 10, "of each server")


def run(args: argparse.Namespace) -> Outcome:
    """Measure both servers, or ours alone."""
    facts: dict[str, object] = {"official": {} if args.no_official else install_official()}
    programs = [ours(args), *([] if args.no_official else [official(args)])]
    with tempfile.TemporaryDirectory() as folder:
        starts = measure_starts(programs, short_clips(args.clips)[0], args.starts, Path(folder))
    facts["starts"] = {name: list(map(asdict, all_)) for name, all_ in starts.items()}
    return Outcome([show_starts(starts)], facts)
