"""A plan that is loaded, and its contexts: shapes and addresses in, one run queued."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import EngineBrokenError, EngineError
from ..checkpoint import HEAD_WIDTH
from .cuda import DeviceBuffer, Stream
from .library import Kernels, tensorrt_log
from .memory import Addresses
from .plan import PlanFacts, Shapes


class Engine:
    """A plan that is loaded. Raises EngineBrokenError and EngineError."""

    def __init__(self, trt: Any, path: Path, kernels: Kernels) -> None:
        self.trt = trt
        self.path = path
        self._kernels = kernels
        self.log = tensorrt_log(trt)
        self.log.errors.clear()
        self._engine: Any = None
        try:
            # Without a copy: a plan may be half of a Jetson's memory.
            with (
                path.open("rb") as file,
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as plan,
            ):
                self.n_bytes = len(plan)
                runtime = trt.Runtime(self.log)
                kernels.check_plan(runtime, plan, path)
                self._engine = runtime.deserialize_cuda_engine(plan)
        except (OSError, ValueError) as error:
            raise EngineBrokenError(f"{path} can't be read: {error}") from error
        except (RuntimeError, TypeError) as error:
            raise EngineError(f"TensorRT doesn't start: {error}") from error
        if self._engine is None:
            raise self._unread()
        self.names = [
            self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)
        ]
        self.scratch_bytes = _scratch_bytes(self._engine)

    def _unread(self) -> Exception:
        reason = self.complaint()
        if any(word in reason.lower() for word in ("memory", "cudaerror")):  # it may well be whole
            return EngineError(f"TensorRT can't load {self.path.name}: {reason}")
        return EngineBrokenError(f"{self.path} is no engine for this TensorRT and GPU: {reason}")

    def complaint(self) -> str:
        """Return TensorRT's last complaint."""
        return self.log.errors[-1] if self.log.errors else "it does not say why"

    def check_encoder(self, facts: PlanFacts) -> None:
        """Raise EngineBrokenError unless the plan is the encoder that `engine.json` tells of.

        The memory is laid out by what that says: what differs from it would be overrun.
        """
        mel = _Tensor(True, "FLOAT", (-1, facts.n_mels, -1))
        self._check({"mel": mel, **_cross_tensors(facts, False)}, len(facts.n_frames))

    def check_decoder(self, facts: PlanFacts) -> None:
        """Raise EngineBrokenError unless the plan is the decoder that `engine.json` tells of."""
        self._check(_decoder_tensors(facts), len(facts.profiles))

    def _check(self, tensors: dict[str, _Tensor], n_profiles: int) -> None:
        wrong = sorted(set(self.names) ^ set(tensors))
        if not wrong:
            wrong = [name for name in self.names if not self._is(name, tensors[name])]
        if wrong or self._engine.num_optimization_profiles != n_profiles:
            what = ", ".join(wrong[:3]) or "its number of profiles"
            raise EngineBrokenError(
                f"{self.path} is not what {PlanFacts.FILE} says: {what} differs"
            )

    # No local names for TensorRT's objects: an error's traceback would keep them, and their memory.

    def _is(self, name: str, tensor: _Tensor) -> bool:
        is_input = self._engine.get_tensor_mode(name) == self.trt.TensorIOMode.INPUT
        return (
            is_input == tensor.is_input
            and self._engine.get_tensor_dtype(name) == getattr(self.trt.DataType, tensor.dtype)
            and tensor.allows(tuple(self._engine.get_tensor_shape(name)))
        )

    def context(self, *, is_step: bool = False, is_special: bool = True) -> Any:
        """Return a context of `Kernels`. Raises EngineError."""
        self.log.errors.clear()
        context = self._kernels.context(self._engine, is_step=is_step, is_special=is_special)
        if context is None:
            raise EngineError(f"TensorRT can't prepare {self.path.name}: {self.complaint()}")
        return context

    def close(self) -> None:
        self._engine = None


def _scratch_bytes(engine: Any) -> int:
    if hasattr(engine, "device_memory_size_v2"):
        return int(engine.device_memory_size_v2)
    return int(engine.device_memory_size)


class Context:
    """One profile of an engine, to be run with shapes and addresses.

    All contexts share the scratch memory, as they run one after another in one stream.
    """

    def __init__(
        self,
        engine: Engine,
        profile: int,
        scratch: DeviceBuffer,
        stream: Stream,
        *,
        is_step: bool = False,
        is_special: bool = True,
    ) -> None:
        self._engine = engine
        self._stream = stream
        self._shapes: Shapes = {}
        self._addresses: Addresses = {}
        self._context: Any = engine.context(is_step=is_step, is_special=is_special)
        if not self._take(profile):
            self.close()
            raise EngineError(f"TensorRT refuses profile {profile}: {engine.complaint()}")
        if hasattr(self._context, "set_device_memory"):
            self._context.set_device_memory(scratch.handle, scratch.n_bytes)
        else:
            self._context.device_memory = scratch.handle

    def _take(self, profile: int) -> bool:
        try:
            return bool(self._context.set_optimization_profile_async(profile, self._stream.handle))
        except RuntimeError:  # which the bindings make of False
            return False

    def run(self, shapes: Shapes, addresses: Addresses) -> None:
        """Queue one run; what the engine has no tensor for is passed over. Raises EngineError."""
        self.bind(shapes, addresses)
        self.repeat()

    def bind(self, shapes: Shapes, addresses: Addresses) -> None:
        """Say what the next run takes. Raises EngineError."""
        self._engine.log.errors.clear()
        for name in self._engine.names:
            shape, address = shapes.get(name), addresses[name]
            if shape and self._shapes.get(name) != shape:
                self._shapes[name] = shape
                self._ensure(self._context.set_input_shape(name, shape), f"{name} of {shape}")
            if self._addresses.get(name) != address:
                self._addresses[name] = address
                self._ensure(
                    self._context.set_tensor_address(name, address), f"the place of {name}"
                )

    def repeat(self) -> None:
        """Queue one more run of what was bound last. Raises EngineError."""
        self._ensure(self._context.execute_async_v3(self._stream.handle), "to run")

    def _ensure(self, done: bool, what: str) -> None:
        if not done:
            self._shapes.clear()
            self._addresses.clear()
            name, reason = self._engine.path.name, self._engine.complaint()
            raise EngineError(f"TensorRT refuses {what} ({name}): {reason}")

    def close(self) -> None:
        self._context = None


@dataclass(frozen=True)
class _Tensor:
    """An input or output as it should be; -1 is a length that varies."""

    is_input: bool
    dtype: str
    shape: tuple[int, ...]

    def allows(self, shape: tuple[int, ...]) -> bool:
        """Return whether an engine's shape fits; it may know less or more of what varies."""
        return len(shape) == len(self.shape) and all(
            mine in (-1, its) or its == -1 for mine, its in zip(self.shape, shape, strict=True)
        )


def _cross_tensors(facts: PlanFacts, is_input: bool) -> dict[str, _Tensor]:
    kind, n_head = facts.dtype_name, facts.n_text_head
    tensors = {}
    for i in range(facts.n_text_layer):
        tensors[f"cross_k_{i}"] = _Tensor(is_input, kind, (-1, n_head, HEAD_WIDTH, -1))
        tensors[f"cross_v_{i}"] = _Tensor(is_input, kind, (-1, n_head, -1, HEAD_WIDTH))
    if facts.has_tail:
        tensors["cross_bias"] = _Tensor(is_input, kind, (-1,))
    return tensors


def _decoder_tensors(facts: PlanFacts) -> dict[str, _Tensor]:
    row = (-1, facts.n_text_head, -1, HEAD_WIDTH)
    selves = [f"self_{part}_{i}" for i in range(facts.n_text_layer) for part in "kv"]
    tensors = {
        "tokens": _Tensor(True, "INT32", (-1, -1)),
        "positions": _Tensor(True, "INT32", (-1,)),
        "slots": _Tensor(True, "INT32", (-1,)),
        "logit_bias": _Tensor(True, "FLOAT", (facts.n_vocab,)),
        **{name: _Tensor(True, facts.dtype_name, row) for name in selves},
        **_cross_tensors(facts, True),
        **{f"new_{name}": _Tensor(False, facts.dtype_name, row) for name in selves},
        "next_tokens": _Tensor(False, "INT32", (-1, 1)),
        "next_positions": _Tensor(False, "INT32", (1,)),
        "logprobs": _Tensor(False, "FLOAT", (-1, 1)),
        "logits": _Tensor(False, "FLOAT", (-1, facts.n_vocab)),
    }
    if facts.n_candidates:
        tensors["parents"] = _Tensor(True, "INT32", (-1,))
        tensors["candidates"] = _Tensor(False, "INT32", (-1, facts.n_candidates))
        tensors["candidate_logprobs"] = _Tensor(False, "FLOAT", (-1, facts.n_candidates))
    return tensors
