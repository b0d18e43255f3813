"""One replica: a Transcriber and its queue, as Ray Serve runs it. Knows nothing of Wyoming."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from dataclasses import replace
from functools import partial

import numpy as np

from .. import __version__
from ..backends import model_of, open_transcriber
from ..errors import ModelError, ModelUnavailableError, TranscribeError, WyomingWhisperError
from ..machine.process import settle
from ..settings.options import Settings
from ..settings.sources import settings_from
from ..status import Status
from ..transcriber import Samples, TranscribeOptions, Transcriber, Transcription
from ..utterance.hangs import HangWatch
from ..utterance.scheduler import Scheduler
from .front_end import About, SharedHome
from .homes import Homes

_LOGGER = logging.getLogger(__name__)


class Replica:
    """The deployment's class; Ray Serve makes one per replica, each in a process of its own.

    Raises ModelError or SettingsError when the model can't be had; Ray tries again a few times.
    """

    MAX_QUEUE = 256
    """Requests that wait here; each front end has at most RayTranscriber.at_once in flight."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings = _on_this_node(settings)
        self._about: About | None = None
        self._homes = Homes(settings.data_dir[0] / "grammar")
        self._watch = HangWatch(settings.deadline)
        self._looked = time.monotonic()
        self._status = status = Status()
        self._scheduler = Scheduler(
            partial(_open, settings, status),
            self._on_ready,
            settings.idle_unload,
            status,
            self.MAX_QUEUE,
        )
        self._scheduler.start()
        self._scheduler.opened.result()

    @staticmethod
    def fetch_model(settings: Settings) -> str | WyomingWhisperError:
        """Return the model's folder on this node, fetching it where it isn't there, or why not."""
        try:
            return str(model_of(_on_this_node(settings))[1])
        except WyomingWhisperError as error:
            return error

    def about(self) -> About:
        assert self._about is not None  # noqa: S101 - the constructor has waited for it
        return self._about

    async def transcribe(
        self, options: TranscribeOptions, home: SharedHome | None, *chunks: Samples
    ) -> Transcription | WyomingWhisperError:
        """Return what was said in the chunks, or what a user is to be told instead.

        Cancelled, the work ends.
        """
        if home:
            options = replace(options, home=self._homes.texts(home))
        try:
            job = self._scheduler.submit(np.concatenate(chunks), options)
        except WyomingWhisperError as error:
            return error
        try:
            return await asyncio.wrap_future(job.future)
        except asyncio.CancelledError:
            job.cancel()
            raise
        except WyomingWhisperError as error:
            return error
        except Exception as error:
            _LOGGER.exception("a request failed")
            return TranscribeError(f"the model failed: {error!r}")
        finally:
            job.forget()

    def check_health(self) -> None:
        """Raise where the model hangs, or can't be had any more.

        Ray Serve asks regularly, and replaces who raises.
        """
        health = self._status.state.health()
        if health.is_failure:
            raise RuntimeError(health.reason)
        before, self._looked = self._looked, time.monotonic()
        if hanging := self._watch.look(self._scheduler.under_way, self._looked - before):
            raise RuntimeError(hanging)

    def _on_ready(self, transcriber: Transcriber) -> None:
        self._about = About(__version__, transcriber.languages, transcriber.description)
        settle()


def _open(settings: Settings, status: Status) -> Transcriber:
    try:
        return open_transcriber(settings, status)
    except ModelUnavailableError as error:  # the Scheduler would try again, and nobody know why
        raise ModelError(str(error)) from error


def _on_this_node(settings: Settings) -> Settings:
    """Return settings that came from elsewhere with what this machine's environment says.

    Models and engines are in this node's folders, where none was named; tokens never travel.
    """
    here = settings_from({}, os.environ)
    folders = settings.data_dir or here.data_dir
    return replace(settings, data_dir=folders, hf_token=here.hf_token)
