"""What the TensorRT engines do on an NVIDIA GPU: the same words, and how far from its limits.

`--prepare` packs models, clips (a person's among them) and what CTranslate2 made of them into DIR.
Without it engines are built of what is in DIR, and measured, beside CTranslate2 and torch where
those are installed; that needs numpy, onnx and tensorrt-rtx or tensorrt, and no network.
`--rehearse` runs all of it on a CPU, in onnxruntime. `script/gpu` does both, and carries wheels.
"""

from __future__ import annotations

import argparse
import math
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.lib import models, report
from benchmarks.lib.beside import Beside
from benchmarks.lib.packed import WEIGHTS, Packed, prepare, read_packed, unpacked
from benchmarks.lib.report import Outcome, progress
from wyoming_whisper.commands.selftest.compare import Case, Reference
from wyoming_whisper.commands.selftest.report import Comparison, Report
from wyoming_whisper.engine.checkpoint import Checkpoint
from wyoming_whisper.engine.tensorrt.cuda import Gpu
from wyoming_whisper.engine.tensorrt.library import LIBRARIES, Library
from wyoming_whisper.whisper.audio import FRAMES_PER_POSITION, FRAMES_PER_SECOND
from wyoming_whisper.whisper.encoded import EncodedAudio
from wyoming_whisper.whisper.session import Session

MODELS = (models.TINY, models.BASE)
WINDOWS = (3, 5, 10, 30)
"""Seconds."""

BEAM_SIZE = 1
BYTES = {"float16": 2, "float32": 4}

COPIED_BYTES = 256 << 20
COPIES = 20


# -- runtimes ------------------------------------------------------------------------------


@dataclass
class Opened:
    """An engine, ready."""

    session: Session
    plain: Session | None
    """The same without CUDA graphs; None where there are none."""
    precision: str
    build_seconds: float
    open_seconds: float


@contextmanager
def rehearsed(weights: Path, folder: Path) -> Iterator[Opened]:
    """The graphs in onnxruntime."""
    from wyoming_whisper.engine.graphs import write_graphs
    from wyoming_whisper.engine.session import OracleSession

    start = time.perf_counter()
    write_graphs(Checkpoint.read(weights), folder, "float32", BEAM_SIZE)
    written = time.perf_counter()
    with closing(OracleSession(folder)) as session:
        yield Opened(session, None, "float32", written - start, time.perf_counter() - written)


@contextmanager
def compiled(runtime: str, weights: Path, folder: Path) -> Iterator[Opened]:
    """The graphs on TensorRT or TensorRT-RTX, with and without CUDA graphs."""
    from wyoming_whisper.engine.builder import EngineBuild
    from wyoming_whisper.engine.progress import BuildProgress
    from wyoming_whisper.engine.spec import BuildRequest
    from wyoming_whisper.engine.tensorrt.session import TensorRTSession

    timings = folder.parent / "timings.cache"
    request = BuildRequest(
        str(weights), str(folder), str(timings), runtime=runtime, beam_size=BEAM_SIZE
    )
    phases = set[str]()

    def show(build: BuildProgress) -> None:
        if build.phase not in phases:
            phases.add(build.phase)
            progress(f"  {build.phase}, {build.seconds:.0f} s")

    start = time.perf_counter()
    EngineBuild(request, show).run()
    built = time.perf_counter()
    with closing(TensorRTSession(folder)) as session:
        seconds = time.perf_counter() - built
        with closing(TensorRTSession(folder, cuda_graphs=False)) as plain:
            yield Opened(session, plain, request.precision, built - start, seconds)


def bandwidth() -> float:
    """Return bytes per second that the GPU reads and writes, copying its own memory."""
    from wyoming_whisper.engine.tensorrt.cuda import Device

    with ExitStack() as stack:
        device = stack.enter_context(Device())
        device.use()
        size = min(COPIED_BYTES, device.memory_info()[0] // 4)
        source, target = (stack.enter_context(device.allocate(size)) for _ in range(2))
        stream = stack.enter_context(device.stream())
        begin, end = (stack.enter_context(device.event(timing=True)) for _ in range(2))
        stream.copy(target.handle, source.handle, size)
        stream.record(begin)
        for _ in range(COPIES):
            stream.copy(target.handle, source.handle, size)
        stream.record(end)
        end.synchronize()
        return 2 * COPIES * size / (end.milliseconds_since(begin) / 1000)


# -- what is measured ----------------------------------------------------------------------


@dataclass(frozen=True)
class Window:
    """Medians of the stages in one window, each waited for."""

    seconds: int
    stages: dict[str, float]
    plain_step: float | None
    """Without CUDA graphs."""
    step_bytes: float
    """What a step reads at least: weights, the audio's keys and values, the cache."""


@dataclass(frozen=True)
class Measured:
    """One model."""

    name: str
    precision: str
    build_seconds: float
    open_seconds: float
    comparisons: list[Comparison]
    windows: list[Window]
    beside: list[Beside]

    @property
    def failures(self) -> list[str]:
        wrong = [f"{self.name}: {c.name}: {c.verdict}" for c in self.comparisons if not c.good]
        if not any(c.verdict == "same" and c.reference.tokens for c in self.comparisons):
            wrong.append(f"{self.name}: no clip with words in it came out the same")
        return wrong


def measure(packed: Packed, opened: Opened, weights: Path, runs: int, device: str) -> Measured:
    """Compare with CTranslate2, with CUDA graphs and without; then time, and what else is there."""
    progress("  comparing with CTranslate2")
    reference = Reference(
        packed.tokenizer, packed.suppressed_begin, packed.cases, packed.references
    )
    comparisons = [
        comparison
        for session in (opened.session, opened.plain)
        if session is not None
        for comparison in reference.compare_session(session, opened.precision)
    ]
    size, windows = Size.of(weights), list[Window]()
    slots = next(n for n in EncodedAudio.SLOTS if n >= len(packed.full.prompt) + Case.TIMED_STEPS)
    for seconds in WINDOWS:
        progress(f"  timing windows of {seconds} s")
        mel = np.ascontiguousarray(packed.full.mel[:, : seconds * FRAMES_PER_SECOND])
        case = Case(packed.full.name, mel, packed.full.prompt)
        least = size.step_bytes(mel.shape[1] // FRAMES_PER_POSITION, slots, BYTES[opened.precision])
        plain = timed(opened.plain, case, packed, runs)["step"] if opened.plain else None
        windows.append(Window(seconds, timed(opened.session, case, packed, runs), plain, least))
    return Measured(
        packed.name,
        opened.precision,
        opened.build_seconds,
        opened.open_seconds,
        comparisons,
        windows,
        Beside.all_of(packed, weights.parent, device, runs),
    )


def timed(session: Session, case: Case, packed: Packed, runs: int) -> dict[str, float]:
    """Return the medians of so many runs of the selftest's timing."""
    found = [case.time_stages(session, packed.tokenizer) for _ in range(runs)]
    return {stage: median(one[stage] for one in found) for stage in found[0]}


@dataclass(frozen=True)
class Size:
    """What a model's work follows from."""

    width: int
    decoder_layers: int
    n_vocab: int

    @classmethod
    def of(cls, weights: Path) -> Size:
        checkpoint = Checkpoint.read(weights)
        names = [*checkpoint.variables, *checkpoint.aliases]
        layers = {m[0] for name in names if (m := re.match(r"decoder/layer_\d+", name))}
        n_vocab, width = checkpoint["decoder/embeddings/weight"].shape
        return cls(width, len(layers), n_vocab)

    def step_bytes(self, n_ctx: int, n_slots: int, item: int) -> float:
        """Of a step that reads everything once; the cache is read and written anew."""
        weights = self.decoder_layers * 14 * self.width**2 + self.n_vocab * self.width
        audio = self.decoder_layers * 2 * n_ctx * self.width
        cache = self.decoder_layers * 2 * 2 * n_slots * self.width
        return float(item * (weights + audio + cache))


# -- the suite -----------------------------------------------------------------------------


def stages_table(results: Sequence[Measured], bandwidth: float | None) -> str:
    """Return the times of all windows, beside what reading everything once would take."""
    head = ["model", "window", "encode", "prefill", "step", "step, no CUDA graphs"]
    rows = []
    for model in results:
        for window in model.windows:
            floor = window.step_bytes / bandwidth if bandwidth else math.nan
            stages, plain = window.stages, window.plain_step
            rows.append(
                [
                    model.name,
                    f"{window.seconds} s",
                    *map(report.milliseconds, stages.values()),
                    report.NOTHING if plain is None else report.milliseconds(plain),
                    report.milliseconds(floor) if bandwidth else report.NOTHING,
                    report.times(stages["step"], floor) if bandwidth else report.NOTHING,
                ]
            )
    return report.table([*head, "floor", "step / floor"], rows)


def comparisons_table(results: Sequence[Measured]) -> str:
    """Return what was heard of each clip, beside what CTranslate2 heard."""
    head = ["model", "clip", "window", "tokens", "verdict", "avg_logprob apart", "text"]
    rows = [
        [
            model.name,
            one.name,
            f"{one.window_seconds:.0f} s",
            str(len(one.engine.tokens)),
            one.verdict,
            one.apart,
            one.text,
        ]
        for model in results
        for one in model.comparisons
    ]
    return report.table(head, rows)


def beside_table(results: Sequence[Measured]) -> str:
    """Return what a clip takes, encoding and decoding, here and on the other runtimes."""
    rows = []
    for model in results:
        clips = list(dict.fromkeys(c.name for c in model.comparisons))
        first = model.comparisons[: len(clips)]  # with CUDA graphs; then the same without
        ours = {c.name: c.engine.encode + c.engine.decode for c in first}
        same = sum(c.verdict == "same" for c in first)
        told = [Beside("this engine", "", ours, same), *model.beside]
        for one in told:
            times = [report.milliseconds(one.seconds[c]) for c in clips if one.seconds]
            times = times or [report.NOTHING] * len(clips)
            rows.append([model.name, one.runtime, *times, one.why_not or f"{one.n_same}"])
    return report.table(["model", "runtime", *clips, "same tokens"], rows)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="what --prepare wrote")
    parser.add_argument("--prepare", action="store_true", help="write DIR, on a machine with all")
    parser.add_argument("--runtime", choices=tuple(LIBRARIES), help="default: the GPU's best")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, in onnxruntime")
    # Not of lib/options.py, which needs packages that a bare machine has not.
    parser.add_argument("--models", type=lambda text: text.split(","), default=MODELS)
    parser.add_argument("--runs", type=int, default=7, help="each the median of three (default: 7)")
    about = "of the GPU's memory, for the floor (default: measured by copying)"
    parser.add_argument("--bandwidth", type=float, metavar="GB/S", help=about)


def run(args: argparse.Namespace) -> Outcome:
    """Prepare, or measure; an engine that heard something else is a failure."""
    if args.prepare:
        prepare(args.folder, args.models)
        return Outcome([f"{', '.join(args.models)} in {args.folder}"], {})
    opening: Callable[[Path, Path], AbstractContextManager[Opened]] = rehearsed
    machine, rate = Report.of_machine(), args.bandwidth * 1e9 if args.bandwidth else None
    if not args.rehearse:
        library, version = Library.find(Gpu.all()[0], args.runtime or "")
        machine[library.name] = version
        rate = rate or bandwidth()
        opening = partial(compiled, library.runtime)
    results, device = list[Measured](), "cpu" if args.rehearse else "cuda"
    for name in args.models:
        progress(name)
        packed = read_packed(args.folder / name)
        with tempfile.TemporaryDirectory() as work:
            weights = unpacked(args.folder / name / WEIGHTS, Path(work))
            engine = Path(work, "engine")
            engine.mkdir()
            with opening(weights, engine) as opened:
                results.append(measure(packed, opened, weights, args.runs, device))
    lines = [f"- {name}: {value}" for name, value in machine.items()]
    if args.rehearse:
        lines.append("- a rehearsal on the CPU in onnxruntime: nothing here is a GPU's time")
    if rate:
        lines.append(f"- memory: {rate / 1e9:.0f} GB/s")
    for model in results:
        built = f"built in {model.build_seconds:.1f} s, opened in {model.open_seconds:.2f} s"
        lines.append(f"- {model.name}, {model.precision}: {built}")
    failures = [failure for model in results for failure in model.failures]
    shown = ["\n".join(lines), stages_table(results, rate)]
    shown += [beside_table(results), comparisons_table(results)]
    facts = {"machine": machine, "bandwidth": rate, "models": [asdict(one) for one in results]}
    return Outcome([*shown, "FAILED" if failures else "PASSED"], facts, failures)
