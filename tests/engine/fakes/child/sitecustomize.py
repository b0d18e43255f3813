"""On a child's PYTHONPATH: gives it the fake driver before anything asks for the real one."""

from __future__ import annotations

import ctypes
import json
import os
import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[4]

if "FAKE_GPU" in os.environ:
    real = ctypes.CDLL
    made: list[Any] = []

    def gpu() -> Any:
        """Return the child's one fake GPU; made late, as few children of a child need it."""
        if not made:
            sys.path.append(str(REPOSITORY))
            from tests.engine.fakes import make

            made.append(make(**json.loads(os.environ["FAKE_GPU"])))
        return made[0]

    def load(name: Any, *args: Any, **kwargs: Any) -> Any:
        return gpu().driver.library() if name == "libcuda.so.1" else real(name, *args, **kwargs)

    ctypes.CDLL = load  # type: ignore[assignment, misc]
