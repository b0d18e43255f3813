"""libcuda.so.1 in Python: the functions of cuda._Driver, called through ctypes as the real ones.

Device memory is host memory full of ones until it is written. Work in a stream happens when
somebody waits for it and not before, so that reading too early shows. What a real driver answers
with an error is answered so; what it would answer with a crash or with nonsense is a `problem`.
"""

from __future__ import annotations

import bisect
import ctypes
import threading
import traceback
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from wyoming_whisper.engine.tensorrt.cuda import Device, _Driver

SUCCESS = 0
INVALID_VALUE = 1
OUT_OF_MEMORY = 2
NOT_INITIALIZED = 3
NO_DEVICE = 100
INVALID_DEVICE = 101
INVALID_CONTEXT = 201
INVALID_HANDLE = 400
NOT_READY = 600
ILLEGAL_ADDRESS = 700
CAPTURE_UNSUPPORTED = 900
CAPTURE_INVALIDATED = 901
UNKNOWN = 999

NAMES = {
    INVALID_VALUE: b"CUDA_ERROR_INVALID_VALUE",
    OUT_OF_MEMORY: b"CUDA_ERROR_OUT_OF_MEMORY",
    NOT_INITIALIZED: b"CUDA_ERROR_NOT_INITIALIZED",
    NO_DEVICE: b"CUDA_ERROR_NO_DEVICE",
    INVALID_DEVICE: b"CUDA_ERROR_INVALID_DEVICE",
    INVALID_CONTEXT: b"CUDA_ERROR_INVALID_CONTEXT",
    INVALID_HANDLE: b"CUDA_ERROR_INVALID_HANDLE",
    ILLEGAL_ADDRESS: b"CUDA_ERROR_ILLEGAL_ADDRESS",
    CAPTURE_UNSUPPORTED: b"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
    CAPTURE_INVALIDATED: b"CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
    UNKNOWN: b"CUDA_ERROR_UNKNOWN",
}

DOES_ITS_WORK = {
    "cuStreamSynchronize",
    "cuEventSynchronize",
    "cuMemFree_v2",
    "cuMemFreeHost",
    "cuStreamDestroy_v2",
    "cuEventDestroy_v2",
    "cuGraphDestroy",
    "cuGraphExecDestroy",
    "cuDevicePrimaryCtxRelease_v2",
    "cuStreamEndCapture",
}
"""Whatever error it reports: that is of earlier work."""

NO_CONTEXT_NEEDED = {
    "cuInit",
    "cuDriverGetVersion",
    "cuGetErrorName",
    "cuDeviceGetCount",
    "cuDeviceGet",
    "cuDeviceGetName",
    "cuDeviceGetAttribute",
    "cuDeviceTotalMem_v2",
    "cuDevicePrimaryCtxRetain",
    "cuDevicePrimaryCtxRelease_v2",
    "cuCtxSetCurrent",
}

Operation = Callable[[], None]


class CudaStatus(Exception):  # noqa: N818  # it is no error, it carries one
    """Ends a fake function with a status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class _Stream:
    def __init__(self) -> None:
        self.queue: deque[Operation] = deque()
        self.captured: list[Operation] | None = None
        self.invalid = False


class _Event:
    def __init__(self, timing: bool) -> None:
        self.timing = timing
        self.passed = True
        self.stream: _Stream | None = None
        self.mark: object = None


class _Block:
    def __init__(self, n_bytes: int, kind: str) -> None:
        self.kind = kind
        self.n_bytes = n_bytes
        self.memory = (ctypes.c_ubyte * (n_bytes + Device.ALIGNMENT))()
        start = ctypes.addressof(self.memory)
        self.address = start + -start % Device.ALIGNMENT
        ctypes.memset(self.address, 0xFF, n_bytes)


class FakeDriver:
    """One NVIDIA driver; `problems` are what must never happen."""

    def __init__(
        self,
        n_devices: int = 1,
        name: str = "Fake Orin",
        compute_capability: tuple[int, int] = (8, 7),
        total_bytes: int = 1 << 30,
        integrated: bool = True,
        version: int = 12060,
        absent: tuple[str, ...] = (),
        installed: bool = True,
    ) -> None:
        self.n_devices = n_devices
        self.name = name
        self.compute_capability = tuple(compute_capability)
        self.total_bytes = total_bytes
        self.integrated = integrated
        self.version = version
        self.installed = installed
        self.absent = absent
        self.problems: list[str] = []
        self.calls: Counter[str] = Counter()
        self.n_calls = 0
        self._failures: list[Callable[[str], int]] = []
        self._broken = SUCCESS  # a failure that no later call gets over
        self._lock = threading.RLock()
        self._initialised = False
        self._retained: Counter[int] = Counter()
        self._current: dict[int, int] = {}
        self._blocks: dict[int, _Block] = {}
        self._bases: list[int] = []
        self._objects: dict[int, Any] = {}
        self._next_handle = 0x1000
        self._functions = {
            function: ctypes.CFUNCTYPE(ctypes.c_int, *argtypes)(self._entry(function))
            for function, argtypes in _Driver.PROTOTYPES.items()
        }

    # What a test asks for.

    def library(self) -> Any:
        """Return what ctypes.CDLL("libcuda.so.1") returns, or raise what it raises."""
        if not self.installed:
            raise OSError("libcuda.so.1: cannot open shared object file: No such file or directory")
        return _Library({n: f for n, f in self._functions.items() if n not in self.absent})

    def fail(
        self, name: str = "", nth: int = 1, status: int = UNKNOWN, sticky: bool = False
    ) -> None:
        """Have the nth call from now on fail, of one function or ("") of any.

        `sticky`: as an illegal address does it, all calls after it fail too.
        """
        left = nth

        def failure(called: str) -> int:
            nonlocal left
            if name in ("", called):
                left -= 1
                if left == 0:
                    if sticky:
                        self._broken = status
                    return status
            return SUCCESS

        self._failures.append(failure)

    def heal(self) -> None:
        """Forget all failures that were asked for."""
        self._failures.clear()
        self._broken = SUCCESS

    def leaks(self) -> list[str]:
        """Return what was not given back."""
        left = [f"{block.kind} memory of {block.n_bytes} bytes" for block in self._blocks.values()]
        left += [type(thing).__name__ for thing in self._objects.values()]
        return left + [f"context of device {n}" for n, count in self._retained.items() if count]

    @property
    def used_bytes(self) -> int:
        """What is taken of the device's memory."""
        return sum(block.n_bytes for block in self._blocks.values() if block.kind != "pinned")

    # What the fake TensorRT needs: it uses the CUDA runtime, which is not our way in.

    def ready(self) -> bool:
        """Return whether there is a device to run on."""
        return self.installed and self.n_devices > 0 and not self._broken

    def has_context(self) -> bool:
        """Return whether the calling thread has a context."""
        return self._retained[self._current.get(threading.get_ident(), 0) - 1] > 0

    def allocate(self, n_bytes: int, kind: str) -> int:
        """Return the address of new memory, 0 where there is too little."""
        with self._lock:
            if kind != "pinned" and self.used_bytes + n_bytes > self.total_bytes:
                return 0
            block = _Block(n_bytes, kind)
            self._blocks[block.address] = block
            bisect.insort(self._bases, block.address)
            return block.address

    def free(self, address: int) -> bool:
        """Free it after all work is done."""
        with self._lock:
            self._drain_all()
            if self._blocks.pop(address, None) is None:
                self.problems.append(f"freed twice, or never allocated: {address:#x}")
                return False
            self._bases.remove(address)
            return True

    def locate(self, address: int, n_bytes: int, kind: str) -> int:
        """Return `address`; misuse of memory is a problem and ends the operation."""
        index = bisect.bisect_right(self._bases, address) - 1
        block = self._blocks[self._bases[index]] if index >= 0 else None
        if block is None or address + n_bytes > block.address + block.n_bytes:
            self._illegal(f"{n_bytes} bytes at {address:#x} are not allocated")
        elif block.kind != kind:
            self._illegal(f"{block.kind} memory where {kind} memory belongs")
        return address

    def enqueue(self, stream: int, operation: Operation) -> bool:
        """Queue, or capture; False where the stream's capture is over."""
        with self._lock:
            queue = self._objects.get(stream)
            if not isinstance(queue, _Stream) or queue.invalid or self._broken:
                return False
            (queue.queue if queue.captured is None else queue.captured).append(operation)
            return True

    def capturing(self, stream: int) -> bool:
        """Return whether the stream is being captured."""
        queue = self._objects.get(stream)
        return isinstance(queue, _Stream) and queue.captured is not None

    def invalidate(self, stream: int) -> None:
        """End a capture for something that can't be captured."""
        self._objects[stream].invalid = True

    # The machinery.

    def _illegal(self, what: str) -> None:
        self.problems.append(what)
        self._broken = ILLEGAL_ADDRESS
        raise CudaStatus(ILLEGAL_ADDRESS)

    def _entry(self, name: str) -> Callable[..., int]:
        work = getattr(self, f"_{name}")

        def entry(*args: Any) -> int:
            with self._lock:
                try:
                    return self._enter(name, work, args)
                except CudaStatus as found:
                    return found.status
                except Exception:
                    self.problems.append(f"{name}: {traceback.format_exc()}")
                    return UNKNOWN

        return entry

    def _enter(self, name: str, work: Callable[..., None], args: tuple[Any, ...]) -> int:
        if name == "cuGetErrorName":
            work(*args)
            return SUCCESS
        self.calls[name] += 1
        self.n_calls += 1
        status = max((failure(name) for failure in list(self._failures)), default=SUCCESS)
        status = status or self._broken
        if status and name not in DOES_ITS_WORK:
            return status
        if name != "cuInit" and not self._initialised:
            return NOT_INITIALIZED
        if name not in NO_CONTEXT_NEEDED and not self.has_context():
            self.problems.append(f"{name} in a thread without a context")
            return INVALID_CONTEXT
        if status and name == "cuStreamEndCapture":
            self.invalidate(args[0])  # an error comes with no graph
        work(*args)
        return status

    def _new(self, thing: object) -> int:
        self._next_handle += 8
        self._objects[self._next_handle] = thing
        return self._next_handle

    def _get(self, handle: int | None, kind: type[Any]) -> Any:
        found = self._objects.get(handle or 0)
        if not isinstance(found, kind):
            self.problems.append(f"no {kind.__name__}, or none any more: {handle}")
            raise CudaStatus(INVALID_HANDLE)
        return found

    def _remove(self, handle: int | None, kind: type[Any]) -> Any:
        found = self._get(handle, kind)
        del self._objects[handle or 0]
        return found

    def _drain(self, stream: _Stream, mark: object = None) -> None:
        while stream.queue:
            if self._broken:
                stream.queue.clear()  # nothing runs any more
                raise CudaStatus(self._broken)
            operation = stream.queue.popleft()
            operation()
            if mark is not None and operation is mark:
                return

    def _drain_all(self) -> None:
        for thing in list(self._objects.values()):
            if isinstance(thing, _Stream):
                with suppress(CudaStatus):
                    self._drain(thing)

    def _forbid_in_capture(self) -> None:
        """What waits or allocates ends every capture of the thread."""
        for thing in self._objects.values():
            if isinstance(thing, _Stream) and thing.captured is not None:
                thing.invalid = True
                raise CudaStatus(CAPTURE_UNSUPPORTED)

    def _put(self, handle: int | None, operation: Operation) -> None:
        if handle is None:
            self.problems.append("work in the default stream")
        stream = self._get(handle, _Stream)
        if stream.invalid:
            raise CudaStatus(CAPTURE_INVALIDATED)
        (stream.queue if stream.captured is None else stream.captured).append(operation)

    # The functions, in the order of the table.

    def _cuInit(self, flags: int) -> None:  # noqa: N802
        if not self.n_devices:
            raise CudaStatus(NO_DEVICE)
        self._initialised = True

    def _cuDriverGetVersion(self, version: Any) -> None:  # noqa: N802
        version[0] = self.version

    def _cuGetErrorName(self, status: int, name: Any) -> None:  # noqa: N802
        name[0] = NAMES.get(status, b"CUDA_ERROR_OTHER")

    def _cuDeviceGetCount(self, count: Any) -> None:  # noqa: N802
        count[0] = self.n_devices

    def _cuDeviceGet(self, device: Any, ordinal: int) -> None:  # noqa: N802
        self._ensure_device(ordinal)
        device[0] = ordinal

    def _ensure_device(self, device: int) -> None:
        if not 0 <= device < self.n_devices:
            raise CudaStatus(INVALID_DEVICE)

    def _cuDeviceGetName(self, name: int, length: int, device: int) -> None:  # noqa: N802
        self._ensure_device(device)
        text = self.name.encode()[: length - 1] + b"\0"
        ctypes.memmove(name, text, len(text))

    def _cuDeviceGetAttribute(self, value: Any, attribute: int, device: int) -> None:  # noqa: N802
        self._ensure_device(device)
        major, minor = self.compute_capability
        value[0] = {18: int(self.integrated), 75: major, 76: minor}[attribute]

    def _cuDeviceTotalMem_v2(self, total: Any, device: int) -> None:  # noqa: N802
        self._ensure_device(device)
        total[0] = self.total_bytes

    def _cuDevicePrimaryCtxRetain(self, context: Any, device: int) -> None:  # noqa: N802
        self._ensure_device(device)
        self._retained[device] += 1
        context[0] = device + 1

    def _cuDevicePrimaryCtxRelease_v2(self, device: int) -> None:  # noqa: N802
        if not self._retained[device]:
            self.problems.append("a context was released twice")
            raise CudaStatus(INVALID_CONTEXT)
        self._retained[device] -= 1
        if not self._retained[device]:
            self.problems += [f"left when the context went: {left}" for left in self.leaks()]

    def _cuCtxSetCurrent(self, context: int | None) -> None:  # noqa: N802
        if context is None:
            self._current.pop(threading.get_ident(), None)
        elif not self._retained[context - 1]:
            raise CudaStatus(INVALID_CONTEXT)
        else:
            self._current[threading.get_ident()] = context

    def _cuMemGetInfo_v2(self, free: Any, total: Any) -> None:  # noqa: N802
        free[0], total[0] = self.total_bytes - self.used_bytes, self.total_bytes

    def _cuMemAlloc_v2(self, address: Any, n_bytes: int) -> None:  # noqa: N802
        self._forbid_in_capture()
        address[0] = self._allocated(n_bytes, "device")

    def _cuMemFree_v2(self, address: int) -> None:  # noqa: N802
        self._forbid_in_capture()
        if not self.free(address):
            raise CudaStatus(INVALID_VALUE)

    def _cuMemHostAlloc(self, address: Any, n_bytes: int, flags: int) -> None:  # noqa: N802
        self._forbid_in_capture()
        address[0] = self._allocated(n_bytes, "pinned")

    def _cuMemFreeHost(self, address: int) -> None:  # noqa: N802
        self._cuMemFree_v2(address)

    def _allocated(self, n_bytes: int, kind: str) -> int:
        if not n_bytes:
            raise CudaStatus(INVALID_VALUE)
        address = self.allocate(n_bytes, kind)
        if not address:
            raise CudaStatus(OUT_OF_MEMORY)
        return address

    def _copy(
        self, to: int, to_kind: str, source: int, kind: str, n_bytes: int, stream: int | None
    ) -> None:
        def operation() -> None:
            ctypes.memmove(
                self.locate(to, n_bytes, to_kind), self.locate(source, n_bytes, kind), n_bytes
            )

        self._put(stream, operation)

    def _cuMemcpyHtoDAsync_v2(  # noqa: N802
        self, to: int, source: int, n_bytes: int, stream: int | None
    ) -> None:
        self._copy(to, "device", source, "pinned", n_bytes, stream)

    def _cuMemcpyDtoHAsync_v2(  # noqa: N802
        self, to: int, source: int, n_bytes: int, stream: int | None
    ) -> None:
        self._copy(to, "pinned", source, "device", n_bytes, stream)

    def _cuMemcpyDtoDAsync_v2(  # noqa: N802
        self, to: int, source: int, n_bytes: int, stream: int | None
    ) -> None:
        self._copy(to, "device", source, "device", n_bytes, stream)

    def _cuMemsetD8Async(  # noqa: N802
        self, address: int, value: int, n_bytes: int, stream: int | None
    ) -> None:
        def operation() -> None:
            ctypes.memset(self.locate(address, n_bytes, "device"), value, n_bytes)

        self._put(stream, operation)

    def _cuStreamCreate(self, stream: Any, flags: int) -> None:  # noqa: N802
        stream[0] = self._new(_Stream())

    def _cuStreamSynchronize(self, stream: int | None) -> None:  # noqa: N802
        self._forbid_in_capture()
        self._drain(self._get(stream, _Stream))

    def _cuStreamDestroy_v2(self, stream: int) -> None:  # noqa: N802
        with suppress(CudaStatus):
            self._drain(self._remove(stream, _Stream))

    def _cuEventCreate(self, event: Any, flags: int) -> None:  # noqa: N802
        event[0] = self._new(_Event(timing=not flags & 2))

    def _cuEventRecord(self, handle: int, stream: int | None) -> None:  # noqa: N802
        event = self._get(handle, _Event)

        def operation() -> None:
            if event.mark is operation:
                event.passed = True

        event.mark, event.passed, event.stream = operation, False, self._get(stream, _Stream)
        self._put(stream, operation)

    def _cuEventSynchronize(self, handle: int) -> None:  # noqa: N802
        self._forbid_in_capture()
        event = self._get(handle, _Event)
        if not event.passed:
            self._drain(event.stream, event.mark)

    def _cuEventElapsedTime(self, milliseconds: Any, start: int, end: int) -> None:  # noqa: N802
        events = self._get(start, _Event), self._get(end, _Event)
        if not all(event.timing for event in events):
            raise CudaStatus(INVALID_HANDLE)
        if not all(event.passed for event in events):
            raise CudaStatus(NOT_READY)
        milliseconds[0] = 1.0

    def _cuEventDestroy_v2(self, event: int) -> None:  # noqa: N802
        self._remove(event, _Event)

    def _cuStreamBeginCapture_v2(self, handle: int, mode: int) -> None:  # noqa: N802
        stream = self._get(handle, _Stream)
        if stream.captured is not None:
            raise CudaStatus(CAPTURE_UNSUPPORTED)
        stream.captured, stream.invalid = [], False

    def _cuStreamEndCapture(self, handle: int, graph: Any) -> None:  # noqa: N802
        stream = self._get(handle, _Stream)
        captured, stream.captured = stream.captured, None
        invalid, stream.invalid = stream.invalid, False
        graph[0] = None
        if captured is None:
            raise CudaStatus(INVALID_VALUE)
        if invalid:
            raise CudaStatus(CAPTURE_INVALIDATED)
        graph[0] = self._new(_Graph(captured))

    def _cuGraphInstantiateWithFlags(self, executable: Any, graph: int, flags: int) -> None:  # noqa: N802
        executable[0] = self._new(_GraphExec(self._get(graph, _Graph).operations))

    def _cuGraphInstantiate_v2(  # noqa: N802
        self, executable: Any, graph: int, node: int | None, log: int | None, size: int
    ) -> None:
        executable[0] = self._new(_GraphExec(self._get(graph, _Graph).operations))

    def _cuGraphLaunch(self, executable: int, stream: int | None) -> None:  # noqa: N802
        for operation in self._get(executable, _GraphExec).operations:
            self._put(stream, operation)

    def _cuGraphExecDestroy(self, executable: int) -> None:  # noqa: N802
        self._remove(executable, _GraphExec)

    def _cuGraphDestroy(self, graph: int) -> None:  # noqa: N802
        self._remove(graph, _Graph)


class _Graph:
    def __init__(self, operations: list[Operation]) -> None:
        self.operations = operations


class _GraphExec(_Graph):
    pass


class _Library:
    """What ctypes.CDLL returns: functions as attributes, AttributeError for others."""

    def __init__(self, functions: dict[str, Any]) -> None:
        self.__dict__.update(functions)
