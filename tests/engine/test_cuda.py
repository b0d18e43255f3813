"""The driver through ctypes, on a driver made of Python; and what that one notices."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tests.engine.fakes import FakeGpu, child_environment, install
from tests.engine.fakes.driver import OUT_OF_MEMORY, UNKNOWN
from wyoming_whisper.engine.tensorrt import cuda
from wyoming_whisper.engine.tensorrt.cuda import Device, Gpu, NoGpuError, Stream, _CudaError


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGpu]:
    """A fake GPU on which nothing may be done wrongly, and nothing left."""
    gpu = install(monkeypatch)
    yield gpu
    gpu.assert_nothing_left()


@pytest.fixture
def device(gpu: FakeGpu) -> Iterator[Device]:
    with Device() as device:
        device.use()
        yield device


@pytest.fixture
def stream(device: Device) -> Iterator[Stream]:
    with device.stream() as stream:
        yield stream


def test_gpus_are_described_without_a_context_or_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = install(monkeypatch, n_devices=2, name="NVIDIA Örin", total_bytes=8 << 30)
    monkeypatch.setitem(sys.modules, "tensorrt", None)  # an import of it would raise
    first, second = Gpu.all()
    assert first == cuda.Gpu(0, "NVIDIA Örin", (8, 7), 8 << 30, True, (12, 6))
    assert second.index == 1
    assert gpu.driver.calls["cuDevicePrimaryCtxRetain"] == 0
    gpu.assert_nothing_left()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"installed": False}, "no NVIDIA driver is installed"),
        ({"n_devices": 0}, "finds no GPU"),
        ({"absent": ["cuStreamBeginCapture_v2"]}, "too old: it has no cuStreamBeginCapture_v2"),
        (
            {"absent": ["cuGraphInstantiateWithFlags", "cuGraphInstantiate_v2"]},
            "too old: it has no cuGraphInstantiateWithFlags",
        ),
    ],
)
def test_why_there_is_no_gpu_is_told(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], reason: str
) -> None:
    install(monkeypatch, **options)
    with pytest.raises(NoGpuError, match=reason):
        Gpu.all()


@pytest.mark.parametrize("call", ["cuInit", "cuDeviceGetCount", "cuDeviceGetAttribute"])
def test_a_driver_that_fails_is_no_gpu(gpu: FakeGpu, call: str) -> None:
    gpu.driver.fail(call, status=804)
    with pytest.raises(NoGpuError, match=call):
        Gpu.all()


def test_errors_name_the_call_and_the_drivers_error(gpu: FakeGpu, device: Device) -> None:
    gpu.driver.fail("cuMemGetInfo_v2")
    with pytest.raises(_CudaError, match=r"failed \(cuMemGetInfo_v2: CUDA_ERROR_UNKNOWN\)"):
        device.memory_info()
    with pytest.raises(_CudaError, match=r"ran out of memory \(cuMemAlloc_v2: .*OUT_OF_MEMORY"):
        device.allocate(gpu.driver.total_bytes + 1)


def test_a_device_there_is_not_is_an_error(gpu: FakeGpu) -> None:
    with pytest.raises(_CudaError, match="INVALID_DEVICE"):
        Device(1)


def test_memory_is_counted_and_given_back(gpu: FakeGpu, device: Device) -> None:
    free, total = device.memory_info()
    with device.allocate(1000) as buffer, device.allocate_host(500):
        assert buffer.handle % cuda.Device.ALIGNMENT == 0
        assert device.allocated_bytes == 1000
        assert device.memory_info() == (free - 1000, total)
    assert device.allocated_bytes == 0
    assert device.memory_info() == (free, total)
    buffer.close()
    assert device.allocated_bytes == 0


def test_what_is_given_back_is_gone_whatever_the_driver_reports(
    gpu: FakeGpu, device: Device
) -> None:
    buffer = device.allocate(1000)
    gpu.driver.fail("cuMemFree_v2")
    buffer.close()
    assert gpu.driver.calls["cuMemFree_v2"] == 1


def test_a_view_stays_within_its_memory(device: Device) -> None:
    with device.allocate_host(64) as host:
        assert host.view(np.float32, (3, 4), 16).shape == (3, 4)
        with pytest.raises(ValueError, match="does not fit"):
            host.view(np.float32, (3, 4), 32)


def test_copies_arrive_when_the_stream_is_synchronised(device: Device, stream: Stream) -> None:
    with (
        device.allocate_host(1024) as there,
        device.allocate(1024) as first,
        device.allocate(1024) as second,
        device.allocate_host(1024) as back,
    ):
        there.view(np.int32, (256,))[...] = np.arange(256)
        result = back.view(np.int32, (256,))
        result[...] = -2
        stream.clear(first.handle, 1024)
        stream.upload(first.handle + 256, there.handle, 512)
        stream.copy(second.handle, first.handle, 1024)
        stream.download(back.handle, second.handle, 1024)
        assert np.all(result == -2)
        stream.synchronize()
        np.testing.assert_array_equal(result[64:192], np.arange(128))
        assert np.all(result[:64] == 0)


def test_an_event_waits_for_what_was_before_it(device: Device, stream: Stream) -> None:
    with device.allocate_host(4) as host, device.allocate(4) as memory, device.event() as event:
        value = host.view(np.int32, (1,))
        value[0] = 7
        stream.clear(memory.handle, 4)
        stream.download(host.handle, memory.handle, 4)
        stream.record(event)
        event.synchronize()
        assert value[0] == 0


def test_events_with_timing_tell_the_time(device: Device, stream: Stream) -> None:
    with device.event(timing=True) as start, device.event(timing=True) as end:
        stream.record(start)
        stream.record(end)
        end.synchronize()
        assert end.milliseconds_since(start) > 0


@pytest.mark.parametrize("absent", ["cuGraphInstantiateWithFlags", "cuGraphInstantiate_v2"])
def test_captured_work_runs_when_it_is_launched(
    monkeypatch: pytest.MonkeyPatch, absent: str
) -> None:
    gpu = install(monkeypatch, absent=(absent,))
    with Device() as device:
        device.use()
        with device.stream() as stream, device.allocate_host(4) as host, device.allocate(4) as to:
            value = host.view(np.int32, (1,))

            def work() -> None:
                stream.upload(to.handle, host.handle, 4)
                stream.download(host.handle, to.handle, 4)

            with stream.capture(work) as graph:
                for number in (3, 4):
                    value[0] = number
                    graph.launch(stream)
                    stream.synchronize()
                    assert value[0] == number
    gpu.assert_nothing_left()


def test_a_capture_that_fails_leaves_the_stream_in_order(device: Device, stream: Stream) -> None:
    def fail() -> None:
        raise KeyError("no such thing")

    with pytest.raises(KeyError):
        stream.capture(fail)
    with pytest.raises(_CudaError, match="UNSUPPORTED"):
        stream.capture(stream.synchronize)
    with pytest.raises(_CudaError, match="UNSUPPORTED"):
        stream.capture(lambda: device.allocate(4).close())
    stream.synchronize()


@pytest.mark.parametrize(
    "call", ["cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphInstantiateWithFlags"]
)
def test_a_failure_around_a_capture_leaves_nothing(gpu: FakeGpu, stream: Stream, call: str) -> None:
    gpu.driver.fail(call)
    with pytest.raises(_CudaError):
        stream.capture(lambda: None)
    stream.synchronize()


def test_each_thread_takes_the_context_for_itself(device: Device, stream: Stream) -> None:
    failed: list[BaseException] = []

    def work() -> None:
        try:
            device.use()
            stream.synchronize()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert failed == []


def test_a_child_can_be_given_a_fake_gpu(gpu: FakeGpu) -> None:
    code = (
        "from wyoming_whisper.engine.tensorrt.library import TENSORRT;"
        "from wyoming_whisper.engine.tensorrt.cuda import Gpu;"
        "print(Gpu.all()[0].name, TENSORRT.load().__version__)"
    )
    environment = {**os.environ, **child_environment("11.4.0.106", name="Another")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "Another 11.4.0.106\n"


# What the fake driver notices: the tests above and those of sessions are worth no more than this.


def misuse_context(device: Device, stream: Stream) -> None:
    def elsewhere() -> None:
        with pytest.raises(_CudaError, match="INVALID_CONTEXT"):
            stream.synchronize()

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()


def misuse_bounds(device: Device, stream: Stream) -> None:
    with device.allocate(64) as memory:
        stream.clear(memory.handle + 8, 64)
        with pytest.raises(_CudaError, match="ILLEGAL_ADDRESS"):
            stream.synchronize()


def misuse_freed(device: Device, stream: Stream) -> None:
    with device.allocate(64) as memory:
        address = memory.handle
    stream.clear(address, 64)
    with pytest.raises(_CudaError, match="ILLEGAL_ADDRESS"):
        stream.synchronize()


def misuse_free_twice(device: Device, stream: Stream) -> None:
    with device.allocate(64) as memory:
        cuda.DeviceBuffer(device, device._driver, memory.handle, 64).close()


def misuse_pageable(device: Device, stream: Stream) -> None:
    ordinary = ctypes.create_string_buffer(64)
    with device.allocate(64) as memory:
        stream.upload(memory.handle, ctypes.addressof(ordinary), 64)
        with pytest.raises(_CudaError, match="ILLEGAL_ADDRESS"):
            stream.synchronize()


def misuse_leak(device: Device, stream: Stream) -> None:
    stream.close()
    device.allocate(64)
    device.close()


def misuse_handle(device: Device, stream: Stream) -> None:
    graph = stream.capture(lambda: None)
    with cuda._Graph(device._driver, graph.handle, "cuGraphExecDestroy") as copy:
        pass
    assert not copy.handle
    with pytest.raises(_CudaError, match="INVALID_HANDLE"):
        graph.launch(stream)


@pytest.mark.parametrize(
    "misuse",
    [
        misuse_context,
        misuse_bounds,
        misuse_freed,
        misuse_free_twice,
        misuse_pageable,
        misuse_leak,
        misuse_handle,
    ],
)
def test_the_fake_driver_notices(
    monkeypatch: pytest.MonkeyPatch, misuse: Callable[[Device, Stream], None]
) -> None:
    gpu = install(monkeypatch)
    device = Device()
    device.use()
    misuse(device, device.stream())
    assert gpu.driver.problems


def test_failures_come_when_they_are_asked_for(gpu: FakeGpu, device: Device) -> None:
    gpu.driver.fail("cuMemGetInfo_v2", nth=2, status=OUT_OF_MEMORY, sticky=True)
    device.memory_info()
    for _ in range(2):
        with pytest.raises(_CudaError) as raised:
            device.memory_info()
        assert raised.value.status == OUT_OF_MEMORY
    gpu.driver.heal()
    gpu.driver.fail(nth=1)
    with pytest.raises(_CudaError) as raised:
        device.use()
    assert raised.value.status == UNKNOWN
