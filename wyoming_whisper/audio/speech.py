"""What of an utterance is speech, followed as it arrives: only that is ever transcribed.

Long speech is cut in its pauses, into pieces that Whisper hears at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ..text.evidence import Voicing
from ..text.style import TextStyle
from ..transcriber import SAMPLE_RATE, Samples, TranscribeOptions, Transcriber, Transcription
from .vad import FRAME_SAMPLES, Span, SpanOptions, Vad


@dataclass(frozen=True)
class Section:
    """A stretch of audio that ends in a pause, or where the recording does."""

    # Of windows of half a minute Whisper now and then skips sentences, of one sentence it seldom
    # does (docs/benchmarks.md, Where long speech is cut).
    SHORTEST_SECONDS = 2.0
    LONGEST_SECONDS = 12.0
    PAUSE_SECONDS = 0.3
    """The first pause of this length is cut in, from the shortest on; else the longest there is."""
    WHOLE_SECONDS = 30
    """What Whisper hears at once; what is no longer than this in all is not cut."""

    start: int
    """Samples before it."""
    samples: Samples
    probabilities: Samples
    """That each frame is speech; the first and the last frame may be incomplete."""

    def spans(self, options: SpanOptions) -> list[Span]:
        """Return where speech is in `samples`."""
        return options.spans(self.probabilities, len(self.samples))

    def cut(self, spans: list[Span]) -> Samples:
        """Return only what lies within `spans` of its samples."""
        if len(spans) == 1:
            return self.samples[spans[0][0] : spans[0][1]]
        nothing = np.zeros(0, np.float32)
        return np.concatenate([nothing, *(self.samples[start:end] for start, end in spans)])

    def parts(self, options: SpanOptions) -> Iterator[Section]:
        """Yield each span of speech in it."""
        for start, end in self.spans(options):
            within = self.probabilities[start // FRAME_SAMPLES : -(-end // FRAME_SAMPLES)]
            yield Section(self.start + start, self.samples[start:end], within)

    def voicing(self, options: SpanOptions) -> Voicing:
        """Return the evidence of a voice in it."""
        n_voiced = int(np.count_nonzero(self.probabilities >= options.threshold))
        # Cries and clatter hardly have any frames that are as clear.
        n_clear = int(np.count_nonzero(self.probabilities >= 0.8))
        return Voicing(n_voiced * FRAME_SAMPLES / SAMPLE_RATE, n_clear)

    def place_to_cut(self, low: float) -> int:
        """Return the frame to cut before, of more than a piece that begins with speech.

        It is the middle of a pause, of probabilities below `low`; without any, the frame that is
        speech least.
        """
        first, last = _frames(self.SHORTEST_SECONDS), _frames(self.LONGEST_SECONDS)
        among = self.probabilities[first:last]
        quiet = np.concatenate([[False], among < low, [False]]).astype(np.int8)
        starts, ends = (np.flatnonzero(np.diff(quiet) == step) for step in (1, -1))
        if not len(starts):
            return first + int(np.argmin(among))
        lengths = ends - starts
        is_long = lengths * FRAME_SAMPLES >= self.PAUSE_SECONDS * SAMPLE_RATE
        chosen = int(np.argmax(is_long)) if is_long.any() else int(np.argmax(lengths))
        return first + int(starts[chosen] + ends[chosen]) // 2


def _frames(seconds: float) -> int:
    return int(seconds * SAMPLE_RATE) // FRAME_SAMPLES


class Speech:
    """Follows one utterance. Equal spans mean equal samples, whenever they were asked for.

    Of a long one, what is to be transcribed apart is taken off (`take_sections`); spans are then of
    the rest. Samples are counted from the beginning of the utterance everywhere.
    """

    def __init__(self, vad: Vad, options: SpanOptions) -> None:
        self._stream = vad.stream()
        self._options = options
        self._parts: list[Samples] = []
        self._probabilities = [np.zeros(0, np.float32)]
        self._is_long = False  # something of it was cut off
        self._n_before = 0  # samples that were taken off: whole frames
        self._n_samples = 0
        self._n_frames = 0
        self._n_voiced = 0  # frames
        self._n_sure = 0
        self._last_speech = -1  # the last frame that was not clearly silent, once speech began
        self.last_voiced = -1
        """The last frame that was clearly speech; -1 as long as there is none."""

    def add(self, samples: Samples) -> None:
        """Hear more. A millisecond or two per second of audio."""
        self._parts.append(samples)
        self._n_samples += len(samples)
        self._hear(self._stream.push(samples))

    @classmethod
    def whole(cls, samples: Samples, vad: Vad, options: SpanOptions) -> Speech:
        """Return the speech of a recording that is there."""
        speech = cls(vad, options)
        speech.add(samples)
        speech.finish()
        return speech

    def transcribed(
        self, transcriber: Transcriber, options: TranscribeOptions, style: TextStyle | None = None
    ) -> Transcription:
        """Return what is said in it; the model is not asked when nobody speaks.

        Raises TranscribeError.
        """
        spans = self.spans()
        if not spans:
            return Transcription("", options.language, seconds=self.seconds)
        transcription = transcriber.transcribe(self.cut(spans), options)
        answer = (style or TextStyle()).finished(transcription, self.voicing)
        return replace(answer, seconds=self.seconds)

    def finish(self) -> None:
        """Hear the end; nothing may be added afterwards."""
        self._hear(self._stream.finish())

    @property
    def seconds(self) -> float:
        """Length of what was heard."""
        return self._n_samples / SAMPLE_RATE

    @property
    def n_kept(self) -> int:
        """Samples that were not taken off."""
        return self._n_samples - self._n_before

    @property
    def voiced_seconds(self) -> float:
        """How much of it was clearly speech."""
        return self._n_voiced * FRAME_SAMPLES / SAMPLE_RATE

    @property
    def voicing(self) -> Voicing:
        """How much of the rest was a voice, as evidence for what it is taken to have said."""
        return self._rest().voicing(self._options)

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
        """Return where speech is in the rest; nowhere is an empty list."""
        spans = self._rest().spans(self._options)
        return [(self._n_before + start, self._n_before + end) for start, end in spans]

    def cut(self, spans: list[Span]) -> Samples:
        """Return the samples of `spans`, shape = (n_samples,)."""
        start = self._n_before
        return self._rest().cut([(first - start, end - start) for first, end in spans])

    def take_sections(self) -> list[Section]:
        """Take off what can be transcribed apart by now, so that no more than a piece is left.

        Nothing of an utterance that Whisper hears at once. What comes before speech is taken off
        and dropped.
        """
        sections = []
        while self.n_kept > self._n_longest:
            self._skip_silence()
            if self.n_kept > self._n_longest:
                rest = self._rest()
                n_frames = rest.place_to_cut(self._options.low)
                samples = rest.samples[: n_frames * FRAME_SAMPLES]
                sections.append(Section(rest.start, samples, rest.probabilities[:n_frames]))
                self._forget(n_frames)
                self._is_long = True
        return sections

    @property
    def _n_longest(self) -> int:
        """Samples that are not cut."""
        seconds = Section.LONGEST_SECONDS if self._is_long else Section.WHOLE_SECONDS
        return round(seconds * SAMPLE_RATE)

    def take_rest(self) -> Section:
        """Take off all that is left."""
        rest = self._rest()
        self._forget(len(rest.probabilities))
        return rest

    def _rest(self) -> Section:
        """Return what was not taken off; it stays."""
        if len(self._parts) != 1:
            self._parts = [np.concatenate([np.zeros(0, np.float32), *self._parts])]
        if len(self._probabilities) > 1:
            self._probabilities = [np.concatenate(self._probabilities)]
        return Section(self._n_before, self._parts[0], self._probabilities[0])

    def _skip_silence(self) -> None:
        """Drop what comes before speech; without any, all but what would be kept before it."""
        probabilities = self._rest().probabilities
        voiced = np.flatnonzero(probabilities >= self._options.threshold)
        first = int(voiced[0]) if len(voiced) else len(probabilities)
        pad = -(-round(self._options.pad_before_seconds * SAMPLE_RATE) // FRAME_SAMPLES)
        self._forget(max(0, first - pad))

    def _forget(self, n_frames: int) -> None:
        rest = self._rest()
        # Copies, or all that came before would stay in memory.
        self._parts = [rest.samples[n_frames * FRAME_SAMPLES :].copy()]
        self._probabilities = [rest.probabilities[n_frames:].copy()]
        self._n_before += n_frames * FRAME_SAMPLES
        has_begun = np.any(self._probabilities[0] >= self._options.threshold)
        if self._last_speech < self._n_before // FRAME_SAMPLES or not has_begun:
            self._last_speech = -1

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
