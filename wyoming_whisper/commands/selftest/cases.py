"""What both runtimes hear: three spoken clips, and noise, in several windows."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ...engine.spec import EngineSpec
from ...errors import SettingsError
from ...transcriber import SAMPLE_RATE
from ...whisper.audio import N_FRAMES, log_mel_spectrogram, pad_or_trim, silence_level, white_noise

if TYPE_CHECKING:
    from ...whisper.audio import Array
    from ...whisper.options import AudioContext
    from ...whisper.tokenizer import Tokenizer
CLIPS = Path(__file__).parent / "clips"
LANGUAGE = "en"
NOISE_SECONDS = 2.0
NOISE = "noise"
FULL_WINDOW = "full window"


@dataclass(frozen=True)
class Case:
    """One thing to be heard."""

    name: str
    mel: Array = field(repr=False)
    """Padded to its window, shape = (n_mels, n_frames)."""
    prompt: tuple[int, ...]
    beam_size: int = 1
    sound: str = ""
    """Which of `sounds` it is."""


def make_cases(
    n_mels: int,
    tokenizer: Tokenizer,
    context: AudioContext,
    beam_size: int = 1,
) -> list[Case]:
    """Return the clips in their own windows, one in the full one, one after a long prompt."""
    # More than one call of the decoder takes.
    long_prompt_tokens = 100
    sot = (*tokenizer.sot_sequence(LANGUAGE), tokenizer.no_timestamps)
    # Of TensorRT's windows; onnxruntime gets the same ones.
    fitted = dataclasses.replace(context, multiple=EngineSpec.FRAMES_MULTIPLE)
    mels = {name: log_mel_spectrogram(samples, n_mels) for name, samples in sounds().items()}
    spoken = [name for name in mels if name != NOISE]

    def window(mel: Array, n_frames: int) -> Array:
        return pad_or_trim(mel, n_frames, silence_level(mel))

    cases = [
        Case(name, window(mel, fitted.frames(mel.shape[1])), sot, sound=name)
        for name, mel in mels.items()
    ]
    first = cases[0]
    past = (tokenizer.encode(" " + ", ".join(spoken)) * long_prompt_tokens)[:long_prompt_tokens]
    prompt = (tokenizer.sot_prev, *past, *sot)
    cases.append(Case(f"{spoken[0]}, long prompt", first.mel, prompt, sound=spoken[0]))
    full = window(mels[spoken[0]], N_FRAMES)
    cases.append(Case(f"{spoken[0]}, {FULL_WINDOW}", full, sot, sound=spoken[0]))
    if beam_size > 1:
        cases += [dataclasses.replace(c, beam_size=beam_size) for c in cases[: len(spoken)]]
    return cases


def sounds() -> dict[str, Array]:
    """Return what is heard: the clips by what is said in them, and noise."""
    from ..client import read_audio

    found = {file.stem.replace("-", " "): read_audio(file) for file in sorted(CLIPS.glob("*.wav"))}
    if not found:
        raise SettingsError(f"{CLIPS} holds no clips: this installation is not whole")
    return found | {NOISE: _noise()}


def _noise() -> Array:
    n_samples = round(NOISE_SECONDS * SAMPLE_RATE)
    return white_noise(n_samples, 0.02)
