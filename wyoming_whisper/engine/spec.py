"""What is to be built: of which model, for which runtime; and what a child is asked for."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path

from .cache import EngineCache, Key, weights_hash
from .tensorrt.library import TENSORRT, Library, Target

ONNXRUNTIME = "onnxruntime"


@dataclass(frozen=True)
class BuildRequest:
    """What the child is told."""

    model_bin: str
    folder: str
    timing_cache: str = ""
    """A file that is read, where it is there, and written."""
    runtime: str = TENSORRT.runtime
    device: int = 0
    compute_capability: str = ""
    """Of a Target; a library that builds for the GPU that is here does not look at it."""
    precision: str = "float16"
    beam_size: int = 1
    max_batch: int = 5
    has_tail: bool = False
    """Whether the graphs have the frozen tail (engine.tail)."""
    optimization_level: int = 3  # TensorRT's default: higher ones take many times longer
    parent: int = dataclasses.field(default_factory=os.getpid)
    """Whose end is the child's too."""

    @classmethod
    def from_json(cls, text: str) -> BuildRequest:
        return cls(**json.loads(text))

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))


@dataclass(frozen=True)
class EngineSpec:
    """An engine that is asked for: of which model, for which GPUs, able to do what."""

    FRAMES = ((200, 1200), (1200, 3000))
    """Of mel, for each profile of the encoder: commands, and what is longer. Either is made fast
    for its longest window: the first for the one that most commands get with stock weights, or with
    a tail for that one's, FRAMES_BEFORE_TAIL."""
    FRAMES_BEFORE_TAIL = 400
    FRAMES_MULTIPLE = 200
    """Of a window: they have so many different lengths that each can have its own CUDA graphs."""
    # What the decoder is made fast for; the rest is possible.
    COMMON_CONTEXT = 600
    COMMON_SLOTS = 64
    COMMON_TOKENS = 4

    GRAPH_SCHEMA = 2
    """To be raised with every change of graphs.py or of the profiles here that makes other
    engines."""

    model: str
    """Its name, for people."""
    model_bin: Path
    library: Library
    version: str
    """The library's."""
    target: Target
    device: int = 0
    """The GPU to build on, where that needs one."""
    precision: str = "float16"
    beam_size: int = 1
    max_batch: int = 5
    has_tail: bool = False

    def key(self) -> Key:
        """Return the cache's key: reads the weights, unless the hub's cache tells their hash."""
        capability, device = self.target.compute_capability, self.target.device
        facts = {
            "weights": weights_hash(self.model_bin),
            "precision": self.precision,
            "beam_size": self.beam_size,
            "max_batch": self.max_batch,
            "has_tail": self.has_tail,
            "profiles": [
                *(f"{first}-{last}" for first, last in self.FRAMES),
                *([f"{self.FRAMES_BEFORE_TAIL} and a tail"] if self.has_tail else ()),
                f"{self.COMMON_CONTEXT}/{self.COMMON_SLOTS}/{self.COMMON_TOKENS}",
            ],
            "graph_schema": self.GRAPH_SCHEMA,
            "optimization_level": BuildRequest.optimization_level,
            "tactic_sources": [],  # TensorRT's own; the engines that are there have it in their key
            "runtime": self.library.name,
            "version": self.version,  # plans are for exactly one
            "compute_capability": capability,
            "device": device,
        }
        sm = f"sm{capability.replace('.', '')}"
        return Key((device, sm, self.library.name, self.version, self.precision), facts)

    @property
    def label(self) -> str:
        return f"{self.model} on {self.target.device}"

    def request(self, folder: Path, cache: EngineCache) -> BuildRequest:
        return BuildRequest(
            model_bin=str(self.model_bin.resolve()),
            folder=str(folder),
            timing_cache=str(cache.timing_cache(self.version, self.target.device)),
            runtime=self.library.runtime,
            device=self.device,
            compute_capability=self.target.compute_capability,
            precision=self.precision,
            beam_size=self.beam_size,
            max_batch=self.max_batch,
            has_tail=self.has_tail,
        )


@dataclass(frozen=True)
class CpuSpec:
    """Graphs for onnxruntime that are asked for: of which model, in what arithmetic."""

    CPU_GRAPH_SCHEMA = 5
    """The same of cpu_graphs.py."""

    model: str
    """Its name, for people."""
    model_bin: Path
    arithmetic: str
    """Of cpu_graphs."""

    @property
    def label(self) -> str:
        return f"{self.model} on the CPU"

    def key(self) -> Key:
        """Return the same for graphs, which any version of onnxruntime reads."""
        facts = {
            "weights": weights_hash(self.model_bin),
            "precision": self.arithmetic,
            "graph_schema": self.CPU_GRAPH_SCHEMA,
            "runtime": ONNXRUNTIME,
            "device": "CPU",
        }
        return Key(("cpu", ONNXRUNTIME, self.arithmetic), facts)

    def request(self, folder: Path, _: EngineCache) -> BuildRequest:
        return BuildRequest(
            str(self.model_bin.resolve()),
            str(folder),
            runtime=ONNXRUNTIME,
            precision=self.arithmetic,
        )
