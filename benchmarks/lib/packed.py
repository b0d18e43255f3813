"""A model packed for a machine that has a GPU and little else: weights, clips, and what CTranslate2
made of them. What reads it again needs numpy alone.
"""

from __future__ import annotations

import json
import lzma
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np

from benchmarks.lib import models
from benchmarks.lib.errors import BenchmarkError
from benchmarks.lib.report import progress
from wyoming_whisper.commands.selftest.compare import Case, Reference
from wyoming_whisper.commands.selftest.report import Decoded
from wyoming_whisper.machine.host import HOST
from wyoming_whisper.models.folder import ModelFolder
from wyoming_whisper.whisper.tokenizer import Tokenizer

WEIGHTS, FACTS, MELS = "model.bin.xz", "facts.json", "mels.npz"
MODEL = "model"
"""The folder of what lies beside the weights in the model's own."""
PERSON = Path(__file__).parents[2] / "tests" / "audio" / "jfk.flac"
_COMPRESSION = [{"id": lzma.FILTER_LZMA2, "preset": 1}]


@dataclass(frozen=True)
class Tokens:
    """What of a Tokenizer decoding needs, without its text."""

    eot: int
    sot: int
    no_speech: int
    no_timestamps: int
    suppressed_tokens: list[int]
    texts: list[tuple[list[int], str]]
    """Of what CTranslate2 heard."""

    def decode(self, tokens: Sequence[int]) -> str:
        return next((text for known, text in self.texts if known == list(tokens)), "(other words)")


@dataclass(frozen=True)
class Packed:
    """One model's folder."""

    name: str
    tokens: Tokens
    suppressed_begin: list[int]
    cases: list[Case]
    references: list[Decoded]
    ctranslate2: str
    """Its version, and the machine that the references come from."""

    @property
    def tokenizer(self) -> Tokenizer:
        return cast("Tokenizer", self.tokens)

    @property
    def full(self) -> Case:
        """The one in the full window."""
        return max(self.cases, key=lambda case: case.mel.shape[1])


def prepare(folder: Path, names: Sequence[str]) -> None:
    """Write a folder for each model; needs all that the tests need."""
    from wyoming_whisper.backends.pipeline import WhisperTranscriber
    from wyoming_whisper.settings.options import Settings

    for name in names:
        progress(f"{name}: weights")
        path, target = models.stock(name), folder / name
        target.mkdir(parents=True, exist_ok=True)
        options = {"format": lzma.FORMAT_XZ, "filters": _COMPRESSION}
        with (
            (path / "model.bin").open("rb") as weights,
            lzma.open(target / WEIGHTS, "wb", **options) as packed,  # type: ignore[call-overload]
        ):
            shutil.copyfileobj(weights, packed, 1 << 20)
        small = [f for f in path.iterdir() if f.is_file() and f.name != "model.bin"]
        (target / MODEL).mkdir(exist_ok=True)
        for file in small:
            shutil.copyfile(file, target / MODEL / file.name)
        decoding = WhisperTranscriber.decoding_options(Settings(), ModelFolder(path), 1)
        context = decoding.audio_context
        progress(f"{name}: CTranslate2 hears the clips in float32")
        _pack(target, name, path, context)


def _pack(target: Path, name: str, path: Path, context: Any) -> None:
    def make_cases(n_mels: int, known: Tokenizer) -> list[Case]:
        cases = Case.all(n_mels, known, context)
        return [*cases, _person(n_mels, cases[0])]

    reference = Reference.hear(path, make_cases)
    tokenizer, cases, heard = reference.tokenizer, reference.cases, reference.decoded
    tokens = Tokens(
        eot=tokenizer.eot,
        sot=tokenizer.sot,
        no_speech=tokenizer.no_speech,
        no_timestamps=tokenizer.no_timestamps,
        suppressed_tokens=tokenizer.suppressed_tokens,
        texts=[(list(h.tokens), tokenizer.decode(h.tokens).strip()) for h in heard],
    )
    facts = {
        "name": name,
        "ctranslate2": f"{version('ctranslate2')} on {HOST.cpu_name}",
        "tokens": asdict(tokens),
        "suppressed_begin": reference.suppressed_begin,
        "cases": [{"name": case.name, "prompt": case.prompt} for case in cases],
        "heard": [asdict(h) for h in heard],
    }
    (target / FACTS).write_text(json.dumps(facts, indent=1), encoding="utf-8")
    np.savez_compressed(target / MELS, *(case.mel for case in cases))


def _person(n_mels: int, like: Case) -> Case:
    """Return a person's recording, in the window that it needs."""
    from wyoming_whisper.commands.client import read_audio
    from wyoming_whisper.engine.spec import EngineSpec
    from wyoming_whisper.whisper.audio import log_mel_spectrogram, pad_or_trim, silence_level

    mel = log_mel_spectrogram(read_audio(str(PERSON)), n_mels)
    n_frames = -(-mel.shape[1] // EngineSpec.FRAMES_MULTIPLE) * EngineSpec.FRAMES_MULTIPLE
    return Case("a person", pad_or_trim(mel, n_frames, silence_level(mel)), like.prompt)


def read_packed(folder: Path) -> Packed:
    """Return what `prepare` wrote of one model. Raises BenchmarkError."""
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        with (folder / MELS).open("rb") as file, np.load(file) as mels:
            arrays = [mels[f"arr_{i}"] for i in range(len(facts["cases"]))]
        return Packed(
            name=facts["name"],
            tokens=Tokens(**facts["tokens"]),
            suppressed_begin=facts["suppressed_begin"],
            cases=[
                Case(case["name"], mel, tuple(case["prompt"]))
                for case, mel in zip(facts["cases"], arrays, strict=True)
            ],
            references=[Decoded(**{**h, "tokens": tuple(h["tokens"])}) for h in facts["heard"]],
            ctranslate2=facts["ctranslate2"],
        )
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise BenchmarkError(
            f"{folder} is not a model that --prepare packed ({error}); run it again"
        ) from error


def unpacked(file: Path, folder: Path) -> Path:
    """Return the weights, unpacked into a folder with the rest of the model.

    Raises BenchmarkError.
    """
    target = folder / "model.bin"
    try:
        with lzma.open(file) as packed, target.open("wb") as weights:
            shutil.copyfileobj(packed, weights, 1 << 20)
        for beside in (file.parent / MODEL).glob("*"):
            shutil.copyfile(beside, folder / beside.name)
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise BenchmarkError(f"{file} can't be unpacked ({error}); run --prepare again") from error
    return target
