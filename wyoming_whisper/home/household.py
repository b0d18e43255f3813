"""What the home calls its things, from Home Assistant's websocket: fetched once, then kept.

Exposed entities, their aliases, areas and floors. Home Assistant tells when one of them changes;
nothing is asked for a transcription, and no failure here is more than an entry in the log.
https://developers.home-assistant.io/docs/api/websocket
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..errors import SettingsError
from ..tasks import end_tasks, start_lasting_task
from .home_file import HomeFile
from .index import NameIndex
from .inventory import Entity, Home

if TYPE_CHECKING:
    import aiohttp

    from ..settings.options import Settings

_LOGGER = logging.getLogger(__name__)


FILE_SECONDS = 5.0
"""How often --home is looked at."""


class HomeNames:
    """The names that texts are compared with, and the home that they are of.

    What the user wrote down (--names, --home), and what Home Assistant knows.
    """

    EVENTS = (
        "entity_registry_updated",
        "device_registry_updated",
        "area_registry_updated",
        "floor_registry_updated",
        "automation_reloaded",  # for the sentences that they wait for
    )
    FIRST_DELAY_SECONDS = 5.0
    LONGEST_DELAY_SECONDS = 300.0
    SETTLE_SECONDS = 2.0
    """After the last event, as one change in Home Assistant is often many."""
    PATIENCE = 4  # failures in a row before it is said: Home Assistant may only be starting
    SUPERVISOR_SOCKET = "ws://supervisor/core/websocket"
    """Home Assistant's websocket as an add-on reaches it; the Supervisor's token opens it."""

    def __init__(self, settings: Settings, supervisor_token: str | None) -> None:
        """Raises SettingsError where --home can't be read."""
        self._settings = settings
        self._supervisor_token = supervisor_token
        try:
            self._file = HomeFile(settings.home) if settings.home else None
        except ValueError as error:
            raise SettingsError(f"--home: {error}") from None
        self._from_home_assistant = Home()
        self.home = self._file.home if self._file else Home()
        self.on_home: Callable[[Home], None] = lambda _: None
        """Called in the event loop whenever `home` may be another one; to be set before
        `followed`."""
        self.index: NameIndex | None = None
        """None where nothing is to be compared."""
        self._has_own = False  # the user's own names are in it
        self._last_home: Home | None = None
        self._delay = self.FIRST_DELAY_SECONDS
        self._n_failures = 0

    @contextlib.asynccontextmanager
    async def followed(self) -> AsyncIterator[None]:
        """Keep `index` and `home` up to date while the block runs."""
        if not self._settings.bias_names:
            yield
            return
        self.index = NameIndex(())
        following = [start_lasting_task(self._follow, "the names of the home")]
        if self._file:
            following_file = partial(self._follow_file, self._file)
            following.append(start_lasting_task(following_file, "following --home"))
        try:
            yield
        finally:
            await end_tasks(*following)

    async def _follow(self) -> None:
        if not self._has_own:  # started again, it goes on with the names that it has
            await self._changed()
            self._has_own = True
        if self._settings.hass_token:
            url, token = _socket_url(self._settings.hass_api), self._settings.hass_token
        elif self._supervisor_token:
            url, token = self.SUPERVISOR_SOCKET, self._supervisor_token
        else:
            return
        await self._follow_home_assistant(url, token)

    async def _follow_home_assistant(self, url: str, token: str) -> None:
        """Connect, and again whenever that ends, with growing waits; return when refused.

        Raises what nobody foresaw.
        """
        await asyncio.to_thread(__import__, "aiohttp")  # a tenth of a second
        self._last_home, self._delay, self._n_failures = None, self.FIRST_DELAY_SECONDS, 0
        while True:
            try:
                await self._connected(url, token)
            except _RefusedError as error:
                _LOGGER.warning("Home Assistant gives no names: %s", error)
                return
            except _expected_errors() as error:
                self._n_failures += 1
                _LOGGER.log(
                    logging.WARNING if self._n_failures == self.PATIENCE else logging.DEBUG,
                    "can't get names from Home Assistant (%s); trying again",
                    str(error) or type(error).__name__,
                )
            await asyncio.sleep(self._delay)
            self._delay = min(2 * self._delay, self.LONGEST_DELAY_SECONDS)

    async def _connected(self, url: str, token: str) -> None:
        """Keep up with Home Assistant until the connection ends. Raises what ended it."""
        async with _open(url) as socket:
            connection = _Connection(socket)
            await connection.log_in(token)
            for event in self.EVENTS:
                await connection.subscribe(event)
            while True:
                await self._update(await _fetch(connection))
                self._delay = self.FIRST_DELAY_SECONDS
                self._n_failures = 0
                await connection.changed(self.SETTLE_SECONDS)

    async def _follow_file(self, file: HomeFile) -> None:
        while True:
            await asyncio.sleep(FILE_SECONDS)
            try:
                if await asyncio.to_thread(file.has_changed):
                    await self._changed()
            except ValueError as error:
                _LOGGER.warning("--home: %s; the home stays as it was", error)

    async def _update(self, home: Home) -> None:
        """Take what Home Assistant knows now; where that is nothing, the user's own stays."""
        if home != self._last_home:
            self._last_home = self._from_home_assistant = home
            _LOGGER.info("%d names of the home from Home Assistant", len(home.names))
            await self._changed()

    async def _changed(self) -> None:
        own = self._file.home if self._file else Home()
        self.home = own.with_other(self._from_home_assistant)
        self.on_home(self.home)
        names = [*self._settings.names, *self.home.names]
        self.index = await asyncio.to_thread(NameIndex, names)


class _RefusedError(Exception):
    """Home Assistant doesn't accept the token: asking again would not change that."""


class _AnswerError(Exception):
    """Home Assistant answered something else than expected."""


def _socket_url(api: str) -> str:
    """Return the websocket of the Home Assistant at `api`, as http://HOST:PORT or .../api."""
    parts = urlsplit(api)
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    path = parts.path.rstrip("/").removesuffix("/websocket").removesuffix("/api")
    return f"{scheme}://{parts.netloc}{path}/api/websocket"


def _expected_errors() -> tuple[type[Exception], ...]:
    """Return what a network, or what answers there, may raise at any time."""
    import aiohttp

    return (OSError, asyncio.TimeoutError, aiohttp.ClientError, _AnswerError)


@contextlib.asynccontextmanager
async def _open(url: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=None, connect=_Connection.ANSWER_SECONDS)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.ws_connect(
            url,
            max_msg_size=_Connection.MAX_MESSAGE_BYTES,
            heartbeat=_Connection.HEARTBEAT_SECONDS,
        ) as socket,
    ):
        yield socket


class _Connection:
    """Questions and answers on one websocket, one at a time; events are noticed in between."""

    # A home with 5,000 exposed entities sends 3 MB; what is larger is none.
    MAX_MESSAGE_BYTES = 32 * 1024 * 1024

    ANSWER_SECONDS = 30.0
    HEARTBEAT_SECONDS = 55.0
    MAX_SETTLE_SECONDS = 30.0

    # Entities without an entry in the registry change their name, or are exposed, without an event.
    REFRESH_SECONDS = 3600.0

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._id = 0
        self._subscriptions: set[int] = set()
        self._stale = False

    async def log_in(self, token: str) -> None:
        """Raises _RefusedError when the token is not accepted."""
        greeting = await self._receive()
        if greeting.get("type") == "auth_required":
            await self._socket.send_json({"type": "auth", "access_token": token})
            greeting = await self._receive()
        if greeting.get("type") == "auth_invalid":
            raise _RefusedError("it does not accept the token; make a new one, or check hass_token")
        if greeting.get("type") != "auth_ok":
            raise _AnswerError("what answers there is no Home Assistant")

    async def subscribe(self, event: str) -> None:
        """Have `changed` return when there is one; older versions don't know all of them."""
        try:
            await self.ask("subscribe_events", event_type=event)
        except _AnswerError as error:
            _LOGGER.debug("can't subscribe to %s: %s", event, error)
        else:
            self._subscriptions.add(self._id)

    async def ask(self, kind: str, **fields: object) -> Any:
        """Return the result of a command. Raises _AnswerError when it is refused."""
        number = await self._send(kind, **fields)
        while True:
            message = await self._receive()
            self._notice(message)
            if message.get("id") == number and message.get("type") == "result":
                break
        if not message.get("success"):
            error = message.get("error")
            reason = error.get("message") if isinstance(error, Mapping) else None
            raise _AnswerError(f"{kind} failed: {reason}")
        return message.get("result")

    async def states(self, entity_ids: list[str]) -> Mapping[str, Any]:
        """Return {entity: {"a": attributes}}, of these alone: all of a home would be far more."""
        number = await self._send("subscribe_entities", entity_ids=entity_ids)
        while True:
            message = await self._receive()
            self._notice(message)
            if message.get("id") != number:
                continue
            if message.get("type") == "result" and not message.get("success"):
                raise _AnswerError("subscribe_entities failed")
            if message.get("type") == "event":
                break
        await self.ask("unsubscribe_events", subscription=number)
        event = message.get("event")
        return _mapping(event.get("a", {}) if isinstance(event, Mapping) else None)

    async def changed(self, settle: float) -> None:
        """Return a moment after something changed, or when it is time to look anyway."""
        end = asyncio.get_running_loop().time() + self.REFRESH_SECONDS
        while not self._stale:
            message = await self._receive_until(end)
            if message is None:
                return
            self._notice(message)
        last = asyncio.get_running_loop().time() + self.MAX_SETTLE_SECONDS
        while True:
            now = asyncio.get_running_loop().time()
            if await self._receive_until(min(now + settle, last)) is None:
                break
        self._stale = False

    def _notice(self, message: Mapping[str, Any]) -> None:
        if message.get("type") == "event" and message.get("id") in self._subscriptions:
            self._stale = True

    async def _send(self, kind: str, **fields: object) -> int:
        self._id += 1
        await self._socket.send_json({"id": self._id, "type": kind, **fields})
        return self._id

    async def _receive_until(self, end: float) -> Mapping[str, Any] | None:
        """Return the next message, or None when there is none until then."""
        seconds = max(end - asyncio.get_running_loop().time(), 0.001)
        try:
            return await self._receive(seconds)
        except asyncio.TimeoutError:
            return None

    async def _receive(self, seconds: float = ANSWER_SECONDS) -> Mapping[str, Any]:
        """Return the next message. Raises TimeoutError, _AnswerError, ConnectionError."""
        import aiohttp

        message = await self._socket.receive(seconds)
        if message.type is not aiohttp.WSMsgType.TEXT:
            raise ConnectionError(f"the connection ended (code {self._socket.close_code})")
        # Of a large home it is long: nobody else should wait meanwhile.
        text: str = message.data
        parsed = await asyncio.to_thread(_json, text) if len(text) > 100_000 else _json(text)
        return _mapping(parsed)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise _AnswerError("it sent something else than JSON") from None


def _mapping(value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _AnswerError("it sent something else than expected")
    return value


def _list(value: object) -> list[Mapping[str, Any]]:
    if not isinstance(value, list):
        raise _AnswerError("it sent something else than expected")
    return [item for item in value if isinstance(item, Mapping)]


async def _fetch(connection: _Connection) -> Home:
    areas = tuple(_names_of(_list(await connection.ask("config/area_registry/list"))))
    floors: tuple[str, ...] = ()
    with contextlib.suppress(_AnswerError):  # floors are from 2024.3 on
        floors = tuple(_names_of(_list(await connection.ask("config/floor_registry/list"))))
    entities: tuple[Entity, ...] = ()
    exposed = await _exposed(connection)
    if exposed:
        states = await connection.states(exposed)
        entries = _mapping(
            await connection.ask("config/entity_registry/get_entries", entity_ids=exposed)
        )
        entities = tuple(_entities(exposed, states, entries))
    return Home(areas, floors, entities, await _sentences(connection))


async def _sentences(connection: _Connection) -> tuple[str, ...]:
    """Return the sentences that automations wait for; none where nobody may know."""
    max_sentences = 2_000
    try:
        answer = _mapping(await connection.ask("conversation/sentences/list"))
    except _AnswerError as error:
        _LOGGER.debug("no sentences of automations: %s", error)
        return ()
    sentences = answer.get("trigger_sentences")
    found = _texts(sentences if isinstance(sentences, list) else ())
    return tuple(itertools.islice(dict.fromkeys(found), max_sentences))


async def _exposed(connection: _Connection) -> list[str]:
    """Return the entities that may be spoken of; none where the token is no administrator's."""
    max_entities = 10_000
    # Home Assistant's own name for Assist, to which entities are exposed.
    assistant = "conversation"
    try:
        answer = _mapping(await connection.ask("homeassistant/expose_entity/list"))
    except _AnswerError as error:
        _LOGGER.warning(
            "the token is no administrator's, so exposed entities can't be listed (%s); only areas "
            "and floors give names",
            error,
        )
        return []
    entities = _mapping(answer.get("exposed_entities", {}))
    exposed = [
        name for name, to in entities.items() if isinstance(to, Mapping) and to.get(assistant)
    ]
    return exposed[:max_entities]


def _names_of(entries: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for entry in entries:
        yield from _texts([entry.get("name"), *_aliases(entry)])


def _entities(
    exposed: Iterable[str], states: Mapping[str, Any], entries: Mapping[str, Any]
) -> Iterator[Entity]:
    """Yield the entities that have a name: the one that is shown, and aliases."""
    for entity in exposed:
        state, entry = states.get(entity), entries.get(entity)
        attributes = state.get("a") if isinstance(state, Mapping) else None
        if not isinstance(attributes, Mapping):
            attributes = {}
        aliases = _aliases(entry) if isinstance(entry, Mapping) else ()
        names = dict.fromkeys(_texts([attributes.get("friendly_name"), *aliases]))
        if names:
            device_class = attributes.get("device_class")
            yield Entity(
                tuple(names),
                entity.partition(".")[0],
                device_class if isinstance(device_class, str) else None,
            )


def _aliases(entry: Mapping[str, Any]) -> list[object]:
    """Return the aliases; None among them is the name itself, which is known otherwise."""
    aliases = entry.get("aliases")
    return aliases if isinstance(aliases, list) else []


def _texts(values: Iterable[object]) -> Iterator[str]:
    for value in values:
        if isinstance(value, str) and value.strip():
            yield " ".join(value.split())
