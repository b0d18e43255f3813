"""What a checkpoint's Whisper measures, and the shapes that its weights therefore have."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from ..errors import ModelBrokenError
from .checkpoint import Checkpoint

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

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Dims:
        """Return a checkpoint's dimensions; every weight fits them.

        Raises ModelBrokenError for anything but a Whisper.
        """
        specification = "WhisperSpec"  # what CTranslate2 calls it
        if checkpoint.name != specification:
            raise ModelBrokenError(
                f"{checkpoint.path} is no Whisper model: it calls itself {checkpoint.name!r}"
            )
        if checkpoint.version != Checkpoint.VERSION:
            raise ModelBrokenError(
                f"{checkpoint.path} has binary version {checkpoint.version}, "
                f"not {Checkpoint.VERSION}"
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
        dims = cls(
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
        dims._check(checkpoint)
        return dims

    def encoder_shapes(self) -> dict[str, Shape]:
        width = self.n_audio_head * HEAD_WIDTH
        shapes: dict[str, Shape] = {
            "encoder/conv1/weight": (width, self.n_mels, CONV_WIDTH),
            "encoder/conv1/bias": (width,),
            "encoder/conv2/weight": (width, width, CONV_WIDTH),
            "encoder/conv2/bias": (width,),
            "encoder/position_encodings/encodings": (self.n_audio_ctx, width),
            **_norm_shapes("encoder/layer_norm", width),
        }
        for i in range(self.n_audio_layer):
            shapes |= _block_shapes(f"encoder/layer_{i}", width)
        return shapes

    def decoder_shapes(self) -> dict[str, Shape]:
        width = self.n_text_head * HEAD_WIDTH
        shapes: dict[str, Shape] = {
            EMBEDDINGS: (self.n_vocab, width),
            PROJECTION: (self.n_vocab, width),
            "decoder/position_encodings/encodings": (self.n_text_ctx, width),
            **_norm_shapes("decoder/layer_norm", width),
        }
        for i in range(self.n_text_layer):
            shapes |= _block_shapes(f"decoder/layer_{i}", width)
            cross = f"decoder/layer_{i}/attention"
            shapes |= _norm_shapes(f"{cross}/layer_norm", width)
            shapes |= _linear_shapes(f"{cross}/linear_0", width, width)
            shapes |= _linear_shapes(f"{cross}/linear_1", 2 * width, width)
            shapes |= _linear_shapes(f"{cross}/linear_2", width, width)
        return shapes

    def shapes(self) -> dict[str, Shape]:
        """Return the shape of every weight."""
        return self.encoder_shapes() | self.decoder_shapes()

    @property
    def int8_bytes(self) -> int:
        """What the weights take in int8; the embeddings are there as rows and as columns."""
        return sum(map(math.prod, self.shapes().values()))

    def _check(self, checkpoint: Checkpoint) -> None:
        for name, shape in self.shapes().items():
            if checkpoint[name].shape != shape:
                raise ModelBrokenError(
                    f"{checkpoint.path} is no Whisper model: "
                    f"{name} has the shape {checkpoint[name].shape}, not {shape}"
                )
        for name, n_head in (("encoder", self.n_audio_head), ("decoder", self.n_text_head)):
            if f"{name}/num_heads" in checkpoint:
                stored = checkpoint[f"{name}/num_heads"]
                if stored.ndim or bool(stored != n_head):
                    raise ModelBrokenError(
                        f"{checkpoint.path}: the heads of the {name} are not {HEAD_WIDTH} wide, "
                        "as every Whisper's are"
                    )


def _layers(checkpoint: Checkpoint, half: str) -> int:
    names = (*checkpoint.variables, *checkpoint.aliases)
    matches = (re.match(half + r"/layer_(\d+)/", name) for name in names)
    return len({match[1] for match in matches if match})


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
