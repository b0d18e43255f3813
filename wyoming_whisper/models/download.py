"""Fetches a model from the Hugging Face hub into its cache layout, where faster-whisper, the
official server and `ModelStore.find` all look.

The hub's library says what there is (names, sizes, hashes, tokens, proxies, HF_ENDPOINT); the bytes
are received here, because that library, as of 2.4, deletes what it has when a download breaks off
and starts again from nothing: on a poor line a large model would never arrive.
A file gets its name only when its hash is right, a model its folder only when it is whole.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import logging
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Set
from concurrent import futures
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from huggingface_hub.hf_api import ModelInfo, RepoSibling

from ..errors import ModelBrokenError, ModelError, ModelRefusedError, ModelUnavailableError
from ..machine.files import write_file
from .disk import (
    ADVICE,
    FULL,
    Place,
    Progress,
    Report,
    matches_hash,
    megabytes,
)
from .folder import ModelFolder
from .formats import TRANSFORMERS_WEIGHTS, ForeignFolder
from .stock import STOCK_MODELS, Layout

_LOGGER = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class _RemoteFile:
    name: str
    size: int
    etag: str
    """Its hash, and the name of its blob in the cache."""


class HubDownload:
    """Fetches the newest revision of `repo` (owner/name) into the cache `root`.

    What is already there and has the right hash is kept; what was cut off is continued. Safe
    beside another process (ours or the hub's own) that downloads the same. `report` is called with
    how much is here, about twice a second. `quick` gives up within seconds a hub that sends
    nothing: the caller knows another source.
    """

    PATTERNS: ClassVar[Mapping[Layout, tuple[str, ...]]] = {
        # faster_whisper.utils.download_model
        "ctranslate2": (
            "config.json",
            "preprocessor_config.json",
            "model.bin",
            "tokenizer.json",
            "vocabulary.*",
        ),
        # what transformers.AutoProcessor and TensorRT-LLM read; not the same weights in other types
        "huggingface": (
            *ModelFolder.HUGGING_FACE_FILES,
            ModelFolder.WEIGHTS["huggingface"],
            "added_tokens.json",
            "merges.txt",
            "normalizer.json",
            "special_tokens_map.json",
            "vocab.json",
        ),
    }
    """Of all files in a repository, those a model needs."""
    TIMEOUT_S = 15.0
    """Seconds without a byte (or without a connection) that count as a failure."""
    QUICK_S = 5.0
    """So long a hub that doesn't answer is waited for where there is another source."""
    RETRY_DELAYS_S = (1.0, 2.0, 4.0, 8.0)
    """Waits between tries; a try that brought bytes starts them anew."""
    NETWORK_ERRORS: tuple[type[Exception], ...] = (OSError, *HfHubHTTPError.__bases__)
    """What a request may raise: the base error of whatever HTTP library the hub's uses."""
    DISK_ERRORS = (*FULL, errno.EROFS, errno.EIO, errno.EFBIG)

    def __init__(
        self,
        repo: str,
        root: Path,
        *,
        token: str | None = None,
        report: Report | None = None,
        layout: Layout = "ctranslate2",
        quick: bool = False,
    ) -> None:
        self.repo, self.token, self.report = repo, token, report
        self.layout, self.quick = layout, quick
        self._place = Place(repo, root)
        self.endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"
        self._folder = root / f"models--{repo.replace('/', '--')}"
        self._blobs = self._folder / "blobs"

    def run(self) -> Path:
        """Return the folder of the snapshot. Blocks.

        Raises ModelError (no such repository), ModelUnavailableError (no network, not
        allowed: worth another try later), ModelRefusedError (no room), ModelBrokenError (the hub
        sends something else than it says).
        """
        if not _LOGGER.isEnabledFor(logging.DEBUG):  # other libraries' lines about single requests
            for name in ("httpx", "httpx2", "httpcore", "httpcore2", "huggingface_hub", "filelock"):
                logging.getLogger(name).setLevel(logging.ERROR)
        with self._place.errors(lambda: self._sweep(age_s=0)):
            ask = self._list_quickly if self.quick else self._list_files
            commit, files = self._retry(ask)
            self._blobs.mkdir(parents=True, exist_ok=True)
            missing = (
                max(0, file.size - _size(self._blobs / f"{file.etag}.incomplete"))
                for file in files
                if not (self._blobs / file.etag).exists()
            )
            self._place.check_room(sum(missing))
            total, root = sum(file.size for file in files), self._place.root
            _LOGGER.info("downloading %s (%s) to %s", self.repo, megabytes(total), root)
            with Progress(self.repo, total, self.report) as progress:
                for file in files:
                    self._fetch(commit, file, progress)
            snapshot = self._link(commit, files)
            self._sweep()
        _LOGGER.info("%s came from %s", self.repo, self.endpoint)
        return snapshot

    def _list_files(self) -> tuple[str, list[_RemoteFile]]:
        """Return the commit and the files that a model needs. Raises what the hub's does."""
        info = self._ask()
        siblings = [
            sibling
            for sibling in info.siblings or ()
            if "/" not in sibling.rfilename
            and any(fnmatchcase(sibling.rfilename, one) for one in self.PATTERNS[self.layout])
        ]
        if not re.fullmatch(r"[0-9a-f]{40}", info.sha or ""):  # becomes the name of a folder
            raise ModelUnavailableError(
                f"{self.endpoint} doesn't say which revision of {self.repo} it has"
            )
        weights = ModelFolder.WEIGHTS[self.layout]
        if weights not in {sibling.rfilename for sibling in siblings}:
            advice = "its weights are not there in Hugging Face's layout, in one file"
            if self.layout == "ctranslate2":
                advice = "it is not a CTranslate2 model (look for one named faster-whisper)"
                advice += _advice(self.repo, {sibling.rfilename for sibling in info.siblings or ()})
            raise ModelBrokenError(f"{self.repo} on {self.endpoint} has no {weights}: {advice}")
        commit = str(info.sha)
        files = [self._remote_file(commit, sibling) for sibling in siblings]
        return commit, sorted(files, key=lambda file: file.size)  # what is missing shows early

    def _list_quickly(self) -> tuple[str, list[_RemoteFile]]:
        """Do the same within self.QUICK_S.

        A name server that is silent, or an answer that drips, has no other end.
        """
        answer: futures.Future[tuple[str, list[_RemoteFile]]] = futures.Future()

        def ask() -> None:
            try:
                answer.set_result(self._list_files())
            except BaseException as error:
                answer.set_exception(error)

        threading.Thread(target=ask, name="hub", daemon=True).start()
        try:
            return answer.result(self.QUICK_S)
        except futures.TimeoutError:  # not Python's own before 3.11
            raise TimeoutError(f"no answer in {self.QUICK_S:.0f} s") from None

    def _ask(self) -> ModelInfo:
        api = HfApi(endpoint=self.endpoint, token=self.token)
        try:
            return api.model_info(
                self.repo, revision="main", files_metadata=True, timeout=self.TIMEOUT_S
            )
        except HFValidationError as error:
            about = f"{self.repo} is no name of a hub repository: {error}"
            raise ModelError(about, "unknown-model") from error
        except self.NETWORK_ERRORS:
            raise
        except Exception as error:  # whatever a captive portal's page does to the hub's parser
            raise ModelUnavailableError(
                f"{self.endpoint} doesn't answer as a model hub does ({error}): is there a login "
                "page or proxy between, or is HF_ENDPOINT wrong?"
            ) from error

    def _remote_file(self, commit: str, sibling: RepoSibling) -> _RemoteFile:
        etag = sibling.lfs.sha256 if sibling.lfs else sibling.blob_id
        size = sibling.lfs.size if sibling.lfs else sibling.size
        if etag is None or size is None:  # a mirror that doesn't list them
            url = self._url(commit, sibling.rfilename)
            metadata = get_hf_file_metadata(
                url, token=self.token, timeout=self.TIMEOUT_S, endpoint=self.endpoint
            )
            etag, size = metadata.etag, metadata.size
        if etag is None or size is None or not etag.isalnum():
            raise ModelBrokenError(
                f"{self.endpoint} doesn't say what {sibling.rfilename} should be"
            )
        return _RemoteFile(sibling.rfilename, size, etag)

    def _url(self, commit: str, name: str) -> str:
        return hf_hub_url(self.repo, name, revision=commit, endpoint=self.endpoint)

    def _fetch(self, commit: str, file: _RemoteFile, progress: Progress) -> None:
        """Put `file` under its hash into the cache, unless it is there already and right."""
        # Downloads of one file; one with a wrong hash twice is not a bad line but a bad source.
        hash_tries = 2
        blob = self._blobs / file.etag
        partial = self._blobs / f"{file.etag}.incomplete"
        with self._place.lock(file.etag):
            if blob.exists() and _is_right(blob, file):
                progress.finish_file(file.size)
                return
            if blob.exists():
                _LOGGER.warning("%s in %s is corrupt: fetching it again", file.name, self._folder)
                blob.unlink()
            for _ in range(hash_tries):
                self._receive(self._url(commit, file.name), partial, file.size, progress)
                if _is_right(partial, file):
                    partial.replace(blob)
                    progress.finish_file(file.size)
                    return
                _LOGGER.warning("%s of %s arrived with a wrong hash", file.name, self.repo)
                partial.unlink()
        raise ModelBrokenError(
            f"{file.name} of {self.repo} arrived {hash_tries} times with a wrong hash: "
            f"something between here and {self.endpoint} changes it"
        )

    def _receive(self, url: str, partial: Path, size: int, progress: Progress) -> None:
        """Continue `partial` until it has `size` bytes."""

        def receive_rest() -> None:
            if (done := _size(partial)) > size:  # of another file, or a server that sends too much
                partial.unlink()
                done = 0
            if done < size or size == 0:
                self._stream(url, partial, (done, size), progress)
            if _size(partial) < size:
                raise ConnectionError(
                    f"the connection closed after {_size(partial)} of {size} bytes"
                )

        self._retry(receive_rest, progressed=lambda: _size(partial))

    def _stream(self, url: str, partial: Path, extent: tuple[int, int], progress: Progress) -> None:
        """Append what the server still sends to `partial`; `extent`: bytes here, bytes expected."""
        hub: Any = importlib.import_module("huggingface_hub.utils")  # typed, but exports nothing
        headers = hub.build_hf_headers(token=self.token)
        done, size = extent
        headers["Accept-Encoding"] = "identity"  # sizes and ranges are those of the file
        if done:
            headers["Range"] = f"bytes={done}-"
        # The session drops the token when it is redirected to another host (the hub's storage).
        with hub.get_session().stream(
            "GET", url, headers=headers, timeout=self.TIMEOUT_S, follow_redirects=True
        ) as response:
            if response.status_code == 416:  # nothing after `done`: what is here isn't of this file
                partial.unlink(missing_ok=True)
            hub.hf_raise_for_status(response)
            resumed = response.status_code == 206
            done = done if resumed else 0
            with partial.open("ab" if resumed else "wb") as out:
                for block in response.iter_raw():
                    out.write(block)
                    done += len(block)
                    progress.show(min(done, size))
                    if done > size:  # not what was announced: no reason to fill the disk with it
                        break

    def _link(self, commit: str, files: list[_RemoteFile]) -> Path:
        """Make the snapshot: links named as the files are, then `refs/main`, which names it."""
        snapshot = self._folder / "snapshots" / commit
        snapshot.mkdir(parents=True, exist_ok=True)
        for file in files:
            aside = snapshot / f".{file.name}.{os.getpid()}"
            try:
                aside.symlink_to(Path("..", "..", "blobs", file.etag))
            except (
                OSError
            ):  # a file system without links (exFAT): the hub's library moves files too
                shutil.move(self._blobs / file.etag, aside)
            aside.replace(snapshot / file.name)
        write_file(self._folder / "refs" / "main", commit.encode())
        return snapshot

    def _sweep(self, **age_s: float) -> None:
        """Delete what cut-off downloads left."""
        for partial in self._blobs.glob("*.incomplete"):
            with contextlib.suppress(OSError):
                if Place.is_stale(partial, **age_s):
                    partial.unlink()

    def _retry(self, action: Callable[[], T], progressed: Callable[[], int] = lambda: 0) -> T:
        """Return what `action` returns; repeat it after failures of the network.

        Raises ModelError after as many failures in a row without more bytes than ever before.
        """
        best, failures = progressed(), 0
        while True:
            try:
                return action()
            except self.NETWORK_ERRORS as error:
                if (final := self._final(error)) is not None:
                    raise final from (None if final is error else error)
                if (now := progressed()) > best:
                    best, failures = now, 0
                if failures == (0 if self.quick and not best else len(self.RETRY_DELAYS_S)):
                    raise ModelUnavailableError(self._unreachable(error, failures + 1)) from error
                _LOGGER.debug("%s: %s; trying again", self.repo, error)
                time.sleep(self.RETRY_DELAYS_S[failures])
                failures += 1

    def _final(self, error: Exception) -> Exception | None:
        """Return what to raise for an error that trying again doesn't help; None for the others."""
        if isinstance(error, OfflineModeIsEnabled):
            return ModelRefusedError(
                f"{self.repo} is not here and HF_HUB_OFFLINE forbids to download it"
            )
        if isinstance(error, OSError) and (error.filename or error.errno in self.DISK_ERRORS):
            return error  # this machine's, not the network's: `Place.errors` says it
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status is None or status in (408, 416, 429) or status >= 500:
            return None
        if status == 404:
            return ModelError(f"there is no model {self.repo} on {self.endpoint}", "unknown-model")
        if status in (401, 403):
            token = "the hf_token given isn't" if self.token else "set hf_token to one that is"
            return ModelUnavailableError(
                f"{self.endpoint} doesn't give out {self.repo} (HTTP {status}): it doesn't exist, "
                f"or is private or gated and needs a token that is allowed to read it; {token}"
            )
        return ModelUnavailableError(f"{self.endpoint} answered HTTP {status} for {self.repo}")

    def _unreachable(self, error: Exception, tries: int) -> str:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        reason = re.sub(r"\?\S+", "", reason)  # a signed URL's query is as good as a password
        message = f"{self.repo} can't be downloaded from {self.endpoint} ({reason}"
        if self.quick:  # what to do is said when the other source has failed, too
            return f"{message})"
        return f"{message}; {tries} tries): {ADVICE}"


def _advice(repo: str, names: Set[str]) -> str:
    """Return what to do with a repository in another layout, whose files are `names`."""
    for stock in STOCK_MODELS.values():
        if stock.repo_in("huggingface") == repo:
            return f"; --model {stock.name} is the same model in that layout"
    if names.isdisjoint(TRANSFORMERS_WEIGHTS):
        return ""
    output = f"{repo.rpartition('/')[2]}-ct2"
    command = ForeignFolder.conversion_command(repo, output, names)
    return (
        f"; if it is a Whisper, `{command}` makes one of it (that needs "
        f"`pip install transformers torch`), which --model ./{output} then names"
    )


def _is_right(path: Path, file: _RemoteFile) -> bool:
    return path.stat().st_size == file.size and matches_hash(path, file.etag) is not False


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
