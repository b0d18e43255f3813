"""Hundreds of spoken utterances through the real VAD: early work never changes what is heard."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
import pytest

from tests.support import AUDIO, clips
from wyoming_whisper.audio.pcm import PcmFormat
from wyoming_whisper.audio.vad import SileroVad, SpanOptions, Vad
from wyoming_whisper.commands.client import read_audio
from wyoming_whisper.settings.options import Settings
from wyoming_whisper.status import Answer
from wyoming_whisper.text.style import TextStyle
from wyoming_whisper.transcriber import SAMPLE_RATE, Samples, TranscribeOptions, Transcription
from wyoming_whisper.utterance import utterance
from wyoming_whisper.utterance.budget import Budget
from wyoming_whisper.utterance.early import EarlyWork
from wyoming_whisper.utterance.job import Job, Priority
from wyoming_whisper.utterance.languages import SpokenLanguages
from wyoming_whisper.utterance.service import Service
from wyoming_whisper.utterance.utterance import Utterance

VARIATIONS = 12
"""Of each clip."""


@dataclass
class Spoken:
    samples: Samples
    chunks: list[int]
    """Lengths, in samples."""


def utterances() -> Iterator[Spoken]:
    """Yield the clips with pauses, second sentences, noises, loudness and chunks of all sorts."""
    random = np.random.default_rng(20)
    spoken = [read_audio(str(AUDIO / clip.file)) for clip in clips("clean", "noisy")]
    for samples in spoken:
        for _ in range(VARIATIONS):
            parts = [_silence(random, 0.0, 1.0), samples]
            if random.random() < 0.5:
                parts = [parts[0], *_interrupted(samples, random)]
            if random.random() < 0.3:
                parts += [_silence(random, 0.2, 1.5), spoken[random.integers(len(spoken))]]
            whole = np.concatenate([*parts, _silence(random, 0.1, 2.0)])
            noise = random.normal(0, 1, len(whole)) * 10 ** random.uniform(-4, -1.6)
            loudness = 10 ** random.uniform(-1, 0)
            heard = np.clip(whole * loudness + noise, -1, 1).astype(np.float32)
            yield Spoken(heard, _chunks(len(heard), random))


def _silence(random: np.random.Generator, least: float, most: float) -> Samples:
    return np.zeros(round(random.uniform(least, most) * SAMPLE_RATE), np.float32)


def _interrupted(samples: Samples, random: np.random.Generator) -> list[Samples]:
    """Return the clip with a pause where it is quietest in the middle."""
    third = len(samples) // 3
    loudness = np.convolve(np.abs(samples[third : 2 * third]), np.ones(800), "same")
    at = third + int(np.argmin(loudness))
    return [samples[:at], _silence(random, 0.1, 1.5), samples[at:]]


def _chunks(n_samples: int, random: np.random.Generator) -> list[int]:
    usual = int(random.choice([160, 480, 512, 1024, 1365, 4000]))
    lengths: list[int] = []
    while sum(lengths) < n_samples:
        lengths.append(usual if random.random() < 0.8 else int(random.integers(1, 2 * usual)))
    return lengths


@dataclass
class Workshop(Service):
    """Answers at once; what was heard is the answer."""

    text_style = TextStyle()
    eager: bool
    vad: Vad | None
    span_options: SpanOptions
    spoken: SpokenLanguages = field(default_factory=SpokenLanguages)
    max_utterance_samples: int = 900 * SAMPLE_RATE
    held_audio: Budget = field(default_factory=lambda: Budget(900 * SAMPLE_RATE, "audio"))
    deadline_seconds: int = 0
    n_jobs: int = 0
    heard: dict[int, Samples] = field(default_factory=dict)

    async def loaded_vad(self) -> Vad:
        assert self.vad
        return self.vad

    def wake(self) -> None: ...

    def answered(self, answer: Answer) -> None: ...

    def submit(self, samples: Samples, options: TranscribeOptions, priority: Priority) -> Job:
        self.n_jobs += 1
        self.heard[self.n_jobs] = samples
        job = Job(samples, options, priority)
        future: Future[Transcription] = job.future
        future.set_result(Transcription(str(self.n_jobs)))
        return job


async def hear(spoken: Spoken, workshop: Workshop) -> Samples | None:
    """Return the samples whose transcript is sent; None when nothing was said."""
    following = Utterance(workshop, TranscribeOptions())
    pcm = (spoken.samples * 32767).astype("<i2")
    start = 0
    for length in spoken.chunks:
        following.add(PcmFormat(SAMPLE_RATE, 2, 1), pcm[start : start + length].tobytes())
        start += length
    transcription = await following.transcription()
    return workshop.heard[int(transcription.text)] if transcription.text else None


def test_the_same_samples_are_transcribed_with_and_without_early_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(utterance.Utterance, "MAX_AHEAD_SECONDS", float("inf"))  # tests don't wait
    vad, spans = SileroVad(), SpanOptions.of(Settings())
    n_spoken = n_wasted = 0
    for spoken in utterances():
        eager, patient = (Workshop(wanted, vad, spans) for wanted in (True, False))
        early, late = asyncio.run(hear(spoken, eager)), asyncio.run(hear(spoken, patient))
        assert (early is None) == (late is None)
        if early is None or late is None:
            continue
        np.testing.assert_array_equal(early, late)
        assert patient.n_jobs == 1
        assert eager.n_jobs <= EarlyWork.MAX_EAGER_JOBS + 1
        n_spoken += 1
        n_wasted += eager.n_jobs - 1
    # Neither of the two cases may have been left out.
    assert n_spoken >= 200
    assert n_wasted > n_spoken / 10
