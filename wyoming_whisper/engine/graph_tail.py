"""The frozen tail (tail.py) in the encoder's graph of `graphs`.

Whether it follows, and where it begins, is in the length of the spectrogram (session.lengthened):
nothing follows whole groups of positions, and the tail does where there is one more, which is
dropped.
"""

from __future__ import annotations

import numpy as np

from .checkpoint import HEAD_WIDTH
from .onnx_graph import Graph
from .tail import GROUP, Floats, Tail


class GraphTail:
    """Where the tail begins for a window, and what is taken of it.

    Behind the tail is one entry more, which no score lets through: runtimes don't like empty
    tensors.
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
