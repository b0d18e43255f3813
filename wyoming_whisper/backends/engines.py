"""An engine and its stand-in: who answers while there is no engine, and when it fails.

Nobody waits for an engine. While one is built or opened, and after one has failed, the
faster-whisper backend answers; they change places between two utterances.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ..engine.builder import EngineBuild
from ..engine.cache import EngineCache, Key
from ..engine.progress import BuildDisplay, BuildProgress
from ..engine.spec import CpuSpec, EngineSpec
from ..errors import EngineBrokenError, EngineError, NotPossibleError
from ..machine.process import NativeThread
from ..models.store import ModelStore
from ..transcriber import Samples, TranscribeOptions, Transcriber, Transcription

if TYPE_CHECKING:
    from ..settings.options import Settings
    from ..status import Status

_LOGGER = logging.getLogger(__name__)


class Engines:
    """Where the engine that is asked for comes from: a cache, or a child that builds it."""

    def __init__(
        self,
        spec: EngineSpec | CpuSpec,
        cache: EngineCache,
        open_folder: Callable[[Path, Callable[[float], None] | None], Transcriber],
        open_quickly: Callable[[Path], Transcriber | None] | None = None,
    ) -> None:
        self.label = spec.label
        """The model's name, and what it runs on."""
        self._open_quickly = open_quickly or self.open
        self._spec = spec
        self._cache = cache
        self._open = open_folder
        self._stop = threading.Event()
        self._running: EngineBuild | None = None

    @staticmethod
    def cache_of(settings: Settings) -> EngineCache:
        """Return the engines of the first data folder; those of the others, too, to be read."""
        first, *others = (folder / "engines" for folder in (*settings.data_dir, ModelStore.SHIPPED))
        return EngineCache(first, settings.max_cache_size, others)

    @functools.cached_property
    def _key(self) -> Key:
        return self._spec.key()

    def find(self) -> Path | None:
        """Return the engine's folder if it is built."""
        return self._cache.find(self._key)

    def build(self, on_progress: Callable[[BuildProgress], None]) -> Path:
        """Return the engine's folder, built if need be. Raises ModelError."""
        return self._cache.ensure(
            self._key, functools.partial(self._fill, on_progress), self._spec.model, self._stop
        )

    def open_quickly(self, folder: Path) -> Transcriber | None:
        """Return the engine at work; None where somebody would be kept waiting for that.

        Raises EngineBrokenError, EngineError.
        """
        return self._open_quickly(folder)

    def open(self, folder: Path, progress: Callable[[float], None] | None = None) -> Transcriber:
        """Return the engine at work; `progress` is told the share of it that is ready.

        Raises EngineBrokenError, EngineError.
        """
        return self._open(folder, progress)

    def discard(self) -> None:
        """Forget what is built."""
        with contextlib.suppress(OSError):
            self._cache.discard(self._key.name)

    def cancel(self) -> None:
        """Have `build` raise, now and ever after."""
        self._stop.set()
        if self._running:
            self._running.cancel()

    def _fill(self, on_progress: Callable[[BuildProgress], None], folder: Path) -> None:
        request = self._spec.request(folder, self._cache)
        self._running = running = EngineBuild(request, on_progress)
        if self._stop.is_set():  # perhaps just before there was anything to cancel
            running.cancel()
        running.run()


Compare = Callable[[Transcriber, Transcriber, AbstractContextManager[object]], tuple[bool, str]]
"""Says whether an engine is better than its stand-in, and why; while either works the turn is to be
held."""


class _ClosedError(Exception):
    """The transcriber was closed while its engine was compared."""


class _Turn:
    """A turn to compare: a lock that can't be had any more when `stop` is set."""

    def __init__(self, lock: threading.RLock, stop: threading.Event) -> None:
        self._lock = lock
        self._stop = stop

    def __enter__(self) -> None:
        """Raises _ClosedError."""
        self._lock.acquire()
        if self._stop.is_set():
            self._lock.release()
            raise _ClosedError

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class EngineTranscriber:
    """A Transcriber: the engine's where there is one, else its stand-in's, faster-whisper's.

    `open` has to be called first, and `close` at last, which may be called again.
    `backend` is the engine's, `voice` what the log calls the stand-in; `status` is told who answers
    and why. With `build_missing` an engine that is not there is built in the background; `close`
    ends that. An engine that `compare` finds no better is removed, and the stand-in stays;
    `why_engine` says why it is the better one: without that, one that is there already is compared,
    too. Where it can't be built, `open_instead` gives what is better than the stand-in, if anything
    is.
    """

    STAND_IN = "faster-whisper"

    REOPEN_SECONDS = 10.0
    """From an engine's failure to its second chance: others may have given memory back by then."""
    FAILURE_SECONDS = 3600.0
    """Two failures within it, and the stand-in stays."""
    CLOSE_SECONDS = 0.8  # the scheduler waits for 1.0

    def __init__(
        self,
        engines: Engines,
        open_stand_in: Callable[[], Transcriber],
        status: Status,
        open_instead: Callable[[], Transcriber | None] = lambda: None,
        *,
        build_missing: bool = True,
        backend: str = "tensorrt",
        voice: str = "the CPU",
        compare: Compare | None = None,
        why_engine: str | None = None,
    ) -> None:
        self._backend = backend
        self._voice = voice
        self._compare = compare
        self._is_preferred = why_engine is not None
        self._why_engine = why_engine or f"{engines.label} has its engine"
        self._build_missing = build_missing
        self._source = engines
        self._open_stand_in = open_stand_in
        self._open_instead = open_instead
        self._status = status
        self._turn = threading.RLock()  # of who transcribes, and of who changes places
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._failed_at: float | None = None
        self._why = "its engine is not built yet"
        self.description = ""
        self.languages: tuple[str, ...] = ()
        self._stand_in: Transcriber | None = None
        self._engine: Transcriber | None = None
        self._is_open = False

    def open(self) -> EngineTranscriber:
        """Open what is to answer first, then begin to bring the engine; return itself.

        Raises what opening the stand-in does; no thread is left then.
        """
        with self._turn:
            if self._compare is None or self._is_preferred:
                self._engine = self._open_what_is_there()
            current = self._engine or self._reopen_stand_in()
            self.languages = current.languages
            self._is_open = True
            if self._engine is None and self._build_missing:
                self._bring_engine(0.0 if self._failed_at is None else self.REOPEN_SECONDS)
            self._tell()
        return self

    @property
    def has_engine(self) -> bool:
        return self._engine is not None

    def transcribe(self, samples: Samples, options: TranscribeOptions) -> Transcription:
        """Return what was said; where the engine fails, what its stand-in hears."""
        with self._turn:
            if self._engine is not None:
                try:
                    return self._engine.transcribe(samples, options)
                except NotPossibleError:
                    raise
                except Exception as error:  # whatever it is, the speaker gets an answer
                    engine, self._engine = self._engine, None
                    with contextlib.suppress(Exception):  # what failed may fail at this too
                        engine.close()
                    self._failed(error)
            if self._stand_in is None:
                self._reopen_stand_in()
                self._tell()
            return cast("Transcriber", self._stand_in).transcribe(samples, options)

    def close(self) -> None:
        """Free everything, and end what is being built."""
        self._stop.set()
        self._source.cancel()
        with self._turn:
            for transcriber in (self._engine, self._stand_in):
                if transcriber is not None:
                    transcriber.close()
            self._engine = self._stand_in = None
        # After that, as it ends a comparison, too. Native code that is left aborts at Python's end.
        if self._thread is not None:
            self._thread.join(self.CLOSE_SECONDS)
            self._show("", None)

    def _open_what_is_there(self) -> Transcriber | None:
        try:
            if folder := self._source.find():
                waits = not self._build_missing  # there is no thread to open it later
                engine = self._source.open(folder) if waits else self._source.open_quickly(folder)
                slow = "its engine is being opened, which takes longer the first time"
                self._why = self._why_engine if engine else slow
                return engine
        except EngineBrokenError as error:
            self._forget_broken(error)
        except EngineError as error:
            self._failed(error)
        return None

    def _reopen_stand_in(self) -> Transcriber:
        self._stand_in = self._open_stand_in()
        return self._stand_in

    def _failed(self, error: Exception) -> None:
        """Open the engine again, once in a while."""
        before, self._failed_at = self._failed_at, time.monotonic()
        again = before is None or self._failed_at - before > self.FAILURE_SECONDS
        if not (self._build_missing and again):
            self._stay(error)
            return
        self._because(
            f"the engine failed, and is opened again in {self.REOPEN_SECONDS:.0f} s: {error}"
        )
        if self._is_open:
            self._bring_engine(self.REOPEN_SECONDS)

    def _stay(self, error: BaseException) -> None:
        self._because(f"there is no engine until the next start: {error}")

    def _because(self, why: str) -> None:
        """Say why the stand-in answers."""
        _LOGGER.warning("%s answers: %s", self._voice, why)
        with self._turn:
            self._why = why
            self._tell()

    def _tell(self) -> None:
        current = self._engine or self._stand_in
        if current is not None:
            self.description = current.description
        backend = self._backend if self._engine is not None else self.STAND_IN
        self._status.update(backend=backend, why=self._why, description=self.description)

    def _forget_broken(self, error: EngineBrokenError) -> None:
        _LOGGER.warning("%s; it is built again", error)
        self._source.discard()

    # The engine's thread.

    def _bring_engine(self, delay: float = 0.0) -> None:
        _LOGGER.info("%s answers until %s has its engine", self._voice, self._source.label)
        self._thread = NativeThread(lambda: self._replace_stand_in(delay), "engine")
        self._thread.start()

    def _replace_stand_in(self, delay: float) -> None:
        if self._stop.wait(delay):
            return
        try:
            self._choose()
        except EngineError as error:
            if not self._stop.is_set():
                self._failed(error)
        except _ClosedError:
            _LOGGER.debug("closed while it was compared")
        except BaseException as error:  # in this thread nobody else would say so
            if not self._stop.is_set():
                self._stay(error)
                self._do_without()
        finally:
            self._building("", None)

    def _choose(self) -> None:
        """Bring the engine, and say who is to answer; all the while something is `building`.

        Who unloads models that are idle waits for that: otherwise it would begin again and again.
        """
        self._building("looking for the engine", None)
        try:
            engine = self._source.open(self._built(), self._opening)
        except EngineBrokenError as error:
            self._forget_broken(error)
            engine = self._source.open(self._built(), self._opening)
        is_better, why = self._judge(engine)
        if not is_better:
            self._leave(engine, why)
        elif self._takes_over(engine, None, why):
            _LOGGER.info("from now on the engine answers: %s; %s", engine.description, why)

    def _built(self) -> Path:
        display: BuildDisplay | None = None

        def show(progress: BuildProgress) -> None:
            nonlocal display
            display = display or BuildDisplay(f"the engine of {self._source.label}")
            display.show_build(progress)
            self._building(f"building the engine: {progress.phase}", progress.fraction)

        try:
            return self._source.build(show)
        finally:
            if display:
                display.close()
            self._building("opening the engine", None)

    def _opening(self, fraction: float) -> None:
        self._building("opening the engine", fraction)

    def _building(self, what: str, fraction: float | None) -> None:
        if not self._stop.is_set():  # who was closed says nothing of its successor's engine
            self._show(what, fraction)

    def _show(self, what: str, fraction: float | None) -> None:
        self._status.update(building=what, building_fraction=fraction)

    def _judge(self, engine: Transcriber) -> tuple[bool, str]:
        if self._compare is None or self._stand_in is None or self._stop.is_set():
            return True, self._why_engine
        self._building(f"comparing the engine with {self.STAND_IN}", None)
        try:
            return self._compare(engine, self._stand_in, _Turn(self._turn, self._stop))
        except Exception:
            engine.close()
            raise

    def _leave(self, engine: Transcriber, why: str) -> None:
        """Stay with the stand-in."""
        engine.close()
        self._source.discard()
        _LOGGER.info("%s goes on to answer: %s", self._voice, why)
        with self._turn:
            self._why = why
            self._tell()

    def _do_without(self) -> None:
        """Let CTranslate2 have the GPU that TensorRT makes nothing of."""
        try:
            other = self._open_instead()
        except Exception as error:
            _LOGGER.warning("faster-whisper can't use the GPU either: %s", error)
            return
        if other is not None and self._takes_over(None, other, self._why):
            _LOGGER.info("from now on faster-whisper answers on the GPU: %s", other.description)

    def _takes_over(
        self, engine: Transcriber | None, stand_in: Transcriber | None, why: str
    ) -> bool:
        """Have either of them answer from the next utterance on; return False after `close`."""
        with self._turn:  # who transcribes has it until it is done
            if self._stop.is_set():
                for transcriber in filter(None, (engine, stand_in)):
                    transcriber.close()
                return False
            left, self._stand_in = self._stand_in, stand_in
            self._engine, self._why = engine, why
            self._tell()
        if left is not None:
            left.close()
        return True
