"""What an engine's folder holds: two plans, and `engine.json`, which says what they can do."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ...errors import EngineBrokenError
from ...whisper.audio import FRAMES_PER_POSITION
from ..checkpoint import HEAD_WIDTH
from ..tail import GROUP

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
    def read(cls, folder: Path) -> PlanFacts:
        """Return what an engine's folder says of itself. Raises EngineBrokenError.

        The cache has compared the file with its hash: what it says is what `to_json` wrote.
        """
        path = folder / cls.FILE
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
            lengths = tuple((first, last) for first, last in facts["n_frames"])
            profiles = tuple(
                Profile(one["name"], tuple(one["batch"]), tuple(one["n_tokens"]))
                for one in facts["profiles"]
            )
            more = {"n_frames": lengths, "profiles": profiles}
            return cls(**facts | more | {"tail_starts": tuple(facts["tail_starts"])})
        except (OSError, ValueError, TypeError, KeyError) as error:
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
