"""What the TensorRT engines do on an NVIDIA GPU: the same words, and how far from its limits.

`python -m benchmarks.gpu --prepare DIR` packs models, clips and what CTranslate2 made of them.
`python -m benchmarks.gpu DIR` then builds engines and measures; it needs Python 3.10, numpy, onnx
and tensorrt, nothing else, and no network. `--rehearse` runs all of it on a CPU, in onnxruntime.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import lzma
import math
import platform
import re
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, cast

import numpy as np

from benchmarks import models, report
from wyoming_whisper.commands.selftest import machine as machine_module
from wyoming_whisper.commands.selftest.cases import Case, make_cases
from wyoming_whisper.commands.selftest.compare import compare, hear
from wyoming_whisper.commands.selftest.machine import resident_bytes, versions
from wyoming_whisper.commands.selftest.reference import open_reference
from wyoming_whisper.commands.selftest.report import Comparison, Heard
from wyoming_whisper.engine.checkpoint import read
from wyoming_whisper.errors import WyomingWhisperError
from wyoming_whisper.machine import cpu_name
from wyoming_whisper.whisper.audio import FRAMES_PER_POSITION, FRAMES_PER_SECOND, Array
from wyoming_whisper.whisper.search import SLOTS
from wyoming_whisper.whisper.session import Session
from wyoming_whisper.whisper.tokenizer import Tokenizer

MODELS = (models.TINY, models.BASE)
WINDOWS = (3, 5, 10, 30)
"""Seconds."""

RUNS = 20
REHEARSAL_RUNS = 2
STEPS = 40
WARM_STEPS = 3
BEAM_SIZE = 1
TIMES = ("median", "p95")
BYTES = {"float16": 2, "float32": 4}

COPIED_BYTES = 256 << 20
COPIES = 20

_COMPRESSION = [{"id": lzma.FILTER_LZMA2, "preset": 1}]

WEIGHTS, FACTS, MELS = "model.bin.xz", "facts.json", "mels.npz"


class BenchmarkError(WyomingWhisperError):
    """The folder is not what --prepare writes, or nothing can be measured."""


# -- what is packed ------------------------------------------------------------------------


@dataclass(frozen=True)
class Tokens:
    """What of a Tokenizer decoding needs, without its text."""

    eot: int
    sot: int
    no_speech: int
    no_timestamps: int
    suppressed_tokens: list[int]
    texts: list[tuple[list[int], str]]
    """Of what CTranslate2 heard."""

    def decode(self, tokens: Sequence[int]) -> str:
        return next((text for known, text in self.texts if known == list(tokens)), "(other words)")


@dataclass(frozen=True)
class Packed:
    """One model's folder."""

    name: str
    tokens: Tokens
    suppressed_begin: list[int]
    cases: list[Case]
    references: list[Heard]
    ctranslate2: str
    """Its version, and the machine that the references come from."""

    @property
    def tokenizer(self) -> Tokenizer:
        return cast("Tokenizer", self.tokens)

    def window(self, seconds: int) -> Array:
        """Return the first clip in a window of this length, shape = (n_mels, n_frames)."""
        return np.ascontiguousarray(self._full.mel[:, : seconds * FRAMES_PER_SECOND])

    @property
    def prompt(self) -> tuple[int, ...]:
        return self._full.prompt

    @property
    def _full(self) -> Case:
        return max(self.cases, key=lambda case: case.mel.shape[1])


def prepare(folder: Path, names: Sequence[str]) -> None:
    """Write a folder for each model; needs all that the tests need."""
    from wyoming_whisper.backends.pipeline import decoding_options
    from wyoming_whisper.settings import Settings

    for name in names:
        say(f"{name}: weights")
        path, target = models.stock(name), folder / name
        target.mkdir(parents=True, exist_ok=True)
        options = {"format": lzma.FORMAT_XZ, "filters": _COMPRESSION}
        with (
            (path / "model.bin").open("rb") as weights,
            lzma.open(target / WEIGHTS, "wb", **options) as packed,  # type: ignore[call-overload]
        ):
            shutil.copyfileobj(weights, packed, 1 << 20)
        context = decoding_options(Settings(), path, 1).audio_context
        say(f"{name}: CTranslate2 hears the clips in float32")
        _pack(target, name, path, context)


def _pack(target: Path, name: str, path: Path, context: Any) -> None:
    from wyoming_whisper.models import suppressed_begin

    with open_reference(path) as reference:
        tokenizer = reference.tokenizer
        cases = make_cases(reference.inference.n_mels, tokenizer, context)
        heard = [hear(reference.inference, case, tokenizer) for case in cases]
    tokens = Tokens(
        eot=tokenizer.eot,
        sot=tokenizer.sot,
        no_speech=tokenizer.no_speech,
        no_timestamps=tokenizer.no_timestamps,
        suppressed_tokens=tokenizer.suppressed_tokens,
        texts=[(list(h.tokens), tokenizer.decode(h.tokens).strip()) for h in heard],
    )
    facts = {
        "name": name,
        "ctranslate2": f"{versions()['ctranslate2']} on {cpu_name()}",
        "tokens": asdict(tokens),
        "suppressed_begin": suppressed_begin(path),
        "cases": [{"name": case.name, "prompt": case.prompt} for case in cases],
        "heard": [asdict(h) for h in heard],
    }
    (target / FACTS).write_text(json.dumps(facts, indent=1), encoding="utf-8")
    np.savez_compressed(target / MELS, *(case.mel for case in cases))


def read_packed(folder: Path) -> Packed:
    """Return what `prepare` wrote of one model. Raises BenchmarkError."""
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        with (folder / MELS).open("rb") as file, np.load(file) as mels:
            arrays = [mels[f"arr_{i}"] for i in range(len(facts["cases"]))]
        return Packed(
            name=facts["name"],
            tokens=Tokens(**facts["tokens"]),
            suppressed_begin=facts["suppressed_begin"],
            cases=[
                Case(case["name"], mel, tuple(case["prompt"]))
                for case, mel in zip(facts["cases"], arrays, strict=True)
            ],
            references=[Heard(**{**h, "tokens": tuple(h["tokens"])}) for h in facts["heard"]],
            ctranslate2=facts["ctranslate2"],
        )
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise BenchmarkError(
            f"{folder} is not a model that --prepare packed ({error}); run it again"
        ) from error


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
    sizes: dict[str, int]
    """Bytes of the files."""
    memory: Callable[[], dict[str, int]]


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
            sizes=_sizes(folder, "*.onnx*"),
            memory=lambda: {"process": resident_bytes()},
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

    def show(progress: BuildProgress) -> None:
        nonlocal shown
        if progress.phase != shown:
            shown = progress.phase
            say(f"  {progress.phase}, {progress.seconds:.0f} s")

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
            sizes=_sizes(folder, "*.plan"),
            memory=lambda: {
                "process": resident_bytes(),
                "GPU, held by one session": session.memory_bytes(),
                "GPU, in use by all": _used_bytes(),
            },
        )


def _sizes(folder: Path, pattern: str) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in sorted(folder.glob(pattern))}


def _used_bytes() -> int:
    from wyoming_whisper.engine.tensorrt.cuda import Device

    with Device() as device:
        device.use()
        free, total = device.memory_info()
    return total - free


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
    encoder_operations: float
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
    sizes: dict[str, int]
    comparisons: list[Comparison]
    stages: list[Stage]
    loops: Loops | None
    memory: dict[str, int]

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
    say("  comparing with CTranslate2")
    session = opened.session
    comparisons = compare(
        *(session, opened.precision, packed.cases, packed.references, packed.tokenizer),
        packed.suppressed_begin,
    )
    stages = []
    for seconds in WINDOWS:
        say(f"  timing windows of {seconds} s")
        stages.append(time_window(session, packed, seconds, runs, weights, opened.precision))
    loops = None
    if opened.plain is not None:
        say("  comparing CUDA graphs with the plain loop")
        loops = compare_loops(session, opened.plain, packed, runs)
    return Measured(
        name=packed.name,
        precision=opened.precision,
        prepare_seconds=opened.prepare_seconds,
        open_seconds=opened.open_seconds,
        sizes=opened.sizes,
        comparisons=comparisons,
        stages=stages,
        loops=loops,
        memory=opened.memory(),
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
        size.encoder_operations(n_ctx),
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

    n_mels: int
    width: int
    encoder_layers: int
    decoder_layers: int
    n_vocab: int

    @classmethod
    def of(cls, weights: Path) -> Size:
        checkpoint = read(weights)
        width, n_mels, _ = checkpoint["encoder/conv1/weight"].shape
        names = [*checkpoint.variables, *checkpoint.aliases]
        layers = {m[0] for name in names if (m := re.match(r"(en|de)coder/layer_\d+", name))}
        n_encoder = sum(name.startswith("en") for name in layers)
        n_vocab = checkpoint["decoder/embeddings/weight"].shape[0]
        return cls(n_mels, width, n_encoder, len(layers) - n_encoder, n_vocab)

    def encoder_operations(self, n_ctx: int) -> float:
        """Of convolutions, layers, and the cross-attention's keys and values."""
        d, n = self.width, n_ctx
        convolutions = 2 * 3 * d * (2 * n * self.n_mels + n * d)
        layers = self.encoder_layers * (24 * d * d * n + 4 * d * n * n)
        return float(convolutions + layers + self.decoder_layers * 4 * d * d * n)

    def step_bytes(self, n_ctx: int, n_slots: int, item: int) -> float:
        """Of a step that reads everything once; the cache is read and written anew."""
        weights = self.decoder_layers * 14 * self.width**2 + self.n_vocab * self.width
        audio = self.decoder_layers * 2 * n_ctx * self.width
        cache = self.decoder_layers * 2 * 2 * n_slots * self.width
        return float(item * (weights + audio + cache))


# -- the yardstick -------------------------------------------------------------------------


def yardstick(packed: Packed, weights: Path, runs: int, rehearsal: bool) -> dict[str, Any] | str:
    """Return times of a plain decoding loop in torch on the same clips, or why there are none."""
    try:
        from benchmarks import torch_loop
    except ImportError as error:
        return f"not run: torch is not here ({error})"
    if not rehearsal and not torch_loop.has_gpu():
        return "not run: this torch sees no GPU"
    say("  the same in torch, a plain loop")
    found: dict[str, Any] = torch_loop.measure(
        packed, weights, runs, WINDOWS, STEPS, WARM_STEPS, rehearsal
    )
    return found


# -- the command ---------------------------------------------------------------------------


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@dataclass
class Results:
    """What is written."""

    machine: dict[str, str]
    bandwidth: float | None
    """Bytes per second; None where nobody knows."""
    rehearsal: bool
    models: list[Measured] = field(default_factory=list)
    torch: dict[str, dict[str, Any] | str] = field(default_factory=dict)
    """By model; or why there is none."""

    @property
    def failures(self) -> list[str]:
        return [failure for model in self.models for failure in model.failures]


def run(args: argparse.Namespace) -> Results:
    """Measure every model. Raises WyomingWhisperError."""
    machine, rate = machine_module.machine(), args.bandwidth * 1e9 if args.bandwidth else None
    if not (args.rehearse or args.only_torch):
        from wyoming_whisper.engine.tensorrt.library import import_tensorrt

        machine["TensorRT"] = import_tensorrt().__version__
        rate = rate or bandwidth()
    results = Results(machine, rate, args.rehearse)
    runs = args.runs or (REHEARSAL_RUNS if args.rehearse else RUNS)
    opening = rehearsed if args.rehearse else compiled
    for name in args.models:
        say(name)
        packed = read_packed(args.folder / name)
        with tempfile.TemporaryDirectory() as work:
            weights = _unpacked(args.folder / name / WEIGHTS, Path(work))
            engine = Path(work, "engine")
            engine.mkdir()
            if not args.only_torch:
                with opening(weights, engine) as opened:
                    results.models.append(measure(packed, opened, weights, runs))
            results.torch[name] = yardstick(packed, weights, runs, args.rehearse)
    return results


def _unpacked(file: Path, folder: Path) -> Path:
    target = folder / "model.bin"
    try:
        with lzma.open(file) as packed, target.open("wb") as weights:
            shutil.copyfileobj(packed, weights, 1 << 20)
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise BenchmarkError(f"{file} can't be unpacked ({error}); run --prepare again") from error
    return target


def as_text(results: Results) -> str:
    """Return the tables."""
    lines = [f"- {name}: {value}" for name, value in results.machine.items()]
    if results.rehearsal:
        lines.append("- a rehearsal on the CPU in onnxruntime: nothing here is a GPU's time")
    if results.bandwidth:
        lines.append(f"- memory: {results.bandwidth / 1e9:.0f} GB/s")
    head = ["model", "window", "encode", "95 %", "prefill", "95 %", "step", "95 %"]
    head += ["TFLOP/s", "floor", "step / floor"]
    rows = [_stage_row(results, model, stage) for model in results.models for stage in model.stages]
    parts = ["\n".join(lines)]
    if results.models:
        parts += [report.table(head, rows), _built(results), _loops(results), _compared(results)]
    parts.append(_torch(results))
    if results.models:
        failures = results.failures
        parts.append("FAILED: " + "; ".join(failures) if failures else "PASSED")
    return "\n\n".join(part for part in parts if part)


def _stage_row(results: Results, model: Measured, stage: Stage) -> list[str]:
    floor = stage.step_bytes / results.bandwidth if results.bandwidth else math.nan
    known = results.bandwidth is not None
    times = (stage.encode, stage.prefill, stage.step)
    return [
        model.name,
        f"{stage.window_seconds} s",
        *(report.milliseconds(t) for each in times for t in (each.median, each.p95)),
        f"{stage.encoder_operations / stage.encode.median / 1e12:.2f}",
        report.milliseconds(floor) if known else report.NOTHING,
        report.times(stage.step.median, floor) if known else report.NOTHING,
    ]


def _built(results: Results) -> str:
    head = ["model", "arithmetic", "build", "open", "files", "memory"]
    rows = [
        [
            model.name,
            model.precision,
            f"{model.prepare_seconds:.1f} s",
            f"{model.open_seconds:.2f} s",
            ", ".join(f"{name} {report.megabytes(n)}" for name, n in model.sizes.items()),
            ", ".join(f"{name} {report.megabytes(n)}" for name, n in model.memory.items()),
        ]
        for model in results.models
    ]
    return report.table(head, rows)


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


def _torch(results: Results) -> str:
    head = ["model", "window", "torch, encode", "95 %", "torch, step", "95 %", "as CTranslate2"]
    rows = []
    for name, found in results.torch.items():
        if isinstance(found, str):
            continue
        same = found["same_as_ctranslate2"].values()
        for seconds, stages in found["windows"].items():
            times = (stages[stage][which] for stage in ("encode", "step") for which in TIMES)
            counted = f"{sum(same)} of {len(same)} clips"
            row = [name, f"{seconds} s", *map(report.milliseconds, times), counted]
            rows.append(row)
    absent = [f"torch, {name}: {why}" for name, why in results.torch.items() if why and not rows]
    return report.table(head, rows) if rows else "\n".join(absent)


def as_json(results: Results) -> dict[str, Any]:
    """Return everything."""
    return {
        "python": platform.python_version(),
        "passed": bool(results.models) and not results.failures,
        "failures": results.failures,
        **dataclasses.asdict(results),
    }


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR", help="what --prepare wrote")
    parser.add_argument("--prepare", action="store_true", help="write DIR, on a machine with all")
    parser.add_argument(
        "--only-torch", action="store_true", help="for a Python that has torch, but no TensorRT"
    )
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, in onnxruntime")
    parser.add_argument(
        "--models",
        type=lambda text: tuple(text.split(",")),
        default=MODELS,
        metavar="NAME,...",
        help=f"default: {','.join(MODELS)}",
    )
    parser.add_argument("--runs", type=int, metavar="N", help=f"default: {RUNS}")
    parser.add_argument(
        "--bandwidth",
        type=float,
        metavar="GB/S",
        help="of the GPU's memory, for the floor (default: measured by copying)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there, too")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Prepare, or measure, print, write; return 1 where an engine heard something else."""
    args = _arguments(argv)
    try:
        if args.prepare:
            prepare(args.folder, args.models)
            return 0
        results = run(args)
    except (WyomingWhisperError, ModuleNotFoundError) as error:
        print(f"benchmarks.gpu: {error}", file=sys.stderr)
        return 1
    print(as_text(results))
    report.write_json(args.json, as_json(results))
    return 1 if results.failures else 0


if __name__ == "__main__":
    sys.exit(main())
