"""What runs the decoder on a CPU: CTranslate2, or onnxruntime where it is faster.

Which one is differs: CTranslate2 packs a layer's weights again for every token on processors where
it uses oneDNN or Ruy, onnxruntime has its own int8 kernels for each. So both are asked, once.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engine.dims import PROJECTION, Dims, decoder_shapes, dims_of
from ..errors import ModelBrokenError, SettingsError
from ..models import suppressed_begin
from ..threads import REMEMBERED, fastest
from ..whisper.audio import Array
from ..whisper.decoding import GenerateOptions, Hypothesis, ScoringInference
from ..whisper.search import SessionInference
from ..whisper.tokenizer import Tokenizer

if TYPE_CHECKING:
    from ..settings import Settings

_LOGGER = logging.getLogger(__name__)

CTRANSLATE2, ONNXRUNTIME = "ctranslate2", "onnxruntime"
WORTH = 0.8  # of CTranslate2's time, encoder and all: less gain is not worth the memory
SMALL = 8_000_000  # bytes: the time that such a decoder takes is not in its weights
ROOM = 6  # times the decoder's weights must be free: for a moment they are there as often


@dataclass(frozen=True)
class Arithmetic:
    """How the model runs in CTranslate2."""

    device: str
    compute_type: str
    threads: int
    beam_size: int


@dataclass(frozen=True, eq=False)
class _Audio:
    encoded: Any
    """CTranslate2's."""
    searched: Any
    """The search's."""


class OnnxDecoding:
    """A ScoringInference: another's encoder, and a decoder of its own that onnxruntime runs."""

    def __init__(self, inference: ScoringInference, search: SessionInference) -> None:
        self.n_mels = inference.n_mels
        self._inference = inference
        self._search = search

    def encode(self, mel: Array) -> Any:
        """Return audio features of a window; good until the next `encode`."""
        encoded = self._inference.encode(mel)
        return _Audio(encoded, self._search.encode(np.asarray(encoded)))

    def detect_language(self, audio_features: Any) -> list[tuple[str, float]]:
        """Return (code, probability), likeliest first."""
        return self._search.detect_language(audio_features.searched)

    def generate(
        self, audio_features: Any, prompt: Sequence[int], options: GenerateOptions
    ) -> Hypothesis:
        """Return the best hypothesis."""
        return self._search.generate(audio_features.searched, prompt, options)

    def score(
        self, audio_features: Any, prompt: Sequence[int], texts: Sequence[Sequence[int]]
    ) -> list[Array]:
        """Return the log-probabilities of each text's tokens; all at once, which the other does."""
        return self._inference.score(audio_features.encoded, prompt, texts)


def choose_decoder(
    settings: Settings,
    path: Path,
    inference: ScoringInference,
    tokenizer: Tokenizer,
    arithmetic: Arithmetic,
    seconds: Callable[[ScoringInference], float],
) -> ScoringInference:
    """Return `inference`, or what decodes faster than it; `seconds` measures a command.

    Raises SettingsError where the user asked for what is not possible.
    """
    wanted = settings.decoder
    if wanted == CTRANSLATE2:
        return inference
    integers = arithmetic.compute_type.startswith("int8")
    if arithmetic.device != "cpu" or not integers:
        if wanted == ONNXRUNTIME:
            raise SettingsError(
                "--decoder onnxruntime computes in int8 on a CPU, not in "
                f"{arithmetic.compute_type} on {arithmetic.device}; use --decoder auto"
            )
        return inference
    opened = _Opened(path, inference, tokenizer, arithmetic)
    try:
        if wanted == ONNXRUNTIME:
            return opened.get()
        if not opened.is_worth_a_try():
            return inference
        name = (
            f"{settings.model} in {arithmetic.compute_type}, beam {arithmetic.beam_size}, "
            f"{arithmetic.threads} threads"
        )
        best = fastest(
            (CTRANSLATE2, ONNXRUNTIME),
            lambda name: seconds(inference if name == CTRANSLATE2 else opened.get()),
            settings.data_dir[0] / REMEMBERED,
            name,
            what="decoder",
            worth=WORTH,
        )
        return inference if best == CTRANSLATE2 else opened.get()
    except (ImportError, MemoryError, ModelBrokenError) as error:
        if wanted == ONNXRUNTIME:
            hint = "; install wyoming-whisper[onnx]" if isinstance(error, ImportError) else ""
            raise SettingsError(
                f"--decoder onnxruntime is not possible here: {error}{hint}"
            ) from error
        _LOGGER.warning("the decoder stays with CTranslate2: %s", error)
        return inference


def int8_bytes(dims: Dims) -> int:
    """Return what the decoder's weights take; the embeddings are there as rows and as columns."""
    shapes = {**decoder_shapes(dims), "embeddings as columns": (dims.n_vocab, dims.n_text_state)}
    del shapes[PROJECTION]
    return sum(math.prod(shape) for shape in shapes.values())


class _Opened:
    """The decoder in onnxruntime, opened when it is first wanted."""

    def __init__(
        self, path: Path, inference: ScoringInference, tokenizer: Tokenizer, how: Arithmetic
    ) -> None:
        self._path = path
        self._inference = inference
        self._tokenizer = tokenizer
        self._how = how
        self._decoding: OnnxDecoding | None = None

    def is_worth_a_try(self) -> bool:
        """Whether it could gain anything, and there is memory. Raises ModelBrokenError."""
        from ..autopick import ram_bytes
        from ..engine.checkpoint import read

        wanted = int8_bytes(dims_of(read(self._path / "model.bin")))
        if wanted < SMALL:
            return False
        if wanted * ROOM > ram_bytes()[1]:
            _LOGGER.info("decoder: ctranslate2, as there is no memory for another")
            return False
        return True

    def get(self) -> OnnxDecoding:
        """Return it, ready. Raises ImportError without onnx, ModelBrokenError."""
        if self._decoding is None:
            from ..engine.checkpoint import read
            from ..engine.quantized import decoder_models
            from ..engine.session import DecoderSession

            _LOGGER.info("preparing the decoder for onnxruntime")
            models = decoder_models(read(self._path / "model.bin"), self._how.beam_size)
            session = DecoderSession(models, self._inference.n_mels, self._how.threads)
            search = SessionInference(session, self._tokenizer, suppressed_begin(self._path))
            self._decoding = OnnxDecoding(self._inference, search)
        return self._decoding
