"""Our server as a process that is watched, and told to suffer.

`python -m benchmarks.lib.watched [--open MODULE:FUNCTION] FLAGS` is `wyoming-whisper FLAGS`, which on
SIGUSR1 writes its number of tasks; with `--open` that function stands in for
`backends.open_transcriber`. `Watched` is such a process, seen from outside.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.lib.client import describe
from benchmarks.lib.servers import ROOT, BenchmarkError, read_memory
from wyoming_whisper import __main__ as commands
from wyoming_whisper import backends
from wyoming_whisper.transcriber import Samples, TranscribeOptions, Transcription

TASKS = "tasks: "
"""Begins the line that SIGUSR1 is answered with, on stderr."""

START_SECONDS = 120.0  # only a server that hangs takes so long to answer, or to end
END_SECONDS = 30.0
POLL_SECONDS = 0.02

_TROUBLE = re.compile(
    r"^(?:Traceback|ERROR|CRITICAL|.*\b(?:never retrieved|never awaited|was destroyed))",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Counts:
    """What a process holds at one moment."""

    resident: int
    """Bytes in RAM (VmRSS)."""

    descriptors: int
    threads: int
    tasks: int
    """Of asyncio."""

    def left_behind(self, before: Counts) -> dict[str, int]:
        """Return how many more are held than `before`."""
        return {
            "descriptors": self.descriptors - before.descriptors,
            "tasks": self.tasks - before.tasks,
        }


class Watched:
    """One server process; leaving its block kills it if it still runs."""

    def __init__(
        self,
        folder: Path,
        *flags: str,
        uri: str = "",
        opens: str = "",
        before: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`uri` is a socket in `folder` by default; `before` is a command that runs the rest."""
        folder.mkdir(parents=True, exist_ok=True)
        self.uri = uri or f"unix://{folder}/socket"
        self._log = folder / "server.log"
        self._others = self._log.stat().st_size if self._log.exists() else 0  # before this process
        command = [*before, sys.executable, "-m", "benchmarks.lib.watched"]
        command += ["--open", opens] if opens else []
        command += ["--uri", self.uri, "--log-format", "%(levelname)s %(message)s", *flags]
        if "--data-dir" not in flags:
            command += ["--data-dir", str(folder)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env={**_environment(), **(environment or {})},
            )

    def __enter__(self) -> Watched:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self.send(signal.SIGCONT)
            self.send(signal.SIGKILL)
        self._process.wait()

    @property
    def log(self) -> str:
        """All that this process has written so far."""
        return self._log.read_bytes()[self._others :].decode(errors="replace")

    @property
    def trouble(self) -> list[str]:
        """What the log has of exceptions that nobody handled, and of errors."""
        return _TROUBLE.findall(self.log)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, number)

    def answering(self) -> float:
        """Wait until `describe` is answered; return the seconds waited. Raises BenchmarkError."""
        start = time.perf_counter()
        while time.perf_counter() - start < START_SECONDS and self.alive:
            with contextlib.suppress(OSError):
                asyncio.run(describe(self.uri))
                return time.perf_counter() - start
            time.sleep(POLL_SECONDS)
        raise BenchmarkError(f"the server does not answer:\n{self.log[-2000:]}")

    def ready(self) -> float:
        """Wait until the model is loaded; return the seconds waited. Raises BenchmarkError."""
        start = time.perf_counter()
        while time.perf_counter() - start < START_SECONDS and self.alive:
            if re.search(r"^INFO ready$", self.log, re.MULTILINE):
                return time.perf_counter() - start
            time.sleep(POLL_SECONDS)
        raise BenchmarkError(f"the server is not ready:\n{self.log[-2000:]}")

    def counts(self) -> Counts:
        """Return what it holds now. Raises BenchmarkError when it doesn't answer the signal."""
        proc = Path("/proc") / str(self._process.pid)
        status = (proc / "status").read_text()
        found = re.search(r"^Threads:\s+(\d+)$", status, re.MULTILINE)
        return Counts(
            resident=read_memory(status, (proc / "smaps_rollup").read_text()).resident,
            descriptors=len(list((proc / "fd").iterdir())),
            threads=int(found[1]) if found else 0,
            tasks=self._tasks(),
        )

    def processor_seconds(self) -> float:
        """Return the processor time it took so far, of all its threads."""
        fields = (Path("/proc") / str(self.pid) / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # user, system

    def ended(self, seconds: float = END_SECONDS) -> int:
        """Wait for the end; return the exit status. Raises BenchmarkError if there is none."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise BenchmarkError(f"the server does not end:\n{self.log[-2000:]}") from error

    def stopped(self) -> int:
        """Send SIGTERM; return the exit status."""
        self.send(signal.SIGTERM)
        return self.ended()

    def _tasks(self) -> int:
        before = self._told()
        self.send(signal.SIGUSR1)
        start = time.perf_counter()
        while time.perf_counter() - start < END_SECONDS:
            if len(told := self._told()) > len(before):
                return int(told[-1])
            time.sleep(POLL_SECONDS)
        raise BenchmarkError("the server does not tell its number of tasks")

    def _told(self) -> list[str]:
        return re.findall(rf"{TASKS}(\d+)\n", self.log)


def free_port() -> int:
    """Return a port of 127.0.0.1 on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _environment() -> dict[str, str]:
    """Return the environment without the user's own options, or tokens."""
    ours = ("WYO_WHISPER_", "WYOMING_WHISPER_", "HF_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


# -- inside --------------------------------------------------------------------------------


class Standin:
    """A Transcriber that answers at once with what it was given."""

    languages = ("en",)
    description = "a stand-in"

    def transcribe(self, samples: Samples, options: TranscribeOptions) -> Transcription:
        return Transcription(f"{len(samples)} samples", options.language)

    def close(self) -> None:
        pass


def standin(*_: Any, **__: Any) -> Standin:
    """Stand in for `backends.open_transcriber`."""
    return Standin()


def _tell(*_: Any) -> None:
    # Not through sys.stderr: a signal may come while that is being written.
    os.write(2, f"{TASKS}{len(asyncio.all_tasks())}\n".encode())


def main(argv: list[str]) -> int:
    """Serve."""
    if argv[:1] == ["--open"]:
        module, _, name = argv[1].partition(":")
        backends.open_transcriber = getattr(importlib.import_module(module), name)
        argv = argv[2:]
    signal.signal(signal.SIGUSR1, _tell)
    return commands.main(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
