"""Faults of the machine, one after the other, and what our server does: as a table.

Some need root (file systems that are full or read-only, a network that loses packets), and one
libfaketime; what is not possible here is said to be not run. A stand-in for the hub serves
`tiny.en`'s files under the name of `tiny`.

Packets are lost in a network namespace: by the kernel's `netem` with a delay where it has that,
else by iptables alone. Delays, jitter, stalls and cuts come from lib/network.py, in user space,
where a loss is what TCP makes of it: a delay.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Timer
from typing import Any
from urllib.parse import urlsplit

from benchmarks.lib import models, report
from benchmarks.lib.client import SATELLITE_CHUNK_MS, Heard, say
from benchmarks.lib.clips import short_clips, with_silence
from benchmarks.lib.errors import BenchmarkError
from benchmarks.lib.network import Weather, bad_network
from benchmarks.lib.options import add_parts
from benchmarks.lib.report import Outcome, progress
from benchmarks.lib.servers import END_SECONDS, ROOT, Watched, free_port, watched
from tests.models.hub_standin import HubStandin, serve
from wyoming_whisper.models.folder import ModelFolder
from wyoming_whisper.transcriber import Samples

TINY = ("--model", "tiny", "--language", "en", "--cpu-threads", "2")
KILLS = 10
LOSS = 0.05
RELOADS = 20
RESETS = 30
SPOKEN_TIMES = 12  # through a bad network
STALL_SECONDS = 3.0
MAX_KEPT_BYTES = 64_000_000
"""What glibc may keep at the top of a thread's arena, where malloc_trim doesn't reach."""


class NotRunError(Exception):
    """What a fault needs is not possible on this machine."""


class Broken(Exception):  # noqa: N818 - a promise, not an error
    """The server did something else than it should."""


def expect(truth: object, otherwise: str) -> None:
    if not truth:
        raise Broken(otherwise)


# -- helpers -------------------------------------------------------------------------------


def command() -> Samples:
    """Return one, with silence around it."""
    (clip,) = (clip for clip in short_clips() if clip.file == "01-clean.flac")
    return with_silence(clip.samples)


def said(uri: str, *, in_time: bool = False) -> Heard:
    """Say a command at once, or at the pace of speech."""
    return asyncio.run(say(uri, command(), chunk_ms=SATELLITE_CHUNK_MS, in_time=in_time))


def text_of(server: Watched) -> str:
    """Return the transcript of a command. Raises Broken when there is none."""
    heard = said(server.uri)
    expect(heard.text, f"a command was answered with: {heard.error or 'no text'}")
    return heard.text


class Patient:
    """A server that suffers, and what it wrote before."""

    def __init__(self, server: Watched) -> None:
        self.server = server
        self.text = text_of(server)

    def answers(self, after: str = "", *, in_time: bool = False) -> None:
        """Expect the same text as before."""
        heard = said(self.server.uri, in_time=in_time)
        expect(heard.text == self.text, f"{heard.text!r}, not {self.text!r} {after}")


@contextlib.contextmanager
def patient(folder: Path, *flags: str, **how: Any) -> Iterator[Patient]:
    """Give a server with `tiny.en`, which must end well."""
    with watched(folder, *flags, **how) as server:
        yield Patient(server)
        expect(server.stopped() == 0 and not server.trouble, f"{server.trouble}")


@contextlib.contextmanager
def fetching(folder: Path, hub: HubStandin, *flags: str) -> Iterator[Watched]:
    """Give a server that gets its model from a stand-in for the hub."""
    with Watched(folder, *TINY, *flags, environment={"HF_ENDPOINT": hub.url}) as server:
        yield server


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """Give a small file system of its own. Raises NotRunError where that is not allowed."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        raise NotRunError("a file system can't be mounted here: that is for root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextlib.contextmanager
def hub() -> Iterator[HubStandin]:
    folder = models.stock(models.TINY).iterdir()
    files = {file.name: file.read_bytes() for file in folder if file.name != ModelFolder.EXTRAS}
    with serve({"Systran/faster-whisper-tiny": files}) as standin:
        yield standin


@contextlib.contextmanager
def meanwhile(seconds: float, action: Callable[..., object], *values: object) -> Iterator[None]:
    """Have something happen so long after the block has begun; it ends no sooner."""
    timer = Timer(seconds, action, values)
    timer.start()
    try:
        yield
    finally:
        timer.join()


def until(happened: Callable[[], object], otherwise: str, seconds: float = 90.0) -> None:
    end = time.perf_counter() + seconds
    while not happened():
        expect(time.perf_counter() < end, otherwise)
        time.sleep(0.05)


# -- the faults ----------------------------------------------------------------------------


def stopped_process(folder: Path) -> str:
    """SIGSTOP while a command is spoken, SIGCONT three seconds later"""
    with (
        patient(folder) as suffering,
        meanwhile(0.5, suffering.server.send, signal.SIGSTOP),
        meanwhile(0.5 + STALL_SECONDS, suffering.server.send, signal.SIGCONT),
    ):
        suffering.answers(in_time=True)
    return "the command is answered with its text"


def killed_while_serving(folder: Path) -> str:
    """Kill -9 of the server at random moments of a command, then a start at the same socket"""
    texts, choose = set(), random.Random(0)
    for _ in range(KILLS):
        with watched(folder) as server:
            texts.add(text_of(server))
            with meanwhile(choose.random() * 0.2, server.send, signal.SIGKILL):
                said(server.uri)
    expect(len(texts) == 1, "another text after a kill")
    return f"{KILLS} times: it starts, takes the socket over and answers with the same text"


def hanging_model(folder: Path) -> str:
    """The model hangs in native code"""
    with watched(folder, "--deadline", "2", opens="hangs_once") as server:
        heard = said(server.uri)
        expect(heard.error, "a command that hangs was answered")
        until(lambda: server.log.count("INFO ready") == 2, "it did not start again")
        server.answering()
        text_of(server)
    return f"an error after the deadline ({heard.error}); the process is replaced and answers"


def crashing_model(folder: Path) -> str:
    """A segmentation fault in the model's library, and a start as a restart policy does it"""
    with watched(folder, opens="crashes") as server:
        expect(said(server.uri).error, "a command that crashed the server was answered")
        expect(server.ended() == -signal.SIGSEGV, "it outlived a segmentation fault")
    with watched(folder, opens="answers") as server:
        text_of(server)
    return "the connection ends, and so does the process, at once; started again, it answers"


def model_that_comes_and_goes(folder: Path) -> str:
    """The model is unloaded and loaded again, time after time"""
    held = []
    with patient(folder, "--idle-unload", "1") as suffering:
        server = suffering.server
        for times in range(1, RELOADS + 1):
            until(partial(_was_unloaded, server, times), "it stays loaded")
            held.append(server.memory().own)
            suffering.answers(f"when it was loaded {times} times")
    grown = held[-1] - held[1]  # what is loaded once is there after the first time
    expect(grown < MAX_KEPT_BYTES, f"its memory grew by {report.megabytes(grown)}")
    return f"{RELOADS} times: the same text, and {report.megabytes(grown)} more memory"


def _was_unloaded(server: Watched, times: int) -> bool:
    return server.log.count("the model is unloaded") == times


def killed_at_first_start(folder: Path) -> str:
    """Kill -9 at random moments of the first start, with its download"""
    choose = random.Random(1)
    with hub() as standin:
        for _ in range(KILLS):
            with fetching(folder, standin) as server:
                time.sleep(0.5 + choose.random() * 3)
                server.send(signal.SIGKILL)
        with fetching(folder, standin) as server:
            server.ready()
            text_of(server)
    return f"after {KILLS} kills it starts, and answers"


def full_disk(folder: Path) -> str:
    """A disk too small for the model, which gets room later"""
    with (
        hub() as standin,
        mounted(folder / "disk", "size=2m") as disk,
        fetching(folder, standin, "--data-dir", str(disk)) as server,
    ):
        server.answering()
        until(lambda: "NOT READY" in server.log, "nothing is said of the full disk")
        heard = said(server.uri)
        expect(heard.error and "disk" in heard.error.lower(), f"the error is: {heard.error}")
        subprocess.run(["mount", "-o", "remount,size=256m", str(disk)], check=True)
        server.ready()
        text_of(server)
    return f"an error that says so ({heard.error}); once there is room it is ready by itself"


def read_only_disk(folder: Path) -> str:
    """A data folder that can't be written, with a model that is elsewhere"""
    with (
        mounted(folder / "disk", "size=1m,ro") as disk,
        watched(folder, "--data-dir", str(disk)) as server,
    ):
        text_of(server)
        expect(not server.trouble, f"{server.trouble}")
    return "it answers as ever"


def clock_jumps(folder: Path) -> str:
    """The clock jumps a day ahead and a year back, while commands are spoken"""
    libraries = [str(path) for path in Path("/usr/lib").glob("*/faketime/libfaketime.so.1")]
    if not libraries:
        raise NotRunError("libfaketime is not installed")
    folder.mkdir(parents=True, exist_ok=True)
    clock = folder / "clock"
    clock.write_text("+0")
    environment = {
        "LD_PRELOAD": libraries[0],
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    with patient(folder, environment=environment) as suffering:
        for jump in ("+1d", "-365d", "+0"):
            with meanwhile(0.5, clock.write_text, jump):
                suffering.answers(f"after {jump}", in_time=True)
    return "every command is answered with its text"


def late_network(folder: Path) -> str:
    """A network that is 100 to 150 ms late, sends 5 % again, and carries 64 kB a second"""
    weather = Weather(
        delay_seconds=0.1, jitter_seconds=0.05, loss=LOSS, resend_seconds=0.2, bytes_per_second=64e3
    )
    return _spoken_through(folder, weather, SPOKEN_TIMES)


def stalled_network(folder: Path) -> str:
    """A network that stands still for three seconds in the middle of a command"""
    weather = Weather(stall_after_bytes=30_000, stall_seconds=STALL_SECONDS)
    return _spoken_through(folder, weather, 1)


def _spoken_through(folder: Path, weather: Weather, times: int) -> str:
    with patient(folder, uri=f"tcp://127.0.0.1:{free_port()}") as suffering:
        texts = asyncio.run(_through(suffering.server.uri, weather, times))
        expect(set(texts) == {suffering.text}, f"{texts}, not {suffering.text!r}")
    return f"{times} of {times} commands answered with their text"


def cut_network(folder: Path) -> str:
    """Connections that are reset at random moments of a command"""
    choose = random.Random(0)
    with patient(folder, uri=f"tcp://127.0.0.1:{free_port()}") as suffering:
        server = suffering.server
        before = server.counts()
        for _ in range(RESETS):
            weather = Weather(cut_after_bytes=choose.randint(0, 2 * len(command())))
            asyncio.run(_through(server.uri, weather, 1))
        suffering.answers("after the resets")
        until(
            lambda: not any(server.counts().left_behind(before).values()),
            "connections were left behind",
            END_SECONDS,
        )
    return f"after {RESETS} resets it answers with the same text, nothing is left of them"


async def _through(uri: str, weather: Weather, commands: int) -> list[str]:
    """Say a command through bad weather, again and again; return the texts, "" where none came."""
    samples = command()
    async with bad_network(urlsplit(uri).port or 0, weather) as port:
        proxied = f"tcp://127.0.0.1:{port}"
        return [
            (await say(proxied, samples, chunk_ms=SATELLITE_CHUNK_MS, in_time=True)).text
            for _ in range(commands)
        ]


@contextlib.contextmanager
def relaying(folder: Path) -> Iterator[tuple[Patient, Watched]]:
    """Give a server that asks another one first, and that one."""
    same = ("--backend", "faster-whisper")  # so that both write the same
    uri = f"tcp://127.0.0.1:{free_port()}"
    with (
        watched(folder / "upstream", *same, uri=uri) as upstream,
        patient(folder / "front", *same, "--upstreams", uri) as suffering,
    ):
        until(lambda: _answered_by_upstream(suffering), "the upstream is not asked")
        yield suffering, upstream


def _answered_by_upstream(suffering: Patient) -> int:
    """Say a command; return how many the upstream has answered."""
    suffering.answers()
    return suffering.server.log.count(" s after its end by tcp://")


def killed_upstream(folder: Path) -> str:
    """Kill -9 of an upstream while a command is spoken"""
    with (
        relaying(folder) as (suffering, upstream),
        meanwhile(0.5, upstream.send, signal.SIGKILL),
    ):
        suffering.answers(in_time=True)
    return "the command is answered with its text by the model here"


def hanging_upstream(folder: Path) -> str:
    """An upstream that hangs (SIGSTOP) while a command is spoken, and comes back"""
    with relaying(folder) as (suffering, upstream):
        with meanwhile(0.5, upstream.send, signal.SIGSTOP):
            suffering.answers(in_time=True)
        upstream.send(signal.SIGCONT)
        answered = _answered_by_upstream(suffering)
        until(lambda: _answered_by_upstream(suffering) > answered, "it is not asked again")
    return "the command is answered with its text by the model here; it is asked again afterwards"


def lossy_network(folder: Path) -> str:
    """A network that loses 5 % of all packets, both ways"""
    if subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode:
        raise NotRunError("network namespaces are for root")
    folder.mkdir(parents=True, exist_ok=True)
    inside = [sys.executable, "-m", "benchmarks.siege.faults", str(folder)]
    netem = f"tc qdisc add dev lo root netem loss {LOSS:%} delay 50ms 2>/dev/null"
    iptables = f"iptables -A INPUT -m statistic --mode random --probability {LOSS} -j DROP"
    how = f"({netem} && echo netem, 50 ms late) || ({iptables} && echo iptables)"
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", f'ip link set lo up && {how} && exec "$@"', "sh", *inside],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    expect(done.returncode == 0, done.stderr[-300:])
    how_lost, _, outcome = done.stdout.strip().partition("\n")
    return f"{outcome} (lost by {how_lost})"


def speak_through_losses(folder: Path) -> str:
    """Run inside the namespace: server and speakers share its lossy loopback interface."""
    with patient(folder / "server", uri=f"tcp://127.0.0.1:{free_port()}") as suffering:
        for _ in range(SPOKEN_TIMES):
            suffering.answers(in_time=True)
    return f"{SPOKEN_TIMES} of {SPOKEN_TIMES} commands answered with their text"


FAULTS: Mapping[str, Callable[[Path], str]] = {
    "stopped": stopped_process,
    "killed": killed_while_serving,
    "hanging": hanging_model,
    "crashing": crashing_model,
    "reloaded": model_that_comes_and_goes,
    "upstream-killed": killed_upstream,
    "upstream-hanging": hanging_upstream,
    "first-start": killed_at_first_start,
    "full-disk": full_disk,
    "read-only": read_only_disk,
    "clock": clock_jumps,
    "network": lossy_network,
    "late-network": late_network,
    "stalled-network": stalled_network,
    "cut-network": cut_network,
}


# -- the suite -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Suffered:
    """What came of one fault."""

    fault: str
    outcome: str
    """survived, broken, or not run."""
    told: str


def suffer(name: str, folder: Path) -> Suffered:
    """Let one fault happen to a server of its own."""
    fault = FAULTS[name]
    about = (fault.__doc__ or name).strip()
    try:
        return Suffered(about, "survived", fault(folder))
    except NotRunError as error:
        return Suffered(about, "not run", str(error))
    except (Broken, BenchmarkError, OSError) as error:
        return Suffered(about, "broken", str(error))


def add_options(parser: argparse.ArgumentParser) -> None:
    add_parts(parser, list(FAULTS), metavar="FAULT")


def run(args: argparse.Namespace) -> Outcome:
    """Suffer; a promise that was broken is a failure."""
    outcomes: list[Suffered] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in args.parts:
            progress(f"{name} ...")
            outcomes.append(suffer(name, Path(folder) / name))
    rows = [[one.fault, one.outcome, one.told] for one in outcomes]
    return Outcome(
        [report.table(["fault", "", "what happens"], rows)],
        {"faults": [vars(one) for one in outcomes]},
        [f"{one.fault}: {one.told}" for one in outcomes if one.outcome == "broken"],
    )


if __name__ == "__main__":
    print(speak_through_losses(Path(sys.argv[1])))
