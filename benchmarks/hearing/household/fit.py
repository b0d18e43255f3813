"""The weights of the evidence for a sentence of the home, fitted to the clips of the part `fit`.

A logistic regression. Every clip is decoded in this process, on onnxruntime as the server does, and
what HomeSentences weighs is collected: of the likeliest sentence that is spelled alike and of the
likeliest that the search finds.
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
from wyoming_whisper.grammar.automaton import Grammar
from wyoming_whisper.grammar.filling import fill
from wyoming_whisper.grammar.templates import compile_templates
from wyoming_whisper.grammar.vocabulary import Vocabulary
from wyoming_whisper.home.home_file import HomeFile
from wyoming_whisper.whisper.audio import Array
from wyoming_whisper.whisper.inference import Hypothesis

OTHER_WEIGHT = 3.0
"""Of what is no command: to write another text than was said is worse than not to understand."""
PENALTY = 1e-3
"""Of a clip, for the square of a weight in standard deviations."""
THRESHOLDS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5)
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
    """Takes no sentence for what was said, and keeps the likeliest that each way leads to."""

    MAX_GAP = 20.0
    """More than is ever taken: without what is far less likely, the gap would hardly tell."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.weighed: list[tuple[str, str, Evidence]] = []

    def _meant(self, *asked: Any) -> None:
        hypothesis: Hypothesis = asked[-1]
        self._weigh(self._alike(*asked), hypothesis)
        if hypothesis.avg_logprob < self.SURE_LOGPROB:
            self._weigh(self._searched(*asked), hypothesis)

    def _weigh(self, candidates: Sequence[Any], hypothesis: Hypothesis) -> None:
        if candidates:
            likeliest = max(candidates, key=lambda one: one.total_logprob)
            written, sentence = (self._text(one.tokens) for one in (hypothesis, likeliest))
            self.weighed.append((written, sentence, likeliest.evidence))


def collect(
    model: Model, clips: Sequence[Clip], folders: Sequence[Path], homes: Mapping[str, Path]
) -> Iterator[Case]:
    """Yield what is weighed of every clip that is not understood; homes are files by language.

    Raises ClipError, AudioError.
    """
    vocabulary = Vocabulary(model.tokenizer.spelled())

    @cache
    def grammar(language: str) -> Grammar:
        return fill(compile_templates(language), HomeFile(homes[language]).home, vocabulary)

    for number, clip in enumerate(clips, 1):
        collecting = Collecting(model.inference, model.tokenizer, grammar)
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
    """Yield the weights, and what becomes of the clips at several thresholds."""
    weights = fitted(cases)
    yield "WEIGHTS = (" + ", ".join(f"{one:.3g}" for one in weights[:-1]) + ")"
    yield f"BIAS = {weights[-1]:.3g}"
    rows = []
    for name, values in (("fitted", weights), ("in the code", [*Evidence.WEIGHTS, Evidence.BIAS])):
        likeliest = list(_likeliest(cases, values))
        for threshold in THRESHOLDS:
            taken = [one for one, odds in likeliest if odds > threshold]
            commands = [one for one in taken if one.kind == COMMAND]
            counts = sum(one.is_said for one in commands), sum(not one.is_said for one in commands)
            rows.append([name, f"{threshold:g}", *map(str, counts), str(len(taken) - sum(counts))])
    yield report.table(["weights", "threshold", "said", "another", "no command"], rows)


def _likeliest(
    cases: Sequence[Case], weights: Sequence[float] | Array
) -> Iterator[tuple[Case, float]]:
    """Yield each clip's sentence of the highest log-odds, and those."""
    by_clip: dict[str, list[tuple[Case, float]]] = {}
    for one in cases:
        odds = float(np.dot([*one.figures, 1.0], weights))
        by_clip.setdefault(one.clip, []).append((one, odds))
    for weighed in by_clip.values():
        yield max(weighed, key=lambda pair: pair[1])
