"""Whisper models of random weights, and the graphs of these and of the bundled one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
import pytest
from ctranslate2.specs import whisper_spec

from tests.support import HOME_EN
from wyoming_whisper.engine import graphs
from wyoming_whisper.engine.checkpoint import Checkpoint, Dims
from wyoming_whisper.engine.cpu_graphs import Arithmetic, write_cpu_graphs
from wyoming_whisper.engine.onnx_graph import Precision
from wyoming_whisper.engine.session import CpuSession, OracleSession
from wyoming_whisper.engine.tail import Tail

SPECIAL = (
    "<|endoftext|>",
    "<|startoftranscript|>",
    "<|en|>",
    "<|de|>",
    "<|translate|>",
    "<|transcribe|>",
    "<|startoflm|>",
    "<|startofprev|>",
    "<|nospeech|>",
    "<|notimestamps|>",
)


@dataclass(frozen=True)
class Size:
    """A Whisper's structure; its width is small."""

    n_head: int = 2
    n_audio_layer: int = 2
    n_text_layer: int = 2
    n_mels: int = 80
    n_words: int = 300
    n_times: int = 40
    n_audio_ctx: int = 1500
    n_text_ctx: int = 448
    tied: bool = False
    """Whether embeddings are the output's weights too, as always; random ones then repeat."""

    @property
    def prompt(self) -> list[int]:
        """`<|startoftranscript|><|en|><|transcribe|><|notimestamps|>`"""
        return [self.n_words + i for i in (1, 2, 5, 9)]

    @property
    def previous(self) -> int:
        return self.n_words + SPECIAL.index("<|startofprev|>")

    @property
    def suppressed(self) -> list[int]:
        """All but words and the end."""
        return list(range(self.n_words + 1, self.n_words + len(SPECIAL) + self.n_times))


SIZES = {
    "tiny": Size(n_audio_layer=4, n_text_layer=4),
    "turbo": Size(n_audio_layer=5, n_text_layer=1, n_mels=128, n_head=3),
    "distil": Size(n_audio_layer=3, n_text_layer=2, n_head=1),
    "tied": Size(n_audio_layer=1, n_text_layer=1, tied=True),
}


def random_spec(size: Size) -> whisper_spec.WhisperSpec:
    """Return a CTranslate2 specification full of random numbers, large enough to matter."""
    rng = np.random.default_rng(0)
    width = size.n_head * 64

    def weights(*shape: int, gain: float = 1.0) -> Any:
        scale = gain / np.sqrt(np.prod(shape[1:]))
        return (rng.standard_normal(shape) * scale).astype(np.float32)

    def vector(length: int) -> Any:
        return (rng.standard_normal(length) * 0.1).astype(np.float32)

    def linear(spec: Any, outputs: int, inputs: int, gain: float = 1.0) -> None:
        spec.weight, spec.bias = weights(outputs, inputs, gain=gain), vector(outputs)

    def norm(spec: Any) -> None:
        spec.gamma, spec.beta = 1 + vector(width), vector(width)

    def block(layer: Any) -> None:
        norm(layer.self_attention.layer_norm)
        linear(layer.self_attention.linear[0], 3 * width, width, gain=2.0)
        linear(layer.self_attention.linear[1], width, width)
        norm(layer.ffn.layer_norm)
        linear(layer.ffn.linear_0, 4 * width, width)
        linear(layer.ffn.linear_1, width, 4 * width)

    n_head = size.n_head
    spec = whisper_spec.WhisperSpec(size.n_audio_layer, n_head, size.n_text_layer, n_head)
    encoder, decoder = spec.encoder, spec.decoder
    for conv, inputs in ((encoder.conv1, size.n_mels), (encoder.conv2, width)):
        conv.weight, conv.bias = weights(width, inputs, 3), vector(width)
    encoder.position_encodings.encodings = weights(size.n_audio_ctx, width, gain=8.0)
    for layer in encoder.layer:
        block(layer)
    for layer in decoder.layer:
        block(layer)
        norm(layer.attention.layer_norm)
        for part, outputs in zip(layer.attention.linear, (1, 2, 1), strict=True):
            linear(part, outputs * width, width, gain=2.0)
    norm(encoder.layer_norm)
    norm(decoder.layer_norm)
    n_vocab = size.n_words + len(SPECIAL) + size.n_times
    decoder.embeddings.weight = weights(n_vocab, width, gain=8.0)
    decoder.projection.weight = (
        decoder.embeddings.weight if size.tied else weights(n_vocab, width, gain=4.0)
    )
    decoder.position_encodings.encodings = weights(size.n_text_ctx, width, gain=8.0)
    decoder.scale_embeddings = False
    return spec


def save_random(
    size: Size,
    folder: Path,
    quantization: str | None = None,
    change: Callable[[whisper_spec.WhisperSpec], None] | None = None,
) -> Path:
    """Write the folder of a random model; CTranslate2 loads it."""
    spec = random_spec(size)
    if change:
        change(spec)
    # By its empty word CTranslate2 knows a multilingual vocabulary.
    words = ["", *(f"w{i}" for i in range(1, size.n_words))]
    times = [f"<|{i * 0.02:.2f}|>" for i in range(size.n_times)]
    spec.register_vocabulary([*words, *SPECIAL, *times])
    spec.config.suppress_ids, spec.config.suppress_ids_begin = [], []
    spec.config.lang_ids = [size.n_words + 2, size.n_words + 3]
    spec.config.alignment_heads = [[0, 0]]
    spec.validate()
    spec.optimize(quantization=quantization)
    folder.mkdir(parents=True, exist_ok=True)
    spec.save(str(folder))
    return folder


@dataclass(frozen=True)
class Models:
    """Random models by name of SIZES, "home-en", their graphs; each is made once a session."""

    folder: Path

    def model(self, name: str) -> Path:
        if name == "home-en":
            return HOME_EN
        folder = self.folder / name
        return folder if folder.exists() else save_random(SIZES[name], folder)

    def graphs(
        self,
        name: str,
        precision: Precision = "float32",
        beam_size: int = 1,
        *,
        has_tail: bool = False,
    ) -> Path:
        folder = self.folder / f"{name}-{precision}-{beam_size}{'-tail' if has_tail else ''}"
        if not folder.exists():
            weights = Checkpoint.read(self.model(name) / "model.bin")
            tail = Tail.frozen(weights, Dims.of(weights)) if has_tail else None
            graphs.write_graphs(weights, folder, precision, beam_size, tail=tail)
        return folder

    def session(
        self, name: str, precision: Precision = "float32", beam_size: int = 1
    ) -> OracleSession:
        return OracleSession(self.graphs(name, precision, beam_size), threads=1)

    def cpu_graphs(self, name: str, arithmetic: Arithmetic = "float32") -> Path:
        folder = self.folder / f"{name}-cpu-{arithmetic}"
        if not folder.exists():
            write_cpu_graphs(Checkpoint.read(self.model(name) / "model.bin"), folder, arithmetic)
        return folder

    def cpu_session(
        self, name: str, arithmetic: Arithmetic = "float32", beam_size: int = 1
    ) -> CpuSession:
        return CpuSession(self.cpu_graphs(name, arithmetic), threads=1, beam_size=beam_size)

    def oracle(self, name: str) -> Any:
        """CTranslate2 in float32, as exact as it gets."""
        return ctranslate2.models.Whisper(
            str(self.model(name)), compute_type="float32", intra_threads=1
        )


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(tmp_path_factory.mktemp("models"))
