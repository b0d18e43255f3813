"""Whisper's encoder and decoder in torch, in the size of `home-en`."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.tokens import SPELLING


@dataclass(frozen=True)
class Shape:
    """The sizes of a model."""

    vocabulary: int
    width: int = 128
    heads: int = 2
    encoder_layers: int = 4
    decoder_layers: int = 3
    mels: int = 80
    audio_positions: int = 1500
    text_positions: int = 448


def sinusoids(length: int, width: int) -> Tensor:
    """Whisper's position encodings (length, width)."""
    step = math.log(10000) / (width // 2 - 1)
    scaled = torch.arange(length)[:, None] * torch.exp(-step * torch.arange(width // 2))[None]
    return torch.cat([scaled.sin(), scaled.cos()], dim=1)


class Attention(nn.Module):  # type: ignore[misc]
    """Multi-head attention; as in Whisper, keys have no bias."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.query = nn.Linear(shape.width, shape.width)
        self.key = nn.Linear(shape.width, shape.width, bias=False)
        self.value = nn.Linear(shape.width, shape.width)
        self.out = nn.Linear(shape.width, shape.width)

    def forward(self, x: Tensor, memory: Tensor | None = None, causal: bool = False) -> Tensor:
        """X (batch, length, width) attends to memory, or to itself."""
        source = x if memory is None else memory
        q, k, v = (self._split(t) for t in (self.query(x), self.key(source), self.value(source)))
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)


class Block(nn.Module):  # type: ignore[misc]
    """A residual block of the encoder or, with cross-attention, of the decoder."""

    def __init__(self, shape: Shape, cross: bool) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(shape.width)
        self.attention = Attention(shape)
        self.cross_norm = nn.LayerNorm(shape.width) if cross else None
        self.cross = Attention(shape) if cross else None
        self.mlp_norm = nn.LayerNorm(shape.width)
        self.mlp_in = nn.Linear(shape.width, 4 * shape.width)
        self.mlp_out = nn.Linear(4 * shape.width, shape.width)

    def forward(self, x: Tensor, memory: Tensor | None = None) -> Tensor:
        """(batch, length, width) to the same."""
        causal = self.cross is not None
        x = x + self.attention(self.attention_norm(x), causal=causal)
        if self.cross is not None and self.cross_norm is not None:
            x = x + self.cross(self.cross_norm(x), memory)
        return x + self.mlp_out(functional.gelu(self.mlp_in(self.mlp_norm(x))))


class Whisper(nn.Module):  # type: ignore[misc]
    """Encoder, decoder, and a head that spells what is heard: it helps training, no more."""

    position_encodings: Tensor

    def __init__(self, shape: Shape, first_timestamp: int) -> None:
        super().__init__()
        self.shape = shape
        width = shape.width
        self.conv1 = nn.Conv1d(shape.mels, width, 3, padding=1)
        self.conv2 = nn.Conv1d(width, width, 3, stride=2, padding=1)
        encodings = sinusoids(shape.audio_positions, width)
        self.register_buffer("position_encodings", encodings)
        self.encoder = nn.ModuleList(Block(shape, False) for _ in range(shape.encoder_layers))
        self.encoder_norm = nn.LayerNorm(width)
        self.embedding = nn.Embedding(shape.vocabulary, width)
        self.positions = nn.Parameter(torch.randn(shape.text_positions, width) * 0.01)
        self.decoder = nn.ModuleList(Block(shape, True) for _ in range(shape.decoder_layers))
        self.decoder_norm = nn.LayerNorm(width)
        self.ctc = nn.Linear(width, len(SPELLING) + 1)
        nn.init.normal_(self.embedding.weight, std=0.02)
        with torch.no_grad():  # a timestamp starts out alike to the audio position of its time
            times = shape.vocabulary - first_timestamp
            self.embedding.weight[first_timestamp:] += 0.03 * sinusoids(times, width)

    def encode(self, mel: Tensor) -> Tensor:
        """Log-mel (batch, 80, frames) to audio features (batch, frames / 2, width)."""
        x = functional.gelu(self.conv2(functional.gelu(self.conv1(mel)))).transpose(1, 2)
        x = x + self.position_encodings[: x.shape[1]]
        for block in self.encoder:
            x = block(x)
        out: Tensor = self.encoder_norm(x)
        return out

    def decode(self, tokens: Tensor, audio_features: Tensor) -> Tensor:
        """Tokens (batch, length) to logits (batch, length, vocabulary)."""
        x = self.embedding(tokens) + self.positions[: tokens.shape[1]]
        for block in self.decoder:
            x = block(x, audio_features)
        logits: Tensor = self.decoder_norm(x) @ self.embedding.weight.T
        return logits
