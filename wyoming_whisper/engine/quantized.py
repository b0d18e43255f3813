"""Whisper's decoder in int8, as graphs for onnxruntime's CPU provider, made in memory.

The decoder of `graphs`, its matrices multiplied in integers: weights with one scale for each
output, as CTranslate2 has them, activations with one for all that is multiplied at once
(DynamicQuantizeMatMul, onnxruntime's docs/ContribOperators.md). onnxruntime packs the weights once,
CTranslate2's oneDNN at every token.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from .checkpoint import Checkpoint
from .dims import EMBEDDINGS, PROJECTION, Dims, dims_of
from .graphs import SCALE, Graph, Inside, cross_keys_values, decoder

ROWS = 4096  # of a matrix at once: the embeddings in float32 take more than all the rest
CONTRIBUTED = "com.microsoft"  # onnxruntime's own operators
LARGEST = 63
"""Seven bits: AVX2 adds two products of eight bits in sixteen, and is silent when they don't fit.
So more texts are those of float32 than with eight, in CTranslate2 or here (docs/benchmarks.md)."""


@dataclass(frozen=True)
class DecoderModels:
    """Two onnx.ModelProto, serialized."""

    cross: bytes
    """audio_features, shape = (1, n_ctx, n_audio_state) -> what `graphs.encoder_model` gives."""

    decoder: bytes
    """See `graphs.decoder_model`."""


def decoder_models(checkpoint: Checkpoint, beam_size: int = 1) -> DecoderModels:
    """Return the decoder in int8: some seconds for a larger model. Raises ModelBrokenError."""
    dims = dims_of(checkpoint)
    cross = _cross(_Quantized(checkpoint), dims)
    whole = decoder(_Quantized(checkpoint), dims, beam_size)
    return DecoderModels(cross.SerializeToString(), whole.SerializeToString())


class _Quantized(Graph):
    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint, "float32", Inside())
        self._kept: dict[str, str] = {}

    def linear(self, x: str, name: str, scaled: int = 0) -> str:
        def scale(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
            values = values.copy()
            values[:scaled] *= np.float32(SCALE)
            return values

        matrix, scales = self._integers(f"{name}/weight")
        return self._product(
            x,
            self.constant(f"{name}/weight", matrix.T),
            self.constant(f"{name}/scales", scale(scales)),
            self.weights(f"{name}/bias", scale),
        )

    def embedded(self, tokens: str) -> str:
        matrix, scales = self._integers(EMBEDDINGS)
        rows = self.op("Gather", self.constant(EMBEDDINGS, matrix), tokens, axis=0)
        scale = self.op(
            "Gather", self.constant("embeddings/scales", scales[:, None]), tokens, axis=0
        )
        return self.op("Mul", self.op("Cast", rows, to=onnx.TensorProto.FLOAT), scale)

    def projected(self, x: str, name: str) -> str:
        matrix, scales = self._integers(EMBEDDINGS if self.tied else PROJECTION)
        weight = self.constant(PROJECTION, matrix.T)
        return self._product(x, weight, self.constant("projection/scales", scales), name=name)

    def replaced(self, past: str, hit: str, new: str, name: str) -> str:
        # onnxruntime's Where is three times slower than both of these.
        if hit not in self._kept:
            self._kept[hit] = self.op("Cast", self.op("Not", hit), to=onnx.TensorProto.FLOAT)
        return self.op("Add", self.op("Mul", past, self._kept[hit]), new, name=name)

    def _product(self, *inputs: str, name: str = "") -> str:
        x, weight, scales, *bias = inputs
        zero_point = [""] if bias else []  # none: the weights are symmetric
        return self.op(
            "DynamicQuantizeMatMul",
            *(x, weight, scales, *zero_point, *bias),
            name=name,
            domain=CONTRIBUTED,
        )

    def _integers(self, name: str) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
        """Return a matrix as int8, and what each of its rows is to be multiplied by."""
        shape = self._checkpoint[name].shape
        matrix, scales = np.empty(shape, np.int8), np.empty(shape[0], np.float32)
        for start in range(0, shape[0], ROWS):
            rows = slice(start, start + ROWS)
            values = self._checkpoint.weights(name, rows)
            scale = np.abs(values).max(axis=1) / np.float32(LARGEST)
            scale[scale == 0] = 1
            scales[rows], matrix[rows] = scale, np.rint(values / scale[:, None])
        return matrix, scales

    def model(self, name: str) -> onnx.ModelProto:
        model: onnx.ModelProto = super().model(name)
        model.opset_import.append(onnx.helper.make_opsetid(CONTRIBUTED, 1))
        return model


def _cross(g: _Quantized, dims: Dims) -> onnx.ModelProto:
    shape = (1, "n_ctx", dims.n_audio_state)
    cross_keys_values(g, g.input("audio_features", onnx.TensorProto.FLOAT, *shape), dims)
    return g.model("cross")
