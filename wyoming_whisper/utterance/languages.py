"""Which languages this household has lately been heard to speak, for when detection is unsure.

Counts of sure detections that fade, kept in memory alone: no texts, no speakers, nothing on disk.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping

from ..transcriber import TranscribeOptions, Transcription


class DetectedLanguage:
    """The language of long speech, by those that were detected in its pieces."""

    SETTLED_SECONDS = 10.0
    """Of voices: after so much the language stays what is most likely by then."""

    def __init__(self, pieces: Iterable[tuple[Transcription, float]] = ()) -> None:
        self._pieces = [(piece, seconds) for piece, seconds in pieces if piece.text]

    def add(self, piece: Transcription, voiced_seconds: float) -> None:
        """Take in the next piece, in which there is a voice for so many seconds."""
        if piece.text:
            self._pieces.append((piece, voiced_seconds))

    @property
    def settled(self) -> str | None:
        """None while it has to be detected again.

        A piece may be no more than a word, whose language is easily mistaken, and whatever follows
        would be written in it.
        """
        sure = SpokenLanguages.SURE_PROBABILITY
        is_sure = any(piece.language_probability >= sure for piece, _ in self._pieces)
        n_seconds = sum(seconds for _, seconds in self._pieces)
        return self.likeliest if is_sure or n_seconds >= self.SETTLED_SECONDS else None

    @property
    def likeliest(self) -> str | None:
        """The language that most of the speech is likely in; None where there is no text."""
        shares: dict[str, float] = {}
        for piece, seconds in self._pieces:
            if piece.language is not None:
                share = piece.language_probability * seconds
                shares[piece.language] = shares.get(piece.language, 0.0) + share
        return max(shares, key=shares.__getitem__, default=None)


class SpokenLanguages:
    """What was spoken lately. Belongs to the event loop.

    An utterance takes the prior when it begins and keeps it, so that its transcription is the
    same whenever it is made; only what the client is given as the answer is noted.
    """

    SURE_PROBABILITY = 0.9
    """Of a detection that is remembered. Unsure ones are not: they would confirm themselves."""

    MAX_ODDS = 9.0
    """How many times likelier a language gets at most: one whose share is above 0.9 always wins."""

    # The last ten detections or so count, of the last half day or so.
    FADE = 0.9
    HALF_LIFE_SECONDS = 6 * 3600.0

    def __init__(self, enabled: bool = True, clock: Callable[[], float] = time.monotonic) -> None:
        self._enabled = enabled
        self._clock = clock
        self._counts: dict[str, float] = {}
        self._faded = clock()

    def prior(self) -> Mapping[str, float]:
        """Return how many times likelier than others languages are, 1..MAX_ODDS."""
        self._fade()
        return {code: min(1 + count, self.MAX_ODDS) for code, count in self._counts.items()}

    def remembered(self, options: TranscribeOptions) -> TranscribeOptions:
        """Return what an utterance is begun with: with the prior, where its language is asked."""
        if options.language is not None:
            return options
        return dataclasses.replace(options, language_prior=self.prior())

    def note(self, answer: Transcription) -> None:
        """Remember the language of an answer whose language was detected, if that was sure."""
        if not self._enabled or answer.language is None or not answer.text:
            return
        if answer.language_probability < self.SURE_PROBABILITY:
            return
        self._fade()
        counts = {code: self.FADE * count for code, count in self._counts.items()}
        counts[answer.language] = counts.get(answer.language, 0.0) + 1
        self._counts = {code: count for code, count in counts.items() if count > 0.01}

    def _fade(self) -> None:
        now = self._clock()
        share = 0.5 ** ((now - self._faded) / self.HALF_LIFE_SECONDS)
        self._counts = {code: share * count for code, count in self._counts.items()}
        self._faded = now
