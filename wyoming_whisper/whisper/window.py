"""One window, from mel to tokens: prompt, quality checks, fallback, segments, words."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..text.repetition import compression_ratio, loops, said_once
from ..transcriber import Word
from .audio import FRAMES_PER_POSITION, N_FRAMES, SECONDS_PER_TIMESTAMP, Array, pad_or_trim
from .inference import GenerateOptions, Hypothesis, Inference
from .options import MAX_NEW_TOKENS, N_TEXT_CTX, DecodingOptions
from .timing import timed_words
from .tokenizer import Tokenizer


@dataclass(frozen=True)
class Attempt:
    """What decoding a window once gave, and what speaks against it."""

    hypothesis: Hypothesis
    temperature: float
    text: str
    repetitive: bool
    unlikely: bool
    silent: bool
    endless: bool
    """No end token came, or the same few tokens came again and again."""
    unfinished: bool
    """No end token came where one was due: more was written than can be said in that time."""
    doubled: bool
    """All of it was written twice, or more often."""

    @property
    def doubtful(self) -> bool:
        """Whether it looks like a window cut too tight."""
        return self.endless or self.doubled or not self.good

    @property
    def failed(self) -> bool:
        """Whether it is no answer as it is: it goes round, or never ends."""
        return not self.silent and (self.repetitive or self.unfinished)

    @property
    def has_ended(self) -> bool:
        """Whether nothing speaks against it but that it repeats itself."""
        return not (self.unfinished or self.unlikely)

    @property
    def good(self) -> bool:
        return self.silent or not (self.failed or self.unlikely)


class WindowDecoder:
    """Decodes whole utterances. Holds no state between them."""

    def __init__(
        self,
        inference: Inference,
        tokenizer: Tokenizer,
        languages: Sequence[str],
        options: DecodingOptions,
        *,
        keeps_features: bool = True,
    ) -> None:
        self.keeps_features = keeps_features
        """Whether audio features stay good when others are encoded."""
        self.inference = inference
        self._tokenizer = tokenizer
        self._languages = tuple(languages)
        self.options = options

    def window(self, mel: Array, seek: int, silence: float) -> Array:
        """Return what the encoder sees from frame `seek` on."""
        frames = min(mel.shape[1] - seek, N_FRAMES)
        size = self.options.audio_context.frames(frames)
        return pad_or_trim(mel[:, seek : seek + frames], size, silence)

    def pieces(self, mel: Array) -> list[tuple[int, int]]:
        """Return where to cut long audio; nothing when timestamps are to say."""
        longest = self.options.audio_context.longest
        return _quiet_pieces(mel, longest) if longest < min(N_FRAMES, mel.shape[1]) else []

    @staticmethod
    def quietest(mel: Array) -> int:
        """Return the frame of the quietest moment in the middle third of `mel`."""
        n_frames: int = mel.shape[1]
        middle = _smoothed_loudness(mel)[n_frames // 3 : 2 * n_frames // 3]
        return int(np.argmin(middle)) + n_frames // 3

    @staticmethod
    def token_budget(seconds: float, language: str) -> int:
        """Return how many tokens a text has at most, generously; `language` is Whisper's code.

        Recordings in 16 languages have 3 to 6 tokens a second, 8.6 at most. Nobody says twice as
        much, and a loop ends after a fraction of the decoder's whole context. Of scripts that the
        vocabulary spells, more or less, byte by byte, there are more.
        """
        indic = ("as", "bn", "gu", "hi", "kn", "ml", "mr", "ne", "pa", "sa", "si", "ta", "te")
        others = ("am", "ba", "bo", "hy", "ka", "kk", "km", "lo", "mn", "my", "ps", "sd", "tg")
        is_spelled = language in (*indic, *others, "th", "tt", "ur", "yi")
        return 32 + round(seconds * (40 if is_spelled else 20))

    def detect_language(self, audio_features: Any, prior: Mapping[str, float]) -> tuple[str, float]:
        """Return the likeliest of this model's languages and its share among them, prior apart."""
        if not self._tokenizer.multilingual or len(self._languages) == 1:
            return self._languages[0], 1.0
        detected = [
            (code, probability)
            for code, probability in self.inference.detect_language(audio_features)
            if code in self._languages
        ]
        total = sum(probability for _, probability in detected)
        code, probability = _likeliest_language(detected, prior)
        return code, probability / total if total else 0.0

    def prompt(self, previous: Sequence[int], language: str, timestamps: bool) -> list[int]:
        """Return previous text behind `<|startofprev|>`, then the start of this transcript."""
        tokens: list[int] = []
        if previous:
            tokens = [self._tokenizer.sot_prev, *previous[1 - N_TEXT_CTX // 2 :]]
        tokens += self._tokenizer.sot_sequence(language, self.options.task)
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
        language: str,
        first: Attempt,
        checkpoint: Callable[[], None],
    ) -> Attempt:
        """Try higher temperatures until a result is good enough; else return the likeliest.

        `first` is what the first temperature gave for the same features and prompt.
        """
        attempts = [first]
        deadline = time.monotonic() + self.options.fallback_seconds
        for temperature in self.options.temperatures[1:]:
            if attempts[-1].good or time.monotonic() > deadline:
                break
            attempts.append(
                self.attempt(features, prompt, seconds, language, checkpoint, temperature)
            )
        if attempts[-1].good:
            return attempts[-1]
        varied = [a for a in attempts if not a.failed]
        return max(varied or attempts, key=lambda a: a.hypothesis.avg_logprob)

    def attempt(
        self,
        features: Any,
        prompt: Sequence[int],
        seconds: float,
        language: str,
        checkpoint: Callable[[], None],
        temperature: float | None = None,
    ) -> Attempt:
        """Decode once, at the first temperature unless one is given, and judge the result.

        `seconds` of audio in `language` bound its length.
        """
        checkpoint()
        options = self.options
        temperature = options.temperatures[0] if temperature is None else temperature
        budget = min(
            self.token_budget(seconds, language),
            MAX_NEW_TOKENS,
            N_TEXT_CTX - len(prompt),
        )
        hypothesis = self.inference.generate(
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
        unlikely = hypothesis.avg_logprob < options.logprob_threshold
        is_loop = loops(hypothesis.tokens)
        is_full = len(hypothesis.tokens) >= budget
        # With timestamps, what there was no room for is heard in the next window.
        goes_on = prompt[-1] != self._tokenizer.no_timestamps and not is_loop
        return Attempt(
            hypothesis,
            temperature,
            text,
            repetitive=compression_ratio(text) > options.compression_ratio_threshold,
            unlikely=unlikely,
            silent=unlikely and hypothesis.no_speech_prob > options.no_speech_threshold,
            endless=is_full or is_loop,
            unfinished=is_full and not goes_on,
            doubled=_is_doubled(text),
        )

    def said_once(self, tokens: Sequence[int]) -> list[int]:
        """Return tokens of the same text with every phrase once, between the same timestamps."""
        stamps = [token for token in tokens if token >= self._tokenizer.timestamp_begin]
        text = self.encode_text(said_once(self.text(tokens)))
        return [*stamps[:1], *text, *stamps[1:][-1:]]

    def gate(self, text: str, avg_logprob: float) -> str | None:
        """Return why `text` is withheld, or None: a guess would switch on the wrong thing."""
        lowest = self.options.min_avg_logprob
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

    def align(
        self, features: Any, language: str | None, hypothesis: Hypothesis, n_frames: int
    ) -> Hypothesis:
        """Return the hypothesis with its tokens' positions, of which the first frames are audio."""
        text = [token for token in hypothesis.tokens if token < self._tokenizer.eot]
        if not text:
            return hypothesis
        prompt = self.prompt((), language or "", timestamps=False)
        n_positions = max(1, n_frames // FRAMES_PER_POSITION)
        positions = self.inference.align(features, prompt, text, n_positions)
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
        written_in = "en" if self.options.task == "translate" else language
        return timed_words(text, positions, self._tokenizer, written_in, window)

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


def _likeliest_language(
    detected: Sequence[tuple[str, float]], prior: Mapping[str, float]
) -> tuple[str, float]:
    """Return (code, probability) of what is likeliest with the prior; the probability without."""
    return max(detected, key=lambda item: item[1] * prior.get(item[0], 1.0))


def _smoothed_loudness(mel: Array, pause_frames: int = 20) -> Array:
    """Return the mean loudness around each frame, over as long as a pause lasts at least."""
    kernel = np.ones(pause_frames) / pause_frames
    return np.convolve(mel.mean(axis=0), kernel, mode="same")


def _quiet_pieces(mel: Array, longest: int) -> list[tuple[int, int]]:
    """Return (first, last + 1) frames of pieces that end where it is quietest."""
    loudness = _smoothed_loudness(mel)
    pieces, start, n_frames = [], 0, mel.shape[1]
    while n_frames - start > longest:
        # Not too early either: a piece of speech is more than a word.
        first = start + longest // 3
        end = first + int(np.argmin(loudness[first : start + longest]))
        pieces.append((start, end))
        start = end
    return [*pieces, (start, n_frames)]


def _is_doubled(text: str) -> bool:
    """Return whether the text is one phrase written over again: what a window cut short often does.

    People do say a thing twice; then the full window says so, too.
    """
    letters = "".join(re.findall(r"\w", text.casefold()))
    return re.fullmatch(r"(.{4,}?)\1+", letters) is not None
