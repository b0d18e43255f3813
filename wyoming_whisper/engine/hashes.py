"""SHA-256 of files, each read once per process: an engine is opened again while somebody waits."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

MAX_REMEMBERED = 256
SETTLED_SECONDS = 1.0
"""A file changed less than this ago may change once more within the same tick of the file system's
clock; what is hashed faster than that is soon hashed again."""


_Identity = tuple[int, ...]
_remembered: dict[_Identity, str] = {}


def file_hash(file: Path) -> str:
    """Return the file's SHA-256; what has not changed since is not read again. Raises OSError."""
    block_bytes = 1 << 20
    with file.open("rb") as stream:
        identity = _identity(os.fstat(stream.fileno()))
        if identity in _remembered:
            return _remembered[identity]
        digest = hashlib.sha256()
        while block := stream.read(block_bytes):
            digest.update(block)
        status = os.fstat(stream.fileno())
    found = digest.hexdigest()
    if _identity(status) == identity and abs(time.time() - status.st_mtime) > SETTLED_SECONDS:
        if len(_remembered) >= MAX_REMEMBERED:
            _remembered.clear()
        _remembered[identity] = found
    return found


def _identity(status: os.stat_result) -> _Identity:
    return (
        *(status.st_dev, status.st_ino, status.st_size),
        *(status.st_mtime_ns, status.st_ctime_ns),
    )
