"""Inference in a child, as it is measured: it transcribes, and comes back after a kill."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from benchmarks.faults import clip
from benchmarks.isolation import (
    IN_CHILD,
    IN_PROCESS,
    ChildTranscriber,
    open_in_child,
    processes,
    proportional_bytes,
    show,
)
from tests.support import HOME_EN
from wyoming_whisper.errors import TranscribeError
from wyoming_whisper.settings import Settings
from wyoming_whisper.transcriber import TranscribeOptions


def test_a_child_that_is_killed_is_an_error_and_then_there_again(tmp_path: Path) -> None:
    samples = clip().samples
    options = TranscribeOptions("en")
    transcriber = open_in_child(Settings(model=str(HOME_EN), data_dir=(tmp_path,)))
    try:
        text = transcriber.transcribe(samples, options).text
        assert text
        os.kill(_child(transcriber), signal.SIGKILL)
        with pytest.raises(TranscribeError, match="has died"):
            transcriber.transcribe(samples, options)
        assert transcriber.transcribe(samples, options).text == text
        assert proportional_bytes([_child(transcriber)]) > 20_000_000  # a model is in it
    finally:
        transcriber.close()


def _child(transcriber: ChildTranscriber) -> int:
    (pid,) = {transcriber._process.pid} & set(processes(os.getpid()))
    assert pid is not None
    return pid


def test_what_was_measured_is_shown_side_by_side() -> None:
    found = {
        "commands": {IN_PROCESS: [0.1, 0.2, 0.3], IN_CHILD: [0.15, 0.25, 0.4]},
        "memory": {IN_PROCESS: 70_000_000, IN_CHILD: 100_000_000},
        "recovery": {IN_PROCESS: [2.0, 3.0], IN_CHILD: [2.5, 3.5]},
        "waiting_python": 5_000_000,
    }
    shown = show(found)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in shown.splitlines()]
    assert ["memory of all its processes (Pss)", "70 MB", "100 MB", "30 MB"] in rows
    assert ["audio-stop to transcript, median", "200 ms", "250 ms", "50.0 ms"] in rows
    assert shown.endswith("waits for another process: 5 MB (Pss).")
