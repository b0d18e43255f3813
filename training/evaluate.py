"""Measure the bundled model: `python -m training.evaluate --work DIR`.

Word error rates on voices and sentences never trained on, what names in the prompt do, what is
made of noise, and what confidence is worth. `--calibrate` writes the confidence below which the
server should refuse a transcript into the model's wyoming_whisper.json. `--recordings DIR` adds
real people: DIR/commands, DIR/barista (out of domain), DIR/noise. Results: DIR/evaluation.json.
"""

import argparse
import json
import random
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from training import augment, speak
from training.augment import Audio
from training.export import BUNDLED, FACTS
from training.features import RATE
from training.recognise import Heard, Recogniser, tight
from training.scoring import word_error_rate

NOISE_DECIBELS = 10.0
NO_SPEECH = 0.6  # faster-whisper's threshold
USUAL = 12  # times a usual word is in the training sentences
LOST = 0.02  # share of correct transcripts that the confidence threshold may cost
NAMES = 6  # in a prompt


@dataclass(frozen=True)
class Clip:
    """A sentence and its sound; the text is "" where nothing is to be understood."""

    text: str
    audio: Audio


def held_out(work: Path, name: str, count: int) -> list[Clip]:
    """The first utterances of a set, at the level of a microphone."""
    loaded = speak.load(work / "speech", name)[:count]
    return [Clip(u.text, samples.astype(np.float32) / np.float32(65536)) for u, samples in loaded]


def noisy(clips: Sequence[Clip], bank: augment.NoiseBank, g: np.random.Generator) -> list[Clip]:
    """Every clip with noise NOISE_DECIBELS below its speech."""
    made = []
    for clip in clips:
        noise = bank.take(len(clip.audio), g)
        level = augment.rms(clip.audio)
        audio = augment.with_noise(clip.audio, noise, NOISE_DECIBELS, level)
        made.append(Clip(clip.text, audio))
    return made


def usual_words(work: Path) -> set[str]:
    """Words that training saw often: the vocabulary of commands, not the dictionary's."""
    text = (work / "text" / "train.txt").read_text(encoding="utf-8")
    return {word for word, count in Counter(text.split()).items() if count >= USUAL}


def recording(path: Path) -> Audio:
    """A sound file as 16 kHz mono."""
    audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
    mono: Audio = audio.mean(axis=1)
    if rate != RATE:
        mono = np.asarray(soxr.resample(mono, rate, RATE), np.float32)
    return mono


def percent(share: float) -> str:
    """0.0345 as " 3.5 %"."""
    return f"{100 * share:5.1f} %"


class Evaluation:
    """One model and everything measured on it."""

    def __init__(self, recogniser: Recogniser, seed: int) -> None:
        self._recogniser = recogniser
        self._r = random.Random(seed)
        self.results: dict[str, Any] = {}

    def _hear(self, clip: Clip, **options: Any) -> Heard:
        return self._recogniser.hear(tight(clip.audio), **options)

    def windows(self, sets: dict[str, list[Clip]], usual: set[str]) -> None:
        """Word error rates: each set and its sentences of usual words, each window and prompt."""
        conditions: dict[str, dict[str, Any]] = {
            "tight": {},
            "tight_timestamps": {"timestamps": True},
            "full": {"full": True},
            "full_timestamps": {"full": True, "timestamps": True},
            "tight_beam_5": {"beam": 5},
        }
        print("word error rate            tight   tight+ts       30 s    30 s+ts   tight beam 5")
        for name, clips in sets.items():
            rows: dict[str, dict[str, float]] = {name: {}, f"{name}, usual": {}}
            for condition, options in conditions.items():
                pairs = [(clip.text, self._hear(clip, **options).text) for clip in clips]
                of_usual = [pair for pair in pairs if usual.issuperset(pair[0].split())]
                for row, some in zip(rows.values(), (pairs, of_usual), strict=True):
                    row[condition] = round(word_error_rate(some), 4)
            for label, row in rows.items():
                print(f"{label:21} " + "    ".join(map(percent, row.values())), flush=True)
            self.results |= rows

    def names(self, clips: Sequence[Clip]) -> None:
        """How often a name is lost: alone, with it in the prompt, with only others there."""
        spans = [self._span(clip.text) for clip in clips]
        pairs = [(clip, span) for clip, span in zip(clips, spans, strict=True) if span]
        pool = [span for _, span in pairs]
        table = {}
        for condition in ("no prompt", "name in prompt", "other names in prompt"):
            lost, written = 0, []
            for clip, span in pairs:
                mixed = self._r.sample(pool, len(pool))
                others = [name for name in mixed if name not in clip.text][:NAMES]
                if condition == "no prompt":
                    others = []
                elif condition == "name in prompt":
                    others[self._r.randrange(len(others))] = span
                text = self._hear(clip, names=others).text
                lost += f" {span} " not in f" {text} "
                written.append((clip.text, text))
            table[condition] = {
                "name_error_rate": round(lost / len(pairs), 4),
                "word_error_rate": round(word_error_rate(written), 4),
            }
            print(
                f"names, {condition:22} lost {percent(lost / len(pairs))}  word error rate "
                f"{percent(word_error_rate(written))}",
                flush=True,
            )
        self.results["names"] = table

    def _span(self, text: str) -> str:
        words = text.split()
        if len(words) < 4:
            return ""
        start = self._r.randrange(len(words) - 1)
        return " ".join(words[start : start + 2])

    def silence(self, sounds: dict[str, list[Audio]]) -> None:
        """How much of what is no speech is known for it."""
        table = {}
        for name, clips in sounds.items():
            heard = [self._recogniser.hear(audio) for audio in clips]
            known = sum(h.no_speech_prob > NO_SPEECH for h in heard) / len(heard)
            table[name] = round(known, 4)
            print(f"no speech: {name:16} known for it {percent(known)}", flush=True)
        self.results["no_speech"] = table

    def confidence(
        self, inside: Sequence[Clip], outside: dict[str, Sequence[Clip]], beam: int
    ) -> float:
        """The lowest avg_logprob to accept, and what it lets through and keeps out."""
        own = [(clip, self._hear(clip, beam=beam)) for clip in inside]
        correct = sorted(h.avg_logprob for clip, h in own if h.text == clip.text)
        threshold = round(correct[int(LOST * len(correct))] - 0.005, 2)
        groups = {"held-out voices": own}
        for name, clips in outside.items():
            groups[name] = [(clip, self._hear(clip, beam=beam)) for clip in clips]
        table = {name: _groups(heard, threshold) for name, heard in groups.items()}
        print(f"min_avg_logprob {threshold} (beam {beam})")
        for name, row in table.items():
            print(f"  {name:18} {row}", flush=True)
        self.results[f"confidence_beam_{beam}"] = {"threshold": threshold, **table}
        return threshold


def _groups(heard: Sequence[tuple[Clip, Heard]], threshold: float) -> dict[str, Any]:
    """Correct and wrong transcripts: how many, their confidence, and the share refused."""
    rows: dict[str, Any] = {}
    for name, right in (("correct", True), ("wrong", False)):
        group = [h for clip, h in heard if (bool(clip.text) and h.text == clip.text) == right]
        if not group:
            continue
        scores = np.array([h.avg_logprob for h in group])
        refused = [h.avg_logprob < threshold or h.no_speech_prob > NO_SPEECH for h in group]
        rows[name] = {
            "clips": len(group),
            "avg_logprob_5_50_95": [round(float(q), 2) for q in np.percentile(scores, [5, 50, 95])],
            "refused": round(float(np.mean(refused)), 3),
            "refused_by_logprob": round(float(np.mean(scores < threshold)), 3),
            "no_speech": round(float(np.mean([h.no_speech_prob > NO_SPEECH for h in group])), 3),
        }
    return rows


def no_speech_sounds(
    bank: augment.NoiseBank, foreign: list[Clip], g: np.random.Generator
) -> dict[str, list[Audio]]:
    """What nobody should answer to."""
    n = 3 * RATE

    def at_level(noise: Audio) -> Audio:
        level = np.float32(10 ** g.uniform(-3, -1) / augment.rms(noise))
        return np.asarray(noise * level, np.float32)

    return {
        "silence": [np.zeros(int(s * RATE), np.float32) for s in (1, 2, 3, 5, 10, 29)],
        "noise": [at_level(augment.coloured(n, g.uniform(0, 2), g)) for _ in range(40)],
        "hum": [at_level(augment.hum(n, g)) for _ in range(20)],
        "kitchen, made": [at_level(augment.kitchen(n, g)) for _ in range(40)],
        "babble": [at_level(b[k * n :][:n]) for b in bank.babbles for k in range(9)],
        "foreign speech": [tight(clip.audio) for clip in foreign],
    }


def stock(folder: Path, sets: dict[str, list[Clip]]) -> dict[str, float]:
    """Word error rates of faster-whisper with everything at its default (int8)."""
    from faster_whisper import WhisperModel

    model = WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=1)
    rates = {}
    for name, clips in sets.items():
        pairs = []
        for clip in clips:
            segments, _ = model.transcribe(tight(clip.audio))
            pairs.append((clip.text, " ".join(s.text.strip() for s in segments)))
        rates[name] = round(word_error_rate(pairs), 4)
        print(f"stock faster-whisper, {name:10} word error rate {percent(rates[name])}", flush=True)
    return rates


def _recorded(folder: Path) -> Iterator[tuple[str, Audio]]:
    for path in sorted(folder.iterdir()):
        if path.suffix in (".wav", ".flac"):
            yield path.name, recording(path)


def recordings(folder: Path, recogniser: Recogniser) -> dict[str, Any]:
    """What is made of real people's commands: for the record, the voices are out of domain."""
    table = {}
    for name, audio in _recorded(folder / "commands"):
        heard = recogniser.hear(audio)
        table[name] = heard.__dict__
        print(f"{name:36} {heard.avg_logprob:6.2f} {heard.no_speech_prob:5.2f}  {heard.text}")
    return table


def measure(args: argparse.Namespace, model: Path) -> tuple[dict[str, Any], float]:
    """Everything, and the calibrated confidence."""
    g = np.random.default_rng(args.seed)
    dev = held_out(args.work, "dev", args.clips)
    natural = held_out(args.work, "natural", args.clips)
    foreign = held_out(args.work, "foreign-dev", args.clips)
    bank = augment.NoiseBank([(clip.audio * 32767).astype(np.int16) for clip in dev], g)
    dev_noisy = noisy(dev, bank, g)
    evaluation = Evaluation(Recogniser(model, args.compute_type), args.seed)
    usual = usual_words(args.work)
    sets = {"clean": dev, "noise 10 dB": dev_noisy, "natural voices": natural}
    evaluation.windows(sets, usual)
    evaluation.names(dev)
    sounds = no_speech_sounds(bank, foreign, g)
    outside: dict[str, Sequence[Clip]] = {"natural voices": natural, "foreign": foreign}
    if args.recordings:
        barista = [Clip("", audio) for _, audio in _recorded(args.recordings / "barista")]
        outside["barista"] = barista
        kitchen = recording(args.recordings / "noise" / "kitchen.flac")
        sounds["kitchen, real"] = [kitchen[i : i + 3 * RATE] for i in range(0, 39 * RATE, 3 * RATE)]
    evaluation.silence(sounds)
    threshold = evaluation.confidence([*dev, *dev_noisy], outside, args.beam)
    few = args.clips // 2
    results = evaluation.results
    results["stock"] = stock(model, {"clean": dev[:few], "noise": dev_noisy[:few]})
    if args.recordings:
        results["recordings"] = recordings(args.recordings, Recogniser(model, args.compute_type))
    return results, threshold


def main() -> None:
    """Measure, print, and write evaluation.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder with the held-out speech")
    parser.add_argument("--model", type=Path, default=BUNDLED)
    parser.add_argument("--recordings", type=Path, help="folder of real recordings")
    parser.add_argument("--clips", type=int, default=400, help="utterances of each set")
    parser.add_argument("--compute-type", default="int8")
    parser.add_argument("--beam", type=int, default=1, help="for the calibration")
    parser.add_argument("--calibrate", action="store_true", help="write min_avg_logprob")
    parser.add_argument("--seed", type=int, default=11)
    args = parser.parse_args()
    began = time.monotonic()
    results, threshold = measure(args, args.model)
    results["compute_type"] = args.compute_type
    content = json.dumps(results, indent=1) + "\n"
    (args.work / "evaluation.json").write_text(content, encoding="utf-8")
    if args.calibrate:
        path = args.model / FACTS
        text = path.read_text(encoding="utf-8")
        text = re.sub(r'("min_avg_logprob": )[-\d.]+', rf"\g<1>{threshold}", text)
        path.write_text(text, encoding="utf-8")
    print(f"measured in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
