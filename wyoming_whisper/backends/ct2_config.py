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

from ..engine.dims import HEAD_WIDTH
from ..models.folder import EMBEDDINGS, weights_shapes
from ..models.known import CONFIG, WEIGHTS
from ..models.model_json import pairs, read_json


@contextlib.contextmanager
def loadable(path: Path) -> Iterator[Path]:
    """Give the folder to load: `path`, or one of links beside a config.json that is mended.

    Raises ModelBrokenError.
    """
    config = read_json(path / CONFIG)
    mended = _mended(config, path)
    if mended == config:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="wyoming-whisper-") as folder:
        for file in path.iterdir():
            (Path(folder) / file.name).symlink_to(file.resolve())
        (Path(folder) / CONFIG).unlink()
        (Path(folder) / CONFIG).write_text(json.dumps(mended), encoding="utf-8")
        yield Path(folder)


def _mended(config: dict[str, Any], path: Path) -> dict[str, Any]:
    begin = "suppress_ids_begin"
    shapes = weights_shapes(path / WEIGHTS)
    found = (re.match(r"decoder/layer_(\d+)/", name) for name in shapes)
    n_layers = 1 + max((int(match[1]) for match in found if match), default=-1)
    n_heads = shapes.get(EMBEDDINGS, (0, 0))[-1] // HEAD_WIDTH
    heads = pairs(config, "alignment_heads", path / CONFIG)
    if not heads or not all(0 <= i < n_layers and 0 <= head < n_heads for i, head in heads):
        # As CTranslate2's converter does without better knowledge: the last half of the layers.
        layers = range(n_layers // 2, n_layers)
        config = {
            **config,
            "alignment_heads": [list(pair) for pair in product(layers, range(n_heads))],
        }
    return config if begin in config else {**config, begin: []}
