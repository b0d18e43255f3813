"""The clips of a packed model on CTranslate2 and on torch, where a machine has them."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.lib.packed import Packed
from benchmarks.lib.report import progress
from wyoming_whisper.commands.selftest.compare import Case
from wyoming_whisper.models.folder import ModelFolder
from wyoming_whisper.whisper.audio import N_FRAMES

Hear = Callable[[Case], tuple[tuple[int, ...], float]]
"""Gives the tokens of a case, and the seconds that encoding and decoding took, the median."""


@dataclass(frozen=True)
class Beside:
    """Another runtime's times for one model."""

    runtime: str
    why_not: str = ""
    """Why there is nothing."""
    seconds: dict[str, float] = field(default_factory=dict)
    """By clip."""
    n_same: int = 0
    """Clips with the very tokens of the reference."""

    @classmethod
    def all_of(cls, packed: Packed, model: Path, device: str, runs: int) -> list[Beside]:
        """Return what the other runtimes make of the clips, on `device` (cuda or cpu)."""
        results = []
        for name, opened in (("CTranslate2", _ctranslate2), ("torch", _torch)):
            progress(f"  {name} on {device}")
            try:
                hear = opened(packed, model, device, runs)
                heard = [hear(case) for case in packed.cases]
                pairs = zip(heard, packed.references, strict=True)
                n_same = sum(tokens == reference.tokens for (tokens, _), reference in pairs)
                seconds = {c.name: s for c, (_, s) in zip(packed.cases, heard, strict=True)}
                results.append(cls(f"{name} on {device}", "", seconds, n_same))
            except Exception as error:  # not installed, or theirs: what we measure goes on
                why = " ".join(f"{type(error).__name__}: {error}".split())[:300]
                results.append(cls(f"{name} on {device}", why))
        return results


def _ctranslate2(packed: Packed, model: Path, device: str, runs: int) -> Hear:
    from wyoming_whisper.backends.faster_whisper import CTranslate2Inference

    kind = "float16" if device == "cuda" else "float32"
    inference = CTranslate2Inference.load(ModelFolder(model), kind, 0, device)

    def hear(case: Case) -> tuple[tuple[int, ...], float]:
        decoded = case.decoded_by(inference, packed.tokenizer, runs)
        return decoded.tokens, decoded.encode + decoded.decode

    return hear


def _torch(packed: Packed, model: Path, device: str, runs: int) -> Hear:
    """Hugging Face's Whisper: greedy, and always in the full window, as it takes no other."""
    import torch
    import transformers

    from wyoming_whisper.models.huggingface import write_folder

    kind = torch.float16 if device == "cuda" else torch.float32
    with tempfile.TemporaryDirectory() as folder:
        write_folder(model, Path(folder), "float32")
        kinds = transformers.WhisperForConditionalGeneration
        whisper = kinds.from_pretrained(folder, torch_dtype=kind).to(device)

    def hear(case: Case) -> tuple[tuple[int, ...], float]:
        mel = torch.full((1, case.mel.shape[0], N_FRAMES), float(case.mel.min())).to(device, kind)
        mel[0, :, : case.mel.shape[1]] = torch.from_numpy(case.mel)
        prompt = torch.tensor([list(case.prompt)], device=device)
        suppressed, times = packed.tokens.suppressed_tokens, list[float]()
        for _ in range(runs + 1):
            start = time.perf_counter()
            written = whisper.generate(
                mel, decoder_input_ids=prompt, suppress_tokens=suppressed, max_new_tokens=64
            )[0].tolist()
            times.append(time.perf_counter() - start)
        tokens = [token for token in written[len(case.prompt) :] if token != packed.tokens.eot]
        return tuple(tokens), median(times[1:])

    return hear
