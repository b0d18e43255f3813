"""On a child's PYTHONPATH: what `import tensorrt` finds there."""

from __future__ import annotations

import sys

import sitecustomize  # type: ignore[import-not-found]

if sitecustomize.gpu().tensorrt.name != __name__:
    raise ModuleNotFoundError(name=__name__)
sys.modules[__name__] = sitecustomize.gpu().tensorrt.module
