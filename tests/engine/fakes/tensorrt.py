"""The tensorrt module in Python, at a version of one's choice: the part of it that we use. A
version of `rtx-1.7` is the tensorrt_rtx module.

A plan holds its ONNX graph, and an engine runs that in onnxruntime, on the memory of the fake
driver, when the stream comes to it. What TensorRT refuses is refused in its own way: None, False,
an error from pybind. What it would answer with a crash or with nonsense is a problem of the driver.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import signal
import time
import types
import warnings
import weakref
from collections.abc import Callable
from enum import IntEnum
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from tests.engine.fakes.driver import ILLEGAL_ADDRESS, CudaStatus, FakeDriver
from wyoming_whisper.engine.tensorrt.cuda import Device

MAGIC = b"FAKEPLAN"
DIGEST_BYTES = 32
SCRATCH_BYTES = 4096
CONTEXT_BYTES = 1024
PROFILE_REFUSED = "Error in set optimization profile async."

LAYER_OF_OP = {
    "Conv": "CONVOLUTION",
    "MatMul": "MATRIX_MULTIPLY",
    "Gemm": "MATRIX_MULTIPLY",
    "LayerNormalization": "NORMALIZATION",
    "Softmax": "SOFTMAX",
    "ReduceMax": "REDUCE",
    "ReduceSum": "REDUCE",
    "TopK": "TOPK",
    "ArgMax": "TOPK",
    "Erf": "UNARY",
    "Exp": "UNARY",
    "Log": "UNARY",
    "Neg": "UNARY",
    "Cast": "CAST",
    "Gather": "GATHER",
    "Concat": "CONCATENATION",
    "Slice": "SLICE",
    "Transpose": "SHUFFLE",
    "Reshape": "SHUFFLE",
    "Unsqueeze": "SHUFFLE",
    "Squeeze": "SHUFFLE",
}
OTHER_LAYERS = ("ELEMENTWISE", "ACTIVATION", "SHAPE", "CONSTANT", "IDENTITY")

Shape = tuple[int, ...]


class DataType(IntEnum):
    FLOAT = 0
    HALF = 1
    INT8 = 2
    INT32 = 3
    BOOL = 4
    INT64 = 8


ONNX_TYPES = {
    onnx.TensorProto.FLOAT: DataType.FLOAT,
    onnx.TensorProto.FLOAT16: DataType.HALF,
    onnx.TensorProto.INT32: DataType.INT32,
    onnx.TensorProto.INT64: DataType.INT64,
    onnx.TensorProto.BOOL: DataType.BOOL,
}
NUMPY_TYPES = {DataType.FLOAT: np.float32, DataType.HALF: np.float16, DataType.INT32: np.int32}


def enum(name: str, members: dict[str, int]) -> Any:
    """Return what pybind's enumerations look like to us."""
    return IntEnum(name, members)


class Segfault(BaseException):
    """Where the real TensorRT takes the interpreter down with it."""


class Severity(IntEnum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3
    VERBOSE = 4


class ILogger:
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = Severity

    def __init__(self) -> None:
        self._made = True

    def log(self, severity: Severity, msg: str) -> None:
        raise NotImplementedError('Tried to call pure virtual function "ILogger::log"')


class Logger(ILogger):
    def __init__(self, min_severity: Severity = Severity.WARNING) -> None:
        super().__init__()
        self.min_severity = min_severity

    def log(self, severity: Severity, msg: str) -> None:
        pass


setattr(ILogger, "Severity", Severity)  # noqa: B010  # as a name within, mypy takes it for another


class IProgressMonitor:
    def __init__(self) -> None:
        self._made = True


class IHostMemory(bytes):
    """Bytes of TensorRT's."""

    @property
    def nbytes(self) -> int:
        return len(self)


class FakeTensorRT:
    """Makes `module`; `build` is what goes wrong in building: "", fail, memory, crash or hang."""

    def __init__(self, driver: FakeDriver, version: str, build: str = "") -> None:
        self.driver = driver
        self.is_rtx = version.startswith("rtx-")
        self.version = version.removeprefix("rtx-")
        self.major = 11 if self.is_rtx else int(version.split(".")[0])
        """Of TensorRT: its API is that of 11, and more."""
        self.compiled: list[str] = []
        """What somebody waited for: kernels of TensorRT-RTX, by shape."""
        self.postponed: list[str] = []
        """Kernels that are being compiled while slower ones run."""
        self.build = build
        self.builds = 0
        self.invalid = 0
        """What get_engine_validity finds."""
        self.alive = 0
        """Engines and contexts that hold memory of the GPU."""
        self.name = "tensorrt_rtx" if self.is_rtx else "tensorrt"
        self.module: Any = types.ModuleType(self.name)
        self._fill(self.module)

    def runs_on_this(self, compute: tuple[int, int]) -> bool:
        """Return whether a plan for a GPU, or for that and all later ones, is for this GPU."""
        here = self.driver.compute_capability
        return compute == here or (self.is_rtx and (8, 0) <= compute <= here)

    def hold(self, owner: object, n_bytes: int) -> bool:
        """Take memory of the GPU for as long as `owner` lives."""
        address = self.driver.allocate(n_bytes, "TensorRT's")
        if not address:
            return False
        weakref.finalize(owner, self._let_go, address).atexit = False
        self.alive += 1
        return True

    def _let_go(self, address: int) -> None:
        self.alive -= 1
        self.driver.free(address)

    def _fill(self, trt: Any) -> None:
        old, new = self.major < 10, self.major > 10
        trt.__version__ = self.version
        trt.ILogger, trt.Logger = ILogger, Logger
        trt.DataType = DataType
        trt.float32, trt.float16, trt.int32 = DataType.FLOAT, DataType.HALF, DataType.INT32
        trt.TensorIOMode = enum("TensorIOMode", {"NONE": 0, "INPUT": 1, "OUTPUT": 2})
        layers = dict.fromkeys((*LAYER_OF_OP.values(), *OTHER_LAYERS))
        trt.LayerType = enum("LayerType", {name: i for i, name in enumerate(layers)})
        trt.MemoryPoolType = enum("MemoryPoolType", {"WORKSPACE": 0})
        trt.NetworkDefinitionCreationFlag = enum(
            "NetworkDefinitionCreationFlag",
            {
                **({} if new else {"EXPLICIT_BATCH": 0}),
                **({} if old else {"STRONGLY_TYPED": 1}),
            },
        )
        typing = {} if new else {"FP16": 0, "INT8": 1, "OBEY_PRECISION_CONSTRAINTS": 13}
        trt.BuilderFlag = enum("BuilderFlag", {"REFIT": 6, "TF32": 7, **typing})
        libraries = {} if new else {"CUBLAS": 0, "CUBLAS_LT": 1, "CUDNN": 2}
        ours = {"EDGE_MASK_CONVOLUTIONS": 3, "JIT_CONVOLUTIONS": 4}
        trt.TacticSource = enum("TacticSource", {**libraries, **ours})
        trt.PreviewFeature = enum(
            "PreviewFeature",
            {"ALIASED_PLUGIN_IO_10_03": 3} if new else {"PROFILE_SHARING_0806": 2},
        )
        trt.ICudaEngine, trt.IExecutionContext = Engine, Context
        trt.Runtime = lambda logger: Runtime(self, logger)
        trt.Builder = lambda logger: Builder(self, logger)
        trt.OnnxParser = lambda network, logger: OnnxParser(self, network, logger)
        if not old:
            trt.IProgressMonitor = IProgressMonitor
            trt.ExecutionContextAllocationStrategy = enum(
                "ExecutionContextAllocationStrategy",
                {"STATIC": 0, "ON_PROFILE_CHANGE": 1, "USER_MANAGED": 2},
            )

        if self.is_rtx:
            self._fill_rtx(trt)

    def _fill_rtx(self, trt: Any) -> None:
        flags = {flag.name: flag.value for flag in trt.BuilderFlag}
        trt.BuilderFlag = enum("BuilderFlag", {**flags, "REQUIRE_USER_ALLOCATION": 28})
        capabilities = ("NONE", "CURRENT", "SM75", "SM80", "SM86", "SM89", "SM120", "SM121")
        numbers = {name: i for i, name in enumerate(capabilities)}
        trt.ComputeCapability = enum("ComputeCapability", numbers)
        trt.CudaGraphStrategy = enum("CudaGraphStrategy", {"DISABLED": 0, "WHOLE_GRAPH_CAPTURE": 1})
        trt.DynamicShapesKernelSpecializationStrategy = enum(
            "DynamicShapesKernelSpecializationStrategy", {"LAZY": 0, "EAGER": 1, "NONE": 2}
        )
        trt.EngineValidity = enum("EngineValidity", {"VALID": 0, "SUBOPTIMAL": 1, "INVALID": 2})
        reasons = (
            *("VERSION_MISMATCH", "UNSUPPORTED_CC", "OLD_CUDA_DRIVER", "OLD_CUDA_RUNTIME"),
            *("INSUFFICIENT_GPU_MEMORY", "MALFORMED_ENGINE", "CUDA_ERROR"),
        )
        trt.EngineInvalidityDiagnostics = enum(
            "EngineInvalidityDiagnostics", {name: 1 << i for i, name in enumerate(reasons)}
        )

    def ensure_started(self, logger: Any, what: str) -> None:
        """Do what the constructors do where there is no GPU."""
        if not isinstance(logger, ILogger) or not hasattr(logger, "_made"):
            raise TypeError(f"{what}(): incompatible constructor arguments")
        if self.is_rtx or self.driver.ready():
            return
        if self.major < 10:
            raise TypeError("pybind11::init(): factory function returned nullptr")
        raise Segfault(f"tensorrt.{what} without a driver")


# -- reading and running -------------------------------------------------------------------


class Runtime:
    def __init__(self, fake: FakeTensorRT, logger: Any) -> None:
        fake.ensure_started(logger, "Runtime")
        self._fake = fake
        self._logger = logger

    engine_header_size = len(MAGIC)

    def get_engine_validity(self, buffer: Any) -> tuple[Any, int]:
        """Look at the first bytes, and at what a test has asked for."""
        trt, wrong = self._fake.module, self._fake.invalid
        if bytes(buffer) != MAGIC:
            wrong |= trt.EngineInvalidityDiagnostics.MALFORMED_ENGINE
        return (trt.EngineValidity.INVALID if wrong else trt.EngineValidity.VALID), int(wrong)

    def deserialize_cuda_engine(self, serialized_engine: Any) -> Engine | None:
        with memoryview(serialized_engine) as view:
            data = bytes(view)
        body = data[len(MAGIC) + DIGEST_BYTES :]
        said = data[len(MAGIC) : len(MAGIC) + DIGEST_BYTES]
        if not data.startswith(MAGIC) or hashlib.sha256(body).digest() != said:
            self._logger.log(Severity.ERROR, "Serialization assertion magicTagRead failed.")
            return None
        length = int.from_bytes(body[:4], "little")
        header, graph = json.loads(body[4 : 4 + length]), body[4 + length :]
        if header["version"] != self._fake.version:
            self._logger.log(Severity.ERROR, "Version tag does not match.")
            return None
        if not self._fake.runs_on_this(tuple(header["compute"])):
            self._logger.log(Severity.ERROR, "The engine plan file is for another device.")
            return None
        engine = Engine(self._fake, self, self._logger, header, graph)
        if not self._fake.hold(engine, len(data)):
            self._logger.log(Severity.ERROR, "Error Code 2: OutOfMemory (requested memory)")
            return None
        return engine


class Engine:
    def __init__(
        self, fake: FakeTensorRT, runtime: Runtime, logger: Any, header: Any, graph: bytes
    ) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        self.session = onnxruntime.InferenceSession(
            graph, options, providers=["CPUExecutionProvider"]
        )
        self.fake = fake
        self.runtime = runtime  # kept alive, as pybind does
        self.logger = logger
        self.profiles: list[dict[str, list[list[int]]]] = header["profiles"]
        self.shares_profiles: bool = header["sharing"]
        self.taken_profiles: list[weakref.ref[Context]] = []
        model = onnx.load_from_string(graph)
        self.inputs = {value.name: _tensor(value) for value in model.graph.input}
        self.outputs = {value.name: _tensor(value) for value in model.graph.output}
        self.tensors = {**self.inputs, **self.outputs}
        self.contexts = 0

    def __getattr__(self, name: str) -> Any:
        """What not every version has."""
        major = self.fake.major
        if name == "device_memory_size_v2" and major >= 10:
            return SCRATCH_BYTES
        if name == "device_memory_size" and major <= 10:
            self._deprecated(name)
            return SCRATCH_BYTES
        if name == "create_execution_context_without_device_memory" and major <= 10:
            self._deprecated(name)
            return lambda: self._context(user_managed=True)
        # Under no name: its traceback would hold this frame, which would hold it.
        raise AttributeError(f"ICudaEngine has no {name}")

    def _deprecated(self, name: str) -> None:
        if self.fake.major == 10:
            warnings.warn(f"{name} is deprecated", DeprecationWarning, stacklevel=3)

    @property
    def num_io_tensors(self) -> int:
        return len(self.tensors)

    @property
    def num_optimization_profiles(self) -> int:
        return len(self.profiles)

    def get_tensor_name(self, index: int) -> str:
        names: list[str] = list(self.tensors)
        return names[index]

    def get_tensor_mode(self, name: str) -> Any:
        modes = self.fake.module.TensorIOMode
        return modes.INPUT if name in self.inputs else modes.OUTPUT

    def get_tensor_shape(self, name: str) -> Shape:
        return self.tensors[name].shape

    def get_tensor_dtype(self, name: str) -> DataType:
        return self.tensors[name].dtype

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Shape]:
        return [tuple(shape) for shape in self.profiles[profile_index][name]]

    def create_runtime_config(self) -> RuntimeConfig:
        return RuntimeConfig(self.fake)

    def create_execution_context(self, strategy: Any = 0) -> Context | None:
        if isinstance(strategy, RuntimeConfig):
            context = self._context(user_managed=strategy.user_managed)
            if context:
                context.config = strategy
            return context
        strategies = getattr(self.fake.module, "ExecutionContextAllocationStrategy", None)
        if strategy and strategies is None:
            raise TypeError("create_execution_context(): incompatible function arguments.")
        return self._context(user_managed=bool(strategies and strategy == strategies.USER_MANAGED))

    def _context(self, user_managed: bool) -> Context | None:
        context = Context(self, user_managed)
        n_bytes = CONTEXT_BYTES + (0 if user_managed else SCRATCH_BYTES)
        if not self.fake.hold(context, n_bytes):
            self.logger.log(Severity.ERROR, "Error Code 2: OutOfMemory (requested memory)")
            return None
        self.contexts += 1
        if self.contexts == 1:
            context.take_profile(0)
        return context

    def specialize(self, config: RuntimeConfig, shapes: dict[str, Shape]) -> None:
        """Compile the kernels of a shape, now or later, unless the cache has them."""
        kernel = hashlib.sha256(repr((list(self.outputs), sorted(shapes.items()))).encode())
        name = kernel.hexdigest()[:16]
        if config.cache is not None and name in config.cache.entries:
            return
        strategies = self.fake.module.DynamicShapesKernelSpecializationStrategy
        strategy = config.dynamic_shapes_kernel_specialization_strategy
        if strategy != strategies.EAGER:
            self.fake.postponed += [name] * (strategy != strategies.NONE)
            return
        self.fake.compiled.append(name)
        if config.cache is not None:
            config.cache.entries.add(name)

    def compute(self, shapes: dict[str, Shape], places: dict[str, int]) -> None:
        """Run the graph on the driver's memory."""
        driver = self.fake.driver
        feed, ranges = {}, []
        for name, tensor in self.inputs.items():
            feed[name] = _view(driver, places[name], shapes[name], tensor.numpy)
            ranges.append((places[name], places[name] + feed[name].nbytes, name))
        found = self.session.run(list(self.outputs), feed)
        for name, values in zip(self.outputs, found, strict=True):
            target = _view(driver, places[name], values.shape, self.outputs[name].numpy)
            ranges.append((places[name], places[name] + values.nbytes, name))
            target[...] = values
        for (_, end, name), (start, _, other) in pairwise(sorted(ranges)):
            if start < end and not (name in self.inputs and other in self.inputs):
                driver.problems.append(f"{name} and {other} overlap")


class RuntimeCache:
    def __init__(self, fake: FakeTensorRT) -> None:
        self._head = f"{fake.version} {fake.driver.compute_capability} {fake.driver.version}\n"
        self.entries: set[str] = set()

    def serialize(self) -> IHostMemory:
        return IHostMemory((self._head + "\n".join(sorted(self.entries))).encode())

    def deserialize(self, blob: Any) -> bool:
        head, _, body = bytes(blob).partition(b"\n")
        if head + b"\n" != self._head.encode():
            return False
        self.entries |= set(body.decode().split())
        return True

    def reset(self) -> bool:
        self.entries.clear()
        return True


class RuntimeConfig:
    def __init__(self, fake: FakeTensorRT) -> None:
        self._fake = fake
        self.user_managed = False
        self.cache: RuntimeCache | None = None
        self.cuda_graph_strategy = 0
        self.dynamic_shapes_kernel_specialization_strategy = 0

    def set_execution_context_allocation_strategy(self, strategy: Any = 0) -> None:
        strategies = self._fake.module.ExecutionContextAllocationStrategy
        self.user_managed = strategy == strategies.USER_MANAGED

    def create_runtime_cache(self) -> RuntimeCache:
        return RuntimeCache(self._fake)

    def set_runtime_cache(self, cache: RuntimeCache | None = None) -> bool:
        self.cache = cache
        return True


class Context:
    config: RuntimeConfig | None = None

    def __init__(self, engine: Engine, user_managed: bool) -> None:
        self.engine = engine
        self._fake = engine.fake
        self._user_managed = user_managed
        self._scratch = (0, 0)
        self._profile = -1
        self._shapes: dict[str, Shape] = {
            name: tensor.shape for name, tensor in engine.inputs.items() if -1 not in tensor.shape
        }
        self._addresses: dict[str, int] = {}
        self._warm: dict[str, Shape] = {}

    def __getattr__(self, name: str) -> Any:
        if name == "set_device_memory" and self._fake.major >= 10:
            return self._set_device_memory
        raise AttributeError(f"IExecutionContext has no {name}")

    def _set_device_memory(self, memory: int, size: int) -> None:
        self._scratch = (memory, size)

    def _set_device_memory_v1(self, memory: int) -> None:
        self._scratch = (memory, SCRATCH_BYTES)

    device_memory = property(None, _set_device_memory_v1)

    def take_profile(self, index: int) -> bool:
        """Use a profile; without sharing, no other context may."""
        others = [other() for other in self.engine.taken_profiles]
        taken = any(o and o is not self and o._profile == index for o in others)
        if not 0 <= index < len(self.engine.profiles) or (
            taken and not self.engine.shares_profiles
        ):
            return False
        if self._profile != index:
            self._shapes = {n: s for n, s in self._shapes.items() if not self._is_dynamic(n)}
        self._profile = index
        self.engine.taken_profiles.append(weakref.ref(self))
        return True

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        if not self.take_profile(profile_index):
            self._refuse(f"profile {profile_index} is in use, or there is none")
            raise RuntimeError(PROFILE_REFUSED)
        return True

    def _is_dynamic(self, name: str) -> bool:
        return -1 in self.engine.inputs[name].shape

    def set_input_shape(self, name: str, shape: Shape) -> bool:
        tensor = self.engine.inputs.get(name)
        if tensor is None or self._profile < 0:
            return self._refuse(f"setInputShape: no input {name}, or no profile")
        if -1 not in tensor.shape:
            return tuple(shape) == tensor.shape or self._refuse(f"{name} is static")
        least, _, most = self.engine.profiles[self._profile][name]
        fits = len(shape) == len(most) and all(
            low <= size <= high for low, size, high in zip(least, shape, most, strict=True)
        )
        if not fits:
            return self._refuse(f"{name}: {shape} is not within profile {self._profile}")
        self._shapes[name] = tuple(shape)
        return True

    def infer_shapes(self) -> list[str]:
        return [name for name in self.engine.inputs if name not in self._shapes]

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if name not in self.engine.tensors:
            return self._refuse(f"setTensorAddress: no tensor {name}")
        if memory % Device.ALIGNMENT:
            self._fake.driver.problems.append(f"{name} is not aligned: {memory:#x}")
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        driver, engine = self._fake.driver, self.engine
        missing = [n for n in engine.inputs if n not in self._shapes]
        missing += [n for n in engine.tensors if not self._addresses.get(n)]
        if missing:
            return self._refuse(f"enqueueV3: {missing[0]} has no shape or no address")
        if not stream_handle:
            driver.problems.append("TensorRT in the default stream")
        if not driver.has_context():
            driver.problems.append("TensorRT in a thread without a context")
        if self._user_managed and self._scratch[1] < SCRATCH_BYTES:
            driver.problems.append("a context without scratch memory")
        capturing = driver.capturing(stream_handle)
        if self._fake.is_rtx:
            if self.config is None or capturing:
                driver.problems.append("a graph of ours would keep TensorRT-RTX's first kernels")
            else:
                engine.specialize(self.config, self._shapes)
        if capturing and self._warm != self._shapes:
            driver.invalidate(stream_handle)
            return self._refuse("operation not permitted when stream is capturing")
        self._warm = dict(self._shapes)
        run = self._run(dict(self._shapes), dict(self._addresses), self._scratch, capturing)
        return driver.enqueue(stream_handle, run) or self._refuse("enqueueV3: the GPU has failed")

    def _run(
        self, shapes: dict[str, Shape], places: dict[str, int], scratch: tuple[int, int], kept: bool
    ) -> Callable[[], None]:
        """Return one run, with the shapes and addresses of now.

        It holds no context: a graph that outlives its own is a problem.
        """
        driver, engine, mine = self._fake.driver, weakref.ref(self.engine), weakref.ref(self)

        def run() -> None:
            context, alive = mine(), engine()
            if context is None or alive is None:
                driver.problems.append("a context was destroyed before its work was done")
                raise CudaStatus(ILLEGAL_ADDRESS)
            if kept and context._shapes != shapes:
                driver.problems.append("a captured context was given other shapes")
            if scratch[1]:
                view = _view(driver, scratch[0], (SCRATCH_BYTES,), np.uint8)
                view[...] = 0xFF
            try:
                alive.compute(shapes, places)
            except CudaStatus:
                raise
            except Exception as error:
                driver.problems.append(f"a kernel would have gone astray: {error}")
                raise CudaStatus(ILLEGAL_ADDRESS) from error

        return run

    def _refuse(self, reason: str) -> bool:
        said = f"IExecutionContext: {reason}"
        self.engine.logger.log(Severity.ERROR, said)
        return False


def _view(driver: FakeDriver, address: int, shape: Shape, dtype: Any) -> npt.NDArray[Any]:
    n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    driver.locate(address, n_bytes, "device")
    memory = memoryview((ctypes.c_ubyte * n_bytes).from_address(address))
    return np.frombuffer(memory, dtype).reshape(shape)


class _Tensor:
    def __init__(self, name: str, shape: Shape, dtype: DataType) -> None:
        self.name = name
        self.shape = shape
        self.dtype = dtype

    @property
    def numpy(self) -> Any:
        return NUMPY_TYPES[self.dtype]


def _tensor(value: Any) -> _Tensor:
    kind = value.type.tensor_type
    shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim)
    return _Tensor(value.name, shape, ONNX_TYPES[kind.elem_type])


# -- building ------------------------------------------------------------------------------


class Builder:
    def __init__(self, fake: FakeTensorRT, logger: Any) -> None:
        fake.ensure_started(logger, "Builder")
        self._fake = fake
        self._logger = logger

    def create_network(self, flags: int = 0) -> Network:
        return Network(self._fake, flags)

    def create_builder_config(self) -> BuilderConfig:
        return BuilderConfig(self._fake)

    def create_optimization_profile(self) -> OptimizationProfile:
        return OptimizationProfile()

    def build_serialized_network(
        self, network: Network, config: BuilderConfig
    ) -> IHostMemory | None:
        self._fake.builds += 1
        self._go_wrong(self._fake.build)
        reason = self._impossible(network, config) or self._memory(network, config)
        if reason or not self._progress(config):
            self._logger.log(Severity.ERROR, reason or "The build was cancelled.")
            return None
        graph = network.model.SerializeToString()
        config.timings.append(hashlib.sha256(graph).hexdigest())
        header = json.dumps(
            {
                "version": self._fake.version,
                "compute": config.compute,
                "profiles": [profile.shapes for profile in config.profiles],
                "sharing": self._fake.major >= 10 or config.shares_profiles,
            }
        ).encode()
        body = len(header).to_bytes(4, "little") + header + graph
        return IHostMemory(MAGIC + hashlib.sha256(body).digest() + body)

    def _go_wrong(self, how: str) -> None:
        if how == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if how == "hang":
            while True:
                time.sleep(1)

    def _memory(self, network: Network, config: BuilderConfig) -> str:
        driver = self._fake.driver
        if self._fake.is_rtx:
            return "Error Code 2: OutOfMemory" if self._fake.build == "memory" else ""
        short = driver.used_bytes + len(network.model.SerializeToString()) > driver.total_bytes
        return "Error Code 2: OutOfMemory" if short or self._fake.build == "memory" else ""

    def _impossible(self, network: Network, config: BuilderConfig) -> str:
        if network.model is None:
            return "Network must have at least one output"
        if self._fake.is_rtx and not config.flags >> 28 & 1:
            return "runtime allocation can't be captured"
        if self._fake.build == "fail":
            return "Error Code 10: Internal Error (Could not find any implementation for node)"
        if network.strongly_typed and config.flags & 1:
            return "kFP16 cannot be set for a strongly typed network"
        for index in range(network.num_inputs):
            tensor = network.get_input(index)
            if -1 not in tensor.shape:
                continue
            if not config.profiles:
                return f"Network has dynamic inputs, but no optimization profile: {tensor.name}"
            for profile in config.profiles:
                if not profile.allows(tensor):
                    return f"Error Code 4: {tensor.name} has an impossible profile"
        return ""

    def _progress(self, config: BuilderConfig) -> bool:
        monitor = config.progress_monitor
        if monitor is None:
            return True
        monitor.phase_start("Building Engine", None, 4)
        monitor.phase_start("Tactics", "Building Engine", 2)
        steps = [("Tactics", 0), ("Tactics", 1), *(("Building Engine", i) for i in range(4))]
        going_on = all(monitor.step_complete(phase, step) for phase, step in steps)
        monitor.phase_finish("Tactics")
        monitor.phase_finish("Building Engine")
        return going_on


class OptimizationProfile:
    def __init__(self) -> None:
        self.shapes: dict[str, list[list[int]]] = {}

    def set_shape(self, input: str, min: Shape, opt: Shape, max: Shape) -> None:  # noqa: A002
        self.shapes[input] = [list(min), list(opt), list(max)]

    def allows(self, tensor: _Tensor) -> bool:
        """Return whether the ranges make sense for the tensor."""
        ranges = self.shapes.get(tensor.name)
        return (
            ranges is not None
            and all(len(tensor.shape) == len(shape) for shape in ranges)
            and all(
                least <= best <= most and size in (-1, least) and size in (-1, most)
                for size, least, best, most in zip(tensor.shape, *ranges, strict=True)
            )
        )


class BuilderConfig:
    def __init__(self, fake: FakeTensorRT) -> None:
        self._fake = fake
        self.profiles: list[OptimizationProfile] = []
        self.flags = 1 << 7
        self.shares_profiles = False
        self.timings: list[str] = []
        self.builder_optimization_level = 3
        self.max_aux_streams = -1
        self.compute = (8, 0) if fake.is_rtx else fake.driver.compute_capability
        self.num_compute_capabilities = 0
        self._tactic_sources = sum(1 << int(source) for source in fake.module.TacticSource)
        if fake.major >= 10:
            self.progress_monitor: Any = None

    def __getattr__(self, name: str) -> Any:
        if name == "progress_monitor":  # unknown to TensorRT 8, which no one may set there
            return None
        raise AttributeError(f"IBuilderConfig has no {name}")

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        self.pools = {pool: pool_size}

    def set_flag(self, flag: Any) -> None:
        self.flags |= 1 << int(flag)

    def clear_flag(self, flag: Any) -> None:
        self.flags &= ~(1 << int(flag))

    def get_flag(self, flag: Any) -> bool:
        return bool(self.flags >> int(flag) & 1)

    def set_preview_feature(self, feature: Any, enable: bool) -> None:
        if feature.name == "PROFILE_SHARING_0806":
            self.shares_profiles = enable

    def set_tactic_sources(self, tactic_sources: int) -> bool:
        self._tactic_sources = tactic_sources
        return True

    def get_tactic_sources(self) -> int:
        return self._tactic_sources

    def add_optimization_profile(self, profile: OptimizationProfile) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def set_compute_capability(self, compute_capability: Any, index: int) -> bool:
        if not 0 <= index < self.num_compute_capabilities:
            return False
        number = compute_capability.name.removeprefix("SM")
        self.compute = (int(number[:-1]), int(number[-1]))
        return True

    def create_timing_cache(self, serialized_timing_cache: bytes) -> TimingCache | None:
        if self._fake.is_rtx:
            warnings.warn("Timing cache operations are no-ops", DeprecationWarning, stacklevel=2)
        head = f"timings of {self._fake.version}\n".encode()
        if serialized_timing_cache and not bytes(serialized_timing_cache).startswith(head):
            return None
        return TimingCache(head, bytes(serialized_timing_cache)[len(head) :])

    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
        self.timings = cache.entries
        return True

    def get_timing_cache(self) -> list[str]:
        return self.timings


class TimingCache:
    def __init__(self, head: bytes, body: bytes) -> None:
        self._head = head
        self.entries = body.decode().split()

    def serialize(self) -> IHostMemory:
        return IHostMemory(self._head + "\n".join(sorted(set(self.entries))).encode())

    def combine(self, input_cache: TimingCache, ignore_mismatch: bool) -> bool:
        self.entries += input_cache.entries
        return True


class Network:
    def __init__(self, fake: FakeTensorRT, flags: int) -> None:
        known = fake.module.NetworkDefinitionCreationFlag
        self.explicit = fake.major >= 10 or bool(flags & 1 << int(known.EXPLICIT_BATCH))
        self.strongly_typed = fake.major > 10 or (fake.major == 10 and bool(flags & 2))
        self.fake = fake
        self.model: Any = None
        self._layers: list[Layer] = []

    @property
    def num_inputs(self) -> int:
        return len(self.model.graph.input)

    def get_input(self, index: int) -> _Tensor:
        return _tensor(self.model.graph.input[index])

    @property
    def num_outputs(self) -> int:
        return len(self.model.graph.output)

    def get_output(self, index: int) -> _Tensor:
        return _tensor(self.model.graph.output[index])

    @property
    def num_layers(self) -> int:
        return len(self._layers)

    def get_layer(self, index: int) -> Layer:
        return self._layers[index]

    def load(self, path: Path) -> None:
        """Take a graph, its external data too."""
        self.model = onnx.load(path)
        known = onnx.shape_inference.infer_shapes(self.model).graph
        kinds = {
            value.name: value.type.tensor_type.elem_type
            for value in (*known.value_info, *known.output)
        }
        layers = self.fake.module.LayerType
        self._layers = [
            Layer(
                layers[LAYER_OF_OP.get(node.op_type, "ELEMENTWISE")],
                [ONNX_TYPES.get(kinds.get(name, 0), DataType.FLOAT) for name in node.output],
            )
            for node in self.model.graph.node
        ]


class Layer:
    def __init__(self, kind: Any, outputs: list[DataType]) -> None:
        self.type = kind
        self.precision = DataType.FLOAT
        self._outputs = [_Tensor("", (), dtype) for dtype in outputs]

    @property
    def num_outputs(self) -> int:
        return len(self._outputs)

    def get_output(self, index: int) -> _Tensor:
        return self._outputs[index]

    def set_output_type(self, index: int, dtype: DataType) -> None:
        self._outputs[index].dtype = dtype


class OnnxParser:
    def __init__(self, fake: FakeTensorRT, network: Network, logger: Any) -> None:
        self._fake = fake
        self._network = network
        self._errors: list[str] = []

    def parse_from_file(self, model: str) -> bool:
        if not isinstance(model, str):
            raise TypeError("parse_from_file(): incompatible function arguments.")
        try:
            self._network.load(Path(model))
        except Exception as error:
            return self._refuse(f"Failed to parse ONNX model from file: {model}: {error}")
        if not self._network.explicit:
            return self._refuse("This version of the ONNX parser only supports explicit batch")
        version = self._network.model.opset_import[0].version
        if self._fake.major < 10 and version > 17:
            return self._refuse(f"opset {version} is not supported")
        values = (*self._network.model.graph.input, *self._network.model.graph.output)
        if any(_tensor(value).dtype == DataType.INT64 for value in values):
            return self._refuse("an INT64 input or output")
        return True

    def _refuse(self, reason: str) -> bool:
        self._errors.append(reason)
        self._network.model = None
        return False

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        return ParserError(self._errors[index])


class ParserError:
    def __init__(self, text: str) -> None:
        self._text = text

    def desc(self) -> str:
        return self._text
