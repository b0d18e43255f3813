"""A model in the benchmark's own process, asked as the server asks it."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from wyoming_whisper.audio.speech import Speech
from wyoming_whisper.audio.vad import SileroVad, SpanOptions
from wyoming_whisper.backends.faster_whisper import CTranslate2Inference
from wyoming_whisper.backends.onnxruntime import OnnxRuntime
from wyoming_whisper.backends.pipeline import WhisperTranscriber
from wyoming_whisper.engine.cpu_graphs import Arithmetic, write_cpu_graphs
from wyoming_whisper.engine.session import CpuSession
from wyoming_whisper.models.folder import ModelFolder
from wyoming_whisper.settings.options import Settings
from wyoming_whisper.transcriber import Samples
from wyoming_whisper.whisper.audio import Array, log_mel_spectrogram
from wyoming_whisper.whisper.decoding import Decoder
from wyoming_whisper.whisper.inference import Inference
from wyoming_whisper.whisper.search import SessionInference


class Model:
    """One on CTranslate2, or with `graphs` on onnxruntime: they are made where there are none."""

    def __init__(self, path: Path, beam_size: int, threads: int, graphs: Path | None) -> None:
        settings = Settings(data_dir=(), model=str(path))
        folder = ModelFolder(path)
        self.options = WhisperTranscriber.decoding_options(
            settings, folder, WhisperTranscriber.choose_beam_size(beam_size)
        )
        self.tokenizer = folder.tokenizer
        self.languages = tuple(self.tokenizer.language_tokens) or ("en",)
        self.inference: Inference
        if graphs:
            if not graphs.exists():
                arithmetic = cast("Arithmetic", OnnxRuntime.choose_arithmetic(settings))
                write_cpu_graphs(folder.checkpoint(), graphs, arithmetic)
            session = CpuSession(graphs, threads, self.options.beam_size)
            self.inference = SessionInference(session, self.tokenizer, folder.suppressed_begin)
        else:
            import ctranslate2

            self.inference = CTranslate2Inference(
                ctranslate2.models.Whisper(
                    str(path), device="cpu", compute_type="int8_float32", intra_threads=threads
                )
            )
        self.decoder = Decoder(self.inference, self.tokenizer, self.languages, self.options)
        self._vad, self._spans = SileroVad(), SpanOptions.of(settings)

    def speech(self, samples: Samples) -> Samples:
        """Return what the server would transcribe of these; nothing where nobody speaks."""
        speech = Speech(self._vad, self._spans)
        speech.add(samples)
        speech.finish()
        spans = speech.spans()
        return speech.cut(spans) if spans else samples[:0]

    def mel(self, samples: Samples) -> Array:
        """Return the spectrogram of what the server would transcribe of these."""
        return log_mel_spectrogram(self.speech(samples), self.inference.n_mels)
