"""What a `describe` is answered with: one asr program with one model, and nothing untrue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wyoming.event import Event
from wyoming.info import AsrModel, AsrProgram, Attribution, Info

from .. import __version__
from ..status import Health, State, UpstreamState

PROGRAM_NAME = "wyoming-whisper"

SERVING = "wyoming-whisper"
"""Key in the data of an `info` event: what the Wyoming protocol has no fields for."""

_PROJECT = Attribution(name="The wyoming-whisper authors", url="")
_WHISPER = Attribution(name="OpenAI Whisper", url="https://github.com/openai/whisper")


def what_runs(description: str, backend: str | None, why: str) -> str:
    """Return what stands in `info` of the model: what runs, by which backend, and why that one."""
    return f"{description}; {backend}, because {why}" if backend else description


def what_serves(upstreams: Sequence[UpstreamState], what: str) -> str:
    """Return `what` runs here, behind those that are asked before it; which of them are now."""
    asked = [u.name if u.circuit == "closed" else f"{u.name} (not now)" for u in upstreams]
    return ", then ".join([*asked, what] if what else asked)


def serving_in(event: Event) -> Mapping[str, Any]:
    """Return what an `info` event says beyond Wyoming; empty where it is not one of our servers."""
    serving = event.data.get(SERVING)
    return serving if isinstance(serving, Mapping) else {}


@dataclass(frozen=True)
class Described:
    """All that an `info` event says."""

    model: str
    languages: tuple[str, ...]
    description: str
    """Of the model, for people: what runs."""
    health: Health
    backend: str | None
    why: str
    """Why this backend, one sentence."""
    requires_external_vad: bool
    live_text: bool
    prefers_auto_gain: bool
    prefers_noise_reduction: bool

    def event(self) -> Event:
        """Return it as Home Assistant and our own `health` read it."""
        info = make_info(
            self.model,
            self.languages,
            self.description,
            requires_external_vad=self.requires_external_vad,
            live_text=self.live_text,
            prefers_auto_gain=self.prefers_auto_gain,
            prefers_noise_reduction=self.prefers_noise_reduction,
        )
        event = info.event()
        event.data[SERVING] = {
            "health": self.health.verdict,
            "phase": self.health.phase,
            "reason": self.health.reason,
            "backend": self.backend,
            "why": self.why or None,
        }
        return event


def described(
    state: State,
    health: Health,
    model: str,
    languages: Sequence[str],
    *,
    is_known: bool,
    requires_external_vad: bool,
    live_text: bool,
    prefers_auto_gain: bool,
    prefers_noise_reduction: bool,
) -> Described:
    """Return what is said in a State; its description only where what runs `is_known` already."""
    what = what_runs(state.description, state.backend, state.why)
    return Described(
        model,
        tuple(languages),
        (what_serves(state.upstreams, what) if is_known else "") or model,
        health,
        state.backend,
        state.why,
        requires_external_vad,
        live_text,
        prefers_auto_gain,
        prefers_noise_reduction,
    )


def make_info(
    model_name: str,
    languages: Sequence[str],
    description: str | None = None,
    *,
    requires_external_vad: bool = True,
    live_text: bool = False,
    prefers_auto_gain: bool = True,
    prefers_noise_reduction: bool = True,
) -> Info:
    """Return the Info that Home Assistant reads: it uses the first program and its languages."""
    model = AsrModel(
        name=model_name,
        attribution=_WHISPER,
        installed=True,
        description=description or model_name,
        version=None,
        languages=list(languages),
    )
    program = AsrProgram(
        name=PROGRAM_NAME,
        attribution=_PROJECT,
        installed=True,
        description="Whisper speech-to-text for Home Assistant",
        version=__version__,
        models=[model],
        supports_transcript_streaming=live_text,
        # Home Assistant's own VAD ends a command; without it satellites stream on.
        requires_external_vad=requires_external_vad,
        prefers_auto_gain_enabled=prefers_auto_gain,
        prefers_noise_reduction_enabled=prefers_noise_reduction,
    )
    return Info(asr=[program])
