"""The homes of front ends on a replica: fetched beside requests, followed, and forgotten."""

from __future__ import annotations

import asyncio
import logging
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support import Clock, until
from wyoming_whisper.cluster.front_end import HomeDescription, SharedHome
from wyoming_whisper.cluster.homes import Homes
from wyoming_whisper.grammar.automaton import Grammar
from wyoming_whisper.grammar.compiling import TemplateStore
from wyoming_whisper.grammar.service import HomeLanguages
from wyoming_whisper.grammar.templates import Templates, compile_intents
from wyoming_whisper.home.inventory import CustomFile, Entity, Home

TOKENS = [bytes((byte,)) for byte in range(256)]
ENGLISH = HomeLanguages(("en",), (("en", "GB"),))


def spelled() -> list[bytes]:
    return TOKENS


def described(*names: str) -> HomeDescription:
    return HomeDescription(names, Home(entities=(Entity(names, "light"),)), ENGLISH)


@dataclass
class Reference:
    """Stands for Ray's reference to what a front end has put."""

    value: HomeDescription
    fetched: int = 0
    is_lost: bool = False
    there: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.there.set()

    def __await__(self) -> Any:
        self.fetched += 1
        return self._get().__await__()

    async def _get(self) -> HomeDescription:
        await self.there.wait()
        if self.is_lost:
            raise ConnectionError("its owner has died")
        return pickle.loads(pickle.dumps(self.value))  # type: ignore[no-any-return]


def shared(
    reference: Reference, replaces: SharedHome | None = None, *, with_sentences: bool = True
) -> SharedHome:
    before = replaces.version if replaces else None
    return SharedHome(reference.value.version, before, reference, with_sentences)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Templates without a process of their own."""

    def templates(_: TemplateStore, code: str, own: Sequence[Mapping[str, Any]] = ()) -> Templates:
        sentences = {"On": {"data": [{"sentences": ["turn on [the] {name}"]}]}}
        return compile_intents({"language": code, "intents": sentences}, own)

    monkeypatch.setattr(TemplateStore, "templates", templates)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def homes(clock: Clock, tmp_path: Path) -> Iterator[Homes]:
    homes = Homes(tmp_path, clock)
    yield homes
    for home in homes._homes.values():
        if home.grammars:
            home.grammars.close()


def names(homes: Homes, home: SharedHome) -> tuple[str, ...]:
    texts = homes.texts(home)
    return texts.names.names if texts else ()


def grammar(homes: Homes, home: SharedHome) -> Grammar | None:
    texts = homes.texts(home)
    return texts.grammars.current("en", spelled) if texts and texts.grammars else None


def understands(homes: Homes, home: SharedHome, text: str) -> Callable[[], bool]:
    def asked() -> bool:
        there = grammar(homes, home)
        return there is not None and there.matches(text)

    return asked


async def test_requests_go_on_while_a_home_is_fetched_once(homes: Homes) -> None:
    reference = Reference(described("Kitchen Lamp"))
    reference.there.clear()
    home = shared(reference)
    assert [homes.texts(home) for _ in range(3)] == [None] * 3
    await until(lambda: reference.fetched)
    reference.there.set()
    await until(lambda: names(homes, home) == ("Kitchen Lamp",))
    await until(understands(homes, home, "Turn on the kitchen lamp."))
    assert reference.fetched == 1


async def test_what_is_no_command_gets_the_names_alone(homes: Homes) -> None:
    reference = Reference(described("Kitchen Lamp"))
    await until(lambda: names(homes, shared(reference)))
    texts = homes.texts(shared(reference, with_sentences=False))
    assert texts is not None
    assert (texts.names.names, texts.grammars) == (("Kitchen Lamp",), None)


async def test_a_home_stays_as_it_was_until_the_new_one_is_there(homes: Homes) -> None:
    before = shared(Reference(described("Kitchen Lamp")))
    await until(understands(homes, before, "turn on kitchen lamp"))
    reference = Reference(described("Hall Lamp"))
    reference.there.clear()
    after = shared(reference, before)
    assert names(homes, after) == ("Kitchen Lamp",)
    assert understands(homes, after, "turn on kitchen lamp")()
    reference.there.set()
    await until(lambda: names(homes, after) == ("Hall Lamp",))
    await until(understands(homes, after, "turn on hall lamp"))
    assert not understands(homes, after, "turn on kitchen lamp")()


async def test_a_home_that_changes_while_it_is_fetched_is_the_last_one(homes: Homes) -> None:
    late, reference = Reference(described("Kitchen Lamp")), Reference(described("Hall Lamp"))
    late.there.clear()
    before = shared(late)
    homes.texts(before)
    await until(lambda: late.fetched)
    after = shared(reference, before)
    assert names(homes, after) == ()
    late.there.set()
    await until(lambda: names(homes, after))
    assert names(homes, after) == ("Hall Lamp",)
    assert (late.fetched, reference.fetched) == (1, 1)


async def test_front_ends_of_one_home_share_it(homes: Homes) -> None:
    one, other = (Reference(described("Kitchen Lamp")) for _ in range(2))
    await until(lambda: names(homes, shared(one)))
    assert names(homes, shared(other)) == ("Kitchen Lamp",)
    assert other.fetched == 0
    assert shared(other).version != shared(Reference(described("Hall Lamp"))).version


async def test_what_does_not_come_is_asked_for_again(
    homes: Homes, caplog: pytest.LogCaptureFixture
) -> None:
    reference = Reference(described("Kitchen Lamp"), is_lost=True)
    home = shared(reference)
    assert homes.texts(home) is None
    await until(lambda: "its owner has died" in caplog.text)
    reference.is_lost = False
    await until(lambda: names(homes, home) == ("Kitchen Lamp",))


async def test_what_hangs_is_given_up(
    homes: Homes, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Homes, "FETCH_SECONDS", 0.01)
    reference = Reference(described("Kitchen Lamp"))
    reference.there.clear()
    assert homes.texts(shared(reference)) is None
    await until(lambda: "did not come: TimeoutError" in caplog.text)


async def test_homes_find_room_where_nobody_speaks(
    homes: Homes, clock: Clock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Homes, "MAX_HOMES", 2)
    first, second, third = (shared(Reference(described(f"Lamp {n}"))) for n in "ABC")
    for home in (first, second):
        await until(lambda home=home: names(homes, home))  # type: ignore[misc]
    for _ in range(2):
        assert homes.texts(third) is None
    assert caplog.text.count("has 2 homes, and no room for another") == 1
    clock.now = Homes.IDLE_SECONDS
    assert names(homes, first)
    await until(lambda: names(homes, third) == ("Lamp C",))
    assert names(homes, first)
    assert homes.texts(second) is None
    assert second.reference.fetched == 1


async def test_homes_are_forgotten_after_a_day(homes: Homes, clock: Clock) -> None:
    first, second, third = (shared(Reference(described(f"Lamp {n}"))) for n in "ABC")
    await until(lambda: names(homes, first))
    clock.now = Homes.FORGOTTEN_SECONDS - 1
    await until(lambda: names(homes, second))
    assert names(homes, first)
    clock.now = 3 * Homes.FORGOTTEN_SECONDS
    assert names(homes, second)  # that of one who speaks again
    await until(lambda: names(homes, third))
    assert homes.texts(first) is None
    assert names(homes, second)


def test_a_version_tells_descriptions_apart() -> None:
    names, home = ("Lamp",), Home(("Hall",), sentences=("a",))
    custom = (CustomFile("en", "tea.yaml", "intents: {}"),)
    others = [
        HomeDescription((), home, ENGLISH),
        HomeDescription(names, Home(("Hall",)), ENGLISH),
        HomeDescription(names, Home(("Hall",), sentences=("a",), custom_sentences=custom), ENGLISH),
        HomeDescription(names, home, HomeLanguages(("en",))),
        HomeDescription(names, home, HomeLanguages(("de", "en"))),
    ]
    description = HomeDescription(names, home, ENGLISH)
    assert pickle.loads(pickle.dumps(description)).version == description.version
    assert len({one.version for one in (description, *others)}) == len(others) + 1


async def test_grammars_of_expected_languages_are_made_before_anybody_asks(
    homes: Homes, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    made = TemplateStore.templates

    def templates(store: TemplateStore, code: str, own: Any = ()) -> Templates:
        asked.append(code)
        return made(store, code, own)

    monkeypatch.setattr(TemplateStore, "templates", templates)
    caplog.set_level(logging.INFO)
    assert homes.texts(shared(Reference(described("Kitchen Lamp")), with_sentences=False)) is None
    await until(lambda: asked == ["en"])
