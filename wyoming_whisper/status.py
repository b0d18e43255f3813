"""What the server is doing right now, for those who ask: `health --json`, the web page, the log.

Written by whichever thread does the work, read by any other.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

_LOGGER = logging.getLogger(__name__)

T = TypeVar("T")

Phase = Literal["starting", "downloading", "loading", "building", "ready", "idle", "unavailable"]

ANSWERING: tuple[Phase, ...] = ("ready", "idle")
"""The phases in which a command is answered without waiting for a model to be fetched."""

MAX_ANSWERS = 50
"""How many of the last answers are remembered."""


@dataclass(frozen=True)
class UpstreamState:
    """Another server that is asked before the model here."""

    name: str
    """Its address, without any key."""
    kind: str
    """`wyoming` or `openai`."""
    circuit: Literal["closed", "open", "half-open"]
    """`closed` is asked, `open` is not for now, `half-open` is on trial."""
    detail: str = ""
    """Why it is not asked, one sentence."""
    description: str = ""
    """What it says it is."""
    latency: float | None = None
    """Seconds from the end of the audio to its answer: the median of the last ones."""
    answers: int = 0
    failures: int = 0


@dataclass(frozen=True)
class State:
    """One moment. `fraction` of the current phase is done, where that is known."""

    phase: Phase = "starting"
    detail: str = ""
    """One sentence for people."""
    fraction: float | None = None
    backend: str | None = None
    """`faster-whisper`, `onnxruntime`, `tensorrt`, ...: what answers, or will."""
    why: str = ""
    """Why this backend, one sentence."""
    description: str = ""
    """Transcriber.description of what answers now; empty before anything does."""
    languages: tuple[str, ...] = ()
    """Transcriber.languages of what answers now; empty before anything does."""
    building: str = ""
    """What is built in the background while requests are answered; empty when nothing is."""
    building_fraction: float | None = None
    upstreams: tuple[UpstreamState, ...] = ()
    """In the order in which they are asked."""


Outcome = Literal["text", "silence", "withheld", "failed"]


@dataclass(frozen=True)
class Answer:
    """How one utterance was answered. Holds no spoken word unless the user wants them shown."""

    time: float
    """Unix time of the answer."""
    outcome: Outcome
    """`withheld` is a text that the model was not sure of; `silence` is no speech, or no words."""
    seconds: float
    """Length of the audio."""
    waited: float
    """Seconds from the end of the audio to the answer: what a speaker feels."""
    early: bool = False
    """Whether the transcription had begun before the audio ended, and was of use."""
    language: str | None = None
    confidence: float | None = None
    """Mean probability of the tokens, 0..1; None without a text."""
    stages: Mapping[str, float] = field(default_factory=dict)
    """Seconds per stage, as in Transcription; none where the model was not asked."""
    text: str | None = None
    upstream: str | None = None
    """The address of who transcribed it; None is this machine."""
    truncated: bool = False
    """Whether it was longer than --max-utterance-seconds, and its end was not heard."""
    error: str = ""
    """One sentence, where it failed."""
    code: str = ""
    """The error's machine-readable name, where it failed."""


class Status:
    """The current State and the last Answers; every change replaces them as a whole."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._state = State()
        self._answers: deque[Answer] = deque(maxlen=MAX_ANSWERS)
        self._revision = 0
        self._on_state: list[Callable[[State], None]] = []
        self._on_answer: list[Callable[[Answer], None]] = []

    @property
    def state(self) -> State:
        return self._state

    @property
    def revision(self) -> int:
        """Grows with every change."""
        return self._revision

    @property
    def answers(self) -> tuple[Answer, ...]:
        """The last MAX_ANSWERS, oldest first."""
        with self._lock:
            return tuple(self._answers)

    def update(self, **changes: object) -> None:
        """Replace fields of the State."""
        with self._lock:
            self._state = state = replace(self._state, **changes)  # type: ignore[arg-type]
            self._revision += 1
        _tell(self._on_state, state)

    def downloading(self, what: str, fraction: float) -> None:
        """Say how much of a download is here."""
        self.update(phase="downloading", detail=f"downloading {what}", fraction=fraction)

    def record(self, answer: Answer) -> None:
        """Remember an answer."""
        with self._lock:
            self._answers.append(answer)
            self._revision += 1
        _tell(self._on_answer, answer)

    def on_state(self, listener: Callable[[State], None]) -> None:
        """Call `listener` with every new State, in the thread that changed it."""
        self._on_state.append(listener)

    def on_answer(self, listener: Callable[[Answer], None]) -> None:
        """Call `listener` with every new Answer, in the thread that gave it."""
        self._on_answer.append(listener)


def _tell(listeners: list[Callable[[T], None]], news: T) -> None:
    """Whoever works must not fail because somebody who looks on does."""
    for listener in listeners:
        try:
            listener(news)
        except Exception:
            _LOGGER.exception("a change of the status was not taken in")
