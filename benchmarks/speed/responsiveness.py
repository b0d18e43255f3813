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
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

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
from wyoming_whisper.transcriber import Samples

PARTS = ("starts", "memory")

Shown = Callable[[float], str]


@dataclass(frozen=True)
class Start:
    """Seconds from the start of the process."""

    listening: float
    info: float
    transcript: float


# -- starts --------------------------------------------------------------------------------


def measure_starts(
    programs: Sequence[Program], clips: Sequence[Clip], count: int, folder: Path
) -> dict[str, list[Start]]:
    """Start every program `count` times in turn, after one start that fills the file cache."""
    audio = with_silence(clips[0].samples)
    found: dict[str, list[Start]] = {program.name: [] for program in programs}
    for number in range(count + 1):
        for program in programs:
            start = _start(program, audio, folder)
            if number:
                found[program.name].append(start)
    return found


def _start(program: Program, audio: Samples, folder: Path) -> Start:
    with Server(program, folder) as server:
        listening = server.listening()
        info = server.answering()
        heard = asyncio.run(say(server.uri, audio))
        if heard.error:
            raise BenchmarkError(f"{program.name}: {heard.error}")
        return Start(listening, info, time.perf_counter() - server.started)


def show_starts(found: dict[str, list[Start]]) -> str:
    parts: dict[str, Callable[[Start], float]] = {
        "listening": lambda start: start.listening,
        "first info": lambda start: start.info,
        "first transcript": lambda start: start.transcript,
    }
    rows = []
    for name, part in parts.items():
        values = [[part(start) for start in starts] for starts in found.values()]
        rows.append([f"start to {name}, median", *_compared([median(v) for v in values])])
        rows.append([f"start to {name}, slowest", *_compared([max(v) for v in values])])
    return _table(found, rows)


# -- memory --------------------------------------------------------------------------------


def measure_memory(
    servers: Sequence[Server], clips: Sequence[Clip], count: int, chunk_ms: int
) -> dict[str, Memory]:
    """Return what each server takes after `count` commands, which they hear in turns."""
    for number in range(count):
        samples = with_silence(clips[number % len(clips)].samples)
        for server in turned(servers, number):
            heard = asyncio.run(say(server.uri, samples, chunk_ms=chunk_ms))
            if heard.error:
                raise BenchmarkError(f"{server.name}: {heard.error}")
    return {server.name: server.memory() for server in servers}


def show_memory(found: dict[str, Memory]) -> str:
    parts: dict[str, Callable[[Memory], float]] = {
        "resident (VmRSS)": lambda memory: memory.resident,
        "resident, at most (VmHWM)": lambda memory: memory.peak,
        "its own, in no file (RssAnon)": lambda memory: memory.own,
    }
    rows = [
        [name, *_compared([part(memory) for memory in found.values()], report.megabytes)]
        for name, part in parts.items()
    ]
    # Ours shares libraries with this very process: as a ratio that would flatter it.
    shares = [report.megabytes(memory.proportional) for memory in found.values()]
    rows.append(["proportional (Pss)", *_uncompared(shares)])
    return _table(found, rows)


# -- reporting -----------------------------------------------------------------------------


def _compared(values: Sequence[float], shown: Shown = report.milliseconds) -> list[str]:
    """Return the cells of a row: a number for each server, and how many times ours the last is."""
    cells = [shown(value) for value in values]
    return cells if len(values) < 2 else [*cells, report.times(values[-1], values[0])]


def _uncompared(cells: Sequence[str]) -> list[str]:
    return list(cells) if len(cells) < 2 else [*cells, ""]


def _table(found: dict[str, Any], rows: Sequence[Sequence[str]]) -> str:
    names = list(found)
    ratio = [] if len(names) < 2 else [f"{names[-1]} / {names[0]}"]
    return report.table(["", *names, *ratio], rows)


# -- the suite -----------------------------------------------------------------------------


def add_options(parser: argparse.ArgumentParser) -> None:
    add_parts(parser, PARTS)
    add_model(parser)
    add_decoding(parser)
    add_chunk_ms(parser)
    add_official(parser)
    add_clips(parser, BUNDLED_CLIPS)
    add_number(parser, "--starts", 10, "of each server")
    add_number(parser, "--utterances", 20, "before memory is read")


def measure(args: argparse.Namespace, programs: Sequence[Program], folder: Path) -> dict[str, Any]:
    """Return what each part found, by its name."""
    clips, result = short_clips(args.clips), dict[str, Any]()
    if "starts" in args.parts:
        result["starts"] = measure_starts(programs, clips, args.starts, folder)
    if "memory" in args.parts:
        with running(programs, folder) as servers:
            result["memory"] = measure_memory(servers, clips, args.utterances, args.chunk_ms)
    return result


def run(args: argparse.Namespace) -> Outcome:
    """Measure both servers, or ours alone."""
    runtime = {} if args.no_official else install_official()
    programs = [ours(args), *([] if args.no_official else [official(args)])]
    shown, facts = [], dict[str, Any]()
    with tempfile.TemporaryDirectory() as temporary:
        result = measure(args, programs, Path(temporary))
    if starts := result.get("starts"):
        shown.append(show_starts(starts))
        facts["starts"] = {name: [asdict(one) for one in each] for name, each in starts.items()}
    if memory := result.get("memory"):
        shown.append(show_memory(memory))
        facts["memory"] = {name: asdict(one) for name, one in memory.items()}
    return Outcome(shown, {"official": runtime, **facts})
