"""An ONNX graph as it is written, node by node; and where its weights go."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt
import onnx

from .checkpoint import CONV_WIDTH, HEAD_WIDTH, Checkpoint

Precision = Literal["float16", "float32"]
Progress = Callable[[float], None]
"""Told the share that is done, up to 1.0."""

Array = npt.NDArray[np.generic]


class Storage:
    """Where the weights of a graph go: the model's own file, or one beside it while it is open.

    Small constants, which shapes need, are always inside. `progress` is told how much of `n_bytes`
    of weights was read.
    """

    MAX_BYTES_INSIDE = 500_000_000
    """Python and the runtime's parser hold that several times over, which an 8 GB Jetson feels with
    medium; above 2 GiB protobuf refuses it."""
    SMALLEST = 1024  # bytes
    ALIGNMENT = 4096  # of tensors, so that a runtime can map them

    def __init__(self, n_bytes: int, progress: Progress | None) -> None:
        self._n_bytes, self._read, self._progress = n_bytes, 0, progress
        self._file: BinaryIO | None = None

    @contextlib.contextmanager
    def beside(self, path: Path) -> Iterator[None]:
        """Put the weights into a file of their own."""
        with path.open("wb") as self._file:
            yield
        self._file = None

    def count(self, n_bytes: int) -> None:
        """Say that so much was read."""
        self._read += n_bytes
        if self._progress:
            self._progress(min(self._read / self._n_bytes, 1.0))

    def tensor(self, name: str, values: Array) -> Any:
        """Return an onnx.TensorProto of these values."""
        if self._file is None or values.nbytes < self.SMALLEST:
            return onnx.numpy_helper.from_array(values, name)
        self._file.write(b"\0" * (-self._file.tell() % self.ALIGNMENT))
        tensor = onnx.TensorProto(
            name=name,
            dims=values.shape,
            data_type=onnx.helper.np_dtype_to_tensor_dtype(values.dtype),
            data_location=onnx.TensorProto.EXTERNAL,
        )
        place = {
            "location": Path(self._file.name).name,
            "offset": self._file.tell(),
            "length": values.nbytes,
        }
        for key, value in place.items():
            tensor.external_data.add(key=key, value=str(value))
        self._file.write(values.data)
        return tensor


class Graph:
    """Nodes and weights as they are added. Methods return the name of what they compute."""

    OPSET = 17
    IR_VERSION = 8
    LAYER_NORM_EPSILON = 1e-5
    SCALE = HEAD_WIDTH**-0.5  # of the queries; a power of two, so folding it into weights is exact

    def __init__(
        self,
        checkpoint: Checkpoint,
        precision: Precision,
        storage: Storage,
    ) -> None:
        self._checkpoint = checkpoint
        self._storage = storage
        self.numpy = np.dtype(precision)
        self._nodes: list[Any] = []
        self._initializers: dict[str, Any] = {}
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self.float = onnx.helper.np_dtype_to_tensor_dtype(self.numpy)
        self.tied = checkpoint.is_tied

    # inputs, outputs, constants

    def input(self, name: str, kind: int, *shape: int | str) -> str:
        self._inputs.append(onnx.helper.make_tensor_value_info(name, kind, shape))
        return name

    def output(self, name: str, kind: int, *shape: int | str) -> None:
        self._outputs.append(onnx.helper.make_tensor_value_info(name, kind, shape))

    def op(self, kind: str, *inputs: str, name: str = "", **attributes: object) -> str:
        """Add a node with one output, which gets `name` where one is given."""
        name = name or f"{kind}_{len(self._nodes)}"
        self._nodes.append(onnx.helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def ops(
        self, kind: str, inputs: list[str], outputs: int | list[str], **attributes: object
    ) -> list[str]:
        """Add a node with so many outputs, or with outputs of these names."""
        name = f"{kind}_{len(self._nodes)}"
        if isinstance(outputs, int):
            outputs = [f"{name}_{i}" for i in range(outputs)]
        self._nodes.append(onnx.helper.make_node(kind, inputs, outputs, name=name, **attributes))
        return outputs

    def split(self, x: str, axis: int, sizes: Sequence[int]) -> list[str]:
        return self.ops("Split", [x, self.integers(*sizes)], len(sizes), axis=axis)

    def constant(self, name: str, values: Array) -> str:
        """Add an initializer, once for each name."""
        if name not in self._initializers:
            values = np.ascontiguousarray(values).reshape(values.shape)
            self._initializers[name] = self._storage.tensor(name, values)
        return name

    def integers(self, *values: int) -> str:
        """Shapes, axes and sizes: these stay int64, as ONNX wants them; no data is made of them."""
        return self.constant("int_" + "_".join(map(str, values)), np.array(values, np.int64))

    def number(self, value: float) -> str:
        return self.constant(f"float_{value}", np.array(value, self.numpy))

    def model(self, name: str) -> Any:
        graph = onnx.helper.make_graph(
            self._nodes, name, self._inputs, self._outputs, list(self._initializers.values())
        )
        opset = onnx.helper.make_opsetid("", self.OPSET)
        return onnx.helper.make_model(
            graph,
            opset_imports=[opset],
            ir_version=self.IR_VERSION,
            producer_name="wyoming-whisper",
        )

    # weights

    def weights(
        self,
        name: str,
        change: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]] | None = None,
        kind: npt.DTypeLike | None = None,
    ) -> str:
        """Add a variable of the checkpoint, changed in float32 before it is rounded.

        Each name by itself: CTranslate2 makes aliases of all that is equal, a bias and the shift
        of a norm, say, which are of different precision here.
        """
        if name not in self._initializers:
            values = self._checkpoint.weights(name)
            values = change(values) if change else values
            self.constant(name, values.astype(kind or self.numpy))
            self._storage.count(values.size * self.numpy.itemsize)
        return name

    # layers

    def linear(self, x: str, name: str, scaled: int = 0) -> str:
        """Multiply `x` by a matrix and add its bias; SCALE goes into the first `scaled` columns."""

        def scale(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
            if scaled:
                values = values.copy()
                values[:scaled] *= np.float32(self.SCALE)
            return values.T

        weight = self.weights(f"{name}/weight", scale)
        return self.op("Add", self.op("MatMul", x, weight), self.weights(f"{name}/bias", scale))

    def layer_norm(self, x: str, name: str) -> str:
        """Normalise in float32, whatever the precision."""
        gamma = self.weights(f"{name}/gamma", kind=np.float32)
        beta = self.weights(f"{name}/beta", kind=np.float32)
        x = self.float32(x)
        normed = self.op(
            "LayerNormalization", x, gamma, beta, axis=-1, epsilon=self.LAYER_NORM_EPSILON
        )
        return self.narrow(normed)

    def float32(self, x: str, name: str = "") -> str:
        """Return `x` as float32."""
        if self.float == onnx.TensorProto.FLOAT:
            return x
        return self.op("Cast", x, to=onnx.TensorProto.FLOAT, name=name)

    def narrow(self, x: str) -> str:
        """Return float32 `x` in the graph's precision."""
        if self.float == onnx.TensorProto.FLOAT:
            return x
        return self.op("Cast", x, to=self.float)

    def gelu(self, x: str) -> str:
        # As PyTorch exports it: runtimes know this very sequence and make one kernel of it.
        erf = self.op("Erf", self.op("Div", x, self.number(math.sqrt(2.0))))
        product = self.op("Mul", x, self.op("Add", erf, self.number(1.0)))
        return self.op("Mul", product, self.number(0.5))

    def convolution(self, x: str, name: str, stride: int) -> str:
        weight, bias = self.weights(f"{name}/weight"), self.weights(f"{name}/bias")
        x = self.op(
            "Conv", x, weight, bias, kernel_shape=[CONV_WIDTH], pads=[1, 1], strides=[stride]
        )
        return self.gelu(x)

    def position_encodings(self, x: str) -> str:
        """Return those of the encoder for `x`, shape = (batch, n_ctx, width)."""
        encodings = self.weights("encoder/position_encodings/encodings")
        n_ctx = self.op(
            "Slice", self.op("Shape", x), self.integers(1), self.integers(2), self.integers(0)
        )
        return self.op("Slice", encodings, self.integers(0), n_ctx, self.integers(0))

    def feed_forward(self, x: str, name: str) -> str:
        y = self.linear(self.layer_norm(x, f"{name}/layer_norm"), f"{name}/linear_0")
        return self.op("Add", x, self.linear(self.gelu(y), f"{name}/linear_1"))

    def heads(self, x: str, n_head: int) -> str:
        """(batch, n, n_head * 64) -> (batch, n_head, n, 64)"""
        x = self.op("Reshape", x, self.integers(0, -1, n_head, HEAD_WIDTH))
        return self.op("Transpose", x, perm=[0, 2, 1, 3])

    def merged(self, x: str, width: int) -> str:
        """(batch, n_head, n, 64) -> (batch, n, width)"""
        x = self.op("Transpose", x, perm=[0, 2, 1, 3])
        return self.op("Reshape", x, self.integers(0, -1, width))

    def attention(self, scores: str, values: str) -> str:
        return self.op("MatMul", self.op("Softmax", scores, axis=-1), values)
