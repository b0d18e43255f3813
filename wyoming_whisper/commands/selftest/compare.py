"""A runtime hears the cases, and is judged by what CTranslate2 heard."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from ...text.repetition import loops
from ...whisper.audio import FRAMES_PER_SECOND
from ...whisper.inference import GenerateOptions
from ...whisper.search import SessionInference
from .cases import Case
from .report import Comparison, Heard, Stages

if TYPE_CHECKING:
    from ...whisper.inference import Hypothesis, Inference
    from ...whisper.session import Session
    from ...whisper.tokenizer import Tokenizer
MAX_NEW_TOKENS = 64
RUNS = 3
TIMED_STEPS = 32

# How far results may be apart. float16 rounds logits of about 20 to steps of about 0.01.
# and bfloat16 to steps of 0.125.
LOGPROB_TOLERANCE = {"float32": 1e-3, "float16": 0.05, "bfloat16": 0.3}
NO_SPEECH_TOLERANCE = {"float32": 1e-3, "float16": 0.05, "bfloat16": 0.1}
TIE = {"float32": 1e-3, "float16": 0.1, "bfloat16": 0.5}
"""Two tokens whose logits are no further apart are equally likely, and either may be chosen."""
OTHER_TOKENS = "other tokens"


def hear(inference: Inference, case: Case, tokenizer: Tokenizer, runs: int = 0) -> Heard:
    """Hear a case so often, and once before that, which is timed only if it is all."""
    options = GenerateOptions(
        beam_size=case.beam_size,
        temperature=0.0,
        best_of=1,
        max_new_tokens=MAX_NEW_TOKENS,
        suppressed_tokens=tokenizer.suppressed_tokens,
    )
    encode: list[float] = []
    decode: list[float] = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        features = inference.encode(case.mel)
        middle = time.perf_counter()
        found: Hypothesis = inference.generate(features, case.prompt, options)
        encode.append(middle - start)
        decode.append(time.perf_counter() - middle)
    return Heard(
        tuple(found.tokens),
        found.avg_logprob,
        found.no_speech_prob,
        median(encode[bool(runs) :]),
        median(decode[bool(runs) :]),
    )


def time_stages(session: Session, case: Case, tokenizer: Tokenizer) -> Stages:
    """Time what a session does, each part until it is done."""
    wait: Callable[[], None] = getattr(session, "synchronize", lambda: None)
    bias = session.bias([tokenizer.eot])  # a text that goes on
    prompt = np.array([case.prompt], np.int32)
    position = prompt.shape[1]
    slots = next(n for n in SessionInference.SLOTS if n >= position + TIMED_STEPS)
    measured: list[tuple[float, float, float]] = []
    for _ in range(RUNS + 1):
        wait()
        times = [time.perf_counter()]
        features = session.encode(case.mel)
        wait()
        times.append(time.perf_counter())
        cache = session.open_cache(features, 1, slots)
        token = int(session.step(cache, prompt, 0, bias).best()[0][0])
        times.append(time.perf_counter())
        steps = sum(1 for _ in session.greedy(cache, token, position, bias, TIMED_STEPS))
        times.append(time.perf_counter())
        encode, prefill, decode = np.diff(times).tolist()
        measured.append((encode, prefill, decode / steps))
    return Stages(*(median(column) for column in zip(*measured[1:], strict=True)))


def compare(
    session: Session,
    precision: str,
    cases: Sequence[Case],
    references: Sequence[Heard],
    tokenizer: Tokenizer,
    suppressed_begin: Sequence[int],
) -> list[Comparison]:
    """Have a session hear the cases, and judge it by what the reference heard."""
    inference = SessionInference(session, tokenizer, suppressed_begin)
    comparisons = []
    for case, reference in zip(cases, references, strict=True):
        heard = hear(inference, case, tokenizer, RUNS)
        verdict = judge(reference, heard, precision)
        if verdict.startswith(OTHER_TOKENS) and case.beam_size == 1:
            gap = _gap(session, case, reference, heard, tokenizer.eot)
            verdict = "tie" if gap <= TIE[precision] else verdict
        comparisons.append(comparison(case, reference, heard, verdict, tokenizer))
    return comparisons


def comparison(
    case: Case, reference: Heard, heard: Heard, verdict: str, tokenizer: Tokenizer
) -> Comparison:
    return Comparison(
        name=case.name,
        window_seconds=case.mel.shape[1] / FRAMES_PER_SECOND,
        beam_size=case.beam_size,
        text=tokenizer.decode(heard.tokens).strip(),
        reference=reference,
        engine=heard,
        verdict=verdict,
    )


def judge(reference: Heard, heard: Heard, precision: str) -> str:
    """Return "same", or in a few words what differs.

    Our search ends a text that goes round in circles, CTranslate2's goes on: then what there is of
    it counts, and not its mean log-probability.
    """
    common = common_prefix(heard.tokens, reference.tokens)
    ended = common == len(heard.tokens) and loops(heard.tokens, SessionInference.STOP_REPEATS)
    if heard.tokens != reference.tokens and not ended:
        return f"{OTHER_TOKENS} from number {common + 1} on"
    # Written so that what is no number is no success.
    apart = 0.0 if ended else abs(heard.avg_logprob - reference.avg_logprob)
    if not apart <= LOGPROB_TOLERANCE[precision]:
        return f"avg_logprob {heard.avg_logprob:.4f}, not {reference.avg_logprob:.4f}"
    if heard.no_speech_prob is None or reference.no_speech_prob is None:
        return "same"
    if not abs(heard.no_speech_prob - reference.no_speech_prob) <= NO_SPEECH_TOLERANCE[precision]:
        return f"no_speech_prob {heard.no_speech_prob:.4f}, not {reference.no_speech_prob:.4f}"
    return "same"


def _gap(session: Session, case: Case, reference: Heard, heard: Heard, eot: int) -> float:
    """Return how far apart the engine's logits of the first two tokens that differ are."""
    common = common_prefix(heard.tokens, reference.tokens)
    past = np.array([[*case.prompt, *heard.tokens[:common]]], np.int32)
    ours, theirs = ((*h.tokens, eot)[common] for h in (heard, reference))
    slots = next(n for n in SessionInference.SLOTS if n >= past.shape[1])
    cache = session.open_cache(session.encode(case.mel), 1, slots)
    logits = session.step(cache, past, 0, session.bias([])).logits()[0]
    return float(abs(logits[ours] - logits[theirs]))


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    pairs = enumerate(zip(left, right, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(left), len(right)))
