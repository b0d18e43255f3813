"""What is understood only for command lines, variables and options files of others.

Those of the official server and of its add-on, and of earlier versions of this one.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import did_you_mean
from .option import Option, Raw, Switch
from .options import OPTIONS


def _stt_library(raw: Raw) -> None:
    ours = ("auto", "faster-whisper")
    if raw not in ours:
        raise ValueError(
            "this server runs Whisper with faster-whisper, not with other libraries"
            + did_you_mean(str(raw), ours)
        )


def _sherpa(raw: Raw) -> None:
    if not Switch.is_off(raw):
        raise ValueError("this server runs Whisper with faster-whisper, not with sherpa")


def _number(raw: Raw) -> None:
    try:
        float(raw if isinstance(raw, str) else "")
    except ValueError:
        raise ValueError("it must be a number") from None


ALL_OPTIONS: Mapping[str, Option] = {
    **OPTIONS,
    "stt_library": Option(_stt_library),
    "sherpa_streaming": Option(_sherpa, shape="switch", secret=True),
    # Home Assistant tells of changes here, nothing waits for it, and names are not put into the
    # prompt: these need no choice.
    "hass_refresh_seconds": Option(_number),
    "hass_prompt_max_tokens": Option(_number),
    "hass_prompt_timeout": Option(_number),
    # Means that Home Assistant shall not end commands either (sources.py).
    "vad_endpointing": Option(OPTIONS["endpointing"].read),
}
"""The options, and those of the official server that have no use here, or another name."""


RETIRED_MODELS = {
    "home-en": "home-en is gone from this program: it understood synthetic voices alone",
}
"""What became of models that earlier versions brought."""
