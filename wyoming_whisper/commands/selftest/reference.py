"""CTranslate2 in float32: what every engine is compared with."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...backends.faster_whisper import CTranslate2Inference, load_ctranslate2
from ...machine.host import HOST
from ...models.folder import ModelFolder

if TYPE_CHECKING:
    from ...whisper.inference import Inference
    from ...whisper.tokenizer import Tokenizer


def say(text: str) -> None:
    print(f"selftest: {text} ...", file=sys.stderr, flush=True)


@dataclass
class _Reference:
    """CTranslate2 with a model, in float32 on the CPU."""

    inference: Inference
    tokenizer: Tokenizer


@contextlib.contextmanager
def open_reference(path: Path, threads: int = 0) -> Iterator[_Reference]:
    """Open the model in folder `path`; `threads` 0 are all cores. Raises ModelBrokenError."""
    folder = ModelFolder(path)
    model = load_ctranslate2(folder, "float32", threads or HOST.cores)
    try:
        yield _Reference(CTranslate2Inference(model), folder.tokenizer)
    finally:
        model.unload_model()
        gc.collect()
