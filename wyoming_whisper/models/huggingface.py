"""A model in Hugging Face's layout, written from CTranslate2's: what transformers and TensorRT-LLM
read.

Names and orientation of the weights are those of transformers (models/whisper/modeling_whisper.py,
5.23; the same since Whisper came to it), and those that TensorRT-LLM asks for
(tensorrt_llm/_torch/models/modeling_whisper.py, _convert_hf_whisper_weights). numpy only.
"""

from __future__ import annotations

import functools
import json
import os
import struct
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..engine.checkpoint import EMBEDDINGS, PROJECTION, Checkpoint, Dims
from ..errors import ModelBrokenError
from ..transcriber import SAMPLE_RATE
from ..whisper.audio import HOP_LENGTH, N_FFT, N_FRAMES
from ..whisper.tokenizer import Tokenizer
from .folder import ModelFolder

Precision = Literal["float16", "float32"]
Progress = Callable[[float], None]
"""Told the share that is done, up to 1.0."""

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Tensor:
    """A parameter by transformers' name, made when it is written: all at once may not fit."""

    name: str
    shape: tuple[int, ...]
    make: Callable[[], Array]

    @property
    def n_values(self) -> int:
        return int(np.prod(self.shape))


def write_folder(
    source: Path, output: Path, precision: Precision = "float16", progress: Progress | None = None
) -> list[Path]:
    """Write the CTranslate2 model in folder `source` to `output`; return the files.

    Each appears when it is whole. What a model says of itself (wyoming_whisper.json) goes along.
    Raises ModelBrokenError, and OSError where it can't be written.
    """
    model = ModelFolder(source)
    checkpoint, tokens = model.checkpoint(), model.vocabulary.tokens
    if tokens[-1] == "":  # only tells CTranslate2 that the model is multilingual
        tokens = tokens[:-1]
    texts = _texts(model, checkpoint, tokens, precision)
    output.mkdir(parents=True, exist_ok=True)
    # Aside first: what is there already is not lost to a failure.
    with tempfile.TemporaryDirectory(prefix=".export-", dir=output) as aside:
        for name, text in texts.items():
            (Path(aside) / name).write_text(text, encoding="utf-8")
        tensors = list(_tensors(checkpoint, len(tokens)))
        weights = Path(aside) / model.WEIGHTS["huggingface"]
        _write_safetensors(weights, tensors, precision, progress)
        written = sorted(Path(aside).iterdir())
        for file in written:
            file.replace(output / file.name)
    return [output / file.name for file in written]


# Weights


def _tensors(checkpoint: Checkpoint, n_tokens: int) -> Iterator[_Tensor]:
    """Yield the parameters; of the vocabulary the first `n_tokens` rows."""
    for name, source, rows in _sources(checkpoint, n_tokens):
        shape = checkpoint[source].shape
        n_rows = len(range(*rows.indices(shape[0])))
        make = functools.partial(checkpoint.weights, source, rows)
        yield _Tensor(name, (n_rows, *shape[1:]), make)


def _sources(checkpoint: Checkpoint, n_tokens: int) -> Iterator[tuple[str, str, slice]]:
    """Yield (transformers' name, CTranslate2's, rows of it) of each parameter.

    CTranslate2 has queries, keys and values of self-attention in one matrix, keys and values of
    cross-attention in another. A key's bias is left out, as it has none in Whisper; it would change
    no attention.
    """
    dims, everything, words = Dims.of(checkpoint), slice(None), slice(0, n_tokens)
    for conv in ("conv1", "conv2"):
        for kind in ("weight", "bias"):
            yield f"model.encoder.{conv}.{kind}", f"encoder/{conv}/{kind}", everything
    yield "model.decoder.embed_tokens.weight", EMBEDDINGS, words
    if not checkpoint.is_tied:
        yield "proj_out.weight", PROJECTION, words
    halves = {"encoder": (dims.n_audio_layer, dims.n_audio_state)}
    halves["decoder"] = (dims.n_text_layer, dims.n_text_state)
    for half, (n_layer, width) in halves.items():
        positions = f"{half}/position_encodings/encodings"
        yield f"model.{half}.embed_positions.weight", positions, everything
        yield from _parts(f"model.{half}", half, (("layer_norm", "layer_norm", everything),))
        first, second, third = (slice(i * width, (i + 1) * width) for i in range(3))
        own, cross = "self_attention", "attention"
        block = (
            ("self_attn_layer_norm", f"{own}/layer_norm", everything),
            ("self_attn.q_proj", f"{own}/linear_0", first),
            ("self_attn.k_proj", f"{own}/linear_0", second),
            ("self_attn.v_proj", f"{own}/linear_0", third),
            ("self_attn.out_proj", f"{own}/linear_1", everything),
            ("final_layer_norm", "ffn/layer_norm", everything),
            ("fc1", "ffn/linear_0", everything),
            ("fc2", "ffn/linear_1", everything),
        )
        to_audio = (
            ("encoder_attn_layer_norm", f"{cross}/layer_norm", everything),
            ("encoder_attn.q_proj", f"{cross}/linear_0", everything),
            ("encoder_attn.k_proj", f"{cross}/linear_1", first),
            ("encoder_attn.v_proj", f"{cross}/linear_1", second),
            ("encoder_attn.out_proj", f"{cross}/linear_2", everything),
        )
        for i in range(n_layer):
            parts = block + (to_audio if half == "decoder" else ())
            yield from _parts(f"model.{half}.layers.{i}", f"{half}/layer_{i}", parts)


def _parts(
    name: str, source: str, parts: Iterable[tuple[str, str, slice]]
) -> Iterator[tuple[str, str, slice]]:
    """Yield weight and bias of each linear layer, gamma and beta of each norm."""
    for part, stored, rows in parts:
        is_norm = part.endswith("norm")
        weight, bias = ("gamma", "beta") if is_norm else ("weight", "bias")
        yield f"{name}.{part}.weight", f"{source}/{stored}/{weight}", rows
        if not part.endswith("k_proj"):
            yield f"{name}.{part}.bias", f"{source}/{stored}/{bias}", rows


def _write_safetensors(
    file: Path,
    tensors: Sequence[_Tensor],
    precision: Precision = "float16",
    progress: Progress | None = None,
) -> None:
    """Write the length of the header, the header (JSON), and the data, little-endian.

    Source: huggingface/safetensors, README.md, "Format".
    """
    alignment = 8  # of the data in a safetensors file
    kind = np.dtype(precision).newbyteorder("<")
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # transformers wants to be told
    end = 0
    for tensor in tensors:
        start, end = end, end + tensor.n_values * kind.itemsize
        shape = list(tensor.shape)
        header[tensor.name] = {
            "dtype": "F16" if precision == "float16" else "F32",
            "shape": shape,
            "data_offsets": [start, end],
        }
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % alignment)
    done = 0
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", len(raw)) + raw)
        for tensor in tensors:
            values = tensor.make()
            if not np.isfinite(values).all():
                raise ModelBrokenError(f"{tensor.name} has values that are no numbers")
            stream.write(np.ascontiguousarray(values, kind).tobytes())
            done += tensor.n_values * kind.itemsize
            if progress:
                progress(done / end)
        stream.flush()
        os.fsync(stream.fileno())


# What lies beside them


def _texts(
    model: ModelFolder, checkpoint: Checkpoint, tokens: list[str], precision: Precision
) -> dict[str, str]:
    """Return name -> content of the small files."""
    end = "<|endoftext|>"
    raw, tokenizer = model.vocabulary.tokenizer_json(), model.tokenizer
    bpe = json.loads(raw)["model"]
    merges = (merge if isinstance(merge, str) else " ".join(merge) for merge in bpe["merges"])
    special = dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), end)
    files: dict[str, Any] = {
        "config.json": _config(checkpoint, tokenizer, len(tokens), precision),
        "generation_config.json": _generation_config(model, tokenizer, tokens),
        "preprocessor_config.json": _preprocessor_config(Dims.of(checkpoint).n_mels),
        "tokenizer_config.json": {
            **special,
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
            "errors": "replace",
            "model_max_length": 1024,
            "processor_class": "WhisperProcessor",
            "tokenizer_class": "WhisperTokenizer",
        },
        "special_tokens_map.json": special,
        "vocab.json": bpe["vocab"],
    }
    texts = {name: json.dumps(value, ensure_ascii=False, indent=1) for name, value in files.items()}
    texts |= {"tokenizer.json": raw, "merges.txt": "\n".join(["#version: 0.2", *merges, ""])}
    extras = model.path / model.EXTRAS
    if extras.is_file():
        texts[extras.name] = extras.read_text(encoding="utf-8")
    return texts


def _config(
    checkpoint: Checkpoint, tokenizer: Tokenizer, n_tokens: int, precision: Precision
) -> dict[str, Any]:
    """Return what transformers.WhisperConfig reads."""
    return _structure(checkpoint, n_tokens) | {
        "torch_dtype": precision,
        "bos_token_id": tokenizer.eot,
        "eos_token_id": tokenizer.eot,
        "pad_token_id": tokenizer.eot,
        "decoder_start_token_id": tokenizer.sot,
    }


def _structure(checkpoint: Checkpoint, n_tokens: int) -> dict[str, Any]:
    """Return what config.json says of the weights. Raises ModelBrokenError."""
    dims = Dims.of(checkpoint)
    return {
        "architectures": ["WhisperForConditionalGeneration"],
        "model_type": "whisper",
        "is_encoder_decoder": True,
        "activation_function": "gelu",
        "d_model": dims.n_audio_state,
        "encoder_layers": dims.n_audio_layer,
        "encoder_attention_heads": dims.n_audio_head,
        "encoder_ffn_dim": 4 * dims.n_audio_state,
        "decoder_layers": dims.n_text_layer,
        "decoder_attention_heads": dims.n_text_head,
        "decoder_ffn_dim": 4 * dims.n_text_state,
        "num_hidden_layers": dims.n_audio_layer,
        "num_mel_bins": dims.n_mels,
        "max_source_positions": dims.n_audio_ctx,
        "max_target_positions": dims.n_text_ctx,
        "vocab_size": n_tokens,
        "scale_embedding": False,
        "tie_word_embeddings": checkpoint.is_tied,
        "use_cache": True,
    }


def _generation_config(
    model: ModelFolder, tokenizer: Tokenizer, tokens: list[str]
) -> dict[str, Any]:
    """Return what transformers and TensorRT-LLM decode by.

    The tokens that are never written are those that this program never lets the others write.
    """
    ids = {token: i for i, token in enumerate(tokens)}
    config: dict[str, Any] = {
        "bos_token_id": tokenizer.eot,
        "eos_token_id": tokenizer.eot,
        "pad_token_id": tokenizer.eot,
        "decoder_start_token_id": tokenizer.sot,
        "no_timestamps_token_id": tokenizer.no_timestamps,
        "prev_sot_token_id": tokenizer.sot_prev,
        "suppress_tokens": tokenizer.suppressed_tokens,
        "begin_suppress_tokens": model.suppressed_begin,
        "alignment_heads": model.config.content.get("alignment_heads", []),
        "is_multilingual": tokenizer.multilingual,
        "max_initial_timestamp_index": 50,
        "max_length": 448,
        "return_timestamps": False,
    }
    if tokenizer.multilingual:
        config["lang_to_id"] = {
            f"<|{code}|>": token for code, token in tokenizer.language_tokens.items()
        }
        config["task_to_id"] = {task: ids[f"<|{task}|>"] for task in ("transcribe", "translate")}
    return config


def _preprocessor_config(n_mels: int) -> dict[str, Any]:
    """Return what transformers.WhisperFeatureExtractor reads."""
    return {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "processor_class": "WhisperProcessor",
        "feature_size": n_mels,
        "sampling_rate": SAMPLE_RATE,
        "hop_length": HOP_LENGTH,
        "chunk_length": N_FRAMES * HOP_LENGTH // SAMPLE_RATE,
        "n_fft": N_FFT,
        "n_samples": N_FRAMES * HOP_LENGTH,
        "nb_max_frames": N_FRAMES,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": False,
    }
