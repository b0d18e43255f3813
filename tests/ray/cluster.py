"""A Ray cluster on one machine, whose nodes are network namespaces: killed and cut off for real.

Each node has its own address, processes, /tmp/ray and home folder; memory, disk and processors
they share. Needs Linux and root, and Ray beside this Python (script/ray-test installs it).
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from benchmarks.lib.errors import BenchmarkError
from benchmarks.lib.servers import ROOT
from tests.support import HOME_EN

BRIDGE = "wyw-ray0"
NETWORK = "10.213.0"
RAY_PORT = 6379
STORE_BYTES = 100_000_000

START_SECONDS = 180.0
STOP_SECONDS = 30.0
POLL_SECONDS = 0.2

WITHIN = (
    "mkdir -p /tmp/ray && mount --bind {folder}/ray /tmp/ray && "
    "mount -t tmpfs -o size=400m shm /dev/shm && exec {command}"
)


class Node:
    """One machine of the cluster: a namespace, a folder, and what runs in it."""

    def __init__(self, number: int, folder: Path) -> None:
        self.name = f"wyw-ray{number}"
        self.address = f"{NETWORK}.{number}"
        self.folder = folder / self.name
        self._link = f"wyw-v{number}"
        self._raylet: subprocess.Popen[bytes] | None = None
        (self.folder / "ray").mkdir(parents=True)
        (self.folder / "home").mkdir()
        _ip("netns", "add", self.name)
        _ip("link", "add", self._link, "type", "veth", "peer", "eth0", "netns", self.name)
        _ip("link", "set", self._link, "master", BRIDGE, "up")
        _ip("-n", self.name, "addr", "add", f"{self.address}/24", "dev", "eth0")
        for device in ("eth0", "lo"):
            _ip("-n", self.name, "link", "set", device, "up")
        _ip("-n", self.name, "route", "add", "default", "via", f"{NETWORK}.254")

    def start(self, cpus: int, first: Node | None = None) -> None:
        """Run Ray here: as the first node, or joining it."""
        where = ["--head", f"--port={RAY_PORT}", "--include-dashboard=false"]
        if first is not None:
            where = [f"--address={first.address}:{RAY_PORT}"]
        command = [
            *(_beside("ray"), "start", "--block", "--disable-usage-stats"),
            *(*where, f"--node-ip-address={self.address}", f"--num-cpus={cpus}"),
            f"--object-store-memory={STORE_BYTES}",
        ]
        script = WITHIN.format(folder=shlex.quote(str(self.folder)), command=shlex.join(command))
        # Of its own processes too: Ray looks among all for the node that it is on.
        apart = ("unshare", "--mount", "--pid", "--fork", "--mount-proc", "sh", "-c", script)
        entered = ["ip", "netns", "exec", self.name, *apart]
        with (self.folder / "ray.log").open("wb") as log:
            self._raylet = subprocess.Popen(entered, env=self._environ(), stdout=log, stderr=log)

    def command(self, *command: str) -> list[str]:
        """Return a command as it is run on this node."""
        assert self._raylet is not None
        if not (inside := _children(self._raylet.pid)):
            raise BenchmarkError(f"{self.name} does not run")
        return ["nsenter", f"--target={inside[0]}", "--mount", "--net", "--pid", *command]

    def popen(self, *command: str, log: str) -> subprocess.Popen[bytes]:
        """Run something of ours on this node, with what it writes in a file of the node's folder.

        Its ray address is the node's.
        """
        with (self.folder / log).open("wb") as file:
            return subprocess.Popen(
                self.command(*command), env=self._environ(), stdout=file, stderr=file
            )

    def run(self, *command: str, seconds: float = START_SECONDS) -> str:
        """Run a command to its end; return what it wrote. Raises BenchmarkError."""
        done = subprocess.run(
            self.command(*command),
            env=self._environ(),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        if done.returncode:
            raise BenchmarkError(f"{shlex.join(command)} failed: {done.stderr[-2000:]}")
        return done.stdout

    def kill(self) -> None:
        """End everything on this node at once, as a power cut does."""
        with contextlib.suppress(subprocess.CalledProcessError):  # it's gone
            for pid in _ip("netns", "pids", self.name).split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
        if self._raylet is not None:
            self._raylet.wait(STOP_SECONDS)

    def cut_off(self) -> None:
        """Pull this node's network cable: nobody is told."""
        _ip("link", "set", self._link, "down")

    def plug_in(self) -> None:
        _ip("link", "set", self._link, "up")

    def pids(self, of: str) -> list[int]:
        """Return the processes on this node whose title holds `of`."""
        found = []
        for pid in _ip("netns", "pids", self.name).split():
            with contextlib.suppress(OSError):
                if of in Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace"):
                    found.append(int(pid))
        return found

    def remove(self) -> None:
        self.kill()
        _ip("link", "del", self._link)  # otherwise it goes with the namespace, which takes a moment
        _ip("netns", "del", self.name)

    def _environ(self) -> dict[str, str]:
        own = {"HOME": str(self.folder / "home"), "PYTHONPATH": str(ROOT)}
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        return kept | own


@contextlib.contextmanager
def cluster(folder: Path, cpus: list[int]) -> Iterator[list[Node]]:
    """Run a cluster with a node for each number of (logical) CPUs, the first one its head."""
    if os.geteuid() != 0:
        raise BenchmarkError("network namespaces need root")
    _clear()
    _ip("link", "add", BRIDGE, "type", "bridge")
    _ip("addr", "add", f"{NETWORK}.254/24", "dev", BRIDGE)
    _ip("link", "set", BRIDGE, "up")
    nodes: list[Node] = []
    try:
        nodes.extend(Node(number, folder) for number in range(1, len(cpus) + 1))
        for number, (node, n) in enumerate(zip(nodes, cpus, strict=True)):
            # One after the other: Ray gives up starting where the machine is too busy.
            node.start(n, nodes[0] if number else None)
            _until(partial(_has_joined, nodes[0], number + 1), f"node {number + 1} does not start")
        yield nodes
    except BenchmarkError as error:
        logs = [(node.folder / "ray.log").read_text()[-1000:] for node in nodes]
        raise BenchmarkError("\n".join([str(error), *logs])) from error
    finally:
        for node in nodes:
            node.remove()
        _clear()


def front_end(node: Node, *flags: str, log: str = "front_end.log") -> subprocess.Popen[bytes]:
    """Start a front end on a node, at port 10300."""
    flags = ("--backend", "ray", "--uri", "tcp://0.0.0.0:10300", *_model(), *flags)
    return node.popen(_beside("wyoming-whisper"), "serve", *flags, log=log)


def stop(server: subprocess.Popen[bytes]) -> int:
    """Stop what `Node.popen` has started, as a service manager does; return its status."""
    for pid in _children(server.pid):  # the process itself is nsenter's, which passes nothing on
        os.kill(pid, signal.SIGTERM)
    return server.wait(STOP_SECONDS)


def deploy(node: Node, *flags: str) -> str:
    """Deploy the model, from this node; return what the command says."""
    return node.run(_beside("wyoming-whisper"), "ray", "deploy", *_model(), *flags)


def _model() -> tuple[str, str]:
    """Return the flags that name it; every node has this machine's files."""
    return "--model", str(HOME_EN)


def uri(node: Node) -> str:
    """Return where this machine reaches the node's front end."""
    return f"tcp://{node.address}:10300"


def _n_alive(node: Node) -> int:
    """Return how many nodes the cluster has; 0 as long as it can't be asked."""
    asked = (
        "import ray; ray.init('auto', log_to_driver=False, logging_level='ERROR'); "
        "print(sum(node['Alive'] for node in ray.nodes()))"
    )
    try:
        return int(node.run(sys.executable, "-c", asked).split()[-1])
    except (BenchmarkError, IndexError, ValueError):
        return 0


def _has_joined(first: Node, number: int) -> bool:
    return _n_alive(first) == number


def _until(reached: Callable[[], bool], problem: str) -> None:
    end = time.monotonic() + START_SECONDS
    while not reached():
        if time.monotonic() > end:
            raise BenchmarkError(problem)
        time.sleep(POLL_SECONDS)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _beside(program: str) -> str:
    return str(Path(sys.executable).parent / program)


def _clear() -> None:
    """Remove what a run that was killed has left."""
    for line in _ip("netns", "list").splitlines():
        if (name := line.split()[0]).startswith("wyw-ray"):
            for pid in _ip("netns", "pids", name).split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            _ip("netns", "del", name)
    for link in Path("/sys/class/net").glob("wyw-v*"):
        _ip("link", "del", link.name)
    if Path(f"/sys/class/net/{BRIDGE}").exists():
        _ip("link", "del", BRIDGE)


def _ip(*arguments: str) -> str:
    command = ("ip", *arguments)
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
