"""`wyoming-whisper [serve] ...`: answer Home Assistant."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import WyomingWhisperError
from ..settings.sources import ALL_OPTIONS
from .console import CommandParser, complain


def run(argv: Sequence[str]) -> int:
    """Serve until asked to stop; return the exit status. Raises SettingsError."""
    about = """\
Speech-to-text server for Home Assistant: the Wyoming protocol in front of Whisper.

commands:
  serve                        answer Home Assistant (what is done when no command is named)
  transcribe FILE...           write what is said in audio files
  models list|download|remove|path
                               see and manage the models on this machine
  engine build|list|remove|export|selftest
                               TensorRT engines, for NVIDIA GPUs
  ray deploy|status|remove     replicas on many machines
  health                       ask a running server whether it works

wyoming-whisper COMMAND --help tells more about each. serve takes the flags below."""
    parser = CommandParser("", about, ALL_OPTIONS, "[COMMAND] [flags]")
    _, settings = parser.start(argv)
    # Here, so that --help and mistakes are answered at once.
    from ..machine.process import NativeThread, leave
    from ..serving.server import Server

    status = 1
    try:
        status = Server.serve(settings)
    except WyomingWhisperError as error:
        complain(error)
    if NativeThread.is_any_alive():
        leave(status)
    return status
