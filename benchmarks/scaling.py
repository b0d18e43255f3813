"""Many machines: what Ray Serve costs, what replicas carry, and what a lost node does.

`python -m benchmarks.scaling batching` asks whether CTranslate2 should be given several commands
at once. `capacity` is the model of queues on paper. `replicas` measures 1, 2 and 4 of them on a
cluster of network namespaces, beside the model; `failover` kills and cuts off nodes meanwhile.
The last two need root and Ray: `script/ray-test` installs it, then
`.venv-ray/bin/python -m benchmarks.scaling replicas`.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import math
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import models, ray_cluster
from benchmarks.client import command_events, connected, say
from benchmarks.report import machine, machine_line, milliseconds, percentile, table, write_json
from wyoming_whisper.cluster.commands import MAX_ONGOING
from wyoming_whisper.settings import Settings
from wyoming_whisper.status import Status
from wyoming_whisper.transcriber import (
    SAMPLE_RATE,
    Samples,
    TranscribeOptions,
    Transcriber,
    Transcription,
)

CLIPS = Path(__file__).parent.parent / "tests" / "audio"

MAX_WAIT_SECONDS = 0.3
"""What 95 % of speakers may wait for their turn, at most."""

COMMANDS_PER_HOUR = (10, 60)
"""Of one speaker: a lively household's room, a room where people do nothing else."""

CLOSED_LOOP_SECONDS = 10.0
ARRIVALS = 400
UTILISATIONS = (0.5, 0.8)
SLEEP_PER_SECOND = 0.05
"""Of audio: what a stand-in takes for a model that does its work elsewhere, as on a GPU."""

SLOW_PER_SECOND = 0.15
"""What it takes where nodes are lost: so long that each fault meets requests under way."""

ANSWER_SECONDS = 60.0


# -- the model -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Load:
    """Commands arriving by chance (Poisson) at a number of replicas with one queue: M/G/c."""

    replicas: int
    per_second: float
    """Arrivals, lambda."""
    service: float
    """Mean seconds that one takes, 1 / mu."""
    variation: float
    """Squared coefficient of variation of those: 0 where all take the same (M/D/c), 1 for M/M/c."""

    @property
    def utilisation(self) -> float:
        return self.per_second * self.service / self.replicas

    @property
    def p_wait(self) -> float:
        """Erlang's C: the probability of having to wait."""
        if self.utilisation >= 1:
            return 1.0
        offered = self.per_second * self.service
        blocked = 1.0  # Erlang's B, by its recursion over servers
        for servers in range(1, self.replicas + 1):
            blocked = offered * blocked / (servers + offered * blocked)
        return blocked / (1 - self.utilisation * (1 - blocked))

    @property
    def mean_wait(self) -> float:
        """Seconds, by Allen and Cunneen's approximation; exact for one replica, and for M/M/c."""
        if self.utilisation >= 1:
            return math.inf
        idle = self.replicas * (1 - self.utilisation)
        return self.p_wait * self.service / idle * (1 + self.variation) / 2

    def wait(self, percent: float) -> float:
        """Return how many seconds `percent` of them wait at most.

        Who waits does so for an exponentially distributed time, with the mean that Allen and
        Cunneen give: exact for M/M/c, an approximation of the tail otherwise.
        """
        beyond = 1 - percent / 100
        if self.p_wait <= beyond:
            return 0.0
        return self.mean_wait / self.p_wait * math.log(self.p_wait / beyond)


def most_per_second(replicas: int, service: float, variation: float) -> float:
    """Return how many commands a second still wait no longer than MAX_WAIT_SECONDS (95 %)."""
    low, high = 0.0, replicas / service
    for _ in range(50):
        middle = (low + high) / 2
        waits = Load(replicas, middle, service, variation).wait(95)
        low, high = (middle, high) if waits <= MAX_WAIT_SECONDS else (low, middle)
    return low


def speakers(replicas: int, service: float, variation: float, per_hour: int) -> int:
    """Return how many speakers that is, each of whom says so many commands an hour."""
    return int(most_per_second(replicas, service, variation) * 3600 / per_hour)


def capacity(services: Sequence[float], variation: float, replicas: Sequence[int]) -> str:
    """Return the table: what so many replicas carry, by what a command takes."""
    head = ["seconds per command", "replicas", "utilisation", "commands/s"]
    head += [f"speakers at {n}/h" for n in COMMANDS_PER_HOUR]
    rows = []
    for service in services:
        for number in replicas:
            most = most_per_second(number, service, variation)
            row = [f"{service:g}", str(number), f"{most * service / number:.2f}", f"{most:.2f}"]
            each = [str(speakers(number, service, variation, n)) for n in COMMANDS_PER_HOUR]
            rows.append([*row, *each])
    return table(head, rows)


# -- batching ------------------------------------------------------------------------------


def batching(model: str, sizes: Sequence[int], repeats: int) -> dict[int, tuple[float, float]]:
    """Return seconds of wall and of processor per command for each batch size, medians.

    All commands of a batch are equally long here, which is the best case: of others the longest
    would set the pace.
    """
    import ctranslate2

    from wyoming_whisper.backends.pipeline import load_tokenizer
    from wyoming_whisper.models import ensure_model
    from wyoming_whisper.settings import load_settings
    from wyoming_whisper.whisper.audio import log_mel_spectrogram

    path = ensure_model(model, load_settings([], {"HOME": str(Path.home())}))
    whisper = ctranslate2.models.Whisper(str(path), compute_type="int8_float32", intra_threads=1)
    mel = log_mel_spectrogram(_clips(1)[0][: 2 * SAMPLE_RATE], whisper.n_mels)
    tokenizer = load_tokenizer(path, multilingual=whisper.is_multilingual)
    prompt = [*tokenizer.sot_sequence("en"), tokenizer.no_timestamps]
    found = {}
    for size in sizes:
        batch = np.ascontiguousarray(np.stack([mel] * size))
        run = partial(_run, whisper, batch, prompt)
        times = [_timed(run) for _ in range(repeats + 1)][1:]  # the first one allocates
        walls, cpus = zip(*times, strict=True)
        found[size] = (float(np.median(walls)) / size, float(np.median(cpus)) / size)
    return found


def _run(whisper: Any, batch: np.typing.NDArray[np.float32], prompt: list[int]) -> None:
    import ctranslate2

    features = whisper.encode(ctranslate2.StorageView.from_array(batch))
    whisper.generate(features, [prompt] * len(batch), beam_size=5, max_length=32)


def _timed(work: Callable[[], None]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


# -- replicas, driven from within the cluster ----------------------------------------------


class SleepingTranscriber:
    """Takes its time without using this machine's: as a replica with a GPU of its own would."""

    languages: tuple[str, ...] = ("en",)

    def __init__(self, per_second: float) -> None:
        self.description = f"a stand-in that sleeps {per_second:g} s per second of audio"
        self._per_second = per_second

    def transcribe(self, samples: Samples, options: TranscribeOptions) -> Transcription:
        """Return how many samples there are, after a while."""
        seconds = len(samples) / SAMPLE_RATE
        start = time.perf_counter()
        time.sleep(seconds * self._per_second)
        stages = {"sleep": time.perf_counter() - start}
        return Transcription(f"{len(samples)}", options.language, seconds=seconds, stages=stages)

    def close(self) -> None:
        """Nothing is held."""


def open_sleeping(per_second: float, _settings: Settings, _status: Status) -> Transcriber:
    """Stand for backends.open_transcriber in replicas."""
    return SleepingTranscriber(per_second)


@dataclass(frozen=True)
class Asked:
    """One request: how long its answer took, and how long of that a replica worked."""

    seconds: float
    service: float


def drive(args: argparse.Namespace) -> dict[str, Any]:
    """Deploy, and measure from one front end in this process; run on a node of the cluster."""
    replicas: int = args.replicas
    from wyoming_whisper.backends.ray import open_ray
    from wyoming_whisper.settings import load_settings

    model = str(models.stock(models.TINY))
    settings = load_settings(["--backend", "ray", "--model", model], {"HOME": str(Path.home())})
    _deploy(settings, args)
    if not args.arrivals:
        return {}
    transcriber = open_ray(settings)
    clips = _clips(20)

    def ask(number: int) -> Asked:
        start = time.perf_counter()
        options = TranscribeOptions(language="en")
        answer = transcriber.transcribe(clips[number % len(clips)], options)
        return Asked(time.perf_counter() - start, sum(answer.stages.values()))

    for number in range(10 * replicas):
        ask(number)
    alone = [ask(number) for number in range(2 * len(clips))]
    service = float(np.mean([one.service for one in alone]))
    overhead = float(np.median([one.seconds - one.service for one in alone]))
    most = _closed_loop(ask, 4 * replicas)
    found = {
        "service": service,
        "variation": float(np.var([one.service for one in alone])) / service**2,
        "overhead": overhead,
        "per_second": most,
        "open": [
            {
                "utilisation": rho,
                "per_second": rho * most,  # of what they can do, with all that Ray costs
                "waits": [
                    one.seconds - one.service - overhead
                    for one in _open_loop(ask, rho * most, args.arrivals)
                ],
            }
            for rho in UTILISATIONS
        ],
    }
    transcriber.close()
    return found


def _deploy(settings: Settings, args: argparse.Namespace) -> None:
    from wyoming_whisper.backends.ray import APP, joined
    from wyoming_whisper.cluster.commands import deployment_options
    from wyoming_whisper.cluster.replica import Replica

    with joined("auto") as ray:
        from ray import serve

        wanted = dataclasses.replace(settings, backend="auto", data_dir=(), cpu_threads=1)
        options = deployment_options((args.replicas, args.replicas), 1, 0)
        options["max_ongoing_requests"] = args.max_ongoing
        serve.start(proxy_location="Disabled")
        opener = partial(open_sleeping, args.sleep) if args.sleep else None
        application = serve.deployment(**options)(Replica).bind(wanted, opener)
        serve.run(application, name=APP, route_prefix=None)
        ray.shutdown()


def _closed_loop(ask: Callable[[int], Asked], at_once: int) -> float:
    """Return how many requests a second are answered when so many are always asked."""
    end = time.monotonic() + CLOSED_LOOP_SECONDS
    answered: list[int] = []

    def keep_asking(first: int) -> None:
        number = first
        while time.monotonic() < end:
            ask(number)
            answered.append(number)
            number += at_once

    threads = [threading.Thread(target=keep_asking, args=(n,)) for n in range(at_once)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(answered) / CLOSED_LOOP_SECONDS


def _open_loop(ask: Callable[[int], Asked], per_second: float, arrivals: int) -> list[Asked]:
    """Ask at random moments (Poisson), whatever has been answered by then."""
    chance = random.Random(1)
    at = time.monotonic()
    with ThreadPoolExecutor(128) as pool:
        asked = []
        for number in range(arrivals):
            at += chance.expovariate(per_second)
            time.sleep(max(0.0, at - time.monotonic()))
            asked.append(pool.submit(ask, number))
        return [one.result() for one in asked]


def _clips(n: int) -> list[Samples]:
    from wyoming_whisper.client import read_audio

    labels = json.loads((CLIPS / "labels.json").read_text())
    files = [CLIPS / label["file"] for label in labels if label["kind"] == "clean"]
    return [read_audio(str(file)) for file in files[:n]]


def replicas(folder: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure every number of replicas, on a cluster made for it."""
    found = []
    with ray_cluster.cluster(folder, [0, 2, 2]) as nodes:
        for sleeping in (False, True):
            for number in args.replicas:
                for ongoing in args.max_ongoing if sleeping else args.max_ongoing[-1:]:
                    print(f"{number} replicas, {ongoing} at most ...", file=sys.stderr)
                    sleep = SLEEP_PER_SECOND if sleeping else 0
                    measured = _on(nodes[0], number, ongoing, sleep, args.arrivals)
                    run = {"replicas": number, "max_ongoing": ongoing, "sleeping": sleeping}
                    found.append({**run, **measured})
    return found


def _on(
    node: ray_cluster.Node, replicas: int, ongoing: int, sleep: float, arrivals: int
) -> dict[str, Any]:
    """Have `drive` run on a node; return what it has measured."""
    out = node.run(
        *(sys.executable, "-m", "benchmarks.scaling", "drive"),
        *("--replicas", str(replicas), "--max-ongoing", str(ongoing)),
        *("--arrivals", str(arrivals), "--sleep", str(sleep)),
        seconds=900,
    )
    measured: dict[str, Any] = json.loads(out.splitlines()[-1])
    return measured


def show_replicas(found: Sequence[dict[str, Any]]) -> str:
    """Return what was measured, beside what the model says."""
    rows = []
    for run in found:
        occupied = run["replicas"] / run["per_second"]  # how long each is, by one command
        for at in run["open"]:
            load = Load(run["replicas"], at["per_second"], occupied, run["variation"])
            rows.append(
                [
                    "sleeping" if run["sleeping"] else models.TINY,
                    str(run["replicas"]),
                    str(run["max_ongoing"]),
                    milliseconds(run["service"]),
                    milliseconds(run["overhead"]),
                    f"{run['per_second']:.1f}",
                    f"{at['utilisation']:.1f}",
                    milliseconds(float(np.mean(at["waits"]))),
                    milliseconds(load.mean_wait),
                    milliseconds(percentile(at["waits"], 95)),
                    milliseconds(load.wait(95)),
                ]
            )
    head = ["replica", "replicas", "max ongoing", "service", "overhead", "most/s", "utilisation"]
    return table([*head, "wait", "model", "p95 wait", "model p95"], rows)


# -- failover ------------------------------------------------------------------------------


@dataclass
class Spoken:
    """What speakers got."""

    answers: list[tuple[float, float]] = dataclasses.field(default_factory=list)
    """(when the audio ended, seconds until its transcript)."""
    wrong: list[str] = dataclasses.field(default_factory=list)
    """Errors, and texts that differ from those before the fault."""


async def _speak(
    uri: str, clips: Sequence[tuple[Samples, str]], end: float, spoken: Spoken
) -> None:
    """Say one command after the other, in real time, until `end`."""
    number = random.randrange(len(clips))
    while time.monotonic() < end:
        samples, text = clips[number % len(clips)]
        number += 1
        try:
            heard, seconds = await asyncio.wait_for(_say_slowly(uri, samples), ANSWER_SECONDS)
        except (OSError, ValueError, asyncio.TimeoutError, asyncio.IncompleteReadError) as problem:
            spoken.wrong.append(repr(problem))
            continue
        spoken.answers.append((time.monotonic(), seconds))
        if heard != text:
            spoken.wrong.append(f"{heard!r} instead of {text!r}")


async def _say_slowly(uri: str, samples: Samples) -> tuple[str, float]:
    """Send a command as fast as it is spoken; return its transcript and how long that took."""
    from wyoming.asr import Transcript
    from wyoming.audio import AudioStop
    from wyoming.error import Error

    async with connected(uri) as client:
        due = time.monotonic()
        for event in command_events(samples, chunk_ms=100):
            await client.write_event(event)
            due += 0.1
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        await client.write_event(AudioStop().event())
        start = time.perf_counter()
        while (answer := await client.read_event()) is not None:
            if Transcript.is_type(answer.type):
                return Transcript.from_event(answer).text, time.perf_counter() - start
            if Error.is_type(answer.type):
                raise ValueError(Error.from_event(answer).text)
    raise ConnectionError("the server closed the connection without a transcript")


async def wait_for_front_end(uri: str) -> None:
    """Return when it answers. Raises TimeoutError."""
    clip = _clips(1)[0]
    end = time.monotonic() + ray_cluster.START_SECONDS
    while True:
        try:
            if (await say(uri, clip)).error is None:
                return
        except OSError:  # it does not listen yet
            pass
        if time.monotonic() > end:
            raise TimeoutError(f"{uri} does not answer")
        await asyncio.sleep(0.5)


async def under_load(
    uri: str, n_speakers: int, seconds: float, fault: Callable[[], object]
) -> tuple[Spoken, Spoken]:
    """Have people speak for `seconds`, with the fault after a third: what they got, and before."""
    clips = []
    for samples in _clips(8):
        heard = await say(uri, samples)
        clips.append((samples, heard.text))
    before, after = Spoken(), Spoken()
    now = time.monotonic()
    await asyncio.gather(
        *(_speak(uri, clips, now + seconds / 3, before) for _ in range(n_speakers))
    )
    now = time.monotonic()
    speaking = [
        asyncio.create_task(_speak(uri, clips, now + seconds * 2 / 3, after))
        for _ in range(n_speakers)
    ]
    await asyncio.sleep(seconds / 6)
    await asyncio.to_thread(fault)
    await asyncio.gather(*speaking)
    return before, after


def failover(folder: Path, n_speakers: int, seconds: float) -> list[tuple[str, Spoken, Spoken]]:
    """Lose a node in two ways; return what people got before and after."""
    found = []
    with ray_cluster.cluster(folder, [1, 1, 1]) as nodes:
        head, second, third = nodes
        _on(head, 3, MAX_ONGOING, SLOW_PER_SECOND, arrivals=0)
        server = ray_cluster.front_end(head)
        try:
            where = ray_cluster.uri(head)
            asyncio.run(wait_for_front_end(where))
            for name, fault in (("killed", second.kill), ("cut off", third.cut_off)):
                print(f"a node is {name} ...", file=sys.stderr)
                before, after = asyncio.run(under_load(where, n_speakers, seconds, fault))
                found.append((name, before, after))
        finally:
            ray_cluster.stop(server)
    return found


def show_failover(found: Sequence[tuple[str, Spoken, Spoken]]) -> str:
    """Return one row per fault."""
    rows = []
    for name, before, after in found:
        calm = [seconds for _, seconds in before.answers]
        times = [seconds for _, seconds in after.answers]
        rows.append(
            [
                name,
                str(len(after.answers) + len(after.wrong)),
                str(len(after.wrong)),
                milliseconds(percentile(calm, 50)),
                milliseconds(percentile(times, 50)),
                milliseconds(percentile(times, 95)),
                milliseconds(max(times)),
            ]
        )
    return table(["a node is", "commands", "lost", "p50 before", "p50", "p95", "slowest"], rows)


# -- the command ---------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", required=True)
    one = actions.add_parser("batching")
    models.add_model(one, models.TINY)
    one.add_argument("--sizes", type=int, nargs="*", default=[1, 2, 4, 8])
    one.add_argument("--repeats", type=int, default=15)
    one = actions.add_parser("capacity")
    one.add_argument("--service", type=float, nargs="*", default=[0.05, 0.2, 0.5, 1.0])
    one.add_argument("--variation", type=float, default=0.2)
    one.add_argument("--replicas", type=int, nargs="*", default=[1, 2, 4, 8])
    one = actions.add_parser("replicas")
    one.add_argument("--replicas", type=int, nargs="*", default=[1, 2, 4])
    one.add_argument("--max-ongoing", type=int, nargs="*", default=[1, 128])
    one.add_argument("--arrivals", type=int, default=ARRIVALS)
    one.add_argument("--json", type=Path, help="write what was measured to this file")
    one = actions.add_parser("failover")
    one.add_argument("--speakers", type=int, default=4)
    one.add_argument("--seconds", type=float, default=60.0)
    one = actions.add_parser("drive", help="one measurement, on a node of the cluster")
    one.add_argument("--replicas", type=int, required=True)
    one.add_argument("--max-ongoing", type=int, required=True)
    one.add_argument("--arrivals", type=int, default=ARRIVALS)
    one.add_argument("--sleep", type=float, default=0.0, help="seconds per second of audio")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Do what is asked for; return the exit status: 1 where a command was lost."""
    args = _parser().parse_args(argv)
    if args.action == "drive":
        print(json.dumps(drive(args)))
        return 0
    print(machine_line(machine()))
    if args.action == "batching":
        found = batching(str(args.model.resolve()), args.sizes, args.repeats)
        rows = [
            [str(size), milliseconds(wall), milliseconds(cpu)]
            for size, (wall, cpu) in found.items()
        ]
        print(table(["batch", "per command", "processor"], rows))
    elif args.action == "capacity":
        print(capacity(args.service, args.variation, args.replicas))
    else:
        return _with_cluster(args)
    return 0


def _with_cluster(args: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="wyw") as folder:
        if args.action == "replicas":
            measured = replicas(Path(folder), args)
            print(show_replicas(measured))
            write_json(args.json, {"machine": machine(), "runs": measured})
            return 0
        lost = failover(Path(folder), args.speakers, args.seconds)
    print(show_failover(lost))
    problems = [problem for _, _, after in lost for problem in after.wrong]
    print("\n".join(problems), end="", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
