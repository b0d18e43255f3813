"""How soon a server listens and answers, and the memory it takes, of ours and the official server.

starts    from the process's start to its first accepted connection, info and transcript
memory    of the serving process after some commands

What commands take is in the suite latency, also while hostile clients are there in hostile.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from benchmarks.lib import report
from benchmarks.lib.client import say
from benchmarks.lib.clips import BUNDLED_CLIPS, Clip, short_clips, with_silence
from benchmarks.lib.errors import BenchmarkError
from benchmarks.lib.official import install_official, official, ours
from benchmarks.lib.options import (
    add_chunk_ms,
    add_clips,
    add_decoding,
    add_model,
    add_number,
    add_official,
    add_parts,
)
from benchmarks.lib.report import Outcome
from benchmarks.lib.servers import Memory, Program, Server, running, turned

PARTS = ("starts", "memory")


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
                _say(server, clip)
                start = Start(listening, info, time.perf_counter() - server.started)
            if number:
                starts[program.name].append(start)
    return starts


def _say(server: Server, clip: Clip, chunk_ms: int = 10) -> None:
    answer = asyncio.run(say(server.uri, with_silence(clip.samples), chunk_ms=chunk_ms))
    if answer.error:
        raise BenchmarkError(f"{server.name}: {answer.error}")


def measure_memory(
    servers: Sequence[Server], clips: Sequence[Clip], count: int, chunk_ms: int
) -> dict[str, Memory]:
    """Return what each server takes after `count` commands, which they hear in turns."""
    for number in range(count):
        for server in turned(servers, number):
            _say(server, clips[number % len(clips)], chunk_ms)
    return {server.name: server.memory() for server in servers}


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
            rows.append([f"start to {name}, {word}", *_compared(values, report.milliseconds)])
    return _table(list(starts), rows)


def show_memory(memories: Mapping[str, Memory]) -> str:
    """Return a table with a column for each server, and how many times ours the last is."""
    parts = {
        "resident": "resident (VmRSS)",
        "peak": "resident, at most (VmHWM)",
        "own": "its own, in no file (RssAnon)",
    }
    rows = [
        [name, *_compared([getattr(one, part) for one in memories.values()], report.megabytes)]
        for part, name in parts.items()
    ]
    # Ours shares libraries with this very process: as a ratio that would flatter it.
    shares = [report.megabytes(memory.proportional) for memory in memories.values()]
    rows.append(["proportional (Pss)", *shares, *([""] if len(shares) > 1 else [])])
    return _table(list(memories), rows)


def _compared(values: Sequence[float], shown: Callable[[float], str]) -> list[str]:
    ratio = [report.times(values[-1], values[0])] if len(values) > 1 else []
    return [*map(shown, values), *ratio]


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    ratio = [f"{names[-1]} / {names[0]}"] if len(names) > 1 else []
    return report.table(["", *names, *ratio], rows)


def add_options(parser: argparse.ArgumentParser) -> None:
    add_parts(parser, PARTS)
    add_model(parser)
    add_decoding(parser)
    add_chunk_ms(parser)
    add_official(parser)
    add_clips(parser, BUNDLED_CLIPS)
    add_number(parser, "--starts", 10, "of each server")
    add_number(parser, "--utterances", 20, "before memory is read")


def run(args: argparse.Namespace) -> Outcome:
    """Measure both servers, or ours alone."""
    facts: dict[str, object] = {"official": {} if args.no_official else install_official()}
    programs = [ours(args), *([] if args.no_official else [official(args)])]
    shown, clips = [], short_clips(args.clips)
    with tempfile.TemporaryDirectory() as folder:
        if "starts" in args.parts:
            starts = measure_starts(programs, clips[0], args.starts, Path(folder))
            shown.append(show_starts(starts))
            facts["starts"] = {name: list(map(asdict, all_)) for name, all_ in starts.items()}
        if "memory" in args.parts:
            with running(programs, Path(folder)) as servers:
                memory = measure_memory(servers, clips, args.utterances, args.chunk_ms)
            shown.append(show_memory(memory))
            facts["memory"] = {name: asdict(one) for name, one in memory.items()}
    return Outcome(shown, facts)
