"""CTranslate2 in float32: what every engine is compared with."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import ModelBrokenError
from ...machine.cpu import physical_cores
from ...models.folder import ModelFolder

if TYPE_CHECKING:
    from ...whisper.inference import Inference
    from ...whisper.tokenizer import Tokenizer


def say(text: str) -> None:
    print(f"selftest: {text} ...", file=sys.stderr, flush=True)


@dataclass
class Reference:
    """CTranslate2 with a model, in float32 on the CPU."""

    inference: Inference
    tokenizer: Tokenizer


@contextlib.contextmanager
def open_reference(path: Path, threads: int = 0) -> Iterator[Reference]:
    """Open the model in folder `path`; `threads` 0 are all cores. Raises ModelBrokenError."""
    import ctranslate2

    from ...backends.ct2_config import loadable
    from ...backends.faster_whisper import CTranslate2Inference

    folder = ModelFolder(path)
    folder.check()
    try:
        with loadable(folder) as loaded:
            model = ctranslate2.models.Whisper(
                str(loaded), compute_type="float32", intra_threads=threads or physical_cores()
            )
    except (RuntimeError, ValueError) as error:
        raise ModelBrokenError(f"the model in {path} can't be loaded: {error}") from error
    tokenizer = folder.tokenizer
    try:
        yield Reference(CTranslate2Inference(model), tokenizer)
    finally:
        model.unload_model()
        gc.collect()
