"""What a suite ends with, in one sentence each."""

from __future__ import annotations

from wyoming_whisper.errors import WyomingWhisperError


class BenchmarkError(WyomingWhisperError):
    """A benchmark can't go on."""


class ClipError(BenchmarkError):
    """A folder of recordings can't be used as one."""


class HomeError(BenchmarkError):
    """A file in homes/ can't be used as a household."""
