"""A Whisper of random numbers, by which `auto` measures a machine that has no model yet.

What it hears is nonsense, but it takes as long as stock weights of its width do. It is written to a
temporary folder through CTranslate2's specification: 7 MB, in less than 0.1 s.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt
    from ctranslate2.specs import whisper_spec

HEAD_WIDTH = 64
"""Of every Whisper."""

N_POSITIONS = 1500

TOKENS = (
    "",  # by the empty one CTranslate2 knows a multilingual vocabulary
    "<|endoftext|>",
    "<|startoftranscript|>",
    "<|en|>",
    "<|translate|>",
    "<|transcribe|>",
    "<|startoflm|>",
    "<|startofprev|>",
    "<|nospeech|>",
    "<|notimestamps|>",
)


def write_yardstick(folder: Path, width: int, encoder_layers: int, n_mels: int) -> None:
    """Write the model into the existing `folder`; its decoder has one layer. Raises OSError."""
    from ctranslate2.specs import whisper_spec

    n_heads = width // HEAD_WIDTH
    spec = whisper_spec.WhisperSpec(encoder_layers, n_heads, 1, n_heads)
    _fill(spec, width, n_mels)
    spec.register_vocabulary(list(TOKENS))
    spec.config.suppress_ids, spec.config.suppress_ids_begin = [], []
    spec.config.lang_ids, spec.config.alignment_heads = [TOKENS.index("<|en|>")], [[0, 0]]
    spec.validate()
    spec.optimize(quantization="int8")
    spec.save(str(folder))


def _fill(spec: whisper_spec.WhisperSpec, width: int, n_mels: int) -> None:
    """Set all weights, large enough to keep activations at a usual size."""
    # Nothing is ever decoded.
    n_text_positions = 8
    rng = np.random.default_rng(0)

    def weights(*shape: int) -> npt.NDArray[np.float32]:
        scale = np.float32(np.prod(shape[1:]) ** -0.5)
        return rng.standard_normal(shape, np.float32) * scale

    def linear(part: Any, outputs: int, inputs: int) -> None:
        part.weight, part.bias = weights(outputs, inputs), np.zeros(outputs, np.float32)

    def norm(part: Any) -> None:
        part.gamma, part.beta = np.ones(width, np.float32), np.zeros(width, np.float32)

    def block(layer: Any) -> None:
        norm(layer.self_attention.layer_norm)
        norm(layer.ffn.layer_norm)
        linear(layer.self_attention.linear[0], 3 * width, width)
        linear(layer.self_attention.linear[1], width, width)
        linear(layer.ffn.linear_0, 4 * width, width)
        linear(layer.ffn.linear_1, width, 4 * width)

    encoder, decoder = spec.encoder, spec.decoder
    for conv, inputs in ((encoder.conv1, n_mels), (encoder.conv2, width)):
        conv.weight, conv.bias = weights(width, inputs, 3), np.zeros(width, np.float32)
    encoder.position_encodings.encodings = weights(N_POSITIONS, width)
    decoder.position_encodings.encodings = weights(n_text_positions, width)
    decoder.scale_embeddings = False
    decoder.embeddings.weight = decoder.projection.weight = weights(len(TOKENS), width)
    for layer in (*encoder.layer, *decoder.layer):
        block(layer)
    attention = decoder.layer[0].attention
    norm(attention.layer_norm)
    for part, outputs in zip(attention.linear, (1, 2, 1), strict=True):
        linear(part, outputs * width, width)
    norm(encoder.layer_norm)
    norm(decoder.layer_norm)
