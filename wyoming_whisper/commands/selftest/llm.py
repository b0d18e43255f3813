"""TensorRT-LLM beside CTranslate2."""

from __future__ import annotations

import dataclasses
import math
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from ...backends.tensorrt_llm.api import Api
from ...backends.tensorrt_llm.backend import open_model
from ...backends.tensorrt_llm.inference import LLMInference
from ...models.find import ensure_model
from ...whisper.options import AudioContext
from .compare import Case, make_cases
from .reference import open_reference, say
from .report import Comparison, Decoded, Report, machine, memory_mb, resident_bytes

if TYPE_CHECKING:
    from ...settings.options import Settings
    from ...whisper.audio import Array
    from ...whisper.tokenizer import Tokenizer


def selftest_llm(
    settings: Settings, path: Path, runtime: str, precision: str | None = None
) -> Report:
    """Compare TensorRT-LLM with CTranslate2, both in full windows: it has no others.

    It searches with `settings.beam_size` beams, whatever is asked, so CTranslate2 does too.
    """
    settings = dataclasses.replace(settings, compute_type=precision or "default")
    dtype = Api.choose_dtype(settings)
    beam_size = settings.beam_size or 1
    say("CTranslate2 hears the clips in float32")
    with open_reference(path, settings.cpu_threads) as reference:
        tokenizer = reference.tokenizer
        cases = [
            dataclasses.replace(case, beam_size=beam_size)
            for case in make_cases(reference.inference.n_mels, tokenizer, AudioContext())
        ]
        references = [case.decoded_by(reference.inference, tokenizer) for case in cases]
        del reference
    before, start = resident_bytes(), time.perf_counter()
    folder = ensure_model(settings.model, settings, layout="huggingface")
    written = time.perf_counter()
    api, gpu = Api.find(settings.device)
    transcriber = open_model(settings, folder, api, dtype, gpu)
    opened, inference = time.perf_counter(), transcriber.inference
    say(f"{runtime} hears them in {dtype}")
    try:
        audio = {name: LLMInference.frames(samples) for name, samples in Case.sounds().items()}
        comparisons = [
            _compare_llm(inference, case, audio[case.sound], one, dtype, tokenizer)
            for case, one in zip(cases, references, strict=True)
        ]
        at_once = _time_at_once(inference, audio[cases[0].sound], cases[0], tokenizer)
        memory = memory_mb(before)
    finally:
        transcriber.close()
    sees_prompt = "yes" if inference.sees_prompt else "no: no_speech_prob is not compared"
    facts = {"logits of the prompt": sees_prompt, "at once": at_once}
    return Report(
        machine=machine() | facts,
        model=settings.model_name,
        runtime=f"{runtime} {api.version}",
        precision=dtype,
        prepare_seconds=written - start,
        open_seconds=opened - written,
        memory_mb=memory,
        stages=None,
        comparisons=comparisons,
    )


def _compare_llm(
    inference: LLMInference,
    case: Case,
    audio: Array,
    reference: Decoded,
    precision: str,
    tokenizer: Tokenizer,
) -> Comparison:
    engine = dataclasses.replace(case, mel=audio).decoded_by(inference, tokenizer, case.RUNS)
    if not inference.sees(case.prompt):
        engine = dataclasses.replace(engine, no_speech_prob=None)
    verdict = engine.verdict(reference, precision)
    if engine.has_other_tokens(reference) and case.beam_size == 1 and inference.scores:
        gap = _scored_gap(inference, case, audio, (reference, engine), tokenizer)
        verdict = "tie" if gap <= Decoded.TIE[precision] else verdict
    return case.compared(reference, engine, verdict, tokenizer)


def _scored_gap(
    inference: LLMInference,
    case: Case,
    audio: Array,
    pair: tuple[Decoded, Decoded],
    tokenizer: Tokenizer,
) -> float:
    """Return how far apart the first two tokens that differ are; infinite where one is the end."""
    common = pair[0].n_common(pair[1])
    texts = [one.tokens for one in pair]
    if any(len(text) <= common or text[common] >= tokenizer.eot for text in texts):
        return math.inf
    scored = inference.score(
        inference.encode(audio), case.prompt, [text[: common + 1] for text in texts]
    )
    return float(abs(scored[0][-1] - scored[1][-1]))


def _time_at_once(inference: LLMInference, audio: Array, case: Case, tokenizer: Tokenizer) -> str:
    """Return how long as many commands take as it takes at once, from as many threads."""

    def one(_: int) -> None:
        dataclasses.replace(case, mel=audio).decoded_by(inference, tokenizer)

    with ThreadPoolExecutor(Api.AT_ONCE) as threads:
        start = time.perf_counter()
        list(threads.map(one, range(Api.AT_ONCE)))
        seconds = time.perf_counter() - start
    return f"{Api.AT_ONCE} commands in {seconds * 1000:.0f} ms"
