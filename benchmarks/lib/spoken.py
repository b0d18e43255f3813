"""Sentences, spoken for benchmarks by synthesizers that are installed apart from this project."""

from __future__ import annotations

import json
import random
import subprocess
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.lib.clips import LABELS, noisy, write_wav
from benchmarks.lib.errors import ClipError
from wyoming_whisper.commands.client import read_audio
from wyoming_whisper.transcriber import SAMPLE_RATE, Samples

SYNTHESIZERS = Path(__file__).with_name("synthesizers.py")
VOICES = ("joe", "slt", "awb")
PACES = (0.9, 1.3)
"""The slowest and the fastest; people give commands quickly."""

# Every other sentence is heard from the other end of a room.
REVERBERATION_SECONDS = (0.2, 0.5)  # until it is 60 dB quieter
DIRECT_DECIBELS = 2.0  # of the direct sound above the reverberation
NOISE_DECIBELS = (8.0, 20.0)  # below the speech

PEAK = 0.25  # about what a microphone gives


@dataclass(frozen=True)
class Sentence:
    """What is to be said."""

    kind: str
    text: str
    voice: str
    """Of synthesizers.py."""


def speak(folder: Path, sentences: Sequence[Sentence], python: str) -> None:
    """Write each sentence as a WAV file, and labels.json, into `folder`; raises ClipError.

    `python` runs synthesizers.py, so what that needs has to be installed for it.
    """
    with tempfile.TemporaryDirectory() as temporary:
        files = [Path(temporary) / f"{number}.wav" for number in range(len(sentences))]
        jobs = [
            {
                "voice": one.voice,
                "text": one.text,
                "lang": "en",
                "pace": random.Random(f"{number} {one.text}").uniform(*PACES),
                "file": str(file),
            }
            for number, (one, file) in enumerate(zip(sentences, files, strict=True))
        ]
        synthesize(jobs, python)
        folder.mkdir(parents=True, exist_ok=True)
        labels = []
        for number, (one, file) in enumerate(zip(sentences, files, strict=True)):
            samples = read_audio(file)
            if number % 2:
                samples = in_a_room(samples, f"{number} {one.text}")
            name = f"{number:04}-{one.kind}.wav"
            write_wav(folder / name, samples * (PEAK / max(1e-9, float(np.abs(samples).max()))))
            labels.append({"file": name, "text": one.text, "kind": one.kind, "voice": one.voice})
    content = json.dumps(labels, ensure_ascii=False, indent=1)
    (folder / LABELS).write_text(content + "\n", encoding="utf-8")


def synthesize(jobs: Sequence[Mapping[str, object]], python: str) -> None:
    """Have `python` run synthesizers.py for these jobs. Raises ClipError."""
    command, asked = [python, str(SYNTHESIZERS)], "\n".join(map(json.dumps, jobs))
    done = subprocess.run(command, input=asked, capture_output=True, text=True)
    if done.returncode:
        raise ClipError(f"the synthesizers failed:\n{done.stderr[-2000:]}")


def in_a_room(samples: Samples, seed: str) -> Samples:
    """Return speech as a microphone far away hears it, in noise; the same for the same seed."""
    generator = np.random.default_rng(zlib.crc32(seed.encode()))
    seconds = generator.uniform(*REVERBERATION_SECONDS)
    n_tail = round(seconds * SAMPLE_RATE)
    decay = 10 ** (-3 * np.arange(n_tail) / n_tail)
    tail = generator.standard_normal(n_tail) * decay
    tail *= 10 ** (-DIRECT_DECIBELS / 20) / np.sqrt(np.sum(np.square(tail)))
    size = len(samples) + n_tail
    echo = np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(tail, size), size)
    heard = echo[: len(samples)] + samples
    return noisy(heard.astype(np.float32), float(generator.uniform(*NOISE_DECIBELS)), seed)
