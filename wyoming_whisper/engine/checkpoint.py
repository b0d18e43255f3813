"""CTranslate2's model.bin: named arrays, read without CTranslate2, and the Whisper that they are.

Layout (little endian): binary version, name of the specification, its revision, the variables
(name, rank, dimensions, type, bytes, data), the aliases (name, variable). Strings are
length-prefixed and zero-terminated.
"""

from __future__ import annotations

import math
import mmap
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import ModelBrokenError

HEAD_WIDTH = 64  # in every Whisper
CONV_WIDTH = 3
EMBEDDINGS = "decoder/embeddings/weight"
PROJECTION = "decoder/projection/weight"

Array = npt.NDArray[np.generic]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Checkpoint:
    """What a model.bin holds: views of the file, read from the disk when they are used."""

    VERSION = 6
    BFLOAT16 = np.dtype(np.uint16)
    QUANTIZED = (np.dtype(np.int8), np.dtype(np.int16))

    name: str
    revision: int
    variables: Mapping[str, Array]
    aliases: Mapping[str, str]
    path: Path
    version: int = VERSION

    @classmethod
    def read(cls, path: Path) -> Checkpoint:
        """Map a model.bin into memory and find what is in it. Raises ModelBrokenError."""
        max_variables = 100_000  # large-v3 has 1,300
        reader = _Reader(path, _mapped(path))
        version = reader.number("I")
        if not cls.VERSION <= version <= 100:  # later ones are CTranslate2's to read, if not ours
            raise reader.broken(f"has binary version {version}, not {cls.VERSION}")
        name, revision = reader.string(), reader.number("I")
        variables: dict[str, Array] = {}
        for _ in range(reader.count("variables", max_variables)):
            variable = reader.string()
            if variable in variables:
                raise reader.broken(f"has {variable!r} twice")
            variables[variable] = reader.array()
        aliases: dict[str, str] = {}
        for _ in range(reader.count("aliases", max_variables)):
            alias = reader.string()
            aliases[alias] = reader.string()
        return cls(name, revision, variables, aliases, path, version)

    def __contains__(self, name: str) -> bool:
        return self.resolved(name) in self.variables

    def __getitem__(self, name: str) -> Array:
        """Return a variable as it is stored. Raises ModelBrokenError where there is none."""
        try:
            return self.variables[self.resolved(name)]
        except KeyError:
            raise ModelBrokenError(f"{self.path} has no {name}: it is no Whisper model") from None

    def resolved(self, name: str) -> str:
        """Return the variable behind what may be an alias."""
        return self.aliases.get(name, name)

    @property
    def is_tied(self) -> bool:
        """Whether the embeddings are the output's weights too, as in every Whisper."""
        return self.resolved(PROJECTION) == self.resolved(EMBEDDINGS)

    def weights(self, name: str, rows: slice = slice(None)) -> npt.NDArray[np.float32]:
        """Return a variable, or some of its rows, as float32; integers are divided by their scales.

        Raises ModelBrokenError where it or its scales are missing or don't fit.
        """
        stored = self[name][rows]
        if stored.dtype == self.BFLOAT16:
            return (stored.astype(np.uint32) << 16).view(np.float32)
        values: npt.NDArray[np.float32] = stored.astype(np.float32)
        if stored.dtype in self.QUANTIZED:
            with np.errstate(over="ignore"):  # a damaged scale makes infinite weights, no warning
                values /= self._scale(name)[rows if stored.dtype == np.int8 else ...]
        return values

    def _scale(self, name: str) -> npt.NDArray[np.float32]:
        """Return one scale for all (int16) or one per row (int8), to divide what is stored by."""
        stored = self[name]
        name = f"{self.resolved(name)}_scale"
        scale = self[name]
        rows = stored.shape[:1] if stored.dtype == np.int8 else ()
        if scale.shape != rows or scale.dtype != np.float32:
            raise ModelBrokenError(f"{self.path}: {name} does not fit the weights it scales")
        values: npt.NDArray[np.float32] = scale.astype(np.float32)
        if not (np.isfinite(values).all() and values.all()):
            raise ModelBrokenError(f"{self.path}: {name} has zeros or values that are no numbers")
        return values.reshape(*rows, *[1] * (stored.ndim - len(rows)))


def _mapped(path: Path) -> memoryview:
    try:
        with path.open("rb") as file:
            if not file.seek(0, 2):  # an empty file can't be mapped
                raise ModelBrokenError(f"{path} is empty")
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise ModelBrokenError(f"{path} can't be read: {error.strerror or error}") from error


class _Reader:
    """Takes from the front; every length is compared with what is left before it is used."""

    TYPES = ("float32", "int8", "int16", "int32", "float16", "uint16")
    """By CTranslate2's number. The last is bfloat16, which numpy has not: its bits; nothing else in
    a model.bin is unsigned."""
    MAX_RANK = 8

    def __init__(self, path: Path, data: memoryview) -> None:
        self._path, self._data, self._at = path, data, 0

    def broken(self, what: str) -> ModelBrokenError:
        return ModelBrokenError(f"{self._path} {what}: it is no model.bin, or damaged")

    def take(self, size: int) -> memoryview:
        if size > len(self._data) - self._at:
            raise self.broken(f"is cut short ({size} bytes needed at {self._at})")
        self._at += size
        return self._data[self._at - size : self._at]

    def number(self, kind: str) -> int:
        return int(struct.unpack("<" + kind, self.take(struct.calcsize(kind)))[0])

    def string(self) -> str:
        raw = bytes(self.take(self.number("H")))
        if not raw.endswith(b"\0"):
            raise self.broken("has a string without an end")
        try:
            return raw[:-1].decode()
        except UnicodeDecodeError:
            raise self.broken("has a name that is not text") from None

    def count(self, what: str, limit: int) -> int:
        count = self.number("I")
        if count > limit:
            raise self.broken(f"has {count} {what}, more than {limit}")
        return count

    def array(self) -> Array:
        rank = self.number("B")
        if rank > self.MAX_RANK:
            raise self.broken(f"has {rank} dimensions, more than {self.MAX_RANK}")
        shape = [self.number("I") for _ in range(rank)]
        number = self.number("B")
        if number >= len(self.TYPES):
            raise self.broken(f"has the unknown type {number}")
        kind, size = np.dtype(self.TYPES[number]).newbyteorder("<"), self.number("I")
        if size != kind.itemsize * math.prod(shape) or not size:
            raise self.broken(f"has {size} bytes where {shape} of {kind} should be")
        return np.frombuffer(self.take(size), kind).reshape(shape)


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
