"""What all backends do around their runtime: mel, decoding, the answer."""

from __future__ import annotations

import dataclasses
import logging
import math
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import (
    EngineBrokenError,
    NotPossibleError,
    SettingsError,
    TranscribeError,
)
from ..grammar.service import GrammarService
from ..home.index import NameIndex
from ..home.snapper import Snapper
from ..models.folder import ModelFolder
from ..transcriber import SAMPLE_RATE, Samples, TranscribeOptions, Transcription, go_on
from ..whisper.audio import (
    FRAMES_PER_SECOND,
    Array,
    log_mel_spectrogram,
    pad_or_trim,
    silence_level,
    white_noise,
)
from ..whisper.decoding import Decoder
from ..whisper.inference import (
    Correct,
    GenerateOptions,
    Hypothesis,
    Inference,
    Stopwatch,
)
from ..whisper.options import (
    AudioContext,
    DecodingOptions,
)
from ..whisper.tokenizer import LANGUAGES, Tokenizer
from .home_sentences import HomeSentences
from .weighing import Weighing

if TYPE_CHECKING:
    from ..settings.options import Settings

_LOGGER = logging.getLogger(__name__)


class WhisperTranscriber:
    """A Transcriber over any `Inference`: two backends, one behaviour.

    Of the user's --languages one is detected, of all of the model's where there are none. `free` is
    called by `close`, for a runtime whose memory does not go with the last reference.
    `keeps_features` says that audio features stay good when others are encoded. Raises
    ModelBrokenError, and SettingsError where the model understands none of the user's languages.
    """

    # What a command's time is measured with.
    COMMAND_FRAMES = 500
    COMMAND_RUNS = 4  # the first one allocates, and doesn't count
    WARM_UP_TOKENS = 2
    MAX_REQUEST_NAMES = 500  # their index is made while somebody waits: some milliseconds

    def __init__(
        self,
        inference: Inference,
        model: ModelFolder,
        settings: Settings,
        decoding: DecodingOptions,
        description: str,
        free: Callable[[], None] = lambda: None,
        *,
        keeps_features: bool = False,
    ) -> None:
        self.languages = model.languages(settings.model)
        self.description = description
        self._inference = inference
        self._tokenizer = model.tokenizer
        self._free = free
        self._keeps_features = keeps_features
        self._noise_features: Any = None
        self._is_closed = False
        self._detectable = _detectable(settings.languages, self.languages)
        self._decoding = decoding
        self._decoder = self._new_decoder(decoding)

    def transcribe(self, samples: Samples, options: TranscribeOptions) -> Transcription:
        """Return what was said. Raises TranscribeError; see Transcriber."""
        language = self._checked(options.language)
        decoding = self._decoding_for(options)
        decoder = self._decoder_for(samples, decoding)
        stopwatch = Stopwatch()
        corrects = self._corrects(options, stopwatch)
        with stopwatch("mel"):
            mel = log_mel_spectrogram(samples, self._inference.n_mels)
        # Names, then the prompt: what stands last is kept when it gets too long.
        parts = (", ".join(options.names), decoding.initial_prompt or "")
        previous_text = " ".join(filter(None, parts)) or None
        try:
            result = decoder.decode(
                mel,
                language,
                previous_text,
                stopwatch,
                options.checkpoint,
                corrects,
                options.language_prior,
                self._weigh(options, stopwatch),
            )
        except RuntimeError as error:
            raise TranscribeError(f"the model failed on this audio: {error}") from error
        if result.rejected:
            _LOGGER.debug("withheld %r: %s", result.text, result.rejected)
        return dataclasses.replace(result, seconds=len(samples) / SAMPLE_RATE)

    def warm_up(self) -> None:
        """Touch every part once: the first speaker should not pay for lazy initialisation.

        What is heard is the noise that texts are weighed with, which is kept where it can be.
        """
        audio_features = self._noise()
        prompt = [*self._tokenizer.sot_sequence("en"), self._tokenizer.no_timestamps]
        beam_size = self._decoding.beam_size
        brief = GenerateOptions(beam_size, 0.0, 1, self.WARM_UP_TOKENS, (self._tokenizer.eot,))
        hypothesis = self._inference.generate(audio_features, prompt, brief)
        self._weighing(go_on)(audio_features, prompt, "en", hypothesis)

    def try_out(self, folder: Path) -> None:
        """Transcribe noise: what loads may still compute nonsense, such as no numbers.

        `folder` is that of its engine. Raises EngineBrokenError.
        """
        text = self.transcribe(white_noise(SAMPLE_RATE), TranscribeOptions(self.languages[0]))
        if not (math.isfinite(text.avg_logprob) and 0 <= text.no_speech_prob <= 1):
            raise EngineBrokenError(f"the engine in {folder} computes nonsense")

    def command_seconds(self) -> float:
        """Return the time that a command of usual length takes, in the window that it gets."""
        frames = self._decoding.audio_context.frames(self.COMMAND_FRAMES)
        return self.time_command(self._inference, self._tokenizer, self._decoding.beam_size, frames)

    @staticmethod
    def time_command(
        inference: Inference,
        tokenizer: Tokenizer,
        beam_size: int,
        n_frames: int,
        n_tokens: int = 10,
    ) -> float:
        """Return the time for a window of noise and the tokens of a command, which don't end."""
        # As good as noise; to import numpy's takes longer.
        noise = np.sin(np.square(np.arange(inference.n_mels * n_frames, dtype=np.float64)))
        noise = noise.reshape(inference.n_mels, n_frames)
        prompt = [*tokenizer.sot_sequence("en"), tokenizer.no_timestamps]
        endless = GenerateOptions(beam_size, 0.0, 1, n_tokens, (tokenizer.eot,))
        start = time.perf_counter()
        inference.generate(inference.encode(noise.astype(np.float32)), prompt, endless)
        return time.perf_counter() - start

    @staticmethod
    def decoding_options(
        settings: Settings, folder: ModelFolder, beam_size: int
    ) -> DecodingOptions:
        """Return what the user set, and what the model says of itself.

        Raises ModelBrokenError.
        """
        facts = folder.facts
        return DecodingOptions(
            task="translate" if settings.whisper_task == "translate" else "transcribe",
            initial_prompt=settings.initial_prompt,
            beam_size=beam_size,
            min_avg_logprob=facts.min_avg_logprob,
            audio_context=_choose_audio_context(settings.audio_context, trained=facts.tight_window),
        )

    @staticmethod
    def choose_beam_size(beam_size: int) -> int:
        """Return the beam on a CPU: what the user set, or for 0 what suits the processor.

        Beam search costs a slow core more than it gains on a short command.
        """
        is_arm = platform.machine().lower().startswith(("arm", "aarch64"))
        return beam_size or (1 if is_arm else 5)

    def close(self) -> None:
        """Drop the model; its memory goes with the last reference. Again, it does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        del self._decoder, self._inference, self._noise_features
        self._free()

    def _checked(self, language: str | None) -> str | None:
        if language is None or language in self.languages:
            return language
        raise NotPossibleError(
            f"this model does not understand {LANGUAGES.get(language, language)!r}; "
            f"it understands {', '.join(self.languages)}",
            "unknown-language",
        )

    def _decoder_for(self, _: Samples, decoding: DecodingOptions) -> Decoder:
        """Return what decodes these samples, whose spectrogram it will get."""
        if decoding == self._decoding:
            return self._decoder
        return self._new_decoder(decoding)

    def _new_decoder(self, decoding: DecodingOptions) -> Decoder:
        return Decoder(
            self._inference,
            self._tokenizer,
            self._detectable,
            decoding,
            keeps_features=self._keeps_features,
        )

    def _decoding_for(self, options: TranscribeOptions) -> DecodingOptions:
        """Return what the user set, and this request sets otherwise.

        Raises NotPossibleError.
        """
        decoding = self._decoding
        if options.task == "translate" and self.languages == ("en",):
            about = "this model knows English alone: it has nothing to translate"
            raise NotPossibleError(about, "unknown-task")
        if options.words and not self._inference.can_align:
            raise NotPossibleError(
                "times of words are not possible on this backend: --backend faster-whisper and "
                "onnxruntime have them",
                "no-word-times",
            )
        return dataclasses.replace(
            decoding,
            task=options.task or decoding.task,
            initial_prompt=decoding.initial_prompt if options.prompt is None else options.prompt,
            temperatures=(options.temperature,) if options.temperature else decoding.temperatures,
            timestamps=options.timestamps,
            words=options.words,
        )

    def _as_without_timestamps(
        self, audio_features: Any, prompt: Sequence[int], _: str, hypothesis: Hypothesis
    ) -> Hypothesis:
        """Return the hypothesis with the avg_logprob of its text alone (a Correct).

        Where a word begins is never certain: with timestamps the mean is much lower, and the
        quality gate was measured without them.
        """
        tokens = [token for token in hypothesis.tokens if token < self._tokenizer.eot]
        if not tokens or self._decoding.min_avg_logprob is None:
            return hypothesis
        without = [*prompt, self._tokenizer.no_timestamps]
        logprobs = self._inference.score(audio_features, without, [tokens])[0]
        return dataclasses.replace(hypothesis, avg_logprob=float(np.mean(logprobs)))

    def _weigh(self, options: TranscribeOptions, stopwatch: Stopwatch) -> Correct | None:
        """Return what finds the evidence of each window's text."""
        return _timed(self._weighing(options.checkpoint), stopwatch, "evidence")

    def _weighing(self, checkpoint: Callable[[], None]) -> Weighing:
        beam_size = self._decoding.beam_size
        return Weighing(self._inference, self._tokenizer, self._noise, beam_size, checkpoint)

    def _corrects(self, options: TranscribeOptions, stopwatch: Stopwatch) -> list[Correct]:
        """Return what compares texts with the home's sentences and names, if there are any."""
        if options.timestamps:
            return [_timed(self._as_without_timestamps, stopwatch, "names")]
        if (options.task or self._decoding.task) == "translate":
            return []
        home = options.home
        if home is None:
            return []
        steps = (
            ("grammar", self._home_sentences(home.grammars, options)),
            ("names", self._snapper(home.names, options)),
        )
        return [_timed(step, stopwatch, stage) for stage, step in steps if step]

    def _snapper(self, names: NameIndex, options: TranscribeOptions) -> Correct | None:
        indexes = [NameIndex(options.names[: self.MAX_REQUEST_NAMES]), names]
        filled = [index for index in indexes if len(index)]
        if not filled:
            return None
        return Snapper(self._inference, self._tokenizer, filled, self._noise, options.checkpoint)

    def _home_sentences(
        self, grammars: GrammarService | None, options: TranscribeOptions
    ) -> Correct | None:
        if grammars is None:
            return None
        return HomeSentences(
            self._inference,
            self._tokenizer,
            lambda language: grammars.current(language, self._tokenizer.spelled),
            options.checkpoint,
        )

    def _noise(self) -> Any:
        """Return audio features that say nothing, for how likely a name is anyway."""
        if self._noise_features is None or not self._keeps_features:
            n_mels = self._inference.n_mels
            self._noise_features = self._inference.encode(_noise_mel(n_mels, self._decoding))
        return self._noise_features


def _timed(correct: Correct, stopwatch: Stopwatch, stage: str) -> Correct:
    """Return what does the same, its time measured."""

    def measured(
        audio_features: Any, prompt: Sequence[int], language: str, hypothesis: Hypothesis
    ) -> Hypothesis:
        with stopwatch(stage):
            return correct(audio_features, prompt, language, hypothesis)

    return measured


def _noise_mel(n_mels: int, decoding: DecodingOptions) -> Array:
    """Return a window of white noise, shape = (n_mels, n_frames); always the same."""
    mel = log_mel_spectrogram(white_noise(2 * SAMPLE_RATE), n_mels)
    return pad_or_trim(mel, decoding.audio_context.frames(mel.shape[1]), silence_level(mel))


def _detectable(chosen: tuple[str, ...], languages: tuple[str, ...]) -> tuple[str, ...]:
    """Return the languages to choose from when one has to be detected."""
    if not chosen:
        return languages
    both = tuple(code for code in languages if code in chosen)
    if not both:
        raise SettingsError(
            f"--languages {','.join(chosen)}: this model understands none of them, "
            f"only {', '.join(languages)}"
        )
    return both


def _choose_audio_context(window: str, *, trained: bool) -> AudioContext:
    """Return the window for `auto`, `full`, or a number of seconds that it has at least."""
    if window == "full":
        return AudioContext()
    context = AudioContext.trained() if trained else AudioContext.safe()
    if window == "auto":
        return context
    return dataclasses.replace(context, minimum=round(float(window) * FRAMES_PER_SECOND))
