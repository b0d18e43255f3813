"""The TensorRT-LLM backend: its LLM API's Whisper, for GPUs that many speakers share.

Written against NVIDIA/TensorRT-LLM as it documents itself (docs/source/models/encoder-decoder.md,
"Transcribe audio with Whisper"; tensorrt_llm/_torch/models/modeling_whisper.py,
WhisperInputProcessor; tensorrt_llm/llmapi/llm.py, LLM.generate_async and LLM.preprocess;
tensorrt_llm/sampling_params.py; tensorrt_llm/executor/result.py), which has Whisper on its PyTorch
backend since pull request 16141, in the release candidates of 1.3. It was never run: see
docs/engines.md.

What it takes is samples, not a spectrogram, 30 s at most, which it pads to 30 s; a prompt as text
that begins with `<|startoftranscript|>`; and it never writes the tokens that the model's
generation_config.json forbids.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...engine.tensorrt.cuda import Gpu
from ...errors import EngineError, ModelBrokenError, ModelError, SettingsError
from ...models.autopick import AutoModel
from ...models.folder import ModelFolder
from ...models.stock import AUTO
from ...models.store import ModelStore
from ...transcriber import SAMPLE_RATE, Samples, TranscribeOptions, Transcriber, Transcription
from ...whisper.audio import (
    FRAMES_PER_POSITION,
    FRAMES_PER_SECOND,
    HOP_LENGTH,
    N_FRAMES,
    Array,
    white_noise,
)
from ...whisper.decoding import Decoder
from ...whisper.inference import Correct, Hypothesis, Stopwatch
from ...whisper.options import AudioContext, DecodingOptions
from ..faster_whisper import CTranslate2Inference, open_faster_whisper
from ..pipeline import WhisperTranscriber
from .api import Api
from .inference import LLMInference

if TYPE_CHECKING:
    from ...settings.options import Settings
    from ...status import Status

_LOGGER = logging.getLogger(__name__)


def open_tensorrt_llm(settings: Settings, status: Status) -> Transcriber:
    """Return what answers on the GPU, and faster-whisper where that fails later.

    Raises EngineError where TensorRT-LLM can't be used, SettingsError for what it can't do,
    ModelError.
    """
    dtype = Api.choose_dtype(settings)
    api, gpu = Api.find(settings.device)
    if settings.model == AUTO:  # chosen for the GPU: the model has no other place here
        choice = AutoModel(settings).for_gpu(Gpu.all()[0])
        settings = dataclasses.replace(settings, model=choice.model)
    store = ModelStore(settings)
    path = store.ensure(settings.model, report=status.downloading, layout="huggingface")
    status.update(phase="loading", detail="loading the model", fraction=None)
    try:
        opened = open_model(settings, path, api, dtype, gpu)
    except (EngineError, ModelBrokenError) as error:
        path = _whole_again(settings, path, error)
        opened = open_model(settings, path, api, dtype, gpu)
    why = f"it was asked for, and a {gpu} and TensorRT-LLM {api.version} are here"
    _LOGGER.info("backend: tensorrt-llm, because %s", why)
    status.update(backend="tensorrt-llm", why=why)
    if settings.strict_backend:
        return opened
    return _WithStandIn(opened, functools.partial(_open_stand_in, settings), status)


def _whole_again(settings: Settings, path: Path, error: Exception) -> Path:
    """Return the model fetched again, if its files are not what they were; else raise `error`."""
    try:
        ModelFolder(path).verify()
    except ModelBrokenError as broken:
        _LOGGER.warning("%s; fetching it again", broken)
        return ModelStore(settings).ensure(settings.model, verify=True, layout="huggingface")
    raise error


def open_model(settings: Settings, path: Path, api: Api, dtype: str, gpu: str) -> _LLMTranscriber:
    """Load the model in folder `path` and try it out. Raises EngineError, ModelBrokenError."""
    beam_size = settings.beam_size or 1
    folder = ModelFolder(path)
    decoding = _options_for(WhisperTranscriber.decoding_options(settings, folder, beam_size))
    inference = LLMInference(api, api.open(path, dtype, beam_size), folder.tokenizer, beam_size)
    with contextlib.ExitStack() as stack:
        stack.callback(inference.close)
        inference.try_out()
        transcriber = _LLMTranscriber(
            inference,
            folder,
            settings,
            decoding,
            f"{settings.model_name} on {gpu} in {dtype} (TensorRT-LLM {api.version})",
        )
        stack.pop_all()
    _LOGGER.info("%s, beam %d", transcriber.description, beam_size)
    return transcriber


def _options_for(decoding: DecodingOptions) -> DecodingOptions:
    """Return the options with what this runtime does not leave open: always 30 s, no mixed beams.

    Each request of an LLM is as wide as its max_beam_width (docs/source/features/sampling.md), so
    that with beams there is no sampling at higher temperatures.
    """
    # Long audio is cut where it is quiet: the rules that make timestamps dependable, which
    # openai/whisper cuts by, are not applied by this runtime.
    longest = min(decoding.audio_context.longest, 28 * FRAMES_PER_SECOND)
    context = AudioContext(minimum=FRAMES_PER_POSITION, retry=False, longest=longest)
    temperatures = decoding.temperatures if decoding.beam_size == 1 else (0.0,)
    return dataclasses.replace(decoding, audio_context=context, temperatures=temperatures)


class _SampleDecoder(Decoder):
    """A Decoder of one utterance, whose windows are its samples."""

    def __init__(self, samples: Samples, decoder: tuple[Any, ...]) -> None:
        super().__init__(*decoder)
        self._samples = samples

    def window(self, mel: Array, seek: int, silence: float) -> Array:
        """Return the samples of the window, frame by frame; silence is added by the runtime."""
        last = min(mel.shape[1], seek + N_FRAMES)
        return LLMInference.frames(self._samples[seek * HOP_LENGTH : last * HOP_LENGTH])


class _LLMTranscriber(WhisperTranscriber):
    """A Transcriber over an LLM, for as many requests at once as it batches."""

    at_once = Api.AT_ONCE
    _inference: LLMInference

    @property
    def inference(self) -> LLMInference:
        return self._inference

    def close(self) -> None:
        """Free the GPU; who still waits for an answer is told that there will be none."""
        self._inference.close()

    def _decoder_for(self, samples: Samples, decoding: DecodingOptions) -> Decoder:
        return _SampleDecoder(
            samples, (self._inference, self._tokenizer, self._detectable, decoding)
        )

    def _as_without_timestamps(
        self, audio_features: Any, prompt: Sequence[int], language: str, hypothesis: Hypothesis
    ) -> Hypothesis:
        if not self._inference.scores:
            return hypothesis
        return super()._as_without_timestamps(audio_features, prompt, language, hypothesis)

    def _corrects(self, options: TranscribeOptions, stopwatch: Stopwatch) -> list[Correct]:
        return super()._corrects(options, stopwatch) if self._inference.scores else []

    def _weigh(self, options: TranscribeOptions, stopwatch: Stopwatch) -> Correct | None:
        return super()._weigh(options, stopwatch) if self._inference.scores else None

    def _noise(self) -> Samples:
        return white_noise(SAMPLE_RATE)


class _WithStandIn:
    """A Transcriber: TensorRT-LLM's, and once that has failed twice in a row its stand-in."""

    STAND_IN_RETRY_SECONDS = 30.0
    """Between two tries to open a stand-in, where there was none to be had."""

    def __init__(
        self,
        gpu: Transcriber,
        open_stand_in: Callable[[], Transcriber],
        status: Status,
    ) -> None:
        self.languages = gpu.languages
        self.description = gpu.description
        self.at_once = Api.AT_ONCE
        self._gpu: Transcriber | None = gpu
        self._stand_in: Transcriber | None = None
        self._open_stand_in = open_stand_in
        self._status = status
        self._why = ""
        self._missing: str | None = None
        self._next_try = 0.0
        self._closed = False
        self._changing = threading.Lock()

    def transcribe(self, samples: Samples, options: TranscribeOptions) -> Transcription:
        """Return what was said; where TensorRT-LLM fails, what faster-whisper hears."""
        gpu = self._gpu
        if gpu is not None:
            try:
                return gpu.transcribe(samples, options)
            except EngineError as error:
                _LOGGER.warning("%s; it is asked again", error)
            try:
                return gpu.transcribe(samples, options)
            except EngineError as error:
                self._lose(gpu, error, options.checkpoint)
        return self._who_stands_in(options.checkpoint).transcribe(samples, options)

    def close(self) -> None:
        """Free both."""
        with self._changing:
            self._closed = True
            for transcriber in (self._gpu, self._stand_in):
                if transcriber is not None:
                    transcriber.close()
            self._gpu = self._stand_in = None

    def _lose(self, gpu: Transcriber, error: EngineError, checkpoint: Callable[[], None]) -> None:
        """Ask TensorRT-LLM no more."""
        with self._change(checkpoint):
            if self._gpu is not gpu:  # another thread was here before
                return
            self._why = f"TensorRT-LLM has failed, and is not asked until the next start: {error}"
            _LOGGER.warning("faster-whisper answers: %s", self._why)
            self._gpu = None
            gpu.close()

    def _who_stands_in(self, checkpoint: Callable[[], None]) -> Transcriber:
        """Return the stand-in, opened by who comes first; the others wait for it.

        Raises EngineError where there is none to be had.
        """
        with self._change(checkpoint):
            if self._stand_in is None:
                self._stand_in = self._opened()
                self.description = self._stand_in.description
                self._status.update(
                    backend="faster-whisper", why=self._why, description=self.description
                )
            return self._stand_in

    def _opened(self) -> Transcriber:
        if self._closed:
            raise EngineError("TensorRT-LLM was closed")
        if self._missing is None or time.monotonic() >= self._next_try:
            try:
                return self._open_stand_in()
            except (ModelError, SettingsError) as error:
                _LOGGER.error("faster-whisper can't answer either: %s", error)  # noqa: TRY400
                self._missing = str(error)
                self._next_try = time.monotonic() + self.STAND_IN_RETRY_SECONDS
        raise EngineError(f"TensorRT-LLM has failed, and nothing stands in for it: {self._missing}")

    @contextlib.contextmanager
    def _change(self, checkpoint: Callable[[], None]) -> Iterator[None]:
        """Hold the lock; to open a stand-in takes long, and who waits may be given up."""
        while not self._changing.acquire(timeout=LLMInference.POLL_SECONDS):
            checkpoint()
        try:
            yield
        finally:
            self._changing.release()


def _open_stand_in(settings: Settings) -> Transcriber:
    """Return faster-whisper with the same model, on the CPU: the GPU has just failed."""
    settings = CTranslate2Inference.on_cpu(settings)
    return open_faster_whisper(settings, ModelStore(settings).ensure(settings.model))
