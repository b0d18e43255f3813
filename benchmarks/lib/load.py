"""Keeps one server transcribing: the same long recording again and again, on new connections.

`python -m benchmarks.lib.load --uri URI --audio FILE` runs until its stdin is closed, and writes how
long each transcript took as a line of its own. A process of its own, and the events made once: the
one that measures meanwhile must not wait for this one.
"""

from __future__ import annotations

import argparse
import io
import select
import socket
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from wyoming.asr import Transcript
from wyoming.audio import AudioStop
from wyoming.event import read_event, write_event

from benchmarks.lib.client import ANSWER_SECONDS, command_events
from wyoming_whisper.transcriber import Samples


def command_bytes(samples: Samples, chunk_ms: int) -> bytes:
    """Return all that a client sends for one command."""
    sent = io.BytesIO()
    for event in command_events(samples, chunk_ms=chunk_ms):
        write_event(event, sent)
    write_event(AudioStop().event(), sent)
    return sent.getvalue()


def transcribe(address: tuple[str, int], command: bytes) -> float:
    """Send one command; return the seconds until its transcript."""
    start = time.perf_counter()
    with socket.create_connection(address, timeout=ANSWER_SECONDS) as connection:
        connection.sendall(command)
        with connection.makefile("rb") as answers:
            while (event := read_event(answers)) is not None:
                if Transcript.is_type(event.type):
                    return time.perf_counter() - start
    raise ConnectionError("the server closed the connection without a transcript")


def main() -> None:
    """Transcribe until stdin is closed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--uri", required=True)
    parser.add_argument("--audio", type=Path, required=True, help="float32 samples, as .npy")
    parser.add_argument("--chunk-ms", type=int, default=10)
    args = parser.parse_args()
    parts = urlsplit(args.uri)
    command = command_bytes(np.load(args.audio), args.chunk_ms)
    while not select.select([sys.stdin], [], [], 0)[0]:
        print(transcribe((parts.hostname or "", parts.port or 0), command), flush=True)


if __name__ == "__main__":
    main()
