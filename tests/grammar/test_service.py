"""Grammars are built in the background, again when the home changes, and kept on disk."""

from __future__ import annotations

import logging
import os
import queue
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support import TIMEOUT_SECONDS
from wyoming_whisper.grammar import compiling, service
from wyoming_whisper.grammar.automaton import Grammar
from wyoming_whisper.grammar.compiling import TemplateStore
from wyoming_whisper.grammar.filling import fill
from wyoming_whisper.grammar.service import GrammarService, HomeLanguages
from wyoming_whisper.grammar.templates import TemplateError, Templates, compile_intents
from wyoming_whisper.grammar.vocabulary import Vocabulary
from wyoming_whisper.home.inventory import CustomFile, Entity, Home
from wyoming_whisper.settings.options import Settings

TOKENS = [bytes((byte,)) for byte in range(256)]
HOME = Home(areas=("Kitchen",), entities=(Entity(("Lamp",), "light"),))


class Store(TemplateStore):
    """Templates without a process of their own."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def templates(self, code: str, own: Sequence[Mapping[str, Any]] = ()) -> Templates:
        self.asked.append(code)
        if code == "la":
            raise TemplateError("Home Assistant has no sentences of 'la'")
        if code == "xx":
            raise ZeroDivisionError
        sentences = {"On": {"data": [{"sentences": ["turn on [the] {name}", "broken ("]}]}}
        return compile_intents({"language": "en", "intents": sentences}, own)


class Running:
    """A service, and what it has built."""

    def __init__(self, expected: Sequence[str] = (), home: Home = HOME) -> None:
        self.store = Store()
        self.service = GrammarService(self.store)
        self._done: queue.Queue[str] = queue.Queue()
        self.service.on_done = self._done.put
        self.service.expect(expected)
        self.service.use_home(home)
        self.spelled: Callable[[], list[bytes]] = lambda: TOKENS

    def next_built(self) -> str:
        """Return the language whose grammar is the next that is there, or can't be."""
        return self._done.get(timeout=TIMEOUT_SECONDS)

    def built(self, language: str) -> Grammar:
        """Return the grammar of a language, when it has been built next."""
        grammar = self.tried(language)
        assert grammar is not None
        return grammar

    def tried(self, language: str) -> Grammar | None:
        self.service.current(language, self.spelled)
        assert self.next_built() == language
        return self.service.current(language, self.spelled)


@pytest.fixture
def running() -> Iterator[Running]:
    running = Running()
    yield running
    running.service.close()


def test_a_grammar_is_there_after_it_was_asked_for(running: Running) -> None:
    assert running.service.current("en", running.spelled) is None
    grammar = running.built("en")
    assert grammar.matches("Turn on the lamp.")
    assert running.service.current("en", running.spelled) is grammar


def test_it_is_built_again_when_the_home_has_changed(running: Running) -> None:
    before = running.built("en")
    running.service.use_home(Home(entities=(Entity(("Fan",), "fan"),)))
    after = running.built("en")
    assert after is not before
    assert after.matches("turn on fan")
    assert not after.matches("turn on lamp")


def test_the_same_home_is_no_reason_to_build(running: Running) -> None:
    running.built("en")
    running.service.use_home(Home(areas=("Kitchen",), entities=(Entity(("Lamp",), "light"),)))
    running.built("de")  # one after the other
    assert running.store.asked == ["en", "de"]


def test_other_tokens_end_all_grammars(running: Running) -> None:
    before = running.built("en")
    running.spelled = lambda: [b"", *TOKENS]
    after = running.built("en")
    assert before.advance(before.begin(), ord("t")) >= 0
    assert after.advance(after.begin(), ord("t") + 1) >= 0
    assert after.advance(after.begin(), ord("t")) < 0
    assert running.store.asked == ["en"]


def test_an_engine_with_the_same_tokens_is_no_reason_to_build(running: Running) -> None:
    grammar = running.built("en")
    other: Callable[[], list[bytes]] = lambda: [*TOKENS]  # noqa: E731
    unread = running.service.current("en", other)
    assert unread is grammar
    assert not unread.is_searchable  # until the tokens have been compared
    running.spelled = other
    running.built("de")  # one after the other
    after = running.service.current("en", other)
    assert after is grammar
    assert after.is_searchable
    assert running.store.asked == ["en", "de"]


def test_what_is_expected_is_there_before_anybody_asks() -> None:
    running = Running(expected=("de", "en"))
    try:
        assert running.next_built() == "en"
        assert running.next_built() == "de"
        grammar = running.service.current("en", running.spelled)
        assert grammar is not None
        assert grammar.matches("turn on lamp")
        assert not grammar.is_searchable  # the model has not been asked for its tokens
        assert {running.next_built(), running.next_built()} == {"de", "en"}
        searchable = running.service.current("en", running.spelled)
        assert searchable is not None
        assert searchable.is_searchable
        assert searchable.matches("turn on lamp")
        assert running.store.asked == ["en", "de"]  # its tokens alone were added
        running.service.use_home(Home(areas=("Hall",)))
        assert {running.next_built(), running.next_built()} == {"de", "en"}
    finally:
        running.service.close()


def test_nothing_is_built_for_a_home_that_is_not_known() -> None:
    running = Running(expected=("en",), home=Home())
    try:
        assert running.service.current("en", running.spelled) is None
        running.service.use_home(HOME)
        assert running.next_built() == "en"
        assert running.store.asked == ["en"]
    finally:
        running.service.close()


def test_languages_that_were_not_asked_for_lately_are_forgotten(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "MAX_LANGUAGES", 2)
    for language in ("en", "de", "fr"):
        running.built(language)
    assert running.service.current("de", running.spelled) is not None
    assert running.service.current("fr", running.spelled) is not None
    running.built("en")
    assert running.store.asked == ["en", "de", "fr", "en"]


@pytest.mark.parametrize(
    ("language", "said"),
    [("la", "There is no grammar of the home in 'la': Home Assistant has no"), ("xx", "can't be")],
)
def test_a_language_that_fails_costs_no_other(
    running: Running, caplog: pytest.LogCaptureFixture, language: str, said: str
) -> None:
    caplog.set_level(logging.INFO)
    assert running.tried(language) is None
    assert running.built("en")
    assert running.service.current(language, running.spelled) is None
    assert said in caplog.text
    assert running.store.asked.count(language) == 1


def test_what_is_left_out_is_one_line(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    names = ("x" * 81, "🔥", "...", "Lamp", "Off")
    running.service.use_home(Home(entities=(Entity(names, "light"), Entity(("Lamp",), "cover"))))
    assert running.built("en").matches("turn on off")
    lines = [r.getMessage() for r in caplog.records if "Left out" in r.getMessage()]
    assert lines[0].startswith("Left out of the grammar in 'en': broken (: it can't be read")
    assert lines[0].endswith("and 1 more")
    assert len(lines[0]) < 600


def test_5000_names_are_a_home(running: Running) -> None:
    lamps = tuple(Entity((f"Lamp {i}",), "light") for i in range(5000))
    running.service.use_home(Home(entities=lamps))
    assert running.built("en").matches("turn on lamp 4999")


def test_sentences_of_the_users_own_are_sentences(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    tea = (
        "language: en\n"
        "intents: {Tea: {data: [{sentences: ['make {tea} tea']}]}}\n"
        "lists: {tea: {values: [green, black]}}\n"
    )
    files = (
        CustomFile("en", "tea.yaml", tea),
        CustomFile("de", "tee.yaml", "intents: {T: {data: [{sentences: [tee bitte]}]}}"),
        CustomFile("en", "broken.yaml", "["),
        CustomFile("en", "list.yaml", "[tea]"),
        CustomFile("en", "away.yaml", mistake="away.yaml can't be read"),
    )
    running.service.use_home(Home(sentences=("play {album} by {artist}",), custom_sentences=files))
    grammar = running.built("en")
    assert grammar.matches("make green tea")
    assert not grammar.matches("make red tea")
    assert not grammar.matches("tee bitte")
    assert grammar.matches("Play Thriller by Michael Jackson")
    mistakes = "broken.yaml is not YAML; list.yaml has no intents; away.yaml can't be read"
    assert mistakes in caplog.text
    other = CustomFile("en", "tea.yaml", "intents: {T: {data: [{sentences: [tea please]}]}}")
    running.service.use_home(Home(custom_sentences=(other,)))
    assert running.built("en").matches("tea please")


# -- on disk -------------------------------------------------------------------------------


def test_templates_are_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = TemplateStore(tmp_path / "grammar")
    own = [{"sentences": ["it's party time"]}]
    templates = store.templates("ga", own)
    files = [*(tmp_path / "grammar").iterdir()]
    assert len(files) == 1
    monkeypatch.setattr(compiling, "_run", lambda *_: pytest.fail("it is there"))
    again = store.templates("ga", own)
    assert again.network.labels.tolist() == templates.network.labels.tolist()
    assert again.slots == templates.slots


def test_as_many_files_of_a_language_stay_as_there_are_homes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = TemplateStore(tmp_path, n_kept=2)
    for age, sentence in ((3, "one"), (2, "two"), (1, "three")):
        store.templates("ga", [{"sentences": [sentence]}])
        newest = max(tmp_path.iterdir(), key=lambda file: file.stat().st_mtime)
        os.utime(newest, (0, 1_000 - age))
    assert len([*tmp_path.iterdir()]) == 2
    monkeypatch.setattr(compiling, "_run", lambda *_: pytest.fail("it is there"))
    for sentence in ("two", "three"):
        assert store.templates("ga", [{"sentences": [sentence]}])


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (Settings(language="pt-BR"), HomeLanguages(("pt",), (("pt", "BR"),))),
        (
            Settings(language="de_CH", languages=("de", "fr")),
            HomeLanguages(("de",), (("de", "CH"),)),
        ),
        (Settings(language="nb"), HomeLanguages(("no",), (("no", ""),))),
        (Settings(language="auto", languages=("de", "fr")), HomeLanguages(("de", "fr"))),
        (Settings(language="auto"), HomeLanguages()),
    ],
)
def test_the_languages_of_a_home_are_those_of_the_settings(
    settings: Settings, expected: HomeLanguages
) -> None:
    assert HomeLanguages.of(settings) == expected


def test_a_region_has_its_own_templates_where_there_are_some(tmp_path: Path) -> None:
    regional = TemplateStore(tmp_path, {"pt": "br", "ga": "IE", "no": "NO", "yue": "HK"})
    assert regional.templates("pt").language == "pt-BR"
    assert TemplateStore(tmp_path).templates("pt").language == "pt"
    assert regional.templates("ga").language == "ga"
    assert regional.templates("no").language == "nb"
    assert regional.templates("yue").language == "zh-HK"


def test_broken_and_old_files_are_made_again(tmp_path: Path) -> None:
    store = TemplateStore(tmp_path)
    store.templates("ga")
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    (tmp_path / "ga-0123.npz").write_bytes(whole)
    for broken in (b"", b"no archive", whole[:-100], whole.replace(b"about", b"abort")):
        file.write_bytes(broken)
        assert len(store.templates("ga").network) > 100
        assert [*tmp_path.iterdir()] == [file]
        assert Templates.load(file)


def test_a_language_without_sentences_is_said(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match=r"^Home Assistant has no sentences of 'la'$"):
        TemplateStore(tmp_path).templates("la")
    assert [*tmp_path.iterdir()] == []


def test_a_folder_that_cant_be_written_costs_a_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    store = TemplateStore(tmp_path / "file" / "grammar")
    assert len(store.templates("ga").network) > 100
    (line,) = caplog.messages
    assert line.startswith("the sentences of 'ga' are made anew at each start: ")
    assert [*tmp_path.iterdir()] == [tmp_path / "file"]


def test_packages_that_are_missing_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "PACKAGES", ("no-such-package",))
    with pytest.raises(TemplateError, match=r"^the package no-such-package is not installed$"):
        TemplateStore(tmp_path).templates("ga")


def test_what_takes_too_long_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "SECONDS", 0.001)
    with pytest.raises(TemplateError, match="took more than"):
        TemplateStore(tmp_path).templates("de")


HOSTILE = [
    "a " * 100 + "(a|b)" * 300,
    "(" * 2000 + "a" + ")" * 2000,
    "[a] " * 200,
    "(a;b;c;d;e;f;g)",
    "{no_list}",
    "<no_rule>",
    "<loop>",
    "",
    7,
    None,
    ["a"],
    "\x00\ud800",
]


@pytest.mark.parametrize("template", HOSTILE)
def test_a_template_that_cant_be_used_costs_no_other(template: object) -> None:
    content = {
        "language": "en",
        "intents": {
            "A": {"data": [{"sentences": [template, "turn on"]}, 7, {"sentences": "no list"}]},
            "B": None,
        },
        "expansion_rules": {"loop": "a <loop>", 5: "x", "bad": "("},
        "lists": {"x": 7},
    }
    templates = compile_intents(content)
    assert len(templates.network) < 50_000
    assert fill(templates, HOME, Vocabulary(TOKENS)).matches("Turn on.")
