"""The onnxruntime backend: Whisper on CPUs, as graphs made for that (engine.cpu_graphs).

faster-whisper answers while they are made, and should they ever fail (engines.py). Where the user
leaves the backend open, both are measured once, and the faster one stays.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from ..engine.session import CpuSession
from ..engine.spec import ONNXRUNTIME, CpuSpec
from ..engine.tensorrt.cuda import Gpu
from ..errors import (
    EngineBrokenError,
    EngineError,
    ModelBrokenError,
    ModelError,
    SettingsError,
)
from ..machine.host import HOST
from ..machine.measured import Measurements
from ..models.folder import ModelFolder
from ..transcriber import Transcriber
from ..whisper.search import SessionInference
from .engines import Engines, EngineTranscriber
from .faster_whisper import CTranslate2Inference, open_faster_whisper
from .frozen import can_have_frozen_tail, with_frozen_tail
from .pipeline import WhisperTranscriber

if TYPE_CHECKING:
    from ..settings.options import Settings
    from ..status import Status

_LOGGER = logging.getLogger(__name__)


class OnnxRuntime:
    """onnxruntime for the model in folder `path`. Raises SettingsError for what it can't do."""

    def __init__(self, settings: Settings, path: Path) -> None:
        self._settings, self._path = settings, path
        self._arithmetic = self.choose_arithmetic(settings)
        self._comparison = _Comparison(settings, path, self._arithmetic)

    def open(self, status: Status, *, build_missing: bool = True) -> Transcriber:
        """Return the model, on onnxruntime as soon as its graphs are made.

        With `build_missing` they are made in the background. Raises SettingsError for what is not
        possible, and ModelBrokenError.
        """
        if importlib.util.find_spec("onnx") is None:
            raise SettingsError("--backend onnxruntime needs the package onnx: pip install onnx")
        settings = self._settings
        transcriber = self._open(status, build_missing)
        if settings.strict_backend and not build_missing and not transcriber.has_engine:
            transcriber.close()
            raise SettingsError(
                "--backend onnxruntime: the graphs of this model are not made yet; "
                "wyoming-whisper engine build --backend onnxruntime "
                f"--model {settings.model} makes them"
            )
        return transcriber

    @classmethod
    def open_fastest(
        cls, settings: Settings, path: Path, status: Status, *, build_missing: bool = True
    ) -> Transcriber:
        """Return the model on the faster backend of a CPU, once that is known."""
        try:
            runtime = cls(settings, path)
            why_not = runtime._why_not()
        except (SettingsError, ModelBrokenError) as error:
            why_not = str(error)
        if why_not:
            _LOGGER.info("backend: faster-whisper rather than onnxruntime, because %s", why_not)
            status.update(why=f"rather than onnxruntime, because {why_not}")
            return open_faster_whisper(settings, path)
        return runtime._open(status, build_missing)

    def engines(self) -> Engines:
        """Return where the graphs of the model come from."""
        spec = CpuSpec(self._settings.model_name, ModelFolder(self._path).weights, self._arithmetic)
        return Engines(
            spec,
            Engines.cache_of(self._settings),
            lambda folder, _: self._open_graphs(spec, folder),
        )

    @staticmethod
    def choose_arithmetic(settings: Settings) -> str:
        """Return what the graphs are to compute in. Raises SettingsError for what they can't."""
        if settings.device not in ("auto", "cpu"):
            raise SettingsError(
                f"--backend onnxruntime runs on the CPU, not on {settings.device}; use --device cpu"
            )
        if settings.compute_type == "float32":
            return "float32"
        if settings.compute_type not in ("default", "auto", "int8", "int8_float32"):
            raise SettingsError(
                f"--compute-type {settings.compute_type} is not possible with --backend "
                "onnxruntime; it can int8 and float32"
            )
        return "int8" if HOST.adds_int8_exactly else "uint8"

    def _open(self, status: Status, build_missing: bool) -> EngineTranscriber:
        return EngineTranscriber(
            self.engines(),
            lambda: open_faster_whisper(self._settings, self._path),
            status,
            backend=ONNXRUNTIME,
            build_missing=build_missing,
            voice=EngineTranscriber.STAND_IN,
            compare=self._comparison,
            why_engine=self._comparison.why_onnxruntime,
        ).open()

    def _open_graphs(self, spec: CpuSpec, folder: Path) -> WhisperTranscriber:
        """Return the model over the graphs in `folder`, tried out and warm.

        Raises EngineBrokenError where they can't be read or make no sense, EngineError where they
        fail.
        """
        try:
            transcriber = self._opened(spec, folder)
            transcriber.try_out(folder)
            transcriber.warm_up()
        except (ModelError, SettingsError):
            raise
        except Exception as error:  # whatever a library makes of graphs that it can't run
            raise EngineError(f"onnxruntime fails on the graphs in {folder}: {error}") from error
        beam_size = WhisperTranscriber.choose_beam_size(self._settings.beam_size)
        _LOGGER.info("%s, beam %d", transcriber.description, beam_size)
        return transcriber

    def _opened(self, spec: CpuSpec, folder: Path) -> WhisperTranscriber:
        settings, model = self._settings, ModelFolder(self._path)
        beam_size = WhisperTranscriber.choose_beam_size(settings.beam_size)
        threads = settings.cpu_threads or HOST.cores
        try:
            session = CpuSession(folder, threads, beam_size)
        except ModelBrokenError as error:
            raise EngineBrokenError(str(error)) from error
        decoding = WhisperTranscriber.decoding_options(settings, model, beam_size)
        if can_have_frozen_tail(settings, model):
            measurements = Measurements(settings.data_dir)
            decoding = with_frozen_tail(decoding, session, measurements, folder.name)
        where = f"CPU ({HOST.instruction_set}, {threads} threads)"
        return WhisperTranscriber(
            SessionInference(
                session, model.tokenizer, model.suppressed_begin, model.alignment_heads
            ),
            model,
            settings,
            decoding,
            f"{spec.model} on {where} in {spec.arithmetic} (onnxruntime)",
            session.close,
            keeps_features=True,
        )

    def _why_not(self) -> str:
        """Return why faster-whisper is to answer unmeasured, if it is. Raises ModelBrokenError."""
        if self._is_for_cuda():
            return "CTranslate2 has a GPU"
        if self._comparison.faster == EngineTranscriber.STAND_IN:
            return "it was faster when they were compared"
        return "" if self._comparison.faster else self._why_not_compared()

    def _why_not_compared(self) -> str:
        if importlib.util.find_spec("onnx") is None:
            return "the package onnx is not installed"
        # For a while both are there: memory for so many times the model in int8 is needed, of no
        # more than half of what there is. Not of what happens to be free: which backend answers,
        # and so what it writes, must be the same at every start.
        needed = 4 * ModelFolder(self._path).dims.int8_bytes
        total = HOST.ram_bytes
        if needed <= total / 2 and not self._comparison.was_without_room(total):
            return ""
        self._comparison.remember_without_room(total)
        return (
            f"there is not enough memory to compare them: {needed / 1e6:.0f} MB would be needed, "
            f"and no more than half of {total / 1e6:.0f} MB is used for it"
        )

    def _is_for_cuda(self) -> bool:
        """Whether faster-whisper would run on a GPU: CTranslate2 is asked where there is one."""
        if self._settings.device == "cpu":
            return False
        try:
            Gpu.all()
        except EngineError:
            return False
        return CTranslate2Inference.choose_device(self._settings.device)[0] == "cuda"


class _Comparison:
    """Measures a command on both backends, once on this machine: engines.Compare."""

    WORTH = 0.9  # of faster-whisper's time, or less: anything closer is noise
    WITHOUT_ROOM = "not compared, with so many bytes of memory"
    REST_SECONDS = 0.05  # threads spin for a moment after their work: not into the other's time
    RAM_CHANGE = 1.1
    """By how much memory has to grow for that to be decided again; its total varies a little."""

    def __init__(self, settings: Settings, path: Path, arithmetic: str) -> None:
        self._memory = Measurements(settings.data_dir)
        self._asked = settings.backend == ONNXRUNTIME
        versions = (f"{name} {_version(name)}" for name in ("ctranslate2", "onnxruntime"))
        self._key = "backend: " + ", ".join(
            (
                settings.model_name,
                arithmetic,
                f"window {settings.audio_context}",
                f"graphs {CpuSpec.CPU_GRAPH_SCHEMA}",
                f"beam {WhisperTranscriber.choose_beam_size(settings.beam_size)}",
                f"{settings.cpu_threads or HOST.cores} threads",
                *versions,
                HOST.cpu_name,
            )
        )

    @property
    def why_onnxruntime(self) -> str | None:
        """Why onnxruntime is to answer, where nothing has to be measured for that."""
        if self._asked:
            return "it was asked for"
        if self.faster == ONNXRUNTIME:
            return "it was faster here when a command was measured on both"
        return None

    @property
    def faster(self) -> str | None:
        """The backend that was faster when they were compared here."""
        backend = self._memory.get(self._key)
        return backend if isinstance(backend, str) else None

    def was_without_room(self, ram_bytes: int) -> bool:
        """Whether there was too little memory to compare them, and there is no more of it now."""
        entry = self._memory.get(self._key)
        before = entry.get(self.WITHOUT_ROOM) if isinstance(entry, dict) else None
        return isinstance(before, int | float) and ram_bytes <= self.RAM_CHANGE * before

    def remember_without_room(self, ram_bytes: int) -> None:
        if not self.was_without_room(ram_bytes):
            self._memory.put(self._key, {self.WITHOUT_ROOM: ram_bytes})

    def __call__(
        self, engine: Transcriber, stand_in: Transcriber, turn: AbstractContextManager[object]
    ) -> tuple[bool, str]:
        if why := self.why_onnxruntime:  # the graphs were not made yet, gone, or have failed
            return True, why
        pair = [one for one in (engine, stand_in) if isinstance(one, WhisperTranscriber)]
        if len(pair) < 2:
            raise TypeError(f"{engine} and {stand_in} can't be measured")
        times: list[list[float]] = [[], []]
        for _ in range(WhisperTranscriber.COMMAND_RUNS):
            for one, seconds in zip(pair, times, strict=True):
                with turn:  # whoever speaks meanwhile waits for one command at most
                    seconds.append(one.command_seconds())
                time.sleep(self.REST_SECONDS)
        ours, theirs = (min(seconds[1:]) for seconds in times)
        is_better = ours <= self.WORTH * theirs
        faster = ONNXRUNTIME if is_better else EngineTranscriber.STAND_IN
        self._memory.put(self._key, faster)
        why = (
            f"a command takes {ours * 1000:.0f} ms on onnxruntime here, "
            f"{theirs * 1000:.0f} ms on faster-whisper"
        )
        return is_better, why


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "?"
