"""TensorRT and TensorRT-RTX: which one runs on a GPU, how it is loaded, and all that differs.

TensorRT times kernels on the GPU that its plans are for. TensorRT-RTX compiles without a GPU, for
all cards from a generation on, and finishes the kernels on the card: `Kernels` keeps those.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import logging
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import EngineBrokenError, EngineError
from ...machine.files import write_file
from .cuda import Gpu, NoGpuError

_LOGGER = logging.getLogger(__name__)


class _NotInstalledError(EngineError):
    """The library's package is not there."""


@dataclass(frozen=True)
class Target:
    """The GPUs that a plan is for."""

    device: str
    compute_capability: str
    """Of one GPU, or the least of many."""


@dataclass(frozen=True)
class Library:
    """One of the two."""

    runtime: str
    """What commands and keys call it."""
    name: str
    module: str
    min_version: tuple[int, int]
    how_to_install: str

    AMPERE = Target("Ampere or newer", "8.0")
    TURING = Target("Turing", "7.5")

    @property
    def is_rtx(self) -> bool:
        """Whether it is TensorRT-RTX, which builds without a GPU."""
        return self is RTX

    def target(self, gpu: Gpu) -> Target:
        """Return what a plan for this GPU is built for. Raises NoGpuError where it runs on none."""
        capability = gpu.compute_capability
        number = ".".join(map(str, capability))
        if not self.is_rtx:
            # What TensorRT 8.6 has kernels for; later ones need more, and say so when they build.
            if capability < (6, 0):
                raise NoGpuError(f"the {gpu.name} is too old for TensorRT")
            return Target(gpu.name, number)
        if capability == (7, 5):
            return self.TURING
        if capability in ((8, 0), (8, 6), (8, 9)) or capability >= (12, 0):
            return self.AMPERE
        raise NoGpuError(
            f"the {gpu.name} is no GPU for TensorRT-RTX: its compute capability is {number}, "
            "not 7.5, 8.0, 8.6, 8.9 or 12"
        )

    def load(self) -> Any:
        """Return the module: the first moment at which it is safe to import it.

        Without a driver TensorRT 10 and 11 crash the interpreter, so the GPU is looked for before.
        Raises EngineError where it is missing or too old; for TensorRT, where there is no GPU.
        """
        if not self.is_rtx:
            Gpu.all()
        try:
            trt = importlib.import_module(self.module)
        except ModuleNotFoundError as error:
            raise _NotInstalledError(
                f"{self.name} is not installed for this Python: {self.how_to_install}"
            ) from error
        except Exception as error:  # libraries that miss or don't fit: ImportError, OSError, others
            raise EngineError(f"{self.name} is installed but can't be loaded: {error}") from error
        if not hasattr(trt, "__version__"):  # a folder that uninstalling it has left
            raise _NotInstalledError(
                f"{self.name} is installed only in part: {self.how_to_install}"
            )
        version = tuple(int(part) for part in trt.__version__.split(".")[:2])
        if version < self.min_version:
            least = ".".join(map(str, self.min_version))
            raise EngineError(f"{self.name} {trt.__version__} is too old; {least} is the least")
        return trt

    def version_for(self, gpu: Gpu) -> str:
        """Return the version that is here and runs on this GPU with this driver.

        Raises EngineError.
        """
        self.target(gpu)
        version: str = self.load().__version__
        cuda = _cuda_of_rtx() if self.is_rtx else 0
        if gpu.cuda_version[0] < cuda:
            driver, oldest = ".".join(map(str, gpu.cuda_version)), 12
            other = f", or pip install tensorrt-rtx-cu{cuda - 1} in its place"
            raise EngineError(
                f"the NVIDIA driver is too old: it knows CUDA {driver}, and the TensorRT-RTX "
                f"installed here is for CUDA {cuda}; update the driver{other * (cuda > oldest)}"
            )
        return version

    @staticmethod
    def find(gpu: Gpu, runtime: str = "") -> tuple[Library, str]:
        """Return the library for this GPU, and its version; `runtime` names one, else the best is.

        That is TensorRT-RTX where the GPU is one for it and the package is here. Raises
        EngineError: what is missing.
        """
        missing: list[EngineError] = []
        failing: list[EngineError] = []
        for library in [LIBRARIES[runtime]] if runtime else LIBRARIES.values():
            try:
                return library, library.version_for(gpu)
            except NoGpuError as error:
                unsuitable = error
            except _NotInstalledError as error:
                missing.append(error)
            except EngineError as error:
                failing.append(error)
        if failing:
            raise failing[0]
        if len(missing) > 1:
            raise _NotInstalledError(
                f"neither {RTX.name} nor {TENSORRT.name} is installed for this Python: "
                f"{RTX.how_to_install}"
            )
        raise missing[0] if missing else unsuitable

    def set_target(self, trt: Any, config: Any, compute_capability: str) -> None:
        """Have TensorRT-RTX build for a Target's GPUs; TensorRT builds for the one that is here."""
        if not hasattr(trt, "ComputeCapability"):
            return
        # Nothing is allocated while it runs: that could not be captured in a CUDA graph.
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
        if compute_capability == self.TURING.compute_capability:
            config.num_compute_capabilities = 1
            config.set_compute_capability(trt.ComputeCapability.SM75, 0)


RTX = Library(
    "tensorrt-rtx",
    "TensorRT-RTX",
    "tensorrt_rtx",
    (1, 4),
    "pip install 'wyoming-whisper[tensorrt-rtx]'",
)
TENSORRT = Library(
    "tensorrt",
    "TensorRT",
    "tensorrt",
    (8, 6),
    "pip install tensorrt, or on a Jetson the system's package python3-libnvinfer",
)
LIBRARIES = {library.runtime: library for library in (RTX, TENSORRT)}
"""By runtime, the preferred one first."""


def _cuda_of_rtx() -> int:
    """Return the CUDA that the installed TensorRT-RTX is for; 0 where its packages don't say."""
    for cuda in (14, 13, 12):
        try:
            importlib.metadata.version(f"tensorrt_rtx_cu{cuda}")
        except importlib.metadata.PackageNotFoundError:
            continue
        return cuda
    return 0


# -- what differs in use -------------------------------------------------------------------


class Kernels:
    """Makes contexts; keeps in `file` what TensorRT-RTX compiles on this very GPU.

    TensorRT-RTX compiles the kernels of a shape when that is first run. While `is_eager`, the run
    waits for them; later they are compiled beside it, and slower ones run until they are there.
    With `cuda_graphs` it captures the runs of some contexts itself, and again when their kernels
    have changed. TensorRT does nothing of this: there is nothing to keep, and we capture.
    """

    MAX_BYTES = 1 << 28
    """Of the file. Each length of prompt is a shape of its own, and they come for months."""

    MAX_SHAPES = 256
    """Of the decoder's inputs that get kernels of their own, which are compiled on the CPU and stay
    in memory. What comes later runs on the general ones."""

    def __init__(self, trt: Any, file: Path | None, cuda_graphs: bool = True) -> None:
        self._trt = trt
        self._file = file
        self._cuda_graphs = cuda_graphs
        self.captures = hasattr(trt, "CudaGraphStrategy")
        """Whether the library captures CUDA graphs by itself."""
        self.is_eager = True
        self.are_loaded = False
        """Whether the file had some for this GPU."""
        self._cache: Any = None
        self._saved_bytes = 0
        self._shapes: set[tuple[int, ...]] = set()

    def specializes(self, shape: tuple[int, ...]) -> bool:
        """Return whether the decoder has kernels of its own for a shape of its inputs.

        Those that come while it `is_eager` do, and others up to MAX_SHAPES in all.
        """
        if not self.captures:
            return True
        if self.is_eager or len(self._shapes) < self.MAX_SHAPES:
            self._shapes.add(shape)
        return shape in self._shapes

    def context(self, engine: Any, *, is_step: bool = False, is_special: bool = True) -> Any:
        """Return a context without memory of its own, None where TensorRT refuses.

        That of a step runs one shape at the same addresses, again and again. One that is not
        special has the general kernels for all shapes.
        """
        trt = self._trt
        if not hasattr(trt, "CudaGraphStrategy"):
            strategies = getattr(trt, "ExecutionContextAllocationStrategy", None)
            if strategies is None:
                return engine.create_execution_context_without_device_memory()
            return engine.create_execution_context(strategies.USER_MANAGED)
        config = engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(
            trt.ExecutionContextAllocationStrategy.USER_MANAGED
        )
        specialization = trt.DynamicShapesKernelSpecializationStrategy
        when = specialization.EAGER if self.is_eager else specialization.LAZY
        config.dynamic_shapes_kernel_specialization_strategy = (
            when if is_special else specialization.NONE
        )
        if is_step and self._cuda_graphs:
            config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        if self._cache is None:
            self._cache = config.create_runtime_cache()
            self._load()
        config.set_runtime_cache(self._cache)
        return engine.create_execution_context(config)

    def check_plan(self, runtime: Any, plan: Any, path: Path) -> None:
        """Let TensorRT-RTX say from a plan's first bytes why it can't run here.

        Raises EngineBrokenError where another plan could, EngineError where none can.
        """
        trt = self._trt
        if not hasattr(trt, "EngineValidity"):
            return
        header = bytes(plan[: runtime.engine_header_size])
        validity, diagnostics = runtime.get_engine_validity(header)
        if validity != trt.EngineValidity.INVALID:
            return
        reason = trt.EngineInvalidityDiagnostics
        for flag, why, is_broken in (
            (reason.MALFORMED_ENGINE, "it is cut or damaged", True),
            (reason.UNSUPPORTED_CC, "it was built for other GPUs", True),
            (reason.VERSION_MISMATCH, "another TensorRT-RTX built it", True),
            (reason.OLD_CUDA_DRIVER, "the NVIDIA driver is too old for it", False),
            (reason.OLD_CUDA_RUNTIME, "this TensorRT-RTX is for a CUDA too old for it", False),
            (reason.INSUFFICIENT_GPU_MEMORY, "the GPU has too little memory", False),
            (reason.CUDA_ERROR, "the NVIDIA driver does not work", False),
        ):
            if diagnostics & int(flag):
                error = EngineBrokenError if is_broken else EngineError
                raise error(f"TensorRT-RTX can't run {path}: {why}")

    def save(self) -> None:
        """Write what is new since it was loaded or saved."""
        if self._cache is None or self._file is None:
            return
        try:
            kernels = memoryview(self._cache.serialize())
            if kernels.nbytes == self._saved_bytes:
                return
            if kernels.nbytes > self.MAX_BYTES:  # read at the next start, it would be cut
                _LOGGER.debug("%s is large enough: what is new is not kept", self._file)
                return
            write_file(self._file, kernels)
        except (OSError, RuntimeError, TypeError) as error:  # the next start takes longer
            _LOGGER.warning(
                "the GPU's kernels can't be kept, and are compiled again at the next start: %s",
                error,
            )
            return
        self._saved_bytes = kernels.nbytes

    def close(self) -> None:
        """Let go of them."""
        self._cache = None

    def _load(self) -> None:
        if self._file is None or not self._file.is_file():
            return
        try:
            with self._file.open("rb") as file:
                kernels = file.read(self.MAX_BYTES)
        except OSError as error:
            _LOGGER.debug("%s can't be read: %s", self._file, error)
            return
        self.are_loaded = bool(self._cache.deserialize(kernels))
        if self.are_loaded:
            self._saved_bytes = len(kernels)
            return
        _LOGGER.info("the kernels in %s are for something else: compiled again", self._file)
        with contextlib.suppress(OSError):  # that is said once
            self._file.unlink()


@functools.lru_cache(maxsize=2)
def tensorrt_log(trt: Any) -> Any:
    """Return a library's one logger of this process; its `errors` are the last sentences.

    TensorRT keeps a pointer to the first one it was given, so that one must never go away.
    """

    class Log(trt.ILogger):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: deque[str] = deque(maxlen=8)

        def log(self, severity: Any, msg: str) -> None:
            if int(severity) <= int(trt.ILogger.Severity.ERROR):
                self.errors.append(msg)
            if int(severity) <= int(trt.ILogger.Severity.WARNING):
                _LOGGER.debug("TensorRT: %s", msg)

    return Log()
