"""The grammars of the current home, one for each language that is spoken in it.

They are built on a thread of low priority, and nobody waits for one: until it is there, there is
none.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..home.index import NameIndex
from ..home.inventory import Home
from .automaton import Grammar
from .compiling import Own, TemplateStore
from .custom import parse_custom_sentences
from .filling import fill, unsayable
from .templates import TemplateError, Templates
from .vocabulary import Vocabulary

if TYPE_CHECKING:
    from ..settings.options import Settings

_LOGGER = logging.getLogger(__name__)

Spelled = Callable[[], Sequence[bytes]]

MAX_LANGUAGES = 4
"""Those last asked for are kept."""

NICENESS = 10
SHOWN = 3  # of what is left out, in a line of the log


@dataclass(frozen=True)
class HomeLanguages:
    """The languages that are spoken in a home, as far as that is known."""

    expected: tuple[str, ...] = ()
    """Whisper's codes of those whose grammars are made before anybody asks."""
    regions: tuple[tuple[str, str], ...] = ()
    """(Whisper's code, region): Home Assistant has sentences of pt-BR, too."""

    @classmethod
    def of(cls, settings: Settings) -> HomeLanguages:
        """Return the languages that the user set. Raises SettingsError."""
        language, region = settings.spoken_language, settings.language.replace("_", "-")
        if not language:
            return cls(settings.languages)
        return cls((language,), ((language, region.partition("-")[2]),))


@dataclass(frozen=True, eq=False)
class HomeTexts:
    """What misheard texts are compared with: names of the home, and its sentences."""

    names: NameIndex
    grammars: GrammarService | None = None
    """None where texts are not to be compared with sentences, or others make the grammars."""
    home: Home | None = None
    """That of the sentences, for those others; None where texts are not to be compared."""


@dataclass
class _Entry:
    """A language: its grammar, and what that was made of."""

    grammar: Grammar | None = None
    home: Home | None = None
    """That of the grammar."""
    made_of: tuple[Home, Vocabulary | None] | None = None


@dataclass(frozen=True)
class _Work:
    """A grammar that is to be built."""

    language: str
    home: Home
    vocabulary: Vocabulary | None


class GrammarService:
    """Grammars by language. Every method may be called from any thread, and returns at once."""

    def __init__(self, store: TemplateStore, *, free_text: bool = True) -> None:
        self._store = store
        self._free_text = free_text
        self._home = Home()
        self._spelled: Spelled | None = None
        self._vocabulary: tuple[Spelled, Vocabulary] | None = None
        """Of the model that asked last, as the thread knows it."""
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._changed = threading.Condition()
        self._stopped = False
        self._thread: threading.Thread | None = None
        self.on_done: Callable[[str], None] = lambda language: None
        """Called on the thread that builds, with a language whose grammar is there or can't be."""

    @classmethod
    def speaking(cls, languages: HomeLanguages, folder: Path, n_homes: int = 1) -> GrammarService:
        """Return a service whose templates are in `folder`, which so many homes share."""
        service = cls(TemplateStore(folder, dict(languages.regions), n_homes))
        service.expect(languages.expected)
        return service

    def use_home(self, home: Home) -> None:
        """Have grammars of this home; those of the last one stay until they are there."""
        with self._changed:
            self._home = home
            if self._entries:
                self._start()
            self._changed.notify()

    def expect(self, languages: Iterable[str]) -> None:
        """Have the grammars of these made before anybody asks, as soon as there is a home."""
        with self._changed:
            for language in [*languages][:MAX_LANGUAGES]:
                self._entries.setdefault(language, _Entry())

    def current(self, language: str, spelled: Spelled) -> Grammar | None:
        """Return the grammar of a language (Whisper's code), None where there is none yet.

        It is then made. `spelled` gives the bytes of the model's tokens by number, and is called on
        the thread that builds; until then a grammar can't be searched with this model. Where there
        is a search, who asks is always the same thread (see Grammar).
        """
        with self._changed:
            if spelled != self._spelled:
                self._spelled = spelled
                self._changed.notify()
            entry = self._entries.get(language)
            if entry is None:
                entry = self._entries[language] = _Entry()
                self._changed.notify()
            self._start()
            self._entries.move_to_end(language)
            while len(self._entries) > MAX_LANGUAGES:
                self._entries.popitem(last=False)
            grammar = entry.grammar
            if grammar:
                of, vocabulary = self._vocabulary or (None, None)
                grammar.allow_search(vocabulary if of == spelled else None)
            return grammar

    def close(self) -> None:
        """Have nothing more be built; what is being built is thrown away."""
        with self._changed:
            self._stopped = True
            self._changed.notify()

    # -- the thread that builds --------------------------------------------------------------

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="grammars", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        try:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        except OSError as error:
            _LOGGER.debug("the thread of the grammars keeps its priority: %s", error)
        while (work := self._next()) is not None:
            language = work.language
            try:
                self._build(work)
            except TemplateError as error:
                _LOGGER.info("There is no grammar of the home in %r: %s", language, error)
            except Exception:  # a home is sent by others: what nobody foresaw costs the grammar
                _LOGGER.exception("The grammar of the home in %r can't be built", language)
            self.on_done(language)

    def _next(self) -> _Work | None:
        """Wait for a language whose grammar is not of the current home; None at the end."""
        while True:
            with self._changed:
                home, spelled, languages = self._home, self._spelled, [*reversed(self._entries)]
            vocabulary = self._read_vocabulary(spelled)
            with self._changed:
                if self._stopped:
                    return None
                for language in languages if home != Home() else ():
                    entry = self._entries.get(language)
                    if entry and entry.made_of != (home, vocabulary):
                        entry.made_of = (home, vocabulary)
                        return _Work(language, home, vocabulary)
                now = self._home, self._spelled, [*reversed(self._entries)]
                if now == (home, spelled, languages):
                    self._changed.wait()

    def _read_vocabulary(self, spelled: Spelled | None) -> Vocabulary | None:
        """Return a model's vocabulary; the one at hand where its tokens are the same."""
        before = self._vocabulary
        if spelled is None or (before and before[0] == spelled):
            return before[1] if before else None
        tokens: tuple[bytes, ...] = ()
        try:
            tokens = tuple(spelled())
        except Exception:  # a model is the user's: its grammars are not searched then
            _LOGGER.exception("The tokens of the model can't be read")
        same = before[1] if before and before[1].tokens == tokens else None
        vocabulary = same or Vocabulary(tokens)
        with self._changed:
            self._vocabulary = spelled, vocabulary
        return vocabulary

    def _build(self, work: _Work) -> None:
        """Build a grammar and put it where it is asked for. Raises TemplateError."""
        began = time.monotonic()
        with self._changed:
            entry = self._entries.get(work.language, _Entry())
            before = entry.grammar if entry.home == work.home else None
        # The same home was there before any model had asked, or for another model.
        grammar = before.with_vocabulary(work.vocabulary) if before else self._filled(work)
        grammar.warm()
        with self._changed:
            if self._entries.get(work.language) is not entry or self._stopped:
                return
            entry.grammar, entry.home = grammar, work.home
        if work.vocabulary is not None:
            seconds = time.monotonic() - began
            _LOGGER.info("The grammar of the home in %r is there (%.1f s)", work.language, seconds)

    def _filled(self, work: _Work) -> Grammar:
        """Return the sentences of a home, and log which are left out. Raises TemplateError."""
        own, mistakes = _own(work.home, work.language)
        templates = self._store.templates(work.language, own)
        _log_left_out(work.language, templates, work.home, mistakes)
        return fill(templates, work.home, work.vocabulary, free_text=self._free_text)


def _own(home: Home, language: str) -> tuple[Own, list[str]]:
    """Return the user's own sentences, and one sentence for each file that can't be used."""
    files = [file for file in home.custom_sentences if file.language == language]
    custom, mistakes = parse_custom_sentences(files)
    return [*custom, {"sentences": list(home.sentences)}] if home.sentences else custom, mistakes


def _log_left_out(language: str, templates: Templates, home: Home, mistakes: Sequence[str]) -> None:
    left_out = [*mistakes, *templates.left_out, *unsayable(home)]
    if left_out:
        more = f", and {len(left_out) - SHOWN} more" if len(left_out) > SHOWN else ""
        shown = "; ".join(left_out[:SHOWN])
        _LOGGER.info("Left out of the grammar in %r: %s%s", language, shown, more)
