"""Train `home-en` within a given time: `python -m training.train --work DIR --minutes 95`.

Each process takes its own batches and they average their gradients. Every step sees one batch of
tight windows and, once the first words are understood, one of long windows. All schedules follow
the time that has passed, so the last step is taken with the smallest learning rate whatever the
machine. Checkpoints go to DIR/checkpoint.pt; `--resume` goes on from there.
"""

import argparse
import json
import math
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional

from training import speak, text
from training.augment import Audio
from training.model import Shape, Whisper
from training.muon import Muon
from training.scoring import word_errors
from training.tokens import SPELLING, Vocabulary
from training.windows import IGNORE, Batch, Composer, Placed, Spoken

TIGHT_BATCH = 10
PEAK_RATE = 2e-3  # AdamW's
MATRIX_RATE = 2e-3  # Muon's, in root mean square
MATRIX_DECAY = 6e-3  # of themselves, at each step
WARMUP_STEPS = 200
HALVES = ("encoder.", "decoder.")  # whose matrices are Muon's
AVERAGE_DECAY = 0.998
LABEL_SMOOTHING = 0.03
SAVE_SECONDS = 120
USUAL = 12  # times a usual word is in the training set
RARE_SHARE = 0.4  # of the sentences with rarer words that is trained on


@dataclass(frozen=True)
class Plan:
    """What share of the time (0 to 1) belongs to what."""

    decoder_from: float = 0.30
    """Before, the encoder learns alone, by its CTC head: that is what takes long, and cheap."""
    long_windows_from: float = 0.60
    degraded_from: float = 0.64
    degraded_fully: float = 0.80
    prompts_from: float = 0.72

    def rate(self, progress: float, step: int) -> float:
        """Share of the peak learning rate: warm-up by steps, then a cosine over the time."""
        cosine = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
        return min((step + 1) / WARMUP_STEPS, 1.0) * (0.98 * cosine + 0.02)

    def strength(self, progress: float) -> float:
        """How often windows are degraded."""
        span = self.degraded_fully - self.degraded_from
        return min(max((progress - self.degraded_from) / span, 0.0), 1.0)

    def long_share(self, progress: float) -> float:
        """How many steps see long windows too."""
        return 0.0 if progress < self.long_windows_from else 0.5

    def ctc_weight(self, progress: float) -> float:
        """The helper's weight: all at first, a third in the end."""
        return 1.0 if progress < self.long_windows_from else 0.35

    def decodes(self, progress: float) -> bool:
        """Whether the decoder learns too."""
        return progress >= self.decoder_from


@dataclass(frozen=True)
class Polish(Plan):
    """A last lap for weights that have been trained: long windows in every step, ever gentler."""

    start: float = 0.0
    """Share of the time that had passed before it."""

    def rate(self, progress: float, step: int) -> float:
        """From a twentieth of the peak down to nothing: more undoes what was learned."""
        return 0.05 * min(1.0, (1.0 - progress) / (1.0 - self.start)) + 0.001

    def long_share(self, progress: float) -> float:
        """Long windows in every step."""
        return 1.0


class Trainer:
    """One process's model, batches and optimiser."""

    def __init__(self, work: Path, rank: int, processes: int, seed: int) -> None:
        self.rank, self.processes = rank, processes
        self.vocabulary = Vocabulary.load(work / "tokenizer.json")
        torch.manual_seed(seed)
        self.model = Whisper(Shape(self.vocabulary.size), self.vocabulary.timestamp)
        self.average = [p.detach().clone() for p in self.model.parameters()]
        named = list(self.model.named_parameters())
        self.muons = {
            half: Muon(
                [p for name, p in named if p.ndim == 2 and name.startswith(half + ".")],
                rank,
                processes,
            )
            for half in ("encoder", "decoder")
        }
        others = [p for name, p in named if p.ndim != 2 or not name.startswith(HALVES)]
        self.optimiser = torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
        self.composer = _composer(work, self.vocabulary, seed + 1000 * (rank + 1))
        self.kinds = random.Random(seed)  # the same in all processes: equal work in each step
        self.step, self.passed = 0, 0.0

    def long_batch(self) -> Batch:
        """Windows up to 30 s; the same kind in every process."""
        kind = self.kinds.random()
        if kind < 0.6:
            seconds = self.kinds.uniform(3.5, 15)
            return self.composer.packed(seconds, max(1, round(16 / seconds)))
        if kind < 0.80:
            return self.composer.packed(self.kinds.uniform(18, 29.9), 1)
        return self.composer.single(1)

    def learn(
        self, batches: list[Batch], ctc_weight: float, rate: float, decode: bool = True
    ) -> tuple[float, float]:
        """One step on all batches together, at `rate` (0 to 1); the losses per token."""
        targets = sum(int((b.labels != IGNORE).sum()) for b in batches)
        spoken = max(1, sum(len(b.ctc) for b in batches))
        totals = [0.0, 0.0]
        for batch in batches:
            features = self.model.encode(batch.mel)
            aligned = self._ctc_loss(batch, features) / spoken
            loss = ctc_weight * aligned
            if decode:
                decoded = self._decoder_loss(batch, features) / targets
                loss = loss + decoded
                totals[0] += decoded.item()
            torch.autograd.backward(loss)
            totals[1] += aligned.item()
        self._apply(rate, decode)
        return totals[0], totals[1]

    def _decoder_loss(self, batch: Batch, features: Tensor) -> Tensor:
        logits = self.model.decode(batch.tokens, features)
        keep = batch.labels != IGNORE
        return functional.cross_entropy(
            logits[keep], batch.labels[keep], reduction="sum", label_smoothing=LABEL_SMOOTHING
        )

    def _ctc_loss(self, batch: Batch, features: Tensor) -> Tensor:
        scores = self.model.ctc(features).log_softmax(-1).transpose(0, 1)
        return functional.ctc_loss(
            scores,
            batch.ctc,
            batch.positions,
            batch.ctc_lengths,
            blank=len(SPELLING),
            reduction="sum",
            zero_infinity=True,
        )

    def _apply(self, rate: float, decode: bool) -> None:
        parameters = list(self.model.parameters())
        gradients = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
        if self.processes > 1:
            dist.all_reduce(gradients)
            gradients /= self.processes
        offset = 0
        for p in parameters:
            if p.grad is not None:
                p.grad.copy_(gradients[offset : offset + p.numel()].view_as(p))
                offset += p.numel()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        self.optimiser.param_groups[0]["lr"] = rate * PEAK_RATE
        self.optimiser.step()
        for half in ("encoder", "decoder") if decode else ("encoder",):
            self.muons[half].step(rate * MATRIX_RATE, rate * MATRIX_DECAY)
        self.model.zero_grad(set_to_none=False)
        decay = min(AVERAGE_DECAY, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for mean, p in zip(self.average, parameters, strict=True):
                mean.lerp_(p, 1 - decay)

    def save(self, path: Path) -> None:
        """Everything needed to go on, and under "average" what is exported."""
        names = [name for name, _ in self.model.named_parameters()]
        state = {
            "model": self.model.state_dict(),
            "average": dict(zip(names, self.average, strict=True)),
            "optimiser": self.optimiser.state_dict(),
            "momentum": [m for muon in self.muons.values() for m in muon.momentum.values()],
            "step": self.step,
            "passed": self.passed,
        }
        part = path.with_suffix(".part")
        torch.save(state, part)
        part.replace(path)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint."""
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.optimiser.param_groups[0]["fused"] = True
        momenta = [m for muon in self.muons.values() for m in muon.momentum.values()]
        for mine, saved in zip(momenta, state["momentum"], strict=True):
            mine.copy_(saved)
        self.average = [state["average"][name] for name, _ in self.model.named_parameters()]
        self.step, self.passed = state["step"], state["passed"]


def _spoken(folder: Path, name: str) -> list[Spoken]:
    return [Spoken(u.text, samples) for u, samples in speak.load(folder, name)]


def _composer(work: Path, vocabulary: Vocabulary, seed: int) -> Composer:
    writer = text.Writer()
    r = random.Random(seed)
    names = [text.normalise(writer.name(r)) or "lamp" for _ in range(5000)]
    speech = work / "speech"
    chosen = _usual(_spoken(speech, "train"), r)
    return Composer(vocabulary, chosen, _spoken(speech, "foreign"), names, seed)


def _usual(spoken: list[Spoken], r: random.Random) -> list[Spoken]:
    """All sentences of usual words, and a part of those with rare ones."""
    counts = Counter(word for s in spoken for word in s.text.split())
    rare = [any(counts[word] < USUAL for word in s.text.split()) for s in spoken]
    return [
        s for s, it_is in zip(spoken, rare, strict=True) if not it_is or r.random() < RARE_SHARE
    ]


def greedy(model: Whisper, mel: Tensor, vocabulary: Vocabulary, timestamps: bool) -> list[str]:
    """What the model writes for each window of a batch, the likeliest token at a time."""
    prompt = vocabulary.prompt(timestamps)
    tokens = torch.tensor([prompt] * len(mel))
    done = torch.zeros(len(mel), dtype=torch.bool)
    with torch.inference_mode():
        features = model.encode(mel)
        for _ in range(32):
            following = model.decode(tokens, features)[:, -1].argmax(-1)
            following[done] = vocabulary.eot
            done |= following == vocabulary.eot
            tokens = torch.cat([tokens, following[:, None]], dim=1)
            if bool(done.all()):
                break
    return [vocabulary.decode(row[len(prompt) :].tolist()) for row in tokens]


@dataclass(frozen=True)
class Check:
    """Held-out windows under one condition."""

    name: str
    texts: list[str]
    mel: Tensor
    timestamps: bool


def checks(work: Path, composer: Composer, rank: int, processes: int) -> list[Check]:
    """Small held-out sets, this process's part of them."""
    made = []
    for name, source, count, full in (
        ("dev", "dev", 48, False),
        ("dev 10 dB", "dev", 48, False),
        ("natural", "natural", 32, False),
        ("dev 30 s", "dev", 8, True),
    ):
        chosen = _spoken(work / "speech", source)[rank:count:processes]
        g = np.random.default_rng(rank)
        examples = []
        for spoken in chosen:
            audio: Audio = np.pad(spoken.samples.astype(np.float32) / 32768, (4800, 6400))
            if name.endswith("dB"):
                noise = composer.noises.take(len(audio), g)
                level = float(np.sqrt(np.mean(spoken.samples.astype(np.float32) ** 2)) / 32768)
                audio = audio + noise * np.float32(level * 10**-0.5)
            examples.append(composer.example(Placed(audio, [(spoken.text, 0, 1)]), False))
        batch = composer.batch(examples, 3000 if full else 0)
        made.append(Check(name, [s.text for s in chosen], batch.mel, full))
    return made


def measure(trainer: Trainer, held_out: list[Check]) -> dict[str, float]:
    """Word error rates of the averaged weights over all processes."""
    current = [p.detach().clone() for p in trainer.model.parameters()]
    _put(trainer.model, trainer.average)
    trainer.model.eval()
    rates = {}
    for check in held_out:
        written = greedy(trainer.model, check.mel, trainer.vocabulary, check.timestamps)
        counts = [word_errors(a, b) for a, b in zip(check.texts, written, strict=True)]
        total = torch.tensor([sum(e for e, _ in counts), sum(n for _, n in counts)])
        if trainer.processes > 1:
            dist.all_reduce(total)
        rates[check.name] = round(float(total[0] / total[1]), 4)
    _put(trainer.model, current)
    trainer.model.train()
    return rates


def _put(model: nn.Module, values: list[Tensor]) -> None:
    with torch.no_grad():
        for p, value in zip(model.parameters(), values, strict=True):
            p.copy_(value)


def _progress(trainer: Trainer, began: float, seconds: float) -> float:
    """The share of the time that has passed, on which all processes agree."""
    passed = torch.tensor([time.monotonic() - began], dtype=torch.float64)
    if trainer.processes > 1 and trainer.step % 10 == 0:
        dist.broadcast(passed, 0)
        trainer.passed = float(passed)
    elif trainer.processes == 1:
        trainer.passed = float(passed)
    return trainer.passed / seconds


def run(rank: int, args: argparse.Namespace, meeting: str) -> None:
    """One process of the training."""
    torch.set_num_threads(max(1, args.threads // args.processes))
    torch.set_flush_denormal(True)
    if args.processes > 1:
        dist.init_process_group(
            "gloo", init_method=f"file://{meeting}", rank=rank, world_size=args.processes
        )
    trainer = Trainer(args.work, rank, args.processes, args.seed)
    checkpoint = args.work / "checkpoint.pt"
    if args.resume:
        trainer.load(checkpoint)
    held_out = checks(args.work, trainer.composer, rank, args.processes)
    if rank == 0:
        size = sum(p.numel() for p in trainer.model.parameters()) / 1e6
        print(f"{size:.2f} M parameters, {len(trainer.composer.speech)} utterances", flush=True)
    began = time.monotonic() - trainer.passed
    _learn_until_done(trainer, began, args, checkpoint, held_out)
    if args.processes > 1:
        dist.destroy_process_group()


def _learn_until_done(
    trainer: Trainer, began: float, args: argparse.Namespace, checkpoint: Path, held: list[Check]
) -> None:
    seconds = args.minutes * 60.0
    plan = Polish(start=trainer.passed / seconds) if args.polish else Plan()
    tight = trainer.composer.tight(TIGHT_BATCH, random.Random(args.seed))
    losses: list[tuple[float, float]] = []
    checked = saved = shown = trainer.passed
    while (progress := _progress(trainer, began, seconds)) < 1:
        trainer.composer.strength = plan.strength(progress)
        trainer.composer.prompts = 0.25 if progress > plan.prompts_from else 0.0
        batches = _batches(trainer, tight, plan.long_share(progress))
        rate = plan.rate(progress, trainer.step)
        weight, decode = plan.ctc_weight(progress), plan.decodes(progress)
        losses.append(trainer.learn(batches, weight, rate, decode))
        trainer.step += 1
        if trainer.rank == 0 and trainer.passed - shown > 10:
            shown = trainer.passed
            _show(trainer, losses[-50:])
        if trainer.passed - saved > SAVE_SECONDS:
            saved = trainer.passed
            _save(trainer, checkpoint)
        if trainer.passed - checked > args.every:
            checked = trainer.passed
            _check(trainer, held, checkpoint.parent)
    _save(trainer, checkpoint)
    _check(trainer, held, checkpoint.parent)


def _batches(trainer: Trainer, tight: Iterator[Batch], long_share: float) -> list[Batch]:
    batches = [next(tight)]
    if trainer.kinds.random() < long_share:
        batches.append(trainer.long_batch())
    return batches


def _show(trainer: Trainer, losses: list[tuple[float, float]]) -> None:
    decoder, ctc = np.mean(losses, axis=0)
    speed = trainer.passed / trainer.step
    print(
        f"{trainer.passed / 60:6.1f} min  step {trainer.step:6}  decoder {decoder:.3f}  "
        f"ctc {ctc:.3f}  {speed:.3f} s a step",
        flush=True,
    )


def _save(trainer: Trainer, checkpoint: Path) -> None:
    if trainer.rank == 0:
        trainer.save(checkpoint)


def _check(trainer: Trainer, held_out: list[Check], folder: Path) -> None:
    rates = measure(trainer, held_out)
    if trainer.rank == 0:
        line = {"minutes": round(trainer.passed / 60, 1), "step": trainer.step, **rates}
        print(f"  word errors {line}", flush=True)
        with (folder / "progress.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def main() -> None:
    """Start the processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for everything made here")
    parser.add_argument("--minutes", type=float, default=95, help="time to finish in")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--every", type=float, default=480, help="seconds between checks")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--polish", action="store_true", help="a last lap on long windows")
    args = parser.parse_args()
    # Tensors come and go at each step; without these, their memory goes back to the system too.
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(1 << 32))
    os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(1 << 33))
    with tempfile.TemporaryDirectory() as folder:
        meeting = Path(folder, "meeting").as_posix()
        if args.processes == 1:
            run(0, args, meeting)
        else:
            torch.multiprocessing.spawn(run, (args, meeting), nprocs=args.processes)


if __name__ == "__main__":
    main()
