"""What a home calls its things, as the grammar needs it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entity:
    """A device that may be spoken of."""

    names: tuple[str, ...]
    domain: str
    device_class: str | None = None

    @property
    def context(self) -> dict[str, str]:
        """What templates may require of it."""
        context = {"domain": self.domain, "device_class": self.device_class}
        return {key: value for key, value in context.items() if value}


@dataclass(frozen=True)
class Home:
    """Areas and floors with all their names and aliases, entities, and the user's sentences."""

    areas: tuple[str, ...] = ()
    floors: tuple[str, ...] = ()
    entities: tuple[Entity, ...] = ()
    sentences: tuple[str, ...] = ()
    """Templates of the home's own: triggers of automations."""
