"""What all connections and pages of a server share: the model's queue, and what is set for all."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ..audio.vad import SileroVad, SpanOptions, Vad
from ..errors import (
    ModelBrokenError,
    ModelUnavailableError,
    NotPossibleError,
    ProtocolError,
    SettingsError,
    StoppedError,
    TranscribeError,
)
from ..grammar.service import GrammarService, HomeLanguages, HomeTexts
from ..home.household import HomeNames
from ..home.inventory import Home
from ..models.folder import ModelFolder
from ..models.stock import StockModel
from ..models.store import ModelStore
from ..peers import PeerLog, shown
from ..settings.sources import SUPERVISOR_TOKEN
from ..status import Answer, Health, Status
from ..tasks import start_task
from ..text.style import TextStyle
from ..transcriber import SAMPLE_RATE, Samples, TranscribeOptions, Transcriber, Transcription
from ..upstreams.pool import Pool
from ..whisper.tokenizer import LANGUAGES, language_code
from .budget import Budget
from .endpointing import Endpointer
from .job import Job, Priority
from .languages import SpokenLanguages
from .scheduler import Scheduler

if TYPE_CHECKING:
    from ..settings.options import Settings

_LOGGER = logging.getLogger(__name__)

OpenTranscriber = Callable[["Settings"], Transcriber]


class Service:
    """Belongs to the event loop, which need not run yet when it is made.

    Raises SettingsError, ModelError where `settings` are not possible: a misspelt name ends
    the server before it listens.
    """

    # Audio held for all speakers together: 115 MB. Each of 64 may speak for half a minute; who
    # speaks for longer is transcribed meanwhile, and holds a minute at most as a rule.
    MAX_HELD_SECONDS = 1800

    def __init__(
        self, settings: Settings, open_transcriber: OpenTranscriber, status: Status | None = None
    ) -> None:
        self.settings = settings
        self.status = status or Status()
        self.expected_languages = _expected_languages(settings)
        """Whisper's codes of those that the model understands, by its name and files alone."""
        self.language = settings.spoken_language
        """Whisper's code of the language where a client names none; None detects it."""
        if self.language and self.language not in self.expected_languages:
            raise SettingsError(
                f"--language {settings.language}: the model {settings.model} does not understand "
                f"{LANGUAGES[self.language]}, only {', '.join(self.expected_languages)}"
            )
        self.eager = settings.eager
        self.span_options = SpanOptions.of(settings)
        self._style = TextStyle.from_settings(settings)
        self.spoken = SpokenLanguages(settings.prefer_recent_languages)
        Endpointer.of(settings)  # what is not possible is said now
        self.upstreams = Pool.open(settings, self.status)
        """None where no other server is asked."""
        self.names = HomeNames(settings, os.environ.get(SUPERVISOR_TOKEN))
        self.grammars: GrammarService | None = None
        """The sentences of the home; None where texts are not to be compared with it, or others
        make the grammars."""
        if settings.bias_names and settings.backend != "ray":
            folder = settings.data_dir[0] / "grammar"
            self.grammars = GrammarService.speaking(HomeLanguages.of(settings), folder)
            self.names.on_home = self.grammars.use_home
        self.max_utterance_samples = settings.max_utterance_seconds * SAMPLE_RATE
        self.held_audio = Budget(
            max(self.MAX_HELD_SECONDS * SAMPLE_RATE, self.max_utterance_samples), "audio"
        )
        """Samples."""
        self.deadline_seconds: float = settings.deadline
        """From the end of the audio, or from the piece before, to an answer; 0 is any time."""
        self.peer_log = PeerLog()
        self.vad: Vad | None = None
        """None while it is loading."""
        self._loading_vad: asyncio.Task[Vad] | None = None
        self.on_ready: Callable[[], None] = lambda: None
        """Called in the model's thread whenever it has been loaded."""
        self.scheduler = Scheduler(
            partial(open_transcriber, settings),
            self._on_ready,
            settings.idle_unload,
            self.status,
            settings.max_queue,
        )
        self._stopping = asyncio.Event()

    @property
    def text_style(self) -> TextStyle:
        """How texts are given to clients, by the names of the home as they are now."""
        home = self.names.index
        return replace(self._style, names=home.names) if home else self._style

    @property
    def health(self) -> Health:
        return self.status.state.health(stopping=self.stopping)

    @property
    def stopping(self) -> bool:
        """Whether the server drains: it takes no more commands."""
        return self._stopping.is_set()

    @property
    def is_spoken_to(self) -> bool:
        """Whether somebody is speaking, or waits for an answer."""
        raise NotImplementedError

    def language_of(self, name: object) -> str | None:
        """Return Whisper's code for what a client named, the server's own if it named none.

        Raises ProtocolError, NotPossibleError.
        """
        if not name:
            return self.language
        if not isinstance(name, str):
            raise ProtocolError("language must be a string")
        if name == "auto":
            return None
        code = language_code(name)
        if code is None:
            raise NotPossibleError(
                f"Whisper does not know the language {shown(name)}; "
                f"it knows {', '.join(sorted(LANGUAGES))}",
                "unknown-language",
            )
        return code

    async def loaded_vad(self) -> Vad:
        """Return the VAD, once it is loaded. Raises ModelBrokenError."""
        if self._loading_vad is None:
            loading = asyncio.to_thread(SileroVad)
            self._loading_vad = start_task(loading, "loading the VAD", is_awaited=True)
        try:  # one client's leaving is not the end
            self.vad = await asyncio.shield(self._loading_vad)
        except Exception as error:
            raise ModelBrokenError(
                f"the model that finds speech can't be loaded: {error}"
            ) from None  # the task keeps it: it must not know who has waited
        return self.vad

    def wake(self) -> None:
        """Say that there will be work in a moment: somebody speaks."""
        self.scheduler.wake()

    def submit(self, samples: Samples, options: TranscribeOptions, priority: Priority) -> Job:
        """Queue a transcription with the home's names and sentences.

        Raises as Scheduler.submit does.
        """
        # Of a home that nobody knows anything of, most sentences would be another home's; and what
        # is no command, or no whole one, is not to become one.
        is_command = priority in (Priority.COMMAND, Priority.EARLY)
        if self.names.index is not None:
            home = self.names.home if is_command and self.names.home != Home() else None
            grammars = self.grammars if home else None
            options = replace(options, home=HomeTexts(self.names.index, grammars, home))
        return self.scheduler.submit(samples, options, priority)

    async def result_of(
        self, job: Job, hurrying: asyncio.Future[None] | None = None
    ) -> Transcription:
        """Wait for a job until the deadline, if there is one; who stops waiting cancels it.

        Raises what the job failed of, TranscribeError; StoppedError when `hurrying` is done before.
        """
        deadline = self.deadline_seconds
        future = asyncio.wrap_future(job.future)
        awaited: set[asyncio.Future[Any]] = {future, hurrying} if hurrying else {future}
        try:
            first = asyncio.FIRST_COMPLETED
            await asyncio.wait(awaited, timeout=deadline or None, return_when=first)
            if future.done():
                return future.result()
            if hurrying and hurrying.done():
                raise StoppedError("the server is shutting down")
            why = "its turn did not come: the model was not there, or had other work"
            if job.future.running():
                why = "the model was still at it"
            raise TranscribeError(
                f"there was no answer within {deadline:g} s (--deadline): {why}",
                "deadline-exceeded",
            )
        finally:
            if not future.done():
                job.cancel()
                future.cancel()
            job.forget()
            del future, awaited  # as in Job.forget

    def answered(self, answer: Answer) -> None:
        """Take note of how an utterance was answered; of its text only where the page shows it."""
        self.status.record(
            answer if self.settings.http_text else replace(answer, text=None, free_text=None)
        )

    def _on_ready(self, _: Transcriber) -> None:
        self.on_ready()
        _LOGGER.info("ready")


def _expected_languages(settings: Settings) -> tuple[str, ...]:
    if settings.model != "auto":
        with contextlib.suppress(ModelUnavailableError, ModelBrokenError):
            path = ModelStore(settings).find(settings.model)
            return ModelFolder(path).languages(settings.model)
    return StockModel.languages_of(settings.model)
