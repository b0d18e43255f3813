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
class CustomFile:
    """A file of sentences in Home Assistant's format: YAML that nobody has parsed yet."""

    language: str
    """Of its folder, without a region: "en"."""
    name: str
    """For people: its path."""
    text: str = ""
    mistake: str = ""
    """Why it can't be read, in one sentence."""


@dataclass(frozen=True)
class Home:
    """Areas and floors with all their names and aliases, entities, and the user's sentences."""

    areas: tuple[str, ...] = ()
    floors: tuple[str, ...] = ()
    entities: tuple[Entity, ...] = ()
    sentences: tuple[str, ...] = ()
    """Templates of the home's own: those that automations wait for."""
    custom_sentences: tuple[CustomFile, ...] = ()
    """Sentences of the user's own."""

    @property
    def names(self) -> tuple[str, ...]:
        """All names, each once: areas and floors first, as there are few of them."""
        entities = (name for entity in self.entities for name in entity.names)
        return tuple(dict.fromkeys((*self.areas, *self.floors, *entities)))

    def with_other(self, other: Home) -> Home:
        """Return a home that has what is in this one and in another."""
        return Home(
            (*self.areas, *other.areas),
            (*self.floors, *other.floors),
            (*self.entities, *other.entities),
            (*self.sentences, *other.sentences),
            (*self.custom_sentences, *other.custom_sentences),
        )
