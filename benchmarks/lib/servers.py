"""Servers as processes, seen from outside: started, waited for, measured, made to suffer, ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.lib import models, report
from benchmarks.lib.client import describe, say
from benchmarks.lib.errors import BenchmarkError
from wyoming_whisper.transcriber import Samples

T = TypeVar("T")
S = TypeVar("S", bound="Server")

ROOT = Path(__file__).parents[2]

START_SECONDS = 300.0  # only a server that hangs takes so long to listen, or to end
END_SECONDS = 30.0
POLL_SECONDS = 0.02

# What our server logs.
READY = re.compile(r"^INFO(:[\w.]+:| )ready$", re.MULTILINE)
UNDECIDED = " has its engine\n"
DECIDED = ("from now on the engine answers", "goes on to answer", "there is no engine until")

TASKS = "tasks: "
"""Begins the line that SIGUSR1 is answered with, on stderr: see inside.py."""

_TROUBLE = re.compile(
    r"^(?:Traceback|ERROR|CRITICAL|.*\b(?:never retrieved|never awaited|was destroyed))",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Program:
    """How a server is started."""

    name: str
    """Heads its column."""

    command: tuple[str, ...]
    """All but the address to listen on, and the folder for its data."""

    is_ours: bool = False


class Server:
    """One server process; leaving its block ends it. `started` is of time.perf_counter's clock."""

    def __init__(
        self,
        program: Program,
        folder: Path,
        uri: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`uri` is a free port of 127.0.0.1 by default; `folder` has its data and its log."""
        folder.mkdir(parents=True, exist_ok=True)
        self.name = program.name
        self.uri = uri or f"tcp://127.0.0.1:{free_port()}"
        self._is_ours = program.is_ours
        self._log = folder / f"{re.sub(r'[^a-z0-9]+', '-', program.name)}.log"
        self._before = self._log.stat().st_size if self._log.exists() else 0  # of others
        command = [*program.command, "--uri", self.uri]
        if "--data-dir" not in command:
            command += ["--data-dir", str(folder)]
        with self._log.open("ab") as log:
            self.started = time.perf_counter()
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=ROOT, env=_environment(environment or {})
            )

    def __enter__(self: S) -> S:
        return self

    def __exit__(self, *_: object) -> None:
        self.send(signal.SIGTERM)
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.send(signal.SIGKILL)
            self._process.wait()

    # -- waiting ---------------------------------------------------------------------------

    def listening(self) -> float:
        """Wait until a connection is accepted; return the seconds since the start."""
        return self.until_open(int(self.uri.rpartition(":")[2]))

    def until_open(self, port: int) -> float:
        """Wait until a port of this machine is open; return the seconds since the start."""

        def accepts() -> bool:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port)).close()
                return True
            return False

        return self._until(accepts, "does not listen", poll_seconds=0.002)

    def answering(self) -> float:
        """Wait until `describe` is answered; return the seconds since the start."""

        def answers() -> bool:
            with contextlib.suppress(OSError):
                asyncio.run(describe(self.uri))
                return True
            return False

        return self._until(answers, "does not answer")

    def transcribing(self, samples: Samples, language: str = "en") -> float:
        """Wait until a command is answered, all at once; return the seconds since the start.

        Raises BenchmarkError where no transcript comes.
        """
        answer = asyncio.run(say(self.uri, samples, language=language))
        if answer.error:
            raise BenchmarkError(f"{self.name}: {answer.error}")
        return time.perf_counter() - self.started

    def ready(self) -> float:
        """Wait until our server's model is loaded; return the seconds since the start."""
        return self._until(lambda: READY.search(self.log), "is not ready")

    def settle(self) -> None:
        """Wait until our server has decided what answers from now on, which it logs.

        At a model's first start it makes the graphs for onnxruntime, and compares.
        """
        if self._is_ours:
            self.ready()
            self._until(
                lambda: UNDECIDED not in self.log or any(line in self.log for line in DECIDED),
                "does not decide what answers",
            )

    def until_logged(self, line: str) -> None:
        """Wait until our server has logged a line with this in it. Raises BenchmarkError."""
        self._until(lambda: line in self.log, f"does not log {line!r}")

    def _until(
        self, reached: Callable[[], object], problem: str, poll_seconds: float = POLL_SECONDS
    ) -> float:
        deadline = time.perf_counter() + START_SECONDS
        while time.perf_counter() < deadline and self.alive:
            if reached():
                return time.perf_counter() - self.started
            time.sleep(poll_seconds)
        raise BenchmarkError(f"{self.name} {problem}:\n{self.log[-2000:]}")

    # -- what it is and holds --------------------------------------------------------------

    @property
    def log(self) -> str:
        """All that this process has written so far."""
        return self._log.read_bytes()[self._before :].decode(errors="replace")

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

    def check(self) -> None:
        """Raise BenchmarkError if the server has ended: nothing more can be read of it."""
        if not self.alive:
            status = self._process.returncode
            raise BenchmarkError(f"{self.name} ended with {status}:\n{self.log[-2000:]}")

    def memory(self) -> Memory:
        """Return what the process takes of the machine's memory now."""
        return read_memory(self._proc("status"))

    def processor_seconds(self) -> float:
        """Return the processor time of all threads so far, the kernel's work included."""
        return read_processor_seconds(self._proc("stat"), os.sysconf("SC_CLK_TCK"))

    def _proc(self, file: str) -> str:
        return (Path("/proc") / str(self.pid) / file).read_text()

    # -- ending ----------------------------------------------------------------------------

    def send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, number)

    def ended(self, seconds: float = END_SECONDS) -> int:
        """Wait for the end; return the exit status. Raises BenchmarkError if there is none."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise BenchmarkError(f"{self.name} does not end:\n{self.log[-2000:]}") from error

    def stopped(self) -> int:
        """Send SIGTERM; return the exit status."""
        self.send(signal.SIGTERM)
        return self.ended()


class Watched(Server):
    """Our server with a way to look inside: it is run by inside.py. Its block ends with a kill."""

    def __init__(
        self,
        folder: Path,
        *flags: str,
        uri: str = "",
        opens: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`uri` is a socket in `folder` by default; `opens` is what stands in for the model."""
        command = [sys.executable, "-m", "benchmarks.lib.inside"]
        command += ["--open", opens] if opens else []
        command += ["--log-format", "%(levelname)s %(message)s", *flags]
        program = Program("server", tuple(command), is_ours=True)
        super().__init__(program, folder, uri or f"unix://{folder}/socket", environment)

    def __exit__(self, *_: object) -> None:
        if self.alive:
            self.send(signal.SIGKILL)
        self._process.wait()

    def counts(self) -> Counts:
        """Return what it holds now. Raises BenchmarkError when it doesn't answer the signal."""
        threads = re.search(r"^Threads:\s+(\d+)$", self._proc("status"), re.MULTILINE)
        return Counts(
            resident=self.memory().resident,
            descriptors=len(list((Path("/proc") / str(self.pid) / "fd").iterdir())),
            threads=int(threads[1]) if threads else 0,
            tasks=self._tasks(),
        )

    def remains(self, before: Counts, settle_seconds: float = 5.0) -> Remains:
        """Stop it; return what it held more than `before`, which it had so long to let go."""
        self.answering()
        deadline = time.monotonic() + settle_seconds
        while any((after := self.counts()).left_behind(before).values()):
            if time.monotonic() > deadline:
                break
            time.sleep(POLL_SECONDS)
        growth, leaked = after.resident - before.resident, after.left_behind(before)
        return Remains(growth, leaked, self.stopped(), self.trouble)

    def _tasks(self) -> int:
        def answers() -> list[str]:
            return re.findall(rf"{TASKS}(\d+)\n", self.log)

        before = len(answers())
        self.send(signal.SIGUSR1)
        self._until(lambda: len(answers()) > before, "does not tell its number of tasks")
        return int(answers()[-1])


@contextlib.contextmanager
def watched(folder: Path, *flags: str, **how: Any) -> Iterator[Watched]:
    """Run our server with `tiny.en`, and these flags, until the block ends; it is ready."""
    model = ("--model", "tiny", "--language", "en") if how.get("opens") else models.serving()
    with Watched(folder, *model, *flags, **how) as server:
        server.answering()
        server.ready()
        yield server


def prepare(programs: Sequence[Program], folder: Path) -> None:
    """Start each of ours once, until it has made what its model lacks and decided what answers.

    That is once, at a model's first start, and needs memory that would count as the server's.
    """
    for program in programs:
        if program.is_ours:
            with Server(program, folder) as server:
                server.settle()


@contextlib.contextmanager
def running(programs: Sequence[Program], folder: Path) -> Iterator[list[Server]]:
    """Run servers side by side until the block ends; all of them listen, and have settled."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(Server(program, folder)) for program in programs]
        for server in servers:
            server.listening()
            server.settle()
        yield servers


def free_port() -> int:
    """Return a port of 127.0.0.1 on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def turned(items: Sequence[T], number: int) -> list[T]:
    """Return the items, beginning with another one each time: no server is always first."""
    start = number % len(items)
    return [*items[start:], *items[:start]]


def _environment(changes: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without the user's own options for either server, or tokens."""
    own = ("WYO_WHISPER_", "WYOMING_WHISPER_", "HF_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    return {**kept, **changes}


# -- what a process holds ------------------------------------------------------------------


@dataclass(frozen=True)
class Memory:
    """Bytes of one process."""

    resident: int
    """In RAM (VmRSS)."""

    peak: int
    """The most that were ever in RAM (VmHWM)."""

    own: int
    """Of the resident, what is the process's alone and in no file (RssAnon)."""


def read_memory(status: str) -> Memory:
    """Read /proc/PID/status."""
    return Memory(
        resident=_kilobytes(status, "VmRSS"),
        peak=_kilobytes(status, "VmHWM"),
        own=_kilobytes(status, "RssAnon"),
    )


def _kilobytes(text: str, name: str) -> int:
    value = re.search(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)
    if value is None:
        raise BenchmarkError(f"the system does not say {name}")
    return 1024 * int(value[1])


def read_processor_seconds(stat: str, ticks_per_second: int) -> float:
    """Read utime and stime of /proc/PID/stat; the name before them may hold anything."""
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / ticks_per_second


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
        names = ("descriptors", "tasks")
        return {name: max(0, getattr(self, name) - getattr(before, name)) for name in names}


@dataclass(frozen=True)
class Remains:
    """What is left of all that a server went through: nothing, if all is well."""

    growth_bytes: int = 0
    """Of its resident memory."""
    leaked: Mapping[str, int] = field(default_factory=dict)
    """What it holds more than before: descriptors, tasks."""
    exit_status: int = 0
    trouble: Sequence[str] = ()
    """Exceptions and errors in its log."""

    def failures(self, max_growth_bytes: float = float("inf")) -> list[str]:
        """Return the promises that were broken, a sentence each."""
        said = report.counted({"exceptions or errors in the log": self.trouble})
        if self.growth_bytes >= max_growth_bytes:
            said.append(f"memory grew by {report.megabytes(self.growth_bytes)}")
        if any(self.leaked.values()):
            said.append(f"left behind: {dict(self.leaked)}")
        if self.exit_status:
            said.append(f"SIGTERM ended it with exit status {self.exit_status}")
        return said

    def rows(self) -> list[list[str]]:
        """Return rows of a table, of two cells each."""
        return [
            ["exceptions and errors in the log", str(len(self.trouble))],
            ["growth of memory (VmRSS)", report.megabytes(self.growth_bytes)],
            *([f"{name} left behind", str(count)] for name, count in self.leaked.items()),
            ["exit status after SIGTERM", str(self.exit_status)],
        ]
