"""Whisper as two ONNX graphs for onnxruntime's CPU provider: small steps made large, in integers.

Like `graphs`, but for one runtime, and with its own operators (com.microsoft, docs/
ContribOperators.md of onnxruntime): attention with its cache, products of integers. Weights have
one scale for each output, activations one for each position, as in CTranslate2. onnxruntime's
DynamicQuantizeMatMul knows only one for all activations, and a single loud one then leaves few of
the 256 steps to the others; so positions are divided by their largest activation before it, and
multiplied after it. onnxruntime packs the weights once, CTranslate2's oneDNN at every token.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx

from .checkpoint import (
    EMBEDDINGS,
    HEAD_WIDTH,
    PROJECTION,
    Checkpoint,
    Dims,
    Shape,
)
from .onnx_graph import Graph, Progress, Storage
from .tail import Floats, Tail

Arithmetic = Literal["int8", "uint8", "float32"]
"""What weights are stored and multiplied in.

uint8 is int8 for processors that add two products of int8 in 16 bits, and are silent when they
don't fit (x86 without VNNI): onnxruntime takes a longer, exact way for it."""


def write_cpu_graphs(
    checkpoint: Checkpoint,
    folder: Path,
    arithmetic: Arithmetic,
    progress: Progress | None = None,
) -> None:
    """Write encoder.onnx and decoder.onnx into `folder`, the weights of each in a file beside it.

    One decoder does for any beam. One weight after the other is in memory. Raises ModelBrokenError,
    and OSError when the disk is full; the files are then of no use.
    """
    dims = Dims.of(checkpoint)
    n_weights = dims.int8_bytes  # one each
    storage = Storage(n_weights * np.dtype(np.float32).itemsize, progress)
    tail = Tail.frozen(checkpoint, dims)
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("encoder", "decoder"):
        with storage.beside(folder / f"{name}.onnx.data"):
            graph = _CpuGraph(checkpoint, arithmetic, storage)
            model = _encoder(graph, dims, tail) if name == "encoder" else _decoder(graph, dims)
        (folder / f"{name}.onnx").write_bytes(model.SerializeToString())


@dataclass(frozen=True)
class _Smoothing:
    """What a norm leaves to the product after it, for each of its inputs: shape = (width,)."""

    gain: Floats
    shift: Floats


class _CpuGraph(Graph):
    """A graph whose products are of integers, and whose attention is one operator."""

    CONTRIBUTED = "com.microsoft"
    LARGEST = 127  # of int8 that has no lonely -128
    MIDDLE = 128  # of uint8: what stands for 0
    ROWS = 4096  # of a matrix at once: the embeddings in float32 take more than all the rest
    QUIETEST = 1e-6  # what a position without any activation is divided by
    NO_SMOOTHING = _Smoothing(np.ones(1, np.float32), np.zeros(1, np.float32))

    def __init__(self, checkpoint: Checkpoint, arithmetic: Arithmetic, storage: Storage) -> None:
        super().__init__(checkpoint, "float32", storage)
        self._arithmetic = arithmetic
        self._smoothings: dict[str, _Smoothing] = {}

    def model(self, name: str) -> Any:
        model = super().model(name)
        model.opset_import.append(onnx.helper.make_opsetid(self.CONTRIBUTED, 1))
        return model

    def layer_norm(self, x: str, name: str) -> str:
        """Normalise, so that what the next product rounds to integers is as even as can be.

        The shift, the same for every position, goes to the bias of that product instead, and the
        square root of the gain to its columns (https://arxiv.org/abs/2211.10438 smooths like this
        with activations that it has seen; here the weights alone say what will be loud).
        """
        weight = f"{name.removesuffix('layer_norm')}linear_0/weight"
        if self._arithmetic == "float32" or weight not in self._checkpoint:
            return super().layer_norm(x, name)
        gamma, beta = (self._read(f"{name}/{part}") for part in ("gamma", "beta"))
        root = np.sqrt(np.maximum(np.abs(gamma), np.finfo(np.float32).tiny))
        if self._checkpoint[weight].dtype == np.int8:  # rounded once is enough
            root = np.ones_like(root)
        self._smoothings[weight] = _Smoothing(root, beta)
        gain = self.constant(f"{name}/gamma", gamma / root)
        return self.op("LayerNormalization", x, gain, axis=-1, epsilon=self.LAYER_NORM_EPSILON)

    def linear(self, x: str, name: str, scaled: int = 0) -> str:
        """Multiply `x` by a matrix and add its bias. onnxruntime's attention scales the queries."""
        if scaled:
            raise ValueError("onnxruntime's attention scales the queries")
        return self._product(x, f"{name}/weight", f"{name}/weight", f"{name}/bias")

    def repeated(self, x: str, n_repeats: str, width: int) -> str:
        """Return `x`, shape = (1, n, width), with so many more of the third position from its end.

        The last one sees the window's end, and the one before is kept apart for good measure.
        """
        at, axis = self.integers(-2), self.integers(1)
        begun = self.op("Slice", x, self.integers(0), at, axis)
        ended = self.op("Slice", x, at, self.integers(2**31 - 1), axis)
        one = self.op("Slice", x, self.integers(-3), at, axis)
        shape = self.op("Concat", self.integers(1), n_repeats, self.integers(width), axis=0)
        return self.op("Concat", begun, self.op("Expand", one, shape), ended, axis=1)

    def embedded(self, tokens: str) -> str:
        """Return the embeddings of tokens, shape = (batch, n_tokens, width)."""
        if self._arithmetic == "float32":
            return self.op("Gather", self.weights(EMBEDDINGS), tokens, axis=0)
        rows, scales, _ = self._int8(EMBEDDINGS)
        row = self.op("Gather", self.constant(EMBEDDINGS, rows), tokens, axis=0)
        scale = self.constant(f"{EMBEDDINGS}/scales", scales[:, np.newaxis])
        scale = self.op("Gather", scale, tokens, axis=0)
        return self.op("Mul", self.op("Cast", row, to=onnx.TensorProto.FLOAT), scale)

    def projected(self, x: str, name: str) -> str:
        """Return logits of `x`, shape = (batch, n, width)."""
        return self._product(x, EMBEDDINGS if self.tied else PROJECTION, PROJECTION, name=name)

    def gelu(self, x: str) -> str:
        return self.op("Gelu", x, domain=self.CONTRIBUTED)

    def attend_with_tail(self, q: str, k: str, v: str, tail: tuple[str, str], n_head: int) -> str:
        """Return softmax(q k' / 8) v, shape = (1, n, width), of queries of that shape.

        So have keys and values; those of the tail are added to them. What the scores of these need
        is in the keys: heads are one wider there. As a bias it would be as large as all scores,
        which are never in memory at once.
        """
        queries = self._widened(q, n_head, 1 / self.SCALE)
        keys = self.op("Concat", self._widened(k, n_head, 0.0), tail[0], axis=1)
        values = self.op("Concat", v, tail[1], axis=1)
        return self.op(
            "MultiHeadAttention",
            *(queries, keys, values),
            num_heads=n_head,
            scale=self.SCALE,
            domain=self.CONTRIBUTED,
        )

    def _widened(self, x: str, n_head: int, value: float) -> str:
        """Return `x`, shape = (1, n, n_head * 64), with `value` after each head."""
        x = self.op("Reshape", x, self.integers(0, 0, n_head, HEAD_WIDTH))
        x = self.op("Pad", x, self.integers(*[0] * 7, 1), self.number(value))
        return self.op("Reshape", x, self.integers(0, 0, n_head * (HEAD_WIDTH + 1)))

    def tail_of(self, name: str, values: Floats, first: str, axis: int) -> str:
        """Return what `values`, a constant of this name, has from `first` on."""
        end = self.integers(2**31 - 1)
        return self.op("Slice", self.constant(name, values), first, end, self.integers(axis))

    def _product(self, x: str, weight: str, stored: str, bias: str = "", name: str = "") -> str:
        """Multiply by `weight` of the checkpoint, shape = (outputs, inputs), called `stored`."""
        if self._arithmetic == "float32":
            matrix = self.constant(f"{stored}/columns", self._read(weight).T)
            product = self.op("MatMul", x, matrix, name="" if bias else name)
            return self.op("Add", product, self.weights(bias), name=name) if bias else product
        rows, scales, shift = self._int8(weight)
        zeros = []
        if self._arithmetic == "uint8":
            rows = (rows.astype(np.int16) + self.MIDDLE).astype(np.uint8)
            zeros = [self.constant(f"{stored}/zeros", np.full(len(rows), self.MIDDLE, np.uint8))]
        matrix = self.constant(f"{stored}/columns", rows.T)
        columns = [matrix, self.constant(f"{stored}/scales", scales), *zeros]
        largest = self.op("ReduceMax", self.op("Abs", x), axes=[-1], keepdims=1)
        largest = self.op("Max", largest, self.number(self.QUIETEST))
        even = self.op("Div", x, largest)
        product = self.op("DynamicQuantizeMatMul", even, *columns, domain=self.CONTRIBUTED)
        product = self.op("Mul", product, largest, name="" if bias else name)
        if not bias:
            return product
        return self.op("Add", product, self.constant(bias, self._read(bias) + shift), name=name)

    def _int8(self, name: str) -> tuple[npt.NDArray[Any], Floats, Floats]:
        """Return a matrix as int8, what each of its rows is to be multiplied by, and what each of
        them makes of the shift of the norm before it.
        """
        shape = self._checkpoint[name].shape
        smoothing = self._smoothings.get(name, self.NO_SMOOTHING)
        matrix = np.empty(shape, np.int8)
        scales, shift = np.empty(shape[0], np.float32), np.empty(shape[0], np.float32)
        for start in range(0, shape[0], self.ROWS):
            rows = slice(start, start + self.ROWS)
            values = self._read(name, rows)
            shift[rows] = (values * smoothing.shift).sum(axis=1)
            values = values * smoothing.gain
            scale = np.abs(values).max(axis=1) / np.float32(self.LARGEST)
            scale[scale == 0] = 1
            scales[rows], matrix[rows] = scale, np.rint(values / scale[:, np.newaxis])
        return matrix, scales, shift

    def _read(self, name: str, rows: slice = slice(None)) -> Floats:
        values = self._checkpoint.weights(name, rows)
        self._storage.count(values.nbytes)
        return values


def _encoder(g: _CpuGraph, dims: Dims, tail: Tail) -> Any:
    """mel, shape = (1, n_mels, n_frames), without n_repeats of the positions that its silent end
    has -> for every layer of the decoder cross_k_i and cross_v_i, shape = (1, n_head, n_ctx, 64),
    of the first n_positions and of the tail from group tail_from on; and cross_bias, shape =
    (n_ctx,), which the scores of these need.
    """
    width = dims.n_audio_state
    mel = g.input("mel", onnx.TensorProto.FLOAT, 1, dims.n_mels, "n_frames")
    n_repeats = g.input("n_repeats", onnx.TensorProto.INT64, 1)
    n_positions = g.input("n_positions", onnx.TensorProto.INT64, 1)
    tail_from = g.input("tail_from", onnx.TensorProto.INT64, 1)
    first = g.op("Gather", g.constant("tail/starts", tail.starts), tail_from, axis=0)
    x = g.convolution(mel, "encoder/conv1", 1)
    x = g.op("Transpose", g.convolution(x, "encoder/conv2", 2), perm=[0, 2, 1])
    x = g.repeated(x, n_repeats, width)
    x = g.op("Slice", x, g.integers(0), n_positions, g.integers(1))
    x = g.op("Add", x, g.position_encodings(x))
    for i in range(dims.n_audio_layer):
        name = f"encoder/layer_{i}/self_attention"
        y = g.linear(g.layer_norm(x, f"{name}/layer_norm"), f"{name}/linear_0")
        q, k, v = g.split(y, 2, [width] * 3)
        keys = _with_counts(tail, tail.encoder[i][0])
        pair = (
            g.tail_of(f"{name}/tail_k", keys, first, 1),
            g.tail_of(f"{name}/tail_v", tail.encoder[i][1][np.newaxis], first, 1),
        )
        y = g.attend_with_tail(q, k, v, pair, dims.n_audio_head)
        x = g.op("Add", x, g.linear(y, f"{name}/linear_1"))
        x = g.feed_forward(x, f"encoder/layer_{i}/ffn")
    x = g.layer_norm(x, "encoder/layer_norm")
    for i in range(dims.n_text_layer):
        _cross_keys_and_values(g, x, i, dims, tail, first)
    zeros = g.op("Expand", g.number(0.0), n_positions)
    log_counts = g.tail_of("tail/log_counts", tail.log_counts, first, 0)
    g.op("Concat", zeros, log_counts, axis=0, name="cross_bias")
    g.output("cross_bias", onnx.TensorProto.FLOAT, "n_ctx")
    return g.model("encoder")


def _cross_keys_and_values(
    g: _CpuGraph, x: str, i: int, dims: Dims, tail: Tail, first: str
) -> None:
    """Add the outputs cross_k_i and cross_v_i: of `x`, and of the tail from entry `first` on."""
    width, n_head = dims.n_text_state, dims.n_text_head
    both = g.linear(x, f"decoder/layer_{i}/attention/linear_1")
    parts = g.split(both, 2, [width] * 2)
    for letter, y, silent in zip("kv", parts, tail.cross[i], strict=True):
        y = g.op("Reshape", y, g.integers(0, -1, n_head, HEAD_WIDTH))
        y = g.op("Transpose", y, perm=[0, 2, 1, 3])
        heads = silent.reshape(1, -1, n_head, HEAD_WIDTH).transpose(0, 2, 1, 3)
        end = g.tail_of(f"decoder/layer_{i}/attention/tail_{letter}", heads, first, 2)
        g.op("Concat", y, end, axis=2, name=f"cross_{letter}_{i}")
        shape: Shape | tuple[Any, ...] = (1, n_head, "n_ctx", HEAD_WIDTH)
        g.output(f"cross_{letter}_{i}", onnx.TensorProto.FLOAT, *shape)


def _with_counts(tail: Tail, keys: Floats) -> Floats:
    """Return keys, shape = (1, n_entries, n_head * 65), each head's with its part of the score."""
    heads = keys.reshape(len(keys), -1, HEAD_WIDTH)
    last = np.broadcast_to(tail.log_counts[:, np.newaxis, np.newaxis], (*heads.shape[:2], 1))
    return np.concatenate([heads, last], axis=2).reshape(1, len(keys), -1)


def _decoder(g: _CpuGraph, dims: Dims) -> Any:
    """tokens, shape = (batch, n_tokens), at `positions`; what self_k_i and self_v_i, shape =
    (rows, n_head, n_past, 64), hold of the row that `parents` names for each -> logits after the
    `wanted` tokens, shape = (batch, n_wanted, n_vocab); with logit_bias, after the last of these
    the n_candidates likeliest tokens, best first, and their log-probabilities; new_self_k_i and
    new_self_v_i, the tokens' own among them; cross_q_i, shape = (1, batch * n_tokens, width), the
    queries to the audio, for who wants to know what the tokens attend to.
    """
    int32 = onnx.TensorProto.INT32
    tokens = g.input("tokens", int32, "batch", "n_tokens")
    positions = g.input("positions", int32, "n_tokens")
    parents = g.input("parents", int32, "batch")
    bias = g.input("logit_bias", onnx.TensorProto.FLOAT, dims.n_vocab)
    wanted = g.input("wanted", onnx.TensorProto.INT64, "n_wanted")
    n_candidates = g.input("n_candidates", onnx.TensorProto.INT64, 1)
    encodings = g.weights("decoder/position_encodings/encodings")
    x = g.op("Add", g.embedded(tokens), g.op("Gather", encodings, positions, axis=0))
    shape = g.op("Concat", g.op("Shape", tokens), g.integers(dims.n_text_state), axis=0)
    cross_bias = g.input("cross_bias", onnx.TensorProto.FLOAT, "n_ctx")  # for each head and token
    n_queries = g.op("ReduceProd", g.op("Shape", tokens), axes=[0], keepdims=1)
    bias_shape = g.op("Concat", g.integers(1, dims.n_text_head), n_queries, g.integers(1), axis=0)
    cross_bias = g.op("Expand", g.op("Reshape", cross_bias, g.integers(1, 1, 1, -1)), bias_shape)
    for i in range(dims.n_text_layer):
        x = _self_attention(g, x, i, dims, parents)
        x = _cross_attention(g, x, i, dims, shape, cross_bias)
        x = g.feed_forward(x, f"decoder/layer_{i}/ffn")
    x = g.layer_norm(g.op("Gather", x, wanted, axis=1), "decoder/layer_norm")
    logits = g.projected(x, "logits")
    g.output(logits, onnx.TensorProto.FLOAT, "batch", "n_wanted", dims.n_vocab)
    last = g.op("Slice", logits, g.integers(-1), g.integers(2**31 - 1), g.integers(1))
    last = g.op("Reshape", last, g.integers(-1, dims.n_vocab))
    logprobs = g.op("LogSoftmax", g.op("Add", last, bias), axis=-1)
    best, chosen = g.ops("TopK", [logprobs, n_candidates], ["candidate_logprobs", "chosen"])
    chosen = g.op("Cast", chosen, to=int32, name="candidates")
    g.output(best, onnx.TensorProto.FLOAT, "batch", "n_candidates")
    g.output(chosen, int32, "batch", "n_candidates")
    return g.model("decoder")


def _self_attention(g: _CpuGraph, x: str, i: int, dims: Dims, parents: str) -> str:
    name = f"decoder/layer_{i}/self_attention"
    y = g.linear(g.layer_norm(x, f"{name}/layer_norm"), f"{name}/linear_0")
    q, k, v = g.split(y, 2, [dims.n_text_state] * 3)
    past, present = [], []
    for letter in "kv":
        shape = (dims.n_text_head, "n_past", HEAD_WIDTH)
        rows = g.input(f"self_{letter}_{i}", onnx.TensorProto.FLOAT, "rows", *shape)
        past.append(g.op("Gather", rows, parents, axis=0))
        present.append(f"new_self_{letter}_{i}")
        shape = (dims.n_text_head, "n_present", HEAD_WIDTH)
        g.output(present[-1], onnx.TensorProto.FLOAT, "batch", *shape)
    # Over the past, to which `k` and `v` are added; no token sees those after it.
    y, *_ = g.ops(
        "MultiHeadAttention",
        [q, k, v, "", "", "", *past],
        [f"{present[0]}_attention", *present],
        num_heads=dims.n_text_head,
        unidirectional=1,
        domain=g.CONTRIBUTED,
    )
    return g.op("Add", x, g.linear(y, f"{name}/linear_1"))


def _cross_attention(g: _CpuGraph, x: str, i: int, dims: Dims, shape: str, bias: str) -> str:
    """Attend to the audio: all tokens of all rows stand in one row, so that its keys are read once.

    `shape` is (batch, n_tokens, width).
    """
    name = f"decoder/layer_{i}/attention"
    q = g.linear(g.layer_norm(x, f"{name}/layer_norm"), f"{name}/linear_0")
    q = g.op("Reshape", q, g.integers(1, -1, dims.n_text_state), name=f"cross_q_{i}")
    g.output(q, onnx.TensorProto.FLOAT, 1, "n_queries", dims.n_text_state)
    audio = (1, dims.n_text_head, "n_ctx", HEAD_WIDTH)
    keys, values = (
        g.input(f"cross_{letter}_{i}", onnx.TensorProto.FLOAT, *audio) for letter in "kv"
    )
    inputs = (q, keys, values, "", "", bias)
    y = g.op("MultiHeadAttention", *inputs, num_heads=dims.n_text_head, domain=g.CONTRIBUTED)
    y = g.op("Reshape", y, shape)
    return g.op("Add", x, g.linear(y, f"{name}/linear_2"))
