"""A model folder as CTranslate2 can load it: what its config.json lacks ends a request, and heads
that the decoder has not end the process.

Distilled models may name the alignment heads of the model that they were made of.
"""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

from ..engine.dims import EMBEDDINGS, HEAD_WIDTH
from ..models.folder import ModelFolder


@contextlib.contextmanager
def loadable(model: ModelFolder) -> Iterator[Path]:
    """Give the folder to load: the model's, or one of links beside a config.json that is mended.

    Raises ModelBrokenError.
    """
    mended = _mended(model)
    if mended == model.config.content:
        yield model.path
        return
    with tempfile.TemporaryDirectory(prefix="wyoming-whisper-") as folder:
        for file in model.path.iterdir():
            (Path(folder) / file.name).symlink_to(file.resolve())
        config = Path(folder) / model.config.path.name
        config.unlink()
        config.write_text(json.dumps(mended), encoding="utf-8")
        yield Path(folder)


def _mended(model: ModelFolder) -> dict[str, Any]:
    begin, config, shapes = "suppress_ids_begin", model.config.content, model.shapes
    found = (re.match(r"decoder/layer_(\d+)/", name) for name in shapes)
    n_layers = 1 + max((int(match[1]) for match in found if match), default=-1)
    n_heads = shapes.get(EMBEDDINGS, (0, 0))[-1] // HEAD_WIDTH
    heads = model.alignment_heads
    if not heads or not all(0 <= i < n_layers and 0 <= head < n_heads for i, head in heads):
        # As CTranslate2's converter does without better knowledge: the last half of the layers.
        layers = range(n_layers // 2, n_layers)
        config = {
            **config,
            "alignment_heads": [list(pair) for pair in product(layers, range(n_heads))],
        }
    return config if begin in config else {**config, begin: []}
