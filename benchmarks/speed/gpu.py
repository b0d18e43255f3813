"""What the TensorRT engines do on an NVIDIA GPU: the same words, and how far from its limits.

`--prepare` packs models, clips and what CTranslate2 made of them into DIR. Without it engines are
built of what is in DIR, and measured; that needs Python 3.10, numpy, onnx and tensorrt, nothing
else, and no network. `--rehearse` runs all of it on a CPU, in onnxruntime.
"""

from __future__ import annotations

import argparse
import math
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.lib import models, report
from benchmarks.lib.packed import WEIGHTS, Packed, prepare, read_packed, unpacked
from benchmarks.lib.report import Outcome, progress
from wyoming_whisper.commands.selftest import machine as machine_module
from wyoming_whisper.commands.selftest.compare import compare
from wyoming_whisper.commands.selftest.report import Comparison
from wyoming_whisper.engine.checkpoint import read
from wyoming_whisper.whisper.audio import FRAMES_PER_POSITION
from wyoming_whisper.whisper.search import SLOTS
from wyoming_whisper.whisper.session import Session

MODELS = (models.TINY, models.BASE)
WINDOWS = (3, 5, 10, 30)
"""Seconds."""

RUNS = 20
REHEARSAL_RUNS = 2
STEPS = 40
WARM_STEPS = 3
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
    prepare_seconds: float
    open_seconds: float


@contextmanager
def rehearsed(weights: Path, folder: Path) -> Iterator[Opened]:
    """The graphs in onnxruntime."""
    from wyoming_whisper.engine.graphs import write_graphs
    from wyoming_whisper.engine.session import OnnxSession

    start = time.perf_counter()
    write_graphs(read(weights), folder, "float32", BEAM_SIZE)
    written = time.perf_counter()
    with closing(OnnxSession(folder)) as session:
        seconds = time.perf_counter() - written
        yield Opened(
            session=session,
            plain=None,
            precision="float32",
            prepare_seconds=written - start,
            open_seconds=seconds,
        )


@contextmanager
def compiled(weights: Path, folder: Path) -> Iterator[Opened]:
    """The graphs on TensorRT, with and without CUDA graphs."""
    from wyoming_whisper.engine.builder import EngineBuild
    from wyoming_whisper.engine.progress import BuildProgress
    from wyoming_whisper.engine.spec import BuildRequest
    from wyoming_whisper.engine.tensorrt.session import TensorRTSession

    timings = folder.parent / "timings.cache"
    request = BuildRequest(str(weights), str(folder), str(timings), beam_size=BEAM_SIZE)
    shown = ""

    def show(build: BuildProgress) -> None:
        nonlocal shown
        if build.phase != shown:
            shown = build.phase
            progress(f"  {build.phase}, {build.seconds:.0f} s")

    start = time.perf_counter()
    EngineBuild(request, show).run()
    built = time.perf_counter()
    with ExitStack() as stack:
        session = stack.enter_context(closing(TensorRTSession(folder)))
        opened = time.perf_counter()
        plain = stack.enter_context(closing(TensorRTSession(folder, cuda_graphs=False)))
        yield Opened(
            session=session,
            plain=plain,
            precision=request.precision,
            prepare_seconds=built - start,
            open_seconds=opened - built,
        )


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
class Times:
    """Seconds."""

    median: float
    p95: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Times:
        return cls(median(values), report.percentile(values, 95))


@dataclass(frozen=True)
class Stage:
    """A window's stages; each waited for."""

    window_seconds: int
    encode: Times
    prefill: Times
    step: Times
    step_bytes: float
    """What a step reads at least: weights, the audio's keys and values, the cache."""


@dataclass(frozen=True)
class Loops:
    """The same text by CUDA graphs and without."""

    same_tokens: bool
    logprobs_apart: float
    graphs: Times
    plain: Times
    """Per step."""


@dataclass
class Measured:
    """One model."""

    name: str
    precision: str
    prepare_seconds: float
    open_seconds: float
    comparisons: list[Comparison]
    stages: list[Stage]
    loops: Loops | None

    @property
    def failures(self) -> list[str]:
        found = [f"{self.name}: {c.name}: {c.verdict}" for c in self.comparisons if not c.good]
        if not any(c.verdict == "same" and c.reference.tokens for c in self.comparisons):
            found.append(f"{self.name}: no clip with words in it came out the same")
        # float16 of another kernel may round otherwise; the same kernels may not.
        if self.loops and not (self.loops.same_tokens and self.loops.logprobs_apart <= 1e-5):
            found.append(f"{self.name}: CUDA graphs give something else than the plain loop")
        return found


def measure(packed: Packed, opened: Opened, weights: Path, runs: int) -> Measured:
    """Compare, then time."""
    progress("  comparing with CTranslate2")
    session = opened.session
    comparisons = compare(
        *(session, opened.precision, packed.cases, packed.references, packed.tokenizer),
        packed.suppressed_begin,
    )
    stages = []
    for seconds in WINDOWS:
        progress(f"  timing windows of {seconds} s")
        stages.append(time_window(session, packed, seconds, runs, weights, opened.precision))
    loops = None
    if opened.plain is not None:
        progress("  comparing CUDA graphs with the plain loop")
        loops = compare_loops(session, opened.plain, packed, runs)
    return Measured(
        name=packed.name,
        precision=opened.precision,
        prepare_seconds=opened.prepare_seconds,
        open_seconds=opened.open_seconds,
        comparisons=comparisons,
        stages=stages,
        loops=loops,
    )


def time_window(
    session: Session, packed: Packed, seconds: int, runs: int, weights: Path, precision: str
) -> Stage:
    """Time each stage so often, and once more before that, which isn't counted."""
    mel = packed.window(seconds)
    wait = waiting(session)
    encode: list[float] = []
    prefill: list[float] = []
    step: list[float] = []
    for run in range(runs + 1):
        wait()
        start = time.perf_counter()
        features = session.encode(mel)
        wait()
        encoded = time.perf_counter()
        first, text = spoken(session, features, packed)
        if run:
            encode.append(encoded - start)
            prefill.append(first)
            step += text[WARM_STEPS:]
    size = Size.of(weights)
    n_ctx = mel.shape[1] // FRAMES_PER_POSITION
    return Stage(
        seconds,
        Times.of(encode),
        Times.of(prefill),
        Times.of(step),
        size.step_bytes(n_ctx, slots_for(packed), BYTES[precision]),
    )


def spoken(
    session: Session, features: Any, packed: Packed, said: list[tuple[int, float]] | None = None
) -> tuple[float, list[float]]:
    """Return seconds of the prefill and of each of STEPS steps; `said` gets (token, logprob)."""
    bias = session.bias([packed.tokens.eot, *packed.tokens.suppressed_tokens])
    prompt = np.array([packed.prompt], np.int32)
    cache = session.open_cache(features, 1, slots_for(packed))
    waiting(session)()
    times = [time.perf_counter()]
    token = int(session.step(cache, prompt, 0, bias).best()[0][0])
    times.append(time.perf_counter())
    for found in session.greedy(cache, token, prompt.shape[1], bias, STEPS):
        times.append(time.perf_counter())
        if said is not None:
            said.append(found)
    first, *rest = np.diff(times).tolist()
    return first, rest


def waiting(session: Session) -> Callable[[], None]:
    """Return what waits until the session has done what it was asked for."""
    wait: Callable[[], None] = getattr(session, "synchronize", lambda: None)
    return wait


def slots_for(packed: Packed) -> int:
    return next(n for n in SLOTS if n >= len(packed.prompt) + STEPS)


def compare_loops(session: Session, plain: Session, packed: Packed, runs: int) -> Loops:
    """Have both write the same text, turn and turn about."""
    said: tuple[list[tuple[int, float]], ...] = ([], [])
    steps: tuple[list[float], ...] = ([], [])
    for run in range(runs + 1):
        for i, each in enumerate((session, plain)):
            _, times = spoken(each, each.encode(packed.window(WINDOWS[1])), packed, said[i])
            steps[i].extend(times[WARM_STEPS:] if run else ())
    (ours, logprobs), (theirs, others) = (zip(*found, strict=True) for found in said)
    apart = float(np.max(np.abs(np.subtract(logprobs, others))))
    return Loops(ours == theirs, apart, Times.of(steps[0]), Times.of(steps[1]))


@dataclass(frozen=True)
class Size:
    """What a model's work follows from."""

    width: int
    decoder_layers: int
    n_vocab: int

    @classmethod
    def of(cls, weights: Path) -> Size:
        checkpoint = read(weights)
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


@dataclass
class Results:
    """What is written."""

    machine: dict[str, str]
    bandwidth: float | None
    """Bytes per second; None where nobody knows."""
    rehearsal: bool
    models: list[Measured] = field(default_factory=list)

    @property
    def failures(self) -> list[str]:
        return [failure for model in self.models for failure in model.failures]


def measured(args: argparse.Namespace) -> Results:
    """Measure every model. Raises WyomingWhisperError."""
    machine, rate = machine_module.machine(), args.bandwidth * 1e9 if args.bandwidth else None
    if not args.rehearse:
        from wyoming_whisper.engine.tensorrt.library import import_tensorrt

        machine["TensorRT"] = import_tensorrt().__version__
        rate = rate or bandwidth()
    results = Results(machine, rate, args.rehearse)
    runs = args.runs or (REHEARSAL_RUNS if args.rehearse else RUNS)
    opening = rehearsed if args.rehearse else compiled
    for name in args.models:
        progress(name)
        packed = read_packed(args.folder / name)
        with tempfile.TemporaryDirectory() as work:
            weights = unpacked(args.folder / name / WEIGHTS, Path(work))
            engine = Path(work, "engine")
            engine.mkdir()
            with opening(weights, engine) as opened:
                results.models.append(measure(packed, opened, weights, runs))
    return results


def as_text(results: Results) -> str:
    """Return the tables."""
    lines = [f"- {name}: {value}" for name, value in results.machine.items()]
    if results.rehearsal:
        lines.append("- a rehearsal on the CPU in onnxruntime: nothing here is a GPU's time")
    if results.bandwidth:
        lines.append(f"- memory: {results.bandwidth / 1e9:.0f} GB/s")
    for model in results.models:
        built = f"built in {model.prepare_seconds:.1f} s, opened in {model.open_seconds:.2f} s"
        lines.append(f"- {model.name}, {model.precision}: {built}")
    head = ["model", "window", "encode", "95 %", "prefill", "95 %", "step", "95 %"]
    head += ["floor", "step / floor"]
    rows = [_stage_row(results, model, stage) for model in results.models for stage in model.stages]
    verdict = "FAILED: " + "; ".join(results.failures) if results.failures else "PASSED"
    tables = [report.table(head, rows), _loops(results), _compared(results)]
    return "\n\n".join(part for part in ["\n".join(lines), *tables, verdict] if part)


def _stage_row(results: Results, model: Measured, stage: Stage) -> list[str]:
    floor = stage.step_bytes / results.bandwidth if results.bandwidth else math.nan
    known = results.bandwidth is not None
    times = (stage.encode, stage.prefill, stage.step)
    return [
        model.name,
        f"{stage.window_seconds} s",
        *(report.milliseconds(t) for each in times for t in (each.median, each.p95)),
        report.milliseconds(floor) if known else report.NOTHING,
        report.times(stage.step.median, floor) if known else report.NOTHING,
    ]


def _loops(results: Results) -> str:
    head = ["model", "step, CUDA graphs", "95 %", "step, plain", "95 %", "plain / graphs"]
    head += ["same tokens", "log-probabilities apart"]
    rows = [
        [
            model.name,
            *(report.milliseconds(t) for t in (found.graphs.median, found.graphs.p95)),
            *(report.milliseconds(t) for t in (found.plain.median, found.plain.p95)),
            report.times(found.plain.median, found.graphs.median),
            "yes" if found.same_tokens else "NO",
            f"{found.logprobs_apart:.1e}",
        ]
        for model in results.models
        if (found := model.loops)
    ]
    return report.table(head, rows) if rows else ""


def _compared(results: Results) -> str:
    head = ["model", "clip", "window", "tokens", "verdict", "avg_logprob apart", "text"]
    rows = [
        [
            model.name,
            found.name,
            f"{found.window_seconds:.0f} s",
            str(len(found.engine.tokens)),
            found.verdict,
            found.apart,
            found.text,
        ]
        for model in results.models
        for found in model.comparisons
    ]
    return report.table(head, rows)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="what --prepare wrote")
    parser.add_argument("--prepare", action="store_true", help="write DIR, on a machine with all")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, in onnxruntime")
    parser.add_argument(
        "--models",
        type=lambda text: tuple(text.split(",")),
        default=MODELS,
        metavar="LIST",
        help=f"stock models' names (default: {','.join(MODELS)})",
    )
    parser.add_argument("--runs", type=int, metavar="N", help=f"default: {RUNS}")
    parser.add_argument(
        "--bandwidth",
        type=float,
        metavar="GB/S",
        help="of the GPU's memory, for the floor (default: measured by copying)",
    )


def run(args: argparse.Namespace) -> Outcome:
    """Prepare, or measure; an engine that heard something else is a failure."""
    if args.prepare:
        prepare(args.folder, args.models)
        return Outcome([f"{', '.join(args.models)} in {args.folder}"], {})
    results = measured(args)
    failures = results.failures
    passed = bool(results.models) and not failures
    facts = {"passed": passed, "failures": failures, **asdict(results)}
    return Outcome([as_text(results)], facts, failures)
