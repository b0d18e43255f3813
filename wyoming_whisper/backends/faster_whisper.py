"""The faster-whisper backend: CTranslate2 on any CPU, or on an NVIDIA GPU through CUDA.

It loads faster-whisper's models and decodes by faster-whisper's rules, but calls CTranslate2
itself rather than through WhisperModel, which imports PyAV (24 MB here), pads every command to
30 s, encodes twice to detect a language, and asks the hub for a tokenizer that some models lack.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import re
import tempfile
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engine.checkpoint import EMBEDDINGS, HEAD_WIDTH
from ..errors import ModelBrokenError, SettingsError
from ..machine.host import HOST
from ..machine.measured import Measurements
from ..models.folder import ModelFolder
from ..whisper.audio import FRAMES_PER_POSITION, Array
from ..whisper.inference import GenerateOptions, Hypothesis
from .pipeline import WhisperTranscriber

if TYPE_CHECKING:
    from ..settings.options import Settings

_LOGGER = logging.getLogger(__name__)


Scores = dict[tuple[tuple[int, ...], tuple[int, ...]], Array]
"""By prompt, and the text after it."""


class CTranslate2Inference:
    """A `ctranslate2.models.Whisper`."""

    LENGTH_PENALTY = 1  # scores come back divided by the length to this power
    TINY = 1e-30  # probabilities are held above it, for their logarithms

    MAX_SCORES = 64  # of texts, kept for an audio

    def __init__(self, model: Any) -> None:
        self._model = model
        self.n_mels: int = model.n_mels
        self._scored: list[tuple[Any, Scores]] = []
        """The audio features asked for last, and those before: speech and noise take turns."""

    @classmethod
    def load(
        cls,
        folder: ModelFolder,
        compute_type: str,
        threads: int,
        device: str = "cpu",
        device_index: int = 0,
    ) -> CTranslate2Inference:
        """Return the model of a folder, loaded. Raises ModelBrokenError."""
        folder.check()
        try:
            with _loadable(folder) as path:
                return cls(
                    _ctranslate2().models.Whisper(
                        str(path),
                        device=device,
                        device_index=device_index,
                        compute_type=compute_type,
                        intra_threads=threads,
                    )
                )
        except (RuntimeError, ValueError) as error:
            raise ModelBrokenError(
                f"the model in {folder.path} can't be loaded: {error}"
            ) from error

    def unload(self) -> None:
        """Free the model's memory now."""
        self._scored = []
        self._model.unload_model()

    def describe(self, name: str, threads: int) -> str:
        """Return what a model of this name runs on, for people."""
        model = self._model
        where = f"CPU ({HOST.instruction_set}, {threads} threads)"
        if model.device != "cpu":
            where = f"CUDA device {model.device_index[0]}"
        return f"{name} on {where} in {model.compute_type}"

    def encode(self, mel: Array) -> Any:
        """Return the encoder's output, shape = (1, n_frames // 2, n_audio_state)."""
        batch = np.ascontiguousarray(mel[None])
        return self._model.encode(_ctranslate2().StorageView.from_array(batch))

    def detect_language(self, audio_features: Any) -> list[tuple[str, float]]:
        """Return (code, probability), likeliest first."""
        return [(token[2:-2], p) for token, p in self._model.detect_language(audio_features)[0]]

    def generate(
        self, audio_features: Any, prompt: Sequence[int], options: GenerateOptions
    ) -> Hypothesis:
        """Return the best hypothesis: beam search, or the best of samples above temperature 0."""
        search: dict[str, Any] = {
            "beam_size": options.beam_size,
            "num_hypotheses": options.beam_size,  # all that were followed: it costs nothing
        }
        if options.temperature > 0:
            search = {
                "beam_size": 1,
                "num_hypotheses": options.best_of,
                "sampling_topk": 0,
                "sampling_temperature": options.temperature,
            }
        result = self._model.generate(
            audio_features,
            [list(prompt)],
            # CTranslate2 takes the smaller of half of this and what the prompt leaves of it; the
            # prompt's last token counts as new.
            max_length=max(options.max_new_tokens + len(prompt) - 1, 2 * options.max_new_tokens),
            length_penalty=self.LENGTH_PENALTY,
            suppress_tokens=list(options.suppressed_tokens),
            return_scores=True,
            return_no_speech_prob=True,
            **search,
        )[0]
        tokens: list[int] = result.sequences_ids[0]
        if not tokens:  # its score was divided by a length of 0
            return Hypothesis([], 0.0, result.no_speech_prob)
        total_logprob = result.scores[0] * len(tokens) ** self.LENGTH_PENALTY
        others = tuple(result.sequences_ids[1:])
        return Hypothesis(tokens, total_logprob / (len(tokens) + 1), result.no_speech_prob, others)

    def score(
        self, audio_features: Any, prompt: Sequence[int], texts: Sequence[Sequence[int]]
    ) -> list[Array]:
        """Return the log-probabilities of each text's tokens after `prompt`, shape = (n_tokens,).

        `prompt` ends with the token of no timestamps.
        """
        kept = next((scores for of, scores in self._scored if of is audio_features), {})
        if len(kept) > self.MAX_SCORES:
            kept = {}
        others = [pair for pair in self._scored if pair[0] is not audio_features]
        self._scored = [(audio_features, kept), *others[:1]]
        start = tuple(prompt)
        scores = []
        for text in texts:
            key = (start, tuple(text))
            if key not in kept:
                # The aligner adds the last token itself. What is aligned is of no interest.
                words = self._model.align(
                    audio_features, list(prompt[:-1]), [list(text)], FRAMES_PER_POSITION
                )[0]
                kept[key] = np.log(np.maximum(words.text_token_probs, self.TINY))
            scores.append(kept[key])
        return scores

    can_align = True

    def align(
        self, audio_features: Any, prompt: Sequence[int], text: Sequence[int], n_positions: int
    ) -> list[int]:
        """See Inference."""
        n_frames = FRAMES_PER_POSITION * n_positions
        words = self._model.align(audio_features, list(prompt[:-1]), [list(text)], n_frames)[0]
        firsts: dict[int, int] = {}
        for row, position in words.alignments:  # a path, from its beginning
            firsts.setdefault(row, position)
        return list(firsts.values())

    @staticmethod
    def choose_device(name: str) -> tuple[str, int]:
        """Return CTranslate2's device and index for `auto`, `cpu`, `cuda` or `cuda:N`."""
        if name == "auto":
            return ("cuda" if _cuda_devices() else "cpu"), 0
        device, _, index = name.partition(":")
        if device == "cuda":
            n_devices = _cuda_devices()
            if int(index or 0) >= n_devices:
                raise SettingsError(
                    f"--device {name}: "
                    + (
                        f"this machine has {n_devices} CUDA devices"
                        if n_devices
                        else "no CUDA device is here"
                    )
                    + "; use --device cpu, or auto"
                )
        return device, int(index or 0)

    @staticmethod
    def choose_compute_type(name: str, device: str) -> str:
        """Return the arithmetic to run in: int8 on CPUs by default, float16 on GPUs.

        CTranslate2's own default follows the files, and runs float16 ones as float32 on a CPU.
        """
        supported: set[str] = _ctranslate2().get_supported_compute_types(device)
        if name == "default":
            preferred = ("int8_float32", "float32") if device == "cpu" else ("float16", "float32")
            return next(one for one in preferred if one in supported)
        if name in ("auto", "int8") or name in supported:
            return name
        raise SettingsError(
            f"--compute-type {name} is not possible on this {device}: "
            f"it can {', '.join(sorted(supported))}"
        )

    @classmethod
    def on_cpu(cls, settings: Settings) -> Settings:
        """Return the settings for the CPU backend that stands in for an engine.

        It leaves the GPU alone: TensorRT measures on it, or it has just failed.
        """
        try:
            compute_type = cls.choose_compute_type(settings.compute_type, "cpu")
        except SettingsError:  # a GPU's
            compute_type = "default"
        return dataclasses.replace(settings, device="cpu", compute_type=compute_type)


def open_faster_whisper(settings: Settings, path: Path) -> WhisperTranscriber:
    """Load the model in folder `path` and warm it up.

    Raises SettingsError for a device or compute type not possible here, ModelBrokenError for files
    that can't be read.
    """
    device, device_index = CTranslate2Inference.choose_device(settings.device)
    compute_type = CTranslate2Inference.choose_compute_type(settings.compute_type, device)
    folder = ModelFolder(path)
    beam_size = WhisperTranscriber.choose_beam_size(settings.beam_size)
    decoding = WhisperTranscriber.decoding_options(settings, folder, beam_size)
    threads = settings.cpu_threads or HOST.cores
    if device == "cpu" and not settings.cpu_threads:
        threads = _measured_threads(settings, folder, compute_type, decoding.beam_size)
    inference = CTranslate2Inference.load(folder, compute_type, threads, device, device_index)
    described = inference.describe(settings.model_name, threads)
    _LOGGER.info("%s, beam %d", described, decoding.beam_size)
    transcriber = WhisperTranscriber(
        inference, folder, settings, decoding, described, keeps_features=True
    )
    transcriber.warm_up()
    return transcriber


def _measured_threads(
    settings: Settings, folder: ModelFolder, compute_type: str, beam_size: int
) -> int:
    """Return how many threads suit this model; measured at its first start where that is open."""

    def seconds(threads: int) -> float:
        inference = CTranslate2Inference.load(folder, compute_type, threads)
        times = [
            WhisperTranscriber.time_command(
                inference, folder.tokenizer, beam_size, WhisperTranscriber.COMMAND_FRAMES
            )
            for _ in range(WhisperTranscriber.COMMAND_RUNS)
        ]
        return min(times[1:])

    name = f"{settings.model} in {compute_type}, beam {beam_size}"
    return HOST.fastest_threads(seconds, Measurements(settings.data_dir), name)


@contextlib.contextmanager
def _loadable(model: ModelFolder) -> Iterator[Path]:
    """Give the folder to load: the model's, or one of links beside a config.json that is mended.

    What it lacks ends a request, and heads that the decoder has not end the process: distilled
    models may name the alignment heads of the model that they were made of. Raises
    ModelBrokenError.
    """
    mended = _mended(model)
    if mended == model.config.content:
        yield model.path
        return
    with tempfile.TemporaryDirectory(prefix="wyoming-whisper-") as folder:
        for file in model.path.iterdir():
            (Path(folder) / file.name).symlink_to(file.resolve())
        config = Path(folder) / model.config.path.name
        config.unlink()
        config.write_text(json.dumps(mended), encoding="utf-8")
        yield Path(folder)


def _mended(model: ModelFolder) -> dict[str, Any]:
    begin, config, shapes = "suppress_ids_begin", model.config.content, model.shapes
    matches = (re.match(r"decoder/layer_(\d+)/", name) for name in shapes)
    n_layers = 1 + max((int(match[1]) for match in matches if match), default=-1)
    n_heads = shapes.get(EMBEDDINGS, (0, 0))[-1] // HEAD_WIDTH
    heads = model.alignment_heads
    if not heads or not all(0 <= i < n_layers and 0 <= head < n_heads for i, head in heads):
        # As CTranslate2's converter does without better knowledge: the last half of the layers.
        layers = range(n_layers // 2, n_layers)
        config = {
            **config,
            "alignment_heads": [list(pair) for pair in product(layers, range(n_heads))],
        }
    return config if begin in config else {**config, begin: []}


def _cuda_devices() -> int:
    return int(_ctranslate2().get_cuda_device_count())


def _ctranslate2() -> Any:
    import ctranslate2

    return ctranslate2
