"""From a checkpoint to engines, in a process of its own: its memory goes back, its crash harms
nobody. An engine is TensorRT's plans, or the graphs made for onnxruntime on a CPU.

`python -m wyoming_whisper.engine.build` reads a BuildRequest as one line of JSON, writes its
progress as lines of JSON, leaves what it made in the folder it was given, and ends with 0; or says
in one sentence what went wrong, and ends with 1. `EngineBuild` is its other end.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import importlib
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol, cast

from ..errors import EngineBuildError, WyomingWhisperError
from .cache import CpuKey, EngineCache, EngineKey, Key, weights_hash
from .checkpoint import read
from .cuda import Device, Gpu
from .plan import DECODER_PLAN, ENCODER_PLAN, FACTS, HEAD_WIDTH, PlanFacts, Profile
from .session import MAX_PREFILL_TOKENS
from .trt import import_tensorrt, tensorrt_log

if TYPE_CHECKING:
    from .dims import Dims
    from .graphs import Precision

_LOGGER = logging.getLogger(__name__)

GRAPH_SCHEMA = 1
"""To be raised with every change of graphs.py or of the profiles here that makes other engines."""

CPU_GRAPH_SCHEMA = 4
"""The same of cpu_graphs.py."""

OPTIMIZATION_LEVEL = 3  # TensorRT's default: higher ones take many times longer

NICENESS = 10  # the CPU backend answers while engines build
BADNESS = 1000  # who the kernel ends first when memory is short: not the server

STALL_SECONDS = 7200.0
"""A build that gets no further for so long hangs. TensorRT 8 doesn't tell how far it is, and takes
more than half an hour for a large model on a small Jetson."""

KILL_AFTER_SECONDS = 3.0
HEARTBEAT_SECONDS = 5.0
LOG_SECONDS = 15.0
PROGRESS_SECONDS = 0.5  # at least between two lines of one phase
STDERR_LINES = 20
MAX_LINE_BYTES = 1 << 16
MAX_ERROR_LENGTH = 500  # TensorRT's sentences may be long, and of several lines

MIN_WORKSPACE_BYTES = 256 << 20
MAX_WORKSPACE_BYTES = 4 << 30

PR_SET_PDEATHSIG = 1  # of prctl(2)

FRAMES = ((200, 1200), (1200, 3000))
"""Of mel, for each profile of the encoder: commands, and what is longer. Either is made fast for
its longest window: the first for the one that most commands get with stock weights."""

# What the decoder is made fast for; the rest is possible.
COMMON_CONTEXT = 600
COMMON_SLOTS = 64
COMMON_TOKENS = 4

EXACT = (
    "ACTIVATION",
    "ELEMENTWISE",
    "MATRIX_MULTIPLY",
    "NORMALIZATION",
    "REDUCE",
    "SOFTMAX",
    "TOPK",
    "UNARY",
)
"""Of trt.LayerType: what computes, and so can lose digits."""

LIBRARIES = {
    "CUBLAS": ("libcublas.so.13", "libcublas.so.12", "libcublas.so.11"),
    "CUBLAS_LT": ("libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so.11"),
    "CUDNN": ("libcudnn.so.9", "libcudnn.so.8"),
}
"""What the tactic sources of TensorRT 8 and 10 need; a build fails where one is missing."""

READING, GRAPHS, ENCODER, DECODER = "weights", "graphs", "encoder engine", "decoder engine"
_SHARES = {READING: 0.02, GRAPHS: 0.08, ENCODER: 0.4, DECODER: 0.5}
"""About what part of the whole time each phase takes."""
_CPU_SHARES = {READING: 0.02, GRAPHS: 0.98}

TENSORRT, ONNXRUNTIME = "tensorrt", "onnxruntime"


@dataclass(frozen=True)
class BuildRequest:
    """What the child is told."""

    model_bin: str
    folder: str
    timing_cache: str = ""
    """A file that is read, where it is there, and written."""
    runtime: str = TENSORRT
    device: int = 0
    precision: str = "float16"
    beam_size: int = 1
    max_batch: int = 5
    optimization_level: int = OPTIMIZATION_LEVEL
    tactic_sources: tuple[str, ...] = ()
    """Of trt.TacticSource; empty leaves it to TensorRT."""
    parent: int = dataclasses.field(default_factory=os.getpid)
    """Whose end is the child's too."""

    @classmethod
    def from_json(cls, text: str) -> BuildRequest:
        facts = json.loads(text)
        return cls(**{**facts, "tactic_sources": tuple(facts["tactic_sources"])})

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))


@dataclass(frozen=True)
class EngineSpec:
    """An engine that is wanted: of which model, for which GPU, able to do what."""

    model: str
    """Its name, for people."""
    model_bin: Path
    gpu: Gpu
    tensorrt: str
    """The version."""
    precision: str = "float16"
    beam_size: int = 1
    max_batch: int = 5
    tactic_sources: tuple[str, ...] = ()

    def key(self) -> EngineKey:
        """Return the cache's key: reads the weights, unless the hub's cache tells their hash."""
        return EngineKey(
            weights=weights_hash(self.model_bin),
            precision=self.precision,
            beam_size=self.beam_size,
            max_batch=self.max_batch,
            profiles=(
                *(f"{first}-{last}" for first, last in FRAMES),
                f"{COMMON_CONTEXT}/{COMMON_SLOTS}/{COMMON_TOKENS}",
            ),
            graph_schema=GRAPH_SCHEMA,
            optimization_level=OPTIMIZATION_LEVEL,
            tactic_sources=self.tactic_sources,
            tensorrt=self.tensorrt,
            compute_capability=".".join(map(str, self.gpu.compute_capability)),
            device=self.gpu.name,
        )

    @property
    def label(self) -> str:
        return f"{self.model} on {self.gpu.name}"

    def request(self, folder: Path, cache: EngineCache) -> BuildRequest:
        return BuildRequest(
            model_bin=str(self.model_bin.resolve()),
            folder=str(folder),
            timing_cache=str(cache.timing_cache(self.tensorrt, self.gpu.name)),
            device=self.gpu.index,
            precision=self.precision,
            beam_size=self.beam_size,
            max_batch=self.max_batch,
            tactic_sources=self.tactic_sources,
        )


@dataclass(frozen=True)
class CpuSpec:
    """Graphs for onnxruntime that are wanted: of which model, in what arithmetic."""

    model: str
    """Its name, for people."""
    model_bin: Path
    arithmetic: str
    """Of cpu_graphs."""

    @property
    def label(self) -> str:
        return f"{self.model} on the CPU"

    def key(self) -> CpuKey:
        """Return the cache's key: reads the weights, unless the hub's cache tells their hash."""
        return CpuKey(weights_hash(self.model_bin), self.arithmetic, CPU_GRAPH_SCHEMA)

    def request(self, folder: Path, _: EngineCache) -> BuildRequest:
        return BuildRequest(
            str(self.model_bin.resolve()),
            str(folder),
            runtime=ONNXRUNTIME,
            precision=self.arithmetic,
        )


class Spec(Protocol):
    """An engine that is wanted."""

    @property
    def model(self) -> str:
        """Its name, for people."""

    @property
    def label(self) -> str:
        """The model's name, and what it is to run on."""

    def key(self) -> Key:
        """Return the cache's key."""

    def request(self, folder: Path, cache: EngineCache) -> BuildRequest:
        """Return what builds it into `folder`."""


@dataclass(frozen=True)
class BuildProgress:
    """How far a build is."""

    phase: str
    fraction: float
    """Of the whole, roughly."""
    seconds: float
    """Since it began."""


# -- the parent ----------------------------------------------------------------------------


class BuildDisplay:
    """Shows how far a build is: a bar on a terminal, else a log line now and then."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._shown: tuple[str, float] = "", 0.0
        self._bar: Any = None
        if sys.stderr.isatty():
            bar = importlib.import_module("tqdm").tqdm  # untyped
            self._bar = bar(total=100, desc=label, bar_format="{l_bar}{bar}| {elapsed}{postfix}")

    def show(self, progress: BuildProgress) -> None:
        percent = round(100 * progress.fraction)
        if self._bar is not None:
            self._bar.set_postfix_str(progress.phase, refresh=False)
            self._bar.update(percent - self._bar.n)
            return
        phase, seconds = self._shown
        if progress.phase != phase or progress.seconds - seconds >= LOG_SECONDS:
            self._shown = progress.phase, progress.seconds
            _LOGGER.info(
                "%s: %s, %d %%, %d s",
                *(self._label, progress.phase, percent, progress.seconds),
            )

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


class EngineBuild:
    """One child that builds; `run` blocks, `cancel` may come from any thread."""

    def __init__(
        self, request: BuildRequest, on_progress: Callable[[BuildProgress], None] | None = None
    ) -> None:
        self._request = request
        self._on_progress = on_progress or (lambda _: None)
        self._cancelled = threading.Event()
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._stderr: deque[str] = deque(maxlen=STDERR_LINES)
        self._error = ""
        self._progress: tuple[str, float] | None = None
        self._moved = time.monotonic()

    def run(self) -> None:
        """Build. Raises EngineBuildError with what the child said, or how it ended."""
        child = _start()
        readers = [
            threading.Thread(target=read, args=(stream,), daemon=True)
            for read, stream in (
                (self._read_stdout, child.stdout),
                (self._read_stderr, child.stderr),
            )
        ]
        for reader in readers:
            reader.start()
        try:
            self._tell(child)
            while (line := self._next_line()) is not None:
                self._hear(line)
            if not self._cancelled.is_set():
                child.wait()
        finally:
            _end(child)
            for reader in readers:
                reader.join(KILL_AFTER_SECONDS)
            _close(child)
        if self._cancelled.is_set():
            raise EngineBuildError("the building of the engine was stopped")
        if child.returncode:
            raise EngineBuildError(f"the engine could not be built: {self._why(child.returncode)}")

    def cancel(self) -> None:
        """End the child within KILL_AFTER_SECONDS; `run` then raises."""
        self._cancelled.set()
        self._lines.put(None)

    def _tell(self, child: subprocess.Popen[bytes]) -> None:
        stdin = cast("IO[bytes]", child.stdin)
        with contextlib.suppress(BrokenPipeError):  # it has ended already: its exit status tells
            stdin.write(self._request.to_json().encode() + b"\n")
            stdin.close()

    def _next_line(self) -> bytes | None:
        left = self._moved + STALL_SECONDS - time.monotonic()
        with contextlib.suppress(queue.Empty):
            if left > 0:
                return self._lines.get(timeout=left)
        raise EngineBuildError(
            f"the building of the engine was ended: it got no further for "
            f"{STALL_SECONDS / 60:.0f} minutes"
        )

    def _read_stdout(self, stream: IO[bytes]) -> None:
        while line := stream.readline(MAX_LINE_BYTES):
            self._lines.put(line)
        self._lines.put(None)

    def _read_stderr(self, stream: IO[bytes]) -> None:
        while line := stream.readline(MAX_LINE_BYTES):
            text = line.decode(errors="replace").strip()
            if text:
                self._stderr.append(text)
                _LOGGER.debug("builder: %s", text)

    def _hear(self, line: bytes) -> None:
        try:
            told = json.loads(line)
            if "phase" in told:
                progress = BuildProgress(**told)
                if (progress.phase, progress.fraction) != self._progress:
                    self._progress = progress.phase, progress.fraction
                    self._moved = time.monotonic()
                self._on_progress(progress)
            elif "error" in told:
                self._error = " ".join(str(told["error"]).split())[:MAX_ERROR_LENGTH]
            elif "log" in told:
                _LOGGER.debug("TensorRT: %s", told["log"])
        except (ValueError, TypeError):
            _LOGGER.debug("builder: %r", line)

    def _why(self, code: int) -> str:
        if self._error:
            return self._error
        ended = f"its process ended with code {code}"
        if code < 0:
            ended = f"its process was ended by {signal.Signals(-code).name}"
            if -code == signal.SIGKILL:
                ended += " (for want of memory, most likely)"
        return f"{ended}: {self._stderr[-1]}" if self._stderr else ended


def _start() -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for us, and we tell it
        )
    except OSError as error:  # no memory, no processes left
        raise EngineBuildError(
            f"no process can be started to build the engine: {error.strerror}"
        ) from error


def _end(child: subprocess.Popen[bytes]) -> None:
    """End the child if it still runs."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(KILL_AFTER_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _close(child: subprocess.Popen[bytes]) -> None:
    for stream in (child.stdin, child.stdout, child.stderr):
        if stream:
            with contextlib.suppress(OSError):
                stream.close()


# -- the child -----------------------------------------------------------------------------


class _Report:
    """Lines of JSON to the parent, from any thread; the last progress again every few seconds."""

    def __init__(self, stream: IO[str], shares: Mapping[str, float]) -> None:
        self._stream = stream
        self._shares = shares
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._phase, self._before, self._fraction = READING, 0.0, 0.0
        self._said = self._started
        threading.Thread(target=self._beat, daemon=True).start()

    def phase(self, name: str) -> None:
        phases = list(self._shares)
        self._before = sum(self._shares[phase] for phase in phases[: phases.index(name)])
        self._phase = name
        self.fraction(0.0)

    def fraction(self, done: float) -> None:
        """Say what share of the phase is done."""
        self._fraction = self._before + self._shares[self._phase] * min(max(done, 0.0), 1.0)
        if done == 0 or time.monotonic() - self._said >= PROGRESS_SECONDS:
            self._say_progress()

    def say(self, **told: object) -> None:
        # The parent's end is this process's too: there is nobody to tell of a broken pipe.
        with self._lock, contextlib.suppress(BrokenPipeError):
            self._stream.write(json.dumps(told) + "\n")
            self._stream.flush()

    def _say_progress(self) -> None:
        self._said = time.monotonic()
        seconds = round(self._said - self._started, 1)
        self.say(phase=self._phase, fraction=round(self._fraction, 4), seconds=seconds)

    def _beat(self) -> None:
        while True:
            time.sleep(HEARTBEAT_SECONDS)
            self._say_progress()


def main() -> int:
    """Do what stdin asks for; return the exit status."""
    stdout = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no report
    request = BuildRequest.from_json(sys.stdin.readline())
    make, shares = (build, _SHARES) if request.runtime == TENSORRT else (build_cpu, _CPU_SHARES)
    report = _Report(stdout, shares)
    _live_with(request.parent)
    try:
        make(request, report)
    except WyomingWhisperError as error:
        report.say(error=str(error))
    except OSError as error:
        report.say(error=f"{error.filename or request.folder}: {error.strerror or error}")
    except MemoryError:
        report.say(error="there is not enough memory")
    else:
        return 0
    return 1


def build(request: BuildRequest, report: _Report) -> None:
    """Write encoder.plan, decoder.plan and engine.json into the request's folder.

    Raises ModelBrokenError, EngineError and EngineBuildError.
    """
    graphs = import_graphs()
    trt = import_tensorrt()
    with tempfile.TemporaryDirectory(prefix="graphs-", dir=request.folder) as aside:
        report.phase(READING)
        checkpoint = read(Path(request.model_bin))
        report.phase(GRAPHS)
        precision = cast("Precision", request.precision)
        dims = graphs.write_graphs(
            checkpoint, Path(aside), precision, request.beam_size, report.fraction
        )
        del checkpoint
        facts = plan_facts(dims, request.precision, request.beam_size, request.max_batch)
        with Device(request.device) as device:
            device.use()
            workspace = workspace_bytes(device.memory_info()[0])
            _compile(_Compiler(trt, request, report, workspace), facts, Path(aside))
    Path(request.folder, FACTS).write_text(facts.to_json(), encoding="utf-8")


def build_cpu(request: BuildRequest, report: _Report) -> None:
    """Write the graphs for onnxruntime into the request's folder. Raises ModelBrokenError."""
    from .cpu_graphs import Arithmetic, write_cpu_graphs

    report.phase(READING)
    checkpoint = read(Path(request.model_bin))
    report.phase(GRAPHS)
    arithmetic = cast("Arithmetic", request.precision)
    write_cpu_graphs(checkpoint, Path(request.folder), arithmetic, report.fraction)


def _compile(compiler: _Compiler, facts: PlanFacts, graphs: Path) -> None:
    for phase, plan, shapes in (
        (ENCODER, ENCODER_PLAN, encoder_shapes(facts)),
        (DECODER, DECODER_PLAN, decoder_shapes(facts)),
    ):
        graph = Path(graphs, plan).with_suffix(".onnx")
        compiler.compile(phase, graph, shapes, plan)
        for written in graphs.glob(f"{graph.name}*"):
            written.unlink()  # a disk may be small, and what follows is large


def import_graphs() -> Any:
    """Return the module `graphs`. Raises EngineBuildError where onnx is missing."""
    try:
        from . import graphs
    except ModuleNotFoundError as error:
        raise EngineBuildError(
            f"the package {error.name} is not installed: pip install 'wyoming-whisper[tensorrt]'"
        ) from error
    return graphs


def plan_facts(dims: Dims, precision: str, beam_size: int, max_batch: int) -> PlanFacts:
    """Return what the plans for this model will be able to do."""
    profiles = [
        Profile("step", (1, 1), (1, 1)),
        Profile("prompt", (1, 1), (2, MAX_PREFILL_TOKENS)),
    ]
    if max_batch > 1:
        profiles.append(Profile("rows", (2, max_batch), (1, MAX_PREFILL_TOKENS)))
    return PlanFacts(
        n_mels=dims.n_mels,
        n_vocab=dims.n_vocab,
        n_text_ctx=dims.n_text_ctx,
        n_text_head=dims.n_text_head,
        n_text_layer=dims.n_text_layer,
        beam_size=beam_size,
        max_batch=max_batch,
        precision=precision,
        n_frames=FRAMES,
        profiles=tuple(profiles),
    )


Shape = tuple[int, ...]
Range = tuple[Shape, Shape, Shape]
"""Of one input: the least, what it is made fast for, the most."""


def encoder_shapes(facts: PlanFacts) -> list[dict[str, Range]]:
    """Return the encoder's optimization profiles."""
    found: list[dict[str, Range]] = []
    for first, last in facts.n_frames:
        least, most = (1, facts.n_mels, first), (1, facts.n_mels, last)
        found.append({"mel": (least, most, most)})
    return found


def decoder_shapes(facts: PlanFacts) -> list[dict[str, Range]]:
    """Return the decoder's optimization profiles."""
    contexts = (facts.n_frames[0][0] // 2, COMMON_CONTEXT, facts.n_audio_ctx)
    slots = (1, min(COMMON_SLOTS, facts.n_text_ctx), facts.n_text_ctx)
    found = []
    for profile in facts.profiles:
        batches = (profile.batch[0], profile.batch[1], profile.batch[1])
        lengths = (
            profile.n_tokens[0],
            min(profile.n_tokens[1], COMMON_TOKENS),
            profile.n_tokens[1],
        )
        if profile.batch[1] > 1:
            lengths = (lengths[0], lengths[0], lengths[2])  # rows come to many steps of one token
        ends = [
            _decoder_inputs(facts, *sizes)
            for sizes in zip(batches, lengths, slots, contexts, strict=True)
        ]
        found.append({name: cast("Range", tuple(end[name] for end in ends)) for name in ends[0]})
    return found


def _decoder_inputs(
    facts: PlanFacts, batch: int, n_tokens: int, n_slots: int, n_ctx: int
) -> dict[str, Shape]:
    head, width = facts.n_text_head, HEAD_WIDTH
    shapes: dict[str, Shape] = {
        "tokens": (batch, n_tokens),
        "positions": (n_tokens,),
        "slots": (n_slots,),
        "logit_bias": (facts.n_vocab,),
        "parents": (batch,),
    }
    for layer in range(facts.n_text_layer):
        shapes[f"self_k_{layer}"] = shapes[f"self_v_{layer}"] = (batch, head, n_slots, width)
        shapes[f"cross_k_{layer}"] = (1, head, width, n_ctx)
        shapes[f"cross_v_{layer}"] = (1, head, n_ctx, width)
    return shapes


def workspace_bytes(free: int) -> int:
    """Return what a tactic may take of the GPU memory that is free now."""
    return min(max(free // 2, MIN_WORKSPACE_BYTES), MAX_WORKSPACE_BYTES)


class _Compiler:
    """ONNX files to plans, with one timing cache. One code base for TensorRT 8.6 to 11."""

    def __init__(self, trt: Any, request: BuildRequest, report: _Report, workspace: int) -> None:
        self._trt = trt
        self._request = request
        self._report = report
        self._workspace = workspace
        self._log = tensorrt_log(trt)
        self._builder = trt.Builder(self._log)

    def compile(
        self, phase: str, graph: Path, profiles: Sequence[dict[str, Range]], plan: str
    ) -> None:
        """Write the plan of an ONNX file. Raises EngineBuildError with TensorRT's reason."""
        self._report.phase(phase)
        network = self._parsed(graph)
        config = self._config()
        for shapes in profiles:
            config.add_optimization_profile(self._profile(network, shapes))
        if not hasattr(self._trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
            self._type_weakly(config, network)
        timings = self._read_timings(config)
        built = self._builder.build_serialized_network(network, config)
        if built is None:
            raise EngineBuildError(f"TensorRT made no {phase}: {self._reason()}")
        with Path(self._request.folder, plan).open("wb") as file:
            file.write(built)
        self._write_timings(timings)

    def _parsed(self, graph: Path) -> Any:
        trt = self._trt
        known = trt.NetworkDefinitionCreationFlag
        flags = 0
        if hasattr(known, "STRONGLY_TYPED"):
            flags |= 1 << int(known.STRONGLY_TYPED)
        elif hasattr(known, "EXPLICIT_BATCH"):
            flags |= 1 << int(known.EXPLICIT_BATCH)
        network = self._builder.create_network(flags)
        parser = trt.OnnxParser(network, self._log)
        if not parser.parse_from_file(str(graph)):
            errors = [parser.get_error(i).desc() for i in range(parser.num_errors)]
            raise EngineBuildError(f"TensorRT can't read {graph.name}: {'; '.join(errors)}")
        return network

    def _config(self) -> Any:
        trt, request = self._trt, self._request
        config = self._builder.create_builder_config()
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, self._workspace)
        config.builder_optimization_level = request.optimization_level
        if request.precision == "float32":
            config.clear_flag(trt.BuilderFlag.TF32)
        config.set_tactic_sources(self._tactic_sources(config))
        features = trt.PreviewFeature
        if hasattr(features, "PROFILE_SHARING_0806"):
            # Each CUDA graph has a context, all of one profile. TensorRT 10 has this on by itself.
            config.set_preview_feature(features.PROFILE_SHARING_0806, True)
        if hasattr(trt, "IProgressMonitor"):
            config.progress_monitor = _progress_monitor(trt, self._report.fraction)
        return config

    def _tactic_sources(self, config: Any) -> int:
        """Return the sources asked for, or TensorRT's own but for libraries that are not here."""
        known = self._trt.TacticSource
        wanted = self._request.tactic_sources
        if not wanted:
            mask = int(config.get_tactic_sources())
            for name, libraries in LIBRARIES.items():
                if hasattr(known, name) and not any(map(_loads, libraries)):
                    mask &= ~(1 << int(getattr(known, name)))
            return mask
        unknown = [name for name in wanted if not hasattr(known, name)]
        if unknown:
            raise EngineBuildError(f"this TensorRT has no tactic source {unknown[0]}")
        return sum(1 << int(getattr(known, name)) for name in set(wanted))

    def _profile(self, network: Any, shapes: dict[str, Range]) -> Any:
        profile = self._builder.create_optimization_profile()
        for i in range(network.num_inputs):
            tensor = network.get_input(i)
            if -1 in tuple(tensor.shape):
                profile.set_shape(tensor.name, *shapes[tensor.name])
        return profile

    def _type_weakly(self, config: Any, network: Any) -> None:
        """Have TensorRT 8 keep the graph's types, which it takes for no more than a hint."""
        trt = self._trt
        if self._request.precision == "float16":
            config.set_flag(trt.BuilderFlag.FP16)
        config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
        exact = [getattr(trt.LayerType, name) for name in EXACT if hasattr(trt.LayerType, name)]
        for i in range(network.num_layers):
            layer = network.get_layer(i)
            outputs = range(layer.num_outputs)
            floats = [n for n in outputs if layer.get_output(n).dtype == trt.DataType.FLOAT]
            if layer.type in exact and floats:
                layer.precision = trt.DataType.FLOAT
                for n in floats:  # a TOPK has indices too
                    layer.set_output_type(n, trt.DataType.FLOAT)

    def _read_timings(self, config: Any) -> Any:
        """Return the cache of timings in which this build's are kept too."""
        file = Path(self._request.timing_cache)
        data = file.read_bytes() if file.is_file() else b""
        timings = config.create_timing_cache(data) or config.create_timing_cache(b"")
        config.set_timing_cache(timings, False)  # ignore_mismatch
        return timings

    def _write_timings(self, timings: Any) -> None:
        file = Path(self._request.timing_cache)
        aside = file.with_name(f".{file.name}.{os.getpid()}")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with aside.open("wb") as stream:
                stream.write(timings.serialize())
                stream.flush()
                os.fsync(stream.fileno())
            aside.replace(file)
        except OSError as error:  # the next build takes longer, nothing else
            self._report.say(log=f"the timings are lost: {error}")

    def _reason(self) -> str:
        return self._log.errors[-1] if self._log.errors else "it gives no reason"


def _progress_monitor(trt: Any, report: Callable[[float], None]) -> Any:
    """Return what TensorRT (10 on) tells how far it is, from any of its threads."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._lock = threading.Lock()
            self._phases: dict[str, tuple[str | None, int, int]] = {}  # parent, steps, done

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with self._lock:
                self._phases[phase_name] = (parent_phase, max(num_steps, 1), 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            with self._lock:
                parent, steps, _ = self._phases.get(phase_name, (None, 1, 0))
                self._phases[phase_name] = (parent, steps, step + 1)
                done = self._done()
            report(done)
            return True

        def phase_finish(self, phase_name: str) -> None:
            with self._lock:
                self._phases.pop(phase_name, None)

        def _done(self) -> float:
            """The outermost phase's share, and the shares of phases within its current step."""
            done, weight, parent = 0.0, 1.0, None
            while within := [phase for phase in self._phases.items() if phase[1][0] == parent]:
                parent, (_, steps, finished) = within[0]
                done += weight * finished / steps
                weight /= steps
            return done

    return Monitor()


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _live_with(parent: int) -> None:
    """Be nice to the others, be the first to go when memory is short, and end with the parent."""
    os.nice(NICENESS)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(BADNESS))
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before we asked
        sys.exit(1)


if __name__ == "__main__":
    sys.exit(main())
