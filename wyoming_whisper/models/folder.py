"""What a model's folder says of itself: whether it is whole, its shapes, its languages."""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import ModelBrokenError
from ..whisper.tokenizer import LANGUAGES
from .formats import about_folder, about_weights
from .known import (
    CHECKSUMS,
    CONFIG,
    ENGLISH_NAME,
    GENERATION_CONFIG,
    HUGGING_FACE_FILES,
    HUGGING_FACE_WEIGHTS,
    KNOWN_MODELS,
    WEIGHTS,
    Layout,
    stock_model,
)
from .model_json import damaged, numbers_by_name, pairs, read_facts, read_json, whole_numbers
from .vocabulary import check_special_tokens, check_vocabulary, read_vocabulary

MAX_HEADER_BYTES = 100_000_000  # of a safetensors file: what its library allows
EMBEDDINGS = "decoder/embeddings/weight"
"""Of CTranslate2's weights the one with a row for each token."""
MULTILINGUAL_VOCABULARY = 51_865
"""Tokens of a stock model that is told its language; English-only ones have one token less, and no
empty one, which is how CTranslate2 tells them apart."""


def model_languages(name: str, path: Path | None) -> tuple[str, ...]:
    """Return Whisper's codes of the languages that the model was made to understand.

    `path` is the model's folder where it is known: what its files say counts more than its name.
    Raises ModelBrokenError when those files are damaged.
    """
    known = stock_model(name)
    if path is not None and (languages := read_facts(path).languages):
        return languages
    if known is not None and known.languages == "en":
        return ("en",)
    if ENGLISH_NAME.search(name.rstrip("/").rpartition("/")[2]):
        return ("en",)
    if path is not None:
        return _languages_of_files(path)
    has_yue = known.languages.endswith("+yue") if known else re.search(r"v3|turbo", name)
    return tuple(code for code in LANGUAGES if has_yue or code != "yue")


def check_model(path: Path, layout: Layout = "ctranslate2") -> None:
    """Raise ModelBrokenError, naming the file, unless `path` holds a whole Whisper in this layout.

    Cheap: sizes and headers are looked at, not contents (`verify_hashes` does that).
    `tokenizer.json` may be absent: `vocabulary.tokenizer_json` makes one.
    """
    if not path.is_dir():
        raise ModelBrokenError(f"{path} is not a folder")
    if layout == "huggingface":
        _check_huggingface(path)
        return
    if not (path / WEIGHTS).exists():
        raise ModelBrokenError(about_folder(path, KNOWN_MODELS))
    shapes = weights_shapes(path / WEIGHTS)
    n_vocab = shapes.get(EMBEDDINGS, (None,))[0]
    config = read_json(path / CONFIG)
    for key in ("suppress_ids", "suppress_ids_begin", "lang_ids"):
        tokens = whole_numbers(config, key, path / CONFIG)
        if n_vocab is not None and not all(-1 <= token < n_vocab for token in tokens):
            raise damaged(path / CONFIG, key, f"of a model with {n_vocab} tokens")
    pairs(config, "alignment_heads", path / CONFIG)
    read_facts(path)
    check_vocabulary(path, n_vocab)


def _check_huggingface(path: Path) -> None:
    safetensors_shapes(path / HUGGING_FACE_WEIGHTS)
    for name in HUGGING_FACE_FILES:
        read_json(path / name)
    if (kind := read_json(path / CONFIG).get("model_type")) != "whisper":
        raise ModelBrokenError(f"{path / CONFIG} is of a model of type {kind}, not whisper")
    _language_ids(path)
    read_facts(path)
    check_special_tokens(path, read_json(path / GENERATION_CONFIG))


def verify_hashes(snapshot: Path) -> None:
    """Raise ModelBrokenError naming the first file whose content isn't what the hub sent.

    In the hub's cache a file is a link to a blob named by its hash, so this works offline; what
    came from elsewhere has its hashes beside it; other files have none and are passed over.
    """
    verify_sums(snapshot)
    for file in sorted(snapshot.iterdir()):
        if not file.is_symlink():
            continue
        blob = Path(os.path.normpath(snapshot / file.readlink()))
        if blob.parent.name == "blobs" and matches_hash(blob, blob.name) is False:
            raise ModelBrokenError(f"{file} is corrupt: its content has not the hash {blob.name}")


def verify_sums(folder: Path) -> None:
    try:
        lines = (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise ModelBrokenError(f"{folder / CHECKSUMS} is damaged: {error}") from error
    for line in lines:
        expected, _, name = line.partition("  ")
        file = folder / Path(name).name
        try:
            right = matches_hash(file, expected)
        except OSError as error:
            raise ModelBrokenError(f"{file} can't be read: {error.strerror}") from error
        if right is False:
            raise ModelBrokenError(f"{file} is corrupt: its content has not the hash {expected}")


def matches_hash(file: Path, etag: str) -> bool | None:
    """Return whether `file` has the hash `etag`; None if that is no hash known here.

    The hub names large files by SHA-256 and small ones as git does. Raises OSError.
    """
    if re.fullmatch(r"[0-9a-f]{64}", etag):
        digest = hashlib.sha256()
    elif re.fullmatch(r"[0-9a-f]{40}", etag):
        digest = hashlib.sha1(usedforsecurity=False)
        digest.update(b"blob %d\0" % file.stat().st_size)
    else:
        return None
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest() == etag


def weights_shapes(model_bin: Path) -> dict[str, tuple[int, ...]]:
    """Return name -> shape of each weight in a CTranslate2 model, reading only the headers.

    Raises ModelBrokenError when the file is missing, empty, cut off or no Whisper model.
    Source: CTranslate2, python/ctranslate2/specs/model_spec.py:_serialize.
    """
    try:
        with model_bin.open("rb") as file:
            return _read_shapes(file, model_bin)
    except FileNotFoundError as error:
        raise ModelBrokenError(f"{model_bin} is missing") from error
    except OSError as error:
        raise ModelBrokenError(f"{model_bin} can't be read: {error.strerror}") from error
    except EOFError as error:
        raise ModelBrokenError(f"{model_bin} is cut off: {error}") from error


def safetensors_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Return name -> shape of each tensor in a safetensors file, reading only its header.

    Raises ModelBrokenError when the file is missing, cut off or nothing of the kind.
    Source: huggingface/safetensors, README.md, "Format".
    """
    try:
        with file.open("rb") as stream:
            header = _safetensors_header(stream)
            start, size = stream.tell(), os.fstat(stream.fileno()).st_size
            end = start + max(int(entry["data_offsets"][1]) for entry in header.values())
            shapes = {name: tuple(map(int, entry["shape"])) for name, entry in header.items()}
    except FileNotFoundError as error:
        raise ModelBrokenError(f"{file} is missing") from error
    except OSError as error:
        raise ModelBrokenError(f"{file} can't be read: {error.strerror}") from error
    except (EOFError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise ModelBrokenError(f"{file} is no safetensors file, or damaged: {error}") from error
    if size != end:
        raise ModelBrokenError(f"{file} has {size} bytes, not the {end} that it says")
    return shapes


def _safetensors_header(stream: BinaryIO) -> dict[str, Any]:
    (length,) = _unpack(stream, "<Q")
    if length > MAX_HEADER_BYTES:
        raise ValueError(f"its header is to have {length} bytes")
    header: dict[str, Any] = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    return header


def _read_shapes(file: BinaryIO, model_bin: Path) -> dict[str, tuple[int, ...]]:
    if os.fstat(file.fileno()).st_size == 0:
        raise ModelBrokenError(f"{model_bin} is empty")
    (version,) = _unpack(file, "<I")
    # The layout below is that of versions 4 to now; Whisper came with version 6.
    if not 4 <= version <= 100 or _read_string(file) != "WhisperSpec":
        raise ModelBrokenError(
            f"{model_bin} is not a CTranslate2 Whisper model{about_weights(model_bin)}"
        )
    _revision, n_variables = _unpack(file, "<II")
    shapes = {}
    for _ in range(n_variables):
        name = _read_string(file)
        (rank,) = _unpack(file, "<B")
        shapes[name] = _unpack(file, f"<{rank}I")
        _dtype, n_bytes = _unpack(file, "<BI")
        file.seek(n_bytes, os.SEEK_CUR)
    _unpack(file, "<I")  # the number of aliases; not there if the last weight is cut off
    return shapes


def _unpack(file: BinaryIO, layout: str) -> tuple[int, ...]:
    wanted = struct.calcsize(layout)
    data = file.read(wanted)
    if len(data) < wanted:
        size = os.fstat(file.fileno()).st_size
        raise EOFError(f"it ends at {size} bytes, before its last weight")
    return struct.unpack(layout, data)


def _read_string(file: BinaryIO) -> str:
    (length,) = _unpack(file, "<H")
    return file.read(length).rstrip(b"\0").decode("utf-8", errors="replace")


def is_multilingual(path: Path) -> bool:
    """Return whether the model in `path` is told its language, as CTranslate2 decides it.

    Raises ModelBrokenError.
    """
    if _is_huggingface(path):
        known = read_json(path / GENERATION_CONFIG)
        return bool(known.get("is_multilingual", _language_ids(path)))
    return _tells_language(read_vocabulary(path))


def _is_huggingface(path: Path) -> bool:
    return not (path / WEIGHTS).exists() and (path / GENERATION_CONFIG).is_file()


def suppressed_begin(path: Path) -> list[int]:
    """Return the tokens that never come first in what the model in `path` writes.

    Raises ModelBrokenError.
    """
    return whole_numbers(read_json(path / CONFIG), "suppress_ids_begin", path / CONFIG)


def alignment_heads(path: Path) -> list[tuple[int, int]]:
    """Return (layer, head) of the attention that looks at where a word is spoken; of models that
    don't tell, none. Raises ModelBrokenError.
    """
    file = path / "config.json"
    try:
        heads = read_json(file).get("alignment_heads") or ()
        return [(int(layer), int(head)) for layer, head in heads]
    except (TypeError, ValueError) as error:
        raise ModelBrokenError(f"{file} is damaged: alignment_heads are no pairs") from error


def _tells_language(tokens: list[str]) -> bool:
    return len(tokens) >= MULTILINGUAL_VOCABULARY or "" in tokens


def _languages_of_files(path: Path) -> tuple[str, ...]:
    if _is_huggingface(path):
        known = _language_ids(path)
        found = tuple(code for code in LANGUAGES if f"<|{code}|>" in known)
        return found if found and is_multilingual(path) else ("en",)
    tokens = read_vocabulary(path)
    if not _tells_language(tokens):
        return ("en",)
    ids = whole_numbers(read_json(path / CONFIG), "lang_ids", path / CONFIG)
    present = {tokens[i] for i in ids or range(len(tokens)) if 0 <= i < len(tokens)}
    return tuple(code for code in LANGUAGES if f"<|{code}|>" in present)


def _language_ids(path: Path) -> dict[str, int]:
    file = path / GENERATION_CONFIG
    return numbers_by_name(read_json(file), "lang_to_id", file)


def describe_languages(codes: tuple[str, ...]) -> str:
    if len(codes) < 10:
        return ",".join(codes)
    return "multilingual+yue" if "yue" in codes else "multilingual"
