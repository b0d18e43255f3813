"""From a mel spectrogram to text: windows, language, prompt, quality checks, fallback.

Knows neither runtime nor protocol: what a backend does is the `Inference` it gets. The rules are
those of openai/whisper's transcribe.py and decoding.py (Radford et al., 2022, section 4.5).
"""

from __future__ import annotations

import dataclasses
import logging
import re
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol, cast

import numpy as np

from ..transcriber import Segment, Word
from .audio import (
    FRAMES_PER_POSITION,
    FRAMES_PER_SECOND,
    N_FRAMES,
    SECONDS_PER_TIMESTAMP,
    Array,
    pad_or_trim,
    silence_level,
)
from .timing import AligningInference, timed_words, without_pauses
from .tokenizer import Task, Tokenizer

_LOGGER = logging.getLogger(__name__)

N_TEXT_CTX = 448
MAX_PREVIOUS_TOKENS = N_TEXT_CTX // 2 - 1
MAX_NEW_TOKENS = N_TEXT_CTX // 2

# The token budget follows the audio: even scripts that Whisper spells byte by byte stay below it,
# and a loop ends after a fraction of the whole context.
TOKENS_PER_SECOND = 40
SPARE_TOKENS = 32

# A few tokens over and over: too short for zlib to notice, typical of a window cut too tight.
MAX_LOOP_TOKENS = 4
MAX_LOOP_REPEATS = 5

# What is left after the last segment and shorter than this is the silence that was kept around
# speech: hearing it again would only make something up.
REST_FRAMES = FRAMES_PER_SECOND // 2

QUIET_FRAMES = 20  # a pause between sentences lasts this long at least


@dataclass(frozen=True)
class AudioContext:
    """How much the encoder sees of utterances shorter than 30 s, in mel frames.

    Whisper was trained on 30 s windows; the encoder's cost grows faster than the window. Stock
    weights bear a shorter one with some silence behind the speech: whisper.cpp#1855 measured no
    more errors at length + 128 positions, whisper.cpp#1117 loops below 0.3 of the window.
    """

    minimum: int
    margin: int = 0
    """Of silence after the audio."""
    retry: bool = True
    """Whether a doubtful text is heard again in the full window."""
    longest: int = N_FRAMES
    """Longer audio is cut at its quietest moments into pieces no longer than this; at N_FRAMES it
    is cut where the model's timestamps say, as Whisper does."""
    multiple: int = FRAMES_PER_POSITION
    """Windows are rounded up to one, as the encoder halves them; larger where the runtime prefers
    few different sizes."""

    def frames(self, audio_frames: int) -> int:
        """Return the window for this much audio."""
        wanted = max(audio_frames + self.margin, self.minimum)
        return min(wanted + -wanted % self.multiple, N_FRAMES)


FULL_CONTEXT = AudioContext(minimum=N_FRAMES)
SAFE_CONTEXT = AudioContext(minimum=512 * FRAMES_PER_POSITION, margin=128 * FRAMES_PER_POSITION)
TRAINED_CONTEXT = AudioContext(
    minimum=FRAMES_PER_SECOND, retry=False, longest=8 * FRAMES_PER_SECOND
)
"""For weights that were trained on commands, in windows of any length."""


@dataclass(frozen=True)
class DecodingOptions:
    """What the user set for every request."""

    # what to write
    task: Task = "transcribe"
    initial_prompt: str | None = None
    timestamps: bool = False  # whether the result has segments
    words: bool = False  # whether those have their words' times

    # how to search
    beam_size: int = 5
    best_of: int = 5  # samples when the temperature is above zero

    # when to distrust a result and try the next temperature (the paper's values)
    temperatures: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    compression_ratio_threshold: float = 2.4
    logprob_threshold: float = -1.0
    no_speech_threshold: float = 0.6
    fallback_seconds: float = 5.0  # no further temperature is tried after this long

    # the quality gate: below this mean log-probability nothing is said rather than a guess
    min_avg_logprob: float | None = None

    # how much the encoder sees
    audio_context: AudioContext = FULL_CONTEXT


NO_PRIOR: Mapping[str, float] = MappingProxyType({})


def go_on() -> None:
    """The checkpoint of work that is never broken off."""


@dataclass(frozen=True)
class GenerateOptions:
    """What one call of `Inference.generate` is told."""

    beam_size: int
    temperature: float
    best_of: int
    max_new_tokens: int
    suppressed_tokens: Sequence[int]
    checkpoint: Callable[[], None] = field(default=go_on, repr=False, compare=False)
    """Called between tokens where the runtime allows; what it raises ends the work."""


@dataclass(frozen=True)
class Hypothesis:
    """What one call of `Inference.generate` found."""

    tokens: list[int]
    avg_logprob: float
    no_speech_prob: float
    others: tuple[list[int], ...] = field(default=(), compare=False)
    """What else the search has found, likeliest first."""
    heard_logprob: float | None = field(default=None, compare=False)
    """Mean log-probability of the text's tokens by the audio alone, without a prompt."""
    noise_logprob: float | None = field(default=None, compare=False)
    """The same with noise in place of the audio."""
    positions: Sequence[int] = field(default=(), compare=False)
    """Where each of the text's tokens begins, and the last one ends; see AligningInference."""


Correct = Callable[[Any, Sequence[int], str, Hypothesis], Hypothesis]
"""Given audio features, prompt, language and what was written after it, returns what was meant."""


class Inference(Protocol):
    """A Whisper model on some runtime. `audio_features` are opaque and stay where they are."""

    n_mels: int

    def encode(self, mel: Array) -> Any:
        """Return audio features of a window, shape = (n_mels, n_frames), even and <= 3000."""

    def detect_language(self, audio_features: Any) -> list[tuple[str, float]]:
        """Return (code, probability), likeliest first; only asked of multilingual models."""

    def generate(
        self, audio_features: Any, prompt: Sequence[int], options: GenerateOptions
    ) -> Hypothesis:
        """Return the best hypothesis after `prompt`, without its end token."""


class ScoringInference(Inference, Protocol):
    """One that can also say how likely it finds a text."""

    def score(
        self, audio_features: Any, prompt: Sequence[int], texts: Sequence[Sequence[int]]
    ) -> list[Array]:
        """Return the log-probabilities of each text's tokens after `prompt`, shape = (n_tokens,).

        They are among text tokens; `prompt` ends with the token of no timestamps.
        """


@dataclass
class DecodingResult:
    """Text and evidence; probabilities are of the worst and the mean over windows."""

    text: str
    language: str | None
    language_probability: float = 1.0
    avg_logprob: float = 0.0
    no_speech_prob: float = 0.0
    n_tokens: int = 0
    heard_logprob: float | None = None
    noise_logprob: float | None = None
    """Of a text in one window; see Transcription."""
    rejected: str | None = None
    segments: tuple[Segment, ...] = ()
    """Where DecodingOptions.timestamps asks for them."""


@dataclass
class Stopwatch:
    """Seconds per stage, summed over windows."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start


class Decoder:
    """Decodes whole utterances. Holds no state between them."""

    def __init__(
        self,
        inference: Inference,
        tokenizer: Tokenizer,
        languages: Sequence[str],
        options: DecodingOptions,
    ) -> None:
        self._inference = inference
        self._tokenizer = tokenizer
        self._languages = tuple(languages)
        self._options = options

    def decode(
        self,
        mel: Array,
        language: str | None = None,
        previous_text: str | None = None,
        stopwatch: Stopwatch | None = None,
        checkpoint: Callable[[], None] = go_on,
        correct: Correct | None = None,
        language_prior: Mapping[str, float] = NO_PRIOR,
    ) -> DecodingResult:
        """Return the text of `mel`, shape = (n_mels, n_frames); `language` None detects it.

        `language_prior` says how many times likelier than others some languages are.
        `checkpoint` is called before every window and every attempt, and by runtimes that can
        between tokens; what it raises ends the work. `correct` has the last word on each window,
        before the quality gate; it is not asked where timestamps only cut long audio.
        """
        if not mel.shape[1]:
            return DecodingResult("", language)
        stopwatch = stopwatch or Stopwatch()
        return _Utterance(
            self, mel, language, language_prior, previous_text, stopwatch, checkpoint, correct
        ).run()

    # What one utterance needs of its decoder.

    def window(self, mel: Array, seek: int, silence: float) -> Array:
        """Return what the encoder sees from frame `seek` on."""
        frames = min(mel.shape[1] - seek, N_FRAMES)
        size = self._options.audio_context.frames(frames)
        return pad_or_trim(mel[:, seek : seek + frames], size, silence)

    def encode(self, window: Array) -> Any:
        return self._inference.encode(window)

    def pieces(self, mel: Array) -> list[tuple[int, int]]:
        """Return where to cut long audio; nothing when timestamps are to say."""
        longest = self._options.audio_context.longest
        return quiet_pieces(mel, longest) if longest < min(N_FRAMES, mel.shape[1]) else []

    def may_widen(self, window: Array) -> bool:
        """Whether a doubtful text should be heard again in the full window."""
        return self._options.audio_context.retry and window.shape[1] < N_FRAMES

    def detect_language(self, audio_features: Any, prior: Mapping[str, float]) -> tuple[str, float]:
        """Return the likeliest of this model's languages and its share among them, prior apart."""
        if not self._tokenizer.multilingual or len(self._languages) == 1:
            return self._languages[0], 1.0
        found = [
            (code, probability)
            for code, probability in self._inference.detect_language(audio_features)
            if code in self._languages
        ]
        total = sum(probability for _, probability in found)
        code, probability = likeliest_language(found, prior)
        return code, probability / total if total else 0.0

    def prompt(self, previous: Sequence[int], language: str, timestamps: bool) -> list[int]:
        """Return previous text behind `<|startofprev|>`, then the start of this transcript."""
        tokens: list[int] = []
        if previous:
            tokens = [self._tokenizer.sot_prev, *previous[-MAX_PREVIOUS_TOKENS:]]
        tokens += self._tokenizer.sot_sequence(language, self._options.task)
        if not timestamps:
            tokens.append(self._tokenizer.no_timestamps)
        return tokens

    def encode_text(self, text: str | None) -> list[int]:
        return self._tokenizer.encode(" " + text.strip()) if text and text.strip() else []

    def text(self, tokens: Sequence[int]) -> str:
        return " ".join(self._tokenizer.decode(tokens).split())

    def segment_text(self, tokens: Sequence[int]) -> str:
        """Return the text with a blank before it, where the model wrote one."""
        begins_with_blank = self._tokenizer.decode(tokens)[:1].isspace()
        return " " * begins_with_blank + self.text(tokens)

    def generate(
        self,
        features: Any,
        prompt: Sequence[int],
        seconds: float,
        first: _Attempt,
        checkpoint: Callable[[], None],
    ) -> _Attempt:
        """Try higher temperatures until a result is good enough; else return the likeliest.

        `first` is what the first temperature gave for the same features and prompt.
        """
        attempts = [first]
        deadline = time.monotonic() + self._options.fallback_seconds
        for temperature in self._options.temperatures[1:]:
            if attempts[-1].good or time.monotonic() > deadline:
                break
            attempts.append(self.attempt(features, prompt, seconds, checkpoint, temperature))
        if attempts[-1].good:
            return attempts[-1]
        varied = [a for a in attempts if not a.repetitive]
        return max(varied or attempts, key=lambda a: a.hypothesis.avg_logprob)

    def attempt(
        self,
        features: Any,
        prompt: Sequence[int],
        seconds: float,
        checkpoint: Callable[[], None],
        temperature: float | None = None,
    ) -> _Attempt:
        """Decode once, at the first temperature unless one is given, and judge the result.

        `seconds` of audio bound its length.
        """
        checkpoint()
        options = self._options
        temperature = options.temperatures[0] if temperature is None else temperature
        budget = min(
            SPARE_TOKENS + round(seconds * TOKENS_PER_SECOND),
            MAX_NEW_TOKENS,
            N_TEXT_CTX - len(prompt),
        )
        hypothesis = self._inference.generate(
            features,
            prompt,
            GenerateOptions(
                beam_size=options.beam_size if temperature == 0 else 1,
                temperature=temperature,
                best_of=options.best_of,
                max_new_tokens=budget,
                suppressed_tokens=self._tokenizer.suppressed_tokens,
                checkpoint=checkpoint,
            ),
        )
        text = self.text(hypothesis.tokens)
        ratio = compression_ratio(text)
        unlikely = hypothesis.avg_logprob < options.logprob_threshold
        return _Attempt(
            hypothesis,
            temperature,
            ratio,
            repetitive=ratio > options.compression_ratio_threshold,
            unlikely=unlikely,
            silent=unlikely and hypothesis.no_speech_prob > options.no_speech_threshold,
            endless=len(hypothesis.tokens) >= budget or loops(hypothesis.tokens),
            doubled=is_doubled(text),
        )

    def gate(self, text: str, avg_logprob: float) -> str | None:
        """Return why `text` is withheld, or None: a guess would switch on the wrong thing."""
        lowest = self._options.min_avg_logprob
        if text and lowest is not None and avg_logprob < lowest:
            return f"avg_logprob {avg_logprob:.2f} is below {lowest:.2f}"
        return None

    def segments(self, tokens: Sequence[int], n_frames: int) -> tuple[list[int], int]:
        """Return the finished segments' tokens and how many frames they account for.

        A pair of timestamps closes a segment. What follows the last pair was cut by the window's
        end and is heard again in the next one, unless the window ends with a single timestamp:
        then nothing was said after it.
        """
        begin = self._tokenizer.timestamp_begin
        stamps = [token >= begin for token in tokens]
        pairs = [i for i in range(1, len(tokens)) if stamps[i] and stamps[i - 1]]
        ends_in_silence = stamps[-2:] == [False, True]
        if not pairs or ends_in_silence:
            return list(tokens), n_frames
        last = pairs[-1]
        position = tokens[last - 1] - begin
        return list(tokens[:last]), min(position * FRAMES_PER_POSITION, n_frames)

    @property
    def wants_segments(self) -> bool:
        return self._options.timestamps

    def align(
        self, features: Any, language: str | None, hypothesis: Hypothesis, n_frames: int
    ) -> Hypothesis:
        """Return the hypothesis with its tokens' positions, of which the first frames are audio."""
        text = [token for token in hypothesis.tokens if token < self._tokenizer.eot]
        if not text:
            return hypothesis
        inference = cast("AligningInference", self._inference)
        prompt = self.prompt((), language or "", timestamps=False)
        n_positions = max(1, n_frames // FRAMES_PER_POSITION)
        positions = inference.align(features, prompt, text, n_positions)
        return dataclasses.replace(hypothesis, positions=positions)

    def words(
        self, hypothesis: Hypothesis, where: slice, language: str | None, window: Array
    ) -> list[Word]:
        """Return the words of a segment, and their times in the window, where they have some."""
        eot = self._tokenizer.eot
        before, text = (
            [token for token in tokens if token < eot]
            for tokens in (hypothesis.tokens[: where.start], hypothesis.tokens[where])
        )
        positions = hypothesis.positions[len(before) : len(before) + len(text) + 1]
        if not positions:
            return []
        written_in = "en" if self._options.task == "translate" else language
        return without_pauses(timed_words(text, positions, self._tokenizer, written_in), window)

    @property
    def wants_words(self) -> bool:
        return self._options.words

    def timed(self, tokens: Sequence[int], seconds: float) -> Iterator[tuple[float, float, slice]]:
        """Yield (start, end, where its tokens are) of each segment, within `seconds` of audio.

        A segment without a closing timestamp, which only a broken-off text has, ends with the
        audio.
        """
        begin = self._tokenizer.timestamp_begin
        first, at = 0, 0.0
        for i, token in enumerate(tokens):
            if token < begin:
                continue
            now = min((token - begin) * SECONDS_PER_TIMESTAMP, seconds)
            if self.text(tokens[first:i]):
                yield at, max(at, now), slice(first, i + 1)
            first, at = i, now
        if self.text(tokens[first:]):
            yield at, seconds, slice(first, len(tokens))


@dataclass(frozen=True)
class _Attempt:
    hypothesis: Hypothesis
    temperature: float
    compression_ratio: float
    repetitive: bool
    unlikely: bool
    silent: bool
    endless: bool
    """No end token came, or the same few tokens came again and again."""
    doubled: bool
    """All of it was written twice, or more often."""

    @property
    def doubtful(self) -> bool:
        """Whether it looks like a window cut too tight."""
        return self.endless or self.doubled or not self.good

    @property
    def good(self) -> bool:
        return self.silent or not (self.repetitive or self.unlikely)


class _Utterance:
    """One call of Decoder.decode: what is carried from window to window."""

    PROMPT_RESET_TEMPERATURE = 0.5  # text found above it would lead the next window astray

    def __init__(
        self,
        decoder: Decoder,
        mel: Array,
        language: str | None,
        language_prior: Mapping[str, float],
        previous_text: str | None,
        stopwatch: Stopwatch,
        checkpoint: Callable[[], None],
        correct: Correct | None,
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
        self._correct = correct
        self._pieces = decoder.pieces(mel)
        # Without segments to make, only to know where the next window starts.
        self._timestamps = decoder.wants_segments or (mel.shape[1] > N_FRAMES and not self._pieces)
        self._texts: list[str] = []
        self._segments: list[Segment] = []
        self._heard: list[Hypothesis] = []
        self._rejected: str | None = None

    def run(self) -> DecodingResult:
        if self._pieces:
            self._hear_pieces()
        else:
            self._hear_windows(0, self._mel.shape[1])
        weights = [len(one.tokens) + 1 for one in self._heard]
        logprobs = [one.avg_logprob for one in self._heard]
        no_speech = [one.no_speech_prob for one in self._heard]
        whole = self._heard[0] if len(self._heard) == 1 else None
        return DecodingResult(
            text=" ".join(text for text in self._texts if text),
            language=self._language,
            language_probability=self._language_probability,
            avg_logprob=float(np.average(logprobs, weights=weights)),
            no_speech_prob=float(np.average(no_speech, weights=weights)),
            n_tokens=sum(len(one.tokens) for one in self._heard),
            heard_logprob=whole.heard_logprob if whole else None,
            noise_logprob=whole.noise_logprob if whole else None,
            rejected=self._rejected,
            segments=tuple(self._segments),
        )

    def _hear_pieces(self) -> None:
        given = self._previous
        for start, end in self._pieces:
            self._previous = given  # a piece begins anywhere: the one before leads it astray
            self._hear_windows(start, end)

    def _hear_windows(self, seek: int, end: int) -> None:
        while seek < end:
            n_frames = min(end - seek, N_FRAMES)
            seek += max(self._window(seek, n_frames), FRAMES_PER_SECOND)  # always ahead

    def _window(self, seek: int, n_frames: int) -> int:
        """Decode `n_frames` from frame `seek` on; return how many of them are done with."""
        decoder = self._decoder
        window = decoder.window(self._mel[:, : seek + n_frames], seek, self._silence)
        attempt = self._attempt(window, n_frames)
        hypothesis = attempt.hypothesis
        tokens, done = decoder.segments(hypothesis.tokens, n_frames)
        self._heard.append(hypothesis)
        if attempt.silent:
            return n_frames
        kept = self._keep(tokens, hypothesis, attempt.temperature)
        if not decoder.wants_segments:
            return done
        if kept:
            self._keep_segments(tokens, attempt, seek, n_frames)
        return done if n_frames - done > REST_FRAMES else n_frames

    def _attempt(self, window: Array, n_frames: int) -> _Attempt:
        """Decode a window, again at its full width where the text is doubtful."""
        decoder, seconds = self._decoder, n_frames / FRAMES_PER_SECOND
        self._checkpoint()
        with self._stopwatch("encode"):
            features = decoder.encode(window)
        if self._language is None:
            with self._stopwatch("detect"):
                self._language, self._language_probability = decoder.detect_language(
                    features, self._language_prior
                )
        prompt = decoder.prompt(self._previous, self._language, self._timestamps)
        with self._stopwatch("decode"):
            attempt = decoder.attempt(features, prompt, seconds, self._checkpoint)
        if attempt.doubtful and decoder.may_widen(window):
            _LOGGER.debug("a window of %d frames gave a doubtful text: widened", window.shape[1])
            return self._attempt(pad_or_trim(window, N_FRAMES, self._silence), n_frames)
        with self._stopwatch("decode"):
            attempt = decoder.generate(features, prompt, seconds, attempt, self._checkpoint)
        only_cuts = self._timestamps and not decoder.wants_segments
        if only_cuts or attempt.silent:
            return attempt
        hypothesis = attempt.hypothesis
        if self._correct is not None:
            hypothesis = self._correct(features, prompt, self._language, hypothesis)
        if decoder.wants_words:
            with self._stopwatch("align"):
                hypothesis = decoder.align(features, self._language, hypothesis, n_frames)
        return dataclasses.replace(attempt, hypothesis=hypothesis)

    def _keep(self, tokens: list[int], hypothesis: Hypothesis, temperature: float) -> bool:
        """Take the text unless the quality gate withholds it; return whether it doesn't."""
        text = self._decoder.text(tokens)
        withheld = self._decoder.gate(text, hypothesis.avg_logprob)
        if withheld:
            self._rejected = withheld
            return False
        self._texts.append(text)
        self._previous = self._previous + tokens
        if temperature > self.PROMPT_RESET_TEMPERATURE:
            self._previous = []
        return True

    def _keep_segments(
        self, tokens: list[int], attempt: _Attempt, seek: int, n_frames: int
    ) -> None:
        offset = seek / FRAMES_PER_SECOND
        heard = self._mel[:, seek : seek + n_frames]
        for start, end, where in self._decoder.timed(tokens, n_frames / FRAMES_PER_SECOND):
            words = self._decoder.words(attempt.hypothesis, where, self._language, heard)
            self._segments.append(
                Segment(
                    start=offset + start,
                    end=offset + end,
                    text=self._decoder.segment_text(tokens[where]),
                    words=tuple(
                        Word(offset + word.start, offset + word.end, word.text) for word in words
                    ),
                    tokens=tuple(tokens[where]),
                    avg_logprob=attempt.hypothesis.avg_logprob,
                    compression_ratio=attempt.compression_ratio,
                    no_speech_prob=attempt.hypothesis.no_speech_prob,
                    temperature=attempt.temperature,
                )
            )


def likeliest_language(
    found: Sequence[tuple[str, float]], prior: Mapping[str, float]
) -> tuple[str, float]:
    """Return (code, probability) of what is likeliest with the prior; the probability without."""
    return max(found, key=lambda item: item[1] * prior.get(item[0], 1.0))


def quiet_pieces(mel: Array, longest: int) -> list[tuple[int, int]]:
    """Return (first, last + 1) frames of pieces that end where it is quietest."""
    loudness = np.convolve(mel.mean(axis=0), np.ones(QUIET_FRAMES) / QUIET_FRAMES, mode="same")
    pieces, start, n_frames = [], 0, mel.shape[1]
    while n_frames - start > longest:
        # Not too early either: a piece of speech is more than a word.
        first = start + longest // 3
        end = first + int(np.argmin(loudness[first : start + longest]))
        pieces.append((start, end))
        start = end
    return [*pieces, (start, n_frames)]


def loops(tokens: Sequence[int], repeats: int = MAX_LOOP_REPEATS) -> bool:
    """Return whether the text ends in the same few tokens over and over."""
    for size in range(1, MAX_LOOP_TOKENS + 1):
        tail = list(tokens[-size * repeats :])
        if len(tail) == size * repeats and tail == tail[:size] * repeats:
            return True
    return False


def is_doubled(text: str) -> bool:
    """Return whether the text is one phrase written over again: what a window cut short often does.

    People do say a thing twice; then the full window says so, too.
    """
    letters = "".join(re.findall(r"\w", text.casefold()))
    return re.fullmatch(r"(.{4,}?)\1+", letters) is not None


def compression_ratio(text: str) -> float:
    """Return how many times smaller zlib makes the text: loops compress well."""
    data = text.encode()
    return len(data) / len(zlib.compress(data))
