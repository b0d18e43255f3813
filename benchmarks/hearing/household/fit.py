"""The weights of the evidence for a sentence of the home, fitted to the clips of the part `fit`.

A logistic regression. Every clip is decoded in this process, on onnxruntime, and what HomeSentences
weighs is collected: of the sentence that is spelled alike and of the one that the search finds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.hearing.household.clips import COMMAND, PARTS, Clip
from benchmarks.lib import report
from benchmarks.lib.model import Model
from benchmarks.lib.report import progress
from benchmarks.lib.understood import meaning
from wyoming_whisper.backends.home_sentences import Evidence, HomeSentences
from wyoming_whisper.backends.pipeline import _noise_mel
from wyoming_whisper.grammar.automaton import Grammar
from wyoming_whisper.grammar.filling import fill
from wyoming_whisper.grammar.templates import compile_templates
from wyoming_whisper.grammar.vocabulary import Vocabulary
from wyoming_whisper.home.home_file import HomeFile
from wyoming_whisper.whisper.audio import Array

UNDECIDED = (HomeSentences.LEAST_LOG_ODDS + Evidence.MIN_LOG_ODDS) / 2
OTHER_WEIGHT = 3.0
"""Of what is no command: to write another text than was said is worse than not to understand."""
PENALTY = 1e-3
"""Of a clip, for the square of a weight in standard deviations."""
THRESHOLDS = (0.0, 0.5, 1.0, 1.5, 2.0)
STEPS = 50
REPORT_EVERY = 100


@dataclass(frozen=True)
class Case:
    """A sentence of the home that was weighed, and whether it was said."""

    clip: str
    kind: str
    written: str
    """The free text."""
    sentence: str
    figures: tuple[float, ...]
    is_said: bool


class Collecting(HomeSentences):
    """Decides nothing, so that everything is weighed, and keeps that."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.weighed: list[tuple[str, str, Evidence]] = []

    def _log_odds(self, candidate: Any, prompt: Any, hypothesis: Any, text: str) -> float:
        if evidence := self._evidence(candidate, prompt, hypothesis, text):
            self.weighed.append((text, self._text(candidate.tokens), evidence))
        return UNDECIDED


def collect(
    model: Model, clips: Sequence[Clip], folders: Sequence[Path], homes: Mapping[str, Path]
) -> Iterator[Case]:
    """Yield what is weighed of every clip that is not understood; homes are files by language.

    Raises ClipError, AudioError.
    """
    vocabulary = Vocabulary(model.tokenizer.spelled())
    noise = model.inference.encode(_noise_mel(model.inference.n_mels, model.options))

    @cache
    def grammar(language: str) -> Grammar:
        return fill(compile_templates(language), HomeFile(homes[language]).home, vocabulary)

    for number, clip in enumerate(clips, 1):
        collecting = Collecting(
            model.inference, model.tokenizer, grammar, lambda: noise, keeps_features=True
        )
        mel = model.mel(clip.samples(folders))
        if mel.size:
            model.decoder.decode(mel, clip.lang, correct=[collecting])
        meant = meaning(clip.text or "", clip.lang, PARTS["fit"]) if clip.kind == COMMAND else None
        for written, sentence, evidence in collecting.weighed:
            is_said = meant is not None and meaning(sentence, clip.lang, PARTS["fit"]) == meant
            yield Case(clip.name, clip.kind, written, sentence, evidence.figures, is_said)
        if number % REPORT_EVERY == 0:
            progress(f"{number} of {len(clips)} clips")


def fitted(cases: Sequence[Case]) -> Array:
    """Return the weights of the figures, and the bias after them, by Newton's method."""
    figures = np.array([one.figures for one in cases])
    said = np.array([one.is_said for one in cases], float)
    counts = np.array([1.0 if one.kind == COMMAND else OTHER_WEIGHT for one in cases])
    means, deviations = figures.mean(axis=0), figures.std(axis=0) + 1e-9
    inputs = np.column_stack([(figures - means) / deviations, np.ones(len(cases))])
    penalty = PENALTY * len(cases)
    weights = np.zeros(inputs.shape[1])
    for _ in range(STEPS):
        odds = 1 / (1 + np.exp(-inputs @ weights))
        slope = inputs.T @ (counts * (said - odds)) - penalty * weights
        curvature = (inputs.T * (counts * odds * (1 - odds))) @ inputs
        weights += np.linalg.solve(curvature + penalty * np.eye(len(weights)), slope)
    scaled = weights[:-1] / deviations
    return np.append(scaled, weights[-1] - scaled @ means)


def tables(cases: Sequence[Case]) -> Iterator[str]:
    """Yield the weights, and what becomes of the cases at several thresholds."""
    weights = fitted(cases)
    yield "WEIGHTS = (" + ", ".join(f"{one:.3g}" for one in weights[:-1]) + ")"
    yield f"BIAS = {weights[-1]:.3g}"
    rows = []
    for name, values in (("fitted", weights), ("in the code", [*Evidence.WEIGHTS, Evidence.BIAS])):
        odds = [float(np.dot([*one.figures, 1.0], values)) for one in cases]
        for threshold in THRESHOLDS:
            taken = [one for one, value in zip(cases, odds, strict=True) if value > threshold]
            commands = [one for one in taken if one.kind == COMMAND]
            counts = sum(one.is_said for one in commands), sum(not one.is_said for one in commands)
            rows.append([name, f"{threshold:g}", *map(str, counts), str(len(taken) - sum(counts))])
    yield report.table(["weights", "threshold", "said", "another", "no command"], rows)
