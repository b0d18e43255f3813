"""Room on the disk, errors of the disk as sentences, hashes, and how far a download is."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from ..errors import ModelError, ModelRefusedError
from ..machine.display import Display
from ..machine.locks import locked

Report = Callable[[str, float], None]
"""Told what is downloaded, and which fraction of it is here."""
FULL = (errno.ENOSPC, errno.EDQUOT)
ADVICE = (
    "when this machine is online again, start again or run `models download`; or copy the model's "
    "folder from another machine and set --local-files-only"
)


class Progress:
    """Shows bytes done of a total, and tells `report` of them."""

    PROGRESS_S = 5.0
    """Between two log lines."""
    REPORT_S = 0.5

    def __init__(self, label: str, total: int, report: Report | None = None) -> None:
        self._label, self._total, self._report = label, total, report
        self._reported = -self.REPORT_S
        self._finished = 0  # bytes of the files before the current one
        self._began = time.monotonic()
        self._first: tuple[float, int] | None = None  # seconds, bytes
        self._display = Display(self.PROGRESS_S, total=total, desc=label, unit="B", unit_scale=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._display.close()

    def show(self, n_bytes: int) -> None:
        """Say that `n_bytes` of the current file are here."""
        done, now = self._finished + n_bytes, time.monotonic() - self._began
        if self._report and now - self._reported >= self.REPORT_S:
            self._reported = now
            self._report(self._label, done / max(self._total, 1))
        if self._first is None or done < self._first[1]:
            self._first = now, done
        since, before = self._first

        def line() -> str:
            speed = (done - before) / max(now - since, 1e-3)
            percent = 100 * done // max(self._total, 1)
            return (
                f"{self._label}: {megabytes(done)} of {megabytes(self._total)} ({percent} %), "
                f"{megabytes(speed)}/s"
            )

        self._display.show(done, now, line)

    def finish_file(self, n_bytes: int) -> None:
        self.show(n_bytes)
        self._finished += n_bytes


class Place:
    """Where the files of a repository are to go: `root`, one of the data folders."""

    def __init__(self, repo: str, root: Path) -> None:
        self.repo, self.root = repo, root

    @contextlib.contextmanager
    def errors(self, clean: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Turn the errors of disk and folders into sentences.

        When the disk is full, `clean` is called first: that breaks more than this download.
        Raises ModelRefusedError.
        """
        try:
            yield
        except ModelError:
            raise
        except OSError as error:
            if error.errno in FULL:
                clean()
                free = megabytes(self._free_bytes())
                message = (
                    f"the disk is full: {self.repo} doesn't fit into {self.root} ({free} free)"
                )
            elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                where = error.filename or self.root
                message = (
                    f"{where} can't be written to ({error.strerror}): {self.repo} has to go there"
                )
            else:
                message = f"{self.repo} can't be stored in {self.root}: {error}"
            raise ModelRefusedError(message) from error

    def check_room(self, needed: int, margin: int = 32 * 1024 * 1024) -> None:
        """Raise ModelRefusedError unless `needed` bytes are free, and `margin` beyond them.

        A full disk breaks more than us.
        """
        free = self._free_bytes()
        if needed and free < needed + margin:
            raise ModelRefusedError(
                f"not enough room for {self.repo} in {self.root}: {megabytes(needed)} needed, "
                f"{megabytes(margin)} to spare, {megabytes(free)} free"
            )

    def lock(self, name: str) -> AbstractContextManager[bool]:
        """Return what one process at a time can hold, as the hub's library does; see `locked`."""
        folder = self.root / ".locks" / f"models--{self.repo.replace('/', '--')}"
        return locked(folder / f"{name}.lock", f"another process is downloading {self.repo}")

    @staticmethod
    def is_stale(path: Path, age_s: float = 24 * 3600.0) -> bool:
        """Return whether a partial file is so old that it is rubbish: the hub's library never
        continues one. Raises OSError.
        """
        return time.time() - path.stat().st_mtime >= age_s

    def _free_bytes(self) -> int:
        """Return the free bytes where the folder is or will be."""
        paths = (self.root, *self.root.absolute().parents)
        return shutil.disk_usage(next(path for path in paths if path.exists())).free


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


def megabytes(n_bytes: float) -> str:
    return f"{n_bytes / 1e6:.1f} MB" if n_bytes < 10e6 else f"{n_bytes / 1e6:.0f} MB"
