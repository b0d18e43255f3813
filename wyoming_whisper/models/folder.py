"""What a model's folder says of itself: whether it is whole, its shapes, languages, tokenizer."""

from __future__ import annotations

import functools
import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from ..engine.checkpoint import EMBEDDINGS, Checkpoint, Dims
from ..errors import ModelBrokenError
from ..whisper.tokenizer import LANGUAGES, Tokenizer
from .disk import matches_hash
from .formats import ForeignFile, ForeignFolder
from .model_json import JsonFile
from .stock import Layout, StockModel
from .vocabulary import Vocabulary

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class _Facts:
    """What a model's folder says of itself beyond the files of its layout."""

    languages: tuple[str, ...] | None = None
    """Whisper's codes of those that it was made to understand."""
    min_avg_logprob: float | None = None
    """Below it nothing is said rather than a guess."""
    tight_window: bool = False
    """It was trained on short windows."""

    @classmethod
    def of(cls, file: JsonFile) -> _Facts:
        """Return what is in `file`. Raises ModelBrokenError."""
        content = file.content
        languages = content.get("languages", ["en"])
        codes = [str(code) for code in languages] if isinstance(languages, list) else []
        if not codes or not set(codes) <= set(LANGUAGES):
            raise file.damaged("languages", "a list of Whisper's codes")
        logprob = content.get("min_avg_logprob")
        is_number = isinstance(logprob, int | float) and type(logprob) is not bool
        if logprob is not None and not (is_number and abs(logprob) <= 1e6):  # NaN is not below it
            raise file.damaged("min_avg_logprob", "a number")
        tight_window = content.get("tight_window", False)
        if not isinstance(tight_window, bool):
            raise file.damaged("tight_window", "true or false")
        return cls(tuple(codes), None if logprob is None else float(logprob), tight_window)


class ModelFolder:
    """One model's folder. Each file is read when it is first asked for, and once.

    Whatever is wrong with a file is a ModelBrokenError that names it.
    """

    WEIGHTS: ClassVar[Mapping[Layout, str]] = {
        "ctranslate2": "model.bin",
        "huggingface": "model.safetensors",
    }
    HUGGING_FACE_FILES = (
        "config.json",
        "generation_config.json",
        "preprocessor_config.json",
        "tokenizer_config.json",
        Vocabulary.TOKENIZER,
    )
    """What must lie beside model.safetensors."""
    CHECKSUMS = "SHA256SUMS"
    """What lies beside files that came from elsewhere than the hub, for `sha256sum --check`, and
    us."""
    EXTRAS = "wyoming_whisper.json"
    """What a model may say of itself, in either layout: {"languages": ["en"], ...}."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.weights = path / self.WEIGHTS["ctranslate2"]
        self.config = JsonFile(path / "config.json")
        self.vocabulary = Vocabulary(path)
        self._generation_config = JsonFile(path / "generation_config.json")

    @functools.cached_property
    def facts(self) -> _Facts:
        """What the model says of itself, if anything."""
        file = self.path / self.EXTRAS
        return _Facts.of(JsonFile(file)) if file.is_file() else _Facts()

    def checkpoint(self) -> Checkpoint:
        """Return the weights, mapped into memory: CTranslate2's."""
        if not self.weights.exists():
            raise ModelBrokenError(f"{self.weights} is missing")
        try:
            checkpoint = Checkpoint.read(self.weights)
        except ModelBrokenError as error:
            described = ForeignFile(self.weights).described
            if not described:
                raise
            raise ModelBrokenError(
                f"{self.weights} is not a CTranslate2 Whisper model, but {described}"
            ) from error
        if checkpoint.name != "WhisperSpec":
            raise ModelBrokenError(f"{self.weights} is not a CTranslate2 Whisper model")
        return checkpoint

    @functools.cached_property
    def shapes(self) -> Shapes:
        """Name -> shape of each of CTranslate2's weights."""
        return {name: array.shape for name, array in self.checkpoint().variables.items()}

    @functools.cached_property
    def dims(self) -> Dims:
        """What the Whisper in CTranslate2's weights measures."""
        return Dims.of(self.checkpoint())

    @functools.cached_property
    def is_multilingual(self) -> bool:
        """Whether the model is told its language, as CTranslate2 decides it."""
        if self._is_huggingface:
            is_told = self._generation_config.content.get("is_multilingual", self._language_ids)
            return bool(is_told)
        return self.vocabulary.is_multilingual

    def languages(self, name: str) -> tuple[str, ...]:
        """Return Whisper's codes of the languages that the model was made to understand.

        What its files say counts more than its `name`.
        """
        if not self.is_multilingual:
            return ("en",)
        if self.facts.languages:
            return self.facts.languages
        if StockModel.languages_of(name) == ("en",):
            return ("en",)
        if self._is_huggingface:
            present = set(self._language_ids)
        else:
            tokens, ids = self.vocabulary.tokens, self.config.whole_numbers("lang_ids")
            present = {tokens[i] for i in ids or range(len(tokens)) if 0 <= i < len(tokens)}
        languages = tuple(code for code in LANGUAGES if f"<|{code}|>" in present)
        return languages or (("en",) if self._is_huggingface else ())

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        import tokenizers

        try:
            text_tokenizer: Any = tokenizers.Tokenizer.from_str(self.vocabulary.tokenizer_json())
            tokenizer = Tokenizer(text_tokenizer, multilingual=self.is_multilingual)
            tokenizer.check()
        except ModelBrokenError:
            raise
        except Exception as error:  # tokenizers raises nothing more specific
            file = self.vocabulary.tokenizer_file
            raise ModelBrokenError(f"{file} can't be loaded: {error}") from error
        return tokenizer

    @property
    def suppressed_begin(self) -> list[int]:
        """The tokens that never come first in what the model writes."""
        return self.config.whole_numbers("suppress_ids_begin")

    @property
    def alignment_heads(self) -> list[tuple[int, int]]:
        """(layer, head) of the attention that looks at where a word is spoken; of models that don't
        tell, none.
        """
        return self.config.pairs("alignment_heads")

    def check(self, layout: Layout = "ctranslate2") -> None:
        """Raise ModelBrokenError unless here is a whole Whisper in this layout.

        Cheap: sizes and headers are looked at, not contents (`verify` does that). `tokenizer.json`
        may be absent: `vocabulary` makes one.
        """
        if not self.path.is_dir():
            raise ModelBrokenError(f"{self.path} is not a folder")
        if layout == "huggingface":
            _safetensors_shapes(self.path / self.WEIGHTS["huggingface"])
            for name in self.HUGGING_FACE_FILES:
                _ = JsonFile(self.path / name).content
            if (kind := self.config.content.get("model_type")) != "whisper":
                about = f"{self.config.path} is of a model of type {kind}, not whisper"
                raise ModelBrokenError(about)
            _ = self._language_ids, self.facts
            self.vocabulary.check_special_tokens(self._generation_config.content)
            return
        if not self.weights.exists():
            raise ModelBrokenError(ForeignFolder(self.path).advice)
        n_vocab = self.shapes.get(EMBEDDINGS, (None,))[0]
        for key in ("suppress_ids", "suppress_ids_begin", "lang_ids"):
            tokens = self.config.whole_numbers(key)
            if n_vocab is not None and not all(-1 <= token < n_vocab for token in tokens):
                raise self.config.damaged(key, f"of a model with {n_vocab} tokens")
        self.config.pairs("alignment_heads")
        _ = self.facts
        self.vocabulary.check(n_vocab)

    def verify(self) -> None:
        """Raise ModelBrokenError naming the first file whose content isn't what the hub sent.

        In the hub's cache a file is a link to a blob named by its hash, so this works offline; what
        came from elsewhere has its hashes beside it; other files have none and are passed over.
        """
        self.verify_sums()
        for file in sorted(self.path.iterdir()):
            if not file.is_symlink():
                continue
            blob = Path(os.path.normpath(self.path / file.readlink()))
            if blob.parent.name == "blobs" and matches_hash(blob, blob.name) is False:
                raise _corrupt(file, blob.name)

    def verify_sums(self) -> None:
        """Do so with the files whose hashes lie beside them."""
        sums = self.path / self.CHECKSUMS
        try:
            lines = sums.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            raise ModelBrokenError(f"{sums} is damaged: {error}") from error
        for line in lines:
            expected, _, name = line.partition("  ")
            file = self.path / Path(name).name
            try:
                is_right = matches_hash(file, expected)
            except OSError as error:
                raise ModelBrokenError(f"{file} can't be read: {error.strerror}") from error
            if is_right is False:
                raise _corrupt(file, expected)

    @property
    def _is_huggingface(self) -> bool:
        return not self.weights.exists() and self._generation_config.path.is_file()

    @property
    def _language_ids(self) -> dict[str, int]:
        return self._generation_config.numbers_by_name("lang_to_id")


def _corrupt(file: Path, expected: str) -> ModelBrokenError:
    return ModelBrokenError(f"{file} is corrupt: its content has not the hash {expected}")


def _safetensors_shapes(file: Path) -> Shapes:
    """Return name -> shape of each tensor in a safetensors file, reading only its header.

    Raises ModelBrokenError when the file is missing, cut off or nothing of the kind.
    Source: huggingface/safetensors, README.md, "Format".
    """
    try:
        with file.open("rb") as stream:
            header = _read_header(stream)
            start, size = stream.tell(), os.fstat(stream.fileno()).st_size
            end = start + max(int(entry["data_offsets"][1]) for entry in header.values())
            shapes = {name: tuple(map(int, entry["shape"])) for name, entry in header.items()}
    except FileNotFoundError as error:
        raise ModelBrokenError(f"{file} is missing") from error
    except OSError as error:
        raise ModelBrokenError(f"{file} can't be read: {error.strerror}") from error
    except (struct.error, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise ModelBrokenError(f"{file} is no safetensors file, or damaged: {error}") from error
    if size != end:
        raise ModelBrokenError(f"{file} has {size} bytes, not the {end} that it says")
    return shapes


def _read_header(stream: BinaryIO) -> dict[str, Any]:
    max_bytes = 100_000_000  # what the library of that name allows
    (length,) = struct.unpack("<Q", stream.read(8))
    if length > max_bytes:
        raise ValueError(f"its header is to have {length} bytes")
    header: dict[str, Any] = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    return header
