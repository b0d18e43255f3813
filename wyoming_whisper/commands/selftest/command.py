"""Whether an engine writes what CTranslate2 writes, on this very machine: `engine selftest`.

Three spoken clips and one of noise are heard by CTranslate2 in float32, then by the engine: in the
window that the server would give them, in the full one, and after a long prompt. The report is made
to be pasted into an issue: it names the machine, and holds no word that a user said.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ...backends.pipeline import WhisperTranscriber
from ...backends.tensorrt import Runtime
from ...engine.checkpoint import Checkpoint
from ...engine.graphs import write_graphs
from ...engine.progress import BuildDisplay
from ...engine.session import OracleSession
from ...engine.spec import EngineSpec
from ...engine.tensorrt.session import TensorRTSession
from ...errors import EngineError, ModelUnavailableError, SettingsError
from ...machine.host import HOST
from ...models.autopick import AutoModel
from ...models.folder import ModelFolder
from ...models.stock import AUTO
from ...models.store import ModelStore
from ...whisper.audio import FRAMES_PER_POSITION
from ...whisper.options import AudioContext
from .compare import Case, Reference
from .report import Report
from .tail import TailCase

if TYPE_CHECKING:
    from ...engine.onnx_graph import Precision
    from ...settings.options import Settings
    from ...whisper.session import Session
    from ...whisper.tokenizer import Tokenizer


@dataclass
class _Engine:
    session: Session
    runtime: str
    precision: str
    prepare_seconds: float
    open_seconds: float
    facts: dict[str, str] = field(default_factory=dict)


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Test, print the report; return 0 if it passed, else 1. Raises WyomingWhisperError."""
    runtime = _choose_runtime(args.runtime, settings.device)
    if args.precision == "bfloat16" and runtime != "tensorrt-llm":
        raise SettingsError(f"--precision bfloat16: {runtime} has float16 and float32")
    name = _model_here(settings) if settings.model == AUTO else settings.model
    settings = dataclasses.replace(settings, model=name)
    path = ModelStore(settings).ensure(name)
    test = _selftest
    if runtime == "tensorrt-llm":
        from .llm import selftest_llm  # an optional part

        test = selftest_llm
    report = test(settings, path, runtime, args.precision)
    print(json.dumps(report.as_json(), indent=1) if args.json else report.as_text())
    return 0 if report.passed else 1


def _model_here(settings: Settings) -> str:
    """Return the best stock model that is on this machine. Raises ModelUnavailableError."""
    best = AutoModel(dataclasses.replace(settings, language=Case.LANGUAGE)).best_here()
    if best is None:
        folders = ", ".join(map(str, settings.data_dir))
        raise ModelUnavailableError(
            f"there is no model in {folders} to test the engine with: "
            "`wyoming-whisper models download base` gets one, or name another with --model"
        )
    Reference.say(f"{best[0]} is tested, as it is here")
    return best[0]


def _selftest(settings: Settings, path: Path, runtime: str, precision: str | None = None) -> Report:
    """Compare the model in folder `path` on `runtime` with CTranslate2."""
    context = WhisperTranscriber.decoding_options(
        settings, ModelFolder(path), beam_size=1
    ).audio_context

    tails: list[TailCase] = []

    def cases(n_mels: int, tokenizer: Tokenizer) -> list[Case]:
        if context == AudioContext.safe():
            on_cpu = runtime == "onnxruntime"
            multiple = FRAMES_PER_POSITION if on_cpu else EngineSpec.FRAMES_MULTIPLE
            tails.extend(TailCase.all(n_mels, tokenizer, multiple))
        usual = Case.all(n_mels, tokenizer, context, settings.beam_size or 1)
        return [*usual, *(tail.full for tail in tails)]

    heard = Reference.hear(path, cases, settings.cpu_threads)
    n_usual = len(heard.cases) - len(tails)
    reference, in_full = (
        dataclasses.replace(heard, cases=heard.cases[part], decoded=heard.decoded[part])
        for part in (slice(n_usual), slice(n_usual, None))
    )
    n_bytes = Report.resident_bytes()
    opened = (
        _on_onnxruntime(settings, path, precision)
        if runtime == "onnxruntime"
        else _on_tensorrt(runtime, settings, path, precision)
    )
    with opened as engine, contextlib.closing(engine.session):
        Reference.say(f"{engine.runtime} hears them in {engine.precision}")
        comparisons = reference.compare_session(engine.session, engine.precision)
        stages = reference.cases[0].time_stages(engine.session, reference.tokenizer)
        memory_mb = Report.memory(n_bytes, engine.session)
        if tails and isinstance(engine.session, TensorRTSession) and engine.session.facts.has_tail:
            engine.session.has_tail = True
            comparisons += TailCase.compare_all(tails, engine.session, in_full)
    if tails and runtime == "onnxruntime":
        comparisons += TailCase.compare_all_on_cpu(tails, settings, path, in_full)
    return Report(
        machine=Report.of_machine() | engine.facts,
        model=settings.model_name,
        runtime=engine.runtime,
        precision=engine.precision,
        prepare_seconds=engine.prepare_seconds,
        open_seconds=engine.open_seconds,
        memory_mb=memory_mb,
        stages=stages,
        comparisons=comparisons,
    )


def _choose_runtime(asked: str, device: str) -> str:
    """Return what `auto` means here, and say why. Raises EngineError for a tensorrt that can't be.

    The same for tensorrt-llm. Before anything else is done: nobody should wait for that sentence.
    """
    if asked == "onnxruntime":
        return asked
    if asked == "tensorrt-llm":
        from ...backends.tensorrt_llm.api import Api  # an optional part

        Api.find(device)
        return asked
    try:
        return Runtime.find(device, "" if asked == "auto" else asked).library.runtime
    except EngineError as error:
        if asked != "auto":
            raise
        Reference.say(f"onnxruntime, as TensorRT can't be used here ({error})")
        return "onnxruntime"


@contextlib.contextmanager
def _on_onnxruntime(settings: Settings, path: Path, precision: str | None) -> Iterator[_Engine]:
    chosen = cast("Precision", precision or "float32")
    with tempfile.TemporaryDirectory(prefix="selftest-") as folder:
        Reference.say("the graphs are being written")
        start = time.perf_counter()
        write_graphs(
            Checkpoint.read(path / "model.bin"), Path(folder), chosen, settings.beam_size or 1
        )
        written = time.perf_counter()
        session = OracleSession(Path(folder), settings.cpu_threads or HOST.cores)
        opened = time.perf_counter()
        yield _Engine(session, "onnxruntime", chosen, written - start, opened - written)


@contextlib.contextmanager
def _on_tensorrt(
    library: str, settings: Settings, path: Path, precision: str | None
) -> Iterator[_Engine]:
    """The engine that the server would use, built unless it is there."""
    runtime = Runtime.find(settings.device, library)
    if precision is not None:
        settings = dataclasses.replace(settings, compute_type=precision)
    precision = runtime.spec(settings, path).precision
    engines = runtime.engines(settings, path)
    start = time.perf_counter()
    with contextlib.closing(BuildDisplay(engines.label)) as display:
        folder = engines.build(display.show_build)
    built = time.perf_counter()
    session = TensorRTSession(folder, runtime.gpu.index)
    opened = time.perf_counter()
    facts = {runtime.library.name: runtime.version}
    yield _Engine(session, library, precision, built - start, opened - built, facts)
