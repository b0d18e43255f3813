"""Following Home Assistant, against a real websocket server that speaks as Home Assistant does.

The client was also run against the real 2026.11.0 (5,000 exposed entities) and 2025.4.4: names, an
area renamed, a floor and an alias added, a user who is no administrator, a wrong token, one revoked
meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.home_standin import TOKEN, Home, serving
from tests.support import TIMEOUT_SECONDS, FakeTranscriber, until
from wyoming_whisper.errors import SettingsError
from wyoming_whisper.home import household, inventory
from wyoming_whisper.home.household import HomeNames, _socket_url
from wyoming_whisper.home.index import NameIndex
from wyoming_whisper.serving.server import Server
from wyoming_whisper.settings.options import Settings
from wyoming_whisper.transcriber import TranscribeOptions
from wyoming_whisper.utterance.job import Priority


@pytest.fixture
async def home() -> AsyncIterator[Home]:
    home = Home(
        areas=[{"area_id": "k", "name": "Kitchen", "aliases": ["Scullery"]}],
        floors=[{"floor_id": "a", "name": "Attic", "aliases": []}],
        entities={
            "light.zorbo": ("Zorbo Lamp", [None, "Zorbo"]),
            "light.plain": ("Big Bertha", []),
            "lock.safe": ("Secret Safe", []),
        },
        hidden={"lock.safe"},
    )
    async with serving(home):
        yield home


class Told:
    """What was told of the home, to be waited for."""

    def __init__(self) -> None:
        self._names: asyncio.Queue[tuple[str, ...]] = asyncio.Queue()

    def __call__(self, home: inventory.Home) -> None:
        self.home = home
        self._names.put_nowait(home.names)

    async def next(self) -> tuple[str, ...]:
        return await asyncio.wait_for(self._names.get(), TIMEOUT_SECONDS)

    @property
    def is_silent(self) -> bool:
        return self._names.empty()


@contextlib.asynccontextmanager
async def following(
    url: str, token: str = TOKEN, delay: float = 0.01
) -> AsyncIterator[tuple[Told, asyncio.Task[None]]]:
    told = Told()
    names = HomeNames(Settings(data_dir=()), None)
    names.FIRST_DELAY_SECONDS, names.SETTLE_SECONDS = delay, 0.05
    names.on_home = told
    task = asyncio.create_task(names._follow_home_assistant(_socket_url(url), token))
    try:
        yield told, task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(
    ("api", "url"),
    [
        ("http://homeassistant.local:8123/api", "ws://homeassistant.local:8123/api/websocket"),
        ("http://10.0.0.2:8123", "ws://10.0.0.2:8123/api/websocket"),
        ("https://home.example.org/", "wss://home.example.org/api/websocket"),
        ("ws://10.0.0.2:8123/api/websocket", "ws://10.0.0.2:8123/api/websocket"),
    ],
)
def test_the_websocket_is_found_from_any_spelling(api: str, url: str) -> None:
    assert _socket_url(api) == url


async def test_names_are_those_of_areas_floors_and_exposed_entities(home: Home) -> None:
    async with following(home.url) as (told, _):
        names = await told.next()
    assert names == ("Kitchen", "Scullery", "Attic", "Zorbo Lamp", "Zorbo", "Big Bertha")
    entities = next(a for a in home.asked if a["type"] == "subscribe_entities")
    assert entities["entity_ids"] == ["light.zorbo", "light.plain"]
    # The states were wanted once: their changes are none of the names'.
    unsubscribed = next(a for a in home.asked if a["type"] == "unsubscribe_events")
    assert unsubscribed["subscription"] == entities["id"]


async def test_what_things_are_is_known_of_them(home: Home) -> None:
    home.device_classes["light.plain"] = "bulb"
    home.sentences = ["it's party time", " play {album}  by {artist}", 7]
    async with following(home.url) as (told, _):
        await told.next()
    assert told.home == inventory.Home(
        areas=("Kitchen", "Scullery"),
        floors=("Attic",),
        entities=(
            inventory.Entity(("Zorbo Lamp", "Zorbo"), "light"),
            inventory.Entity(("Big Bertha",), "light", "bulb"),
        ),
        sentences=("it's party time", "play {album} by {artist}"),
    )


async def test_a_home_without_automations_sentences_is_one(home: Home) -> None:
    home.refused = {"conversation/sentences/list"}
    async with following(home.url) as (told, _):
        assert "Kitchen" in await told.next()
    assert told.home.sentences == ()


@pytest.mark.parametrize(
    "event", ["entity_registry_updated", "area_registry_updated", "floor_registry_updated"]
)
async def test_a_change_is_known_without_asking_for_it(home: Home, event: str) -> None:
    async with following(home.url) as (told, _):
        await told.next()
        home.entities["light.plain"] = ("Little Lotte", [])
        await home.changed(event)
        assert "Little Lotte" in await told.next()


async def test_many_changes_are_one(home: Home) -> None:
    async with following(home.url) as (told, _):
        await told.next()
        before = home.count("config/area_registry/list")
        home.areas.append({"area_id": "n", "name": "Narnia"})
        for _ in range(50):
            await home.changed("entity_registry_updated")
        assert "Narnia" in await told.next()
        assert home.count("config/area_registry/list") == before + 1


async def test_changes_that_change_no_name_are_not_told(home: Home) -> None:
    async with following(home.url) as (told, _):
        await told.next()
        asked = home.count("config/area_registry/list")
        await home.changed("device_registry_updated")
        await until(lambda: home.count("config/area_registry/list") > asked)
        home.areas.clear()
        await home.changed("area_registry_updated")
        assert "Kitchen" not in await told.next()
        assert told.is_silent


async def test_a_wrong_token_is_said_once_and_not_tried_again(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    async with following(home.url, "hunter2") as (told, task):
        await asyncio.wait_for(task, TIMEOUT_SECONDS)
    assert home.logins == 1  # Home Assistant bans addresses that go on
    assert told.is_silent
    (warning,) = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert "it does not accept the token" in warning.getMessage()
    assert "hunter2" not in caplog.text


async def test_a_connection_that_ends_is_made_again(home: Home) -> None:
    async with following(home.url) as (told, _):
        await told.next()
        home.areas.append({"area_id": "n", "name": "Narnia"})
        await home.hang_up()
        assert "Narnia" in await told.next()
        assert home.logins == 2
        # And it follows what changes on the new one.
        home.areas.clear()
        await home.changed("area_registry_updated")
        assert "Narnia" not in await told.next()


async def test_waits_grow_and_only_a_long_absence_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    waited: list[float] = []
    slept = asyncio.sleep

    async def sleep(seconds: float) -> None:
        waited.append(seconds)
        await slept(0)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    async with following("http://127.0.0.1:1", delay=5.0):
        deadline = asyncio.get_running_loop().time() + TIMEOUT_SECONDS
        while len(waited) < 9:
            assert asyncio.get_running_loop().time() < deadline
            await slept(0.005)
    assert waited[:9] == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    warnings = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert HomeNames.PATIENCE == 4
    assert "can't get names" in warnings[0].getMessage()


async def test_who_is_no_administrator_gets_areas_and_floors(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    home.administrator = False
    async with following(home.url) as (told, _):
        assert await told.next() == ("Kitchen", "Scullery", "Attic")
    assert "no administrator" in caplog.text


async def test_a_version_without_floors_is_followed_too(home: Home) -> None:
    home.refused = {"config/floor_registry/list"}
    async with following(home.url) as (told, _):
        assert "Attic" not in await told.next()


async def test_five_thousand_entities_are_one_question(home: Home) -> None:
    home.entities = {f"light.n{n}": (f"Lamp number {n}", [f"Light {n}"]) for n in range(5000)}
    async with following(home.url) as (told, _):
        names = await told.next()
    assert len(names) == 10_003
    assert home.count("subscribe_entities") == 1
    assert home.count("config/entity_registry/get_entries") == 1


@pytest.mark.parametrize(
    "areas",
    [[{"name": None}, {"name": 3, "aliases": "x"}, {"aliases": [1, None, "  "]}], "nonsense", None],
)
async def test_what_is_no_name_is_passed_over(home: Home, areas: Any) -> None:
    home.areas = areas
    home.floors = [{"name": "  Upper   Floor "}]
    async with following(home.url) as (told, _):
        if isinstance(areas, list):
            assert (await told.next())[0] == "Upper Floor"
            return
        await until(lambda: home.logins >= 3)  # it goes on trying, and nothing breaks
        assert told.is_silent


async def test_a_message_that_is_too_long_ends_the_connection_not_the_server(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(household._Connection, "MAX_MESSAGE_BYTES", 2000)
    home.areas = [{"name": "x" * 5000}]
    async with following(home.url) as (told, task):
        await until(lambda: home.logins >= 3)
        assert told.is_silent
        assert not task.done()


# -- in the server -------------------------------------------------------------------------


def settings(tmp_path: Path, **changes: Any) -> Settings:
    return Settings(data_dir=(tmp_path,), uri="tcp://127.0.0.1:0", model="tiny", **changes)


async def test_the_users_names_and_home_assistants_are_one_index(
    home: Home, tmp_path: Path
) -> None:
    names = HomeNames(
        settings(tmp_path, names=("Fritz",), hass_api=home.url, hass_token=TOKEN), None
    )
    assert names.index is None
    async with names.followed():
        await until(lambda: names.index is not None and "Kitchen" in names.index.names)
        assert names.index is not None
        assert names.index.names[0] == "Fritz"


@pytest.mark.parametrize("own", [(), ("Fritz",)])
async def test_of_a_home_that_knows_no_names_any_more_the_users_own_stay(
    home: Home, tmp_path: Path, own: tuple[str, ...]
) -> None:
    names = HomeNames(settings(tmp_path, names=own, hass_api=home.url, hass_token=TOKEN), None)
    async with names.followed():
        await until(lambda: names.index is not None and "Kitchen" in names.index.names)
        await names._update(inventory.Home())
        assert names.index is not None
        assert names.index.names == own


async def test_a_file_home_assistant_and_names_are_one(home: Home, tmp_path: Path) -> None:
    file = tmp_path / "home.yaml"
    file.write_text("areas: [Narnia]")
    names = HomeNames(
        settings(tmp_path, names=("Fritz",), home=file, hass_api=home.url, hass_token=TOKEN), None
    )
    heard: list[inventory.Home] = []
    names.on_home = heard.append
    async with names.followed():
        await until(lambda: names.index is not None and "Kitchen" in names.index.names)
    assert names.index is not None
    assert names.index.names[:3] == ("Fritz", "Narnia", "Kitchen")
    assert names.home.areas == ("Narnia", "Kitchen", "Scullery")
    assert heard[0].areas == ("Narnia",)
    assert heard[-1] == names.home


async def test_a_file_is_read_again_when_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(household, "FILE_SECONDS", 0.01)
    file = tmp_path / "home.yaml"
    file.write_text("areas: [Narnia]")
    names = HomeNames(settings(tmp_path, home=file), None)
    heard: asyncio.Queue[inventory.Home] = asyncio.Queue()
    names.on_home = heard.put_nowait

    async def areas() -> tuple[str, ...]:
        return (await asyncio.wait_for(heard.get(), TIMEOUT_SECONDS)).areas

    async with names.followed():
        assert await areas() == ("Narnia",)
        file.write_text("areas: 7777")
        await until(lambda: "areas must be a list" in caplog.text)
        assert names.home.areas == ("Narnia",)
        file.write_text("areas: [Oz, Narnia]")
        assert await areas() == ("Oz", "Narnia")
    assert caplog.text.count("areas must be a list") == 1


def test_a_file_that_cant_be_read_is_said_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^--home: .*nowhere.yaml can't be read"):
        HomeNames(settings(tmp_path, home=tmp_path / "nowhere.yaml"), None)


async def test_the_add_on_asks_through_the_supervisor(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(household.HomeNames, "SUPERVISOR_SOCKET", _socket_url(home.url))
    names = HomeNames(settings(tmp_path), TOKEN)
    async with names.followed():
        await until(lambda: names.index is not None and "Attic" in names.index.names)


async def test_switched_off_nothing_is_asked_or_compared(home: Home, tmp_path: Path) -> None:
    off = settings(
        tmp_path, names=("Fritz",), hass_api=home.url, hass_token=TOKEN, bias_names=False
    )
    names = HomeNames(off, TOKEN)
    async with names.followed():
        await asyncio.sleep(0.05)
        assert names.index is None
    assert home.logins == 0


async def test_transcriptions_get_the_names_that_are_known_then(home: Home, tmp_path: Path) -> None:
    server = Server(
        settings(tmp_path, hass_api=home.url, hass_token=TOKEN), lambda _: FakeTranscriber()
    )
    running = asyncio.create_task(server.run())
    try:

        def known() -> tuple[str, ...]:
            import numpy as np

            job = server.submit(np.zeros(16, np.float32), TranscribeOptions(), Priority.COMMAND)
            home = job.options.home
            return home.names.names if home else ()

        await until(lambda: "Kitchen" in known())
        assert "Zorbo Lamp" in known()
    finally:
        server.stop()
        await asyncio.wait_for(running, TIMEOUT_SECONDS)


@pytest.mark.parametrize("failing", ["own names", "home's names", "aiohttp"])
async def test_what_nobody_foresaw_is_in_the_log_and_names_come_all_the_same(
    home: Home,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    failing: str,
) -> None:
    """It would end the task, and the home never hear of names again, or of why."""
    monkeypatch.setattr("wyoming_whisper.tasks.FIRST_RESTART_SECONDS", 0.01)
    calls: list[int] = []

    def fail_once(real: Callable[..., Any], at: int) -> Callable[..., Any]:
        def called(*arguments: Any, **named: Any) -> Any:
            calls.append(1)
            if len(calls) == at:
                raise ZeroDivisionError
            return real(*arguments, **named)

        return called

    if failing == "aiohttp":
        failing_open = fail_once(household._open, 1)
        monkeypatch.setattr(household, "_open", failing_open)
    else:
        index = fail_once(NameIndex, 2 if failing == "own names" else 3)
        monkeypatch.setattr(household, "NameIndex", index)
    names = HomeNames(
        settings(tmp_path, names=("Nautilus",), hass_api=home.url, hass_token=TOKEN), None
    )
    async with names.followed():
        await until(lambda: names.index is not None and "Attic" in names.index.names)
        assert names.index is not None
        assert "Nautilus" in names.index.names
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.exc_info
    assert "the names of the home has failed; it is started again" in record.getMessage()
