"""What an engine's folder holds: two plans, and `engine.json`, which says what they can do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ...errors import EngineBrokenError
from .library import LIBRARIES


@dataclass(frozen=True)
class Profile:
    """What one optimization profile of the decoder takes; both ends are included."""

    name: str
    batch: tuple[int, int]
    n_tokens: tuple[int, int]

    def takes(self, batch: int, n_tokens: int) -> bool:
        """Return whether tokens of this shape are within it."""
        return (
            self.batch[0] <= batch <= self.batch[1]
            and self.n_tokens[0] <= n_tokens <= self.n_tokens[1]
        )


@dataclass(frozen=True)
class PlanFacts:
    """What `engine.json` says of the two plans beside it."""

    FILE = "engine.json"
    ENCODER_PLAN = "encoder.plan"
    DECODER_PLAN = "decoder.plan"
    MAX_PREFILL_TOKENS = 64  # in one call of the decoder; longer prompts take several

    runtime: str
    """What runs the plans."""
    n_mels: int
    n_vocab: int
    n_text_ctx: int
    """Slots of the longest cache."""
    n_text_head: int
    n_text_layer: int
    beam_size: int
    """1: greedy search only."""
    max_batch: int
    precision: str
    """Of weights and caches: float16 or float32."""
    n_frames: tuple[tuple[int, int], ...]
    """The lengths of mel that each of the encoder's profiles takes; both ends are included."""
    profiles: tuple[Profile, ...]
    """The decoder's, in the order in which it was built with them."""

    def to_json(self) -> str:
        """Return the text of `engine.json`."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> PlanFacts:
        """Return what `to_json` wrote. Raises ValueError for anything else."""
        try:
            facts = json.loads(text)
            lengths = tuple(_range(length) for length in facts.pop("n_frames"))
            profiles = tuple(
                Profile(str(p["name"]), _range(p["batch"]), _range(p["n_tokens"]))
                for p in facts.pop("profiles")
            )
            runtime, precision = str(facts.pop("runtime")), str(facts.pop("precision"))
            numbers = {name: _number(value) for name, value in facts.items()}
            plans = cls(
                runtime=runtime, precision=precision, n_frames=lengths, profiles=profiles, **numbers
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"it does not say what the plans are ({error!r})") from error
        if precision not in ("float16", "float32") or not lengths or not profiles:
            raise ValueError(f"it names no profiles, or an unknown precision: {precision}")
        if runtime not in LIBRARIES:
            raise ValueError(f"it is for an unknown runtime: {runtime}")
        return plans

    @classmethod
    def read(cls, folder: Path, max_bytes: int = 1 << 20) -> PlanFacts:
        """Return what an engine's folder says of itself. Raises EngineBrokenError."""
        path = folder / cls.FILE
        try:
            with path.open(encoding="utf-8") as file:
                return cls.from_json(file.read(max_bytes))
        except (OSError, ValueError) as error:
            raise EngineBrokenError(f"{path} can't be read: {error}") from error

    @property
    def n_audio_ctx(self) -> int:
        """Positions of the longest window."""
        return max(last for _, last in self.n_frames) // 2

    @property
    def n_candidates(self) -> int:
        """What the decoder offers beam search at each step."""
        return 2 * self.beam_size if self.beam_size > 1 else 0

    @property
    def itemsize(self) -> int:
        """Bytes of one number of a cache."""
        return np.dtype(self.precision).itemsize

    @property
    def dtype_name(self) -> str:
        """TensorRT's name for `precision`."""
        return "HALF" if self.precision == "float16" else "FLOAT"


def _number(value: object) -> int:
    if not isinstance(value, int) or not 0 < value < 1 << 24:
        raise ValueError(f"{value!r} is no count")
    return value


def _range(ends: Sequence[object]) -> tuple[int, int]:
    first, last = ends
    return _number(first), _number(last)
