"""The tensorrt module: imported where that is safe, with one logger for the process."""

from __future__ import annotations

import functools
import logging
from collections import deque
from typing import Any

from ...errors import EngineError
from .cuda import find_gpus

_LOGGER = logging.getLogger(__name__)


def import_tensorrt() -> Any:
    """Return the tensorrt module: the first moment at which it is safe to import it.

    Without a driver TensorRT 10 and 11 crash the interpreter, so the GPU is looked for before.
    Raises EngineError where there is no GPU, no TensorRT, or a TensorRT too old.
    """
    min_tensorrt = (8, 6)
    find_gpus()
    try:
        import tensorrt as trt
    except ModuleNotFoundError as error:
        raise EngineError(
            "TensorRT is not installed for this Python: pip install tensorrt, "
            "or on a Jetson the system's package python3-libnvinfer"
        ) from error
    except Exception as error:  # libraries that miss or don't fit: ImportError, OSError, others
        raise EngineError(f"TensorRT is installed but can't be loaded: {error}") from error
    if _tensorrt_version(trt) < min_tensorrt:
        raise EngineError(f"TensorRT {trt.__version__} is too old; 8.6 is the least")
    return trt


def _tensorrt_version(trt: Any) -> tuple[int, ...]:
    """Return (major, minor) of the module."""
    return tuple(int(part) for part in trt.__version__.split(".")[:2])


@functools.lru_cache(maxsize=1)
def tensorrt_log(trt: Any) -> Any:
    """Return the one logger of this process, whose `errors` are the last sentences of TensorRT.

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
