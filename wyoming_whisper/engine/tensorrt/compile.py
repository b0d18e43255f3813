"""ONNX files to plans: by TensorRT 8.6 to 11, with one cache of timings, or TensorRT-RTX."""

from __future__ import annotations

import ctypes
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from ...errors import ModelError
from ...machine.files import write_file
from ...whisper.audio import FRAMES_PER_POSITION
from ..checkpoint import Checkpoint, Dims
from ..progress import DECODER, ENCODER, GRAPHS, READING, Report
from ..spec import BuildRequest, EngineSpec
from ..tail import Tail
from .cuda import Device
from .library import LIBRARIES, Library, tensorrt_log
from .plan import PlanFacts, Profile

if TYPE_CHECKING:
    from ..onnx_graph import Precision


def build(request: BuildRequest, report: Report) -> None:
    """Write encoder.plan, decoder.plan and engine.json into the request's folder.

    Raises ModelBrokenError, EngineError and ModelError.
    """
    graphs = import_graphs()
    library = LIBRARIES[request.runtime]
    trt = library.load()
    report.shares = {READING: 0.02, GRAPHS: 0.08, ENCODER: 0.4, DECODER: 0.5}
    with tempfile.TemporaryDirectory(prefix="graphs-", dir=request.folder) as aside:
        report.phase(READING)
        checkpoint = Checkpoint.read(Path(request.model_bin))
        report.phase(GRAPHS)
        precision = cast("Precision", request.precision)
        tail = Tail.frozen(checkpoint, Dims.of(checkpoint)) if request.has_tail else None
        dims = graphs.write_graphs(
            checkpoint, Path(aside), precision, request.beam_size, report.fraction, tail=tail
        )
        del checkpoint
        facts = _plan_facts(dims, request, tail)
        del tail
        with _workspace(request, library) as workspace:
            compiler = _Compiler(trt, request, report, workspace)
            for phase, plan, shapes in (
                (ENCODER, facts.ENCODER_PLAN, _encoder_shapes(facts)),
                (DECODER, facts.DECODER_PLAN, _decoder_shapes(facts)),
            ):
                graph = Path(aside, plan).with_suffix(".onnx")
                compiler.compile(phase, graph, shapes, plan)
                for written in Path(aside).glob(f"{graph.name}*"):
                    written.unlink()  # a disk may be small, and what follows is large
    Path(request.folder, facts.FILE).write_text(facts.to_json(), encoding="utf-8")


def import_graphs() -> Any:
    """Return the module `graphs`. Raises ModelError where onnx is missing."""
    try:
        from .. import graphs
    except ModuleNotFoundError as error:
        raise ModelError(
            f"the package {error.name} is not installed: pip install 'wyoming-whisper[tensorrt]'"
        ) from error
    return graphs


def _plan_facts(dims: Dims, request: BuildRequest, tail: Tail | None = None) -> PlanFacts:
    """Return what the plans for this model will be able to do."""
    max_batch = request.max_batch
    most = PlanFacts.MAX_PREFILL_TOKENS
    profiles = [Profile("step", (1, 1), (1, 1))]
    if LIBRARIES[request.runtime].is_rtx:
        # It makes kernels for each shape anyway, and has the vocabulary on the GPU per profile.
        profiles.append(Profile("rows", (1, max_batch), (1, most)))
    else:
        profiles.append(Profile("prompt", (1, 1), (2, most)))
        if max_batch > 1:
            profiles.append(Profile("rows", (2, max_batch), (1, most)))
    return PlanFacts(
        runtime=request.runtime,
        n_mels=dims.n_mels,
        n_vocab=dims.n_vocab,
        n_text_ctx=dims.n_text_ctx,
        n_text_head=dims.n_text_head,
        n_text_layer=dims.n_text_layer,
        beam_size=request.beam_size,
        max_batch=max_batch,
        precision=request.precision,
        n_frames=EngineSpec.FRAMES,
        profiles=tuple(profiles),
        tail_starts=tuple(map(int, tail.starts)) if tail else (),
    )


Shape = tuple[int, ...]
Range = tuple[Shape, Shape, Shape]
"""Of one input: the least, what it is made fast for, the most."""

_FRAMES_WITH_TAIL = EngineSpec.FRAMES_BEFORE_TAIL + FRAMES_PER_POSITION
"""That window as it is lengthened, so that the tail follows."""


def _encoder_shapes(facts: PlanFacts) -> list[dict[str, Range]]:
    """Return the encoder's optimization profiles."""
    common = [last for _, last in facts.n_frames]
    if facts.has_tail:
        common[0] = _FRAMES_WITH_TAIL
    profiles: list[dict[str, Range]] = []
    for ends, n_common in zip(facts.n_frames, common, strict=True):
        first, middle, last = ((1, facts.n_mels, n) for n in (ends[0], n_common, ends[1]))
        profiles.append({"mel": (first, middle, last)})
    return profiles


def _decoder_shapes(facts: PlanFacts) -> list[dict[str, Range]]:
    """Return the decoder's optimization profiles."""
    common = facts.n_ctx(_FRAMES_WITH_TAIL) if facts.has_tail else EngineSpec.COMMON_CONTEXT
    contexts = (facts.n_ctx(facts.n_frames[0][0]), common, facts.most_ctx)
    slots = (1, min(EngineSpec.COMMON_SLOTS, facts.n_text_ctx), facts.n_text_ctx)
    profiles = []
    for profile in facts.profiles:
        batches = (profile.batch[0], profile.batch[1], profile.batch[1])
        lengths = (
            profile.n_tokens[0],
            min(profile.n_tokens[1], EngineSpec.COMMON_TOKENS),
            profile.n_tokens[1],
        )
        if profile.batch[1] > 1:
            lengths = (lengths[0], lengths[0], lengths[2])  # rows come to many steps of one token
        ends = [
            facts.decoder_shapes(*sizes)
            for sizes in zip(batches, lengths, slots, contexts, strict=True)
        ]
        profiles.append({name: cast("Range", tuple(end[name] for end in ends)) for name in ends[0]})
    return profiles


@contextmanager
def _workspace(request: BuildRequest, library: Library) -> Iterator[int]:
    """Yield the bytes that a tactic may take; holds the GPU that TensorRT measures on.

    A plan of TensorRT-RTX is for many GPUs, so the one that may be here says nothing.
    """
    portable_workspace_bytes = 512 << 20
    if library.is_rtx:
        yield portable_workspace_bytes
        return
    with Device(request.device) as device:
        device.use()
        yield _workspace_bytes(device.memory_info()[0])


def _workspace_bytes(free: int) -> int:
    """Return what a tactic may take of the GPU memory that is free now."""
    max_workspace_bytes = 4 << 30
    min_workspace_bytes = 256 << 20
    return min(max(free // 2, min_workspace_bytes), max_workspace_bytes)


class _Compiler:
    """ONNX files to plans. One code base for TensorRT 8.6 to 11 and TensorRT-RTX."""

    LIBRARIES: ClassVar[dict[str, tuple[str, ...]]] = {
        "CUBLAS": ("libcublas.so.13", "libcublas.so.12", "libcublas.so.11"),
        "CUBLAS_LT": ("libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so.11"),
        "CUDNN": ("libcudnn.so.9", "libcudnn.so.8"),
    }
    """What the tactic sources of TensorRT 8 and 10 need; a build fails where one is missing."""
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

    def __init__(self, trt: Any, request: BuildRequest, report: Report, workspace: int) -> None:
        self._trt = trt
        self._request = request
        self._report = report
        self._workspace = workspace
        self._log = tensorrt_log(trt)
        self._library = LIBRARIES[request.runtime]
        self._builder = trt.Builder(self._log)

    def compile(
        self, phase: str, graph: Path, profiles: Sequence[dict[str, Range]], plan: str
    ) -> None:
        """Write the plan of an ONNX file. Raises ModelError with TensorRT's reason."""
        self._report.phase(phase)
        network = self._parsed(graph)
        config = self._config()
        for shapes in profiles:
            config.add_optimization_profile(self._profile(network, shapes))
        if not hasattr(self._trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
            self._type_weakly(config, network)
        timings = None if self._library.is_rtx else self._read_timings(config)  # it times nothing
        built = self._builder.build_serialized_network(network, config)
        if built is None:
            raise ModelError(f"{self._library.name} made no {phase}: {self._reason()}")
        with Path(self._request.folder, plan).open("wb") as file:
            file.write(built)
        if timings is not None:
            self._write_timings(timings)

    def _parsed(self, graph: Path) -> Any:
        trt = self._trt
        possible = trt.NetworkDefinitionCreationFlag
        flags = 0
        if hasattr(possible, "STRONGLY_TYPED"):
            flags |= 1 << int(possible.STRONGLY_TYPED)
        elif hasattr(possible, "EXPLICIT_BATCH"):
            flags |= 1 << int(possible.EXPLICIT_BATCH)
        network = self._builder.create_network(flags)
        parser = trt.OnnxParser(network, self._log)
        if not parser.parse_from_file(str(graph)):
            errors = [_sentence(parser.get_error(i)) for i in range(parser.num_errors)]
            raise ModelError(f"{self._library.name} can't read {graph.name}: {'; '.join(errors)}")
        return network

    def _config(self) -> Any:
        trt, request = self._trt, self._request
        config = self._builder.create_builder_config()
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, self._workspace)
        config.builder_optimization_level = request.optimization_level
        self._library.set_target(trt, config, request.compute_capability)
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
        """Return TensorRT's own sources but those whose libraries are not here."""
        sources = self._trt.TacticSource
        mask = int(config.get_tactic_sources())
        for name, libraries in self.LIBRARIES.items():
            if hasattr(sources, name) and not any(map(_loads, libraries)):
                mask &= ~(1 << int(getattr(sources, name)))
        return mask

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
        exact = [
            getattr(trt.LayerType, name) for name in self.EXACT if hasattr(trt.LayerType, name)
        ]
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
        try:
            write_file(Path(self._request.timing_cache), timings.serialize())
        except OSError as error:  # the next build takes longer, nothing else
            self._report.say(log=f"the timings are lost: {error}")

    def _reason(self) -> str:
        return self._log.errors[-1] if self._log.errors else "it gives no reason"


def _sentence(error: Any) -> str:
    """Return what a parser says, and of which node."""
    if not hasattr(error, "node_operator"):
        return str(error.desc())
    return f"{error.desc()} ({error.node_operator()} {error.node_name()})"


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
