"""Word errors, commands understood, invented text, latency and memory of whole servers.

`python -m benchmarks.hearing.accuracy --corpus DIR --models base,tiny.en` has every server hear every
recording, over Wyoming, all of it sent at once and with the recording's language. All servers of a
model run side by side, but only one has work at a time; they take turns recording by recording.
A model hears what is in the languages that it was made for, and noise. Servers:

official            the official server as it comes; -int8 and -vad give it that
ours                as it comes
ours-fw, ours-ort   on CTranslate2 and on onnxruntime; -full and -N set the window (N seconds)

What is understood is what Home Assistant's matcher makes of it (benchmarks.lib.understood).
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.lib import models, report
from benchmarks.lib.client import Heard, say
from benchmarks.lib.clips import ClipError
from benchmarks.lib.corpus import (
    CLEAN,
    Recording,
    add_corpus_arguments,
    as_heard,
    chosen,
    condition,
)
from benchmarks.lib.scores import NOISE, Report, Result, as_json, read_json, shown, tables
from benchmarks.lib.servers import (
    BenchmarkError,
    Memory,
    Program,
    Server,
    asked,
    install_official,
    official,
    ours,
    running,
)
from benchmarks.lib.understood import HomeError
from wyoming_whisper.errors import AudioError, ModelError
from wyoming_whisper.machine import physical_cores
from wyoming_whisper.models import model_languages
from wyoming_whisper.transcriber import Samples

SERVERS = ("ours-fw", "ours-ort", "ours-fw-full", "ours-fw-5", "ours-fw-3", "official")
NAME = re.compile(r"official(-int8)?(-vad)?|ours(-fw|-ort)?(-full|-\d+)?")
BACKENDS = {"-fw": "faster-whisper", "-ort": "onnxruntime"}
NO_LANGUAGE = "en"  # what noise is sent as: Home Assistant always names its assistant's
PROGRESS_EVERY = 25
BUILD_SECONDS = 600.0


# -- servers -------------------------------------------------------------------------------


def program(name: str, args: argparse.Namespace, model: Path) -> Program:
    """Return the server of a name, as in NAME."""
    options = argparse.Namespace(
        model=model, threads=args.threads, beam_size=args.beam_size, compute_type=args.compute_type
    )
    # The last wins: every recording comes with its language, and the options can't know them.
    extra = ["--language", "en" if languages(model) == ("en",) else "auto"]
    if args.prompt:
        extra += ["--initial-prompt", args.prompt]
    found = NAME.fullmatch(name)
    if found is None:
        raise BenchmarkError(f"there is no server {name!r}: names are such as {', '.join(SERVERS)}")
    int8, vad, backend, window = found.groups()
    if name.startswith("official"):
        extra += ["--compute-type", "int8"] if int8 else []
        extra += ["--vad-filter"] if vad else []
        its = official(options)
        return dataclasses.replace(its, name=name, command=(*its.command, *extra))
    extra += ["--backend", BACKENDS[backend]] if backend else []
    extra += ["--audio-context", window.lstrip("-")] if window else []
    return ours(options, name, *extra)


def languages(model: Path) -> tuple[str, ...]:
    """Return the languages that a model was made to hear. Raises ModelBrokenError."""
    return model_languages(model.name, model)


def build_graphs(args: argparse.Namespace, model: Path, folder: Path) -> None:
    """Have onnxruntime's graphs written, so that no server measured did it. Raises BenchmarkError.

    The memory that building takes would count as the server's.
    """
    command = [sys.executable, "-m", "wyoming_whisper", "engine", "build"]
    command += ["--backend", "onnxruntime", "--model", str(model.resolve()), "--local-files-only"]
    command += ["--data-dir", str(folder), "--compute-type", args.compute_type]
    command += ["--cpu-threads", str(args.threads), "--beam-size", str(args.beam_size)]
    print(f"{model.name}: writing the graphs for onnxruntime", file=sys.stderr, flush=True)
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=BUILD_SECONDS)
    except subprocess.CalledProcessError as error:
        raise BenchmarkError(f"{model.name} can't be built:\n{error.stderr[-2000:]}") from error
    except subprocess.TimeoutExpired as error:
        raise BenchmarkError(f"{model.name} is not built in {BUILD_SECONDS:g} s") from error


# -- running -------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Task:
    """One recording as it is sent."""

    recording: Recording
    condition: str
    label: str
    """The condition, and whether there is a prompt."""

    def samples(self) -> Samples:
        return as_heard(self.recording, self.condition)


def tasks(
    recordings: Sequence[Recording],
    conditions: Sequence[str],
    known: Sequence[str],
    prompt: str | None = None,
) -> list[Task]:
    """Return what a model's servers hear: what is in the languages that it knows, and noise.

    That is heard once, it stays as it is. A language that a model was not made for is no figure of
    any server: one refuses it, the other writes pages.
    """
    return [
        Task(one, name, f"{name}, prompt" if prompt else name)
        for name in conditions
        for one in recordings
        if one.lang in ("", *known)
        if one.kind != NOISE or name == conditions[0]
    ]


def measure(args: argparse.Namespace, recordings: Sequence[Recording]) -> Report:
    """Have the servers of all models hear everything. Raises BenchmarkError, AudioError."""
    results: list[Result] = []
    memories: dict[tuple[str, str], Memory] = {}
    for model in args.models:
        todo = tasks(recordings, args.condition or [CLEAN], languages(model), args.prompt)
        if not todo:
            raise BenchmarkError(f"{model.name} knows the language of no recording")
        programs = [program(name, args, model) for name in args.servers]
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            if any("onnxruntime" in one.command for one in programs):
                build_graphs(args, model, folder)
            with running(programs, folder) as servers:
                _warm_up(servers, todo)
                results += transcribe_all(model.name, servers, todo, args.chunk_ms)
                memories |= {(model.name, one.name): one.memory() for one in servers}
    return Report(results, memories)


def _warm_up(servers: Sequence[Server], todo: Sequence[Task]) -> None:
    """Have each server answer once: the first command may have to wait for its model."""
    spoken = next((task for task in todo if task.recording.kind != NOISE), todo[0])
    for server in servers:
        answer = _send(server, spoken.samples(), spoken.recording.lang, 10)
        if answer.error:
            raise BenchmarkError(f"{server.name}: {answer.error}")


def transcribe_all(
    model: str, servers: Sequence[Server], todo: Sequence[Task], chunk_ms: int
) -> list[Result]:
    """Have every server hear every recording; who hears it first takes turns."""
    results = []
    start = time.monotonic()
    for number, task in enumerate(todo, 1):
        samples, one = task.samples(), task.recording
        for place in range(len(servers)):
            server = servers[(number + place) % len(servers)]
            answer = _send(server, samples, one.lang, chunk_ms)
            results.append(_result(model, server.name, task, answer))
        if number % PROGRESS_EVERY == 0 or number == len(todo):
            elapsed = time.monotonic() - start
            told = f"{model}: {number} of {len(todo)} recordings after {elapsed:.0f} s"
            print(told, file=sys.stderr, flush=True)
    order = {server.name: place for place, server in enumerate(servers)}
    return sorted(results, key=lambda one: order[one.server])


def _send(server: Server, samples: Samples, language: str, chunk_ms: int) -> Heard:
    """Return what a server makes of a recording; one that has died fails it, not the run."""
    start = time.perf_counter()
    try:
        return asyncio.run(
            say(server.uri, samples, language=language or NO_LANGUAGE, chunk_ms=chunk_ms)
        )
    except OSError as error:
        return Heard("", time.perf_counter() - start, str(error) or type(error).__name__)


def _result(model: str, server: str, task: Task, answer: Heard) -> Result:
    one = task.recording
    return Result(
        model=model,
        condition=task.label,
        server=server,
        file=one.file,
        lang=one.lang,
        kind=one.kind,
        said=one.text or "",
        written=" ".join(answer.text.split()),
        seconds=round(answer.seconds, 4),
        error=answer.error,
    )


# -- the command ---------------------------------------------------------------------------


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks.hearing.accuracy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_corpus_arguments(parser)
    parser.add_argument(
        "--models",
        type=_models,
        default=models.BASE,
        metavar="LIST",
        help=f"stock models' names, or folders of models (default: {models.BASE})",
    )
    parser.add_argument(
        "--servers",
        type=lambda text: tuple(text.split(",")),
        default=SERVERS,
        metavar="LIST",
        help=f"the first is what the others are set beside (default: {','.join(SERVERS)})",
    )
    parser.add_argument(
        "--condition",
        type=condition,
        action="append",
        metavar="NAME",
        help="clean, noiseN (N dB below the speech), quietN (speech at -N dB); repeatable",
    )
    parser.add_argument("--prompt", metavar="TEXT", help="initial prompt of all servers")
    parser.add_argument("--threads", type=int, default=physical_cores(), help="of each server")
    parser.add_argument(
        "--beam-size", type=int, default=0, help="of each server (default: what each chooses)"
    )
    parser.add_argument("--compute-type", default="default", help="the same")
    parser.add_argument("--chunk-ms", type=int, default=10, help="audio in each event")
    parser.add_argument("--show", action="store_true", help="print what went wrong, one by one")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there, too")
    parser.add_argument(
        "--read",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="print the tables of such files again, together; nothing is measured",
    )
    return parser.parse_args(argv)


def _models(text: str) -> tuple[Path, ...]:
    return tuple(models.model_folder(name) for name in text.split(","))


def _read(files: Sequence[Path]) -> Report:
    results: list[Result] = []
    memories: dict[tuple[str, str], Memory] = {}
    for file in files:
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise BenchmarkError(f"{file} can't be read: {error}") from error
        found = read_json(content, str(file))
        results += found.results
        memories |= found.memories
    return Report(results, memories)


def _measured(args: argparse.Namespace) -> Report:
    """Measure, and write what was found."""
    facts = report.machine()
    recordings = chosen(args)
    for name in args.servers:
        program(name, args, args.models[0])  # what is wrong with a name is said at once
    needs_official = any(name.startswith("official") for name in args.servers)
    runtime = install_official() if needs_official else {}
    found = measure(args, recordings)
    head = {"machine": facts, "official": runtime, "asked": asked(args)}
    report.write_json(args.json, {**head, **as_json(found)})
    print(report.machine_line(facts), end="\n\n")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    args = _arguments(argv)
    try:
        found = _read(args.read) if args.read else _measured(args)
        print(*tables(found), sep="\n\n")
        if args.show:
            print("", *shown(found.results), sep="\n")
    except (BenchmarkError, ClipError, AudioError, HomeError, ModelError) as error:
        print(f"benchmarks.hearing.accuracy: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
