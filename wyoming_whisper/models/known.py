"""The stock models by name, and what a model's files are called."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from ..errors import ModelUnavailableError, UnknownModelError
from ..whisper.tokenizer import LANGUAGES
from .formats import about_file, is_weights_name
from .model_names import without_address
from .vocabulary import Vocabulary

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
    Vocabulary.TOKENIZER,
)
"""What must lie beside model.safetensors."""


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
TABLE = (
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
KNOWN_MODELS: dict[str, KnownModel] = {model.name: model for model in TABLE}


@dataclass(frozen=True)
class Reference:
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
SIMPLE_NAME = re.compile(_PART)
_REPO_NAME = re.compile(rf"{_PART}/{_PART}")


def _canonical(name: str) -> str:
    """Return the name in our table: the official server also takes `base.int8`."""
    return re.sub(r"\.int8$", "-int8", name)


def stock_model(name: str) -> KnownModel | None:
    """Return the stock model of a name in any case."""
    return KNOWN_MODELS.get(_canonical(name)) or KNOWN_MODELS.get(_canonical(name.lower()))


def languages_of_name(name: str) -> tuple[str, ...]:
    """Return Whisper's codes of the languages that a model of this name understands."""
    stock = stock_model(name)
    is_english = re.search(r"\.en\b", name.rstrip("/").rpartition("/")[2])
    if is_english or (stock is not None and stock.languages == "en"):
        return ("en",)
    has_yue = stock.languages.endswith("+yue") if stock else re.search(r"v3|turbo", name)
    return tuple(code for code in LANGUAGES if has_yue or code != "yue")


def resolve(name: str, settings: ModelSettings, layout: Layout = "ctranslate2") -> Reference:
    """Return what `name` stands for. Raises UnknownModelError."""
    name = without_address(name)
    if name.lower() == AUTO:  # backends.model_of resolves it, once what it runs on is known
        raise UnknownModelError("auto is a choice, not a model: name a model (models list)")
    known = KNOWN_MODELS.get(_canonical(name))
    if known is not None:
        return Reference(name, repo=known.repo_in(layout), layout=layout)
    path = _local_path(name)
    if path is None and SIMPLE_NAME.fullmatch(name):
        path = next((root / name for root in model_roots(settings) if (root / name).exists()), None)
    if path is not None:
        if not path.is_dir():
            raise UnknownModelError(about_file(path, KNOWN_MODELS))
        return Reference(name, folder=path, layout=layout)
    known = stock_model(name)
    if known is not None:  # after the folders, which may differ from it in case alone
        return Reference(known.name, repo=known.repo_in(layout), layout=layout)
    if _REPO_NAME.fullmatch(name) and not is_weights_name(name):
        return Reference(name, repo=name, layout=layout)
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


def model_roots(settings: ModelSettings) -> list[Path]:
    """Return the folders that may hold models, the download folder first."""
    return [*own_roots(settings), *([SHIPPED] if SHIPPED.is_dir() else [])]


def own_roots(settings: ModelSettings) -> list[Path]:
    first = (settings.download_dir,) if settings.download_dir else ()
    return list(dict.fromkeys((*first, *settings.data_dir)))


def shipped_model() -> str | None:
    """Return the name of the model that the installation brought along to be used."""
    try:
        return (SHIPPED / SHIPPED_NAME).read_text(encoding="utf-8").strip() or None
    except (OSError, ValueError):
        return None


def hub_caches(settings: ModelSettings) -> Iterator[Path]:
    """Yield the folders laid out as the hub's cache; `hub` is where HF_HOME=<data dir> puts it."""
    for root in model_roots(settings):
        yield root
        yield root / "hub"


def candidates(reference: Reference, settings: ModelSettings) -> Iterator[Path]:
    """Yield the folders where the model may be, best first."""
    if reference.to_convert:
        converted = converted_folder(reference.to_convert, settings)
        if converted.is_dir():
            yield converted
        return
    if reference.folder is not None:
        if reference.folder.is_dir():
            yield reference.folder
        return
    yield from plain_folders(reference, settings)
    for cache in hub_caches(settings):
        yield from snapshots(cache_folder(cache, reference.repo or ""))


def plain_folders(reference: Reference, settings: ModelSettings) -> Iterator[Path]:
    """Yield folders that were copied into a data folder under the model's or repository's name."""
    repo = reference.repo or ""
    names = dict.fromkeys((reference.name, repo, repo.rpartition("/")[2]))
    for root in model_roots(settings):
        for name in names:
            if (
                root / name / WEIGHTS_OF[reference.layout]
            ).exists():  # or else it is a folder of something else
                yield root / name


def cache_folder(cache: Path, repo: str) -> Path:
    return cache / f"models--{repo.replace('/', '--')}"


def snapshots(cache_folder: Path) -> list[Path]:
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


def converted_folder(source: Path, settings: ModelSettings) -> Path:
    """Return where the model in folder `source` is kept in Hugging Face's layout."""
    from ..engine.cache import weights_hash

    name = f"{source.name.strip('.')}-{weights_hash(source / WEIGHTS)[:16]}"
    return first_root(source.name, settings) / "huggingface" / name


def first_root(name: str, settings: ModelSettings) -> Path:
    roots = own_roots(settings)
    if not roots:
        raise ModelUnavailableError(f"no folder to download {name} to: set --data-dir")
    return roots[0]
