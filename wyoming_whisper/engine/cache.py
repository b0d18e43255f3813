"""Built engines on disk: a key -> a folder that holds exactly what was built for it, or nothing.

An entry is filled aside and renamed into place when its bytes are on the disk, so that a process
killed at any moment leaves a cache that works. Beside the plans lies `entry.json`: the key, and
each file's size and hash.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ModelError
from ..machine.locks import locked

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Key:
    """What an engine was built from and for; nothing that varies from start to start."""

    label: tuple[str, ...]
    """What people look for: the first parts of the name of the entry's folder."""
    facts: Mapping[str, Any]
    """All that another engine differs in, as JSON has it; `graph_schema` among it."""

    @property
    def name(self) -> str:
        """The entry's folder: the label, then a hash of everything."""
        text = json.dumps(self.facts, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        return "-".join((*map(_slug, self.label), digest))


@dataclass(frozen=True)
class Entry:
    """One line of `engine list`."""

    name: str
    path: Path
    model: str
    """The model's name at the time it was built."""
    precision: str
    runtime: str
    """What runs it, and its version where only that one can."""
    device: str
    size_bytes: int
    used: float
    """Seconds since the epoch."""


class EngineCache:
    """Entries under `root`, together no more than `max_bytes`, the one in use not counted out.

    What is under one of `others` is found, too, and never changed: what an image or another machine
    has built.
    """

    SIDECAR = "entry.json"
    _BUILDING = ".building-"
    _TRASH = ".trash-"
    _LOCKS = ".locks"
    _TIMING = "timing"
    KERNELS = "kernels"

    def __init__(self, root: Path, max_bytes: int, others: Sequence[Path] = ()) -> None:
        self.root = root
        self.max_bytes = max_bytes
        self._others = others
        self._refused: set[str] = set()

    def find(self, key: Key) -> Path | None:
        """Return the folder of what was built for `key`, its files compared with their hashes.

        They are read once per process, and again where they have changed. What is cut, changed or
        of another key is removed.
        """
        for root in (self.root, *self._others):
            folder, is_ours = root / key.name, root == self.root
            if not _is_folder(folder) or (not is_ours and key.name in self._refused):
                continue
            wrong = _what_is_wrong(folder, key)
            if not wrong:
                if is_ours:
                    with contextlib.suppress(OSError):  # a cache that can only be read serves too
                        os.utime(folder / EngineCache.SIDECAR)
                return folder
            removed = ": removed" if is_ours else ""
            _LOGGER.warning("the engine in %s is of no use (%s)%s", folder, wrong, removed)
            if is_ours:
                with contextlib.suppress(OSError):
                    self.discard(key.name)
        return None

    def ensure(
        self,
        key: Key,
        build: Callable[[Path], None],
        model: str = "",
        stop: threading.Event | None = None,
    ) -> Path:
        """Return the folder for `key`; where there is none, `build` fills one.

        One process builds at a time, others wait for it. What is there already is found where
        nothing can be written, too. `model` is its name, for people. Raises ModelError, and what
        `build` raises.
        """

        def check_stop() -> None:
            if stop is not None and stop.is_set():
                raise ModelError("the wait for another process's engine was stopped")

        busy = "another process builds this engine"
        folder = self.find(key)
        if folder is None:
            try:
                with locked(self._lock_file(key.name), busy, check_stop):
                    folder = self.find(key) or self._fill(key, build, model)
            except OSError as error:
                raise ModelError(
                    f"the engine can't be kept in {self.root}: {error.strerror or error}"
                ) from error
        self._remove_older(key)
        self.tidy(keep=key.name)
        return folder

    def discard(self, name: str) -> int:
        """Remove an entry at once, so that nobody finds it any more; return the bytes freed.

        What lies under one of `others` is passed over from now on. Raises OSError.
        """
        self._refused.add(name)
        folder = self.root / name
        size = _size(folder)
        aside = self.root / f"{self._TRASH}{name}-{os.getpid()}"
        _delete(aside)
        _delete(
            self.root / self.KERNELS / name
        )  # of one under `others`, too: they may be the fault
        folder.rename(aside)
        _delete(aside)
        return size

    def entries(self, *, with_others: bool = False) -> list[Entry]:
        """Return all entries, the latest used first; those without a readable sidecar too.

        Those under `others` only with `with_others`.
        """
        roots = [self.root, *(self._others if with_others else ())]
        entries = [_entry(folder) for root in roots for folder in self._folders(root)]
        return sorted(entries, key=lambda entry: entry.used, reverse=True)

    def tidy(self, keep: str = "") -> None:
        """Remove what dead builders left, then the longest unused entries beyond `max_bytes`.

        Entries that the runtime and device of `keep` can't use go first.
        """
        with contextlib.suppress(OSError):
            self._sweep()
            entries = self.entries()
            total = sum(entry.size_bytes for entry in entries)
            kept = next((entry for entry in entries if entry.name == keep), None)
            use = (kept.runtime, kept.device) if kept else None
            for entry in sorted(
                entries, key=lambda e: (use in (None, (e.runtime, e.device)), e.used)
            ):
                if total <= self.max_bytes:
                    break
                if entry.name != keep:
                    _LOGGER.info("removed the engine %s: it was not used for longest", entry.name)
                    total -= self.discard(entry.name)

    def timing_cache(self, tensorrt: str, device: str) -> Path:
        """Return the file for TensorRT's timings, which are good for one version and device."""
        return self.root / self._TIMING / f"trt{_slug(tensorrt)}-{_slug(device)}.cache"

    def kernels(self, name: str, device: str, cuda_version: str) -> Path:
        """Return the file for what TensorRT-RTX compiles of an engine on one GPU.

        The driver compiles: the files of other versions of it are removed.
        """
        folder = self.root / self.KERNELS / name
        file = folder / f"{_slug(device)}-cuda{cuda_version}.cache"
        with contextlib.suppress(OSError):
            for old in folder.glob(f"{_slug(device)}-cuda*.cache"):
                if old != file:
                    old.unlink()
        return file

    def _folders(self, root: Path) -> list[Path]:
        try:
            paths = list(root.iterdir())
        except OSError:  # it is not there, or only others may read it
            return []
        return [
            path
            for path in paths
            if _is_folder(path)
            and not path.name.startswith(".")
            and path.name not in (self._TIMING, self.KERNELS)
        ]

    def _remove_older(self, key: Key) -> None:
        """Remove what an older version of ours made in the place of what `key` names.

        Then only the graphs differ, and are of an older schema.
        """
        new = dict(key.facts)
        schema = new.pop("graph_schema")
        for folder in self._folders(self.root):
            with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
                old = dict(_read_sidecar(folder)["key"])
                if old.pop("graph_schema") < schema and old == new:
                    _LOGGER.info("removed the engine %s: it is of an older version", folder.name)
                    self.discard(folder.name)

    def _fill(self, key: Key, build: Callable[[Path], None], model: str) -> Path:
        for left in self.root.glob(f"{self._BUILDING}{key.name}-*"):  # its builder is dead: we hold
            _delete(left)  # its lock
        # Not tempfile's, which only its owner may read: other users' servers share engines.
        aside = self.root / f"{self._BUILDING}{key.name}-{secrets.token_hex(4)}"
        aside.mkdir()
        try:
            build(aside)
            _seal(aside, key, model)
            folder = self.root / key.name
            aside.rename(folder)
            _sync(self.root)
        except BaseException:
            _delete(aside)
            raise
        return folder

    def _sweep(self) -> None:
        for left in self.root.glob(f"{self._TRASH}*"):
            _delete(left)
        for left in self.root.glob(f"{self._BUILDING}*"):
            name = left.name.removeprefix(self._BUILDING).rpartition("-")[0]
            with locked(self._lock_file(name)) as ours:
                if ours:
                    _delete(left)
        # Kernels of engines that are gone: under `others`, who changes them tells nobody.
        for kernels in self._folders(self.root / self.KERNELS):
            if not any(_is_folder(root / kernels.name) for root in (self.root, *self._others)):
                _delete(kernels)

    def _lock_file(self, name: str) -> Path:
        return self.root / self._LOCKS / f"{name}.lock"


def weights_hash(model_bin: Path) -> str:
    """Return the file's SHA-256; in the hub's cache it is the name of what the link points to."""
    blob = model_bin.resolve()
    if blob.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{64}", blob.name):
        return blob.name
    return _file_hash(model_bin)


def _is_folder(path: Path) -> bool:
    """Return whether it is one that can be looked at; of another user's none may be."""
    return os.path.isdir(path)  # noqa: PTH112  (Path's raises PermissionError before Python 3.14)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.") or "unknown"


def _seal(folder: Path, key: Key, model: str) -> None:
    """Describe the files, and have all bytes on the disk before the folder gets its name."""
    files = {}
    for file in sorted(path for path in folder.iterdir() if path.is_file()):
        _sync(file)
        files[file.name] = {"bytes": file.stat().st_size, "sha256": _file_hash(file)}
    sidecar = folder / EngineCache.SIDECAR
    content = {"key": key.facts, "model": model, "files": files}
    sidecar.write_text(json.dumps(content, indent=1), encoding="utf-8")
    _sync(sidecar)
    _sync(folder)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _what_is_wrong(folder: Path, key: Key) -> str | None:
    try:
        content = _read_sidecar(folder)
        if content["key"] != key.facts:
            return "it was built for something else"
        for name, facts in content["files"].items():
            file = folder / Path(name).name
            if file.stat().st_size != facts["bytes"] or _file_hash(file) != facts["sha256"]:
                return f"{name} is damaged"
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        return f"{EngineCache.SIDECAR} is damaged: {error!r}"
    return None


def _read_sidecar(folder: Path) -> dict[str, Any]:
    max_sidecar_bytes = 1 << 20
    with (folder / EngineCache.SIDECAR).open("rb") as file:
        content: dict[str, Any] = json.loads(file.read(max_sidecar_bytes))
    return content


def _entry(folder: Path) -> Entry:
    facts: dict[str, Any] = {}
    used = 0.0
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
        used = (folder / EngineCache.SIDECAR).stat().st_mtime
        content = _read_sidecar(folder)
        facts = {"model": content.get("model"), **content.get("key", {})}
    kept = ("model", "precision", "runtime", "device")
    fields = {name: str(facts.get(name) or "?") for name in kept}
    if version := facts.get("version"):
        fields["runtime"] += f" {version}"
    size = _size(folder) + _size(folder.parent / EngineCache.KERNELS / folder.name)
    return Entry(folder.name, folder, **fields, size_bytes=size, used=used)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _delete(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)


_Identity = tuple[int, ...]
_remembered: dict[_Identity, str] = {}


def _file_hash(file: Path, max_remembered: int = 256, settled_seconds: float = 1.0) -> str:
    """Return the file's SHA-256; what has not changed since is not read again. Raises OSError.

    An engine is opened again while somebody waits. A file changed less than `settled_seconds` ago
    may change once more within the same tick of the file system's clock; what is hashed faster than
    that is soon hashed again.
    """
    block_bytes = 1 << 20
    with file.open("rb") as stream:
        identity = _identity(os.fstat(stream.fileno()))
        if identity in _remembered:
            return _remembered[identity]
        digest = hashlib.sha256()
        while block := stream.read(block_bytes):
            digest.update(block)
        status = os.fstat(stream.fileno())
    hashed = digest.hexdigest()
    if _identity(status) == identity and abs(time.time() - status.st_mtime) > settled_seconds:
        if len(_remembered) >= max_remembered:
            _remembered.clear()
        _remembered[identity] = hashed
    return hashed


def _identity(status: os.stat_result) -> _Identity:
    return (
        *(status.st_dev, status.st_ino, status.st_size),
        *(status.st_mtime_ns, status.st_ctime_ns),
    )
