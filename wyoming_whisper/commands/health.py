"""`wyoming-whisper health`: ask a running server whether it works."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from wyoming.event import Event
from wyoming.info import Describe, Info

from ..errors import UpstreamError
from ..serving.info import ServingInfo
from .connection import ask_server
from .console import CommandParser


def run(argv: Sequence[str]) -> int:
    """Print how a server is; return the exit status. Raises WyomingWhisperError."""
    parser = CommandParser(
        "health",
        "Ask a running server whether it works. --uri is the address that it listens on. "
        "The exit code is 0 where commands are answered, or will be once the model is there.",
        ("uri",),
    )
    parser.add_timeout(15.0, "wait for the answer")
    parser.add_argument(
        "--json", action="store_true", help="one JSON object: what runs, on which backend, and why"
    )
    arguments, settings = parser.start(argv)
    event = asyncio.run(ask_server(settings.uri, [Describe()], Info, arguments.timeout))
    answer = _server_state(settings.uri, event)
    is_failure = answer["health"] == "unhealthy"
    if arguments.json:
        print(json.dumps(answer, ensure_ascii=False))
    elif is_failure:
        raise UpstreamError(f"{settings.uri} is unhealthy: {answer['reason']}")
    else:
        print(_health_line(answer))
    return 1 if is_failure else 0


def _health_line(answer: Mapping[str, Any]) -> str:
    word = "ok" if answer["health"] == "healthy" else answer["health"]
    name = " ".join(answer[key] for key in ("program", "version") if answer[key])
    reason = f" ({answer['reason']})" if answer["reason"] else ""
    return f"{word}: {name}, model {answer['model'] or 'not loaded yet'}{reason}"


def _server_state(uri: str, event: Event) -> dict[str, Any]:
    info = Info.from_event(event)
    if not info.asr:
        raise UpstreamError(f"{uri} answers, but offers no speech-to-text")
    program = info.asr[0]
    model = program.models[0] if program.models else None
    serving = ServingInfo.beyond_wyoming(event)
    return {
        "uri": uri,
        "health": serving.get("health", "healthy"),  # who is not ours answers, and says no more
        "phase": serving.get("phase"),
        "reason": serving.get("reason") or "",
        "program": program.name,
        "version": program.version,
        "model": model.name if model else None,
        "languages": model.languages if model else [],
        "description": serving.get("description") or (model and model.description) or "",
        "backend": serving.get("backend"),
        "why": serving.get("why"),
    }
