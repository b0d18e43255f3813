"""How soon a server listens, answers and transcribes, and the memory it takes, side by side.

`python -m benchmarks.speed.responsiveness` measures four things, of ours and of the official server:

starts    from the process's start to its first accepted connection, info and transcript
memory    of the serving process after some commands
describe  from a new connection to the info, while another connection's audio is transcribed
commands  from audio-stop to transcript of short commands, sent all at once
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.lib import report
from benchmarks.lib.client import describe, say
from benchmarks.lib.clips import Clip, ClipError, read_clips, with_silence
from benchmarks.lib.servers import (
    ROOT,
    BenchmarkError,
    Memory,
    Program,
    Server,
    add_arguments,
    asked,
    install_official,
    official,
    ours,
    running,
    started,
)
from wyoming_whisper.transcriber import SAMPLE_RATE, Samples

BUNDLED_CLIPS = ROOT / "tests" / "audio"
SHORT_SECONDS = 8.0  # a command; longer clips are something else
LONG_SECONDS = 25.0  # of the audio that a server works on while it is asked for its info
PROBE_SECONDS = 0.05  # between two questions

Shown = Callable[[float], str]


@dataclass(frozen=True)
class Start:
    """Seconds from the start of the process."""

    listening: float
    info: float
    transcript: float


@dataclass(frozen=True)
class Answers:
    """How long describe took, and what went on meanwhile."""

    seconds: list[float]
    transcriptions: list[float]
    """Seconds of each, sending included; none for an idle server."""


# -- (a) starts ----------------------------------------------------------------------------


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
    with started(program, folder) as server:
        listening = server.listening()
        asyncio.run(describe(server.uri))
        info = time.perf_counter() - server.started
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


# -- (b) memory ----------------------------------------------------------------------------


def measure_memory(
    servers: Sequence[Server], clips: Sequence[Clip], count: int, chunk_ms: int
) -> dict[str, Memory]:
    """Return what each server takes after `count` commands."""
    _say_in_turns(servers, clips, count, chunk_ms)
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


# -- (c) describe --------------------------------------------------------------------------


def measure_describe(
    servers: Sequence[Server], long: Samples, seconds: float, rounds: int, folder: Path
) -> dict[str, dict[str, Answers]]:
    """Ask each server in turn for its info: while it is idle, and while it transcribes."""
    audio = folder / "long.npy"
    np.save(audio, long)
    found = {server.name: {"idle": Answers([], []), "busy": Answers([], [])} for server in servers}
    for _ in range(rounds):
        for server in servers:
            found[server.name]["idle"].seconds.extend(_ask_for(server, seconds / 4))
            busy = found[server.name]["busy"]
            answers = _ask_while_busy(server, audio, seconds)
            busy.seconds.extend(answers.seconds)
            busy.transcriptions.extend(answers.transcriptions)
    return found


def _ask_for(server: Server, seconds: float) -> list[float]:
    found: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or not found:
        found.append(asyncio.run(describe(server.uri)))
        time.sleep(PROBE_SECONDS)
    return found


def _ask_while_busy(server: Server, audio: Path, seconds: float) -> Answers:
    command = [
        sys.executable,
        "-m",
        "benchmarks.lib.load",
        "--uri",
        server.uri,
        "--audio",
        str(audio),
    ]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as load:
        if load.stdin is None or load.stdout is None or not load.stdout.readline():
            raise BenchmarkError(f"{server.name} transcribes nothing")
        found = _ask_for(server, seconds)
        rest, _ = load.communicate()  # closes its stdin: after the transcript at hand it ends
    if load.returncode:
        raise BenchmarkError(f"{server.name} stopped transcribing")
    return Answers(found, [float(line) for line in rest.split()])


def long_audio(clips: Sequence[Clip], seconds: float = LONG_SECONDS) -> Samples:
    """Return commands one after the other, until they fill `seconds`."""
    length, parts, have = round(seconds * SAMPLE_RATE), [], 0
    for clip in itertools.cycle(clips):
        parts.append(with_silence(clip.samples))
        have += len(parts[-1])
        if have >= length:
            return np.concatenate(parts)[:length]
    raise ClipError("no clips")


def show_describe(found: dict[str, dict[str, Answers]]) -> str:
    rows = []
    for state in ("idle", "busy"):
        values = [answers[state].seconds for answers in found.values()]
        for name, percent in (("median", 50), ("95 %", 95), ("slowest", 100)):
            row = _compared([report.percentile(v, percent) for v in values])
            rows.append([f"describe, {state}, {name}", *row])
    busy = [answers["busy"] for answers in found.values()]
    counts = [str(len(answers.seconds)) for answers in busy]
    transcriptions = [str(len(answers.transcriptions)) for answers in busy]
    rows.append(["questions while busy", *_uncompared(counts)])
    rows.append(["transcriptions meanwhile", *_uncompared(transcriptions)])
    if all(answers.transcriptions for answers in busy):
        each = [median(answers.transcriptions) for answers in busy]
        rows.append(["one transcription, median", *_compared(each)])
    return _table(found, rows)


# -- (d) commands --------------------------------------------------------------------------


def measure_commands(
    servers: Sequence[Server], clips: Sequence[Clip], count: int, chunk_ms: int
) -> dict[str, list[float]]:
    """Return the seconds of `count` commands for each server, in the same order for all."""
    _say_in_turns(servers, clips, 2, chunk_ms)  # nobody pays for being first
    return _say_in_turns(servers, clips, count, chunk_ms)


def _say_in_turns(
    servers: Sequence[Server], clips: Sequence[Clip], count: int, chunk_ms: int
) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {server.name: [] for server in servers}
    for number in range(count):
        samples = with_silence(clips[number % len(clips)].samples)
        for place in range(len(servers)):
            server = servers[(number + place) % len(servers)]
            heard = asyncio.run(say(server.uri, samples, chunk_ms=chunk_ms))
            if heard.error:
                raise BenchmarkError(f"{server.name}: {heard.error}")
            found[server.name].append(heard.seconds)
    return found


def show_commands(found: dict[str, list[float]]) -> str:
    rows = [
        [f"audio-stop to transcript, {name}", *_compared(values)]
        for name, values in (
            ("median", [median(seconds) for seconds in found.values()]),
            ("95 %", [report.percentile(seconds, 95) for seconds in found.values()]),
        )
    ]
    if len(found) > 1:
        first, second = found.values()
        ratios = [theirs / mine for mine, theirs in zip(first, second, strict=True)]
        rows.append(["the same command, median ratio", "", "", f"{median(ratios):.2f}x"])
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


# -- the command ---------------------------------------------------------------------------

PARTS = ("starts", "memory", "describe", "commands")


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("parts", nargs="*", metavar="PART", help="default: all four")
    parser.add_argument(
        "--clips", type=Path, default=BUNDLED_CLIPS, metavar="DIR", help="default: tests/audio"
    )
    parser.add_argument("--starts", type=int, default=10, help="of each server (default: 10)")
    parser.add_argument(
        "--utterances", type=int, default=20, help="before memory is read (default: 20)"
    )
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="of describes, per server and round"
    )
    parser.add_argument("--rounds", type=int, default=3, help="of describes (default: 3)")
    parser.add_argument("--commands", type=int, default=60, help="for each server (default: 60)")
    args = parser.parse_args(argv)
    for part in args.parts:
        if part not in PARTS:
            parser.error(f"{part!r} is none of {', '.join(PARTS)}")
    args.parts = args.parts or list(PARTS)
    return args


def short_clips(folder: Path) -> list[Clip]:
    """Return the clips that are short commands in quiet. Raises ClipError where none is."""
    clips = [
        clip
        for clip in read_clips(folder)
        if clip.text and clip.kind != "noisy" and len(clip.samples) < SHORT_SECONDS * SAMPLE_RATE
    ]
    if not clips:
        raise ClipError(f"{folder} holds no short commands")
    return clips


def measure(args: argparse.Namespace, programs: Sequence[Program], folder: Path) -> dict[str, Any]:
    """Return what each part found, by its name."""
    clips, found = short_clips(args.clips), dict[str, Any]()
    if "starts" in args.parts:
        found["starts"] = measure_starts(programs, clips, args.starts, folder)
    with running(programs, folder) as servers:
        if "memory" in args.parts:  # before anything else could have made them grow
            found["memory"] = measure_memory(servers, clips, args.utterances, args.chunk_ms)
        if "commands" in args.parts:
            found["commands"] = measure_commands(servers, clips, args.commands, args.chunk_ms)
        if "describe" in args.parts:
            long = long_audio(clips)
            found["describe"] = measure_describe(servers, long, args.seconds, args.rounds, folder)
    return found


SHOWN: dict[str, Callable[[Any], str]] = {
    "starts": show_starts,
    "memory": show_memory,
    "describe": show_describe,
    "commands": show_commands,
}


def as_json(found: Any) -> Any:
    """Return dataclasses in dictionaries and lists as plain values."""
    if isinstance(found, dict):
        return {name: as_json(value) for name, value in found.items()}
    if isinstance(found, list):
        return [as_json(value) for value in found]
    return found if isinstance(found, float | int | str) else asdict(found)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    args = _arguments(argv)
    facts = report.machine()
    try:
        runtime = {} if args.no_official else install_official()
        programs = [ours(args), *([] if args.no_official else [official(args)])]
        with tempfile.TemporaryDirectory() as temporary:
            found = measure(args, programs, Path(temporary))
    except (BenchmarkError, ClipError) as error:
        print(f"benchmarks.speed.responsiveness: {error}", file=sys.stderr)
        return 1
    print(report.machine_line(facts), *(SHOWN[part](found[part]) for part in found), sep="\n\n")
    written = {"machine": facts, "official": runtime, "asked": asked(args), **as_json(found)}
    report.write_json(args.json, written)
    return 0


if __name__ == "__main__":
    sys.exit(main())
