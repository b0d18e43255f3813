"""The clips of a packed model on CTranslate2 and on torch, where a machine has them."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.lib.packed import Packed
from benchmarks.lib.report import progress
from wyoming_whisper.models.folder import ModelFolder

FULL_FRAMES = 3000


@dataclass(frozen=True)
class Beside:
    """Another runtime's times for one model; all clips were heard once before they were timed."""

    runtime: str
    why_not: str = ""
    """Why there is nothing."""
    seconds: dict[str, float] | None = None
    """Clip -> encoding and decoding, the median."""
    n_same: int = 0
    """Clips with the very tokens of the reference."""


def beside(packed: Packed, model: Path, device: str, runs: int) -> list[Beside]:
    """Return what the other runtimes make of the clips, on `device` (cuda or cpu)."""
    runtimes: dict[str, Callable[[Packed, Path, str, int], Beside]] = {
        f"CTranslate2 on {device}": _ctranslate2,
        f"torch on {device}": _torch,
    }
    results = []
    for name, measure in runtimes.items():
        progress(f"  {name}")
        try:
            results.append(measure(packed, model, device, runs))
        except ImportError as error:
            results.append(Beside(name, f"{error.name} is not installed"))
        except Exception as error:  # theirs is theirs: what we measure goes on
            results.append(Beside(name, " ".join(f"{type(error).__name__}: {error}".split())[:300]))
    return results


def _ctranslate2(packed: Packed, model: Path, device: str, runs: int) -> Beside:
    from wyoming_whisper.backends.faster_whisper import CTranslate2Inference, load_ctranslate2

    compute_type = "float16" if device == "cuda" else "float32"
    whisper = load_ctranslate2(ModelFolder(model), compute_type, 0, device)
    inference = CTranslate2Inference(whisper)
    seconds, n_same = {}, 0
    for case, reference in zip(packed.cases, packed.references, strict=True):
        decoded = case.decoded_by(inference, packed.tokenizer, runs)
        seconds[case.name] = decoded.encode + decoded.decode
        n_same += decoded.tokens == reference.tokens
    name = f"CTranslate2 on {device} in {compute_type}"
    return Beside(name, seconds=seconds, n_same=n_same)


def _torch(packed: Packed, model: Path, device: str, runs: int) -> Beside:
    """Hugging Face's Whisper: greedy, and always in the full window, as it takes no other."""
    import torch
    import transformers

    from wyoming_whisper.models.huggingface import write_folder

    kind = torch.float16 if device == "cuda" else torch.float32
    with tempfile.TemporaryDirectory() as folder:
        write_folder(model, Path(folder), "float32")
        whisper = transformers.WhisperForConditionalGeneration.from_pretrained(
            folder, torch_dtype=kind
        ).to(device)
        seconds, n_same = {}, 0
        for case, reference in zip(packed.cases, packed.references, strict=True):
            mel = torch.zeros((1, case.mel.shape[0], FULL_FRAMES), dtype=kind, device=device)
            mel[:] = float(case.mel.min())
            mel[0, :, : case.mel.shape[1]] = torch.from_numpy(case.mel).to(device, kind)
            tokens, took = _generated(whisper, mel, case.prompt, runs, packed)
            seconds[case.name] = took
            n_same += tuple(tokens) == reference.tokens
    return Beside(f"torch on {device} in {kind}".replace("torch.", ""), "", seconds, n_same)


def _generated(
    whisper: Any, mel: Any, prompt: Sequence[int], runs: int, packed: Packed
) -> tuple[list[int], float]:
    import torch

    times, tokens = [], list[int]()
    for _ in range(runs + 1):
        start = time.perf_counter()
        written = whisper.generate(
            mel,
            decoder_input_ids=torch.tensor([list(prompt)], device=mel.device),
            suppress_tokens=packed.tokens.suppressed_tokens,
            max_new_tokens=64,
            num_beams=1,
            do_sample=False,
        )
        tokens = [t for t in written[0].tolist()[len(prompt) :] if t != packed.tokens.eot]
        times.append(time.perf_counter() - start)
    return tokens, median(times[1:])
