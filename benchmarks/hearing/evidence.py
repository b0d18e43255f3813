"""What Whisper makes up of noise, and what of it is told from speech: SpeechEvidence.

Hears speech in several conditions, and noise as it is, higher and lower, with and without a prompt;
counts the noises whose text is kept and the utterances whose text is lost, by the part of the
recordings; and with `--fit` finds the server's weights anew, from the part `fit` alone. A text
counts as speech where at least half of its words are right.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soxr

from benchmarks.lib import report
from benchmarks.lib.clips import with_silence
from benchmarks.lib.corpus import PARTS, Recording, as_heard, chosen
from benchmarks.lib.options import add_corpus, add_models
from benchmarks.lib.report import Outcome, progress
from benchmarks.lib.words import word_errors
from wyoming_whisper.audio.speech import Speech, span_options
from wyoming_whisper.audio.vad import SileroVad
from wyoming_whisper.backends.onnxruntime import choose_arithmetic, cpu_engines
from wyoming_whisper.settings.options import Settings
from wyoming_whisper.text.evidence import SpeechEvidence, Voicing
from wyoming_whisper.transcriber import (
    SAMPLE_RATE,
    Samples,
    TranscribeOptions,
    Transcriber,
    Transcription,
)

CONDITIONS = ("clean", "noise10", "quiet45")
PITCHES = (1.0, 0.8, 1.25)
"""Of noises: a baby and a cat may be smaller than the one that was recorded."""

PROMPT = "Turn on the kitchen light. Set the living room to 21 degrees. Pause the music."
RIGHT = 0.5  # of the words, or more: what is lost otherwise is no loss
PROGRESS_EVERY = 100

RIDGE = 0.05  # of the fit: the two are nearly apart, and weights would grow without end
STEPS = 200

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """A recording under a condition, and what a model made of it."""

    model: str
    file: str
    part: str
    condition: str
    is_speech: bool
    fired: bool
    """Whether the voice activity detector let it pass; nothing is transcribed otherwise."""
    written: str = ""
    right: bool = True
    features: tuple[float, ...] = ()
    evidence: float = 0.0

    @property
    def is_kept(self) -> bool:
        return bool(self.written) and self.evidence >= 0


# -- hearing -------------------------------------------------------------------------------


def heard_as(recording: Recording) -> Iterator[tuple[str, Samples]]:
    """Yield (condition, samples) of a recording. Raises AudioError."""
    if recording.kind != "noise":
        for condition in CONDITIONS:
            yield condition, as_heard(recording, condition)
        return
    for pitch in PITCHES:
        samples = recording.samples()
        if pitch != 1.0:
            samples = soxr.resample(samples, SAMPLE_RATE, SAMPLE_RATE / pitch).astype(np.float32)
        yield f"pitch {pitch:g}", with_silence(samples)


def features(transcription: Transcription, voicing: Voicing) -> tuple[float, ...]:
    """Return what SpeechEvidence weighs, each by itself: its sum's parts without the weights."""
    heard, noise = transcription.heard_logprob, transcription.noise_logprob
    if heard is None or noise is None:
        raise ValueError("this text was not weighed")
    bounds = SpeechEvidence()
    rate = max(transcription.n_tokens, 1) / max(voicing.voiced_seconds, 0.1)
    return (
        math.log1p(voicing.clear_frames),
        min(heard - noise, bounds.max_gain),
        max(heard, bounds.min_logprob),
        transcription.no_speech_prob,
        min(0.0, math.log(rate / bounds.slow)),
    )


def hear(
    name: str,
    transcriber: Transcriber,
    recordings: Sequence[Recording],
    vad: SileroVad,
    prompt: str | None,
) -> Iterator[Case]:
    """Yield a case for each recording and condition, with a prompt or without."""
    spans = span_options(Settings(data_dir=()))
    for number, recording in enumerate(recordings):
        if number % PROGRESS_EVERY == 0:
            progress(f"{name}: {number} of {len(recordings)}")
        for condition, samples in heard_as(recording):
            speech = Speech(vad, spans)
            speech.add(samples)
            speech.finish()
            where = f"{condition}, prompt" if prompt else condition
            facts = (name, recording.file, recording.part, where, recording.kind != "noise")
            if not (found := speech.spans()):
                yield Case(*facts, fired=False)
                continue
            options = TranscribeOptions(recording.lang or "en", prompt=prompt)
            said = transcriber.transcribe(speech.cut(found), options)
            if not said.text or said.noise_logprob is None:
                yield Case(*facts, fired=True, right=False)
                continue
            yield Case(
                *facts,
                fired=True,
                written=said.text,
                right=_is_right(recording, said.text),
                features=features(said, speech.voicing),
                evidence=SpeechEvidence().of(said, speech.voicing),
            )


def _is_right(recording: Recording, written: str) -> bool:
    errors = word_errors(recording.text or "", written, recording.lang or "en")
    return not errors.words or errors.errors <= (1 - RIGHT) * errors.words


def measure(path: Path, recordings: Sequence[Recording], folder: Path) -> list[Case]:
    """Return what a model makes of the recordings. Raises WyomingWhisperError."""
    settings = Settings(model=str(path), data_dir=(folder,))
    engines = cpu_engines(settings, path, choose_arithmetic(settings))
    vad = SileroVad()
    with closing(engines.open(engines.build(lambda _: None))) as transcriber:
        known = [one for one in recordings if one.lang in ("", *transcriber.languages)]
        noises = [one for one in known if one.kind == "noise"]
        cases = list(hear(path.name, transcriber, known, vad, None))
        return cases + list(hear(f"{path.name}, prompt", transcriber, noises, vad, PROMPT))


# -- fitting -------------------------------------------------------------------------------


def fit(cases: Sequence[Case]) -> Floats:
    """Return bias and weights of a logistic regression; speech and noise count the same."""
    rows = np.array([case.features for case in cases], np.float64)
    is_speech = np.array([case.is_speech for case in cases], np.float64)
    mean, spread = rows.mean(axis=0), np.maximum(rows.std(axis=0), 1e-9)
    inputs = np.column_stack([np.ones(len(rows)), (rows - mean) / spread])
    share = np.where(is_speech == 1, 1 / is_speech.sum(), 1 / (1 - is_speech).sum())
    share *= len(rows) / 2
    ridge = RIDGE * np.eye(inputs.shape[1])
    ridge[0, 0] = 0
    weights = np.zeros(inputs.shape[1])
    for _ in range(STEPS):
        found = 1 / (1 + np.exp(-np.clip(inputs @ weights, -30, 30)))
        gradient = inputs.T @ (share * (found - is_speech)) + ridge @ weights
        curvature = (inputs * (share * found * (1 - found))[:, np.newaxis]).T @ inputs + ridge
        weights -= np.linalg.solve(curvature + 1e-9 * np.eye(len(weights)), gradient)
    scaled = weights[1:] / spread
    return np.array([weights[0] - scaled @ mean, *scaled])


def weighed(cases: Sequence[Case]) -> list[Case]:
    """Return those of the part `fit` that weights are found with."""
    return [
        case
        for case in cases
        if case.part == PARTS[0] and case.features and (case.right or not case.is_speech)
    ]


# -- showing -------------------------------------------------------------------------------


def rows(cases: Sequence[Case]) -> list[list[str]]:
    """Return a row for each model, part and kind."""
    found = []
    groups = dict.fromkeys((case.model, case.part, case.is_speech) for case in cases)
    for model, part, is_speech in groups:
        group = [c for c in cases if (c.model, c.part, c.is_speech) == (model, part, is_speech)]
        written = [case for case in group if case.written and case.right]
        kept = [case for case in group if case.is_kept]
        lost = [case for case in written if not case.is_kept]
        found.append(
            [
                model,
                part,
                "speech" if is_speech else "noise",
                str(len(group)),
                str(sum(case.fired for case in group)),
                str(len(written if is_speech else [c for c in group if c.written])),
                str(len(lost)) if is_speech else report.NOTHING,
                report.NOTHING if is_speech else str(len(kept)),
            ]
        )
    return found


HEAD = ["model", "part", "of", "heard", "taken for a voice", "texts", "lost", "kept"]


def wrong(cases: Sequence[Case]) -> Iterator[str]:
    """Yield a line for each text that is lost, or kept and should not be."""
    for case in cases:
        if case.written and (case.right and not case.is_kept if case.is_speech else case.is_kept):
            where = f"{case.model}, {case.part}: {case.file} ({case.condition})"
            yield f"{case.evidence:6.1f}  {where}: {case.written}"


# -- the suite -----------------------------------------------------------------------------


def add_options(parser: argparse.ArgumentParser) -> None:
    add_corpus(parser, "all")
    add_models(parser, "base,tiny.en")
    parser.add_argument("--fit", action="store_true", help="find the weights anew, and print them")
    parser.add_argument("--show", action="store_true", help="print what is lost and kept")


def run(args: argparse.Namespace) -> Outcome:
    """Hear everything with every model."""
    recordings, cases = chosen(args), list[Case]()
    with tempfile.TemporaryDirectory() as folder:
        for path in args.models:
            cases += measure(path, recordings, Path(folder))
    shown = [report.table(HEAD, rows(cases))]
    if args.show:
        shown.append("\n".join(wrong(cases)))
    if args.fit:
        names = ("bias", "per_clear", "per_gain", "per_logprob", "per_no_speech", "per_slowness")
        weights = zip(names, fit(weighed(cases)), strict=True)
        shown.append("\n".join(f"{name} = {value:.2f}" for name, value in weights))
    return Outcome(shown, {"cases": [asdict(case) for case in cases]})
