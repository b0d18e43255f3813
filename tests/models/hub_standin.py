"""A stand-in for the Hugging Face hub on 127.0.0.1: what its client calls, and its bad days."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import urlsplit

from tests.models.fakes import Files, etag
from tests.models.serving import serving

COMMIT = "c" * 40


@dataclass(frozen=True)
class Fault:
    """What happens to one GET of a file."""

    cut_after: int | None = None
    """Bytes after which the connection is closed."""
    stall_after: int | None = None
    """Bytes after which nothing more comes, though the connection stays."""
    status: int | None = None
    content: bytes | None = None
    """Sent in place of the file."""
    ignore_range: bool = False


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    range: str | None
    authorization: str | None


@dataclass
class HubStandin:
    """Repositories to serve, faults to come per file name ("info" for the listing)."""

    repos: dict[str, Files]
    url: str = ""
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    gated: dict[str, int] = field(default_factory=dict)
    """Repository -> HTTP status for those without the token "good"."""
    storage: bool = False
    """Large files are redirected to another host, as the hub does."""
    without_hashes: bool = False
    """As a mirror that lists names only."""
    requests: list[Request] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    """Set at the end: stalled answers wait for it."""

    def gets(self, name: str) -> list[Request]:
        """Return the GET requests that were answered with (a part of) the file `name`."""
        return [r for r in self.requests if r.method == "GET" and r.path.endswith("/" + name)]


@contextlib.contextmanager
def serve(repos: dict[str, Files]) -> Iterator[HubStandin]:
    """Serve `repos` on a free port until the block ends."""
    hub = HubStandin(repos)

    class Handler(_Handler):
        standin = hub

    with serving(Handler, hub.released) as address:
        hub.url = address
        yield hub


class _Handler(BaseHTTPRequestHandler):
    standin: HubStandin
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Tests read `requests`."""

    def _answer(self) -> None:
        path = urlsplit(self.path).path
        auth = self.headers.get("Authorization")
        request = Request(self.command, path, self.headers.get("Range"), auth)
        self.standin.requests.append(request)
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            self._info("/".join(parts[2:4]), auth)
        elif len(parts) == 5 and parts[2] == "resolve":
            self._file("/".join(parts[:2]), parts[4])
        elif parts[0] == "storage":
            self._content("/".join(parts[1:3]), parts[3])
        else:
            self._send(404, b"")

    def _info(self, repo: str, auth: str | None) -> None:
        if fault := self._fault("info"):
            self._send(fault.status or 500, fault.content or b"{}")
        elif repo not in self.standin.repos:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif repo in self.standin.gated and auth != "Bearer good":
            self._send(self.standin.gated[repo], b"{}")
        else:
            siblings = [self._sibling(*item) for item in self.standin.repos[repo].items()]
            info = {"id": repo, "modelId": repo, "sha": COMMIT, "siblings": siblings}
            self._send(200, json.dumps(info).encode(), {"Content-Type": "application/json"})

    def _sibling(self, name: str, content: bytes) -> dict[str, Any]:
        if self.standin.without_hashes:
            return {"rfilename": name}
        sibling = {"rfilename": name, "size": len(content), "blobId": etag("", content)}
        if name != "model.bin":
            return sibling
        lfs = {"size": len(content), "sha256": etag(name, content), "pointerSize": 134}
        return {**sibling, "lfs": lfs}

    def _file(self, repo: str, name: str) -> None:
        content = self.standin.repos[repo][name]
        headers = {"X-Repo-Commit": COMMIT}
        headers["X-Linked-Etag"] = f'"{etag(name, content)}"'
        headers["X-Linked-Size"] = str(len(content))
        if self.standin.storage and name == "model.bin":
            port = self.standin.url.rpartition(":")[2]
            location = f"http://localhost:{port}/storage/{repo}/{name}"
            self._send(302, b"", {**headers, "Location": location})
        else:
            self._content(repo, name, headers)

    def _content(self, repo: str, name: str, headers: dict[str, str] | None = None) -> None:
        fault = (self._fault(name) if self.command == "GET" else None) or Fault()
        if fault.status:
            self._send(fault.status, b"")
            return
        content = self.standin.repos[repo][name] if fault.content is None else fault.content
        first = int((self.headers.get("Range") or "bytes=0-")[6:].partition("-")[0])
        if fault.ignore_range or first == 0:
            self._send(200, content, headers or {}, fault)
        elif first >= len(content):
            self._send(416, b"")
        else:
            where = f"bytes {first}-{len(content) - 1}/{len(content)}"
            self._send(206, content[first:], {**(headers or {}), "Content-Range": where}, fault)

    def _fault(self, name: str) -> Fault | None:
        faults = self.standin.faults.get(name)
        return faults.pop(0) if faults else None

    def _send(
        self,
        status: int,
        body: bytes,
        headers: dict[str, str] | None = None,
        fault: Fault | None = None,
    ) -> None:
        self.send_response(status)
        for key, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        fault = fault or Fault()
        if fault.stall_after is not None:
            self.wfile.write(body[: fault.stall_after])
            self.wfile.flush()
            self.standin.released.wait(10)
            self.close_connection = True
        elif fault.cut_after is not None:
            self.wfile.write(body[: fault.cut_after])
            self.close_connection = True
        else:
            self.wfile.write(body)
