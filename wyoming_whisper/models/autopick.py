"""`--model auto`: the best model that answers in time on this machine.

On a GPU its memory decides, on a CPU its speed: a few encodes of a small Whisper of random numbers
say how fast it multiplies; Whisper's sizes say how much there is to multiply. No model needs to be
here for that.
"""

from __future__ import annotations

import json
import logging
import os
import re
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..errors import ModelError, ModelRefusedError, ModelUnavailableError
from ..machine.cpu import cpu_name, instruction_set, physical_cores
from ..whisper.tokenizer import language_code
from .find import ensure_model, find_model
from .stock import STOCK_MODELS, StockModel, languages_of_name
from .store import ModelSettings, ModelStore

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ..engine.tensorrt.cuda import Gpu
    from .disk import Report

_LOGGER = logging.getLogger(__name__)

N_POSITIONS = 1500
"""Encoder positions of the window that stock models are given: 30 s."""
N_TOKENS = 12
"""Tokens of a command, prompt included."""
N_VOCAB = 51_865


GUESSED_FLOPS = {"AVX512_VNNI": 150e9, "AVX512F": 80e9, "AVX2": 60e9, "NEON": 15e9}
"""Per core, of int8 matrices, where nothing could be measured."""

RAM_SHARE = 0.5
"""Of the memory there is; the rest of the machine has the other half. What happens to be free at a
start decides nothing: the model is the same at every start."""

REMEMBERED = "auto.json"

_FAMILIES = ("tiny", "base", "small", "medium", "turbo", "large")


@dataclass(frozen=True)
class Shape:
    """Whisper's dimensions, as far as they cost time."""

    width: int
    encoder_layers: int
    decoder_layers: int
    n_mels: int = 80


SHAPES = {
    "tiny": Shape(384, 4, 4),
    "base": Shape(512, 6, 6),
    "small": Shape(768, 12, 12),
    "medium": Shape(1024, 24, 24),
}
YARDSTICK = Shape(384, 2, 1)
"""What is measured: tiny's width, as narrower matrices are multiplied more slowly than any stock
model's. At width 128 base's encoder was foretold 1.8 times as slow as it is, at 384 1.06 times."""


@dataclass(frozen=True)
class Work:
    """Floating-point operations, by what they run on."""

    matrices: float
    """Weights times activations: int8 on a CPU."""
    attention: float
    """Activations times activations, and their softmax: float32, and bound by memory."""

    def __add__(self, other: Work) -> Work:
        return Work(self.matrices + other.matrices, self.attention + other.attention)

    def __mul__(self, factor: float) -> Work:
        return Work(self.matrices * factor, self.attention * factor)


@dataclass(frozen=True)
class Rates:
    """What a machine does per second of each kind of Work."""

    matrices: float
    attention: float

    def seconds(self, work: Work) -> float:
        return work.matrices / self.matrices + work.attention / self.attention


@dataclass(frozen=True)
class Machine:
    """What the choice depends on."""

    cpu: str
    threads: int
    instruction_set: str
    ram_bytes: int
    """All there is, or all that the container may use."""


@dataclass(frozen=True)
class Choice:
    model: str
    why: str


def pick_model(settings: ModelSettings, gpu: Gpu | None = None) -> str:
    """Return the name of the stock model that suits the language set, and `gpu` or this CPU.

    For a CPU it is remembered in the first data folder, so that it is the same at the next start;
    decided anew, within seconds, when machine, version or the options that matter change.
    """
    if name := _shipped(settings):
        _say_once(f"auto: {name}, because it came with this installation")
        return name
    english = language_code(settings.language or "") == "en"
    choice = choose_for_gpu(gpu, english=english) if gpu else _choice_here(settings, english)
    _say_once(f"auto: {choice.model}, because {choice.why}")
    return choice.model


def _choice_here(settings: ModelSettings, english: bool) -> Choice:
    machine = look_at_machine(settings)
    key = _key(machine, settings, english)
    memory = settings.data_dir[0] / REMEMBERED if settings.data_dir else None
    choice = _recall(memory, key)
    if choice is None:
        rates, measured = _rates(machine, settings)
        choice = choose(machine, rates, english=english, int8=_is_int8(settings.compute_type))
        if measured:  # a guess is worth no memory
            _remember(memory, key, choice)
    return choice


def ensure_auto(
    settings: ModelSettings,
    gpu: Gpu | None = None,
    *,
    stop: threading.Event | None = None,
    report: Report | None = None,
) -> tuple[str, Path]:
    """Return name and folder of the model that `auto` stands for, downloading it if need be.

    `gpu` is what it will run on, None for the CPU. When the model can't be had now, the best stock
    model that is here and no larger has to do, or where nothing is here, one that the mirror has.
    Blocks as `models.ensure_model` does. Raises ModelUnavailableError when there is none.
    """
    name = pick_model(settings, gpu)
    here = _best_cached(name, settings)
    mirrored = None if here or settings.local_files_only else _best_mirrored(name, settings)
    quick = bool(here or mirrored)
    try:
        return name, ensure_model(name, settings, stop=stop, report=report, quick=quick)
    except ModelError as error:
        stopped = stop is not None and stop.is_set()
        if here and not stopped:
            _LOGGER.warning("auto: using %s, which is here, because %s", here[0], error)
            return here
        if mirrored is None or mirrored == name or stopped or isinstance(error, ModelRefusedError):
            raise ModelUnavailableError(f"auto: {error}") from error
        _LOGGER.warning("auto: %s instead, which is to be had without a hub: %s", mirrored, error)
        return mirrored, ensure_model(mirrored, settings, stop=stop, report=report)


def best_here(settings: ModelSettings) -> tuple[str, Path] | None:
    """Return the name and folder of the best stock model here that understands the language set."""
    return _best_cached(_FAMILIES[-1], settings)


def choose(machine: Machine, rates: Rates, *, english: bool, int8: bool = True) -> Choice:
    """Return the best model for a CPU that fits into the machine's memory and `budget_s`."""
    # Longest time from audio to text that still feels like an answer: about the silence that Home
    # Assistant waits anyway before it says that the audio ends.
    budget_s = 1.5
    facts = (
        f"{machine.threads} threads, {machine.instruction_set}, "
        f"{machine.ram_bytes / 1024**3:.1f} GiB of memory"
    )
    for known in _candidates(english, int8):
        seconds = rates.seconds(work_of(SHAPES[_family(known.name)]))
        fits = ram_needed(known) <= RAM_SHARE * machine.ram_bytes
        if fits and seconds <= budget_s:
            return Choice(known.name, f"{facts}; about {seconds:.2f} s a command")
    slow = f"{facts}; the smallest, though about {seconds:.2f} s a command"
    return Choice(known.name, slow if fits else f"{facts}; the smallest, though memory is short")


def choose_for_gpu(gpu: Gpu, *, english: bool) -> Choice:
    """Return the best model for a GPU, by the memory that its driver tells."""
    # Of memory that a GPU shares, as on a Jetson: the system is in there too, and, until the engine
    # is built, the model of the CPU and the builder.
    integrated_share = 1 / 3
    # Bytes of a GPU's memory, and what it has room for: weights in float16 (1.6, 0.5 and 0.15 GB),
    # the keys and values, and TensorRT's builder beside them. An estimate: not run on a GPU.
    gpu_models = ((3.5 * 1024**3, "turbo"), (1.5 * 1024**3, "small"), (0.0, "base"))
    room = gpu.total_bytes * (integrated_share if gpu.integrated else 1.0)
    name = next(name for needed, name in gpu_models if room >= needed)
    if english and f"{name}.en" in STOCK_MODELS:
        name = f"{name}.en"
    shared = ", shared with the system" if gpu.integrated else ""
    return Choice(name, f"a {gpu.name} with {gpu.total_bytes / 1024**3:.1f} GiB{shared}")


def work_of(shape: Shape, n_positions: int = N_POSITIONS, n_tokens: int = N_TOKENS) -> Work:
    """Return the work of one transcription: encode once, then `n_tokens` steps, greedily.

    The decoder's is weighted with a factor.
    """
    # How much longer its operations take: one token at a time it waits for memory, not arithmetic.
    # Measured with stock weights, for 12 tokens after a full window, in times what the encoder's
    # rates say: 4.6 (base, 95 ms) and 6.0 (tiny.en, 50 ms) on two cores with AVX-512 VNNI; 4.2 and
    # 5.1 on one.
    decoder_factor = 5.0
    decoder = decoder_work(shape, n_positions, n_tokens)
    return encoder_work(shape, n_positions) + decoder * decoder_factor


def encoder_work(shape: Shape, n_positions: int) -> Work:
    """Return the work of the encoder (openai/whisper, model.py:AudioEncoder).

    A matrix of n weights costs 2 n per position. A layer has 12 width^2 of them: four of attention,
    eight of its MLP. Queries times keys and weights times values: 2 width n_positions each.
    """
    d, n = shape.width, n_positions
    convolutions = 2 * 3 * d * (2 * n * shape.n_mels + n * d)  # before and after the stride of 2
    return Work(
        convolutions + shape.encoder_layers * 24 * d * d * n, shape.encoder_layers * 4 * d * n * n
    )


def decoder_work(shape: Shape, n_positions: int, n_tokens: int) -> Work:
    """Return the work of the decoder (openai/whisper, model.py:TextDecoder).

    Keys and values of the audio once; then per token 14 width^2 weights a layer, the vocabulary,
    and a look at each position.
    """
    d, layers = shape.width, shape.decoder_layers
    once = layers * 4 * d * d * n_positions
    per_token = layers * 28 * d * d + 2 * d * N_VOCAB
    return Work(once + n_tokens * per_token, n_tokens * layers * 4 * d * n_positions)


def ram_needed(known: StockModel) -> float:
    """Return about the bytes that loading and running `known` as int8 takes."""
    # Python, the runtime, one utterance's activations.
    ram_base_bytes = 200_000_000
    # While loading: the weights as stored and, beside them, as int8.
    ram_per_byte = 1.6
    return known.download_bytes * ram_per_byte + ram_base_bytes


def _candidates(english: bool, int8: bool) -> list[StockModel]:
    """Return the models for a CPU, best first.

    Where int8 is computed anyway, models stored as int8 give the same and halve the download;
    the official add-on's default is one of them.
    """
    # Best first. English alone is worth more to a small model than to a large one.
    multilingual_models = ("medium", "small", "base", "tiny")
    english_models = ("small.en", "base.en", "tiny.en")
    names = english_models if english else multilingual_models
    suffix = "-int8" if int8 and not english else ""
    return [STOCK_MODELS[f"{name}{suffix}"] for name in names]


def _family(name: str) -> str:
    return next(family for family in _FAMILIES if re.search(rf"\b{family}\b", name))


def _best_cached(name: str, settings: ModelSettings) -> tuple[str, Path] | None:
    """Return the best stock model here that understands the language and is no larger."""
    for known in _no_larger(name, settings):
        try:
            return known.name, find_model(known.name, settings)
        except ModelError:
            continue
    return None


def _best_mirrored(name: str, settings: ModelSettings) -> str | None:
    """Return the best such model that can be had where the hub can't be reached."""
    from .mirror import MIRRORS, has_pip

    if not has_pip():
        return None
    return next((known.name for known in _no_larger(name, settings) if known.repo in MIRRORS), None)


def _no_larger(name: str, settings: ModelSettings) -> Iterator[StockModel]:
    """Yield the stock models, best first, that know the language and are at most this large."""
    if name not in STOCK_MODELS:  # one that was shipped
        return
    english = language_code(settings.language or "") == "en"
    limit = _FAMILIES.index(_family(name))

    def quality(known: StockModel) -> tuple[int, bool]:
        return _FAMILIES.index(_family(known.name)), known.languages == "en"

    for known in sorted(STOCK_MODELS.values(), key=quality, reverse=True):
        if quality(known)[0] <= limit and (english or known.languages != "en"):
            yield known


def _shipped(settings: ModelSettings) -> str | None:
    """Return the model that came with the installation, unless it lacks the language."""
    name = ModelStore(settings).shipped_model()
    language = language_code(settings.language or "")
    if name and (language is None or language in languages_of_name(name)):
        return name
    return None


# The machine


def look_at_machine(settings: ModelSettings) -> Machine:
    """Return what this machine, or what the container was given of it, can do."""
    return Machine(
        cpu=cpu_name(),
        threads=settings.cpu_threads or physical_cores(),
        instruction_set=instruction_set(),
        ram_bytes=ram_bytes()[0],
    )


def ram_bytes(
    meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")
) -> tuple[int, int]:
    """Return (all, free) bytes of memory: the kernel's, or less where a container has a limit."""
    kilobytes = dict(re.findall(r"^(\w+): +(\d+) kB$", _text(meminfo), re.MULTILINE))
    total = int(kilobytes.get("MemTotal", 0)) * 1024
    free = int(kilobytes.get("MemAvailable", 0)) * 1024
    for limit_name, used_name in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        limit, used = _text(cgroup / limit_name).strip(), _text(cgroup / used_name).strip()
        if limit.isdecimal() and used.isdecimal() and int(limit) < total:
            total, free = int(limit), min(free, max(0, int(limit) - int(used)))
    return total, free


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def _is_int8(compute_type: str) -> bool:
    return compute_type in ("default", "auto") or compute_type.startswith("int8")


# Its speed


def _rates(machine: Machine, settings: ModelSettings) -> tuple[Rates, bool]:
    """Return the machine's rates, and whether they are measured."""
    try:
        return measure_rates(machine.threads, settings.compute_type), True
    except (OSError, ImportError, RuntimeError, ValueError) as error:
        _LOGGER.debug("auto: the speed can't be measured: %s", error)
    matrices = machine.threads * GUESSED_FLOPS.get(machine.instruction_set, 10e9)
    return Rates(matrices, matrices / 10), False


def measure_rates(threads: int, compute_type: str) -> Rates:
    """Return the rates at which windows, long and short, are encoded on this machine's CPU.

    The long window is mostly attention, the short one mostly matrices: two times, two unknowns.
    The best of a few runs counts, as whatever else runs can only slow it down. Takes about a
    second and, at its most, 120 MB. Raises OSError where there is no temporary folder, ImportError,
    RuntimeError or ValueError where CTranslate2 can't compute so here.
    """
    short_positions = 250
    import ctranslate2
    import numpy as np

    from .yardstick import write_yardstick

    shape = YARDSTICK
    arithmetic = "int8" if compute_type in ("default", "auto") else compute_type
    with tempfile.TemporaryDirectory() as folder:
        write_yardstick(Path(folder), shape.width, shape.encoder_layers, shape.n_mels)
        model = ctranslate2.models.Whisper(
            folder, device="cpu", compute_type=arithmetic, intra_threads=threads, inter_threads=1
        )

    def seconds(n_positions: int) -> float:
        frames = np.linspace(-1.0, 1.0, shape.n_mels * 2 * n_positions, dtype=np.float32)
        return _best_time(model, frames.reshape(1, shape.n_mels, -1))

    works = encoder_work(shape, N_POSITIONS), encoder_work(shape, short_positions)
    return solve_rates(works, (seconds(N_POSITIONS), seconds(short_positions)))


def solve_rates(works: tuple[Work, Work], seconds: tuple[float, float]) -> Rates:
    """Return the rates that explain both times; one for all where noise allows no two."""
    (a, b), (t, s) = works, seconds
    determinant = a.matrices * b.attention - b.matrices * a.attention
    per_matrix = (t * b.attention - s * a.attention) / determinant
    per_attention = (a.matrices * s - b.matrices * t) / determinant
    if per_matrix <= 0 or per_attention <= 0:
        per_matrix = per_attention = t / (a.matrices + a.attention)
    return Rates(1 / per_matrix, 1 / per_attention)


def _best_time(model: Any, mel: npt.NDArray[np.float32]) -> float:
    # A window is encoded so often, and so long: many short runs find a quiet moment on a busy
    # machine, and a slow one isn't kept for long.
    measure_s = 0.25
    measure_runs = 2
    import ctranslate2

    features = ctranslate2.StorageView.from_array(mel)
    model.encode(features, to_cpu=True)  # the first run allocates
    times: list[float] = []
    while len(times) < measure_runs or sum(times) < measure_s:
        start = time.perf_counter()
        model.encode(features, to_cpu=True)
        times.append(time.perf_counter() - start)
    return min(times)


# Its memory


def _key(machine: Machine, settings: ModelSettings, english: bool) -> dict[str, Any]:
    """Return what the choice holds for."""
    return {
        "version": __version__,
        "cpu": machine.cpu,
        "threads": machine.threads,
        "instruction_set": machine.instruction_set,
        "ram_gib": round(machine.ram_bytes / 1024**3),
        "compute_type": settings.compute_type,
        "english": english,
    }


def _recall(memory: Path | None, key: dict[str, Any]) -> Choice | None:
    """Return the choice made for the same key; None if there is none that can be read."""
    try:
        saved = json.loads(_text(memory)) if memory else {}
        choice = Choice(**saved["choice"]) if saved["key"] == key else None
    except (ValueError, KeyError, TypeError):
        return None
    return choice if choice is not None and choice.model in STOCK_MODELS else None


def _remember(memory: Path | None, key: dict[str, Any], choice: Choice) -> None:
    if memory is None:
        return
    text = json.dumps({"key": key, "choice": asdict(choice)}, indent=2)
    aside = memory.with_name(f".{memory.name}.{os.getpid()}")
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(text + "\n", encoding="utf-8")
        aside.replace(memory)
    except OSError as error:
        _LOGGER.debug("auto: the choice can't be kept in %s: %s", memory, error)


@lru_cache(maxsize=16)
def _say_once(line: str) -> None:
    _LOGGER.info(line)
