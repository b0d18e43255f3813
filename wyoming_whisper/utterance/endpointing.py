"""When a spoken command has ended, if this server is to decide it. The policy alone.

Its clock is the audio: the same audio and the same drafts give the same end, however fast they
come. A draft is what early work made of the speech so far (`utterance.py`); `auto` reads from it
whether the command sounds finished, and waits for as long as that makes worth while.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from ..errors import SettingsError
from ..transcriber import Transcription

if TYPE_CHECKING:
    from ..settings.options import Settings

End = Literal["pause", "no speech", "too long"]
"""Why a command is over: its speaker has paused, nobody has spoken, it has to end some time."""

Ending = Literal["complete", "unsure", "dangling"]
"""How a text ends: as a command does, so that nobody knows, where no sentence ends."""

# How long `auto` waits in silence, in seconds. Of 120 orders spoken to a coffee machine the first
# of these cuts off one, the second none; people who read sentences pause longer. The third is what
# it may cost to let people look for a word (docs/benchmarks.md, End of speech).
COMPLETE_SECONDS = 0.35
UNSURE_SECONDS = 0.7
DANGLING_SECONDS = 1.5


# What a request's vad_sensitivity makes of all waits. The ratios are those of Home Assistant's own
# settings (0.25, 0.7, 1.25 s), and so is the shortest of them all.
SENSITIVITIES: Mapping[str, float] = {
    "aggressive": 0.25 / 0.7,
    "default": 1.0,
    "relaxed": 1.25 / 0.7,
}


@dataclass(frozen=True)
class EndpointOptions:
    """What the user wants of the end of speech."""

    seconds: float | None = None
    """The wait in silence; None is `auto`."""

    no_speech_seconds: float = 8.0
    """Without speech until then, there is none."""

    max_command_seconds: float = 15.0
    """From the first word; a television does not pause."""


def endpoint_options(settings: Settings) -> EndpointOptions | None:
    """Return what the user wants; None leaves it to the client. Raises SettingsError."""
    if settings.endpointing == "off":
        if not settings.requires_external_vad:
            raise SettingsError(
                "--no-requires-external-vad needs --endpointing: nobody would end a command"
            )
        return None
    return EndpointOptions(
        None if settings.endpointing == "auto" else float(settings.endpointing),
        settings.no_speech_timeout,
        settings.max_command_seconds,
    )


class Hearing(Protocol):
    """What has been heard so far (`speech.Speech`); seconds."""

    @property
    def seconds(self) -> float: ...

    @property
    def voiced_seconds(self) -> float: ...

    @property
    def silence_seconds(self) -> float:
        """What came after the last speech."""

    @property
    def is_spoken(self) -> bool:
        """Whether anybody has spoken, beyond doubt."""


class Endpointer:
    """Follows one command, and tells its end once."""

    # Less speech than this is hardly a command: the end of the wake word, a cough, a short "no". It
    # ends, but never sooner than a hesitation does.
    MIN_SPEECH_SECONDS = 0.3

    # Who paused once and went on will pause again for about as long.
    HESITATION_FACTOR = 1.5
    MIN_PAUSE_SECONDS = 0.2  # shorter ones are within words
    MIN_WAIT_SECONDS = 0.25

    def __init__(self, options: EndpointOptions, sensitivity: str = "default") -> None:
        self._options = options
        self._factor = SENSITIVITIES[sensitivity]
        self._began: float | None = None  # where speech began
        self._voiced = 0.0  # seconds, when it was last looked at
        self._pause = 0.0  # the longest silence since then
        self._longest_pause = 0.0  # after which speech went on
        self._draft: Transcription | None = None
        self._previous = ""  # the draft of before the last pause

    def set_sensitivity(self, sensitivity: str) -> None:
        """Take another of SENSITIVITIES from now on."""
        self._factor = SENSITIVITIES[sensitivity]

    def hear(self, hearing: Hearing, draft: Transcription | None) -> End | None:
        """Return why the command has ended, None as long as it has not.

        To be called whenever more was heard; `draft` is of all the speech there is, or None.
        """
        if not hearing.is_spoken:
            late = hearing.seconds >= self._options.no_speech_seconds
            return "no speech" if late else None
        if self._began is None:
            self._began = hearing.seconds - hearing.voiced_seconds
        if hearing.voiced_seconds > self._voiced:  # not for mere noise
            self._go_on()
        self._voiced, self._draft = hearing.voiced_seconds, draft
        self._pause = max(self._pause, hearing.silence_seconds)
        if hearing.silence_seconds >= self._wait_seconds():
            return "pause"
        if hearing.seconds - self._began >= self._options.max_command_seconds:
            return "too long"
        return None

    def _wait_seconds(self) -> float:
        """Return how much silence ends the command, by what is known now."""
        seconds = self._options.seconds
        if seconds is None:
            seconds = max(self._auto_seconds(), self._hesitation_seconds())
        if self._voiced < self.MIN_SPEECH_SECONDS:
            seconds = max(seconds, DANGLING_SECONDS)
        return max(seconds * self._factor, min(seconds, self.MIN_WAIT_SECONDS))

    def _auto_seconds(self) -> float:
        if self._draft is None:
            return UNSURE_SECONDS
        return _WAITS[ending(self._draft, self._previous)]

    def _hesitation_seconds(self) -> float:
        return min(self.HESITATION_FACTOR * self._longest_pause, DANGLING_SECONDS)

    def _go_on(self) -> None:
        """Speech has resumed."""
        if self._pause >= self.MIN_PAUSE_SECONDS:
            self._longest_pause = max(self._longest_pause, self._pause)
        self._pause = 0.0
        if self._draft is not None:
            self._previous = self._draft.text


_WAITS: Mapping[Ending, float] = {
    "complete": COMPLETE_SECONDS,
    "unsure": UNSURE_SECONDS,
    "dangling": DANGLING_SECONDS,
}

# -- how a text ends -----------------------------------------------------------------------


@dataclass(frozen=True)
class Grammar:
    """What tells a finished command from a beginning of one, in one language; casefolded words."""

    dangling: frozenset[str]
    """No command ends with these: articles, prepositions, what people say while they think."""

    open_ended: frozenset[str] = frozenset()
    """After these often comes one more word, as a unit does after a number."""

    verbs: Mapping[str, frozenset[str]] | None = None
    """Verbs that begin commands but are none, each with the words of which one has to follow; with
    an empty set anything may."""

    lead_ins: frozenset[str] = frozenset()
    """What may come before the verb."""

    suffix: str | None = None
    """No command ends with a word that ends with this."""


def ending(draft: Transcription, previous: str = "") -> Ending:
    """Return how the draft of a command ends; `previous` is its draft before it went on.

    In a language without a Grammar nothing is complete: nobody here could say so.
    """
    # A draft this likely, per token, was heard well. Of stock base's drafts of whole sentences 95 %
    # are (benchmarks endpointing, the part fit); those of beginnings are no less likely, so this
    # tells what was heard badly alone.
    confident_avg_logprob = -0.6
    words = _words(draft.text)
    if not words:  # something was said that the model won't write, or nothing at all
        return "unsure" if draft.rejected else "dangling"
    grammar = GRAMMARS.get(draft.language or "")
    if _TRAILS_OFF.search(draft.text) or (grammar and _dangles(words, grammar)):
        return "dangling"
    if (
        grammar is None
        or draft.rejected
        or draft.avg_logprob < confident_avg_logprob
        or not _agree(_words(previous), words)
        or not _is_whole(words, grammar)
    ):
        return "unsure"
    return "complete"


_TRAILS_OFF = re.compile(r"(?:…|\.\.|[,、،‐–—-])\s*\Z")  # noqa: RUF001  (dashes)
_WORD = re.compile(r"\w+(?:['’]\w+)*")  # noqa: RUF001  (both apostrophes)


def _words(text: str) -> list[str]:
    return [word.replace("’", "'") for word in _WORD.findall(text.casefold())]  # noqa: RUF001


def _dangles(words: list[str], grammar: Grammar) -> bool:
    """Whether more has to come: after these words, or after a verb and its particle alone."""
    if words[-1] in grammar.dangling or (grammar.suffix and words[-1].endswith(grammar.suffix)):
        return True
    verb, needed = _verb(words, grammar)
    rest = words[verb + 1 :]
    return needed is not None and (not rest or (len(rest) == 1 and rest[0] in needed))


def _is_whole(words: list[str], grammar: Grammar) -> bool:
    """Whether nothing seems to be missing."""
    if len(words) < 2 or words[-1] in grammar.open_ended or words[-1].isdigit():
        return False
    verb, needed = _verb(words, grammar)
    return not needed or not needed.isdisjoint(words[verb + 1 :])


def _verb(words: list[str], grammar: Grammar) -> tuple[int, frozenset[str] | None]:
    """Return where the verb is that begins the command, and what it needs; None if not known."""
    place = 0
    while place < len(words) - 1 and words[place] in grammar.lead_ins:
        place += 1
    return place, (grammar.verbs or {}).get(words[place])


def _agree(before: list[str], now: list[str]) -> bool:
    """Whether a draft goes on as the one before it began; its last word may have been cut."""
    return now[: max(0, len(before) - 1)] == before[:-1]


def _set(words: str) -> frozenset[str]:
    return frozenset(words.casefold().split())


# Particles that close a command ("turn it on", "mach das Licht aus") are missing on purpose, and so
# is whatever may end one now and then.

_ANYTHING = frozenset({""})  # words without an end: only the speaker knows when there are enough
_EN_VALUE = _set("to at for as minute minutes hour hours second seconds")
_EN_LOOKS = _set(
    "brighter dimmer darker lighter warmer cooler colder louder quieter white red green blue "
    "yellow orange purple pink"
)
_DE_PARTICLES = _set(
    "an aus ein auf zu ab um heller dunkler wärmer kälter lauter leiser höher niedriger runter "
    "hoch rauf"
)
_NL_PARTICLES = _set("aan uit op open dicht harder zachter lager hoger in")

GRAMMARS: Mapping[str, Grammar] = {
    "de": Grammar(
        _set(
            "der die den dem des eine einen einem einer eines mein meine meinen meinem meiner dein "
            "deine unser unsere unseren unserem unserer im in ins am für von vom mit bei beim zum "
            "zur über unter neben zwischen und oder aber wenn dass ob ist sind war wird werden wie "
            "wo äh ähm öh hm"
        ),
        _set("null eins zwei drei vier fünf sechs sieben acht neun zehn zwanzig dreißig hundert"),
        {
            **dict.fromkeys(("schalte", "schalt", "mach", "mache", "dreh", "drehe"), _DE_PARTICLES),
            **dict.fromkeys(("stelle", "stell", "setze"), _DE_PARTICLES | _set("für in")),
            # The verb of these comes last, and may be any.
            **dict.fromkeys(("kannst", "könntest", "würdest", "sag", "sage"), _ANYTHING),
        },
        _set("bitte und dann hey"),
    ),
    "en": Grammar(
        _set(
            "a an the my your our his her their in at to for from of with by into onto and or but "
            "than then if when while until because is are was were will can could would should "
            "uh um er erm hmm"
        ),
        _set(
            "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
            "fifteen sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy "
            "eighty ninety hundred half minute hour second next previous"
        ),
        {
            **dict.fromkeys(("set", "change"), _EN_VALUE),
            **dict.fromkeys(("turn", "switch"), _set("on off up down to")),
            **dict.fromkeys(("add", "put"), _set("to on in")),
            **dict.fromkeys(("remove", "delete"), _set("from off on")),
            **dict.fromkeys(("announce", "broadcast", "say", "tell", "remind"), _ANYTHING),
            "make": _EN_LOOKS | _set("me us"),
        },
        _set("please can could would will you and then hey"),
        "'s",
    ),
    "es": Grammar(
        _set(
            "el la los las un una unos unas mi mis tu tus su sus nuestro nuestra de del a al en "
            "con por para sin y o u e pero que cuando eh em"
        ),
        _set("uno dos tres cuatro cinco seis siete ocho nueve diez veinte treinta cien"),
        {
            **dict.fromkeys(("pon", "ajusta", "cambia", "sube", "baja"), _set("a al en por")),
            **dict.fromkeys(("enciende", "apaga", "abre", "cierra"), frozenset()),
        },
    ),
    "fr": Grammar(
        _set(
            "le la les l un une des du de d au aux à dans sur sous pour par avec sans et ou mais "
            "mon ma mes ton ta tes notre nos votre vos son sa ses que quand est quel quelle euh"
        ),
        _set("deux trois quatre cinq six sept huit neuf dix vingt trente cent"),
        {
            **dict.fromkeys(("mets", "règle", "baisse", "monte"), _set("à au en de sur")),
            **dict.fromkeys(("allume", "éteins", "ouvre", "ferme"), frozenset()),
        },
    ),
    "it": Grammar(
        _set(
            "il lo gli un uno una di del dello della dei degli delle da dal dalla in nel nella nei "
            "nelle con per a al allo alla ai agli alle sul sulla e ed o ma mio mia miei mie "
            "che quando è ehm"
        ),
        _set("due tre quattro cinque sei sette otto nove dieci venti trenta cento"),
        {
            **dict.fromkeys(("imposta", "metti", "regola"), _set("a al su per in")),
            **dict.fromkeys(("accendi", "spegni", "apri", "chiudi"), frozenset()),
        },
    ),
    "nl": Grammar(
        _set(
            "de het een mijn jouw ons onze van met voor bij naar om en of maar als dat is zijn "
            "wordt eh uhm"
        ),
        _set("twee drie vier vijf zes zeven acht negen tien twintig dertig honderd"),
        dict.fromkeys(("zet", "doe", "schakel", "maak"), _NL_PARTICLES),
    ),
    "pl": Grammar(
        _set(
            "w we na do z ze od dla po przy pod nad i oraz lub albo ale mój moja moje czy jest "
            "że żeby eee yyy"
        ),
        _set("dwa trzy cztery pięć sześć siedem osiem dziewięć dziesięć dwadzieścia sto"),
        {
            "ustaw": _set("na w do"),
            **dict.fromkeys(("włącz", "wyłącz", "otwórz", "zamknij"), frozenset()),
        },
    ),
    "pt": Grammar(
        _set(
            "o a os as um uma uns umas de do da dos das em no na nos nas com por para ao à e ou "
            "mas meu minha meus minhas seu sua que quando é hã"
        ),
        _set("dois duas três quatro cinco seis sete oito nove dez vinte trinta cem"),
        {
            **dict.fromkeys(("defina", "ajuste", "coloca", "coloque"), _set("para em a no na")),
            **dict.fromkeys(("acende", "acenda", "apaga", "apague"), frozenset()),
        },
    ),
}
"""By Whisper's codes: the languages in which the end of a command can be told."""
