"""Long utterances, transcribed piece by piece while they are spoken.

Nothing of a command, which is shorter than a piece. Of dictation one piece after the other goes to
the model, as each is told the language of the first; so one speaker has one place in the queue.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from ..errors import WyomingWhisperError
from ..text.evidence import Voicing
from ..text.scripts import joined
from ..text.style import TextStyle
from ..transcriber import Samples, TranscribeOptions, Transcription
from .job import Job, Priority, Submit
from .languages import DetectedLanguage

_LOGGER = logging.getLogger(__name__)


@dataclass
class _Piece:
    """Speech that is transcribed at once, and the work on it where that has begun."""

    samples: Samples
    voicing: Voicing
    n_held: int
    """Samples of the utterance that are held for it, with the silence around the speech."""
    job: Job | None = None


_Part = tuple[Transcription, Voicing]
"""What was said in a piece, as the model wrote it, and the evidence of a voice in it."""


class Dictation:
    """The pieces of one utterance, in order. Belongs to the event loop."""

    def __init__(self, submit: Submit, options: TranscribeOptions) -> None:
        self._submit = submit
        self._asked = self.options = options
        """What pieces are transcribed with from now on."""
        self._waiting: deque[_Piece] = deque()
        self._is_refused = False  # not asked again before there is more to do
        self._text, self._n_in_text = "", 0
        self._parts: list[_Part] = []

    @property
    def is_done(self) -> bool:
        """Whether every piece that there is has been transcribed."""
        return not self._waiting

    @property
    def has_text(self) -> bool:
        """Whether any piece has been transcribed: `transcription` can be asked for."""
        return bool(self._parts)

    @property
    def has_begun(self) -> bool:
        """Whether anything was transcribed here, or is."""
        return bool(self._parts) or any(piece.job for piece in self._waiting)

    @property
    def n_held(self) -> int:
        """Samples of the utterance that are held for pieces that are not done."""
        return sum(piece.n_held for piece in self._waiting)

    @property
    def n_pieces(self) -> int:
        """How many there are, with the one that has not ended yet."""
        return len(self._parts) + len(self._waiting) + 1

    @property
    def is_empty(self) -> bool:
        """Whether there was no piece: what is said may be a command."""
        return not (self._parts or self._waiting)

    def add(self, samples: Samples, voicing: Voicing, n_held: int, job: Job | None = None) -> None:
        """Add the next piece, for which `n_held` samples of the utterance are held.

        `job` transcribes it with `options`, where that has begun.
        """
        self._waiting.append(_Piece(samples, voicing, n_held, job))
        self._is_refused = False

    def ask(self, options: TranscribeOptions) -> None:
        """Take other options for all that has not been transcribed yet."""
        self.drop()
        self._asked = self.options = options
        self._settle_language()

    def follow(self) -> None:
        """Take in what was transcribed meanwhile, and begin with the next piece."""
        while self._waiting:
            piece = self._waiting[0]
            if piece.job is None and not self._is_refused:
                try:
                    piece.job = self._submit(piece.samples, self.options, Priority.EARLY)
                except WyomingWhisperError as error:  # who waits is told, if it is still so
                    _LOGGER.debug("no piece is begun: %s", error)
                    self._is_refused = True
            if piece.job is None or not piece.job.future.done():
                return
            transcription = piece.job.transcription
            if transcription is None:
                piece.job = None  # once more when it is waited for
                self._is_refused = True
                return
            self._take(transcription)

    async def finish(self, result: Callable[[Job], Awaitable[Transcription]]) -> None:
        """Have all pieces transcribed; `result` waits for a job. Raises WyomingWhisperError."""
        self.follow()
        while self._waiting:
            piece = self._waiting[0]
            if piece.job is None:
                piece.job = self._submit(piece.samples, self.options, Priority.COMMAND)
            piece.job.promote()
            self._take(await result(piece.job))

    def add_rest(self, transcription: Transcription, voicing: Voicing) -> None:
        self._parts.append((transcription, voicing))

    def transcription(self) -> Transcription:
        """Return what was said, as far as it is transcribed, with its marks."""
        return _together(self._parts)

    def voicing(self, rest: Voicing) -> Voicing:
        """Return the voicing of the whole utterance, `rest` being that of what is in no piece."""
        pieces = [*(voicing for _, voicing in self._parts), *(one.voicing for one in self._waiting)]
        every = [*pieces, rest]
        return Voicing(
            sum(one.voiced_seconds for one in every), sum(one.clear_frames for one in every)
        )

    def text(self, style: TextStyle) -> str:
        """Return what was said in the pieces that are done, with its marks."""
        if len(self._parts) > self._n_in_text:  # asked for with every chunk
            with_marks = dataclasses.replace(style, strip_punctuation=False)
            self._text = with_marks.styled(_together(self._parts)).text
            self._n_in_text = len(self._parts)
        return self._text

    def drop(self) -> None:
        for piece in self._waiting:
            if piece.job:
                piece.job.cancel()
                piece.job = None

    def _take(self, transcription: Transcription) -> None:
        piece = self._waiting.popleft()
        self._parts.append((transcription, piece.voicing))
        self._settle_language()

    def _settle_language(self) -> None:
        """Where it is detected: once that is settled, the rest is in the same."""
        if self._asked.language is None:
            language = _language(self._parts).settled
            self.options = dataclasses.replace(self._asked, language=language)


def _language(parts: Sequence[_Part]) -> DetectedLanguage:
    return DetectedLanguage((part, voicing.voiced_seconds) for part, voicing in parts)


def _together(parts: Sequence[_Part]) -> Transcription:
    """Return one or more parts as one transcription: the text as it was written, with its marks.

    Each part is judged here by its own audio, and the whole never again: what is said in one part
    after the other is no loop. It is worded once, by who gives it to the client (TextStyle.styled).
    """
    said = [voicing.judged(part) for part, voicing in parts]
    if len(said) == 1:
        return said[0]
    texts = [one for one in said if one.text]
    if not texts:
        return next((one for one in said if one.rejected), said[-1])
    language = _language(parts).likeliest
    in_it = next((one for one in texts if one.language == language), texts[0])
    n_tokens = sum(one.n_tokens for one in texts)
    logprob = sum(one.avg_logprob * one.n_tokens for one in texts) / max(n_tokens, 1)
    stages: dict[str, float] = {}
    for part, _ in parts:
        for name, seconds in part.stages.items():
            stages[name] = stages.get(name, 0.0) + seconds
    return dataclasses.replace(
        in_it,
        text=joined(" ".join(one.text.split()) for one in texts),
        avg_logprob=logprob,
        no_speech_prob=max(one.no_speech_prob for one in texts),
        n_tokens=n_tokens,
        heard_logprob=None,
        noise_logprob=None,
        stages=stages,
    )
