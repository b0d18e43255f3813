"""Three spoken clips and noise, in several windows: what CTranslate2 makes of them, and others."""

from __future__ import annotations

import dataclasses
import gc
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ...backends.frozen import CLIPS
from ...engine.spec import EngineSpec
from ...errors import SettingsError
from ...machine.host import HOST
from ...models.folder import ModelFolder
from ...transcriber import SAMPLE_RATE
from ...whisper.audio import (
    FRAMES_PER_SECOND,
    N_FRAMES,
    log_mel_spectrogram,
    pad_or_trim,
    silence_level,
    white_noise,
)
from ...whisper.encoded import EncodedAudio
from ...whisper.inference import GenerateOptions
from ...whisper.search import SessionInference
from .report import Comparison, Decoded

if TYPE_CHECKING:
    from ...whisper.audio import Array
    from ...whisper.inference import Inference
    from ...whisper.options import AudioContext
    from ...whisper.session import Session
    from ...whisper.tokenizer import Tokenizer


@dataclass(frozen=True)
class Case:
    CLIPS: ClassVar = CLIPS
    LANGUAGE: ClassVar = "en"
    NOISE: ClassVar = "noise"
    RUNS: ClassVar = 3
    """How often a tested runtime hears it, for its times."""
    TIMED_STEPS: ClassVar = 32

    name: str
    mel: Array = field(repr=False)
    """Padded to its window, shape = (n_mels, n_frames)."""
    prompt: tuple[int, ...]
    beam_size: int = 1
    sound: str = ""
    """Which of `sounds` it is."""

    def decoded_by(self, inference: Inference, tokenizer: Tokenizer, runs: int = 0) -> Decoded:
        """Hear it so often, and once before that, which is timed only if it is all."""
        options = GenerateOptions(
            beam_size=self.beam_size,
            temperature=0.0,
            best_of=1,
            max_new_tokens=64,
            suppressed_tokens=tokenizer.suppressed_tokens,
        )
        encode: list[float] = []
        decode: list[float] = []
        for _ in range(runs + 1):
            start = time.perf_counter()
            features = inference.encode(self.mel)
            middle = time.perf_counter()
            hypothesis = inference.generate(features, self.prompt, options)
            encode.append(middle - start)
            decode.append(time.perf_counter() - middle)
        return Decoded(
            tuple(hypothesis.tokens),
            hypothesis.avg_logprob,
            hypothesis.no_speech_prob,
            median(encode[bool(runs) :]),
            median(decode[bool(runs) :]),
        )

    def compared(
        self, reference: Decoded, engine: Decoded, verdict: str, tokenizer: Tokenizer
    ) -> Comparison:
        return Comparison(
            name=self.name,
            window_seconds=self.mel.shape[1] / FRAMES_PER_SECOND,
            beam_size=self.beam_size,
            text=tokenizer.decode(engine.tokens).strip(),
            reference=reference,
            engine=engine,
            verdict=verdict,
        )

    def time_stages(self, session: Session, tokenizer: Tokenizer) -> dict[str, float]:
        """Time what a session does, each part until it is done: Report.stages."""
        wait: Callable[[], None] = getattr(session, "synchronize", lambda: None)
        bias = session.bias([tokenizer.eot])  # a text that goes on
        prompt = np.array([self.prompt], np.int32)
        position = prompt.shape[1]
        slots = next(n for n in EncodedAudio.SLOTS if n >= position + self.TIMED_STEPS)
        measured: list[tuple[float, float, float]] = []
        for _ in range(self.RUNS + 1):
            wait()
            times = [time.perf_counter()]
            features = session.encode(self.mel)
            wait()
            times.append(time.perf_counter())
            cache = session.open_cache(features, 1, slots)
            token = int(session.step(cache, prompt, 0, bias).best()[0][0])
            times.append(time.perf_counter())
            steps = sum(1 for _ in session.greedy(cache, token, position, bias, self.TIMED_STEPS))
            times.append(time.perf_counter())
            encode, prefill, decode = np.diff(times).tolist()
            measured.append((encode, prefill, decode / steps))
        medians = map(median, zip(*measured[1:], strict=True))
        return dict(zip(("encode", "prefill", "step"), medians, strict=True))

    def gap(self, session: Session, reference: Decoded, engine: Decoded, eot: int) -> float:
        """Return how far apart the engine's logits of the first two tokens that differ are."""
        common = engine.n_common(reference)
        past = np.array([[*self.prompt, *engine.tokens[:common]]], np.int32)
        ours, theirs = ((*one.tokens, eot)[common] for one in (engine, reference))
        slots = next(n for n in EncodedAudio.SLOTS if n >= past.shape[1])
        cache = session.open_cache(session.encode(self.mel), 1, slots)
        logits = session.step(cache, past, 0, session.bias([])).logits()[0]
        return float(abs(logits[ours] - logits[theirs]))

    @classmethod
    def sounds(cls) -> dict[str, Array]:
        """Return what is heard: the clips by what is said in them, and noise."""
        from ..client import read_audio  # needs wyoming; whoever has packed cases may not have it

        files = sorted(cls.CLIPS.glob("*.wav"))
        if not files:
            raise SettingsError(f"{cls.CLIPS} holds no clips: this installation is not whole")
        clips = {file.stem.replace("-", " "): read_audio(file) for file in files}
        return clips | {cls.NOISE: white_noise(2 * SAMPLE_RATE, 0.02)}

    @classmethod
    def all(
        cls, n_mels: int, tokenizer: Tokenizer, context: AudioContext, beam_size: int = 1
    ) -> list[Case]:
        """Return the clips in their own windows, one in the full one, one after a long prompt."""
        long_prompt_tokens = 100  # more than one call of the decoder takes
        sot = (*tokenizer.sot_sequence(cls.LANGUAGE), tokenizer.no_timestamps)
        # Of TensorRT's windows; onnxruntime gets the same ones.
        fitted = dataclasses.replace(context, multiple=EngineSpec.FRAMES_MULTIPLE)
        mels = {name: log_mel_spectrogram(sound, n_mels) for name, sound in cls.sounds().items()}
        spoken = [name for name in mels if name != cls.NOISE]

        def window(mel: Array, n_frames: int) -> Array:
            return pad_or_trim(mel, n_frames, silence_level(mel))

        cases = [
            cls(name, window(mel, fitted.frames(mel.shape[1])), sot, sound=name)
            for name, mel in mels.items()
        ]
        first = cases[0]
        past = (tokenizer.encode(" " + ", ".join(spoken)) * long_prompt_tokens)[:long_prompt_tokens]
        prompt = (tokenizer.sot_prev, *past, *sot)
        cases.append(cls(f"{first.name}, long prompt", first.mel, prompt, sound=first.name))
        if first.mel.shape[1] < N_FRAMES:
            full = window(mels[first.name], N_FRAMES)
            cases.append(cls(f"{first.name}, full window", full, sot, sound=first.name))
        if beam_size > 1:
            cases += [dataclasses.replace(c, beam_size=beam_size) for c in cases[: len(spoken)]]
        return cases


@dataclass(frozen=True)
class Reference:
    """What CTranslate2 has made of the cases, in float32 on the CPU."""

    tokenizer: Tokenizer
    suppressed_begin: Sequence[int]
    cases: Sequence[Case]
    decoded: Sequence[Decoded]

    @classmethod
    def hear(
        cls, path: Path, make_cases: Callable[[int, Tokenizer], Sequence[Case]], threads: int = 0
    ) -> Reference:
        """Decode the cases with the model in folder `path`; `threads` 0 are all cores.

        `make_cases` gets n_mels and the tokenizer. CTranslate2 is gone afterwards: a Jetson has
        memory for it or an engine. Raises ModelBrokenError.
        """
        from ...backends.faster_whisper import CTranslate2Inference

        cls.say("CTranslate2 hears the clips in float32")
        folder = ModelFolder(path)
        inference = CTranslate2Inference.load(folder, "float32", threads or HOST.cores)
        try:
            tokenizer = folder.tokenizer
            cases = make_cases(inference.n_mels, tokenizer)
            decoded = [case.decoded_by(inference, tokenizer) for case in cases]
        finally:
            inference.unload()
            gc.collect()
        return cls(tokenizer, folder.suppressed_begin, cases, decoded)

    def compare(
        self,
        precision: str,
        hear: Callable[[Case], Decoded],
        gap: Callable[[Case, Decoded, Decoded], float],
    ) -> list[Comparison]:
        """Judge what is heard elsewhere in that precision.

        `gap` tells how far apart the first two tokens are that differ, of the reference and of
        the other.
        """
        comparisons = []
        for case, reference in zip(self.cases, self.decoded, strict=True):
            engine = hear(case)
            verdict = engine.verdict(reference, precision)
            if engine.has_other_tokens(reference) and case.beam_size == 1:
                is_tie = gap(case, reference, engine) <= Decoded.TIE[precision]
                verdict = "tie" if is_tie else verdict
            comparisons.append(case.compared(reference, engine, verdict, self.tokenizer))
        return comparisons

    def compare_session(self, session: Session, precision: str) -> list[Comparison]:
        inference = SessionInference(session, self.tokenizer, self.suppressed_begin)
        return self.compare(
            precision,
            lambda case: case.decoded_by(inference, self.tokenizer, case.RUNS),
            lambda case, one, other: case.gap(session, one, other, self.tokenizer.eot),
        )

    @staticmethod
    def say(text: str) -> None:
        print(f"selftest: {text} ...", file=sys.stderr, flush=True)
