"""Small files: read as far as they are text of the user's, written whole or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def read_text_file(path: Path, *, plain_only: bool = False, max_bytes: int = 1_000_000) -> str:
    """Return the text of a UTF-8 file of `max_bytes` at most, without a byte order mark.

    With `plain_only` devices and pipes are refused unopened: opening a pipe waits for its writer.
    Raises ValueError, one sentence that begins with the path.
    """
    try:
        mode = path.stat().st_mode
        if plain_only and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise ValueError(f"{path} is a device or a pipe, not a plain file")
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)  # a device's size is 0, however much it gives
    except OSError as error:
        raise ValueError(f"{path} can't be read ({error.strerror})") from None
    if len(content) > max_bytes:
        raise ValueError(f"{path} is larger than {max_bytes // 1000} kB")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text") from None


def write_file(path: Path, content: bytes | memoryview) -> None:
    """Write a file that is whole or not there, whatever happens. Raises OSError."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
