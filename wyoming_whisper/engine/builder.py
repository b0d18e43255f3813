"""The child that builds an engine, as its parent sees it: progress, end, error."""

from __future__ import annotations

import contextlib
import json
import logging
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import IO, cast

from ..errors import ModelError
from .progress import BuildProgress
from .spec import BuildRequest

_LOGGER = logging.getLogger(__name__)


class EngineBuild:
    """One child that builds; `run` blocks, `cancel` may come from any thread."""

    STALL_SECONDS = 7200.0
    """A build that gets no further for so long hangs. TensorRT 8 doesn't tell how far it is, and
    takes more than half an hour for a large model on a small Jetson."""
    KILL_AFTER_SECONDS = 3.0
    STDERR_LINES = 20
    MAX_LINE_BYTES = 1 << 16
    MAX_ERROR_LENGTH = 500  # TensorRT's sentences may be long, and of several lines

    def __init__(
        self, request: BuildRequest, on_progress: Callable[[BuildProgress], None] | None = None
    ) -> None:
        self._request = request
        self._on_progress = on_progress or (lambda _: None)
        self._cancelled = threading.Event()
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._stderr: deque[str] = deque(maxlen=self.STDERR_LINES)
        self._error = ""
        self._progress: tuple[str, float] | None = None
        self._moved = time.monotonic()

    def run(self) -> None:
        """Build. Raises ModelError with what the child said, or how it ended."""
        child = _start()
        readers = [
            threading.Thread(target=read, args=(stream,), daemon=True)
            for read, stream in (
                (self._read_stdout, child.stdout),
                (self._read_stderr, child.stderr),
            )
        ]
        for reader in readers:
            reader.start()
        try:
            stdin = cast("IO[bytes]", child.stdin)
            with contextlib.suppress(BrokenPipeError):  # it has ended: its exit status tells
                stdin.write(self._request.to_json().encode() + b"\n")
                stdin.close()
            while (line := self._next_line()) is not None:
                self._take(line)
            if not self._cancelled.is_set():
                child.wait()
        finally:
            _end(child, self.KILL_AFTER_SECONDS)
            for reader in readers:
                reader.join(self.KILL_AFTER_SECONDS)
            for stream in filter(None, (child.stdin, child.stdout, child.stderr)):
                with contextlib.suppress(OSError):
                    stream.close()
        if self._cancelled.is_set():
            raise ModelError("the building of the engine was stopped")
        if child.returncode:
            raise ModelError(f"the engine could not be built: {self._why(child.returncode)}")

    def cancel(self) -> None:
        """End the child within KILL_AFTER_SECONDS; `run` then raises."""
        self._cancelled.set()
        self._lines.put(None)

    def _next_line(self) -> bytes | None:
        left = self._moved + self.STALL_SECONDS - time.monotonic()
        with contextlib.suppress(queue.Empty):
            if left > 0:
                return self._lines.get(timeout=left)
        raise ModelError(
            f"the building of the engine was ended: it got no further for "
            f"{self.STALL_SECONDS / 60:.0f} minutes"
        )

    def _read_stdout(self, stream: IO[bytes]) -> None:
        while line := stream.readline(self.MAX_LINE_BYTES):
            self._lines.put(line)
        self._lines.put(None)

    def _read_stderr(self, stream: IO[bytes]) -> None:
        while line := stream.readline(self.MAX_LINE_BYTES):
            text = line.decode(errors="replace").strip()
            if text:
                self._stderr.append(text)
                _LOGGER.debug("builder: %s", text)

    def _take(self, line: bytes) -> None:
        try:
            fields = json.loads(line)
            if "phase" in fields:
                progress = BuildProgress(**fields)
                if (progress.phase, progress.fraction) != self._progress:
                    self._progress = progress.phase, progress.fraction
                    self._moved = time.monotonic()
                self._on_progress(progress)
            elif "error" in fields:
                self._error = " ".join(str(fields["error"]).split())[: self.MAX_ERROR_LENGTH]
            elif "log" in fields:
                _LOGGER.debug("TensorRT: %s", fields["log"])
        except (ValueError, TypeError):
            _LOGGER.debug("builder: %r", line)

    def _why(self, code: int) -> str:
        if self._error:
            return self._error
        ended = f"its process ended with code {code}"
        if code < 0:
            ended = f"its process was ended by {signal.Signals(-code).name}"
            if -code == signal.SIGKILL:
                ended += " (for want of memory, most likely)"
        return f"{ended}: {self._stderr[-1]}" if self._stderr else ended


def _start() -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for us, and we tell it
        )
    except OSError as error:  # no memory, no processes left
        raise ModelError(
            f"no process can be started to build the engine: {error.strerror}"
        ) from error


def _end(child: subprocess.Popen[bytes], kill_after_seconds: float) -> None:
    """End the child if it still runs."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(kill_after_seconds)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
