"""What the server is doing right now, for those who ask: `health --json`, the web page, the log.

Written by whichever thread does the work, read by any other.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

_LOGGER = logging.getLogger(__name__)

Phase = Literal[
    "starting", "downloading", "loading", "building", "ready", "idle", "unavailable", "failed"
]

Verdict = Literal["healthy", "starting", "stopping", "unhealthy"]


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
class Health:
    """Whether commands are answered: the same for `/health`, `info` and the command `health`."""

    verdict: Verdict
    """`starting`: a command waits for its answer until the model is there."""
    phase: str
    """State.phase, or `stopping`."""
    reason: str = ""
    """Why it is not healthy, or what is to be waited for; one sentence, or nothing."""

    @property
    def is_failure(self) -> bool:
        """Whether somebody should do something: neither a start nor a stop is one."""
        return self.verdict == "unhealthy"


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
    was_ready: bool = False
    """Whether the model here has been there before: one that is loading now is woken."""
    is_refusing: bool = False
    """Whether commands are errors at once, for `detail`, since the model could not be had."""
    upstreams: tuple[UpstreamState, ...] = ()
    """In the order in which they are asked."""

    @property
    def is_answering(self) -> bool:
        """Whether a command is answered without waiting for a model to be fetched."""
        return self.phase in ("ready", "idle")

    def health(self, *, stopping: bool = False) -> Health:
        """Return the verdict, of a server that drains with `stopping`."""
        waking = "the model is loaded again, as somebody speaks; commands wait for it"
        # Every command is an error: the model is tried again, or never will be there.
        if self.phase in ("unavailable", "failed"):
            return Health("unhealthy", self.phase, self.detail or self.phase)
        if stopping:
            return Health("stopping", "stopping", "the server is shutting down")
        if self.is_answering:
            return Health("healthy", self.phase)
        if self.phase == "loading" and self.was_ready and not self.is_refusing:
            return Health("healthy", self.phase, waking)
        return Health("starting", self.phase, self.detail or self.phase)


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
    understood: bool | None = None
    """Whether it is a sentence of the home's grammar; None where that was not asked."""
    free_text: str | None = None
    """What was written before a sentence of the home took its place; where the page shows it."""
    is_corrected: bool = False
    """Whether one did."""
    upstream: str | None = None
    """The address of who transcribed it; None is this machine."""
    truncated: bool = False
    """Whether its end was not heard: it was longer than --max-utterance-seconds, or the server
    stopped."""
    error: str = ""
    """One sentence, where it failed."""
    code: str = ""
    """The error's machine-readable name, where it failed."""


class Status:
    """The current State and the last Answers; every change replaces them as a whole."""

    MAX_ANSWERS = 50
    """How many of the last answers are remembered."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.state = State()
        self._answers: deque[Answer] = deque(maxlen=self.MAX_ANSWERS)
        self.revision = 0
        """Grows with every change."""
        self.on_answer: Callable[[Answer], None] = lambda _: None
        """Called with every new Answer."""

    @property
    def answers(self) -> tuple[Answer, ...]:
        """The last MAX_ANSWERS, oldest first."""
        with self._lock:
            return tuple(self._answers)

    def update(self, **changes: object) -> None:
        """Replace fields of the State."""
        with self._lock:
            self.state = replace(self.state, **changes)  # type: ignore[arg-type]
            self.revision += 1

    def downloading(self, what: str, fraction: float) -> None:
        """Say how much of a download is here."""
        self.update(phase="downloading", detail=f"downloading {what}", fraction=fraction)

    def record(self, answer: Answer) -> None:
        """Remember an answer."""
        with self._lock:
            self._answers.append(answer)
            self.revision += 1
        try:
            self.on_answer(answer)
        except Exception:  # whoever answers must not fail because somebody who counts does
            _LOGGER.exception("an answer was not taken in")
