"""The initial prompt that the official server (3.8.1) makes of a home with --hass-token.

Areas and floors, then the entities of domains that are named aloud, then all others, each with its
aliases; the first name that does not fit, and all after it, are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from benchmarks.lib.understood import Home

MAX_TOKENS = 200
NAMED_ALOUD = ("light", "switch", "fan", "media_player", "climate", "scene", "todo")


def official_prompt(home: Home, count_tokens: Callable[[str], int]) -> str:
    """Return the prompt; every area is taken for one that holds something."""
    chosen: list[str] = []
    for name in _names(home):
        if count_tokens(_joined([*chosen, name])) > MAX_TOKENS:
            break
        chosen.append(name)
    return _joined(chosen)


def _joined(names: Iterable[str]) -> str:
    return ", ".join(names) + "."


def _names(home: Home) -> list[str]:
    """Return all names in their order, none twice."""
    aloud = [one for one in home.entities if one.domain in NAMED_ALOUD]
    others = [one for one in home.entities if one.domain not in NAMED_ALOUD]
    named = [name for one in (*aloud, *others) for name in one.names]
    ordered = [*home.areas, *home.floors, *named]
    unique: dict[str, str] = {}
    for name in ordered:
        unique.setdefault(name.lower(), name)
    return list(unique.values())
