"""A Home Assistant as its websocket shows it: registries, and answers for them.

What it sends was compared with Home Assistant 2026.11's sources: components/websocket_api,
components/config/*_registry.py and components/homeassistant/exposed_entities.py.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

TOKEN = "a-long-lived-token"


@dataclass
class Home:
    """A Home Assistant: its registries, and a websocket that answers for them."""

    areas: list[dict[str, Any]] = field(default_factory=list)
    floors: list[dict[str, Any]] = field(default_factory=list)
    entities: dict[str, tuple[str, list[str | None]]] = field(default_factory=dict)
    """entity_id -> (friendly name, aliases)."""
    device_classes: dict[str, str] = field(default_factory=dict)
    sentences: list[object] = field(default_factory=list)
    """Those that automations wait for."""
    hidden: set[str] = field(default_factory=set)
    administrator: bool = True
    refused: set[str] = field(default_factory=set)
    """Commands that this version does not know."""
    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    logins: int = 0
    sockets: list[tuple[web.WebSocketResponse, dict[str, int]]] = field(default_factory=list)

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_json({"type": "auth_required", "ha_version": "2026.11.0"})
        login = await socket.receive_json()
        self.logins += 1
        if login != {"type": "auth", "access_token": TOKEN}:
            await socket.send_json({"type": "auth_invalid", "message": "Invalid access token"})
            await socket.close()
            return socket
        await socket.send_json({"type": "auth_ok", "ha_version": "2026.11.0"})
        subscriptions: dict[str, int] = {}
        self.sockets.append((socket, subscriptions))
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                await self._answer(socket, message.json(), subscriptions)
        return socket

    async def _answer(
        self, socket: web.WebSocketResponse, asked: dict[str, Any], subscriptions: dict[str, int]
    ) -> None:
        self.asked.append(asked)
        kind, number = asked["type"], asked["id"]
        only_for_administrators = kind == "homeassistant/expose_entity/list"
        if kind in self.refused or (only_for_administrators and not self.administrator):
            error = {"code": "unauthorized", "message": "Unauthorized"}
            answer = {"id": number, "type": "result", "success": False, "error": error}
            await socket.send_json(answer)
            return
        if kind == "subscribe_events":
            subscriptions[asked["event_type"]] = number
        result = self._result(kind, asked)
        await socket.send_json({"id": number, "type": "result", "success": True, "result": result})
        if kind == "subscribe_entities":
            added = {
                entity: {"s": "on", "a": self._attributes(entity)}
                for entity in asked["entity_ids"]
                if entity in self.entities
            }
            await socket.send_json({"id": number, "type": "event", "event": {"a": added}})
            change = {"c": {asked["entity_ids"][0]: {"+": {"s": "off"}}}}
            await socket.send_json({"id": number, "type": "event", "event": change})

    def _attributes(self, entity: str) -> dict[str, str]:
        attributes = {"friendly_name": self.entities[entity][0]}
        if entity in self.device_classes:
            attributes["device_class"] = self.device_classes[entity]
        return attributes

    def _result(self, kind: str, asked: dict[str, Any]) -> Any:
        if kind == "config/area_registry/list":
            return self.areas
        if kind == "config/floor_registry/list":
            return self.floors
        if kind == "conversation/sentences/list":
            return {"trigger_sentences": self.sentences}
        if kind == "homeassistant/expose_entity/list":
            exposed = {e: {"conversation": True} for e in self.entities if e not in self.hidden}
            exposed |= {e: {"cloud.alexa": True} for e in self.hidden}
            return {"exposed_entities": exposed}
        if kind == "config/entity_registry/get_entries":
            return {
                entity: {"entity_id": entity, "aliases": self.entities[entity][1]}
                if entity in self.entities
                else None
                for entity in asked["entity_ids"]
            }
        return None

    async def changed(self, event: str) -> None:
        """Tell everybody who listens that something of a registry has changed."""
        for socket, subscriptions in self.sockets:
            if not socket.closed and event in subscriptions:
                data = {"event_type": event, "data": {"action": "update"}}
                number = subscriptions[event]
                await socket.send_json({"id": number, "type": "event", "event": data})

    def count(self, kind: str) -> int:
        return sum(asked["type"] == kind for asked in self.asked)

    async def hang_up(self) -> None:
        for socket, _ in self.sockets:
            await socket.close()
        self.sockets.clear()


@contextlib.asynccontextmanager
async def serving(home: Home) -> AsyncIterator[Home]:
    """Serve `home` on a free port of 127.0.0.1, which its `url` names, until the block ends."""
    application = web.Application()
    application.router.add_get("/api/websocket", home.serve)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    home.url = f"http://127.0.0.1:{port}/api"
    try:
        yield home
    finally:
        await home.hang_up()
        await runner.cleanup()
