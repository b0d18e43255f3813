"""A model in Hugging Face's layout, written from CTranslate2's: what transformers and TensorRT-LLM
read.

Names and orientation of the weights are those of transformers (models/whisper/modeling_whisper.py,
5.23; the same since Whisper came to it), and those that TensorRT-LLM asks for
(tensorrt_llm/_torch/models/modeling_whisper.py, _convert_hf_whisper_weights). numpy only.
"""

from __future__ import annotations

import json
import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..engine.checkpoint import Checkpoint
from ..engine.dims import EMBEDDINGS, PROJECTION, Dims
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
        _write_weights(
            checkpoint, Path(aside) / model.WEIGHTS["huggingface"], len(tokens), precision, progress
        )
        written = sorted(Path(aside).iterdir())
        for file in written:
            file.replace(output / file.name)
    return [output / file.name for file in written]


# Weights


def _write_weights(
    checkpoint: Checkpoint,
    file: Path,
    n_tokens: int,
    precision: Precision = "float16",
    progress: Progress | None = None,
) -> None:
    """Write the weights, of the vocabulary the first `n_tokens` rows, as a safetensors file.

    Raises ModelBrokenError, OSError.
    """
    tensors = list(_tensors(checkpoint, Dims.of(checkpoint), n_tokens))
    _write_safetensors(file, tensors, precision, progress)


def _tensors(checkpoint: Checkpoint, dims: Dims, n_tokens: int) -> Iterator[_Tensor]:
    """Yield the parameters; of the vocabulary the first `n_tokens` rows."""

    def one(name: str, source: str, rows: slice = slice(None)) -> _Tensor:
        shape = checkpoint[source].shape
        n_rows = len(range(*rows.indices(shape[0])))
        return _Tensor(name, (n_rows, *shape[1:]), lambda: checkpoint.weights(source)[rows])

    for name in ("conv1", "conv2"):
        yield one(f"model.encoder.{name}.weight", f"encoder/{name}/weight")
        yield one(f"model.encoder.{name}.bias", f"encoder/{name}/bias")
    vocabulary = slice(0, n_tokens)
    yield one("model.decoder.embed_tokens.weight", EMBEDDINGS, vocabulary)
    if not _is_tied(checkpoint):
        yield one("proj_out.weight", PROJECTION, vocabulary)
    for half, n_layer, width in (
        ("encoder", dims.n_audio_layer, dims.n_audio_state),
        ("decoder", dims.n_text_layer, dims.n_text_state),
    ):
        positions = f"{half}/position_encodings/encodings"
        yield one(f"model.{half}.embed_positions.weight", positions)
        yield from _norm(one, f"model.{half}.layer_norm", f"{half}/layer_norm")
        for i in range(n_layer):
            yield from _layer(one, f"model.{half}.layers.{i}", f"{half}/layer_{i}", width)
        for i in range(n_layer if half == "decoder" else 0):
            name, source = f"model.decoder.layers.{i}", f"decoder/layer_{i}/attention"
            yield from _cross_attention(one, name, source, width)


_Maker = Callable[..., _Tensor]


def _norm(one: _Maker, name: str, source: str) -> Iterator[_Tensor]:
    yield one(f"{name}.weight", f"{source}/gamma")
    yield one(f"{name}.bias", f"{source}/beta")


def _linear(
    one: _Maker, name: str, source: str, rows: slice = slice(None), *, bias: bool = True
) -> Iterator[_Tensor]:
    yield one(f"{name}.weight", f"{source}/weight", rows)
    if bias:
        yield one(f"{name}.bias", f"{source}/bias", rows)


def _layer(one: _Maker, name: str, source: str, width: int) -> Iterator[_Tensor]:
    """Self-attention, whose queries, keys and values CTranslate2 has in one matrix, and the MLP.

    A key's bias is left out, as it has none in Whisper; it would change no attention.
    """
    attention = f"{source}/self_attention"
    fused = f"{attention}/linear_0"
    yield from _norm(one, f"{name}.self_attn_layer_norm", f"{attention}/layer_norm")
    yield from _linear(one, f"{name}.self_attn.q_proj", fused, slice(0, width))
    yield from _linear(one, f"{name}.self_attn.k_proj", fused, slice(width, 2 * width), bias=False)
    yield from _linear(one, f"{name}.self_attn.v_proj", fused, slice(2 * width, None))
    yield from _linear(one, f"{name}.self_attn.out_proj", f"{attention}/linear_1")
    yield from _norm(one, f"{name}.final_layer_norm", f"{source}/ffn/layer_norm")
    yield from _linear(one, f"{name}.fc1", f"{source}/ffn/linear_0")
    yield from _linear(one, f"{name}.fc2", f"{source}/ffn/linear_1")


def _cross_attention(one: _Maker, name: str, source: str, width: int) -> Iterator[_Tensor]:
    attention = f"{name}.encoder_attn"
    yield from _norm(one, f"{name}.encoder_attn_layer_norm", f"{source}/layer_norm")
    yield from _linear(one, f"{attention}.q_proj", f"{source}/linear_0")
    yield from _linear(
        one, f"{attention}.k_proj", f"{source}/linear_1", slice(0, width), bias=False
    )
    yield from _linear(one, f"{attention}.v_proj", f"{source}/linear_1", slice(width, None))
    yield from _linear(one, f"{attention}.out_proj", f"{source}/linear_2")


def _is_tied(checkpoint: Checkpoint) -> bool:
    return checkpoint.resolved(PROJECTION) == checkpoint.resolved(EMBEDDINGS)


def _write_safetensors(
    file: Path, tensors: list[_Tensor], precision: Precision, progress: Progress | None
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
        "tie_word_embeddings": _is_tied(checkpoint),
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
