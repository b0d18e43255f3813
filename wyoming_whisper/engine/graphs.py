"""Whisper as two ONNX graphs, written node by node: what onnxruntime and TensorRT run.

`encoder` makes of a mel spectrogram the keys and values that the decoder's cross-attention needs;
`decoder` reads some tokens, writes their keys and values into the slots of its cache, and says what
comes next. The same decoder graph takes a prompt and a single token.

Only operators that onnxruntime's CPU provider and TensorRT's parsers from 8.6 on both have, in
their opset-17 form; int32 inputs and outputs, as TensorRT 8 knows no int64.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from .checkpoint import (
    EMBEDDINGS,
    HEAD_WIDTH,
    PROJECTION,
    Checkpoint,
    Dims,
    Shape,
)
from .onnx_graph import Graph, Precision, Progress, Storage
from .tail import GROUP, Floats, Tail


def write_graphs(
    checkpoint: Checkpoint,
    folder: Path,
    precision: Precision,
    beam_size: int = 1,
    progress: Progress | None = None,
    *,
    tail: Tail | None = None,
) -> Dims:
    """Write encoder.onnx and decoder.onnx into `folder`; return the dimensions.

    A `tail` follows the windows that ask for it (see _GraphTail).
    Where weights are over Storage.MAX_BYTES_INSIDE they go to one file beside the graph, one at a
    time: they need not fit into memory. Raises ModelBrokenError, and OSError when the disk is full;
    the files are then of no use.
    """
    dims = Dims.of(checkpoint)
    parts = _parts(dims, tied=checkpoint.is_tied)
    sizes = {name: _bytes(shapes, precision) for name, shapes in parts.items()}
    storage = Storage(sum(sizes.values()), progress)
    folder.mkdir(parents=True, exist_ok=True)
    for name, size in sizes.items():
        with ExitStack() as stack:
            if size > Storage.MAX_BYTES_INSIDE:
                stack.enter_context(storage.beside(folder / f"{name}.onnx.data"))
            graph = Graph(checkpoint, precision, storage)
            if name == "encoder":
                model = _encoder(graph, dims, tail)
            else:
                model = _decoder(graph, dims, beam_size, has_tail=tail is not None)
        (folder / f"{name}.onnx").write_bytes(model.SerializeToString())
    return dims


def _parts(dims: Dims, tied: bool) -> dict[str, dict[str, Shape]]:
    """What each graph holds: its half; the keys and values of the audio are the encoder's."""
    cross_key_value = "/attention/linear_1/"
    decoder = dims.decoder_shapes()
    if tied:
        del decoder[PROJECTION]
    cross = {name: decoder.pop(name) for name in list(decoder) if cross_key_value in name}
    return {"encoder": dims.encoder_shapes() | cross, "decoder": decoder}


def _bytes(shapes: Mapping[str, Shape], precision: Precision) -> int:
    return sum(math.prod(shape) for shape in shapes.values()) * np.dtype(precision).itemsize


def _encoder(g: Graph, dims: Dims, frozen: Tail | None) -> Any:
    n_head, width = dims.n_audio_head, dims.n_audio_state
    mel = g.input("mel", onnx.TensorProto.FLOAT, "batch", dims.n_mels, "n_frames")
    x = g.convolution(g.narrow(mel), "encoder/conv1", 1)
    x = g.op("Transpose", g.convolution(x, "encoder/conv2", 2), perm=[0, 2, 1])
    tail = _GraphTail(g, frozen, x) if frozen else None
    x = tail.computed if tail else x
    x = g.op("Add", x, g.position_encodings(x))
    for i in range(dims.n_audio_layer):
        name = f"encoder/layer_{i}/self_attention"
        y = g.linear(g.layer_norm(x, f"{name}/layer_norm"), f"{name}/linear_0", width)
        q, k, v = g.split(g.heads(y, 3 * n_head), 1, [n_head] * 3)
        if tail:
            k, v = tail.after(k, v, i)
        scores = g.op("MatMul", q, g.op("Transpose", k, perm=[0, 1, 3, 2]))
        scores = g.op("Add", scores, tail.bias) if tail else scores
        y = g.merged(g.attention(scores, v), width)
        x = g.op("Add", x, g.linear(y, f"{name}/linear_1"))
        x = g.feed_forward(x, f"encoder/layer_{i}/ffn")
    x = g.layer_norm(x, "encoder/layer_norm")
    for i in range(dims.n_text_layer):
        y = g.linear(x, f"decoder/layer_{i}/attention/linear_1")
        k, v = g.split(y, 2, [width] * 2)
        names = ("", "") if tail else (f"cross_k_{i}", f"cross_v_{i}")
        k = g.op("Reshape", k, g.integers(0, -1, n_head, HEAD_WIDTH))
        k = g.op("Transpose", k, perm=[0, 2, 3, 1], name=names[0])
        v = g.op("Reshape", v, g.integers(0, -1, n_head, HEAD_WIDTH))
        v = g.op("Transpose", v, perm=[0, 2, 1, 3], name=names[1])
        if tail:
            tail.after_cross(k, v, i)
        g.output(f"cross_k_{i}", g.float, "batch", n_head, HEAD_WIDTH, "n_ctx")
        g.output(f"cross_v_{i}", g.float, "batch", n_head, "n_ctx", HEAD_WIDTH)
    if tail:
        g.output(tail.bias, g.float, "n_ctx")
    return g.model("encoder")


@dataclass(frozen=True)
class _Step:
    """What all layers of the decoder share: names of tensors."""

    written: str
    """one-hot, shape = (n_slots, n_tokens): which token goes into which slot"""
    hit: str
    """bool, shape = (n_slots, 1): the slots that are written"""
    hidden: str
    """shape = (n_tokens, n_slots), to be added to the scores: the slots ahead of a token"""
    shape: str
    """(batch, n_tokens, width)"""
    parents: str | None
    cross_bias: str | None
    """shape = (n_ctx,), to be added to the scores of the audio's keys, where a tail is there"""


def _decoder(g: Graph, dims: Dims, beam_size: int, *, has_tail: bool) -> Any:
    width, int32 = dims.n_text_state, onnx.TensorProto.INT32
    tokens = g.input("tokens", int32, "batch", "n_tokens")
    positions = g.input("positions", int32, "n_tokens")
    slots = g.input("slots", int32, "n_slots")
    bias = g.input("logit_bias", onnx.TensorProto.FLOAT, dims.n_vocab)
    parents = g.input("parents", int32, "batch") if beam_size > 1 else None
    cross_bias = g.input("cross_bias", g.float, "n_ctx") if has_tail else None
    shared = dataclasses.replace(
        _step(g, tokens, positions, slots, width, parents), cross_bias=cross_bias
    )
    embeddings = g.weights(EMBEDDINGS)
    x = g.op(
        "Add",
        g.op("Gather", embeddings, tokens, axis=0),
        g.op("Gather", g.weights("decoder/position_encodings/encodings"), positions, axis=0),
    )
    for i in range(dims.n_text_layer):
        x = _self_attention(g, x, i, dims, shared)
        x = _cross_attention(g, x, i, dims, shared)
        x = g.feed_forward(x, f"decoder/layer_{i}/ffn")
    last = (g.integers(-1), g.integers(2**31 - 1))
    x = g.layer_norm(g.op("Slice", x, *last, g.integers(1)), "decoder/layer_norm")
    x = g.op("Reshape", x, g.integers(-1, width))
    # Gemm takes the embeddings as they are: a transposed copy would be the largest weight of all.
    projection = embeddings if g.tied else g.weights(PROJECTION)
    if g.float == onnx.TensorProto.FLOAT:
        logits = g.op("Gemm", x, projection, transB=1, name="logits")
    else:
        logits = g.float32(g.op("Gemm", x, projection, transB=1), name="logits")
    g.output("logits", onnx.TensorProto.FLOAT, "batch", dims.n_vocab)
    _choice(g, g.op("Add", logits, bias), beam_size)
    one = g.constant("one", np.array([1], np.int32))
    position = g.op("Slice", positions, *last, g.integers(0))
    g.op("Add", position, one, name="next_positions")
    g.output("next_positions", int32, 1)
    return g.model("decoder")


def _step(
    g: Graph, tokens: str, positions: str, slots: str, width: int, parents: str | None
) -> _Step:
    hidden = -1e4  # added to the scores of slots ahead: exp of it is 0, and float16 holds it
    column = g.op("Unsqueeze", slots, g.integers(1))
    row = g.op("Unsqueeze", positions, g.integers(0))
    written = g.op("Cast", g.op("Equal", column, row), to=g.float)
    count = g.op("ReduceSum", written, g.integers(1), keepdims=1)
    ahead = g.op(
        "Greater",
        g.op("Unsqueeze", slots, g.integers(0)),
        g.op("Unsqueeze", positions, g.integers(1)),
    )
    return _Step(
        written=written,
        hit=g.op("Greater", count, g.number(0.5)),
        hidden=g.op("Where", ahead, g.number(hidden), g.number(0.0)),
        shape=g.op("Concat", g.op("Shape", tokens), g.integers(width), axis=0),
        parents=parents,
        cross_bias=None,
    )


def _self_attention(g: Graph, x: str, i: int, dims: Dims, shared: _Step) -> str:
    """Attend to the cache, the keys and values of `x` written into it."""
    n_head, width = dims.n_text_head, dims.n_text_state
    name = f"decoder/layer_{i}/self_attention"
    y = g.linear(g.layer_norm(x, f"{name}/layer_norm"), f"{name}/linear_0", width)
    q, kv = g.split(g.heads(y, 3 * n_head), 1, [n_head, 2 * n_head])
    # A scatter that every runtime knows: a product with ones and zeros, exact in any precision.
    written = g.split(g.op("MatMul", shared.written, kv), 1, [n_head] * 2)
    cache = []
    for letter, new in zip("kv", written, strict=True):
        shape = ("batch", n_head, "n_slots", HEAD_WIDTH)
        past = g.input(f"self_{letter}_{i}", g.float, *shape)
        if shared.parents:
            past = g.op("Gather", past, shared.parents, axis=0)
        cache.append(g.op("Where", shared.hit, new, past, name=f"new_self_{letter}_{i}"))
        g.output(f"new_self_{letter}_{i}", g.float, *shape)
    scores = g.op("MatMul", q, g.op("Transpose", cache[0], perm=[0, 1, 3, 2]))
    y = g.attention(g.op("Add", scores, shared.hidden), cache[1])
    return g.op("Add", x, g.linear(g.merged(y, width), f"{name}/linear_1"))


def _cross_attention(g: Graph, x: str, i: int, dims: Dims, shared: _Step) -> str:
    """Attend to the audio: one reading of its keys and values for all tokens of all rows."""
    n_head, width = dims.n_text_head, dims.n_text_state
    name = f"decoder/layer_{i}/attention"
    keys = g.input(f"cross_k_{i}", g.float, 1, n_head, HEAD_WIDTH, "n_ctx")
    values = g.input(f"cross_v_{i}", g.float, 1, n_head, "n_ctx", HEAD_WIDTH)
    q = g.linear(g.layer_norm(x, f"{name}/layer_norm"), f"{name}/linear_0", width)
    q = g.op("Reshape", q, g.integers(1, -1, n_head, HEAD_WIDTH))
    q = g.op("Transpose", q, perm=[0, 2, 1, 3])
    scores = g.op("MatMul", q, keys)
    if shared.cross_bias:
        scores = g.op("Add", scores, shared.cross_bias)
    y = g.op("Transpose", g.attention(scores, values), perm=[0, 2, 1, 3])
    y = g.op("Reshape", y, shared.shape)
    return g.op("Add", x, g.linear(y, f"{name}/linear_2"))


def _choice(g: Graph, biased: str, beam_size: int) -> None:
    """Add what is likeliest by `biased`, shape = (batch, n_vocab), and how likely it is."""
    n_candidates = 2 * beam_size if beam_size > 1 else 0
    # ArgMax is a TopK in TensorRT; asked for directly it gives the maximum too.
    values, indices = g.ops("TopK", [biased, g.integers(n_candidates or 1)], 2, axis=-1)
    columns = (g.integers(0), g.integers(1), g.integers(1))
    best = g.op("Slice", values, *columns) if n_candidates else values
    name = "candidates" if n_candidates else "next_tokens"
    chosen = g.op("Cast", indices, to=onnx.TensorProto.INT32, name=name)
    if n_candidates:
        g.op("Slice", chosen, *columns, name="next_tokens")
    # The maximum is taken off first: float32 would not hold the sum otherwise.
    total = g.op("ReduceSum", g.op("Exp", g.op("Sub", biased, best)), g.integers(1), keepdims=1)
    logarithm = g.op("Log", total)
    g.op("Neg", logarithm, name="logprobs")
    g.output("next_tokens", onnx.TensorProto.INT32, "batch", 1)
    g.output("logprobs", onnx.TensorProto.FLOAT, "batch", 1)
    if n_candidates:
        g.op("Sub", g.op("Sub", values, best), logarithm, name="candidate_logprobs")
        g.output("candidates", onnx.TensorProto.INT32, "batch", n_candidates)
        g.output("candidate_logprobs", onnx.TensorProto.FLOAT, "batch", n_candidates)


class _GraphTail:
    """The frozen tail (tail.py) in the encoder's graph: where it begins, and what is taken.

    Whether it follows is in the length of the spectrogram (Tail.lengthened): nothing follows whole
    groups of positions, and the tail does where there is one more, which is dropped. Behind the
    tail is one entry more, which no score lets through: runtimes don't like empty tensors.
    """

    NOTHING = -1e4  # added to a score: exp of it is 0, and float16 holds it

    def __init__(self, graph: Graph, tail: Tail, x: str) -> None:
        """`x` is what the convolutions make of a window, shape = (1, n, width)."""
        self._graph, self._tail = graph, tail
        integers = graph.integers
        n = graph.op("Slice", graph.op("Shape", x), integers(1), integers(2), integers(0))
        # Simple enough for TensorRT to see how large all of it can get: with a Min in it, as much
        # scratch as there is was asked for.
        n_groups = len(tail.starts) - 1
        group = graph.op("Div", n, integers(GROUP))
        n_positions = graph.op("Mul", group, integers(GROUP))
        follows = graph.op("Sub", n, n_positions)
        rest = graph.op("Sub", group, integers(n_groups))
        group = graph.op("Add", integers(n_groups), graph.op("Mul", follows, rest))
        self._first = graph.op("Gather", graph.constant("tail/starts", tail.starts), group, axis=0)
        self.computed = graph.op("Slice", x, integers(0), n_positions, integers(1))
        """The positions of `x` that the tail follows."""
        zeros = graph.constant("tail/zeros", np.zeros(GROUP * n_groups, graph.numpy))
        scores = np.append(tail.log_counts, np.float32(self.NOTHING))
        self.bias = graph.op(
            "Concat",
            graph.op("Slice", zeros, integers(0), n_positions, integers(0)),
            self._end("tail/scores", scores, 0),
            axis=0,
            name="cross_bias",
        )
        """Added to the scores of all keys, shape = (n_ctx,)."""

    def after(self, k: str, v: str, layer: int) -> tuple[str, str]:
        """Return keys and values of a layer, shape = (1, n_head, n, 64), the tail's behind them."""
        name = f"encoder/layer_{layer}/self_attention/tail"
        keys, values = map(_heads, self._tail.encoder[layer])
        return self._joined(k, keys, 2, f"{name}_k"), self._joined(v, values, 2, f"{name}_v")

    def after_cross(self, k: str, v: str, layer: int) -> None:
        """Make cross_k and cross_v of a layer of the decoder.

        Of keys, shape = (1, n_head, 64, n), and values, shape = (1, n_head, n, 64).
        """
        name = f"decoder/layer_{layer}/attention/tail"
        keys, values = map(_heads, self._tail.cross[layer])
        keys = keys.transpose(0, 1, 3, 2)
        self._joined(k, keys, 3, f"{name}_k", f"cross_k_{layer}")
        self._joined(v, values, 2, f"{name}_v", f"cross_v_{layer}")

    def _joined(self, x: str, values: Floats, axis: int, name: str, output: str = "") -> str:
        return self._graph.op("Concat", x, self._end(name, values, axis), axis=axis, name=output)

    def _end(self, name: str, values: Floats, axis: int) -> str:
        """Return what a constant has from the tail's first entry on."""
        graph = self._graph
        constant = graph.constant(name, values.astype(graph.numpy))
        end = graph.integers(2**31 - 1)
        return graph.op("Slice", constant, self._first, end, graph.integers(axis))


def _heads(values: Floats) -> Floats:
    """(n_entries, width) -> (1, n_head, n_entries + 1, 64), the last of them zeros"""
    filled = np.pad(values, ((0, 1), (0, 0)))
    return filled.reshape(1, len(filled), -1, HEAD_WIDTH).transpose(0, 2, 1, 3)
