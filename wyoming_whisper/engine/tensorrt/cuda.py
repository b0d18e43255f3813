"""NVIDIA's driver through ctypes: devices, memory, streams, events, graphs. Knows no TensorRT.

Names and numbers are those of cuda.h.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable
from ctypes import POINTER, byref, c_char_p, c_float, c_int, c_size_t, c_ubyte, c_uint, c_void_p
from ctypes import c_uint64 as c_device_pointer
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

from ...errors import EngineError

_LOGGER = logging.getLogger(__name__)


class NoGpuError(EngineError):
    """There is no NVIDIA GPU to use here; the message says why."""


class _CudaError(EngineError):
    """A call to the driver failed, or reports that earlier work failed."""

    CUDA_ERROR_OUT_OF_MEMORY = 2

    def __init__(self, call: str, status: int, name: str) -> None:
        what = "ran out of memory" if status == self.CUDA_ERROR_OUT_OF_MEMORY else "failed"
        super().__init__(f"the GPU {what} ({call}: {name})")
        self.call = call
        self.status = status


@dataclass(frozen=True)
class Gpu:
    """What the driver tells of a GPU."""

    index: int
    name: str
    compute_capability: tuple[int, int]
    total_bytes: int
    integrated: bool
    """It shares the machine's memory, as on a Jetson."""
    cuda_version: tuple[int, int]
    """The newest CUDA that the driver knows."""

    @classmethod
    def all(cls) -> list[Gpu]:
        """Return the GPUs there are, at least one; keeps no context and loads no TensorRT.

        Raises NoGpuError.
        """
        driver = _Driver()
        try:
            count, version = c_int(), c_int()
            driver.call("cuDeviceGetCount", byref(count))
            driver.call("cuDriverGetVersion", byref(version))
            gpus = [_describe(driver, index, version.value) for index in range(count.value)]
        except _CudaError as error:
            message = f"the NVIDIA driver can't tell which GPUs there are: {error}"
            raise NoGpuError(message) from error
        if not gpus:
            raise NoGpuError("the NVIDIA driver finds no GPU")
        return gpus


def _describe(driver: _Driver, index: int, version: int) -> Gpu:
    max_name_bytes = 256
    cu_device_attribute_compute_capability_minor = 76
    cu_device_attribute_compute_capability_major = 75
    cu_device_attribute_integrated = 18
    handle, total = c_int(), c_size_t()
    name = ctypes.create_string_buffer(max_name_bytes)
    driver.call("cuDeviceGet", byref(handle), index)
    driver.call("cuDeviceGetName", name, max_name_bytes, handle)
    driver.call("cuDeviceTotalMem_v2", byref(total), handle)

    def attribute(number: int) -> int:
        value = c_int()
        driver.call("cuDeviceGetAttribute", byref(value), number, handle)
        return value.value

    return Gpu(
        index=index,
        name=name.value.decode(errors="replace"),
        compute_capability=(
            attribute(cu_device_attribute_compute_capability_major),
            attribute(cu_device_attribute_compute_capability_minor),
        ),
        total_bytes=total.value,
        integrated=bool(attribute(cu_device_attribute_integrated)),
        cuda_version=(version // 1000, version % 1000 // 10),
    )


class _Driver:
    """The driver's functions, initialised. Raises NoGpuError where there is none that works."""

    LIBRARY = "libcuda.so.1"
    CUDA_SUCCESS = 0
    CUDA_ERROR_NO_DEVICE = 100
    PROTOTYPES: ClassVar[dict[str, tuple[Any, ...]]] = {
        "cuInit": (c_uint,),
        "cuDriverGetVersion": (POINTER(c_int),),
        "cuGetErrorName": (c_int, POINTER(c_char_p)),
        "cuDeviceGetCount": (POINTER(c_int),),
        "cuDeviceGet": (POINTER(c_int), c_int),
        "cuDeviceGetName": (c_void_p, c_int, c_int),
        "cuDeviceGetAttribute": (POINTER(c_int), c_int, c_int),
        "cuDeviceTotalMem_v2": (POINTER(c_size_t), c_int),
        "cuDevicePrimaryCtxRetain": (POINTER(c_void_p), c_int),
        "cuDevicePrimaryCtxRelease_v2": (c_int,),
        "cuCtxSetCurrent": (c_void_p,),
        "cuMemGetInfo_v2": (POINTER(c_size_t), POINTER(c_size_t)),
        "cuMemAlloc_v2": (POINTER(c_device_pointer), c_size_t),
        "cuMemFree_v2": (c_device_pointer,),
        "cuMemHostAlloc": (POINTER(c_void_p), c_size_t, c_uint),
        "cuMemFreeHost": (c_void_p,),
        "cuMemcpyHtoDAsync_v2": (c_device_pointer, c_void_p, c_size_t, c_void_p),
        "cuMemcpyDtoHAsync_v2": (c_void_p, c_device_pointer, c_size_t, c_void_p),
        "cuMemcpyDtoDAsync_v2": (c_device_pointer, c_device_pointer, c_size_t, c_void_p),
        "cuMemsetD8Async": (c_device_pointer, c_ubyte, c_size_t, c_void_p),
        "cuStreamCreate": (POINTER(c_void_p), c_uint),
        "cuStreamSynchronize": (c_void_p,),
        "cuStreamDestroy_v2": (c_void_p,),
        "cuEventCreate": (POINTER(c_void_p), c_uint),
        "cuEventRecord": (c_void_p, c_void_p),
        "cuEventSynchronize": (c_void_p,),
        "cuEventElapsedTime": (POINTER(c_float), c_void_p, c_void_p),
        "cuEventDestroy_v2": (c_void_p,),
        "cuStreamBeginCapture_v2": (c_void_p, c_int),
        "cuStreamEndCapture": (c_void_p, POINTER(c_void_p)),
        "cuGraphInstantiateWithFlags": (POINTER(c_void_p), c_void_p, ctypes.c_ulonglong),
        "cuGraphInstantiate_v2": (POINTER(c_void_p), c_void_p, c_void_p, c_void_p, c_size_t),
        "cuGraphLaunch": (c_void_p, c_void_p),
        "cuGraphExecDestroy": (c_void_p,),
        "cuGraphDestroy": (c_void_p,),
    }
    """Function -> its argument types; each returns a CUresult."""

    def __init__(self) -> None:
        try:
            library = ctypes.CDLL(self.LIBRARY)
        except OSError as error:
            raise NoGpuError(
                f"no NVIDIA driver is installed, or it is not passed into this container "
                f"({self.LIBRARY} can't be loaded)"
            ) from error
        self._functions = self._declare(library)
        try:
            self.call("cuInit", 0)
        except _CudaError as error:
            if error.status == self.CUDA_ERROR_NO_DEVICE:
                raise NoGpuError("the NVIDIA driver finds no GPU") from error
            raise NoGpuError(f"the NVIDIA driver does not start: {error}") from error

    def _declare(self, library: Any) -> dict[str, Any]:
        one_of_two = (
            "cuGraphInstantiateWithFlags",
            "cuGraphInstantiate_v2",
        )  # the first: CUDA 11.4 on
        functions = {}
        for name, argtypes in self.PROTOTYPES.items():
            function = getattr(library, name, None)
            if function is not None:
                function.argtypes = argtypes
                function.restype = c_int
                functions[name] = function
        missing = [
            name for name in self.PROTOTYPES if name not in functions and name not in one_of_two
        ]
        if missing or not any(name in functions for name in one_of_two):
            raise NoGpuError(
                f"the NVIDIA driver is too old: it has no {(missing or one_of_two)[0]}; "
                "CUDA 11.4 is the least"
            )
        return functions

    def has(self, name: str) -> bool:
        """Return whether this driver is new enough to have the function."""
        return name in self._functions

    def call(self, name: str, *args: Any) -> None:
        """Call a function. Raises EngineError."""
        status = self._functions[name](*args)
        if status != self.CUDA_SUCCESS:
            raise _CudaError(name, status, self._name_of(status))

    def release(self, name: str, *args: Any) -> None:
        """Call a function that gives something back: whatever it reports, the thing is gone."""
        status = self._functions[name](*args)
        if status != self.CUDA_SUCCESS:
            _LOGGER.debug("%s: %s", name, self._name_of(status))

    def _name_of(self, status: int) -> str:
        name = c_char_p()
        has_name = self._functions["cuGetErrorName"](status, byref(name)) == self.CUDA_SUCCESS
        return name.value.decode() if has_name and name.value else f"error {status}"


Self = TypeVar("Self", bound="_Resource")


class _Resource:
    """Something of the driver's that is given back by `close`, once."""

    def __init__(self, driver: _Driver, handle: int, release: str) -> None:
        self.handle = handle
        self._driver = driver
        self._release = release

    def close(self) -> None:
        handle, self.handle = self.handle, 0
        if handle:
            self._driver.release(self._release, handle)

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Device(_Resource):
    """A GPU's primary context: what TensorRT uses too. Raises NoGpuError and EngineError."""

    ALIGNMENT = 256  # bytes: what TensorRT asks of a tensor's address, and the least that is given
    CU_STREAM_NON_BLOCKING = 1
    CU_EVENT_DEFAULT = 0
    CU_EVENT_DISABLE_TIMING = 2

    def __init__(self, index: int = 0) -> None:
        driver = _Driver()
        number, context = c_int(), c_void_p()
        driver.call("cuDeviceGet", byref(number), index)
        driver.call("cuDevicePrimaryCtxRetain", byref(context), number)
        # The one release that takes the device rather than what was got: a device may be 0.
        super().__init__(driver, context.value or 0, "cuDevicePrimaryCtxRelease_v2")
        self._number = number.value
        self.allocated_bytes = 0

    def use(self) -> None:
        """Make this context the calling thread's; needed before anything else in each thread."""
        self._driver.call("cuCtxSetCurrent", self.handle)

    def close(self) -> None:
        """Release the context. What it made is closed before."""
        if self.handle:
            self._driver.release("cuCtxSetCurrent", None)
            self._driver.release(self._release, self._number)
        self.handle = 0

    def memory_info(self) -> tuple[int, int]:
        """Return (free, total) bytes of the GPU."""
        free, total = c_size_t(), c_size_t()
        self._driver.call("cuMemGetInfo_v2", byref(free), byref(total))
        return free.value, total.value

    def allocate(self, n_bytes: int) -> DeviceBuffer:
        """Return memory of the GPU, aligned to 256 bytes, with anything in it."""
        address = c_device_pointer()
        self._driver.call("cuMemAlloc_v2", byref(address), n_bytes)
        return DeviceBuffer(self, self._driver, address.value, n_bytes)

    def allocate_host(self, n_bytes: int) -> _HostBuffer:
        """Return memory of the host that the GPU copies from and to without stopping."""
        address = c_void_p()
        self._driver.call("cuMemHostAlloc", byref(address), n_bytes, 0)
        return _HostBuffer(self._driver, address.value or 0, n_bytes)

    def stream(self) -> Stream:
        """Return a queue of work, independent of the default one."""
        handle = c_void_p()
        self._driver.call("cuStreamCreate", byref(handle), self.CU_STREAM_NON_BLOCKING)
        return Stream(self._driver, handle.value or 0, "cuStreamDestroy_v2")

    def event(self, timing: bool = False) -> _Event:
        """Return a mark to be set in a stream; with `timing`, one that tells the time."""
        handle = c_void_p()
        flags = self.CU_EVENT_DEFAULT if timing else self.CU_EVENT_DISABLE_TIMING
        self._driver.call("cuEventCreate", byref(handle), flags)
        return _Event(self._driver, handle.value or 0, "cuEventDestroy_v2")


class DeviceBuffer(_Resource):
    """Memory of the GPU; `handle` is its address."""

    def __init__(self, device: Device, driver: _Driver, address: int, n_bytes: int) -> None:
        super().__init__(driver, address, "cuMemFree_v2")
        self.n_bytes = n_bytes
        self._device = device
        device.allocated_bytes += n_bytes

    def close(self) -> None:
        """Free it; waits for what the GPU is doing."""
        if self.handle:
            self._device.allocated_bytes -= self.n_bytes
        super().close()


class _HostBuffer(_Resource):
    """Pinned memory of the host; `handle` is its address."""

    def __init__(self, driver: _Driver, address: int, n_bytes: int) -> None:
        super().__init__(driver, address, "cuMemFreeHost")
        self.n_bytes = n_bytes

    def view(
        self, dtype: npt.DTypeLike, shape: tuple[int, ...], offset: int = 0
    ) -> npt.NDArray[Any]:
        """Return the memory from byte `offset` on as an array, good until `close`."""
        count = int(np.prod(shape))
        if offset + count * np.dtype(dtype).itemsize > self.n_bytes:
            raise ValueError(f"{shape} of {np.dtype(dtype)} does not fit into {self.n_bytes} bytes")
        memory = memoryview((ctypes.c_ubyte * self.n_bytes).from_address(self.handle))
        return np.frombuffer(memory, dtype, count, offset).reshape(shape)


class _Event(_Resource):
    """A mark in a stream."""

    def synchronize(self) -> None:
        """Wait until the stream has come to the mark."""
        self._driver.call("cuEventSynchronize", self.handle)

    def milliseconds_since(self, earlier: _Event) -> float:
        """Return the GPU's time between two marks, both made with timing and both passed."""
        elapsed = c_float()
        self._driver.call("cuEventElapsedTime", byref(elapsed), earlier.handle, self.handle)
        return elapsed.value


class _Graph(_Resource):
    """Work that was captured, with its shapes and addresses, and is launched as one."""

    def launch(self, stream: Stream) -> None:
        """Queue all of it."""
        self._driver.call("cuGraphLaunch", self.handle, stream.handle)


class Stream(_Resource):
    """A queue of work of the GPU. Addresses may point into the middle of a buffer."""

    CU_STREAM_CAPTURE_MODE_THREAD_LOCAL = 1

    def synchronize(self) -> None:
        """Wait for all of it."""
        self._driver.call("cuStreamSynchronize", self.handle)

    def drain(self) -> None:
        """Let it come to an end; what fails now was to be thrown away."""
        try:
            self.synchronize()
        except EngineError as error:
            _LOGGER.debug("the GPU failed before its work was thrown away: %s", error)

    def upload(self, device: int, host: int, n_bytes: int) -> None:
        """Copy pinned memory to the GPU; it is left alone until the stream is synchronised."""
        self._driver.call("cuMemcpyHtoDAsync_v2", device, host, n_bytes, self.handle)

    def download(self, host: int, device: int, n_bytes: int) -> None:
        """Copy to pinned memory, which is not read until the stream is synchronised."""
        self._driver.call("cuMemcpyDtoHAsync_v2", host, device, n_bytes, self.handle)

    def copy(self, target: int, source: int, n_bytes: int) -> None:
        """Copy within the GPU."""
        self._driver.call("cuMemcpyDtoDAsync_v2", target, source, n_bytes, self.handle)

    def clear(self, device: int, n_bytes: int) -> None:
        """Fill with zeros."""
        self._driver.call("cuMemsetD8Async", device, 0, n_bytes, self.handle)

    def record(self, event: _Event) -> None:
        """Set the mark behind what is queued now."""
        self._driver.call("cuEventRecord", event.handle, self.handle)

    def capture(self, enqueue: Callable[[], None]) -> _Graph:
        """Return what `enqueue` queues in this stream, without running it."""
        graph = c_void_p()
        self._driver.call(
            "cuStreamBeginCapture_v2", self.handle, self.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        )
        try:
            enqueue()
        except BaseException:
            self._driver.release("cuStreamEndCapture", self.handle, byref(graph))
            if graph:
                self._driver.release("cuGraphDestroy", graph)
            raise
        self._driver.call("cuStreamEndCapture", self.handle, byref(graph))
        try:
            return _Graph(self._driver, self._instantiate(graph), "cuGraphExecDestroy")
        finally:
            self._driver.release("cuGraphDestroy", graph)

    def _instantiate(self, graph: c_void_p) -> int:
        executable = c_void_p()
        if self._driver.has("cuGraphInstantiateWithFlags"):
            self._driver.call("cuGraphInstantiateWithFlags", byref(executable), graph, 0)
        else:
            self._driver.call("cuGraphInstantiate_v2", byref(executable), graph, None, None, 0)
        return executable.value or 0
