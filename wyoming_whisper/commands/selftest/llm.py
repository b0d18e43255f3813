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
from ...models.store import ModelStore
from ...whisper.options import AudioContext
from .compare import Case, Reference
from .report import Decoded, Report

if TYPE_CHECKING:
    from ...settings.options import Settings
    from ...whisper.tokenizer import Tokenizer


def selftest_llm(
    settings: Settings, path: Path, runtime: str, precision: str | None = None
) -> Report:
    """Compare TensorRT-LLM with CTranslate2, both in full windows: it has no others.

    It searches with `settings.beam_size` beams, whatever is asked, so CTranslate2 does too.
    """
    settings = dataclasses.replace(settings, compute_type=precision or "default")
    dtype = Api.choose_dtype(settings)

    def cases(n_mels: int, tokenizer: Tokenizer) -> list[Case]:
        in_full = Case.all(n_mels, tokenizer, AudioContext())
        return [dataclasses.replace(case, beam_size=settings.beam_size or 1) for case in in_full]

    reference = Reference.hear(path, cases, settings.cpu_threads)
    n_bytes, start = Report.resident_bytes(), time.perf_counter()
    folder = ModelStore(settings).ensure(settings.model, layout="huggingface")
    written = time.perf_counter()
    api, gpu = Api.find(settings.device)
    transcriber = open_model(settings, folder, api, dtype, gpu)
    opened, inference = time.perf_counter(), transcriber.inference
    Reference.say(f"{runtime} hears them in {dtype}")
    try:
        heard = _Heard(inference, reference.tokenizer)
        comparisons = reference.compare(dtype, heard, heard.gap)
        at_once = heard.time_at_once(reference.cases[0])
        memory_mb = Report.memory(n_bytes)
    finally:
        transcriber.close()
    sees_prompt = "yes" if inference.sees_prompt else "no: no_speech_prob is not compared"
    facts = {"logits of the prompt": sees_prompt, "at once": at_once}
    return Report(
        machine=Report.of_machine() | facts,
        model=settings.model_name,
        runtime=f"{runtime} {api.version}",
        precision=dtype,
        prepare_seconds=written - start,
        open_seconds=opened - written,
        memory_mb=memory_mb,
        stages=None,
        comparisons=comparisons,
    )


class _Heard:
    """What TensorRT-LLM makes of the cases: it takes their samples."""

    def __init__(self, inference: LLMInference, tokenizer: Tokenizer) -> None:
        self._inference, self._tokenizer = inference, tokenizer
        sounds = Case.sounds().items()
        self._audio = {name: inference.frames(samples) for name, samples in sounds}

    def __call__(self, case: Case, runs: int = Case.RUNS) -> Decoded:
        spoken = dataclasses.replace(case, mel=self._audio[case.sound])
        decoded = spoken.decoded_by(self._inference, self._tokenizer, runs)
        if self._inference.sees(case.prompt):
            return decoded
        return dataclasses.replace(decoded, no_speech_prob=None)

    def gap(self, case: Case, reference: Decoded, engine: Decoded) -> float:
        """Return how far apart the first two tokens that differ are; infinite where one is the
        end, or nothing is scored.
        """
        common, eot = reference.n_common(engine), self._tokenizer.eot
        texts = (reference.tokens, engine.tokens)
        is_end = any(len(text) <= common or text[common] >= eot for text in texts)
        if is_end or not self._inference.scores:
            return math.inf
        features = self._inference.encode(self._audio[case.sound])
        beginnings = [text[: common + 1] for text in texts]
        one, other = self._inference.score(features, case.prompt, beginnings)
        return float(abs(one[-1] - other[-1]))

    def time_at_once(self, case: Case) -> str:
        """Return how long as many commands take as it takes at once, from as many threads."""
        with ThreadPoolExecutor(Api.AT_ONCE) as threads:
            start = time.perf_counter()
            list(threads.map(lambda _: self(case, 0), range(Api.AT_ONCE)))
            seconds = time.perf_counter() - start
        return f"{Api.AT_ONCE} commands in {seconds * 1000:.0f} ms"
