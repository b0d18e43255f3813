"""A GPU made of Python: the driver's library and TensorRT's module, faithful where we touch them.

`install` puts both into this process, `child_environment` into a child's. Nothing here ships.
"""

from __future__ import annotations

import ctypes
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.engine.fakes.driver import FakeDriver
from tests.engine.fakes.tensorrt import FakeTensorRT
from wyoming_whisper.engine.tensorrt import cuda

RTX = "rtx-1.7.1.116"
VERSIONS = ("8.6.1", "10.3.0", "10.16.1.11", "11.4.0.106", RTX)

CHILD = Path(__file__).parent / "child"


@dataclass(frozen=True)
class FakeGpu:
    """Both fakes, for a test to break and to look into."""

    driver: FakeDriver
    tensorrt: FakeTensorRT

    def assert_nothing_left(self) -> None:
        """Fail for misuse of any kind, and for what was not given back."""
        assert not self.driver.problems, "\n".join(self.driver.problems)
        assert not self.driver.leaks(), "\n".join(self.driver.leaks())


def install(monkeypatch: pytest.MonkeyPatch, version: str = "10.3.0", **options: Any) -> FakeGpu:
    """Put a fake GPU into this process; `options` are FakeDriver's, and `build` FakeTensorRT's."""
    gpu = make(version, **options)
    real = ctypes.CDLL

    def load(name: Any, *args: Any, **kwargs: Any) -> Any:
        return gpu.driver.library() if name == cuda._Driver.LIBRARY else real(name, *args, **kwargs)

    monkeypatch.setattr(ctypes, "CDLL", load)
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, gpu.tensorrt.name, gpu.tensorrt.module)
    return gpu


def make(version: str, build: str = "", **options: Any) -> FakeGpu:
    """Return a fake GPU with a TensorRT of some version; for TensorRT-RTX it is a desktop's."""
    if version == RTX:
        desktop = {"name": "Fake RTX", "compute_capability": (8, 9), "integrated": False}
        options = {**desktop, "version": 13000, **options}
    driver = FakeDriver(**options)
    return FakeGpu(driver, FakeTensorRT(driver, version, build))


def child_environment(version: str = "10.3.0", **options: Any) -> dict[str, str]:
    """Return the variables that give a child Python the same; `options` as for `install`."""
    return {
        "PYTHONPATH": str(CHILD),
        "FAKE_GPU": json.dumps({"version": version, **options}),
    }
