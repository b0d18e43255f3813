"""The TensorRT backend: engines on an NVIDIA GPU, and the CPU whenever there is none to use.

Nobody waits for an engine. While one is built or opened, and after one has failed, the
faster-whisper backend answers on the CPU; they change places between two utterances.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np

from ..engine.build import BuildDisplay, BuildProgress, EngineBuild, EngineSpec
from ..engine.cache import EngineCache, EngineKey
from ..engine.cuda import Gpu, NoGpuError, find_gpus
from ..engine.trt import TensorRTSession, import_tensorrt
from ..errors import EngineBrokenError, EngineError, SettingsError, UnknownLanguageError
from ..models import AUTO, WEIGHTS, is_multilingual, model_languages, suppressed_begin
from ..transcriber import SAMPLE_RATE, Samples, TranscribeOptions, Transcriber, Transcription
from ..whisper.audio import FRAMES_PER_SECOND
from ..whisper.decoding import DecodingOptions
from ..whisper.search import SLOTS, SessionInference
from .faster_whisper import choose_compute_type, choose_device, open_faster_whisper
from .pipeline import WhisperTranscriber, decoding_options, detectable, load_tokenizer

if TYPE_CHECKING:
    from ..settings import Settings
    from ..status import Status

_LOGGER = logging.getLogger(__name__)

MIN_COMPUTE_CAPABILITY = (6, 0)
"""What TensorRT 8.6 has kernels for; later ones need more, and say so when they build."""

FRAMES_MULTIPLE = 200
"""Windows have so many different lengths that each can have its own CUDA graphs."""

COMMAND_SECONDS = range(1, 9)
"""Of speech: the windows that these get are ready before anybody speaks."""

BEAM_SIZE = 1  # greedy search is the one that runs as CUDA graphs

REOPEN_SECONDS = 10.0
"""From an engine's failure to its second chance: others may have given memory back by then."""

FAILURE_SECONDS = 3600.0
"""Two failures within it, and the CPU stays."""

CLOSE_SECONDS = 0.8  # the scheduler waits for 1.0


@dataclasses.dataclass(frozen=True)
class Runtime:
    """The GPU and the TensorRT to be used."""

    gpu: Gpu
    tensorrt: str
    """The version."""


def find_runtime(device: str) -> Runtime:
    """Return what there is for `auto`, `cuda` or `cuda:N`. Raises EngineError: what is missing."""
    if device == "cpu":
        raise NoGpuError("--device is cpu")
    gpus = find_gpus()
    index = int(device.partition(":")[2] or 0)
    if index >= len(gpus):
        raise NoGpuError(f"--device {device}: the driver finds {len(gpus)} GPUs")
    gpu = gpus[index]
    if gpu.compute_capability < MIN_COMPUTE_CAPABILITY:
        raise NoGpuError(f"the {gpu.name} is too old for TensorRT")
    return Runtime(gpu, import_tensorrt().__version__)


def engine_spec(settings: Settings, path: Path, runtime: Runtime) -> EngineSpec:
    """Return the engine that these settings want of the model in folder `path`."""
    beam_size = settings.beam_size or BEAM_SIZE
    return EngineSpec(
        model=settings.model if settings.model != AUTO else _chosen(path),
        model_bin=path / WEIGHTS,
        gpu=runtime.gpu,
        tensorrt=runtime.tensorrt,
        precision="float32" if settings.compute_type == "float32" else "float16",
        beam_size=beam_size,
        max_batch=max(beam_size, DecodingOptions.best_of),
    )


def _chosen(path: Path) -> str:
    """Return the model that `auto` stands for: in the hub's cache the folders name it."""
    repo = path.parent.parent.name
    return repo.rpartition("--")[2] if repo.startswith("models--") else AUTO


def engine_cache(settings: Settings) -> EngineCache:
    return EngineCache(settings.data_dir[0] / "engines", settings.max_cache_size)


def open_tensorrt(
    settings: Settings, path: Path, runtime: Runtime, status: Status | None
) -> Transcriber:
    """Return what answers at once: an engine that is there, else the CPU, until one is.

    Without a `status` nobody stays to see an engine built, so none is. Raises SettingsError and
    ModelBrokenError as open_faster_whisper does, SettingsError with `strict_backend` where an
    engine is not there and will not be built.
    """
    spec = engine_spec(settings, path, runtime)
    engines = Engines(spec, engine_cache(settings), functools.partial(open_engine, settings, path))
    transcriber = TensorRTTranscriber(
        engines,
        lambda: open_faster_whisper(on_cpu(settings), path),  # CTranslate2 is loaded only then
        status,
        functools.partial(_open_on_cuda, settings, path),
    )
    if status is None and settings.strict_backend and not transcriber.on_gpu:
        transcriber.close()
        raise SettingsError(
            "--backend tensorrt: there is no engine of this model yet; "
            f"wyoming-whisper engine build --model {settings.model} makes it"
        )
    return transcriber


def _open_on_cuda(settings: Settings, path: Path) -> Transcriber | None:
    """Return faster-whisper on the GPU; None where CTranslate2 has no CUDA, as its Arm wheels."""
    try:
        device, _ = choose_device(settings.device)
    except SettingsError:
        return None
    return open_faster_whisper(settings, path) if device == "cuda" else None


def on_cpu(settings: Settings) -> Settings:
    """Return the settings for the CPU backend that stands in.

    It leaves the GPU alone: TensorRT measures on it, or it has just failed.
    """
    try:
        compute_type = choose_compute_type(settings.compute_type, "cpu")
    except SettingsError:  # a GPU's
        compute_type = "default"
    return dataclasses.replace(settings, device="cpu", compute_type=compute_type)


def open_engine(settings: Settings, path: Path, spec: EngineSpec, folder: Path) -> Transcriber:
    """Return the model in `path` over the engine in `folder`, tried out.

    Raises EngineBrokenError where the engine can't be read or makes no sense, EngineError where
    the GPU fails.
    """
    session = TensorRTSession(folder, spec.gpu.index)
    with contextlib.ExitStack() as stack:
        stack.callback(session.close)
        multilingual = is_multilingual(path)
        languages = model_languages(settings.model, path) if multilingual else ("en",)
        tokenizer = load_tokenizer(path, multilingual=multilingual)
        decoding = decoding_options(settings, path, spec.beam_size)
        windows = dataclasses.replace(decoding.audio_context, multiple=FRAMES_MULTIPLE)
        transcriber = WhisperTranscriber(
            SessionInference(session, tokenizer, suppressed_begin(path)),
            tokenizer,
            languages,
            detectable(settings.languages, languages),
            dataclasses.replace(decoding, audio_context=windows),
            f"{spec.model} on {spec.gpu.name} in {spec.precision} (TensorRT {spec.tensorrt})",
            session.close,
        )
        _try_out(transcriber, folder)
        lengths = {windows.frames(seconds * FRAMES_PER_SECOND) for seconds in COMMAND_SECONDS}
        session.warm_up(sorted(lengths), SLOTS[0])
        stack.pop_all()
    _LOGGER.info("%s, beam %d", transcriber.description, spec.beam_size)
    return transcriber


def _try_out(transcriber: Transcriber, folder: Path) -> None:
    """Transcribe noise: a plan that loads may still compute nonsense, such as no numbers."""
    noise = np.random.default_rng(0).normal(0.0, 0.05, SAMPLE_RATE).astype(np.float32)
    found = transcriber.transcribe(noise, TranscribeOptions(transcriber.languages[0]))
    if not (math.isfinite(found.avg_logprob) and 0 <= found.no_speech_prob <= 1):
        raise EngineBrokenError(f"the engine in {folder} computes nonsense")


class EngineSource(Protocol):
    """Where the one engine that is wanted comes from."""

    label: str
    """The model's name, and the GPU's."""

    def find(self) -> Path | None:
        """Return the engine's folder if it is built."""

    def build(self, on_progress: Callable[[BuildProgress], None]) -> Path:
        """Return the engine's folder, built if need be. Raises EngineBuildError."""

    def open(self, folder: Path) -> Transcriber:
        """Return the engine at work. Raises EngineBrokenError, EngineError."""

    def discard(self) -> None:
        """Forget what is built."""

    def cancel(self) -> None:
        """Have `build` raise, now and ever after."""


class Engines:
    """The EngineSource of an EngineSpec and a cache."""

    def __init__(
        self,
        spec: EngineSpec,
        cache: EngineCache,
        open_folder: Callable[[EngineSpec, Path], Transcriber],
    ) -> None:
        self.label = f"{spec.model} on {spec.gpu.name}"
        self._spec = spec
        self._cache = cache
        self._open = open_folder
        self._stop = threading.Event()
        self._running: EngineBuild | None = None

    @functools.cached_property
    def _key(self) -> EngineKey:
        return self._spec.key()

    def find(self) -> Path | None:
        return self._cache.find(self._key)

    def build(self, on_progress: Callable[[BuildProgress], None]) -> Path:
        return self._cache.ensure(
            self._key, functools.partial(self._fill, on_progress), self._spec.model, self._stop
        )

    def open(self, folder: Path) -> Transcriber:
        return self._open(self._spec, folder)

    def discard(self) -> None:
        with contextlib.suppress(OSError):
            self._cache.discard(self._key.name)

    def cancel(self) -> None:
        self._stop.set()
        if self._running:
            self._running.cancel()

    def _fill(self, on_progress: Callable[[BuildProgress], None], folder: Path) -> None:
        timings = self._cache.timing_cache(self._spec.tensorrt, self._spec.gpu.name)
        self._running = running = EngineBuild(self._spec.request(folder, timings), on_progress)
        if self._stop.is_set():  # perhaps just before there was anything to cancel
            running.cancel()
        running.run()


class TensorRTTranscriber:
    """A Transcriber: the engine's where there is one, else its stand-in's, on the CPU.

    With a `status`, which is told who answers and why, an engine that is not there is built in the
    background; `close` ends that. Where it can't be built, `open_instead` gives what is better than
    the stand-in, if anything is.
    """

    def __init__(
        self,
        engines: EngineSource,
        open_stand_in: Callable[[], Transcriber],
        status: Status | None = None,
        open_instead: Callable[[], Transcriber | None] = lambda: None,
    ) -> None:
        self._engines = engines
        self._open_stand_in = open_stand_in
        self._open_instead = open_instead
        self._status = status
        self._turn = threading.RLock()  # of who transcribes, and of who changes places
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._failed_at: float | None = None
        self._why = "its engine is not built yet"
        self.description = ""
        self._stand_in: Transcriber | None = None
        self._gpu: Transcriber | None = None
        with self._turn:
            self._gpu = self._open_what_is_there()
            current = self._gpu or self._reopen_stand_in()
            self.languages = current.languages
            if self._gpu is None and status is not None and self._thread is None:
                self._bring_engine()
            self._tell()

    @property
    def on_gpu(self) -> bool:
        return self._gpu is not None

    def transcribe(self, samples: Samples, options: TranscribeOptions) -> Transcription:
        """Return what was said; where the engine fails, what the CPU hears."""
        with self._turn:
            if self._gpu is not None:
                try:
                    return self._gpu.transcribe(samples, options)
                except UnknownLanguageError:
                    raise
                except Exception as error:  # whatever it is, the speaker gets an answer
                    self._lose_engine(self._gpu, error)
            if self._stand_in is None:
                self._reopen_stand_in()
                self._tell()
            return cast("Transcriber", self._stand_in).transcribe(samples, options)

    def close(self) -> None:
        """Free everything, and end what is being built."""
        self._stop.set()
        self._engines.cancel()
        if self._thread is not None:
            self._thread.join(CLOSE_SECONDS)
        with self._turn:
            for transcriber in (self._gpu, self._stand_in):
                if transcriber is not None:
                    transcriber.close()
            self._gpu = self._stand_in = None

    def _open_what_is_there(self) -> Transcriber | None:
        try:
            folder = self._engines.find()
            return self._engines.open(folder) if folder else None
        except EngineBrokenError as error:
            self._forget_broken(error)
        except EngineError as error:
            self._failed(error)
        return None

    def _reopen_stand_in(self) -> Transcriber:
        self._stand_in = self._open_stand_in()
        return self._stand_in

    def _lose_engine(self, gpu: Transcriber, error: Exception) -> None:
        self._gpu = None
        with contextlib.suppress(Exception):  # what failed may fail at this too
            gpu.close()
        self._failed(error)

    def _failed(self, error: Exception) -> None:
        """Open the engine again, once in a while."""
        before, self._failed_at = self._failed_at, time.monotonic()
        again = before is None or self._failed_at - before > FAILURE_SECONDS
        if self._status is None or not again:
            self._stay(error)
            return
        self._because(f"the engine failed, and is opened again in {REOPEN_SECONDS:.0f} s: {error}")
        self._bring_engine(REOPEN_SECONDS)

    def _stay(self, error: Exception) -> None:
        self._because(f"there is no engine until the next start: {error}")

    def _because(self, why: str) -> None:
        """Say why the CPU answers."""
        _LOGGER.warning("the CPU answers: %s", why)
        with self._turn:
            self._why = why
            self._tell()

    def _tell(self) -> None:
        current = self._gpu or self._stand_in
        if current is not None:
            self.description = current.description
        if self._status is not None:
            backend = "tensorrt" if self._gpu is not None else "faster-whisper"
            self._status.update(backend=backend, why=self._why, description=self.description)

    def _forget_broken(self, error: EngineBrokenError) -> None:
        _LOGGER.warning("%s; it is built again", error)
        self._engines.discard()

    # The engine's thread.

    def _bring_engine(self, delay: float = 0.0) -> None:
        self._thread = threading.Thread(
            target=self._replace_stand_in, args=(delay,), name="engine", daemon=True
        )
        self._thread.start()

    def _replace_stand_in(self, delay: float) -> None:
        if self._stop.wait(delay):
            return
        try:
            self._change_places(self._built_and_opened())
        except EngineError as error:
            if not self._stop.is_set():
                self._failed(error)
        except Exception as error:
            if not self._stop.is_set():
                self._stay(error)
                self._do_without()

    def _built_and_opened(self) -> Transcriber:
        try:
            return self._engines.open(self._built())
        except EngineBrokenError as error:
            self._forget_broken(error)
            return self._engines.open(self._built())

    def _built(self) -> Path:
        display: BuildDisplay | None = None

        def show(progress: BuildProgress) -> None:
            nonlocal display
            display = display or BuildDisplay(f"the engine of {self._engines.label}")
            display.show(progress)
            self._building(f"building the engine: {progress.phase}", progress.fraction)

        try:
            return self._engines.build(show)
        finally:
            if display:
                display.close()
            self._building("", None)

    def _building(self, what: str, fraction: float | None) -> None:
        if self._status is not None:
            self._status.update(building=what, building_fraction=fraction)

    def _change_places(self, gpu: Transcriber) -> None:
        """Between two utterances: who transcribes has the turn until it is done."""
        with self._turn:
            if self._stop.is_set():
                gpu.close()
                return
            left, self._stand_in = self._stand_in, None
            self._gpu, self._why = gpu, f"{self._engines.label} has its engine"
            self._tell()
        if left is not None:
            left.close()
        _LOGGER.info("from now on the engine answers: %s", gpu.description)

    def _do_without(self) -> None:
        """Let CTranslate2 have the GPU that TensorRT makes nothing of."""
        try:
            other = self._open_instead()
        except Exception as error:
            _LOGGER.warning("faster-whisper can't use the GPU either: %s", error)
            return
        if other is None:
            return
        with self._turn:
            if self._stop.is_set():
                other.close()
                return
            left, self._stand_in = self._stand_in, other
            self._tell()
        if left is not None:
            left.close()
        _LOGGER.info("from now on faster-whisper answers on the GPU: %s", other.description)
