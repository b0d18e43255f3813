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
from functools import cached_property
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


class ForeignFile:
    """A file that is not, or not by itself, what --model can name."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @staticmethod
    def is_name(name: str) -> bool:
        """Whether `name` is a file's with weights, and no repository's."""
        suffix = Path(name).suffix.lower()
        return suffix == ".bin" or suffix in _SUFFIXES

    @cached_property
    def kind(self) -> Kind | None:
        """What it is, by its first bytes, then by its name; None where neither tells."""
        # How torch's files begin: a zip archive, and a pickle before that.
        torch = (b"PK\x03\x04", b"\x80\x02")
        head_bytes = 64
        try:
            with self.path.open("rb") as stream:
                head = stream.read(head_bytes)
        except OSError:
            head = b""
        suffix = self.path.suffix.lower()
        if b"WhisperSpec\0" in head:
            return "ctranslate2"
        if kind := next((kind for magic, kind in _MAGIC if head.startswith(magic)), None):
            return kind
        if head.startswith(torch) and (suffix == ".bin" or _SUFFIXES.get(suffix) == "pytorch"):
            return "pytorch"
        if suffix in _SUFFIXES:
            return _SUFFIXES[suffix]
        if suffix == ".bin" and self.path.name.startswith("ggml"):
            return "ggml"
        return "archive" if head.startswith(b"PK\x03\x04") else None

    @property
    def described(self) -> str:
        """What it is, for people; "" where nobody knows, or it is CTranslate2's."""
        return "" if self.kind in (None, "ctranslate2") else _CALLED[self.kind]

    @property
    def advice(self) -> str:
        """What to do with it where a folder should be."""
        file, kind, folder = self.path, self.kind, ForeignFolder(self.path.parent)
        if kind == "ctranslate2" or (kind is None and (folder.path / _WEIGHTS).is_file()):
            return f"{file} is a file of a model: give its folder, --model {_quoted(folder.path)}"
        if kind is None:
            takes = "--model takes a name, a hub repository (owner/name) or a folder"
            return f"{file} is a file: {takes}"
        called = f"{file} is {_CALLED[kind]}"
        if kind == "archive":
            return f"{called}: unpack it, and give the folder with {_WEIGHTS}"
        if kind in ("lfs", "page", "nemo"):
            return called
        if kind in ("pytorch", "safetensors") and folder.is_transformers:
            return f"{called}; {folder.conversion}"
        # As whisper.cpp and openai/whisper name their files.
        plain = re.sub(
            r"^(ggml|whisper|openai)-|-(q\d\w*|f16|fp16|encoder.*|decoder.*)$", "", file.stem
        )
        instead = f"--model {plain} is OpenAI's model of that name"
        if plain not in STOCK_MODELS:
            instead = (
                "name a model that `wyoming-whisper models list` shows, or give the folder of a "
                "CTranslate2 model"
            )
        return f"{called}, which is not read here: {instead}"


class ForeignFolder:
    """A folder without a model.bin."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def advice(self) -> str:
        """What to do with it."""
        folder, config = self.path, self._config
        model_type = config.get("model_type")
        if isinstance(model_type, str) and model_type != "whisper":
            return f"{folder} holds a model of type {model_type[:50]!r}, not Whisper"
        if model_type == "whisper" or "WhisperForConditionalGeneration" in str(
            config.get("architectures")
        ):
            return f"{folder} holds a Whisper in transformers' layout; {self.conversion}"
        if self.is_transformers:
            holds = f"{folder} holds weights of transformers"
            return f"{holds}; if they are Whisper's, {self.conversion}"
        missing = f"{folder / _WEIGHTS} is missing"
        if inner := self._model_inside():
            return f"{missing}, but there is one in a folder below: --model {_quoted(inner)}"
        for file in map(ForeignFile, self._files()):
            if file.kind in ("ggml", "pytorch", "onnx", "nemo", "archive"):
                return f"{missing}; {file.advice}"
        return f"{missing}: {folder} is not the folder of a CTranslate2 model"

    @property
    def is_transformers(self) -> bool:
        """Whether it holds weights as transformers has them."""
        if any((self.path / name).exists() for name in TRANSFORMERS_WEIGHTS):
            return True
        index = re.compile(r"(model|pytorch_model).*\.index\.json")
        return any(index.fullmatch(file.name) for file in self._files())

    @property
    def conversion(self) -> str:
        """How to make a CTranslate2 model of it."""
        output = f"{self.path.resolve()}-ct2"
        names = {file.name for file in self._files()}
        return (
            f"convert it with `{self.conversion_command(str(self.path), output, names)}` (that "
            f"needs `pip install transformers torch`), and give --model {shlex.quote(output)}"
        )

    @staticmethod
    def conversion_command(source: str, output: str, names: AbstractSet[str]) -> str:
        """Return the command line that makes a CTranslate2 model of a Whisper of transformers.

        `names` are the files that `source` has.
        """
        copied = [name for name in ("tokenizer.json", "preprocessor_config.json") if name in names]
        words = ["ct2-transformers-converter", "--model", source, "--output_dir", output]
        if copied:
            words += ["--copy_files", *copied]
        return shlex.join([*words, "--quantization", "float16"])

    @property
    def _config(self) -> dict[str, object]:
        try:
            with (self.path / "config.json").open("rb") as stream:
                content = json.loads(stream.read(1 << 20))
        except (OSError, ValueError, RecursionError):
            return {}
        return content if isinstance(content, dict) else {}

    def _model_inside(self) -> Path | None:
        # Where in a folder a model's may lie: one that was unpacked there, or the hub's cache.
        subfolders = ("*", "snapshots/*", "models--*/snapshots/*")
        files = (file for sub in subfolders for file in self.path.glob(f"{sub}/{_WEIGHTS}"))
        try:
            return next((f.parent for f in files if ForeignFile(f).kind == "ctranslate2"), None)
        except OSError:
            return None

    def _files(self, limit: int = 1000) -> Iterator[Path]:
        """Yield the files in it, of so many entries at most: it may be any folder."""
        try:
            yield from (file for file in sorted(self.path.iterdir())[:limit] if file.is_file())
        except OSError:
            return


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
