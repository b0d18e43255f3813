"""Whisper in numpy over a folder in Hugging Face's layout, by transformers' names alone.

An exported folder is judged with it where transformers is not installed, and the stand-in for
TensorRT-LLM computes with it. Slow and plain on purpose: nothing of it is shared with what it
judges.
"""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

TYPES = {"F16": "<f2", "F32": "<f4"}


def read_safetensors(file: Path) -> dict[str, Array]:
    """Return name -> values of all tensors, as float32."""
    raw = file.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    assert header.pop("__metadata__")["format"] == "pt"
    data = raw[8 + length :]
    tensors = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        values = np.frombuffer(data[start:end], TYPES[entry["dtype"]])
        tensors[name] = values.reshape(entry["shape"]).astype(np.float32)
    return tensors


class NumpyWhisper:
    """transformers' WhisperForConditionalGeneration, as far as it computes."""

    def __init__(self, config: dict[str, Any], tensors: dict[str, Array]) -> None:
        self.config = config
        self.tensors = dict(tensors)
        if self.config["tie_word_embeddings"]:
            assert "proj_out.weight" not in self.tensors
            self.tensors["proj_out.weight"] = self.tensors["model.decoder.embed_tokens.weight"]

    @staticmethod
    def read(folder: Path) -> NumpyWhisper:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text())
        return NumpyWhisper(config, read_safetensors(folder / "model.safetensors"))

    def encode(self, mel: Array) -> Array:
        """Return audio features of `mel`, shape = (n_mels, n_frames) -> (n_ctx, d_model)."""
        x = gelu(self._conv("model.encoder.conv1", mel, stride=1))
        x = gelu(self._conv("model.encoder.conv2", x, stride=2)).T
        x = x + self.tensors["model.encoder.embed_positions.weight"][: len(x)]
        heads = self.config["encoder_attention_heads"]
        for i in range(self.config["encoder_layers"]):
            x = self._layer(f"model.encoder.layers.{i}", x, heads)
        return self._norm("model.encoder.layer_norm", x)

    def logits(self, audio_features: Array, tokens: list[int]) -> Array:
        """Return what comes after each of `tokens`, shape = (n_tokens, n_vocab)."""
        x = self.tensors["model.decoder.embed_tokens.weight"][tokens]
        x = x + self.tensors["model.decoder.embed_positions.weight"][: len(x)]
        heads = self.config["decoder_attention_heads"]
        for i in range(self.config["decoder_layers"]):
            x = self._layer(f"model.decoder.layers.{i}", x, heads, audio_features)
        x = self._norm("model.decoder.layer_norm", x)
        return np.asarray(x @ self.tensors["proj_out.weight"].T, np.float32)

    def _layer(self, name: str, x: Array, heads: int, audio: Array | None = None) -> Array:
        y = self._norm(f"{name}.self_attn_layer_norm", x)
        x = x + self._attention(f"{name}.self_attn", y, y, heads, causal=audio is not None)
        if audio is not None:
            y = self._norm(f"{name}.encoder_attn_layer_norm", x)
            x = x + self._attention(f"{name}.encoder_attn", y, audio, heads)
        y = self._norm(f"{name}.final_layer_norm", x)
        return x + self._linear(f"{name}.fc2", gelu(self._linear(f"{name}.fc1", y)))

    def _attention(
        self, name: str, x: Array, source: Array, heads: int, *, causal: bool = False
    ) -> Array:
        def split(rows: Array) -> Array:
            return rows.reshape(len(rows), heads, -1).transpose(1, 0, 2)

        assert f"{name}.k_proj.bias" not in self.tensors
        q, v = (
            split(self._linear(f"{name}.q_proj", x)),
            split(self._linear(f"{name}.v_proj", source)),
        )
        k = split(source @ self.tensors[f"{name}.k_proj.weight"].T)
        scores = q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1])
        if causal:
            scores = np.where(np.tri(len(x), dtype=bool), scores, -np.inf)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        joined = (weights @ v).transpose(1, 0, 2).reshape(len(x), -1)
        return self._linear(f"{name}.out_proj", joined)

    def _linear(self, name: str, x: Array) -> Array:
        weight, bias = self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"]
        return np.asarray(x @ weight.T + bias, np.float32)

    def _norm(self, name: str, x: Array) -> Array:
        centred = x - x.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
        weight, bias = self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"]
        return np.asarray(scaled * weight + bias, np.float32)

    def _conv(self, name: str, x: Array, stride: int) -> Array:
        """A convolution of width 3 with a column of zeros on each side."""
        weight, bias = self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"]
        padded = np.pad(x, ((0, 0), (1, 1)))
        n_out = (x.shape[1] - 1) // stride + 1
        taps = [padded[:, i : i + n_out * stride : stride][:, :n_out] for i in range(3)]
        return np.asarray(sum(weight[:, :, i] @ taps[i] for i in range(3)) + bias[:, None])


_ERFC = (
    *(0.17087277, -0.82215223, 1.48851587, -1.13520398, 0.27886807),
    *(-0.18628806, 0.09678418, 0.37409196, 1.00002368, -1.26551223),
)


def erf(x: Array) -> Array:
    """Return the error function, wrong by 1.2e-7 at most (Press et al., Numerical Recipes, 6.2)."""
    t = 1.0 / (1.0 + 0.5 * np.abs(x.astype(np.float64)))
    tail = t * np.exp(np.polyval(_ERFC, t) - x.astype(np.float64) ** 2)
    return np.asarray(np.where(x >= 0, 1.0 - tail, tail - 1.0), np.float32)


def gelu(x: Array) -> Array:
    return np.asarray(0.5 * x * (1.0 + erf(x / math.sqrt(2.0))), np.float32)


def log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)), np.float32)
