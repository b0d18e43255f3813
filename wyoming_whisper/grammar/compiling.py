"""Templates of a language, compiled once and kept on disk.

They are compiled in a process of its own, which ends with its memory: the libraries for it are
imported nowhere else. `python -m wyoming_whisper.grammar.compiling CODE FILE` reads the user's own
sentences as JSON, and says in one sentence what went wrong.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..machine.files import write_file
from .templates import FORMAT, TemplateError, Templates, compile_templates

_LOGGER = logging.getLogger(__name__)

PACKAGES = ("hassil", "home-assistant-intents", "unicode-rbnf")
SECONDS = 120
"""Longest time for a language; a Raspberry Pi takes a tenth of it."""

MEMORY_BYTES = 1 << 30
"""Most address space of the process. German needs a fifth of it."""

Own = Sequence[Mapping[str, Any]]


class TemplateStore:
    """A folder with a file for each language, and for each home with sentences of its own."""

    def __init__(
        self, folder: Path, regions: Mapping[str, str] | None = None, n_kept: int = 1
    ) -> None:
        """`regions` by language (Whisper's code): Home Assistant has sentences of pt-BR, too.

        `n_kept` files of a language stay: homes have sentences of their own.
        """
        self._folder = folder
        self._regions = regions or {}
        self._n_kept = n_kept

    def templates(self, code: str, own: Own = ()) -> Templates:
        """Return the templates of a language, with the user's `own`; see `compile_intents`.

        Raises TemplateError where there are none, in one sentence.
        """
        region = self._regions.get(code)
        tag = f"{code}-{region}" if region else code
        file = self._folder / f"{code}-{_key(tag, own)}.npz"
        with contextlib.suppress(OSError, ValueError):
            return Templates.load(file)
        return self._compiled(code, tag, own, file)

    def _compiled(self, code: str, tag: str, own: Own, file: Path) -> Templates:
        try:
            with tempfile.TemporaryDirectory() as folder:
                made = Path(folder) / file.name
                _run(tag, own, made)
                templates, content = Templates.load(made), made.read_bytes()
        except (OSError, ValueError) as error:
            raise TemplateError(f"the sentences of {code!r} can't be made: {error}") from error
        try:
            write_file(file, content)
        except OSError as error:
            _LOGGER.warning("the sentences of %r are made anew at each start: %s", code, error)
        self._forget_others(code, file)
        return templates

    def _forget_others(self, code: str, file: Path) -> None:
        """Delete files of a language that are older than those that are kept."""
        made: list[tuple[float, Path]] = []
        for other in self._folder.glob(f"{code}-*.npz"):
            with contextlib.suppress(OSError):  # another process may be at it, too
                made.append((other.stat().st_mtime, other))
        others = [other for _, other in sorted(made, reverse=True) if other != file]
        for other in others[self._n_kept - 1 :]:
            with contextlib.suppress(OSError):
                other.unlink()


def _key(tag: str, own: Own) -> str:
    """Return what the file of a language depends on, as a name. Raises TemplateError."""
    try:
        versions = [version(package) for package in PACKAGES]
    except PackageNotFoundError as error:
        raise TemplateError(f"the package {error.name} is not installed") from None
    return hashlib.sha256(_json([FORMAT, versions, tag, own]).encode()).hexdigest()[:20]


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _run(code: str, own: Own, file: Path) -> None:
    """Compile in a process of its own. Raises TemplateError, OSError."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__, code, str(file)],
            input=_json(own),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=SECONDS,
            check=False,
            start_new_session=True,  # Ctrl-C is for the server
        )
    except subprocess.TimeoutExpired:
        raise TemplateError(f"the sentences of {code!r} took more than {SECONDS} s") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"]
        raise TemplateError(lines[-1][:300])


def main(code: str, file: str) -> int:
    """Compile the templates of a language into a file; return the exit status."""
    os.nice(10)  # the server answers meanwhile
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    try:
        compile_templates(code, json.load(sys.stdin)).save(Path(file))
    except (TemplateError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except MemoryError:
        print("the templates are too large", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
