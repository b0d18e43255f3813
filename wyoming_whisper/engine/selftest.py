"""Whether an engine writes what CTranslate2 writes, on this very machine: `engine selftest`.

Three spoken clips and one of noise are heard by CTranslate2 in float32, then by the engine: in the
window that the server would give them, in the full one, and after a long prompt. The report is made
to be pasted into an issue: it names the machine, and holds no word that a user said.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gc
import json
import math
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..errors import EngineError, ModelBrokenError, ModelUnavailableError, SettingsError
from ..machine import cpu_name, instruction_set, physical_cores

if TYPE_CHECKING:
    from ..backends.tensorrt_llm import LLMInference
    from ..settings import Settings
    from ..whisper.audio import Array
    from ..whisper.decoding import AudioContext, Hypothesis, Inference
    from ..whisper.search import Session
    from ..whisper.tokenizer import Tokenizer
    from .graphs import Precision

CLIPS = Path(__file__).parent / "clips"
LANGUAGE = "en"
RUNTIMES = ("auto", "onnxruntime", "tensorrt", "tensorrt-llm")
PRECISIONS = ("float16", "bfloat16", "float32")

FRAMES_MULTIPLE = 200
"""Of TensorRT's windows; onnxruntime gets the same ones."""

LONG_PROMPT_TOKENS = 100
"""More than one call of the decoder takes."""

MAX_NEW_TOKENS = 64
RUNS = 3
TIMED_STEPS = 32
NOISE_SECONDS = 2.0

# How far results may be apart. float16 rounds logits of about 20 to steps of about 0.01.
# and bfloat16 to steps of 0.125.
LOGPROB_TOLERANCE = {"float32": 1e-3, "float16": 0.05, "bfloat16": 0.3}
NO_SPEECH_TOLERANCE = {"float32": 1e-3, "float16": 0.05, "bfloat16": 0.1}
TIE = {"float32": 1e-3, "float16": 0.1, "bfloat16": 0.5}
"""Two tokens whose logits are no further apart are equally likely, and either may be chosen."""

OTHER_TOKENS = "other tokens"
NOISE = "noise"
FULL_WINDOW = "full window"

_RELEASE = Path("/etc/nv_tegra_release")
_BOARD = Path("/proc/device-tree/model")
_POWER = Path("/var/lib/nvpmodel/status")
_STATUS = Path("/proc/self/status")
_MEMORY = Path("/proc/meminfo")

_PACKAGES = (
    "wyoming-whisper",
    "numpy",
    "ctranslate2",
    "onnx",
    "onnxruntime",
    "tensorrt",
    "tensorrt-cu12",
    "tensorrt-cu13",
    "tensorrt-llm",
    "torch",
)


@dataclass(frozen=True)
class Case:
    """One thing to be heard."""

    name: str
    mel: Array = field(repr=False)
    """Padded to its window, shape = (n_mels, n_frames)."""
    prompt: tuple[int, ...]
    beam_size: int = 1
    sound: str = ""
    """Which of `sounds` it is."""


@dataclass(frozen=True)
class Heard:
    """What one runtime made of a case; times are medians, in seconds."""

    tokens: tuple[int, ...]
    avg_logprob: float
    no_speech_prob: float | None
    """None where the runtime does not tell it."""
    encode: float
    decode: float
    """Of all tokens, the prompt included."""


@dataclass(frozen=True)
class Comparison:
    """A case, heard by both."""

    name: str
    window_seconds: float
    beam_size: int
    text: str
    reference: Heard
    engine: Heard
    verdict: str
    """same, tie (two tokens were equally likely), or what differs."""

    @property
    def good(self) -> bool:
        return self.verdict in ("same", "tie")

    @property
    def apart(self) -> str:
        """How far the mean log-probabilities are apart; of other texts they say nothing."""
        if self.engine.tokens != self.reference.tokens:
            return "-"
        return f"{abs(self.engine.avg_logprob - self.reference.avg_logprob):.1e}"


@dataclass(frozen=True)
class Stages:
    """Seconds, medians: of the first clip in the window that it would get."""

    encode: float
    prefill: float
    step: float
    """One token after another, each chosen by the engine."""


@dataclass(frozen=True)
class Report:
    """Everything that is told."""

    machine: dict[str, str]
    model: str
    runtime: str
    precision: str
    prepare_seconds: float
    """To write the graphs or build the engine; about 0 where it was there."""
    open_seconds: float
    memory_mb: dict[str, float]
    stages: Stages | None
    """None of a runtime that does all in one."""
    comparisons: list[Comparison]

    @property
    def failures(self) -> list[str]:
        found = [f"{c.name}: {c.verdict}" for c in self.comparisons if not c.good]
        if not any(c.verdict == "same" and c.reference.tokens for c in self.comparisons):
            found.append("no clip with words in it came out the same: that proves nothing")
        return found

    @property
    def passed(self) -> bool:
        return not self.failures


@dataclass
class _Engine:
    """What is tested."""

    session: Session
    runtime: str
    precision: str
    prepare_seconds: float
    open_seconds: float
    facts: dict[str, str] = field(default_factory=dict)


# -- the command ---------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own flags."""
    parser.add_argument(
        "--runtime",
        choices=RUNTIMES,
        default="auto",
        help="what runs the engine (default: tensorrt where there is a GPU, else onnxruntime); "
        "tensorrt-llm is only tested where it is named",
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        help="arithmetic of the engine (default: float16 on GPUs, float32 on onnxruntime); "
        "bfloat16 is for tensorrt-llm alone",
    )
    parser.add_argument("--json", action="store_true", help="write the report as JSON")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Test, print the report; return 0 if it passed, else 1. Raises WyomingWhisperError."""
    from ..models import AUTO, ensure_model

    runtime = choose_runtime(args.runtime, settings.device)
    if args.precision == "bfloat16" and runtime != "tensorrt-llm":
        raise SettingsError(f"--precision bfloat16: {runtime} has float16 and float32")
    name = _model_here(settings) if settings.model == AUTO else settings.model
    settings = dataclasses.replace(settings, model=name)
    path = ensure_model(name, settings)
    test = selftest_llm if runtime == "tensorrt-llm" else selftest
    report = test(settings, path, runtime, args.precision)
    print(json.dumps(as_json(report), indent=1) if args.json else as_text(report))
    return 0 if report.passed else 1


def _model_here(settings: Settings) -> str:
    """Return the best stock model that is on this machine. Raises ModelUnavailableError."""
    from ..autopick import best_here

    found = best_here(dataclasses.replace(settings, language=LANGUAGE))
    if found is None:
        folders = ", ".join(map(str, settings.data_dir))
        raise ModelUnavailableError(
            f"there is no model in {folders} to test the engine with: "
            "`wyoming-whisper models download base` gets one, or name another with --model"
        )
    _say(f"{found[0]} is tested, as it is here")
    return found[0]


def selftest(settings: Settings, path: Path, runtime: str, precision: str | None = None) -> Report:
    """Compare the model in folder `path` on `runtime` with CTranslate2.

    CTranslate2 is gone before the engine comes: a Jetson has memory for one of them.
    """
    from ..backends.pipeline import decoding_options
    from ..models import suppressed_begin

    context = decoding_options(settings, path, beam_size=1).audio_context
    _say("CTranslate2 hears the clips in float32")
    with open_reference(path, settings.cpu_threads) as reference:
        tokenizer = reference.tokenizer
        n_mels = reference.inference.n_mels
        cases = make_cases(n_mels, tokenizer, context, settings.beam_size or 1)
        references = [hear(reference.inference, case, tokenizer) for case in cases]
        del reference
    before = resident_bytes()
    with _opened(settings, path, runtime, precision) as engine:
        _say(f"{engine.runtime} hears them in {engine.precision}")
        comparisons = compare(
            *(engine.session, engine.precision, cases, references, tokenizer),
            suppressed_begin(path),
        )
        stages = time_stages(engine.session, cases[0], tokenizer)
        memory = _memory_mb(engine.session, before)
    return Report(
        machine=machine() | engine.facts,
        model=settings.model_name,
        runtime=engine.runtime,
        precision=engine.precision,
        prepare_seconds=engine.prepare_seconds,
        open_seconds=engine.open_seconds,
        memory_mb=memory,
        stages=stages,
        comparisons=comparisons,
    )


def _say(text: str) -> None:
    print(f"selftest: {text} ...", file=sys.stderr, flush=True)


def choose_runtime(wanted: str, device: str) -> str:
    """Return what `auto` means here, and say why. Raises EngineError for a tensorrt that can't be.

    The same for tensorrt-llm. Before anything else is done: nobody should wait for that sentence.
    """
    from ..backends.tensorrt import find_runtime

    if wanted == "onnxruntime":
        return wanted
    if wanted == "tensorrt-llm":
        from ..backends.tensorrt_llm import find_api

        find_api(device)
        return wanted
    try:
        find_runtime(device)
    except EngineError as error:
        if wanted == "tensorrt":
            raise
        _say(f"onnxruntime, as TensorRT can't be used here ({error})")
        return "onnxruntime"
    return "tensorrt"


# -- what is heard -------------------------------------------------------------------------


def make_cases(
    n_mels: int,
    tokenizer: Tokenizer,
    context: AudioContext,
    beam_size: int = 1,
) -> list[Case]:
    """Return the clips in their own windows, one in the full one, one after a long prompt."""
    from ..whisper.audio import N_FRAMES, log_mel_spectrogram, pad_or_trim, silence_level

    sot = (*tokenizer.sot_sequence(LANGUAGE), tokenizer.no_timestamps)
    fitted = dataclasses.replace(context, multiple=FRAMES_MULTIPLE)
    mels = {name: log_mel_spectrogram(samples, n_mels) for name, samples in sounds().items()}
    spoken = [name for name in mels if name != NOISE]

    def window(mel: Array, n_frames: int) -> Array:
        return pad_or_trim(mel, n_frames, silence_level(mel))

    cases = [
        Case(name, window(mel, fitted.frames(mel.shape[1])), sot, sound=name)
        for name, mel in mels.items()
    ]
    first = cases[0]
    past = (tokenizer.encode(" " + ", ".join(spoken)) * LONG_PROMPT_TOKENS)[:LONG_PROMPT_TOKENS]
    prompt = (tokenizer.sot_prev, *past, *sot)
    cases.append(Case(f"{spoken[0]}, long prompt", first.mel, prompt, sound=spoken[0]))
    full = window(mels[spoken[0]], N_FRAMES)
    cases.append(Case(f"{spoken[0]}, {FULL_WINDOW}", full, sot, sound=spoken[0]))
    if beam_size > 1:
        cases += [dataclasses.replace(c, beam_size=beam_size) for c in cases[: len(spoken)]]
    return cases


def sounds() -> dict[str, Array]:
    """Return what is heard: the clips by what is said in them, and noise."""
    from ..client import read_audio

    found = {file.stem.replace("-", " "): read_audio(file) for file in sorted(CLIPS.glob("*.wav"))}
    if not found:
        raise SettingsError(f"{CLIPS} holds no clips: this installation is not whole")
    return found | {NOISE: _noise()}


def _noise() -> Array:
    from ..whisper.audio import SAMPLE_RATE

    n_samples = round(NOISE_SECONDS * SAMPLE_RATE)
    return np.random.default_rng(0).normal(0.0, 0.02, n_samples).astype(np.float32)


def hear(inference: Inference, case: Case, tokenizer: Tokenizer, runs: int = 0) -> Heard:
    """Hear a case so often, and once before that, which is timed only if it is all."""
    from ..whisper.decoding import GenerateOptions

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
    from ..whisper.search import SLOTS

    wait: Callable[[], None] = getattr(session, "synchronize", lambda: None)
    bias = session.bias([tokenizer.eot])  # a text that goes on
    prompt = np.array([case.prompt], np.int32)
    position = prompt.shape[1]
    slots = next(n for n in SLOTS if n >= position + TIMED_STEPS)
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


# -- comparing -----------------------------------------------------------------------------


def compare(
    session: Session,
    precision: str,
    cases: Sequence[Case],
    references: Sequence[Heard],
    tokenizer: Tokenizer,
    suppressed_begin: Sequence[int],
) -> list[Comparison]:
    """Have a session hear the cases, and judge it by what the reference heard."""
    from ..whisper.search import SessionInference

    inference = SessionInference(session, tokenizer, suppressed_begin)
    comparisons = []
    for case, reference in zip(cases, references, strict=True):
        heard = hear(inference, case, tokenizer, RUNS)
        verdict = judge(reference, heard, precision)
        if verdict.startswith(OTHER_TOKENS) and case.beam_size == 1:
            gap = _gap(session, case, reference, heard, tokenizer.eot)
            verdict = "tie" if gap <= TIE[precision] else verdict
        comparisons.append(_comparison(case, reference, heard, verdict, tokenizer))
    return comparisons


def _comparison(
    case: Case, reference: Heard, heard: Heard, verdict: str, tokenizer: Tokenizer
) -> Comparison:
    from ..whisper.audio import FRAMES_PER_SECOND

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
    from ..repetition import loops
    from ..whisper.search import STOP_REPEATS

    common = _common_prefix(heard.tokens, reference.tokens)
    ended = common == len(heard.tokens) and loops(heard.tokens, STOP_REPEATS)
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
    from ..whisper.search import SLOTS

    common = _common_prefix(heard.tokens, reference.tokens)
    past = np.array([[*case.prompt, *heard.tokens[:common]]], np.int32)
    ours, theirs = ((*h.tokens, eot)[common] for h in (heard, reference))
    slots = next(n for n in SLOTS if n >= past.shape[1])
    cache = session.open_cache(session.encode(case.mel), 1, slots)
    logits = session.step(cache, past, 0, session.bias([])).logits()[0]
    return float(abs(logits[ours] - logits[theirs]))


def _common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    pairs = enumerate(zip(left, right, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(left), len(right)))


# -- runtimes ------------------------------------------------------------------------------


@dataclass
class Reference:
    """CTranslate2 with a model, in float32 on the CPU."""

    inference: Inference
    tokenizer: Tokenizer


@contextlib.contextmanager
def open_reference(path: Path, threads: int = 0) -> Iterator[Reference]:
    """Open the model in folder `path`; `threads` 0 are all cores. Raises ModelBrokenError."""
    import ctranslate2

    from ..backends.faster_whisper import CTranslate2Inference
    from ..backends.pipeline import load_tokenizer
    from ..models import check_model

    check_model(path)
    try:
        model = ctranslate2.models.Whisper(
            str(path), compute_type="float32", intra_threads=threads or physical_cores()
        )
    except (RuntimeError, ValueError) as error:
        raise ModelBrokenError(f"the model in {path} can't be loaded: {error}") from error
    tokenizer = load_tokenizer(path, multilingual=model.is_multilingual)
    try:
        yield Reference(CTranslate2Inference(model), tokenizer)
    finally:
        model.unload_model()
        gc.collect()


@contextlib.contextmanager
def _opened(
    settings: Settings, path: Path, runtime: str, precision: str | None
) -> Iterator[_Engine]:
    opened = _on_tensorrt if runtime == "tensorrt" else _on_onnxruntime
    with opened(settings, path, precision) as engine:
        try:
            yield engine
        finally:
            engine.session.close()


@contextlib.contextmanager
def _on_onnxruntime(settings: Settings, path: Path, precision: str | None) -> Iterator[_Engine]:
    from .checkpoint import read
    from .graphs import write_graphs
    from .session import OnnxSession

    chosen = cast("Precision", precision or "float32")
    with tempfile.TemporaryDirectory(prefix="selftest-") as folder:
        _say("the graphs are being written")
        start = time.perf_counter()
        write_graphs(read(path / "model.bin"), Path(folder), chosen, settings.beam_size or 1)
        written = time.perf_counter()
        session = OnnxSession(Path(folder), settings.cpu_threads or physical_cores())
        opened = time.perf_counter()
        yield _Engine(session, "onnxruntime", chosen, written - start, opened - written)


@contextlib.contextmanager
def _on_tensorrt(settings: Settings, path: Path, precision: str | None) -> Iterator[_Engine]:
    """The engine that the server would use, built unless it is there."""
    from ..backends.tensorrt import engine_spec, find_runtime, tensorrt_engines
    from .build import BuildDisplay
    from .trt import TensorRTSession

    runtime = find_runtime(settings.device)
    if precision is not None:
        settings = dataclasses.replace(settings, compute_type=precision)
    precision = engine_spec(settings, path, runtime).precision
    engines = tensorrt_engines(settings, path, runtime)
    start = time.perf_counter()
    display = BuildDisplay(engines.label)
    try:
        folder = engines.build(display.show)
    finally:
        display.close()
    built = time.perf_counter()
    session = TensorRTSession(folder, runtime.gpu.index)
    opened = time.perf_counter()
    facts = {"TensorRT": runtime.tensorrt}
    yield _Engine(session, "tensorrt", precision, built - start, opened - built, facts)


# -- TensorRT-LLM --------------------------------------------------------------------------


def selftest_llm(
    settings: Settings, path: Path, runtime: str, precision: str | None = None
) -> Report:
    """Compare TensorRT-LLM with CTranslate2, both in full windows: it has no others.

    It searches with `settings.beam_size` beams, whatever is asked, so CTranslate2 does too.
    """
    from ..backends.tensorrt_llm import choose_dtype, find_api, frames, open_model
    from ..models import ensure_model
    from ..whisper.decoding import FULL_CONTEXT

    settings = dataclasses.replace(settings, compute_type=precision or "default")
    dtype = choose_dtype(settings)
    beam_size = settings.beam_size or 1
    _say("CTranslate2 hears the clips in float32")
    with open_reference(path, settings.cpu_threads) as reference:
        tokenizer = reference.tokenizer
        cases = [
            dataclasses.replace(case, beam_size=beam_size)
            for case in make_cases(reference.inference.n_mels, tokenizer, FULL_CONTEXT)
            if FULL_WINDOW not in case.name
        ]
        references = [hear(reference.inference, case, tokenizer) for case in cases]
        del reference
    before, start = resident_bytes(), time.perf_counter()
    folder = ensure_model(settings.model, settings, layout="huggingface")
    written = time.perf_counter()
    api, gpu = find_api(settings.device)
    transcriber = open_model(settings, folder, api, dtype, gpu)
    opened, inference = time.perf_counter(), transcriber.inference
    _say(f"{runtime} hears them in {dtype}")
    try:
        heard = {name: frames(samples) for name, samples in sounds().items()}
        comparisons = [
            _compare_llm(inference, case, heard[case.sound], found, dtype, tokenizer)
            for case, found in zip(cases, references, strict=True)
        ]
        at_once = _time_at_once(inference, heard[cases[0].sound], cases[0], tokenizer)
        memory = {
            "process": resident_bytes() / 1e6,
            "of it since CTranslate2 was closed": (resident_bytes() - before) / 1e6,
        }
    finally:
        transcriber.close()
    told = "yes" if inference.sees_prompt else "no: no_speech_prob is not compared"
    facts = {"logits of the prompt": told, "at once": at_once}
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
    heard: Array,
    reference: Heard,
    precision: str,
    tokenizer: Tokenizer,
) -> Comparison:
    found = hear(inference, dataclasses.replace(case, mel=heard), tokenizer, RUNS)
    if not inference.sees(case.prompt):
        found = dataclasses.replace(found, no_speech_prob=None)
    verdict = judge(reference, found, precision)
    if verdict.startswith(OTHER_TOKENS) and case.beam_size == 1 and inference.scores:
        gap = _scored_gap(inference, case, heard, (reference.tokens, found.tokens), tokenizer)
        verdict = "tie" if gap <= TIE[precision] else verdict
    return _comparison(case, reference, found, verdict, tokenizer)


def _scored_gap(
    inference: LLMInference,
    case: Case,
    heard: Array,
    texts: tuple[Sequence[int], Sequence[int]],
    tokenizer: Tokenizer,
) -> float:
    """Return how far apart the first two tokens that differ are; infinite where one is the end."""
    common = _common_prefix(*texts)
    if any(len(text) <= common or text[common] >= tokenizer.eot for text in texts):
        return math.inf
    scored = inference.score(
        inference.encode(heard), case.prompt, [text[: common + 1] for text in texts]
    )
    return float(abs(scored[0][-1] - scored[1][-1]))


def _time_at_once(inference: LLMInference, heard: Array, case: Case, tokenizer: Tokenizer) -> str:
    """Return how long as many commands take as it takes at once, from as many threads."""
    from ..backends.tensorrt_llm import AT_ONCE

    def one(_: int) -> None:
        hear(inference, dataclasses.replace(case, mel=heard), tokenizer)

    with ThreadPoolExecutor(AT_ONCE) as threads:
        start = time.perf_counter()
        list(threads.map(one, range(AT_ONCE)))
        seconds = time.perf_counter() - start
    return f"{AT_ONCE} commands in {_ms(seconds)}"


# -- the machine ---------------------------------------------------------------------------


def machine() -> dict[str, str]:
    """Return what an issue should say of the machine, the GPU left out."""
    facts = {
        "system": platform.platform(),
        "board": _text(_BOARD),
        "L4T": _text(_RELEASE).partition("\n")[0].lstrip("# "),
        "power mode": _text(_POWER),
        "CPU": f"{cpu_name()}, {physical_cores()} cores ({instruction_set()})",
        "memory": _line(_MEMORY, "MemTotal"),
        "Python": platform.python_version(),
        "packages": ", ".join(f"{name} {found}" for name, found in versions().items()),
        "GPU": _gpus(),
    }
    return {name: value for name, value in facts.items() if value}


def versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _gpus() -> str:
    from .cuda import NoGpuError, find_gpus

    try:
        gpus = find_gpus()
    except NoGpuError as error:
        return f"none ({error})"
    return "; ".join(
        f"{gpu.name}, compute capability {'.'.join(map(str, gpu.compute_capability))}, "
        f"{gpu.total_bytes / 2**30:.1f} GiB{' shared' if gpu.integrated else ''}, "
        f"driver for CUDA {'.'.join(map(str, gpu.cuda_version))}"
        for gpu in gpus
    )


def resident_bytes() -> int:
    """Return the memory that this process has in RAM; 0 where the system does not say."""
    text = _line(_STATUS, "VmRSS")
    return int(text.split()[0]) * 1024 if text else 0


def _memory_mb(session: Session, before: int) -> dict[str, float]:
    on_gpu: Callable[[], int] | None = getattr(session, "memory_bytes", None)
    found = {
        "process": resident_bytes() / 1e6,
        "of it since CTranslate2 was closed": (resident_bytes() - before) / 1e6,
    }
    return found | ({"GPU, held by the engine": on_gpu() / 1e6} if on_gpu else {})


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode(errors="replace").strip("\0\n ")
    except OSError:
        return ""


def _line(path: Path, name: str) -> str:
    rows = (row.partition(":") for row in _text(path).splitlines())
    return next((" ".join(value.split()) for key, _, value in rows if key == name), "")


# -- the report ----------------------------------------------------------------------------


def as_json(report: Report) -> dict[str, Any]:
    """Return the report for machines."""
    verdict = {"passed": report.passed, "failures": report.failures}
    return verdict | dataclasses.asdict(report)


def as_text(report: Report) -> str:
    """Return the report for an issue: Markdown."""
    stages = report.stages
    facts = {
        **report.machine,
        "model": report.model,
        "engine": f"{report.runtime} in {report.precision}",
        "prepared, opened": f"{report.prepare_seconds:.1f} s, {report.open_seconds:.1f} s",
        **({"stages": _stages(stages)} if stages else {}),
        "memory": ", ".join(f"{name} {size:.0f} MB" for name, size in report.memory_mb.items()),
    }
    verdict = "PASSED" if report.passed else "FAILED: " + "; ".join(report.failures)
    lines = [f"- {name}: {value}" for name, value in facts.items()]
    return "\n".join([*lines, "", _table(report.comparisons), "", f"selftest {verdict}"])


def _stages(stages: Stages) -> str:
    times = (stages.encode, stages.prefill, stages.step)
    return "encode {}, prefill {}, step {}".format(*map(_ms, times))


_HEAD = (
    "clip",
    "window",
    "beam",
    "tokens",
    "verdict",
    "avg_logprob",
    "apart",
    "CTranslate2",
    "encode",
    "decode",
    "text",
)


def _table(comparisons: Sequence[Comparison]) -> str:
    rows = [_HEAD, ["---"] * len(_HEAD), *map(_row, comparisons)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |"
        for row in rows
    )


def _row(found: Comparison) -> list[str]:
    reference, engine = found.reference, found.engine
    return [
        found.name,
        f"{found.window_seconds:.0f} s",
        str(found.beam_size),
        str(len(engine.tokens)),
        found.verdict,
        f"{engine.avg_logprob:.3f}",
        found.apart,
        _ms(reference.encode + reference.decode),
        _ms(engine.encode),
        _ms(engine.decode),
        found.text,
    ]


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms" if seconds < 0.1 else f"{seconds * 1000:.0f} ms"
