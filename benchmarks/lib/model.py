"""A model on onnxruntime in the benchmark's own process, below what a Transcriber shows of it."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from wyoming_whisper.audio.speech import Speech
from wyoming_whisper.audio.vad import SileroVad, SpanOptions
from wyoming_whisper.backends.frozen import can_have_frozen_tail, with_frozen_tail
from wyoming_whisper.backends.onnxruntime import OnnxRuntime
from wyoming_whisper.backends.pipeline import WhisperTranscriber
from wyoming_whisper.engine.cpu_graphs import Arithmetic, write_cpu_graphs
from wyoming_whisper.engine.session import CpuSession
from wyoming_whisper.machine.measured import Measurements
from wyoming_whisper.models.folder import ModelFolder
from wyoming_whisper.settings.options import Settings
from wyoming_whisper.transcriber import Samples
from wyoming_whisper.whisper.audio import Array, log_mel_spectrogram
from wyoming_whisper.whisper.decoding import Decoder
from wyoming_whisper.whisper.search import SessionInference


class Model:
    """What a Transcriber is made of."""

    def __init__(self, path: Path, beam_size: int, threads: int, graphs: Path) -> None:
        """`graphs` are made where there are none."""
        settings, folder = Settings(data_dir=(), model=str(path)), ModelFolder(path)
        beams = WhisperTranscriber.choose_beam_size(beam_size)
        self.options = WhisperTranscriber.decoding_options(settings, folder, beams)
        self.tokenizer = folder.tokenizer
        if not graphs.exists():
            arithmetic = cast("Arithmetic", OnnxRuntime.choose_arithmetic(settings))
            write_cpu_graphs(folder.checkpoint(), graphs, arithmetic)
        session = CpuSession(graphs, threads, self.options.beam_size)
        if can_have_frozen_tail(settings, folder):
            unkept = Measurements(())
            self.options = with_frozen_tail(self.options, session, unkept, graphs.name)
        self.inference = SessionInference(session, self.tokenizer, folder.suppressed_begin)
        languages = tuple(self.tokenizer.language_tokens) or ("en",)
        self.decoder = Decoder(self.inference, self.tokenizer, languages, self.options)
        self._vad, self._spans = SileroVad(), SpanOptions.of(settings)

    def mel(self, samples: Samples) -> Array:
        """Return the spectrogram of what the server would transcribe of these.

        It has no frames where nobody speaks.
        """
        speech = Speech.whole(samples, self._vad, self._spans)
        spans = speech.spans()
        return log_mel_spectrogram(
            speech.cut(spans) if spans else samples[:0], self.inference.n_mels
        )
