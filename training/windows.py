"""Training examples: utterances placed in a window, and the tokens Whisper would write for it."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training import augment
from training.augment import Audio, NoiseBank
from training.features import HOP, RATE, WINDOW_FRAMES, log_mel_spectrogram
from training.tokens import Vocabulary, spell

IGNORE = -100  # a label without loss
MAX_PROMPT = 200  # tokens of previous text
LATEST_START = 1.0  # s; decoders look for the first timestamp no later
DEGRADED = 0.3  # share of the windows at full strength
TIGHTEST = 1.0  # s; the shortest window there is

Speech = npt.NDArray[np.int16]


@dataclass(frozen=True)
class Spoken:
    """A sentence and its sound; an empty text for what shall not be understood."""

    text: str
    samples: Speech


@dataclass
class Placed:
    """What is heard in a window, before anything is done to it."""

    audio: Audio
    segments: list[tuple[str, float, float]] = field(default_factory=list)
    cut: float | None = None
    """Where a sentence begins that the window's end cuts off."""


@dataclass(frozen=True)
class Example:
    """One window with its tokens; labels[i] is what follows tokens[i]."""

    mel: Tensor
    tokens: list[int]
    labels: list[int]
    ctc: list[int]


@dataclass(frozen=True)
class Batch:
    """Examples of one number of frames."""

    mel: Tensor
    tokens: Tensor
    labels: Tensor
    ctc: Tensor
    ctc_lengths: Tensor

    @property
    def positions(self) -> Tensor:
        """Encoder positions of each example."""
        return torch.full((len(self.mel),), self.mel.shape[2] // 2)


def label(
    vocabulary: Vocabulary, placed: Placed, timestamps: bool, previous: Sequence[int] = ()
) -> tuple[list[int], list[int], list[int]]:
    """Tokens, labels and CTC targets of a window; `previous` is the text before it."""
    body: list[int] = []
    spoken: list[int] = []
    for number, (text, start, end) in enumerate(placed.segments):
        words = vocabulary.encode(text)
        spoken += spell(text)
        if timestamps:
            start = min(start, LATEST_START) if number == 0 else start
            body += [vocabulary.time(start), *words, vocabulary.time(end)]
        else:
            body += words
    if timestamps and placed.cut is not None:
        body.append(vocabulary.time(placed.cut))
    prompt = vocabulary.prompt(timestamps)
    before = [vocabulary.id("<|startofprev|>"), *previous[-MAX_PROMPT:]] if previous else []
    sequence = [*before, *prompt, *body, vocabulary.eot]
    labels = [IGNORE] * (len(before) + len(prompt) - 1) + sequence[len(before) + len(prompt) :]
    labels[len(before)] = vocabulary.id("<|en|>" if placed.segments else "<|nospeech|>")
    return sequence[:-1], labels, spoken


class Composer:
    """Makes examples of all kinds.

    `strength` (0 to 1) says how often they are degraded, `prompts` how often there is text before.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        speech: Sequence[Spoken],
        foreign: Sequence[Spoken],
        names: Sequence[str],
        seed: int,
    ) -> None:
        self.vocabulary = vocabulary
        self.speech = speech
        self.foreign = foreign
        self.names = names
        self.strength = 0.0
        self.prompts = 0.3
        self.g = np.random.default_rng(seed)
        some = [speech[int(i)].samples for i in self.g.integers(0, len(speech), 200)]
        self.noises = NoiseBank(some, self.g)
        self._order = self._shuffled()

    # batches

    def tight(self, count: int, turns: random.Random) -> Iterator[Batch]:
        """Batches of `count` windows hardly longer than their one utterance, forever.

        `turns` says when short and when long utterances come; processes that share its seed
        have about equal work in each step.
        """
        while True:
            drawn = sorted((next(self._order) for _ in range(count * 8)), key=_samples)
            groups = [drawn[i : i + count] for i in range(0, len(drawn), count)]
            for group in turns.sample(groups, len(groups)):
                yield self.batch([self._tight(spoken) for spoken in group])

    def packed(self, seconds: float, count: int) -> Batch:
        """`count` windows of that length, full of sentences with pauses between them."""
        return self.batch([self.example(self._pack(seconds)) for _ in range(count)])

    def single(self, count: int) -> Batch:
        """`count` full windows with one command, or with nothing to understand."""
        examples = []
        for _ in range(count):
            if self.g.random() < 0.12:
                examples.append(self._negative(self.g.uniform(1, 30)))
            else:
                examples.append(self._single())
        return self.batch(examples, WINDOW_FRAMES)

    def batch(self, examples: list[Example], frames: int = 0) -> Batch:
        """The examples side by side; shorter ones end in zeros, as faster-whisper pads."""
        frames = max(frames, *(e.mel.shape[1] for e in examples))
        frames += frames % 2
        mel = torch.stack([self._filled(e.mel, frames) for e in examples])
        longest = max(len(e.tokens) for e in examples)
        tokens = torch.full((len(examples), longest), self.vocabulary.eot)
        labels = torch.full((len(examples), longest), IGNORE)
        for row, e in enumerate(examples):
            tokens[row, : len(e.tokens)] = torch.tensor(e.tokens)
            labels[row, : len(e.labels)] = torch.tensor(e.labels)
        ctc = torch.tensor([token for e in examples for token in e.ctc], dtype=torch.long)
        return Batch(mel, tokens, labels, ctc, torch.tensor([len(e.ctc) for e in examples]))

    def _filled(self, mel: Tensor, frames: int) -> Tensor:
        missing = frames - mel.shape[1]
        short = missing < 200 and self.g.random() < 0.5
        value = float(mel.min()) if short else 0.0
        return torch.nn.functional.pad(mel, (0, missing), value=value)

    # windows

    def _shuffled(self) -> Iterator[Spoken]:
        while True:
            for i in self.g.permutation(len(self.speech)):
                yield self.speech[int(i)]

    def _tight(self, spoken: Spoken) -> Example:
        if self.g.random() < 0.07:
            return self._negative(max(TIGHTEST, len(spoken.samples) / RATE))
        lead, trail = self.g.uniform(0.02, 0.5), self.g.uniform(0.1, 0.8)
        return self.example(self._place([spoken], [lead], trail))

    def _single(self) -> Example:
        """One command in 30 s: zeros after the features, or silence and noise in the sound."""
        lead = self.g.uniform(0.02, 1.2)
        trail = self.g.uniform(0.1, 3)
        placed = self._place([next(self._order)], [lead], trail)
        if self.g.random() < 0.4:
            placed.audio = _resized(placed.audio, WINDOW_FRAMES * HOP - HOP)
        return self.example(placed)

    def _pack(self, seconds: float) -> Placed:
        """Sentences until the window is full; the last one is sometimes cut by its end."""
        chosen, gaps = [next(self._order)], [self.g.uniform(0.02, 1.0)]
        filled = gaps[0] + _seconds(chosen[0])
        while True:
            following, gap = next(self._order), self.g.uniform(0.25, 2.0)
            if filled + gap + _seconds(following) > seconds - 0.3:
                break
            chosen.append(following)
            gaps.append(gap)
            filled += gap + _seconds(following)
        placed = self._place(chosen, gaps, 0.0)
        end = int(seconds * RATE) - HOP
        start = len(placed.audio) + int(gap * RATE)
        placed.audio = _resized(placed.audio, max(end, len(placed.audio)))
        if end - start > RATE // 2 and self.g.random() < 0.5:
            part = following.samples[: end - start].astype(np.float32) / 32768
            if len(part) < len(following.samples):
                placed.audio[start : start + len(part)] = part
                placed.cut = start / RATE
        return placed

    def _place(self, chosen: list[Spoken], gaps: list[float], trail: float) -> Placed:
        """The sentences one after another, a gap before each, at speeds of their own."""
        pieces: list[Audio] = []
        segments = []
        now = 0
        for spoken, gap in zip(chosen, gaps, strict=True):
            audio: Audio = spoken.samples.astype(np.float32) / np.float32(32768)
            if self.g.random() < 0.5 * self.strength:
                audio = augment.faster(audio, self.g.uniform(0.9, 1.12))
            start = now + int(gap * RATE)
            pieces += [np.zeros(start - now, np.float32), audio * np.float32(self._loudness())]
            now = start + len(audio)
            segments.append((spoken.text, start / RATE, now / RATE))
        length = max(int(TIGHTEST * RATE), now + int(trail * RATE))
        return Placed(_resized(np.concatenate(pieces), length), segments)

    def _loudness(self) -> float:
        return float(10 ** self.g.uniform(-0.8, 0.15))

    def _negative(self, seconds: float) -> Example:
        """Silence, noise, or speech that nobody shall try to understand."""
        n = int(min(seconds, 29.9) * RATE)
        kind = self.g.random()
        if kind < 0.15:
            audio = np.zeros(n, np.float32)
        elif kind < 0.5:
            audio = self.noises.take(n, self.g) * np.float32(10 ** self.g.uniform(-4, -0.7))
        else:
            audio = _resized(self._garbled(kind), n)
        return self.example(Placed(audio))

    def _garbled(self, kind: float) -> Audio:
        if kind < 0.7 and self.foreign:
            said = self.foreign[int(self.g.integers(len(self.foreign)))].samples
        else:
            said = next(self._order).samples[::-1]
        lead = np.zeros(int(self.g.uniform(0.02, 0.5) * RATE), np.float32)
        return np.concatenate([lead, said.astype(np.float32) / 32768])

    def example(self, placed: Placed, timestamps: bool | None = None) -> Example:
        """The window's features, degraded or clean, and its tokens."""
        if timestamps is None:
            timestamps = placed.cut is not None or bool(self.g.random() < 0.5)
        tokens, labels, ctc = label(
            self.vocabulary, placed, timestamps, self._previous(placed, timestamps)
        )
        return Example(self._mel(placed), tokens, labels, ctc)

    def _mel(self, placed: Placed) -> Tensor:
        audio = placed.audio
        if self.g.random() < DEGRADED * self.strength:
            heard = audio[np.abs(audio) > 0.005] if placed.segments else audio
            audio = augment.degraded(audio, augment.rms(heard), self.noises, self.g)
            return augment.degraded_mel(audio, self.g)
        if self.g.random() < 0.8:
            level = np.float32(10 ** self.g.uniform(-4.5, -2.7))
            audio = audio + self.g.standard_normal(len(audio), dtype=np.float32) * level
        return log_mel_spectrogram(torch.from_numpy(audio))

    # prompts

    def _previous(self, placed: Placed, timestamps: bool) -> list[int]:
        if self.g.random() >= self.prompts:
            return []
        if self.g.random() < 0.6:
            return self.vocabulary.encode(self._names(placed))
        texts = [next(self._order).text for _ in range(int(self.g.integers(1, 4)))]
        if not (timestamps and self.g.random() < 0.5):
            return self.vocabulary.encode(" ".join(texts))
        previous: list[int] = []
        now = self.g.uniform(0, 1)
        for text in texts:
            end = now + 0.35 * len(text.split())
            previous += [self.vocabulary.time(now), *self.vocabulary.encode(text)]
            previous.append(self.vocabulary.time(end))
            now = end + self.g.uniform(0, 1)
        return previous

    def _names(self, placed: Placed) -> str:
        """2 to 10 names; in half of the lists one or more are in what is said."""
        count = int(self.g.integers(2, 11))
        names = [self.names[int(i)] for i in self.g.integers(0, len(self.names), count)]
        if placed.segments and self.g.random() < 0.55:
            for text, _, _ in placed.segments:
                names[int(self.g.integers(count))] = self._part(text.split())
        return ", ".join(names) + ("." if self.g.random() < 0.1 else "")

    def _part(self, words: list[str]) -> str:
        """One to three words said one after another."""
        length = min(len(words), int(self.g.integers(1, 4)))
        start = int(self.g.integers(0, len(words) - length + 1))
        return " ".join(words[start : start + length])


def _samples(spoken: Spoken) -> int:
    return len(spoken.samples)


def _seconds(spoken: Spoken) -> float:
    return 1.2 * len(spoken.samples) / RATE  # it may be slowed down


def _resized(audio: Audio, samples: int) -> Audio:
    """The beginning of the audio, or the audio and silence."""
    if len(audio) >= samples:
        return audio[:samples]
    return np.pad(audio, (0, samples - len(audio)))
