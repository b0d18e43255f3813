"""Live text: what is certain of an utterance while it is still being spoken.

What was heard so far is transcribed again and again. Only the beginning on which successive
transcriptions agree is given out, each made of more speech than the one before, and what was given
out is never taken back: LocalAgreement-n of Liu, Spanakis and Niehues, "Low-Latency
Sequence-to-Sequence Speech Recognition and Translation by Partial Hypothesis Selection"
(Interspeech 2020, arXiv:2005.11185), with Whisper as in Macháček, Dabre and Bojar, "Turning Whisper
into Real-Time Transcription System" (whisper_streaming, 2023, arXiv:2307.14743).

All of it is spare work, which is done when the model has nothing else to do. The final text owes it
nothing: it is made of the whole utterance, as without live text.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..audio.speech import Speech
from ..audio.vad import FRAME_SAMPLES
from ..errors import WyomingWhisperError
from ..text.evidence import Voicing
from ..text.scripts import MARKS, QUOTES, UNPARTED, joined
from ..text.style import TextStyle
from ..transcriber import SAMPLE_RATE, TranscribeOptions
from .job import Job, Priority, Submit

# -- texts ---------------------------------------------------------------------------------


def _units(text: str) -> list[str]:
    """Return the words of a text, each with the blanks and marks between it and the one before.

    Joined they are the text, but for marks at its end: only the next word tells which stay there.
    """
    words: list[str] = []
    between = ""
    # Where words are not parted, each letter is taken for one.
    for piece in re.findall(rf"\s*(?:[{UNPARTED}]|[^\s{UNPARTED}]+)", text):
        word = piece.rstrip(MARKS + QUOTES)
        if word.strip():
            words.append(between + word)
            between = piece[len(word) :]
        else:
            between += piece
    return words


def _folded(unit: str) -> str:
    """Return what is compared: a word without the marks around it, and without capitals."""
    return unit.strip(MARKS + QUOTES + "\"'- \t").casefold()


def _agreed(texts: Sequence[Sequence[str]]) -> list[str]:
    """Return the units that all texts begin with, as the last one has them."""
    beginning: list[str] = []
    for alike in zip(*texts, strict=False):
        if len({_folded(unit) for unit in alike}) > 1:
            break
        beginning.append(alike[-1])
    return beginning


def _overlap(sent: Sequence[str], words: Sequence[str], max_aligned: int = 100) -> int:
    """Return how many of `words` are those that were sent, rightly or not.

    That is the beginning with the least edit distance to what was sent; of equals one that ends
    with the same word, then the one nearest in length: a word that was misheard is followed by what
    follows the right one. If more than `max_aligned` words were sent after one that turned out to
    be wrong, they are only counted: aligning takes the time of both numbers multiplied.
    """
    was, now = [_folded(unit) for unit in sent], [_folded(unit) for unit in words]
    same = 0
    while same < min(len(was), len(now)) and was[same] == now[same]:
        same += 1
    was, now = was[same:], now[same : len(was) + max_aligned]
    if not was or len(was) > max_aligned:
        return min(same + len(was), len(words))
    n_letters, distances = len("".join(was)), _edit_distances(was, now)

    def unlikeness(n: int) -> tuple[int, bool, int]:
        return distances[n], now[n - 1 : n] != was[-1:], abs(n_letters - len("".join(now[:n])))

    return same + min(range(len(now) + 1), key=unlikeness)


def _edit_distances(source: Sequence[str], target: Sequence[str]) -> list[int]:
    """Return the edit distances from `source` to the beginnings of `target`, shortest first."""
    distances = list(range(len(target) + 1))
    for row, was in enumerate(source, 1):
        diagonal, distances[0] = distances[0], row
        for column, now in enumerate(target, 1):
            changed = diagonal + (was != now)
            diagonal = distances[column]
            distances[column] = min(changed, diagonal + 1, distances[column - 1] + 1)
    return distances


class _Agreement:
    """What `n` successive transcriptions of one utterance agree on; grows, and never changes.

    With n = 3 hardly less that is sent is wrong (1.4 % instead of 1.9 % with stock base), and a
    quarter fewer words come before the end of speech, half a second later; with 1 a quarter is
    wrong (docs/benchmarks.md, Live text).
    """

    def __init__(self, n: int = 2) -> None:
        self._last: deque[list[str]] = deque(maxlen=n)
        self._agreed: list[str] = []
        self._n_taken = 0

    def add(self, text: str) -> None:
        """Take in what the next transcription says, which is of more speech than the last one."""
        self._last.append(_units(text))
        if len(self._last) == self._last.maxlen:
            beginning = _agreed(self._last)
            self._agreed += beginning[_overlap(self._agreed, beginning) :]

    def take(self) -> str:
        """Return what is agreed on since this was last called."""
        new = "".join(self._agreed[self._n_taken :])
        self._n_taken = len(self._agreed)
        return new

    def rest(self, text: str) -> str:
        """Return what of the final text follows what was taken.

        All that was taken and this are the final text, with other marks and capitals at most, where
        nothing that was taken contradicts it. Where something does, it stays as it was, and what
        follows it in the final text is returned.
        """
        taken, words = self._agreed[: self._n_taken], _units(text)
        return text[len("".join(words[: _overlap(taken, words)])) :]


# -- time ----------------------------------------------------------------------------------


class _Pace:
    """When an utterance may be transcribed again: times on any clock, lengths in seconds."""

    # So much new speech is worth another transcription: about a word. Twice as often costs a third
    # more, and errors at the end of what was heard are agreed on twice as often.
    STEP_SECONDS = 0.25

    # And so much of all that was heard: then all transcriptions of an utterance together are of at
    # most 1 / GROWTH times its length, however long it gets.
    GROWTH = 0.125

    # The model rests for as long as it took, so that live text takes half of its time at most.
    REST = 1.0

    def __init__(self) -> None:
        self._voiced = 0.0
        self._began = self._free = float("-inf")

    def allows(self, now: float, voiced: float, seconds: float) -> bool:
        """Whether it may: `voiced` is how much speech was heard, in `seconds` of audio."""
        return now >= self._free and voiced - self._voiced >= max(
            self.STEP_SECONDS, self.GROWTH * seconds
        )

    def begin(self, now: float, voiced: float) -> None:
        self._began, self._voiced = now, voiced

    def end(self, now: float) -> None:
        self._free = now + self.REST * (now - self._began)


# -- one utterance -------------------------------------------------------------------------


@dataclass(frozen=True)
class _Work:
    """A transcription under way, and where speech stood when it was begun."""

    job: Job
    end: int
    """Samples of the utterance, up to the end of what is transcribed."""
    voicing: Voicing
    before: str
    """What was said before what is transcribed."""


class LiveText:
    """Follows one utterance: what of it can be shown by now. Used by one task at a time.

    At most one transcription of its own is under way. Those that were begun because speech has
    paused count too: they cost nothing more.
    """

    def __init__(
        self,
        submit: Submit,
        options: TranscribeOptions,
        style: TextStyle,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._submit = submit
        self._options = options
        self._style = style
        self._clock = clock
        self._agreement = _Agreement()
        self._pace = _Pace()
        self._own: _Work | None = None
        self._early: _Work | None = None
        self._end = 0  # of the audio that was last taken in
        self.before = ""
        """Of dictation, the text of the pieces that are done: what is followed is the rest."""
        self.started = False
        """Whether the client has been told that a transcript begins."""

    def follow(self, speech: Speech, early: Job | None = None) -> None:
        """Take in what was transcribed meanwhile, and begin again where it is time.

        `early` is the work that was begun because speech has paused.
        """
        self._collect()
        if early is not None and (self._early is None or self._early.job is not early):
            end = round(speech.seconds * SAMPLE_RATE)
            self._early = _Work(early, end, speech.voicing, self.before)
        if self._own is None and _is_speaking(speech):
            self._transcribe(speech)

    def take(self) -> str:
        """Return the text that has become certain since this was last called."""
        return self._agreement.take()

    def rest(self, text: str) -> str:
        """Return what of the final text is to follow what was taken."""
        return self._agreement.rest(text)

    def drop(self) -> None:
        """End what is under way: nobody waits for it any more."""
        if self._own is not None:
            self._own.job.cancel()
        self._own = self._early = None

    def _transcribe(self, speech: Speech) -> None:
        now, voiced = self._clock(), speech.voiced_seconds
        if not self._pace.allows(now, voiced, speech.n_kept / SAMPLE_RATE):
            return
        spans = speech.spans()
        if not spans:
            return
        try:
            job = self._submit(speech.cut(spans), self._options, Priority.SPARE)
        except WyomingWhisperError:  # there is other work, or no model
            return
        self._own = _Work(job, spans[-1][1], speech.voicing, self.before)
        self._pace.begin(now, voiced)

    def _collect(self) -> None:
        if self._own is not None and self._own.job.future.done():
            self._pace.end(self._clock())
            own, self._own = self._own, None
            self._add(own)
        if self._early is not None and self._early.job.future.done():
            self._add(self._early)

    def _add(self, work: _Work) -> None:
        """Take in a transcription, unless it failed, was withheld, or is of no more audio."""
        transcription = work.job.transcription
        if work.end <= self._end or transcription is None:
            return
        self._end = work.end
        said = self._style.finished(transcription, work.voicing)
        is_rejected = said.rejected and not said.text
        if not is_rejected and self._style.is_begun(said.text, said.language):
            self._agreement.add(joined((work.before, said.text)))


def _is_speaking(speech: Speech) -> bool:
    # Later than this after the last voiced frame nothing is begun: speech may be over, and the
    # model is to be free for what then counts.
    speaking_seconds = 0.1
    since = speech.seconds - (speech.last_voiced + 1) * FRAME_SAMPLES / SAMPLE_RATE
    return speech.last_voiced >= 0 and since <= speaking_seconds
