"""Room on the disk, errors of the disk as sentences, hashes, and how far a download is."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import ModelError, ModelRefusedError
from ..machine.display import Display

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


@contextlib.contextmanager
def local_errors(name: str, folder: Path, clean: Callable[[], None]) -> Iterator[None]:
    """Turn the errors of disk and folders into sentences; `name` was to go to `folder`.

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
            message = _disk_full(name, folder)
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            where = error.filename or folder
            message = f"{where} can't be written to ({error.strerror}): {name} has to go there"
        else:
            message = f"{name} can't be stored in {folder}: {error}"
        raise ModelRefusedError(message) from error


def is_stale(path: Path, age_s: float = 24 * 3600.0) -> bool:
    """Return whether a partial file that nobody continues is rubbish, as the hub's library never
    continues one. Raises OSError.
    """
    return time.time() - path.stat().st_mtime >= age_s


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


def _disk_full(name: str, folder: Path) -> str:
    free = megabytes(_free_bytes(folder))
    return f"the disk is full: {name} doesn't fit into {folder} ({free} free)"


def check_room(name: str, folder: Path, needed: int) -> None:
    """Raise ModelRefusedError unless `needed` bytes, and some to spare, are free for `folder`."""
    # Left on the disk beyond the model itself: a full disk breaks more than us.
    free_margin_bytes = 32 * 1024 * 1024
    free = _free_bytes(folder)
    if needed and free < needed + free_margin_bytes:
        raise ModelRefusedError(
            f"not enough room for {name} in {folder}: {megabytes(needed)} needed, "
            f"{megabytes(free_margin_bytes)} to spare, {megabytes(free)} free"
        )


def _free_bytes(folder: Path) -> int:
    """Return the free bytes where `folder` is or will be."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free


def megabytes(n_bytes: float) -> str:
    return f"{n_bytes / 1e6:.1f} MB" if n_bytes < 10e6 else f"{n_bytes / 1e6:.0f} MB"
