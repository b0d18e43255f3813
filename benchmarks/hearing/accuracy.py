"""Word errors, commands understood, invented text, latency and memory of whole servers.

Every server hears every recording, over Wyoming, all of it sent at once and with the recording's
language. All servers of a model run side by side, but only one has work at a time; they take turns
recording by recording. A model hears what is in the languages that it was made for, and noise.
Servers:

official            the official server as it comes; -int8 and -vad give it that
ours                as it comes
ours-fw, ours-ort   on CTranslate2 and on onnxruntime; -full and -N set the window (N seconds)

What is understood is what Home Assistant's matcher makes of it (lib/understood.py).
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import re
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.lib.client import Heard, say
from benchmarks.lib.corpus import CLEAN, Recording, as_heard, chosen, condition
from benchmarks.lib.errors import BenchmarkError
from benchmarks.lib.official import install_official, official, ours
from benchmarks.lib.options import CORPUS, add, names
from benchmarks.lib.report import Outcome, progress
from benchmarks.lib.scores import NOISE, Report, Result, as_json, shown, tables
from benchmarks.lib.servers import Memory, Program, Server, prepare, running, turned
from wyoming_whisper.models.folder import ModelFolder
from wyoming_whisper.transcriber import Samples

SERVERS = ("ours-fw", "ours-ort", "ours-fw-full", "ours-fw-5", "ours-fw-3", "official")
NAME = re.compile(r"official(-int8)?(-vad)?|ours(-fw|-ort)?(-full|-\d+)?")
BACKENDS = {"-fw": "faster-whisper", "-ort": "onnxruntime"}
NO_LANGUAGE = "en"  # what noise is sent as: Home Assistant always names its assistant's
PROGRESS_EVERY = 25


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
        return official(options, name, *extra)
    extra += ["--backend", BACKENDS[backend]] if backend else []
    extra += ["--audio-context", window.lstrip("-")] if window else []
    return ours(options, name, *extra)


def languages(model: Path) -> tuple[str, ...]:
    """Return the languages that a model was made to hear. Raises ModelBrokenError."""
    return ModelFolder(model).languages(model.name)


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
            progress(f"{model.name}: first starts")
            prepare(programs, folder)
            with running(programs, folder) as servers:
                spoken = next((task for task in todo if task.recording.kind != NOISE), todo[0])
                for server in servers:  # the first command may have to wait for its model
                    server.transcribing(spoken.samples(), spoken.recording.lang or NO_LANGUAGE)
                results += transcribe_all(model.name, servers, todo, args.chunk_ms)
                memories |= {(model.name, one.name): one.memory() for one in servers}
    return Report(results, memories)


def transcribe_all(
    model: str, servers: Sequence[Server], todo: Sequence[Task], chunk_ms: int
) -> list[Result]:
    """Have every server hear every recording; who hears it first takes turns."""
    results = []
    start = time.monotonic()
    for number, task in enumerate(todo, 1):
        samples, one = task.samples(), task.recording
        for server in turned(servers, number):
            answer = _send(server, samples, one.lang, chunk_ms)
            results.append(_result(model, server.name, task, answer))
        if number % PROGRESS_EVERY == 0 or number == len(todo):
            elapsed = time.monotonic() - start
            progress(f"{model}: {number} of {len(todo)} recordings after {elapsed:.0f} s")
    order = {server.name: place for place, server in enumerate(servers)}
    return sorted(results, key=lambda one: order[one.server])


def _send(server: Server, samples: Samples, language: str, chunk_ms: int) -> Heard:
    asking = say(server.uri, samples, language=language or NO_LANGUAGE, chunk_ms=chunk_ms)
    return asyncio.run(asking)


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


# -- the suite -----------------------------------------------------------------------------


def add_options(parser: argparse.ArgumentParser) -> None:
    add(parser, *CORPUS, "--models", "--threads", "--beam-size", "--chunk-ms")
    add(parser, "--compute-type", default="default")
    parser.add_argument(
        "--servers",
        type=names,
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
    parser.add_argument("--show", action="store_true", help="print what went wrong, one by one")


def run(args: argparse.Namespace) -> Outcome:
    """Have all servers hear everything."""
    recordings = chosen(args)
    for name in args.servers:
        program(name, args, args.models[0])  # what is wrong with a name is said at once
    needs_official = any(name.startswith("official") for name in args.servers)
    runtime = install_official() if needs_official else {}
    outcome = _outcome(measure(args, recordings), args)
    return dataclasses.replace(outcome, facts={"official": runtime, **outcome.facts})


def _outcome(result: Report, args: argparse.Namespace) -> Outcome:
    wrong = ["\n".join(shown(result.results))] if args.show else []
    return Outcome([*tables(result), *wrong], as_json(result))
