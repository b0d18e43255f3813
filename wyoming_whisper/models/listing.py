"""What `models list` shows: the models on this machine, and those that it could have."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import ModelBrokenError, ModelUnavailableError
from .folder import ModelFolder
from .model_json import JsonFile
from .stock import STOCK_MODELS, Layout
from .store import ModelStore

if TYPE_CHECKING:
    from ..settings.options import Settings


@dataclass(frozen=True)
class ModelEntry:
    """One line of `models list`."""

    name: str
    repo: str | None
    state: Literal["cached", "known", "broken"]
    """broken: files are here but missing, empty or cut off; known: can be downloaded."""
    size_bytes: int
    """On disk; of a download if it isn't here."""
    languages: str
    """Such as "en" or "multilingual+yue"."""
    path: Path | None
    problem: str = ""
    """What is wrong with one that is broken."""

    @classmethod
    def all(cls, settings: Settings) -> list[ModelEntry]:
        """Return the stock models, and whatever else lies in the data folders."""
        models, store = STOCK_MODELS.values(), ModelStore(settings)
        entries = [cls._of(model.name, store) for model in models if model.alias_of is None]
        stock = {model.repo for model in models}
        others = {name for name in _names_on_disk(store) if name not in stock}
        entries += [cls._of(name, store) for name in sorted(others)]
        whispers = {repo for repo, paths in _cached(store) if any(map(_is_whisper, paths))}
        for name in sorted(whispers - others - stock):
            entries.append(cls._of(name, store, "huggingface"))
        return entries

    @classmethod
    def _of(cls, name: str, store: ModelStore, layout: Layout = "ctranslate2") -> ModelEntry:
        reference = store.resolve(name, layout)
        repo, stock = reference.repo, STOCK_MODELS.get(name)
        size, languages = (stock.download_bytes, stock.languages) if stock else (0, "unknown")
        try:
            path = store.find(name, layout)
            languages = _describe_languages(ModelFolder(path).languages(name))
            return cls(name, repo, "cached", _model_bytes(path), languages, path)
        except ModelBrokenError as error:
            path = next(store.candidates(reference))
            return cls(name, repo, "broken", _model_bytes(path), languages, path, str(error))
        except ModelUnavailableError:
            return cls(name, repo, "known", size, languages, None)

    def as_json(self) -> dict[str, Any]:
        """Return it for machines."""
        path = None if self.path is None else str(self.path)
        return dataclasses.asdict(self) | {"path": path, "problem": self.problem or None}


def _cached(store: ModelStore) -> Iterator[tuple[str, list[Path]]]:
    """Yield (repository, snapshots) of what the caches hold, of other programs too."""
    for cache in store.hub_caches():
        for folder in sorted(cache.glob("models--*--*")):
            repo = folder.name.removeprefix("models--").replace("--", "/", 1)
            yield repo, store.snapshots(folder)


def _names_on_disk(store: ModelStore) -> Iterator[str]:
    """Yield the names of the models in the data folders: repositories and plain folders."""
    for repo, snapshots in _cached(store):
        if any(ModelFolder(path).weights.exists() for path in snapshots):
            yield repo
    stock = {model.repo.rpartition("/")[2] for model in STOCK_MODELS.values()} | {*STOCK_MODELS}
    for root in store.roots:
        for weights in sorted(root.glob(f"*/{ModelFolder.WEIGHTS['ctranslate2']}")):
            name = weights.parent.name
            if name not in stock and store.is_simple_name(name):
                yield name


def _is_whisper(snapshot: Path) -> bool:
    """Return whether it holds one in Hugging Face's layout."""
    if not (snapshot / ModelFolder.WEIGHTS["huggingface"]).exists():
        return False
    try:
        return JsonFile(snapshot / "config.json").content.get("model_type") == "whisper"
    except ModelBrokenError:
        return False


def _describe_languages(codes: tuple[str, ...]) -> str:
    if len(codes) < 10:
        return ",".join(codes)
    return "multilingual+yue" if "yue" in codes else "multilingual"


def _model_bytes(path: Path) -> int:
    """Return the size of a model's files, links followed."""
    return sum(file.stat().st_size for file in path.iterdir() if file.is_file())
