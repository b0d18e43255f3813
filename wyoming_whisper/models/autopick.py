"""`--model auto`: the best model that answers in time on this machine.

On a GPU its memory decides, on a CPU its speed: a few encodes of a small Whisper of random numbers,
the yardstick, tell by a table how long a command takes with each model. No model needs to be here
for that.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import __version__
from ..engine.checkpoint import HEAD_WIDTH, Dims
from ..errors import ModelError, ModelRefusedError, ModelUnavailableError
from ..machine.host import HOST
from ..machine.measured import Measurements
from ..whisper.tokenizer import language_code
from .mirror import Mirror
from .stock import STOCK_MODELS, StockModel
from .store import ModelStore

if TYPE_CHECKING:
    from ..engine.tensorrt.cuda import Gpu
    from ..settings.options import Settings
    from .disk import Report

_LOGGER = logging.getLogger(__name__)


class _Choice(NamedTuple):
    model: str
    why: str


@dataclass(frozen=True)
class _Machine:
    """What the choice for a CPU depends on."""

    cpu: str
    threads: int
    instruction_set: str
    ram_gib: float

    @classmethod
    def here(cls, settings: Settings) -> _Machine:
        """Return what this machine, or what the container was given of it, can do."""
        threads = settings.cpu_threads or HOST.cores
        return cls(HOST.cpu_name, threads, HOST.instruction_set, round(HOST.ram_bytes / 1024**3, 1))

    def choose(self, yardstick_s: float, *, english: bool, int8: bool) -> _Choice:
        """Return the best model that fits into memory and answers in time.

        `yardstick_s` is how long one window of the yardstick takes. Where int8 is computed anyway,
        models stored as int8 give the same and halve the download; the official add-on's default
        is one of them.
        """
        # Longest time from audio to text that still feels like an answer: about the silence that
        # Home Assistant waits anyway before it says that the audio ends.
        budget_s = 1.5
        # Best first: how many times the yardstick's window a command takes, of 12 tokens in a
        # window of 30 s. Measured, int8 with AVX-512 VNNI: tiny 2.3, 3.0, 2.5 and base 4.9, 5.1,
        # 4.5 on two cores of a Xeon, two and one of EPYCs; on that one core small's encoder alone
        # is 14.0, medium's 37.6.
        times = {"medium": 52.0, "small": 17.0, "base": 4.9, "tiny": 2.6}
        if english:  # alone it is worth more to a small model than to a large one
            times = {f"{size}.en": times[size] for size in ("small", "base", "tiny")}
        elif int8:
            times = {f"{size}-int8": factor for size, factor in times.items()}
        facts = f"{self.threads} threads, {self.instruction_set}, {self.ram_gib:.1f} GiB of memory"
        for model, factor in times.items():
            seconds = factor * yardstick_s
            # While loading there are the weights as stored and, beside them, as int8. Python, the
            # runtime and one utterance's activations come to 200 MB.
            needed = 1.6 * STOCK_MODELS[model].download_bytes + 200e6
            fits = needed <= self.ram_gib * 1024**3 / 2
            if fits and seconds <= budget_s:
                return _Choice(model, f"{facts}; about {seconds:.2f} s a command")
        slow = f"though about {seconds:.2f} s a command" if fits else "though memory is short"
        return _Choice(model, f"{facts}; the smallest, {slow}")

    def guessed_yardstick_s(self) -> float:
        """Return about how long a window of the yardstick takes where it can't be measured."""
        of_one_core = {"AVX512_VNNI": 0.54, "AVX512F": 1.0, "AVX2": 1.4, "NEON": 5.4}
        return of_one_core.get(self.instruction_set, 8.0) / self.threads


class AutoModel:
    """What `auto` stands for, for the language set and what it is to run on: `gpu`, or this CPU."""

    def __init__(self, settings: Settings, gpu: Gpu | None = None) -> None:
        self.settings, self.gpu = settings, gpu
        self.language = language_code(settings.language or "")

    def pick(self) -> str:
        """Return the name of the stock model that suits.

        For a CPU it is remembered in the first data folder, so that it is the same at the next
        start; decided anew, within seconds, when machine, version or the options that matter
        change.
        """
        # What came with the installation, unless it lacks the language.
        name = ModelStore(self.settings).shipped_model()
        if name and self.language in (None, *StockModel.languages_of(name)):
            _say_once(f"auto: {name}, because it came with this installation")
            return name
        choice = self.for_gpu(self.gpu) if self.gpu else self._for_cpu()
        _say_once(f"auto: {choice.model}, because {choice.why}")
        return choice.model

    def ensure(self, report: Report | None = None) -> tuple[str, Path]:
        """Return the name and folder of the model, downloading it if need be.

        When it can't be had now, the best stock model that is here and no larger has to do, or
        where nothing is here, one that the mirror has. Blocks as `ModelStore.ensure` does. Raises
        ModelUnavailableError when there is none.
        """
        name, settings = self.pick(), self.settings
        here = self.best_here(name)
        mirrored = None if here or settings.local_files_only else self.best_mirrored(name)
        quick = bool(here or mirrored)
        try:
            return name, ModelStore(settings).ensure(name, report=report, quick=quick)
        except ModelError as error:
            if here:
                _LOGGER.warning("auto: using %s, which is here, because %s", here[0], error)
                return here
            if mirrored is None or mirrored == name or isinstance(error, ModelRefusedError):
                raise ModelUnavailableError(f"auto: {error}") from error
            _LOGGER.warning(
                "auto: %s instead, which is to be had without a hub: %s", mirrored, error
            )
            return mirrored, ModelStore(settings).ensure(mirrored, report=report)

    def best_here(self, name: str = "large-v3") -> tuple[str, Path] | None:
        """Return the name and folder of the best stock model here that understands the language,
        and is no larger than the one called `name`.
        """
        store = ModelStore(self.settings)
        for stock in self._no_larger(name):
            try:
                return stock.name, store.find(stock.name)
            except ModelError:
                continue
        return None

    def best_mirrored(self, name: str) -> str | None:
        """Return the best such model that can be had where the hub can't be reached."""
        if not Mirror.has_pip():
            return None
        return next((s.name for s in self._no_larger(name) if Mirror.of(s.repo)), None)

    def _no_larger(self, name: str) -> Iterator[StockModel]:
        """Yield the stock models, best first, that know the language and are at most this large."""
        if name not in STOCK_MODELS:  # one that was shipped
            return
        no_larger = [s for s in STOCK_MODELS.values() if s.size <= STOCK_MODELS[name].size]
        for stock in sorted(no_larger, key=lambda s: (s.size, s.languages == "en"), reverse=True):
            if self.language == "en" or stock.languages != "en":
                yield stock

    def for_gpu(self, gpu: Gpu) -> _Choice:
        """Return the best model for a GPU, by the memory that its driver tells."""
        # Of memory that a GPU shares, as on a Jetson: the system is in there too, and, until the
        # engine is built, the model of the CPU and the builder.
        integrated_share = 1 / 3
        # Bytes of a GPU's memory, and what it has room for: weights in float16 (1.6, 0.5 and 0.15
        # GB), the keys and values, and TensorRT's builder beside them. An estimate: not run on a
        # GPU.
        gpu_models = ((3.5 * 1024**3, "turbo"), (1.5 * 1024**3, "small"), (0.0, "base"))
        room = gpu.total_bytes * (integrated_share if gpu.integrated else 1.0)
        name = next(name for needed, name in gpu_models if room >= needed)
        if self.language == "en" and f"{name}.en" in STOCK_MODELS:
            name = f"{name}.en"
        shared = ", shared with the system" if gpu.integrated else ""
        return _Choice(name, f"a {gpu.name} with {gpu.total_bytes / 1024**3:.1f} GiB{shared}")

    def _for_cpu(self) -> _Choice:
        machine, memory = _Machine.here(self.settings), Measurements(self.settings.data_dir)
        english, compute_type = self.language == "en", self.settings.compute_type
        key = (
            f"auto: {'English' if english else 'all languages'} in {compute_type} on "
            f"{machine.cpu}, {machine.threads} threads, {machine.instruction_set}, "
            f"{machine.ram_gib:.0f} GiB, by version {__version__}"
        )
        remembered = memory.get(key)
        if isinstance(remembered, dict) and remembered.get("model") in STOCK_MODELS:
            return _Choice(remembered["model"], str(remembered.get("why")))
        int8 = compute_type in ("default", "auto") or compute_type.startswith("int8")
        try:
            yardstick_s = _yardstick_s(machine.threads, compute_type)
        except (OSError, ImportError, RuntimeError, ValueError) as error:
            _LOGGER.debug("auto: the speed can't be measured: %s", error)
            return machine.choose(machine.guessed_yardstick_s(), english=english, int8=int8)
        choice = machine.choose(yardstick_s, english=english, int8=int8)
        memory.put(key, choice._asdict())  # a guess is worth no memory
        return choice


@lru_cache(maxsize=16)
def _say_once(line: str) -> None:
    _LOGGER.info(line)


# The yardstick


def _yardstick_s(threads: int, compute_type: str) -> float:
    """Return how long one window of the yardstick takes on this machine's CPU.

    The best of some runs counts, as whatever else runs can only slow it down. Takes about half a
    second and, at its most, 120 MB. Raises OSError where there is no temporary folder, ImportError,
    RuntimeError or ValueError where CTranslate2 can't compute so here.
    """
    # Many short runs find a quiet moment on a busy machine, and a slow one isn't kept for long.
    measure_s, measure_runs, n_mels, n_frames = 0.25, 2, 80, 3000
    import ctranslate2

    arithmetic = "int8" if compute_type in ("default", "auto") else compute_type
    with tempfile.TemporaryDirectory() as folder:
        # As wide as tiny: narrower matrices are multiplied more slowly than any stock model's.
        _write_yardstick(Path(folder), 384, 2, n_mels)
        model = ctranslate2.models.Whisper(
            folder, device="cpu", compute_type=arithmetic, intra_threads=threads, inter_threads=1
        )
    mel = np.linspace(-1.0, 1.0, n_mels * n_frames, dtype=np.float32).reshape(1, n_mels, n_frames)
    features = ctranslate2.StorageView.from_array(mel)
    model.encode(features, to_cpu=True)  # the first run allocates
    times: list[float] = []
    while len(times) < measure_runs or sum(times) < measure_s:
        start = time.perf_counter()
        model.encode(features, to_cpu=True)
        times.append(time.perf_counter() - start)
    return min(times)


def _write_yardstick(folder: Path, width: int, encoder_layers: int, n_mels: int) -> None:
    """Write a Whisper of random numbers into the existing `folder`. Raises OSError.

    What it hears is nonsense, but it takes as long as stock weights of its width do. Its decoder
    has one layer, and nothing is ever decoded. 7 MB, in less than 0.1 s.
    """
    # By the empty one CTranslate2 knows a multilingual vocabulary.
    tokens = ["", "<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|translate|>"]
    tokens += [f"<|{name}|>" for name in ("transcribe", "startoflm", "startofprev", "nospeech")]
    tokens.append("<|notimestamps|>")
    from ctranslate2.specs import model_spec, whisper_spec

    n_heads, n_positions, n_text_positions = width // HEAD_WIDTH, 1500, 8
    spec = whisper_spec.WhisperSpec(encoder_layers, n_heads, 1, n_heads)
    audio = (n_mels, n_positions, width, n_heads, encoder_layers)
    shapes = Dims(*audio, len(tokens), n_text_positions, width, n_heads, 1).shapes()
    rng = np.random.default_rng(0)

    def fill(part: Any, name: str, _: object) -> None:
        if name not in shapes:
            return
        shape, kind = shapes[name], name.rpartition("/")[2]
        values = np.full(shape, float(kind == "gamma"), np.float32)
        if len(shape) > 1:  # large enough to keep activations at a usual size
            scale = np.float32(np.prod(shape[1:]) ** -0.5)
            values = rng.standard_normal(shape, np.float32) * scale
        setattr(part, kind, values)

    model_spec.visit_spec(spec, fill)
    spec.decoder.scale_embeddings = False
    spec.register_vocabulary(tokens)
    spec.config.suppress_ids, spec.config.suppress_ids_begin = [], []
    spec.config.lang_ids, spec.config.alignment_heads = [tokens.index("<|en|>")], [[0, 0]]
    spec.validate()
    spec.optimize(quantization="int8")
    spec.save(str(folder))
