"""Many clips that `home-en` was never trained on, for benchmarks.accuracy.

`python -m benchmarks.heldout --output DIR` has held-out voices speak held-out sentences: it needs
the speech synthesizers and packages that training/README.md lists. With `--work DIR`, training's
own folder, it takes them from the held-out speech there instead. Kinds:

clean    espeak-ng variants never trained on
natural  two voices made from recordings, a speaker never trained on
foreign  languages never trained on; nothing should be written
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from benchmarks.clips import LABELS
from training import speak

PEAK = 0.25  # about what a microphone gives
SETS = {"clean": "dev", "natural": "natural", "foreign": "foreign-dev"}
"""What training calls the clips of each kind."""


@dataclass(frozen=True)
class Spoken:
    """One utterance, as a synthesizer gave it."""

    text: str
    voice: str
    samples: speak.Samples


def from_work(work: Path, kind: str, count: int, seed: int) -> list[Spoken]:
    """Draw from the speech that training holds back."""
    loaded = speak.load(work / "speech", SETS[kind])
    drawn = random.Random(seed).sample(loaded, min(count, len(loaded)))
    return [Spoken(row.text, row.voice, samples) for row, samples in drawn]


def spoken_now(kind: str, count: int, seed: int, processes: int) -> list[Spoken]:
    """Have new sentences spoken; those that a synthesizer fails on are missing."""
    with ThreadPoolExecutor(processes) as pool:
        batches = pool.map(speak.say, speak.batched(_jobs(kind, count, seed)))
        return [Spoken(job.text, job.label, said) for batch in batches for job, said in batch]


def _jobs(kind: str, count: int, seed: int) -> list[speak.Job]:
    r = random.Random(seed)
    if kind == "foreign":
        return speak.foreign_jobs(list(speak.HELD_OUT_FOREIGN), count, r)
    from training import text

    # Another seed for each kind, or all of them would say the same.
    sentences = text.sentences(count, seed + list(SETS).index(kind), dev=True)
    if kind == "natural":
        return [speak.natural_job(sentence, r) for sentence in sentences]
    return [speak.espeak_job(sentence, True, r) for sentence in sentences]


def write(folder: Path, spoken: Sequence[tuple[str, Spoken]]) -> None:
    """Write FLAC files and their labels.json."""
    folder.mkdir(parents=True, exist_ok=True)
    labels = []
    for number, (kind, one) in enumerate(spoken):
        file = f"{number:04}-{kind}.flac"
        write_flac(folder / file, one.samples)
        labels.append({"file": file, "text": one.text, "kind": kind, "voice": one.voice})
    content = json.dumps(labels, ensure_ascii=False, indent=1)
    (folder / LABELS).write_text(content + "\n", encoding="utf-8")


def write_flac(path: Path, samples: speak.Samples) -> None:
    """Write samples as FLAC, at PEAK."""
    gain = PEAK * 32767 / max(1, int(np.abs(samples.astype(np.int32)).max(initial=0)))
    scaled = (samples.astype(np.float32) * gain).astype(np.int16)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("flac", rate=speak.RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(scaled[None], format="s16", layout="mono")
        frame.sample_rate = speak.RATE
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)


def _everything(args: argparse.Namespace) -> Iterator[tuple[str, Spoken]]:
    for kind, count in (
        ("clean", args.clean),
        ("natural", args.natural),
        ("foreign", args.foreign),
    ):
        if not count:
            continue
        if args.work:
            found = from_work(args.work, kind, count, args.seed)
        else:
            found = spoken_now(kind, count, args.seed, args.processes)
        print(f"{kind}: {len(found)} clips", flush=True)
        for one in found:
            yield kind, one


def main() -> None:
    """Write the clips and their labels."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--work", type=Path, metavar="DIR", help="training's folder")
    parser.add_argument("--clean", type=int, default=300, help="clips (default: 300)")
    parser.add_argument("--natural", type=int, default=100, help="clips (default: 100)")
    parser.add_argument("--foreign", type=int, default=50, help="clips (default: 50)")
    parser.add_argument("--seed", type=int, default=2027)
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    write(args.output, list(_everything(args)))


if __name__ == "__main__":
    main()
