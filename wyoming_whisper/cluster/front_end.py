"""The ray backend: replicas of the model on other machines answer, by way of Ray Serve.

What is here is the front end's half (replica.py has the other). A replica answers with a text,
or with an error that is a user's to read. What Ray itself raises means that the request was lost
with its replica or its node: it is asked again of another one.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import __version__
from ..errors import (
    ModelUnavailableError,
    SettingsError,
    TranscribeError,
    WyomingWhisperError,
)
from ..grammar.service import HomeLanguages, HomeTexts
from ..home.index import NameIndex
from ..home.inventory import Home
from ..transcriber import Samples, TranscribeOptions, Transcription, go_on

if TYPE_CHECKING:
    from ..settings.options import Settings

_LOGGER = logging.getLogger(__name__)

APP = "wyoming-whisper"
"""The application's name in Ray Serve."""


@dataclass(frozen=True)
class About:
    """What a replica runs."""

    version: str
    languages: tuple[str, ...]
    description: str


@dataclass(frozen=True)
class HomeDescription:
    """What the names and grammars of a home are made of: plain data, of some kilobytes."""

    names: tuple[str, ...]
    home: Home
    languages: HomeLanguages

    @property
    def version(self) -> str:
        """Equal where descriptions are, also those of two front ends."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:20]


@dataclass(frozen=True)
class SharedHome:
    """What a request says of its home."""

    version: str
    replaces: str | None
    """The version before this one, of the same front end."""
    reference: Any
    """Ray's, to the HomeDescription: what awaits it has that."""
    with_sentences: bool
    """Whether the text is to be compared with sentences, too."""


class RayTranscriber:
    """A Transcriber that has replicas transcribe, as many requests at once as there are.

    `ask` is the deployment's `transcribe.remote`, which returns a DeploymentResponse of Ray Serve;
    `put` keeps an object where every replica can get it; `deadline` is in seconds, 0 for none;
    `languages` are those of the home.
    """

    MAX_HEDGES = 20.0
    HEDGES_PER_REQUEST = 0.1
    """How often another replica may be asked: what is saved up, and what each answer earns. Where
    all replicas are merely busy, asking twice would make it worse."""
    CHUNK_SAMPLES = 16_384
    """64 KiB. Ray sends arguments below 100 KB with the call itself; larger ones would go through
    its object store, which takes a detour and may write them to a disk."""

    at_once = 32
    """Requests in flight from one front end; each waits in a thread of its own."""

    def __init__(
        self,
        ask: Callable[..., Any],
        about: About,
        deadline: float,
        put: Callable[[Any], Any],
        disconnect: Callable[[], None] = lambda: None,
        languages: HomeLanguages = HomeLanguages(),  # noqa: B008 - frozen
    ) -> None:
        self.languages = about.languages
        self.description = f"{about.description}, on Ray"
        self._ask = ask
        self._deadline = deadline or float("inf")
        self._put = put
        self.close = disconnect  # it leaves the cluster
        self._home_languages = languages
        self._lock = threading.Lock()  # of what follows
        self._home = HomeTexts(NameIndex(()))
        self._shared: SharedHome | None = None
        self._hedges = self.MAX_HEDGES

    @classmethod
    def open(cls, settings: Settings) -> RayTranscriber:
        """Join the cluster and find the replicas.

        Raises SettingsError without Ray, ModelUnavailableError where no replica is there yet.
        """
        # How long replicas may take to say what they run.
        about_seconds = 20.0
        with joined(settings.ray_address) as ray:
            from ray import serve

            try:
                handle = serve.get_app_handle(APP)
                about: About = handle.about.remote().result(timeout_s=about_seconds)
            except Exception as error:  # serve has no base for what it raises
                raise ModelUnavailableError(
                    f"nothing answers in the Ray cluster at {settings.ray_address}: deploy a model "
                    f"with wyoming-whisper ray deploy ({_line(error)})"
                ) from error
        if about.version != __version__:
            _LOGGER.warning(
                "the replicas have version %s, this is %s: deploy again with the same version",
                about.version,
                __version__,
            )
        _LOGGER.info("backend: ray, because it was asked for: %s", about.description)
        return cls(
            handle.transcribe.remote,
            about,
            settings.deadline,
            ray.put,
            ray.shutdown,
            HomeLanguages.of(settings),
        )

    def transcribe(self, samples: Samples, options: TranscribeOptions) -> Transcription:
        """Return what was said. Raises TranscribeError; see Transcriber."""
        asked = replace(options, home=None, checkpoint=go_on)
        home = self._share(options.home) if options.home else None
        n_chunks = max(1, -(-len(samples) // self.CHUNK_SAMPLES))
        # Copies: a slice would be sent with all that it is a slice of.
        chunks = [chunk.copy() for chunk in np.array_split(samples, n_chunks)]
        answer = self._answer(lambda: self._ask(asked, home, *chunks), options.checkpoint)
        if isinstance(answer, WyomingWhisperError):
            raise answer
        if not isinstance(answer, Transcription):
            raise TranscribeError(f"a replica answered with {type(answer).__name__}")
        return answer

    def _share(self, texts: HomeTexts) -> SharedHome | None:
        """Return what a request says of its home, whose description is put once for each change."""
        with self._lock:
            home = texts.home or self._home.home
            if texts.names is not self._home.names or home is not self._home.home:
                try:
                    self._shared = self._described(texts.names, home or Home())
                except Exception as problem:  # Ray's; the request itself may do
                    _LOGGER.warning("going without the home: %s", _line(problem))
                    return None
                self._home = HomeTexts(texts.names, home=home)
            return self._shared and replace(self._shared, with_sentences=texts.home is not None)

    def _described(self, names: NameIndex, home: Home) -> SharedHome:
        """Return the description as it is shared, put where that is another one than before."""
        description = HomeDescription(names.names, home, self._home_languages)
        before, version = self._shared, description.version
        if before and before.version == version:
            return before
        replaced = before.version if before else None
        return SharedHome(version, replaced, self._put(description), with_sentences=False)

    def _answer(self, ask: Callable[[], Any], checkpoint: Callable[[], None]) -> Any:
        """Return what the first replica says that says anything."""
        end = time.monotonic() + self._deadline
        with _Calls(ask) as calls:
            while True:
                checkpoint()
                if time.monotonic() > end:
                    late = f"no replica answered within {self._deadline:g} s"
                    raise TranscribeError(late, "deadline-exceeded")
                if calls.is_late and self._may_hedge():
                    calls.add()
                answer = calls.poll()
                if answer is not None:
                    with self._lock:
                        self._hedges = min(self._hedges + self.HEDGES_PER_REQUEST, self.MAX_HEDGES)
                    return answer

    def _may_hedge(self) -> bool:
        with self._lock:
            if self._hedges < 1:
                return False
            self._hedges -= 1
        _LOGGER.info("no answer for %g s: another replica is asked", _Calls.HEDGE_SECONDS)
        return True


class _Calls:
    """One request, asked of one replica, or of several where some are lost or late."""

    POLL_SECONDS = 0.05
    """How often one who waits looks whether anybody still waits for him."""
    HEDGE_SECONDS = 3.0
    """Without an answer for so long, another replica is asked too: the first may be cut off, which
    Ray notices after 15 s. The first answer counts."""
    MAX_LOST = 6
    """A request is lost with its replica so often, then it is taken for the reason."""
    FIRST_PAUSE_SECONDS = 0.1
    """Before asking again; twice as long each time, while Ray learns which replicas are gone."""
    MAX_ASKED = 3
    """Replicas that are asked the same at once: the second may be on the lost machine as well."""

    def __init__(self, ask: Callable[[], Any]) -> None:
        self._ask = ask
        self._n_lost = 0
        self._running: list[Any] = []
        self._problem: Exception | None = None
        self._next = 0.0  # when to ask where nobody is asked
        self._late = 0.0

    def __enter__(self) -> _Calls:
        return self

    def __exit__(self, *_: object) -> None:
        for call in self._running:
            with contextlib.suppress(Exception):  # it's over
                call.cancel()

    @property
    def is_late(self) -> bool:
        """Whether those that were asked are silent for long, and another may be asked."""
        return 0 < len(self._running) < self.MAX_ASKED and time.monotonic() > self._late

    def add(self) -> None:
        self._late = time.monotonic() + self.HEDGE_SECONDS
        try:
            self._running.append(self._ask())
        except Exception as problem:
            self._lost(problem)

    def poll(self) -> Any | None:
        """Return an answer, waiting for it for a moment; ask again where nobody is asked any more.

        Raises TranscribeError where the request was lost too often.
        """
        if not self._running:
            self._ask_again()
        for call in list(self._running):
            try:
                answer = call.result(timeout_s=self.POLL_SECONDS / len(self._running))
            except TimeoutError:
                continue
            except Exception as problem:  # Ray's own: those of replicas are answers
                self._running.remove(call)
                self._lost(problem)
            else:
                self._running.remove(call)
                return answer
        return None

    def _ask_again(self) -> None:
        if self._n_lost >= self.MAX_LOST:
            raise TranscribeError(
                f"the request was lost {self._n_lost} times, at last with: {_line(self._problem)}"
            ) from self._problem
        time.sleep(min(self.POLL_SECONDS, max(0.0, self._next - time.monotonic())))
        if time.monotonic() >= self._next:
            self.add()

    def _lost(self, problem: Exception) -> None:
        self._problem = problem
        self._next = time.monotonic() + self.FIRST_PAUSE_SECONDS * 2**self._n_lost
        self._n_lost += 1
        _LOGGER.warning("a request was lost and is asked again: %s", _line(problem))


def _line(problem: BaseException | None) -> str:
    """Return a problem in a line: Ray's have many, the last of which says most."""
    lines = str(problem).strip().splitlines() or [""]
    return f"{type(problem).__name__}: {lines[-1].strip()[:200]}"


@contextlib.contextmanager
def joined(address: str) -> Iterator[Any]:
    """Be a driver in the cluster and give the module ray; leave it again when the block fails."""
    ray = _import_ray()
    try:
        _reach(address)
        ray.init(address=address, namespace=APP, log_to_driver=False, logging_level=logging.WARNING)
    except (ConnectionError, OSError) as error:
        raise ModelUnavailableError(
            f"no Ray cluster is at {address}: join this machine to one with ray start, or make it "
            f"the first with ray start --head ({_line(error)})"
        ) from error
    except (RuntimeError, ValueError) as error:  # another version of Ray or Python; no address
        raise SettingsError(f"--ray-address {address} can't be used: {_line(error)}") from error
    try:
        yield ray
    except BaseException:
        ray.shutdown()
        raise


def _reach(address: str, timeout_s: float = 5.0) -> None:
    """Raise OSError where nobody listens: Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    if host:
        socket.create_connection((host.strip("[]"), int(port)), timeout_s).close()


def _import_ray() -> Any:
    """Return the module ray; raises SettingsError without it."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to its makers
    try:
        import ray
        import ray.serve
    except ImportError as error:
        raise SettingsError(
            f"Ray is not installed: pip install 'wyoming-whisper[ray]' ({error})"
        ) from error
    return ray
