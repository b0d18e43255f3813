"""What a `describe` is answered with: one asr program with one model, and nothing untrue."""

from __future__ import annotations

import re
from collections.abc import Sequence

from wyoming.info import AsrModel, AsrProgram, Attribution, Info

from . import __version__
from .status import UpstreamState

PROGRAM_NAME = "wyoming-whisper"

_PROJECT = Attribution(name="The wyoming-whisper authors", url="")
_WHISPER = Attribution(name="OpenAI Whisper", url="https://github.com/openai/whisper")


_BACKEND = re.compile(r"; ([a-z-]+), because (.*)$")


def what_runs(description: str, backend: str | None, why: str) -> str:
    """Return what stands in `info` of the model: what runs, by which backend, and why that one."""
    return f"{description}; {backend}, because {why}" if backend else description


def what_serves(upstreams: Sequence[UpstreamState], what: str) -> str:
    """Return `what` runs here, behind those that are asked before it; which of them are now."""
    asked = [u.name if u.circuit == "closed" else f"{u.name} (not now)" for u in upstreams]
    return ", then ".join([*asked, what] if what else asked)


def backend_of(what: str) -> tuple[str | None, str | None]:
    """Return the backend in what `what_runs` gave, and why; None where it doesn't say."""
    found = _BACKEND.search(what)
    return (found[1], found[2]) if found else (None, None)


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
