"""The TensorRT backend: engines of TensorRT-RTX or TensorRT on an NVIDIA GPU, and the CPU whenever
there is none to use.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..engine.spec import EngineSpec
from ..engine.tensorrt.cuda import Gpu, NoGpuError
from ..engine.tensorrt.library import RTX, Library, Target
from ..engine.tensorrt.session import TensorRTSession
from ..errors import EngineError, SettingsError
from ..machine.measured import Measurements
from ..models.folder import ModelFolder
from ..transcriber import Transcriber
from ..whisper.audio import FRAMES_PER_SECOND
from ..whisper.encoded import EncodedAudio
from ..whisper.options import DecodingOptions
from ..whisper.search import SessionInference
from .engines import Engines, EngineTranscriber
from .faster_whisper import CTranslate2Inference, open_faster_whisper
from .frozen import can_have_frozen_tail, with_frozen_tail
from .pipeline import WhisperTranscriber

if TYPE_CHECKING:
    from ..settings.options import Settings
    from ..status import Status

_LOGGER = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Runtime:
    """The GPU to be used, and the library for it."""

    gpu: Gpu
    library: Library
    version: str
    """The library's."""

    @classmethod
    def find(cls, device: str, runtime: str = "") -> Runtime:
        """Return what there is for auto, cuda or cuda:N; `runtime` names a library, else the best.

        Raises EngineError: what is missing.
        """
        if device == "cpu":
            raise NoGpuError("--device is cpu")
        gpus = Gpu.all()
        index = int(device.partition(":")[2] or 0)
        if index >= len(gpus):
            raise NoGpuError(f"--device {device}: the driver finds {len(gpus)} GPUs")
        gpu = gpus[index]
        return cls(gpu, *Library.find(gpu, runtime))

    @property
    def name(self) -> str:
        """The library and its version."""
        return f"{self.library.name} {self.version}"

    def spec(self, settings: Settings, path: Path) -> EngineSpec:
        """Return the engine that these settings ask for, of the model in folder `path`."""
        target = self.library.target(self.gpu)
        spec = _spec(settings, path, self.library, self.version, target)
        return dataclasses.replace(spec, device=self.gpu.index)

    def engines(self, settings: Settings, path: Path) -> Engines:
        """Return where the engine of the model in `path` comes from."""
        spec = self.spec(settings, path)
        cache, gpu = Engines.cache_of(settings), self.gpu

        def kernels(folder: Path) -> Path | None:
            if not self.library.is_rtx:
                return None
            return cache.kernels(folder.name, gpu.name, ".".join(map(str, gpu.cuda_version)))

        def open_quickly(folder: Path) -> Transcriber | None:
            file = kernels(folder)
            if file and not file.is_file():
                return None
            session = TensorRTSession(folder, gpu.index, kernels=file)
            if file and not session.has_kernels:
                session.close()
                return None
            return over(session, folder)

        def open_folder(
            folder: Path, progress: Callable[[float], None] | None = None
        ) -> Transcriber:
            session = TensorRTSession(folder, gpu.index, kernels=kernels(folder))
            return over(session, folder, progress)

        def over(
            session: TensorRTSession,
            folder: Path,
            progress: Callable[[float], None] | None = None,
        ) -> Transcriber:
            name = f"{spec.model} on {gpu.name} in {spec.precision} ({self.name})"
            return _open_engine(settings, path, spec, session, name, folder, progress)

        return Engines(spec, cache, open_folder, open_quickly)

    def open(
        self, settings: Settings, path: Path, status: Status, *, build_missing: bool = True
    ) -> Transcriber:
        """Return what answers at once: an engine that is there, else the CPU, until one is.

        With `build_missing` that is built in the background. Raises SettingsError and
        ModelBrokenError as open_faster_whisper does, SettingsError with `strict_backend` where an
        engine is not there and will not be built.
        """
        engines = self.engines(settings, path)
        transcriber = EngineTranscriber(
            engines,
            # CTranslate2 is loaded only then.
            lambda: open_faster_whisper(CTranslate2Inference.on_cpu(settings), path),
            status,
            functools.partial(_open_on_cuda, settings, path),
            build_missing=build_missing,
        ).open()
        if settings.strict_backend and not build_missing and not transcriber.has_engine:
            transcriber.close()
            raise SettingsError(
                "--backend tensorrt: there is no engine of this model yet; "
                f"wyoming-whisper engine build --model {settings.model} makes it"
            )
        return transcriber

    @staticmethod
    def portable_engines(settings: Settings, path: Path, target: Target) -> Engines:
        """Return where an engine for other machines' GPUs comes from: built here, not opened.

        Raises EngineError where there is no TensorRT-RTX.
        """

        def refuse(*_: object) -> Transcriber:
            raise EngineError(f"this engine is for {target.device} GPUs, and not opened here")

        spec = _spec(settings, path, RTX, RTX.load().__version__, target)
        return Engines(spec, Engines.cache_of(settings), refuse)


def _spec(
    settings: Settings, path: Path, library: Library, version: str, target: Target
) -> EngineSpec:
    beam_size = settings.beam_size or 1  # greedy search is the one that runs as CUDA graphs
    model = ModelFolder(path)
    return EngineSpec(
        model=settings.model_name,
        model_bin=model.weights,
        library=library,
        version=version,
        target=target,
        precision="float32" if settings.compute_type == "float32" else "float16",
        beam_size=beam_size,
        max_batch=max(beam_size, DecodingOptions.best_of),
        has_tail=can_have_frozen_tail(settings, model),
    )


def _open_on_cuda(settings: Settings, path: Path) -> Transcriber | None:
    """Return faster-whisper on the GPU; None where CTranslate2 has no CUDA, as its Arm wheels."""
    try:
        device, _ = CTranslate2Inference.choose_device(settings.device)
    except SettingsError:
        return None
    return open_faster_whisper(settings, path) if device == "cuda" else None


def _open_engine(
    settings: Settings,
    path: Path,
    spec: EngineSpec,
    session: TensorRTSession,
    name: str,
    folder: Path,
    progress: Callable[[float], None] | None,
) -> Transcriber:
    """Return the model in `path` over the engine in `folder`, tried out; owns the session.

    Raises EngineBrokenError where the engine makes no sense, EngineError where the GPU fails.
    """
    with contextlib.ExitStack() as stack:
        stack.callback(session.close)
        model = ModelFolder(path)
        decoding = WhisperTranscriber.decoding_options(settings, model, spec.beam_size)
        windows = dataclasses.replace(decoding.audio_context, multiple=spec.FRAMES_MULTIPLE)
        decoding = dataclasses.replace(decoding, audio_context=windows)
        if spec.has_tail:
            measurements = Measurements(settings.data_dir)
            decoding = with_frozen_tail(
                decoding, session, measurements, folder.name, spec.FRAMES_MULTIPLE
            )
        transcriber = WhisperTranscriber(
            SessionInference(session, model.tokenizer, model.suppressed_begin),
            model,
            settings,
            decoding,
            name,
            session.close,
        )
        transcriber.try_out(folder)
        command_seconds = range(1, 9)  # of speech: their windows are ready before anybody speaks
        windows = decoding.audio_context
        lengths = {windows.frames(seconds * FRAMES_PER_SECOND) for seconds in command_seconds}
        session.warm_up(sorted(lengths), EncodedAudio.SLOTS[0], progress)
        stack.pop_all()
    _LOGGER.info("%s, beam %d", transcriber.description, spec.beam_size)
    return transcriber
