"""What an engine's folder holds: two plans, and `engine.json`, which says what they can do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ...errors import EngineBrokenError
from ...whisper.audio import FRAMES_PER_POSITION
from ..checkpoint import HEAD_WIDTH
from ..tail import GROUP, Tail
from .library import LIBRARIES

Shapes = dict[str, tuple[int, ...]]


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
    tail_starts: tuple[int, ...] = ()
    """Of the frozen tail (Tail.starts); empty where the graphs have none."""

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
            starts = _tail_starts(facts.pop("tail_starts"))
            runtime, precision = str(facts.pop("runtime")), str(facts.pop("precision"))
            numbers = {name: _number(value) for name, value in facts.items()}
            plans = cls(
                runtime=runtime,
                precision=precision,
                n_frames=lengths,
                profiles=profiles,
                tail_starts=starts,
                **numbers,
            )
            _check_tail(plans.tail_starts, plans.n_audio_ctx)
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
    def has_tail(self) -> bool:
        """Whether the graphs have the frozen tail."""
        return bool(self.tail_starts)

    def n_ctx(self, n_frames: int) -> int:
        """Return how many keys the encoder makes of a window as `Tail.lengthened` returns it."""
        n_positions = n_frames // FRAMES_PER_POSITION
        if not self.has_tail:
            return n_positions
        group, follows = divmod(n_positions, GROUP)
        n_entries = self.tail_starts[-1] - self.tail_starts[group] if follows else 0
        return group * GROUP + n_entries + 1  # the last entry is of nothing

    @property
    def most_ctx(self) -> int:
        """Keys of the longest window: with a tail those of no shorter one are more."""
        return self.n_ctx(2 * self.n_audio_ctx)

    def decoder_shapes(self, batch: int, n_tokens: int, n_slots: int, n_ctx: int) -> Shapes:
        """Return the shapes of the decoder's inputs."""
        shapes: Shapes = {
            "tokens": (batch, n_tokens),
            "positions": (n_tokens,),
            "slots": (n_slots,),
            "logit_bias": (self.n_vocab,),
            "parents": (batch,),
            "cross_bias": (n_ctx,),
        }
        row = (batch, self.n_text_head, n_slots, HEAD_WIDTH)
        for i in range(self.n_text_layer):
            shapes[f"self_k_{i}"] = shapes[f"self_v_{i}"] = row
            shapes[f"cross_k_{i}"] = (1, self.n_text_head, HEAD_WIDTH, n_ctx)
            shapes[f"cross_v_{i}"] = (1, self.n_text_head, n_ctx, HEAD_WIDTH)
        return shapes

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


def _number(value: object, least: int = 1) -> int:
    if not isinstance(value, int) or not least <= value < 1 << 24:
        raise ValueError(f"{value!r} is no count")
    return value


def _range(ends: Sequence[object]) -> tuple[int, int]:
    first, last = ends
    return _number(first), _number(last)


def _tail_starts(value: object) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is no list")
    return tuple(_number(start, 0) for start in value)


def _check_tail(starts: Sequence[int], n_audio_ctx: int) -> None:
    """Raise ValueError where entries are not those of groups: memory is laid out for so many."""
    sizes = np.diff(starts) if starts else np.zeros(Tail.n_groups(n_audio_ctx))
    if len(sizes) != Tail.n_groups(n_audio_ctx) or sizes.min() < 0 or sizes.max() > GROUP:
        raise ValueError("its tail is not that of the longest window")
