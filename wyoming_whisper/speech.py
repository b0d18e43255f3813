"""What of an utterance is speech, followed as it arrives: only that is ever transcribed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from .text import TextStyle, Voicing, finished
from .transcriber import SAMPLE_RATE, Samples, TranscribeOptions, Transcriber, Transcription
from .vad import FRAME_SAMPLES, Span, SpanOptions, Vad, clear_frames, cut, speech_spans

if TYPE_CHECKING:
    from .settings import Settings

# Kept around speech. Before: soft onsets come late to the network. After: what a window that fits
# needs to be sure of the end. The sooner this much silence has passed, the sooner work can begin:
# six of the network's frames. Five cost as few words, but work begins in vain more often
# (docs/benchmarks.md, When to begin).
PAD_BEFORE_SECONDS = 0.4
PAD_AFTER_SECONDS = 0.19


def span_options(settings: Settings) -> SpanOptions:
    """Return how this user wants silence treated.

    One span from the first word to the last, unless `--vad-filter` cuts pauses out of it.
    """
    if settings.vad_filter:
        return SpanOptions(
            threshold=settings.vad_threshold,
            min_speech_seconds=settings.vad_min_speech_ms / 1000,
            min_silence_seconds=settings.vad_min_silence_ms / 1000,
            pad_before_seconds=PAD_BEFORE_SECONDS,
            pad_after_seconds=PAD_AFTER_SECONDS,
        )
    if settings.clips_speech:
        pad = settings.vad_clip_pad_ms / 1000
        return SpanOptions(
            settings.vad_clip_threshold, pad_before_seconds=pad, pad_after_seconds=pad
        )
    return SpanOptions(pad_before_seconds=PAD_BEFORE_SECONDS, pad_after_seconds=PAD_AFTER_SECONDS)


class Speech:
    """Follows one utterance. Equal spans mean equal samples, whenever they were asked for."""

    def __init__(self, vad: Vad, options: SpanOptions) -> None:
        self._stream = vad.stream()
        self._options = options
        self._parts: list[Samples] = []
        self._probabilities = [np.zeros(0, np.float32)]
        self._n_samples = 0
        self._n_frames = 0
        self._n_voiced = 0  # frames
        self._n_sure = 0
        self._n_clear = 0
        self._last_speech = -1  # the last frame that was not clearly silent, once speech began
        self.last_voiced = -1
        """The last frame that was clearly speech; -1 as long as there is none."""

    def add(self, samples: Samples) -> None:
        """Hear more. A millisecond or two per second of audio."""
        self._parts.append(samples)
        self._n_samples += len(samples)
        self._hear(self._stream.push(samples))

    def finish(self) -> None:
        """Hear the end; nothing may be added afterwards."""
        self._hear(self._stream.finish())

    @property
    def seconds(self) -> float:
        """Length of what was heard."""
        return self._n_samples / SAMPLE_RATE

    @property
    def voiced_seconds(self) -> float:
        """How much of it was clearly speech."""
        return self._n_voiced * FRAME_SAMPLES / SAMPLE_RATE

    @property
    def voicing(self) -> Voicing:
        """How much of it was a voice, as evidence for what it is taken to have said."""
        return Voicing(self.voiced_seconds, self._n_clear)

    @property
    def has_paused(self) -> bool:
        """Whether speech has been followed by enough silence for its end to be known."""
        if self._last_speech < 0:
            return False
        silence = self._n_samples - (self._last_speech + 1) * FRAME_SAMPLES
        return silence >= self._options.pad_after_seconds * SAMPLE_RATE

    @property
    def silence_seconds(self) -> float:
        """How much silence came after the last speech, for certain: in whole frames."""
        return (self._n_frames - self._last_speech - 1) * FRAME_SAMPLES / SAMPLE_RATE

    @property
    def is_spoken(self) -> bool:
        """Whether there is evidence that anybody speaks: without it `spans` finds nothing."""
        return self._n_sure >= self._options.min_sure_frames

    def spans(self) -> list[Span]:
        """Return where speech is in what was heard so far; nowhere is an empty list."""
        return speech_spans(np.concatenate(self._probabilities), self._n_samples, self._options)

    def cut(self, spans: list[Span]) -> Samples:
        """Return the samples of `spans`, shape = (n_samples,)."""
        if len(self._parts) > 1:
            self._parts = [np.concatenate(self._parts)]
        return cut(self._parts[0], spans)

    def _hear(self, probabilities: Samples) -> None:
        if not len(probabilities):
            return
        self._probabilities.append(probabilities)
        started = self._last_speech >= 0
        low = self._options.low if started else self._options.threshold
        loud = np.flatnonzero(probabilities >= low)
        voiced = np.flatnonzero(probabilities >= self._options.threshold)
        if len(loud):
            self._last_speech = self._n_frames + int(loud[-1])
        if len(voiced):
            self.last_voiced = self._n_frames + int(voiced[-1])
        self._n_frames += len(probabilities)
        self._n_voiced += len(voiced)
        self._n_sure += int(np.count_nonzero(probabilities >= self._options.sure))
        self._n_clear += clear_frames(probabilities)


def transcribe_speech(
    samples: Samples,
    transcriber: Transcriber,
    options: TranscribeOptions,
    vad: Vad,
    spans: SpanOptions,
    style: TextStyle | None = None,
) -> Transcription:
    """Return what is said in a whole recording; the model is not asked when nobody speaks.

    Raises TranscribeError.
    """
    speech = Speech(vad, spans)
    speech.add(samples)
    speech.finish()
    found = speech.spans()
    if not found:
        return Transcription("", options.language, seconds=speech.seconds)
    transcription = transcriber.transcribe(speech.cut(found), options)
    answer = finished(transcription, speech.voicing, style or TextStyle())
    return replace(answer, seconds=speech.seconds)
