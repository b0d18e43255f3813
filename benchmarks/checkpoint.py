"""CTranslate2's model.bin: named arrays, read and written without CTranslate2.

Layout (little endian): binary version, name of the specification, its revision, the variables
(name, rank, dimensions, type, bytes, data), the aliases (name, variable). Strings are
length-prefixed and zero-terminated.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

VERSION = 6
TYPES = ("float32", "int8", "int16", "int32", "float16")  # bfloat16, number 5, numpy has not
MAX_VARIABLES = 100_000
MAX_RANK = 8

Array = npt.NDArray[np.generic]


class CheckpointError(ValueError):
    """The file is no model.bin, or is cut short."""


@dataclass(frozen=True)
class Checkpoint:
    """What a model.bin holds."""

    name: str
    revision: int
    variables: Mapping[str, Array]
    aliases: Mapping[str, str]

    def __getitem__(self, name: str) -> Array:
        return self.variables[self.aliases.get(name, name)]

    def weights(self, name: str) -> npt.NDArray[np.float32]:
        """A variable as float32; int8 rows are multiplied out by their scales."""
        stored = self[name]
        values: npt.NDArray[np.float32] = stored.astype(np.float32)
        if stored.dtype == np.int8:
            scale = self[f"{name}_scale"].astype(np.float32)
            values = values / scale.reshape(-1, *[1] * (values.ndim - 1))
        return values


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data, self._at = memoryview(data), 0

    def take(self, size: int) -> memoryview:
        if size > len(self._data) - self._at:
            raise CheckpointError(f"cut short: {size} bytes wanted at {self._at}")
        self._at += size
        return self._data[self._at - size : self._at]

    def number(self, kind: str) -> int:
        return int(struct.unpack("<" + kind, self.take(struct.calcsize(kind)))[0])

    def string(self) -> str:
        raw = bytes(self.take(self.number("H")))
        if not raw.endswith(b"\0"):
            raise CheckpointError("a string has no end")
        try:
            return raw[:-1].decode()
        except UnicodeDecodeError as error:
            raise CheckpointError("a name is not text") from error

    def count(self, what: str, limit: int) -> int:
        found = self.number("I")
        if found > limit:
            raise CheckpointError(f"{found} {what} are more than {limit}")
        return found

    def array(self) -> Array:
        rank = self.number("B")
        if rank > MAX_RANK:
            raise CheckpointError(f"{rank} dimensions are more than {MAX_RANK}")
        shape = [self.number("I") for _ in range(rank)]
        number = self.number("B")
        if number >= len(TYPES):
            raise CheckpointError(f"type {number} is not known")
        kind, size = np.dtype(TYPES[number]), self.number("I")
        wanted = kind.itemsize
        for length in shape:
            wanted *= length
        if size != wanted:
            raise CheckpointError(f"{size} bytes for {shape} of {kind}")
        return np.frombuffer(self.take(size), kind).reshape(shape)


def read(path: Path) -> Checkpoint:
    """Read a model.bin; raises CheckpointError for anything else."""
    reader = _Reader(path.read_bytes())
    version = reader.number("I")
    if version != VERSION:
        raise CheckpointError(f"binary version {version}, not {VERSION}")
    name, revision = reader.string(), reader.number("I")
    variables = {}
    for _ in range(reader.count("variables", MAX_VARIABLES)):
        variable = reader.string()
        variables[variable] = reader.array()
    aliases = {}
    for _ in range(reader.count("aliases", MAX_VARIABLES)):
        alias = reader.string()
        aliases[alias] = reader.string()
    return Checkpoint(name, revision, variables, aliases)
