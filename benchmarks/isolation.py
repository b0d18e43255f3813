"""What it would cost to have inference in a process of its own, to outlive a crash of its library.

`python -m benchmarks.isolation` runs our server with `tiny.en` as it is, and with a prototype that
opens the Transcriber in a child process and sends it the samples through a pipe. It compares the
time from audio-stop to transcript, the memory, and how long it takes after a kill -9 until a
command is answered again: of the child, or of the whole server, started again as a container's
restart policy does. A third way, a process that does nothing but start the server again, costs the
memory of its Python, which is shown as well.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import models, report
from benchmarks.client import say
from benchmarks.clips import Clip, ClipError, with_silence
from benchmarks.responsiveness import BUNDLED_CLIPS, short_clips
from benchmarks.servers import BenchmarkError
from benchmarks.watched import Watched
from wyoming_whisper.errors import TranscribeError
from wyoming_whisper.settings import Settings
from wyoming_whisper.transcriber import Samples, TranscribeOptions, Transcription

COMMANDS = 60
KILLS = 5
IN_PROCESS, IN_CHILD = "in the server", "in a child"
RECOVERY_SECONDS = 60.0


# -- the prototype -------------------------------------------------------------------------


class ChildTranscriber:
    """A Transcriber in a process of its own, which is started again when it has died."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._spawn = multiprocessing.get_context("spawn")
        self._start()

    def _start(self) -> None:
        self._pipe, theirs = self._spawn.Pipe()
        self._process = self._spawn.Process(
            target=_child, args=(self._settings, theirs), daemon=True
        )
        self._process.start()
        theirs.close()
        self.languages, self.description = self._pipe.recv()

    def transcribe(self, samples: Samples, options: TranscribeOptions) -> Transcription:
        try:
            self._pipe.send((samples, options))
            answer: Transcription = self._pipe.recv()
        except (EOFError, OSError) as error:
            self._start()
            raise TranscribeError("the process that transcribes has died") from error
        return answer

    def close(self) -> None:
        self._process.terminate()


def open_in_child(settings: Settings, status: object = None) -> ChildTranscriber:
    """Stand in for `backends.open_transcriber`."""
    return ChildTranscriber(settings)


def _child(settings: Settings, pipe: Connection) -> None:
    from wyoming_whisper.backends import open_transcriber

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    transcriber = open_transcriber(settings)
    pipe.send((transcriber.languages, transcriber.description))
    with contextlib.suppress(EOFError):
        while True:
            pipe.send(transcriber.transcribe(*pipe.recv()))


# -- measuring -----------------------------------------------------------------------------


def processes(pid: int) -> list[int]:
    """Return a process and all below it."""
    found = [pid]
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            found += processes(int(child))
    return found


def proportional_bytes(pids: Sequence[int]) -> int:
    """Return the memory of processes, what they share counted once (Pss)."""
    return sum(_pss(Path(f"/proc/{pid}/smaps_rollup").read_text()) for pid in pids)


def _pss(rollup: str) -> int:
    found = re.search(r"^Pss:\s+(\d+) kB$", rollup, re.MULTILINE)
    if found is None:
        raise BenchmarkError("the system does not say Pss")
    return 1024 * int(found[1])


@contextlib.contextmanager
def _servers(folder: Path) -> Iterator[dict[str, Watched]]:
    opens = {IN_PROCESS: "", IN_CHILD: "benchmarks.isolation:open_in_child"}
    with contextlib.ExitStack() as stack:
        found = {
            name: stack.enter_context(Watched(folder / str(number), *models.serving(), opens=what))
            for number, (name, what) in enumerate(opens.items())
        }
        for server in found.values():
            server.answering()
            server.ready()
        yield found


def measure(folder: Path, commands: int, kills: int) -> dict[str, Any]:
    """Return seconds of commands, bytes, and seconds until an answer after kills, by server."""
    clips = short_clips(BUNDLED_CLIPS)
    with _servers(folder) as servers:
        _say_in_turns(servers, clips, 4)  # nobody pays for being first
        waits = _say_in_turns(servers, clips, commands)
        memory = {name: _memory(server) for name, server in servers.items()}
        child = [_after_kill_of_child(servers[IN_CHILD], clips[0]) for _ in range(kills)]
    whole = [_after_kill_of_server(folder / f"again-{n}", clips[0]) for n in range(kills)]
    return {
        "commands": waits,
        "memory": memory,
        "recovery": {IN_PROCESS: whole, IN_CHILD: child},
        "waiting_python": _waiting_python(),
    }


def _say_in_turns(
    servers: dict[str, Watched], clips: Sequence[Clip], count: int
) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in servers}
    for number in range(count):
        samples = with_silence(clips[number % len(clips)].samples)
        for name in list(servers)[:: 1 if number % 2 else -1]:
            heard = asyncio.run(say(servers[name].uri, samples))
            if heard.error:
                raise BenchmarkError(f"{name}: {heard.error}")
            found[name].append(heard.seconds)
    return found


def _memory(server: Watched) -> int:
    return proportional_bytes(processes(server.pid))


def _after_kill_of_child(server: Watched, clip: Clip) -> float:
    children = processes(server.pid)[1:]
    start = time.perf_counter()
    for pid in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return _until_answered(server, clip, start)


def _after_kill_of_server(folder: Path, clip: Clip) -> float:
    with Watched(folder, *models.serving()) as killed:
        killed.answering()
        killed.ready()
        start = time.perf_counter()
        killed.send(signal.SIGKILL)
        killed.ended()
        with Watched(folder, *models.serving()) as again:
            return _until_answered(again, clip, start)


def _until_answered(server: Watched, clip: Clip, start: float) -> float:
    """Say the same command again and again, as people do; return the seconds it took."""
    while time.perf_counter() - start < RECOVERY_SECONDS:
        with contextlib.suppress(OSError):
            if not asyncio.run(say(server.uri, with_silence(clip.samples))).error:
                return time.perf_counter() - start
        time.sleep(0.02)
    raise BenchmarkError(f"no answer after a kill:\n{server.log[-2000:]}")


def _waiting_python() -> int:
    code = "import signal, subprocess, sys; print(flush=True); signal.pause()"
    with subprocess.Popen([sys.executable, "-I", "-c", code], stdout=subprocess.PIPE) as process:
        if process.stdout is None or not process.stdout.readline():
            raise BenchmarkError("a Python that waits does not start")
        found = proportional_bytes([process.pid])
        process.kill()
    return found


# -- the command ---------------------------------------------------------------------------


def show(found: dict[str, Any]) -> str:
    def row(name: str, values: Sequence[float], shown: Any = report.milliseconds) -> list[str]:
        return [name, *map(shown, values), f"{shown(values[1] - values[0])}"]

    commands, recovery = list(found["commands"].values()), list(found["recovery"].values())
    rows = [
        row("audio-stop to transcript, median", [median(values) for values in commands]),
        row("the same, 95 %", [report.percentile(values, 95) for values in commands]),
        row("memory of all its processes (Pss)", list(found["memory"].values()), report.megabytes),
        row("kill -9 to the next answer, median", [median(values) for values in recovery]),
        row("the same, slowest", [max(values) for values in recovery]),
    ]
    table = report.table(["inference runs", *found["commands"], "difference"], rows)
    waiting = report.megabytes(found["waiting_python"])
    return f"{table}\n\nA Python that only waits for another process: {waiting} (Pss)."


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--commands", type=int, default=COMMANDS, help=f"default: {COMMANDS}")
    parser.add_argument("--kills", type=int, default=KILLS, help=f"default: {KILLS}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there, too")
    args = parser.parse_args(argv)
    facts = report.machine()
    try:
        with tempfile.TemporaryDirectory() as folder:
            found = measure(Path(folder), args.commands, args.kills)
    except (BenchmarkError, ClipError) as error:
        print(f"benchmarks.isolation: {error}", file=sys.stderr)
        return 1
    print(report.machine_line(facts), show(found), sep="\n\n")
    report.write_json(args.json, {"machine": facts, **found})
    return 0


if __name__ == "__main__":
    sys.exit(main())
