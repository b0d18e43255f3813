"""When a spoken command has ended, if this server is to decide it. The policy alone.

Its clock is the audio: the same audio and the same drafts give the same end, however fast they
come. A draft is what early work made of the speech so far (`utterance.py`); `auto` reads from it
whether the command sounds finished, and waits for as long as that makes worth while.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

from ..errors import SettingsError
from ..languages.words import language_words
from ..transcriber import Transcription

if TYPE_CHECKING:
    from ..audio.speech import Speech
    from ..settings.options import Settings

End = Literal["pause", "no speech", "too long"]
"""Why a command is over: its speaker has paused, nobody has spoken, it has to end some time."""

Ending = Literal["complete", "unsure", "dangling"]
"""How a text ends: as a command does, so that nobody knows, where no sentence ends."""


class Endpointer:
    """Follows one command, and tells its end once."""

    # How long `auto` waits in silence. Of 120 orders spoken to a coffee machine the first of these
    # cuts off one, the second none; people who read sentences pause longer. The third is what it
    # may cost to let people look for a word (docs/benchmarks.md, End of speech).
    COMPLETE_SECONDS = 0.35
    UNSURE_SECONDS = 0.7
    DANGLING_SECONDS = 1.5
    AUTO_SECONDS: Mapping[Ending, float] = {
        "complete": COMPLETE_SECONDS,
        "unsure": UNSURE_SECONDS,
        "dangling": DANGLING_SECONDS,
    }

    SENSITIVITIES: Mapping[str, float] = {
        "aggressive": 0.25 / 0.7,
        "default": 1.0,
        "relaxed": 1.25 / 0.7,
    }
    """What a request's vad_sensitivity makes of all waits. The ratios are those of Home Assistant's
    own settings (0.25, 0.7, 1.25 s), and so is the shortest wait of all."""

    # Less speech than this is hardly a command: the end of the wake word, a cough, a short "no". It
    # ends, but never sooner than a hesitation does.
    MIN_SPEECH_SECONDS = 0.3

    # Who paused once and went on will pause again for about as long.
    HESITATION_FACTOR = 1.5
    MIN_PAUSE_SECONDS = 0.2  # shorter ones are within words
    MIN_WAIT_SECONDS = 0.25

    def __init__(self, settings: Settings, sensitivity: str = "default") -> None:
        is_auto = settings.endpointing == "auto"
        self._seconds = None if is_auto else float(settings.endpointing)
        self._no_speech_seconds = settings.no_speech_timeout
        self._max_command_seconds = settings.max_command_seconds  # a television does not pause
        self._factor = self.SENSITIVITIES[sensitivity]
        self._began: float | None = None  # where speech began
        self._voiced = 0.0  # seconds, when it was last looked at
        self._pause = 0.0  # the longest silence since then
        self._longest_pause = 0.0  # after which speech went on
        self._draft: Transcription | None = None
        self._previous = ""  # the draft of before the last pause

    @classmethod
    def of(cls, settings: Settings, sensitivity: str = "default") -> Endpointer | None:
        """Return what ends a command; None leaves it to the client. Raises SettingsError."""
        if settings.endpointing != "off":
            return cls(settings, sensitivity)
        if not settings.requires_external_vad:
            raise SettingsError(
                "--no-requires-external-vad needs --endpointing: nobody would end a command"
            )
        return None

    def set_sensitivity(self, sensitivity: str) -> None:
        """Take another of SENSITIVITIES from now on."""
        self._factor = self.SENSITIVITIES[sensitivity]

    def hear(self, speech: Speech, draft: Transcription | None) -> End | None:
        """Return why the command has ended, None as long as it has not.

        To be called whenever more was heard; `draft` is of all the speech there is, or None.
        """
        if not speech.is_spoken:
            late = speech.seconds >= self._no_speech_seconds
            return "no speech" if late else None
        if self._began is None:
            self._began = speech.seconds - speech.voiced_seconds
        if speech.voiced_seconds > self._voiced:  # not for mere noise
            self._go_on()
        self._voiced, self._draft = speech.voiced_seconds, draft
        self._pause = max(self._pause, speech.silence_seconds)
        if speech.silence_seconds >= self._wait_seconds():
            return "pause"
        if speech.seconds - self._began >= self._max_command_seconds:
            return "too long"
        return None

    def _wait_seconds(self) -> float:
        """Return how much silence ends the command, by what is known now."""
        seconds = self._seconds
        if seconds is None:
            ending = _ending(self._draft, self._previous) if self._draft else "unsure"
            hesitation = min(self.HESITATION_FACTOR * self._longest_pause, self.DANGLING_SECONDS)
            seconds = max(self.AUTO_SECONDS[ending], hesitation)
        if self._voiced < self.MIN_SPEECH_SECONDS:
            seconds = max(seconds, self.DANGLING_SECONDS)
        return max(seconds * self._factor, min(seconds, self.MIN_WAIT_SECONDS))

    def _go_on(self) -> None:
        """Speech has resumed."""
        if self._pause >= self.MIN_PAUSE_SECONDS:
            self._longest_pause = max(self._longest_pause, self._pause)
        self._pause = 0.0
        if self._draft is not None:
            self._previous = self._draft.text


# -- how a text ends -----------------------------------------------------------------------


@dataclass(frozen=True)
class _EndingRules:
    """What tells a finished command from a beginning of one, in one language; casefolded words.

    Particles that close a command ("turn it on", "mach das Licht aus") are not among `dangling`,
    and neither is whatever may end one now and then.
    """

    dangling: frozenset[str]
    """No command ends with these: articles, prepositions, what people say while they think."""

    open_ended: frozenset[str]
    """After these often comes one more word, as a unit does after a number."""

    suffixes: tuple[str, ...]
    """No command ends with a word that ends with one of these."""

    lead_ins: frozenset[str]
    """What may come before the verb."""

    verbs: Mapping[str, frozenset[str]]
    """Verbs that begin commands but are none, each with the words of which one has to follow; with
    an empty set anything may, with an empty word only the speaker knows when it is enough."""

    @staticmethod
    @cache
    def of(language: str | None) -> _EndingRules | None:
        """Return those of a language, by Whisper's code; None where there is no file of it."""
        file = language_words(language)
        if file is None:
            return None
        words = file["endings"]
        return _EndingRules(
            dangling=_folded(words["dangling"]),
            open_ended=_folded(words["open_ended"]),
            suffixes=tuple(words["suffixes"]),
            lead_ins=_folded(words["lead_ins"]),
            verbs={
                verb: _folded(group["particles"])
                for group in words["verbs_with_particle"]
                for verb in _folded(group["verbs"])
            }
            | dict.fromkeys(_folded(words["verbs_with_object"]), frozenset[str]())
            | dict.fromkeys(_folded(words["verbs_with_free_text"]), frozenset({""})),
        )

    def is_dangling(self, words: list[str]) -> bool:
        """Whether more has to come: after these words, or after a verb and its particle alone."""
        if words[-1] in self.dangling or words[-1].endswith(self.suffixes):
            return True
        verb, particles = self._verb(words)
        rest = words[verb + 1 :]
        return particles is not None and (not rest or (len(rest) == 1 and rest[0] in particles))

    def is_whole(self, words: list[str]) -> bool:
        """Whether nothing seems to be missing."""
        if len(words) < 2 or words[-1] in self.open_ended or words[-1].isdigit():
            return False
        verb, particles = self._verb(words)
        return not particles or not particles.isdisjoint(words[verb + 1 :])

    def _verb(self, words: list[str]) -> tuple[int, frozenset[str] | None]:
        """Return where the verb is that begins the command, and its particles; None for others."""
        place = 0
        while place < len(words) - 1 and words[place] in self.lead_ins:
            place += 1
        return place, self.verbs.get(words[place])


def _folded(words: Iterable[str]) -> frozenset[str]:
    return frozenset(word.casefold() for word in words)


def _ending(draft: Transcription, previous: str = "") -> Ending:
    """Return how the draft of a command ends; `previous` is its draft before it went on.

    In a language without a file of words nothing is complete: nobody here could say so.
    """
    # A draft this likely, per token, was heard well. Of stock base's drafts of whole sentences 95 %
    # are (benchmarks endpointing, the part fit); those of beginnings are no less likely, so this
    # tells what was heard badly alone.
    confident_avg_logprob = -0.6
    words = _words(draft.text)
    if not words:  # something was said that the model won't write, or nothing at all
        return "unsure" if draft.rejected else "dangling"
    trails_off = re.search(r"(?:…|\.\.|[,、،‐–—-])\s*\Z", draft.text)  # noqa: RUF001  (dashes)
    rules = _EndingRules.of(draft.language)
    if trails_off or (rules and rules.is_dangling(words)):
        return "dangling"
    goes_on = not _agree(_words(previous), words)
    is_open = words[-1].isdigit() or bool(rules and words[-1] in rules.open_ended)
    if draft.understood and not (draft.rejected or goes_on or is_open):
        return "complete"
    if (
        rules is None
        or draft.rejected
        or draft.avg_logprob < confident_avg_logprob
        or goes_on
        or not rules.is_whole(words)
    ):
        return "unsure"
    return "complete"


def _words(text: str) -> list[str]:
    text = text.casefold().replace("’", "'")  # noqa: RUF001  (both apostrophes)
    return re.findall(r"\w+(?:'\w+)*", text)


def _agree(before: list[str], now: list[str]) -> bool:
    """Whether a draft goes on as the one before it began; its last word may have been cut."""
    return now[: max(0, len(before) - 1)] == before[:-1]
