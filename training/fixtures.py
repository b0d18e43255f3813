"""Short recordings for the project's tests: `python -m training.fixtures --work DIR`.

Drawn at random from the held-out voices and sentences, by a fixed seed and before any model has
heard them, so that they stand for all of them. Writes FLAC files and labels.json.
"""

import argparse
import json
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from training import augment, speak
from training.augment import Audio
from training.features import RATE

FOLDER = Path(__file__).parent.parent / "tests" / "audio"
SEED = 2026
CLEAN, NOISY = 17, 4
WORDS = range(3, 11)  # in a sentence
LONG_SECONDS = 36.0
PEAK = 0.2  # about what a microphone gives
NOISE_DECIBELS = 10.0

Spoken = tuple[speak.Utterance, speak.Samples]
Clip = tuple[str, str, str, Audio]  # kind, text, voice, sound


def _silence(seconds: float) -> Audio:
    return np.zeros(int(seconds * RATE), np.float32)


def _sound(spoken: Spoken) -> Audio:
    samples = spoken[1].astype(np.float32)
    sound: Audio = samples * np.float32(PEAK / max(1.0, float(np.abs(samples).max())))
    return sound


def _padded(sound: Audio) -> Audio:
    return np.concatenate([_silence(0.3), sound, _silence(0.4)])


def clips(drawn: Iterator[Spoken], g: np.random.Generator) -> Iterator[Clip]:
    """All clips, in the order they are drawn."""
    for _ in range(CLEAN):
        utterance, samples = next(drawn)
        yield "clean", utterance.text, utterance.voice, _padded(_sound((utterance, samples)))
    for _ in range(NOISY):
        spoken = next(drawn)
        sound = _sound(spoken)
        audio = _padded(sound)
        noise = augment.coloured(len(audio), 1.0, g)
        noise /= augment.rms(noise)
        audio = augment.with_noise(audio, noise, NOISE_DECIBELS, augment.rms(sound))
        yield "noisy", spoken[0].text, spoken[0].voice, audio
    yield long_clip(drawn, g)
    yield "silence", "", "", _silence(3)
    kitchen = augment.kitchen(3 * RATE, g)
    yield "noise", "", "", kitchen * np.float32(0.03 / augment.rms(kitchen))


def long_clip(drawn: Iterator[Spoken], g: np.random.Generator) -> Clip:
    """Sentences with pauses between them, longer than Whisper's window."""
    texts, voices = [], []
    audio = _silence(0.3)
    while len(audio) < LONG_SECONDS * RATE:
        spoken = next(drawn)
        pause = _silence(float(g.uniform(0.5, 1.2)))
        audio = np.concatenate([audio, _sound(spoken), pause])
        texts.append(spoken[0].text)
        voices.append(spoken[0].voice)
    return "long", " ".join(texts), " ".join(voices), audio


def main() -> None:
    """Write the clips and their labels."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder with the dev speech")
    parser.add_argument("--output", type=Path, default=FOLDER)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    everything = speak.load(args.work / "speech", "dev")
    held_out = [spoken for spoken in everything if len(spoken[0].text.split()) in WORDS]
    random.Random(SEED).shuffle(held_out)
    labels, size = [], 0
    for number, clip in enumerate(clips(iter(held_out), np.random.default_rng(SEED))):
        kind, text, voice, audio = clip
        path = args.output / f"{number:02}-{kind}.flac"
        soundfile.write(path, (audio * 32767).astype(np.int16), RATE, "PCM_16")
        size += path.stat().st_size
        labels.append({"file": path.name, "text": text, "kind": kind, "voice": voice})
    content = json.dumps(labels, indent=1) + "\n"
    (args.output / "labels.json").write_text(content, encoding="utf-8")
    print(f"{len(labels)} clips, {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
