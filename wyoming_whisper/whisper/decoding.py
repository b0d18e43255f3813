"""From a mel spectrogram to text: windows, language, prompt, quality checks, fallback.

Knows neither runtime nor protocol: what a backend does is the `Inference` it gets. The rules are
those of openai/whisper's transcribe.py and decoding.py (Radford et al., 2022, section 4.5).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ..transcriber import Transcription, go_on
from .audio import Array
from .inference import Correct, Stopwatch
from .window import WindowDecoder
from .windows import Utterance


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
        utterance = Utterance(
            self, mel, language, prior, previous_text, stopwatch, checkpoint, last_words
        )
        utterance.run()
        return _result(utterance, stopwatch)


def _result(utterance: Utterance, stopwatch: Stopwatch) -> Transcription:
    """Return what was made of an utterance of one window at least."""
    weights = [len(one.tokens) + 1 for one in utterance.heard]
    logprobs = [one.avg_logprob for one in utterance.heard]
    no_speech = [one.no_speech_prob for one in utterance.heard]
    heard_logprob, noise_logprob = utterance.evidence
    is_one = len(utterance.heard) == 1
    return Transcription(
        text=utterance.text,
        language=utterance.language,
        language_probability=utterance.language_probability,
        avg_logprob=float(np.average(logprobs, weights=weights)),
        no_speech_prob=float(np.average(no_speech, weights=weights)),
        n_tokens=sum(len(one.tokens) for one in utterance.heard),
        heard_logprob=heard_logprob,
        noise_logprob=noise_logprob,
        stages=stopwatch.seconds,
        rejected=utterance.rejected,
        segments=tuple(utterance.segments),
        understood=utterance.heard[0].understood if is_one else None,
        free_text=utterance.heard[0].free_text if is_one else None,
    )
