"""Whether the frozen tail gives what the full window gives: in an engine, in graphs for CPUs."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from ...backends.onnxruntime import OnnxRuntime
from ...engine.cpu_graphs import Arithmetic, write_cpu_graphs
from ...engine.session import CpuSession
from ...machine.host import HOST
from ...models.folder import ModelFolder
from ...whisper.audio import (
    FRAMES_PER_POSITION,
    N_FRAMES,
    log_mel_spectrogram,
    pad_or_trim,
    silence_level,
)
from ...whisper.options import AudioContext
from ...whisper.search import SessionInference
from .compare import Case, Reference

if TYPE_CHECKING:
    from ...settings.options import Settings
    from ...whisper.session import Session
    from ...whisper.tokenizer import Tokenizer
    from .report import Comparison, Decoded


@dataclasses.dataclass(frozen=True)
class TailCase:
    """A spoken clip: in the full window, and in one that the tail follows."""

    MOST_LOST = 0.25
    """Nats a token, of the full window's text. base and tiny.en lose 0.16 and 0.17 at most; where
    nothing follows the window 1.2 and 1.1."""

    full: Case
    fitted: Case

    @classmethod
    def all(
        cls, n_mels: int, tokenizer: Tokenizer, multiple: int = FRAMES_PER_POSITION
    ) -> list[TailCase]:
        """Return the spoken clips, in windows that are multiples of so many frames."""
        windows = dataclasses.replace(AudioContext.frozen(), multiple=multiple)
        prompt = (*tokenizer.sot_sequence(Case.LANGUAGE), tokenizer.no_timestamps)
        cases = []
        for name, samples in Case.sounds().items():
            if name == Case.NOISE:
                continue
            mel = log_mel_spectrogram(samples, n_mels)
            lengths = (N_FRAMES, windows.frames(mel.shape[1]))
            full, fitted = (
                Case(f"{name}, frozen tail", pad_or_trim(mel, n, silence_level(mel)), prompt)
                for n in lengths
            )
            cases.append(cls(full, fitted))
        return cases

    def compared(
        self, inference: SessionInference, reference: Decoded, tokenizer: Tokenizer
    ) -> Comparison:
        """Compare what is heard with the tail with the `reference`, CTranslate2's full window."""
        engine = self.fitted.decoded_by(inference, tokenizer, Case.RUNS)
        text = list(reference.tokens)
        by_full, by_tail = (
            np.mean(inference.score(inference.encode(case.mel), case.prompt, [text])[0])
            for case in (self.full, self.fitted)
        )
        lost = float(by_full - by_tail)
        verdict = "same" if engine.tokens == reference.tokens else "as likely"
        if not lost <= self.MOST_LOST:  # so that what is no number is too much
            verdict = f"the full window's text loses {lost:.2f} nats a token"
        return self.fitted.compared(reference, engine, verdict, tokenizer)

    @classmethod
    def compare_all(
        cls, cases: Sequence[TailCase], session: Session, reference: Reference
    ) -> list[Comparison]:
        """Have a session that has the tail hear the cases; `reference` has heard them in full."""
        Reference.say("the clips are heard with the rest of the window frozen")
        inference = SessionInference(session, reference.tokenizer, reference.suppressed_begin)
        pairs = zip(cases, reference.decoded, strict=True)
        return [case.compared(inference, one, reference.tokenizer) for case, one in pairs]

    @classmethod
    def compare_all_on_cpu(
        cls, cases: Sequence[TailCase], settings: Settings, path: Path, reference: Reference
    ) -> list[Comparison]:
        """Have the graphs for CPUs of the model in folder `path` hear the cases."""
        arithmetic = cast(
            "Arithmetic", OnnxRuntime.choose_arithmetic(dataclasses.replace(settings, device="cpu"))
        )
        threads = settings.cpu_threads or HOST.cores
        with tempfile.TemporaryDirectory(prefix="selftest-") as folder:
            Reference.say(f"the graphs for CPUs are being written in {arithmetic}")
            write_cpu_graphs(ModelFolder(path).checkpoint(), Path(folder), arithmetic)
            with closing(CpuSession(Path(folder), threads, has_tail=True)) as session:
                return cls.compare_all(cases, session, reference)
