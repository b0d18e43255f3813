"""What lies where a model was expected, and what to do with it, in one sentence.

People give what they have: a file of whisper.cpp, a folder of transformers, the file rather than
its folder. Nothing here decides what is loaded; it is asked where nothing can be.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Literal

from .stock import STOCK_MODELS

Kind = Literal[
    "ctranslate2",
    "ggml",
    "pytorch",
    "safetensors",
    "onnx",
    "nemo",
    "archive",
    "lfs",
    "page",
]

TRANSFORMERS_WEIGHTS = ("model.safetensors", "pytorch_model.bin", "flax_model.msgpack")

_WEIGHTS = "model.bin"

_MAGIC: tuple[tuple[bytes, Kind], ...] = (
    (b"GGUF", "ggml"),
    *((magic, "ggml") for magic in (b"lmgg", b"ggml", b"tjgg", b"fmgg")),
    (b"version https://git-lfs", "lfs"),
    *((magic, "page") for magic in (b"<!DOCTYPE", b"<!doctype", b"<html", b"<?xml")),
    *((magic, "archive") for magic in (b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!")),
)
_SUFFIXES: dict[str, Kind] = {
    **dict.fromkeys((".gguf", ".ggml"), "ggml"),
    **dict.fromkeys((".pt", ".pth", ".ckpt"), "pytorch"),
    ".safetensors": "safetensors",
    **dict.fromkeys((".onnx", ".ort"), "onnx"),
    ".nemo": "nemo",
    **dict.fromkeys((".zip", ".tar", ".gz", ".tgz", ".xz", ".bz2", ".7z", ".rar"), "archive"),
}

_CALLED: dict[Kind, str] = {
    "ctranslate2": "a file of a CTranslate2 model",
    "ggml": "a model of whisper.cpp",
    "pytorch": "a checkpoint of PyTorch",
    "safetensors": "a file of safetensors",
    "onnx": "an ONNX model",
    "nemo": "a model of NeMo, which is not Whisper",
    "archive": "an archive",
    "lfs": "a pointer of Git LFS and not the file itself (`git lfs pull` in its folder fetches it)",
    "page": "a web page, perhaps of a login",
}


def is_weights_name(name: str) -> bool:
    """Whether `name` is a file's, and no repository's."""
    suffix = Path(name).suffix.lower()
    return suffix == ".bin" or suffix in _SUFFIXES


def _kind_of(file: Path) -> Kind | None:
    """Return what `file` is, by its first bytes, then by its name; None where neither tells."""
    # How torch's files begin: a zip archive, and a pickle before that.
    torch = (b"PK\x03\x04", b"\x80\x02")
    head_bytes = 64
    try:
        with file.open("rb") as stream:
            head = stream.read(head_bytes)
    except OSError:
        head = b""
    suffix = file.suffix.lower()
    if b"WhisperSpec\0" in head:
        return "ctranslate2"
    if kind := next((kind for magic, kind in _MAGIC if head.startswith(magic)), None):
        return kind
    if head.startswith(torch) and (suffix == ".bin" or _SUFFIXES.get(suffix) == "pytorch"):
        return "pytorch"
    if suffix in _SUFFIXES:
        return _SUFFIXES[suffix]
    if suffix == ".bin" and file.name.startswith("ggml"):
        return "ggml"
    if head.startswith(b"PK\x03\x04"):
        return "archive"
    return None


def about_weights(file: Path) -> str:
    """Return what a model.bin is that is not CTranslate2's: ", but ..."; "" where nobody knows."""
    kind = _kind_of(file)
    return f", but {_CALLED[kind]}" if kind and kind != "ctranslate2" else ""


def about_file(file: Path) -> str:
    """Return what to do with a file where a folder should be."""
    kind = _kind_of(file)
    folder = file.parent
    if kind == "ctranslate2" or (kind is None and (folder / _WEIGHTS).is_file()):
        return f"{file} is a file of a model: give its folder, --model {_quoted(folder)}"
    if kind is None:
        return f"{file} is a file: --model takes a name, a hub repository (owner/name) or a folder"
    called = f"{file} is {_CALLED[kind]}"
    if kind == "archive":
        return f"{called}: unpack it, and give the folder with {_WEIGHTS}"
    if kind in ("lfs", "page", "nemo"):
        return called
    if kind in ("pytorch", "safetensors") and _is_transformers(folder):
        return f"{called}; {_conversion(folder)}"
    return f"{called}, which is not read here: {_instead(file.stem)}"


def about_folder(folder: Path) -> str:
    """Return what to do with a folder without a model.bin."""
    config = _config(folder)
    model_type = config.get("model_type")
    if isinstance(model_type, str) and model_type != "whisper":
        return f"{folder} holds a model of type {model_type[:50]!r}, not Whisper"
    if model_type == "whisper" or "WhisperForConditionalGeneration" in str(
        config.get("architectures")
    ):
        return f"{folder} holds a Whisper in transformers' layout; {_conversion(folder)}"
    if _is_transformers(folder):
        holds = f"{folder} holds weights of transformers"
        return f"{holds}; if they are Whisper's, {_conversion(folder)}"
    missing = f"{folder / _WEIGHTS} is missing"
    if inner := _model_inside(folder):
        return f"{missing}, but there is one in a folder below: --model {_quoted(inner)}"
    for file in _files(folder):
        if _kind_of(file) in ("ggml", "pytorch", "onnx", "nemo", "archive"):
            return f"{missing}; {about_file(file)}"
    return f"{missing}: {folder} is not the folder of a CTranslate2 model"


def conversion_command(source: str, output: str, names: AbstractSet[str]) -> str:
    """Return the command line that makes a CTranslate2 model of a Whisper of transformers.

    `names` are the files that `source` has.
    """
    copied = [name for name in ("tokenizer.json", "preprocessor_config.json") if name in names]
    words = ["ct2-transformers-converter", "--model", source, "--output_dir", output]
    if copied:
        words += ["--copy_files", *copied]
    return shlex.join([*words, "--quantization", "float16"])


def _conversion(folder: Path) -> str:
    output = f"{folder.resolve()}-ct2"
    command = conversion_command(str(folder), output, {file.name for file in _files(folder)})
    return (
        f"convert it with `{command}` (that needs `pip install transformers torch`), and give "
        f"--model {shlex.quote(output)}"
    )


def _instead(stem: str) -> str:
    """Return which model to name instead of a file that is called `stem`."""
    plain = re.sub(r"^(ggml|whisper|openai)-|-(q\d\w*|f16|fp16|encoder.*|decoder.*)$", "", stem)
    if plain in STOCK_MODELS:
        return f"--model {plain} is OpenAI's model of that name"
    return (
        "name a model that `wyoming-whisper models list` shows, or give the folder of a "
        "CTranslate2 model"
    )


def _is_transformers(folder: Path) -> bool:
    return any((folder / name).exists() for name in TRANSFORMERS_WEIGHTS) or any(
        re.fullmatch(r"(model|pytorch_model).*\.index\.json", file.name) for file in _files(folder)
    )


def _config(folder: Path) -> dict[str, object]:
    max_config_bytes = 1 << 20
    config = "config.json"
    try:
        with (folder / config).open("rb") as stream:
            content = json.loads(stream.read(max_config_bytes))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _model_inside(folder: Path) -> Path | None:
    # Where in a folder a model's may lie: one that was unpacked there, or the hub's cache.
    subfolders = ("*", "snapshots/*", "models--*/snapshots/*")
    files = (file for pattern in subfolders for file in folder.glob(f"{pattern}/{_WEIGHTS}"))
    try:
        return next((file.parent for file in files if _kind_of(file) == "ctranslate2"), None)
    except OSError:
        return None


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder, not too many."""
    max_files = 1000  # of a folder that may be anything
    try:
        for file, _ in zip(sorted(folder.iterdir()), range(max_files), strict=False):
            if file.is_file():
                yield file
    except OSError:
        return


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
