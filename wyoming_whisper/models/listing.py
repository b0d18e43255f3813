"""The models on this machine: what there is, and deleting it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import ModelBrokenError, ModelError, ModelUnavailableError
from .find import find_model
from .folder import ModelFolder
from .mirror import Mirror
from .model_json import JsonFile
from .stock import STOCK_MODELS, Layout
from .store import ModelSettings, ModelStore, Reference


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


def list_models(settings: ModelSettings) -> list[ModelEntry]:
    """Return the stock models, and whatever else lies in the data folders."""
    models, store = STOCK_MODELS.values(), ModelStore(settings)
    entries = [_entry(model.name, settings) for model in models if model.alias_of is None]
    stock = {model.repo for model in models}
    others = {name for name in _names_on_disk(store) if name not in stock}
    entries += [_entry(name, settings) for name in sorted(others)]
    for name in sorted(set(_huggingface_on_disk(store)) - others - stock):
        entries.append(_entry(name, settings, "huggingface"))
    return entries


def remove_model(name: str, settings: ModelSettings, layout: Layout = "ctranslate2") -> int:
    """Delete the model `name` from the data folders, with what cut-off downloads left.

    Returns the bytes freed. Raises ModelError for anything outside the data folders,
    ModelUnavailableError when there is nothing to remove.
    """
    store = ModelStore(settings)
    reference = store.resolve(name, layout)
    targets = _removable(reference, store)
    if not targets:
        raise store.not_here(reference)
    return sum(_delete(target) for target in targets)


def _entry(name: str, settings: ModelSettings, layout: Layout = "ctranslate2") -> ModelEntry:
    store = ModelStore(settings)
    reference = store.resolve(name, layout)
    repo, stock = reference.repo, STOCK_MODELS.get(name)
    try:
        path = find_model(name, settings, layout)
        languages = _describe_languages(ModelFolder(path).languages(name))
        return ModelEntry(name, repo, "cached", _model_bytes(path), languages, path)
    except ModelBrokenError as error:
        path = next(store.candidates(reference))
        languages = stock.languages if stock else "unknown"
        return ModelEntry(name, repo, "broken", _model_bytes(path), languages, path, str(error))
    except ModelUnavailableError:
        size, languages = (stock.download_bytes, stock.languages) if stock else (0, "unknown")
        return ModelEntry(name, repo, "known", size, languages, None)


def _names_on_disk(store: ModelStore) -> Iterator[str]:
    """Yield the names of the models in the data folders: repositories and plain folders."""
    for cache in store.hub_caches():
        for folder in sorted(cache.glob("models--*--*")):
            repo = folder.name.removeprefix("models--").replace("--", "/", 1)
            if any(ModelFolder(path).weights.exists() for path in store.snapshots(folder)):
                yield repo  # other programs cache other things there too
    stock = {model.repo.rpartition("/")[2] for model in STOCK_MODELS.values()} | {*STOCK_MODELS}
    for root in store.roots:
        for weights in sorted(root.glob(f"*/{ModelFolder.WEIGHTS['ctranslate2']}")):
            name = weights.parent.name
            if name not in stock and store.is_simple_name(name):
                yield name


def _huggingface_on_disk(store: ModelStore) -> Iterator[str]:
    """Yield the repositories in the caches that hold a Whisper in Hugging Face's layout."""
    for cache in store.hub_caches():
        for folder in sorted(cache.glob("models--*--*")):
            whole = any(_is_whisper(path) for path in store.snapshots(folder))
            if whole:
                yield folder.name.removeprefix("models--").replace("--", "/", 1)


def _is_whisper(snapshot: Path) -> bool:
    """Return whether it holds one in Hugging Face's layout: other programs cache other things."""
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


def _removable(reference: Reference, store: ModelStore) -> list[Path]:
    """Return what to delete. Raises ModelError for a folder outside the data folders."""
    if reference.folder is not None:
        return [_inside(reference.folder, store)]
    targets = [_inside(path, store) for path in store.plain_folders(reference)]
    for folder in store.cache_folders(reference.repo or ""):
        targets += [folder, folder.parent / ".locks" / folder.name]
    for root in store.own_roots:
        targets += Mirror.leftovers(reference.repo or "", root)
    return [path for path in dict.fromkeys(targets) if path.is_dir() and not path.is_symlink()]


def _inside(folder: Path, store: ModelStore) -> Path:
    """Return what a model folder in a data folder is part of, links resolved."""
    real = folder.resolve()
    for root in (path.resolve() for path in store.roots):
        if real == root or not real.is_relative_to(root):
            continue
        # A snapshot alone would leave its blobs, which are the bytes.
        cached = [part for part in (real, *real.parents) if part.name.startswith("models--")]
        return cached[0] if cached and cached[0].is_relative_to(root) else real
    roots = ", ".join(str(root) for root in store.roots)
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
