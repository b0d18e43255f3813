"""Servers as processes on loopback ports: ours, and the official one that is installed for it."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.lib import models
from wyoming_whisper.machine import physical_cores

ROOT = Path(__file__).parents[2]
OFFICIAL_VENV = ROOT / ".venv-official"
OFFICIAL_VERSION = "3.8.1"

START_SECONDS = 300.0  # only a server that hangs takes so long to listen
STOP_SECONDS = 15.0
POLL_SECONDS = 0.002

# What our server logs.
READY = "INFO:wyoming_whisper.server:ready"
UNDECIDED = " has its engine\n"
DECIDED = ("from now on the engine answers", "goes on to answer", "there is no engine until")


class BenchmarkError(Exception):
    """A benchmark can't go on."""


@dataclass(frozen=True)
class Program:
    """How a server is started."""

    name: str
    """Heads its column."""

    command: tuple[str, ...]
    """All but the address to listen on."""

    is_ours: bool = False


def ours(args: argparse.Namespace, name: str = "ours", *extra: str) -> Program:
    """Return this repository's server, run with this Python."""
    command = (sys.executable, "-m", "wyoming_whisper", "serve", *_common(args), *extra)
    return Program(name, command, is_ours=True)


def official(args: argparse.Namespace, beam_size: int | None = None) -> Program:
    """Return the official server; `beam_size` instead of the one asked for."""
    command = (str(_official_python()), "-m", "wyoming_faster_whisper", *_common(args))
    name = "official"
    if beam_size is not None:
        name, command = f"official, beam {beam_size}", (*command, "--beam-size", str(beam_size))
    # By its own choice it would run another library's model for English if one is installed.
    return Program(name, (*command, "--stt-library", "faster-whisper"))


def _common(args: argparse.Namespace) -> list[str]:
    flags = ["--model", str(args.model.resolve()), "--language", "en", "--local-files-only"]
    flags += ["--cpu-threads", str(args.threads)]
    if args.beam_size:
        flags += ["--beam-size", str(args.beam_size)]
    if args.compute_type != "default":
        flags += ["--compute-type", args.compute_type]
    return flags


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what is asked of every benchmark of servers."""
    models.add_model(parser)
    parser.add_argument(
        "--threads", type=int, default=physical_cores(), help="of each server (default: all cores)"
    )
    parser.add_argument(
        "--beam-size", type=int, default=0, help="of each server (default: what each chooses)"
    )
    parser.add_argument(
        "--compute-type",
        default="int8",
        help="of each server (default: int8; `default` is what each chooses)",
    )
    parser.add_argument(
        "--chunk-ms", type=int, default=10, choices=(10, 32), help="audio in each event"
    )
    parser.add_argument("--no-official", action="store_true", help="ours alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there, too")


def asked(args: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments for a report; folders by name alone, which is all that matters."""
    values = vars(args).items()
    return {name: _as_json(value) for name, value in values if name != "json"}


def _as_json(value: object) -> object:
    if isinstance(value, Path):
        return value.name
    return [_as_json(item) for item in value] if isinstance(value, list | tuple) else value


# -- the official server -------------------------------------------------------------------


def official_beam_size(machine: str) -> int:
    """Return the beam that the official server chooses on this kind of machine."""
    return 1 if machine.lower().startswith(("arm", "aarch")) else 5


def install_official() -> dict[str, str]:
    """Install the official server beside ours, if it isn't yet; return what it runs on.

    It gets the same CTranslate2: the servers are compared, not releases of their runtime.
    Raises BenchmarkError.
    """
    wanted = {
        "wyoming-faster-whisper": OFFICIAL_VERSION,
        "ctranslate2": version("ctranslate2"),
        "faster-whisper": version("faster-whisper"),
    }
    try:
        if not _official_python().exists() or _official_versions(wanted) != wanted:
            _install(wanted)
        return _official_versions(wanted)
    except subprocess.CalledProcessError as error:
        raise BenchmarkError(
            "the official server can't be installed; --no-official leaves it out"
        ) from error


def _install(packages: Mapping[str, str]) -> None:
    note = f"installing wyoming-faster-whisper {OFFICIAL_VERSION} in {OFFICIAL_VENV.name}"
    print(note, file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "venv", str(OFFICIAL_VENV)], check=True)
    pip = [str(_official_python()), "-m", "pip", "install", "--quiet"]
    pinned = [f"{name}=={number}" for name, number in packages.items()]
    subprocess.run([*pip, "--disable-pip-version-check", *pinned], check=True)


def _official_python() -> Path:
    return OFFICIAL_VENV / "bin" / "python"


def _official_versions(packages: Mapping[str, str]) -> dict[str, str]:
    code = (
        "import sys\nfrom importlib.metadata import PackageNotFoundError, version\n"
        "for name in sys.argv[1:]:\n"
        "    try: print(name, version(name))\n"
        "    except PackageNotFoundError: pass\n"
    )
    command = [str(_official_python()), "-c", code, *packages]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(line.split() for line in answer.stdout.splitlines())


# -- processes -----------------------------------------------------------------------------


class Server:
    """One running server; `started` is when, on time.perf_counter's clock."""

    def __init__(self, program: Program, folder: Path) -> None:
        port = _free_port()
        folder.mkdir(parents=True, exist_ok=True)
        self.name = program.name
        self._is_ours = program.is_ours
        self.uri = f"tcp://127.0.0.1:{port}"
        self._address = ("127.0.0.1", port)
        self._log = folder / f"{port}.log"
        command = [*program.command, "--uri", self.uri, "--data-dir", str(folder)]
        with self._log.open("wb") as log:
            self.started = time.perf_counter()
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=folder, env=_environment()
            )

    def listening(self) -> float:
        """Wait until a connection is accepted; return the seconds since the start."""
        deadline = self.started + START_SECONDS
        while time.perf_counter() < deadline and self._process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(self._address):
                return time.perf_counter() - self.started
            time.sleep(POLL_SECONDS)
        raise BenchmarkError(f"{self.name} does not listen:\n{self._log_end()}")

    def settle(self) -> None:
        """Wait until our server has decided what answers from now on, which it logs.

        At a model's first start it makes the graphs for onnxruntime, and compares.
        """
        if not self._is_ours:
            return
        deadline = self.started + START_SECONDS
        while time.perf_counter() < deadline and self._process.poll() is None:
            log = self._log.read_text(errors="replace")
            if READY in log and (UNDECIDED not in log or any(line in log for line in DECIDED)):
                return
            time.sleep(POLL_SECONDS)
        raise BenchmarkError(f"{self.name} does not get ready:\n{self._log_end()}")

    def memory(self) -> Memory:
        """Return what the process takes of the machine's memory now."""
        proc = Path("/proc") / str(self._process.pid)
        return read_memory((proc / "status").read_text(), (proc / "smaps_rollup").read_text())

    def beam_size(self) -> int:
        """Return the beam that our server has chosen, which it logs with its model."""
        found = re.search(r"\bbeam (\d+)", self._log.read_text(errors="replace"))
        if found is None:
            raise BenchmarkError(f"{self.name} does not say its beam:\n{self._log_end()}")
        return int(found[1])

    def stop(self) -> None:
        """End the process, by force if it doesn't end itself."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _log_end(self) -> str:
        return self._log.read_text(errors="replace")[-2000:]


@contextlib.contextmanager
def started(program: Program, folder: Path) -> Iterator[Server]:
    """Run a server until the block ends; it may not listen yet."""
    server = Server(program, folder)
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def running(programs: Sequence[Program], folder: Path) -> Iterator[list[Server]]:
    """Run servers side by side until the block ends; all of them listen."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(started(program, folder)) for program in programs]
        for server in servers:
            server.listening()
            server.settle()
        yield servers


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _environment() -> dict[str, str]:
    """Return the environment without the user's own options for either server."""
    ours = ("WYO_WHISPER_", "WYOMING_WHISPER_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


# -- memory --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Memory:
    """Bytes of one process."""

    resident: int
    """In RAM (VmRSS)."""

    peak: int
    """The most that were ever in RAM (VmHWM)."""

    own: int
    """Of the resident, what is the process's alone and in no file (RssAnon)."""

    proportional: int
    """In RAM, what is shared with other processes divided among them (Pss)."""


def read_memory(status: str, rollup: str) -> Memory:
    """Read /proc/PID/status and /proc/PID/smaps_rollup."""
    return Memory(
        resident=_kilobytes(status, "VmRSS"),
        peak=_kilobytes(status, "VmHWM"),
        own=_kilobytes(status, "RssAnon"),
        proportional=_kilobytes(rollup, "Pss"),
    )


def _kilobytes(text: str, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)
    if found is None:
        raise BenchmarkError(f"the system does not say {name}")
    return 1024 * int(found[1])
