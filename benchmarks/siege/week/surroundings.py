"""What is around the server, and may fail: a disk, a clock, a network of its own."""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.lib.errors import BenchmarkError
from benchmarks.lib.servers import ROOT

INSIDE = "BENCHMARKS_WEEK_NETWORK"
"""The variable that says that this process has a network of its own."""

INTERFACE = "week0"
ADDRESSES = ("192.168.77.2/24", "192.168.77.3/24")
NETWORK = (
    "ip link set lo up && ip link add {0} type veth peer name {0}-far && ip addr add {1} dev {0} "
    '&& ip link set {0}-far up && ip link set {0} up && exec "$@"'
)

INSIDE_THE_SERVER = Path(__file__).parent / "inside"


class Disk:
    """The folder of the server's data: a file system of its own where that is allowed."""

    def __init__(self, folder: Path, *, mounted: bool) -> None:
        self.folder = folder
        self._filler = folder / "filler"
        self._mounted = mounted

    @property
    def how_full(self) -> str:
        """How it is made full here."""
        return "a tmpfs without room" if self._mounted else "a folder that can't be written"

    def fill(self) -> None:
        """Have no room for another byte."""
        if not self._mounted:
            self.folder.chmod(0o555)
            return
        self._filler.write_bytes(b"x")  # a tmpfs of no size has no limit
        usage = os.statvfs(self.folder)
        used = usage.f_frsize * (usage.f_blocks - usage.f_bfree)
        self._resize(str(used))

    def empty(self) -> None:
        """Have room again."""
        if self._mounted:
            self._resize(ROOM)
            self._filler.unlink(missing_ok=True)
        else:
            self.folder.chmod(0o755)

    def _resize(self, size: str) -> None:
        command = ["mount", "-o", f"remount,size={size}", str(self.folder)]
        subprocess.run(command, check=True, capture_output=True)


ROOM = "2g"  # of which as much memory is taken as is written


@contextlib.contextmanager
def data_disk(folder: Path) -> Iterator[Disk]:
    """Give the disk for the server's data, in `folder`."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(folder)]
    mounted = not subprocess.run(command, capture_output=True, check=False).returncode
    disk = Disk(folder, mounted=mounted)
    try:
        yield disk
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)
        else:
            disk.empty()


class ShiftedClock:
    """The clock of a server that is started with `environment`, for its Python code."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock-shift"
        self.set(0.0)
        self.environment = {
            "PYTHONPATH": str(INSIDE_THE_SERVER),
            "CLOCK_SHIFT_FILE": str(self._file),
        }

    def set(self, seconds: float) -> None:
        """Have the clock be wrong by so much from now on."""
        mode = "r+b" if self._file.exists() else "wb"
        with self._file.open(mode) as file:
            file.write(struct.pack("d", seconds))


# -- a network ---------------------------------------------------------------------------------


def in_own_network(arguments: Sequence[str]) -> int | None:
    """Run `python -m benchmarks week` in a network namespace; return its exit status.

    None where that is not allowed, or this process is in one already.
    """
    if INSIDE in os.environ or not _can_unshare():
        return None
    script = NETWORK.format(INTERFACE, ADDRESSES[0])
    command = ["unshare", "--net", "sh", "-c", script, "sh", sys.executable]
    command += ["-m", "benchmarks", "week", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, INSIDE: "1"}, check=False
    ).returncode


def _can_unshare() -> bool:
    command = ["unshare", "--net", "sh", "-c", NETWORK.format(INTERFACE, ADDRESSES[0]), "sh"]
    try:
        return not subprocess.run([*command, "true"], capture_output=True, check=False).returncode
    except OSError:
        return False


def has_own_network() -> bool:
    return INSIDE in os.environ


def change_address() -> None:
    """Give this machine another address, as a router does at times. Raises BenchmarkError."""
    old, new = ADDRESSES
    for command in (("add", new), ("del", old)):
        done = subprocess.run(
            ["ip", "addr", *command, "dev", INTERFACE], capture_output=True, check=False
        )
        if done.returncode:
            raise BenchmarkError(f"the address can't be changed: {done.stderr.decode().strip()}")
