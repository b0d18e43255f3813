"""The homes that front ends speak for, on the replicas that answer them.

What travels is a home's description, once for each change: a front end puts it where replicas can
fetch it, and its requests name the version. A replica makes names and grammars of it in the
background, as a server does; no request waits for that.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from ..grammar.service import GrammarService, HomeTexts
from ..home.index import NameIndex
from ..tasks import start_task
from .front_end import HomeDescription, SharedHome

_LOGGER = logging.getLogger(__name__)


class _HeldHome:
    """A home as far as it is there, and what is done for more of it."""

    def __init__(self) -> None:
        self.version: str | None = None
        """That which `names` and `grammars` are of; None while there is neither."""
        self.names: NameIndex | None = None
        self.grammars: GrammarService | None = None
        self.fetching: asyncio.Task[None] | None = None
        self.last_used = 0.0

    def texts(self, *, with_sentences: bool) -> HomeTexts | None:
        if self.names is None:
            return None
        return HomeTexts(self.names, self.grammars if with_sentences else None)


class Homes:
    """The homes of all front ends that ask a replica. Belongs to the event loop.

    Grammars are kept in `folder`, one for all replicas of a machine.
    """

    MAX_HOMES = 32
    IDLE_SECONDS = 600.0
    """Nobody has spoken in a home for so long where another one takes its place: were there no
    room for all, their grammars would be made again and again."""
    FORGOTTEN_SECONDS = 86_400.0
    """A home in which nobody has spoken for so long is not there any more, or is another now."""
    FETCH_SECONDS = 30.0

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._clock = clock
        self._homes: OrderedDict[str, _HeldHome] = OrderedDict()
        """By the version that was last asked for, the one used last at the end."""
        self._is_full = False  # that was said

    def texts(self, shared: SharedHome) -> HomeTexts | None:
        """Return what a text is compared with now, None before the home is there; have it fetched.

        Of a home that has changed that is what it was before, until the new one is there.
        """
        home = self._homes.get(shared.version) or self._admit(shared)
        if home is None:
            return None
        self._homes.move_to_end(shared.version)
        home.last_used = self._clock()
        if home.version != shared.version and home.fetching is None:
            home.fetching = start_task(self._fetch(home, shared), "fetching a home")
        return home.texts(with_sentences=shared.with_sentences)

    def _admit(self, shared: SharedHome) -> _HeldHome | None:
        """Return what will hold another version of a home, or another home; None without room."""
        home = self._homes.pop(shared.replaces, None) if shared.replaces else None
        if home is None and not self._make_room():
            if not self._is_full:
                _LOGGER.warning(
                    "this replica has %d homes, and no room for another: texts of that are not "
                    "compared with its names and sentences",
                    self.MAX_HOMES,
                )
            self._is_full = True
            return None
        self._is_full = False
        self._homes[shared.version] = home = home or _HeldHome()
        return home

    def _make_room(self) -> bool:
        """Let go of homes in which nobody speaks; return whether there is room for another."""
        for version, home in [*self._homes.items()]:
            is_full = len(self._homes) >= self.MAX_HOMES
            longest = self.IDLE_SECONDS if is_full else self.FORGOTTEN_SECONDS
            if self._clock() - home.last_used < longest:
                break
            del self._homes[version]
            if home.grammars:
                home.grammars.close()
        return len(self._homes) < self.MAX_HOMES

    async def _fetch(self, home: _HeldHome, shared: SharedHome) -> None:
        """Have the home be what its description says."""
        try:
            reference, seconds = shared.reference, self.FETCH_SECONDS
            description: HomeDescription = await asyncio.wait_for(reference, seconds)
            names = await asyncio.to_thread(NameIndex, description.names)
        except Exception as error:  # Ray's own: the next request tries again
            _LOGGER.warning("the names and sentences of a home did not come: %r", error)
            return
        finally:
            home.fetching = None
        if self._homes.get(shared.version) is not home:  # it has changed again, or is gone
            return
        if home.grammars is None:
            home.grammars = GrammarService.speaking(
                description.languages, self._folder, n_homes=self.MAX_HOMES
            )
        home.grammars.use_home(description.home)
        home.names, home.version = names, shared.version
