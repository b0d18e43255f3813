"""What a checkpoint's Whisper measures, and the shapes that its weights therefore have."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from ..errors import ModelBrokenError
from .checkpoint import VERSION, Checkpoint

HEAD_WIDTH = 64  # in every Whisper
CONV_WIDTH = 3
EMBEDDINGS = "decoder/embeddings/weight"
PROJECTION = "decoder/projection/weight"

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Dims:
    """openai/whisper's ModelDimensions."""

    n_mels: int
    n_audio_ctx: int
    n_audio_state: int
    n_audio_head: int
    n_audio_layer: int
    n_vocab: int
    n_text_ctx: int
    n_text_state: int
    n_text_head: int
    n_text_layer: int


def dims_of(checkpoint: Checkpoint) -> Dims:
    """Return a checkpoint's dimensions; every weight has been found to fit them.

    Raises ModelBrokenError for anything but a Whisper.
    """
    specification = "WhisperSpec"  # what CTranslate2 calls it
    if checkpoint.name != specification:
        raise ModelBrokenError(
            f"{checkpoint.path} is no Whisper model: it calls itself {checkpoint.name!r}"
        )
    if checkpoint.version != VERSION:
        raise ModelBrokenError(
            f"{checkpoint.path} has binary version {checkpoint.version}, not {VERSION}"
        )
    shapes = {
        name: checkpoint[name].shape
        for name in (
            "encoder/conv1/weight",
            "encoder/position_encodings/encodings",
            "decoder/position_encodings/encodings",
            EMBEDDINGS,
        )
    }
    if [len(shape) for shape in shapes.values()] != [3, 2, 2, 2]:
        raise ModelBrokenError(
            f"{checkpoint.path} is no Whisper model: its weights have odd shapes"
        )
    (width, n_mels, _), (n_audio_ctx, _), (n_text_ctx, _), (n_vocab, _) = shapes.values()
    dims = Dims(
        n_mels=n_mels,
        n_audio_ctx=n_audio_ctx,
        n_audio_state=width,
        n_audio_head=width // HEAD_WIDTH,
        n_audio_layer=_layers(checkpoint, "encoder"),
        n_vocab=n_vocab,
        n_text_ctx=n_text_ctx,
        n_text_state=width,
        n_text_head=width // HEAD_WIDTH,
        n_text_layer=_layers(checkpoint, "decoder"),
    )
    _check(checkpoint, dims)
    return dims


def _check(checkpoint: Checkpoint, dims: Dims) -> None:
    for name, shape in (encoder_shapes(dims) | decoder_shapes(dims)).items():
        if checkpoint[name].shape != shape:
            raise ModelBrokenError(
                f"{checkpoint.path} is no Whisper model: "
                f"{name} has the shape {checkpoint[name].shape}, not {shape}"
            )
    for name, n_head in (("encoder", dims.n_audio_head), ("decoder", dims.n_text_head)):
        if f"{name}/num_heads" in checkpoint:
            stored = checkpoint[f"{name}/num_heads"]
            if stored.ndim or bool(stored != n_head):
                raise ModelBrokenError(
                    f"{checkpoint.path}: the heads of the {name} are not {HEAD_WIDTH} wide, "
                    "as every Whisper's are"
                )


def _layers(checkpoint: Checkpoint, half: str) -> int:
    names = (*checkpoint.variables, *checkpoint.aliases)
    found = (re.match(half + r"/layer_(\d+)/", name) for name in names)
    return len({match[1] for match in found if match})


def _linear_shapes(name: str, outputs: int, inputs: int) -> dict[str, Shape]:
    return {f"{name}/weight": (outputs, inputs), f"{name}/bias": (outputs,)}


def _norm_shapes(name: str, width: int) -> dict[str, Shape]:
    return {f"{name}/gamma": (width,), f"{name}/beta": (width,)}


def _block_shapes(name: str, width: int) -> dict[str, Shape]:
    return {
        **_norm_shapes(f"{name}/self_attention/layer_norm", width),
        **_linear_shapes(f"{name}/self_attention/linear_0", 3 * width, width),
        **_linear_shapes(f"{name}/self_attention/linear_1", width, width),
        **_norm_shapes(f"{name}/ffn/layer_norm", width),
        **_linear_shapes(f"{name}/ffn/linear_0", 4 * width, width),
        **_linear_shapes(f"{name}/ffn/linear_1", width, 4 * width),
    }


def encoder_shapes(dims: Dims) -> dict[str, Shape]:
    width = dims.n_audio_head * HEAD_WIDTH
    shapes: dict[str, Shape] = {
        "encoder/conv1/weight": (width, dims.n_mels, CONV_WIDTH),
        "encoder/conv1/bias": (width,),
        "encoder/conv2/weight": (width, width, CONV_WIDTH),
        "encoder/conv2/bias": (width,),
        "encoder/position_encodings/encodings": (dims.n_audio_ctx, width),
        **_norm_shapes("encoder/layer_norm", width),
    }
    for i in range(dims.n_audio_layer):
        shapes |= _block_shapes(f"encoder/layer_{i}", width)
    return shapes


def decoder_shapes(dims: Dims) -> dict[str, Shape]:
    width = dims.n_text_head * HEAD_WIDTH
    shapes: dict[str, Shape] = {
        EMBEDDINGS: (dims.n_vocab, width),
        PROJECTION: (dims.n_vocab, width),
        "decoder/position_encodings/encodings": (dims.n_text_ctx, width),
        **_norm_shapes("decoder/layer_norm", width),
    }
    for i in range(dims.n_text_layer):
        shapes |= _block_shapes(f"decoder/layer_{i}", width)
        cross = f"decoder/layer_{i}/attention"
        shapes |= _norm_shapes(f"{cross}/layer_norm", width)
        shapes |= _linear_shapes(f"{cross}/linear_0", width, width)
        shapes |= _linear_shapes(f"{cross}/linear_1", 2 * width, width)
        shapes |= _linear_shapes(f"{cross}/linear_2", width, width)
    return shapes


def int8_bytes(dims: Dims) -> int:
    """Return what the weights take in int8; the embeddings are there as rows and as columns."""
    shapes = {**encoder_shapes(dims), **decoder_shapes(dims)}
    return sum(map(math.prod, shapes.values()))
