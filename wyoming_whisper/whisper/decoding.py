"""From a mel spectrogram to text: window by window, what is heard again, what is kept.

Knows neither runtime nor protocol: what a backend does is the `Inference` it gets. The rules are
those of openai/whisper's transcribe.py and decoding.py (Radford et al., 2022, section 4.5); those
of one window are in window.py.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..text.repetition import compression_ratio, words
from ..text.scripts import joined
from ..transcriber import Segment, Transcription, Word, go_on
from .audio import FRAMES_PER_SECOND, N_FRAMES, Array, pad_or_trim, silence_level
from .inference import Correct, Hypothesis, Stopwatch
from .window import Attempt, WindowDecoder

_LOGGER = logging.getLogger(__name__)


class Decoder(WindowDecoder):
    """Makes text of a mel spectrogram, however long it is."""

    def decode(
        self,
        mel: Array,
        language: str | None = None,
        previous_text: str | None = None,
        stopwatch: Stopwatch | None = None,
        checkpoint: Callable[[], None] = go_on,
        correct: Sequence[Correct] = (),
        language_prior: Mapping[str, float] | None = None,
        weigh: Correct | None = None,
    ) -> Transcription:
        """Return the text of `mel`, shape = (n_mels, n_frames); `language` None detects it.

        Its evidence is the mean over windows, its stages are what `stopwatch` has measured.

        `language_prior` says how many times likelier than others some languages are.
        `checkpoint` is called before every window and every attempt, and by runtimes that can
        between tokens; what it raises ends the work. `correct` have the last word on each window,
        one after the other, before the quality gate; they are not asked where timestamps only cut
        long audio. `weigh` is asked of every window then, for the evidence of its text.
        """
        stopwatch = stopwatch or Stopwatch()
        if not mel.shape[1]:
            return Transcription("", language, stages=stopwatch.seconds)
        prior, last_words = language_prior or {}, (correct, weigh)
        utterance = _Utterance(
            self, mel, language, prior, previous_text, stopwatch, checkpoint, last_words
        )
        return utterance.decoded()


@dataclass(frozen=True)
class _Part:
    """What was made of a window, or of a part of one that was heard by itself."""

    seek: int
    n_frames: int
    window: Array
    attempt: Attempt
    is_whole: bool = True


class _Utterance:
    """One call of Decoder.decode: what is carried from window to window."""

    # What is divided to be heard again in parts is twice as long as this at least.
    MIN_PART_FRAMES = 3 * FRAMES_PER_SECOND // 2

    # What is left after the last segment and shorter than this is the silence that was kept around
    # speech: hearing it again would only make something up.
    REST_FRAMES = FRAMES_PER_SECOND // 2

    PROMPT_RESET_TEMPERATURE = 0.5  # text found above it would lead the next window astray

    def __init__(
        self,
        decoder: WindowDecoder,
        mel: Array,
        language: str | None,
        language_prior: Mapping[str, float],
        previous_text: str | None,
        stopwatch: Stopwatch,
        checkpoint: Callable[[], None],
        last_words: tuple[Sequence[Correct], Correct | None],
    ) -> None:
        self._decoder = decoder
        self._mel = mel
        self._silence = silence_level(mel)
        self._language = language
        self._language_prior = language_prior
        self._language_probability = 1.0
        self._previous = decoder.encode_text(previous_text)
        self._stopwatch = stopwatch
        self._checkpoint = checkpoint
        self._pieces = decoder.pieces(mel)
        # Without segments to make, only to know where the next window starts.
        is_cut = mel.shape[1] > N_FRAMES and not self._pieces
        self._timestamps = decoder.options.timestamps or is_cut
        only_cuts = self._timestamps and not decoder.options.timestamps
        corrects, weigh = last_words
        self._last_words = [*(() if only_cuts else corrects), *((weigh,) if weigh else ())]
        self._texts: list[str] = []
        self._segments: list[Segment] = []
        self._heard: list[Hypothesis] = []
        self._kept: list[Hypothesis] = []  # of them, those whose text is in the result
        self._rejected: str | None = None

    def decoded(self) -> Transcription:
        """Hear all of it: one window at least."""
        previous = self._previous
        for seek, end in self._pieces or [(0, self._mel.shape[1])]:
            self._previous = previous  # a piece begins anywhere: the one before leads it astray
            while seek < end:
                n_frames = min(end - seek, N_FRAMES)
                parts = self._hear(seek, n_frames)
                done = [self._take(part) for part in parts]
                done_with = done[0] if parts[0].is_whole else n_frames
                seek += max(done_with, FRAMES_PER_SECOND)  # always ahead
        weights = [len(one.tokens) + 1 for one in self._heard]
        logprobs = [one.avg_logprob for one in self._heard]
        no_speech = [one.no_speech_prob for one in self._heard]
        heard_logprob, noise_logprob = self._evidence()
        first, is_one = self._heard[0], len(self._heard) == 1
        return Transcription(
            text=joined(self._texts),
            language=self._language,
            language_probability=self._language_probability,
            avg_logprob=float(np.average(logprobs, weights=weights)),
            no_speech_prob=float(np.average(no_speech, weights=weights)),
            n_tokens=sum(len(one.tokens) for one in self._heard),
            heard_logprob=heard_logprob,
            noise_logprob=noise_logprob,
            stages=self._stopwatch.seconds,
            rejected=self._rejected,
            segments=tuple(self._segments),
            understood=first.understood if is_one else None,
            free_text=first.free_text if is_one else None,
        )

    def _evidence(self) -> tuple[float | None, float | None]:
        """heard_logprob and noise_logprob over the texts kept; None unless all were weighed.

        Where none was kept, those of what was withheld.
        """
        texts = self._kept or self._heard
        pairs = [(one.heard_logprob, one.noise_logprob) for one in texts]
        weighed = [(heard, noise) for heard, noise in pairs if None not in (heard, noise)]
        if len(weighed) < len(pairs):
            return None, None
        weights = [max(len(one.tokens), 1) for one in texts]
        heard, noise = np.average(np.array(weighed, np.float64), axis=0, weights=weights)
        return float(heard), float(noise)

    def _take(self, part: _Part) -> int:
        """Keep what was made of a window or part; return how many of its frames are done with."""
        decoder, attempt, n_frames = self._decoder, part.attempt, part.n_frames
        hypothesis = attempt.hypothesis
        self._heard.append(hypothesis)
        if attempt.silent:
            return n_frames
        tokens, done = hypothesis.tokens, n_frames
        if part.is_whole:
            tokens, done = decoder.segments(tokens, n_frames)
        kept = self._keep(tokens, hypothesis, attempt.temperature)
        if not decoder.options.timestamps:
            return done
        if kept:
            self._keep_segments(tokens, attempt, part.seek, n_frames)
        return done if n_frames - done > self.REST_FRAMES else n_frames

    def _hear(self, seek: int, n_frames: int) -> list[_Part]:
        """Return what is said in a window: as one, or in parts where as one it fails.

        A phrase that is said six times looks like a loop. The audio in two parts tells them apart:
        who says it again and again says it in both.
        """
        window = self._decoder.window(self._mel[:, : seek + n_frames], seek, self._silence)
        window, features, attempt = self._first(window, n_frames)
        if not attempt.failed:
            attempt = self._fallback(features, n_frames, attempt)
            is_sparse = not self._timestamps and _is_sparse(attempt, n_frames)
            if is_sparse and (parts := self._rounds(seek, n_frames, attempt)):
                return [self._judged(part) for part in parts]
            if is_sparse and not self._decoder.keeps_features:
                features = None  # parts were encoded meanwhile
            return [self._judged(_Part(seek, n_frames, window, attempt), features)]
        deadline = time.monotonic() + self._decoder.options.fallback_seconds
        parts = self._halves(seek, n_frames, deadline)
        if not (attempt.has_ended and parts and all(_bears_out(one, attempt) for one in parts)):
            parts = self._divided(parts, deadline)
            if parts and all(_is_settled(part, parts) for part in parts):
                return [self._judged(part) for part in parts]
            attempt = self._fallback(self._encode(window), n_frames, attempt)
            if attempt.failed:
                parts = parts or [_Part(seek, n_frames, window, attempt, is_whole=False)]
                settled = [p if _is_settled(p, parts) else self._cut(p) for p in parts]
                return [self._judged(part) for part in settled]
        return [self._judged(_Part(seek, n_frames, window, attempt))]

    def _rounds(self, seek: int, n_frames: int, attempt: Attempt) -> list[_Part]:
        """Return the parts of a window whose text is a summary of them, or none.

        Without timestamps Whisper may write once what is said many times. Only where each part says
        these words again, and nothing else.
        """
        if not _is_sparse(attempt, n_frames):
            return []
        deadline = time.monotonic() + self._decoder.options.fallback_seconds
        parts = self._halves(seek, n_frames, deadline)
        if not parts or not all(_bears_out(p, attempt) and not p.attempt.failed for p in parts):
            return []
        if sum(len(words(p.attempt.text)) for p in parts) <= len(words(attempt.text)):
            return []
        return [q for p in parts for q in self._rounds(p.seek, p.n_frames, p.attempt) or [p]]

    def _first(self, window: Array, n_frames: int) -> tuple[Array, Any, Attempt]:
        """Decode a window at the first temperature, again in full width where that is doubtful.

        Returns the window that was taken, its features, and the attempt.
        """
        features = self._encode(window)
        if self._language is None:
            with self._stopwatch("detect"):
                self._language, self._language_probability = self._decoder.detect_language(
                    features, self._language_prior
                )
        attempt = self._decode(features, n_frames)
        may_widen = self._decoder.options.audio_context.retry and window.shape[1] < N_FRAMES
        if attempt.doubtful and may_widen:
            _LOGGER.debug("a window of %d frames gave a doubtful text: widened", window.shape[1])
            return self._first(pad_or_trim(window, N_FRAMES, self._silence), n_frames)
        return window, features, attempt

    def _decode(self, features: Any, n_frames: int) -> Attempt:
        seconds = n_frames / FRAMES_PER_SECOND
        with self._stopwatch("decode"):
            return self._decoder.attempt(
                features, self._prompt, seconds, self._language or "", self._checkpoint
            )

    def _encode(self, window: Array) -> Any:
        self._checkpoint()
        with self._stopwatch("encode"):
            return self._decoder.inference.encode(window)

    @property
    def _prompt(self) -> list[int]:
        return self._decoder.prompt(self._previous, self._language or "", self._timestamps)

    def _fallback(self, features: Any, n_frames: int, attempt: Attempt) -> Attempt:
        seconds = n_frames / FRAMES_PER_SECOND
        with self._stopwatch("decode"):
            return self._decoder.generate(
                features, self._prompt, seconds, self._language or "", attempt, self._checkpoint
            )

    def _halves(self, seek: int, n_frames: int, deadline: float) -> list[_Part]:
        """Return what is said before and after the quietest moment in the middle of a window.

        None where they would be too short, or it is too late.
        """
        if n_frames < 2 * self.MIN_PART_FRAMES or time.monotonic() > deadline:
            return []
        middle = seek + self._decoder.quietest(self._mel[:, seek : seek + n_frames])
        return [self._part(seek, middle), self._part(middle, seek + n_frames)]

    def _part(self, start: int, end: int) -> _Part:
        window = self._decoder.window(self._mel[:, :end], start, self._silence)
        attempt = self._decode(self._encode(window), end - start)
        return _Part(start, end - start, window, attempt, is_whole=False)

    def _divided(self, parts: Sequence[_Part], deadline: float) -> list[_Part]:
        """Return the parts, those that failed divided further as far as that goes."""
        divided: list[_Part] = []
        for part in parts:
            divides = part.attempt.failed and not _is_settled(part, parts)
            halves = self._halves(part.seek, part.n_frames, deadline) if divides else []
            divided += self._divided(halves, deadline) if halves else [part]
        return divided

    def _cut(self, part: _Part) -> _Part:
        """Return a part that failed with every phrase once; one that did not as it is.

        Nothing is left of what is still too long to have been said.
        """
        attempt = part.attempt
        if not attempt.failed:
            return part
        tokens = self._decoder.said_once(attempt.hypothesis.tokens)
        seconds = part.n_frames / FRAMES_PER_SECOND
        if attempt.unfinished and len(tokens) >= self._decoder.token_budget(
            seconds, self._language or ""
        ):
            self._rejected = f"no end of it within {len(tokens)} tokens for {seconds:.1f} s"
            tokens = []
        cut = dataclasses.replace(attempt.hypothesis, tokens=tokens)
        return dataclasses.replace(part, attempt=dataclasses.replace(attempt, hypothesis=cut))

    def _judged(self, part: _Part, features: Any = None) -> _Part:
        """Return the part with the text that was meant, and the evidence of it."""
        if part.attempt.silent:
            return part
        hypothesis = part.attempt.hypothesis
        for last_word in self._last_words:
            if features is None:
                features = self._encode(part.window)
            hypothesis = last_word(features, self._prompt, self._language or "", hypothesis)
            if not self._decoder.keeps_features:  # noise may have been encoded meanwhile
                features = None
        if self._decoder.options.words:
            if features is None:
                features = self._encode(part.window)
            with self._stopwatch("align"):
                hypothesis = self._decoder.align(
                    features, self._language, hypothesis, part.n_frames
                )
        attempt = dataclasses.replace(part.attempt, hypothesis=hypothesis)
        return dataclasses.replace(part, attempt=attempt)

    def _keep(self, tokens: list[int], hypothesis: Hypothesis, temperature: float) -> bool:
        """Take the text unless the quality gate withholds it; return whether it doesn't."""
        text = self._decoder.text(tokens)
        withheld = self._decoder.gate(text, hypothesis.avg_logprob)
        if withheld:
            self._rejected = withheld
            return False
        self._texts.append(text)
        if text:
            self._kept.append(hypothesis)
        self._previous = self._previous + tokens
        if temperature > self.PROMPT_RESET_TEMPERATURE:
            self._previous = []
        return True

    def _keep_segments(self, tokens: list[int], attempt: Attempt, seek: int, n_frames: int) -> None:
        offset = seek / FRAMES_PER_SECOND
        ratio = compression_ratio(self._decoder.text(tokens))
        mel = self._mel[:, seek : seek + n_frames]
        for start, end, where in self._decoder.timed(tokens, n_frames / FRAMES_PER_SECOND):
            spoken = self._decoder.words(attempt.hypothesis, where, self._language, mel)
            self._segments.append(
                Segment(
                    start=offset + start,
                    end=offset + end,
                    text=self._decoder.segment_text(tokens[where]),
                    words=tuple(
                        Word(offset + word.start, offset + word.end, word.text) for word in spoken
                    ),
                    tokens=tuple(tokens[where]),
                    avg_logprob=attempt.hypothesis.avg_logprob,
                    compression_ratio=ratio,
                    no_speech_prob=attempt.hypothesis.no_speech_prob,
                    temperature=attempt.temperature,
                )
            )


def _is_sparse(attempt: Attempt, n_frames: int) -> bool:
    """Whether far fewer words were written than are said in that time."""
    # A phrase of so many words, of so few a second, may be a summary of what is said many times.
    min_words, sparse_words_per_second = 4, 1.2
    n_words = len(words(attempt.text))
    seconds = n_frames / FRAMES_PER_SECOND
    return n_words >= min_words and n_words < sparse_words_per_second * seconds


def _bears_out(part: _Part, attempt: Attempt) -> bool:
    """Whether the part says something, and nothing but what the attempt says."""
    spoken = set(words(part.attempt.text))
    return bool(spoken) and not part.attempt.unlikely and spoken.issubset(words(attempt.text))


def _is_settled(part: _Part, parts: Sequence[_Part]) -> bool:
    """Whether the part is good, or repeats what is said in another part too."""
    attempt = part.attempt
    others = [other for other in parts if other is not part]
    is_said_elsewhere = any(_bears_out(other, attempt) for other in others)
    return attempt.good or (attempt.has_ended and is_said_elsewhere)
