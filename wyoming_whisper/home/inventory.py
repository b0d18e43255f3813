"""What there is in a home, and what it is called.

Pure data: imports nothing of this package.
"""

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
    """Templates of the home's own: those that automations wait for."""

    @property
    def names(self) -> tuple[str, ...]:
        """All names, each once: areas and floors first, as there are few of them."""
        entities = (name for entity in self.entities for name in entity.names)
        return tuple(dict.fromkeys((*self.areas, *self.floors, *entities)))
