"""The frozen tail: the silent end of a full window, computed once for all that is ever spoken.

In Whisper's window of 30 s the positions behind the speech hardly depend on what was said. So their
keys and values are those that they have when all of the window is silence, and the encoder computes
the speech's own positions alone. Neighbours are nearly alike: those of a group are merged into
their mean, which a softmax takes for all of them once the logarithm of their number is added to its
score. Positions unlike their neighbours (a trained Whisper has a few dozen, far from any speech)
stay as they are. docs/frozen-tail.md has the figures.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..whisper.audio import FRAMES_PER_POSITION, N_FRAMES
from .checkpoint import CONV_WIDTH, HEAD_WIDTH, Checkpoint, Dims

GROUP = 20
"""Positions that are merged; a tail begins at a multiple of it."""
KEPT = 64
"""Positions that are not: those that are least like their neighbours."""
LEVEL = -0.7
"""Of the silence, in a normalised spectrogram: that of speech at a usual volume, which has -1.0 to
-0.55. The texts hardly depend on it."""

Floats = npt.NDArray[np.float32]
Pair = tuple[Floats, Floats]
"""Keys and values, shape = (n, width) each."""


@dataclass(frozen=True)
class Tail:
    """Keys and values of a whole window of silence, of which an end is taken.

    An entry is a position, or a group of them.
    """

    encoder: list[Pair]
    """Of each layer's attention, shape = (n_entries, width) each."""
    cross: list[Pair]
    """Of the decoder's attention to the audio, likewise."""
    counts: npt.NDArray[np.int64]
    """How many positions an entry stands for, shape = (n_entries,)."""
    starts: npt.NDArray[np.int64]
    """The first entry of each group of positions, and n_entries, shape = (n_groups + 1,)."""

    @classmethod
    def frozen(cls, checkpoint: Checkpoint, dims: Dims) -> Tail:
        """Run the encoder over a window of silence, in float32, and merge its keys and values.

        Raises ModelBrokenError.
        """
        unlikeness = np.zeros(dims.n_audio_ctx)
        pairs: list[list[npt.NDArray[np.float16]]] = []
        with np.errstate(all="ignore"):  # of damaged weights; what they compute is tried out anyway
            for pair in _silent_pairs(checkpoint, dims):
                unlikeness += sum(map(_unlikeness, pair))
                pairs.append([values.astype(np.float16) for values in pair])  # there are many
        kept = np.argsort(-unlikeness, kind="stable")[:KEPT]
        merging, starts = _merging(dims.n_audio_ctx, kept)
        counts = np.count_nonzero(merging, axis=1)
        means = merging / counts[:, np.newaxis].astype(np.float32)
        merged = [(means @ k.astype(np.float32), means @ v.astype(np.float32)) for k, v in pairs]
        n_encoder = dims.n_audio_layer
        return cls(merged[:n_encoder], merged[n_encoder:], counts, starts)

    @staticmethod
    def n_groups(n_audio_ctx: int) -> int:
        """Return how many groups a window has; a tail from there on is empty."""
        return math.ceil(n_audio_ctx / GROUP)

    @staticmethod
    def lengthened(mel: Floats, *, follows: bool) -> Floats:
        """Return a window of whole groups of positions, and one more where the tail is to follow.

        That one is dropped: the last one before the tail has to see silence behind it. `mel` ends
        with silence. Less than a group from the full window it is that one, which nothing follows.
        """
        n_positions = mel.shape[1] // FRAMES_PER_POSITION
        n_more = -n_positions % GROUP
        if follows and FRAMES_PER_POSITION * (n_positions + n_more) < N_FRAMES:
            n_more += 1
        padding = ((0, 0), (0, FRAMES_PER_POSITION * n_more))
        return np.pad(mel, padding, mode="edge") if n_more else mel

    @property
    def log_counts(self) -> Floats:
        """What the entries' scores need, shape = (n_entries,)."""
        return np.log(self.counts).astype(np.float32)


def _merging(n_ctx: int, kept: npt.NDArray[np.int64]) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Return which positions an entry stands for, shape = (n_entries, n_ctx), and `starts`."""
    is_kept = np.isin(np.arange(n_ctx), kept)
    entries: list[npt.NDArray[np.int64]] = []
    starts = []
    for first in range(0, n_ctx, GROUP):
        starts.append(len(entries))
        positions = np.arange(first, min(first + GROUP, n_ctx))
        rest = positions[~is_kept[positions]]
        entries += [rest] if len(rest) else []
        entries += list(positions[is_kept[positions], np.newaxis])
    merging = np.zeros((len(entries), n_ctx), np.float32)
    for row, positions in zip(merging, entries, strict=True):
        row[positions] = 1
    return merging, np.array([*starts, len(entries)], np.int64)


def _unlikeness(values: Floats) -> npt.NDArray[np.float64]:
    """Return how far each position is from its neighbours, shape = (n_ctx,).

    In units of the mean distance, which differs between heads.
    """
    n_ctx = len(values)
    filled = np.pad(values, ((0, -n_ctx % GROUP), (0, 0)), mode="edge")
    groups = filled.reshape(Tail.n_groups(n_ctx), GROUP, -1, HEAD_WIDTH)
    apart = groups - np.median(groups, axis=1, keepdims=True)
    distances = np.sqrt(np.square(apart).sum(axis=-1)).reshape(len(filled), -1)[:n_ctx]
    tiny = np.finfo(np.float32).tiny
    squares = np.square(distances / np.maximum(distances.mean(axis=0), tiny), dtype=np.float64)
    return np.asarray(squares.mean(axis=1))


# Whisper's encoder in numpy: once for a model, and all layers' keys and values are wanted.


def _silent_pairs(checkpoint: Checkpoint, dims: Dims) -> Iterator[Pair]:
    """Yield keys and values of each layer of the encoder, then for each of the decoder."""
    silence = np.full((dims.n_mels, 2 * dims.n_audio_ctx), LEVEL, np.float32)
    x = _gelu(_convolved(checkpoint, silence, "encoder/conv1", 1))
    x = _gelu(_convolved(checkpoint, x, "encoder/conv2", 2)).T
    x = x + checkpoint.weights("encoder/position_encodings/encodings")
    for i in range(dims.n_audio_layer):
        name = f"encoder/layer_{i}/self_attention"
        y = _normed(checkpoint, x, f"{name}/layer_norm")
        q, k, v = np.split(_linear(checkpoint, y, f"{name}/linear_0"), 3, axis=-1)
        yield k, v
        x = x + _linear(checkpoint, _attended(q, k, v), f"{name}/linear_1")
        name = f"encoder/layer_{i}/ffn"
        y = _linear(checkpoint, _normed(checkpoint, x, f"{name}/layer_norm"), f"{name}/linear_0")
        x = x + _linear(checkpoint, _gelu(y), f"{name}/linear_1")
    x = _normed(checkpoint, x, "encoder/layer_norm")
    for i in range(dims.n_text_layer):
        both = _linear(checkpoint, x, f"decoder/layer_{i}/attention/linear_1")
        k, v = np.split(both, 2, axis=-1)
        yield k, v


def _convolved(checkpoint: Checkpoint, x: Floats, name: str, stride: int) -> Floats:
    """Return a convolution of `x`, shape = (channels, n), padded with zeros."""
    n = x.shape[1]
    padded = np.pad(x, ((0, 0), (1, 1)))
    columns = np.stack([padded[:, at : at + n : stride] for at in range(CONV_WIDTH)], axis=1)
    weight = checkpoint.weights(f"{name}/weight")
    product = weight.reshape(len(weight), -1) @ columns.reshape(-1, columns.shape[-1])
    return np.asarray(product + checkpoint.weights(f"{name}/bias")[:, np.newaxis])


def _normed(checkpoint: Checkpoint, x: Floats, name: str) -> Floats:
    epsilon = 1e-5
    centred = x - x.mean(axis=-1, keepdims=True)
    deviation = np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + np.float32(epsilon))
    gamma, beta = (checkpoint.weights(f"{name}/{part}") for part in ("gamma", "beta"))
    return np.asarray(centred / deviation * gamma + beta)


def _linear(checkpoint: Checkpoint, x: Floats, name: str) -> Floats:
    product = x @ checkpoint.weights(f"{name}/weight").T
    return np.asarray(product + checkpoint.weights(f"{name}/bias"))


def _attended(q: Floats, k: Floats, v: Floats) -> Floats:
    """Return softmax(q k' / 8) v, one head after the other."""
    attended = np.empty_like(v)
    for start in range(0, q.shape[1], HEAD_WIDTH):
        head = slice(start, start + HEAD_WIDTH)
        scores = q[:, head] @ k[:, head].T * np.float32(HEAD_WIDTH**-0.5)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        attended[:, head] = weights @ v[:, head] / weights.sum(axis=-1, keepdims=True)
    return attended


def _gelu(x: Floats) -> Floats:
    """Return x / 2 (1 + erf(x / sqrt 2)); numpy has no erf.

    By Abramowitz and Stegun, formula 7.1.26, off by 1.5e-7 at most.
    """
    z = np.abs(x) * np.float32(2**-0.5)
    t = 1 / (1 + np.float32(0.3275911) * z)
    series = np.zeros_like(t)
    for factor in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series = (series + np.float32(factor)) * t
    erf = np.copysign(1 - series * np.exp(-z * z), x)
    return np.asarray(x * np.float32(0.5) * (1 + erf))
