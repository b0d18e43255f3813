"""Model folders that are whole but weigh nothing."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path

from wyoming_whisper.whisper.tokenizer import LANGUAGES

Files = Mapping[str, bytes]


def weights(
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    *,
    spec: str = "WhisperSpec",
    version: int = 6,
) -> bytes:
    """Return a `model.bin` with weights of zeros, int8."""
    if shapes is None:
        shapes = {"encoder/conv1/weight": (8, 80, 3), "decoder/embeddings/weight": (16, 8)}
    out = struct.pack("<I", version) + _string(spec) + struct.pack("<II", 3, len(shapes))
    for name, shape in shapes.items():
        n_bytes = 1
        for size in shape:
            n_bytes *= size
        out += _string(name) + struct.pack(f"<B{len(shape)}I", len(shape), *shape)
        out += struct.pack("<BI", 1, n_bytes) + bytes(n_bytes)
    return out + struct.pack("<I", 0)


def _string(text: str) -> bytes:
    return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"


def vocabulary(n_tokens: int = 51_865, *, yue: bool = False) -> list[str]:
    """Return as many tokens, with Whisper's special ones where Whisper has them."""
    codes = [code for code in LANGUAGES if yue or code != "yue"]
    special = ["<|endoftext|>", "<|startoftranscript|>", *(f"<|{code}|>" for code in codes)]
    special += ["<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>"]
    special += ["<|notimestamps|>"]
    n_text = n_tokens - len(special)
    return [f"t{i}" for i in range(n_text)] + special


def model_files(*, n_tokens: int = 51_865, yue: bool = False, weight_bytes: int = 0) -> Files:
    """Return the files of a model, as a hub repository holds them."""
    tokens = vocabulary(n_tokens, yue=yue)
    lang_ids = [i for i, token in enumerate(tokens) if token.strip("<|>") in LANGUAGES]
    shapes = {"encoder/conv1/weight": (8, 80, 3), "decoder/embeddings/weight": (n_tokens, 1)}
    if weight_bytes:
        shapes["padding"] = (weight_bytes - n_tokens,)
    return {
        "README.md": b"not needed",
        "config.json": json.dumps({"lang_ids": lang_ids}).encode(),
        "model.bin": weights(shapes),
        "tokenizer.json": b'{"version": "1.0"}',
        "vocabulary.json": json.dumps(tokens).encode(),
    }


def huggingface_files(
    *, languages: tuple[str, ...] = ("en", "de"), weight_bytes: int = 64
) -> Files:
    """Return the files of a model in Hugging Face's layout, and others that lie beside them."""
    header = {
        "__metadata__": {"format": "pt"},
        "padding": {"dtype": "U8", "shape": [weight_bytes], "data_offsets": [0, weight_bytes]},
    }
    raw = json.dumps(header).encode()
    generation = {
        "is_multilingual": bool(languages),
        "lang_to_id": {f"<|{code}|>": 300 + i for i, code in enumerate(languages)},
    }
    return {
        "README.md": b"not needed",
        "config.json": b'{"model_type": "whisper"}',
        "flax_model.msgpack": b"the same weights again",
        "generation_config.json": json.dumps(generation).encode(),
        "merges.txt": b"#version: 0.2",
        "model.fp32-00001-of-00002.safetensors": b"the same in another type",
        "model.safetensors": struct.pack("<Q", len(raw)) + raw + bytes(weight_bytes),
        "preprocessor_config.json": b'{"feature_size": 80}',
        "pytorch_model.bin": b"and again",
        "tokenizer.json": b'{"version": "1.0"}',
        "tokenizer_config.json": b"{}",
        "vocab.json": b"{}",
    }


def write_folder(folder: Path, files: Files | None = None) -> Path:
    """Write a plain model folder."""
    folder.mkdir(parents=True)
    for name, content in (files or model_files()).items():
        (folder / name).write_bytes(content)
    return folder


def etag(name: str, content: bytes) -> str:
    """Return the hub's hash: SHA-256 of what is in LFS, git's of the rest."""
    if name in ("model.bin", "model.safetensors"):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def write_cache(
    cache: Path, repo: str, files: Files | None = None, *, commit: str = "a" * 40, main: bool = True
) -> Path:
    """Write what the official server leaves in its download folder; return the snapshot."""
    folder = cache / f"models--{repo.replace('/', '--')}"
    snapshot = folder / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (folder / "blobs").mkdir(exist_ok=True)
    (folder / "refs").mkdir(exist_ok=True)
    if main:
        (folder / "refs" / "main").write_text(commit)
    for name, content in (files or model_files()).items():
        blob = etag(name, content)
        (folder / "blobs" / blob).write_bytes(content)
        (snapshot / name).symlink_to(Path("..", "..", "blobs", blob))
    return snapshot
