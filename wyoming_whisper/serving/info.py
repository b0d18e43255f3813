"""What a `describe` is answered with: one asr program with one model, and nothing untrue."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wyoming.event import Event
from wyoming.info import AsrModel, AsrProgram, Attribution, Info

from .. import __version__
from ..status import Health

if TYPE_CHECKING:
    from ..settings.options import Settings
    from ..utterance.service import Service


@dataclass(frozen=True)
class ServingInfo:
    """All that an `info` event says."""

    PROGRAM = "wyoming-whisper"
    KEY = "wyoming-whisper"
    """In the event's data: what the Wyoming protocol has no fields for."""

    settings: Settings
    backend: str | None
    why: str
    """Why this backend, one sentence."""
    health: Health
    languages: tuple[str, ...]
    description: str
    """What runs, and what is asked before it; empty before anything is known."""

    @classmethod
    def beyond_wyoming(cls, event: Event) -> Mapping[str, Any]:
        """Return what stands under KEY; nothing where it is not an event of one of our servers."""
        serving = event.data.get(cls.KEY)
        return serving if isinstance(serving, Mapping) else {}

    @classmethod
    def of(cls, service: Service) -> ServingInfo:
        state, upstreams = service.status.state, service.upstreams
        languages = state.languages
        if upstreams and not upstreams.has_local:
            languages = upstreams.languages or languages
        # What runs here, behind those that are asked before it; which of them are now.
        asked = [
            u.name if u.circuit == "closed" else f"{u.name} (not now)" for u in state.upstreams
        ]
        description = ", then ".join(filter(None, [*asked, state.description])) if languages else ""
        languages = languages or service.expected_languages
        return cls(
            service.settings, state.backend, state.why, service.health, languages, description
        )

    @functools.lru_cache(maxsize=1)  # noqa: B019  (it keeps no more than the last one)
    def event(self) -> Event:
        """Return it as Home Assistant and our own `health` read it."""
        event = self._info().event()
        event.data[self.KEY] = {
            "health": self.health.verdict,
            "phase": self.health.phase,
            "reason": self.health.reason,
            "description": self.description,
            "backend": self.backend,
            "why": self.why or None,
        }
        return event

    def _info(self) -> Info:
        """Return what Home Assistant reads: it uses the first program and its languages."""
        settings = self.settings
        description = self.description or settings.model
        if self.description and self.backend:
            description += f"; {self.backend}, because {self.why}"
        model = AsrModel(
            name=settings.model,
            attribution=Attribution(name="OpenAI Whisper", url="https://github.com/openai/whisper"),
            installed=True,
            description=description,
            version=None,
            languages=list(self.languages),
        )
        program = AsrProgram(
            name=self.PROGRAM,
            attribution=Attribution(name="The wyoming-whisper authors", url=""),
            installed=True,
            description="Whisper speech-to-text for Home Assistant",
            version=__version__,
            models=[model],
            supports_transcript_streaming=settings.live_text,
            # Home Assistant's own VAD ends a command; without it satellites stream on.
            requires_external_vad=settings.requires_external_vad,
            prefers_auto_gain_enabled=settings.prefers_auto_gain,
            prefers_noise_reduction_enabled=settings.prefers_noise_reduction,
        )
        return Info(asr=[program])
