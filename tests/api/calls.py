"""What of a real TensorRT package runs without a GPU: `python calls.py MODULE`.

Runs in the Python that the package is for; nothing but the standard library is imported besides.
Where the libraries are stubs (see packages.py), objects that TensorRT itself makes can't be had.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any


def make_a_logger(trt: Any) -> None:
    """Python classes may stand in for TensorRT's own."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.heard: list[tuple[Any, str]] = []

        def log(self, severity: Any, message: str) -> None:
            self.heard.append((severity, message))

    log = Log()
    log.log(trt.ILogger.Severity.WARNING, "text")
    assert log.heard == [(trt.ILogger.Severity.WARNING, "text")]
    assert trt.ILogger.WARNING == trt.ILogger.Severity.WARNING
    assert int(trt.ILogger.ERROR) < int(trt.ILogger.WARNING) < int(trt.ILogger.INFO)


def make_a_progress_monitor(trt: Any) -> None:
    """Versions from 10 on say how far a build is."""
    if not hasattr(trt, "IProgressMonitor"):
        assert trt.__version__.startswith("8.")
        return

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str, num_steps: int) -> None: ...
        def step_complete(self, phase_name: str, step: int) -> bool:
            return True

        def phase_finish(self, phase_name: str) -> None: ...

    assert Monitor().step_complete("phase", 1)


def compute_flags(trt: Any) -> None:
    """Flags are numbers of bits."""
    creation = trt.NetworkDefinitionCreationFlag
    if trt.__version__.startswith("8."):
        assert int(creation.EXPLICIT_BATCH) == 0
    assert hasattr(creation, "STRONGLY_TYPED") is not trt.__version__.startswith("8.")
    assert int(trt.MemoryPoolType.WORKSPACE) == 0
    assert trt.DataType.FLOAT != trt.DataType.HALF != trt.DataType.INT32
    assert trt.TensorIOMode.INPUT != trt.TensorIOMode.OUTPUT
    assert tuple(trt.Dims([1, 80, 3000])) == (1, 80, 3000)


def fail_to_make_a_builder(trt: Any) -> None:
    """Without a driver a Builder is refused, which is why a driver is looked for first.

    Not so a Runtime of 10 and 11: one is given, and kills the interpreter later. Only 8.6 has its
    real library here.
    """
    if not trt.__version__.startswith("8."):
        return
    try:
        trt.Builder(trt.Logger(trt.Logger.ERROR))
    except TypeError as error:
        print(error)
    else:
        raise AssertionError("there is a GPU here, or no need of one")


if __name__ == "__main__":
    tensorrt = importlib.import_module(sys.argv[1])
    for call in (make_a_logger, make_a_progress_monitor, compute_flags, fail_to_make_a_builder):
        call(tensorrt)
        print(call.__name__)
    print("all calls done")
