"""On a child's PYTHONPATH: what `import tensorrt` finds there."""

from __future__ import annotations

import sys

import sitecustomize  # type: ignore[import-not-found]

sys.modules[__name__] = sitecustomize.gpu().tensorrt.module
