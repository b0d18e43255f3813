"""What Home Assistant understands of a text: its own templates and matcher, in a home made for it.

`homes/LANGUAGE.yaml` is a household of that language: its areas, floors, and entities with their
names, aliases and domains. Two texts mean the same if they give the same intent and the same slots;
numbers are compared as values, and capital letters not at all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from benchmarks.lib.errors import HomeError
from wyoming_whisper.home.inventory import Entity

HOMES = Path(__file__).parent / "homes"
TEMPLATES: Mapping[str, str] = {"zh": "zh-CN", "yue": "zh-HK"}
"""What Home Assistant calls languages whose codes are others."""


@dataclass(frozen=True)
class Home:
    """A household; of areas and floors, every name with what it stands for."""

    areas: Mapping[str, str]
    floors: Mapping[str, str]
    entities: tuple[Entity, ...]
    satellite: str
    """The area that commands are spoken in."""


@dataclass(frozen=True)
class Meaning:
    """What a text is taken for."""

    intent: str
    slots: tuple[tuple[str, str], ...] = ()
    """Sorted; values in small letters."""

    def __str__(self) -> str:
        return f"{self.intent}({', '.join(f'{name}={value}' for name, value in self.slots)})"


# -- households ----------------------------------------------------------------------------


def languages(homes: Path = HOMES) -> list[str]:
    """Return the languages that there is a household of."""
    return sorted(file.stem for file in homes.glob("*.yaml"))


def read_home(path: Path) -> Home:
    """Read a household. Raises HomeError."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise HomeError(f"{path} can't be read: {error}") from error
    if not isinstance(content, dict):
        raise HomeError(f"{path} must have areas and entities")
    if unknown := set(content) - {"areas", "floors", "entities", "satellite"}:
        raise HomeError(f"{path}: nothing is known of {min(unknown)!r}")
    try:
        entities = tuple(_entity(**one) for one in content["entities"])
        areas, floors = _named(content["areas"]), _named(content.get("floors", ()))
        satellite = content["satellite"]
    except (KeyError, TypeError, AttributeError) as error:
        raise HomeError(f"{path} has something missing or wrong: {error}") from error
    if satellite not in areas.values():
        raise HomeError(f"{path}: the satellite must be in an area, not in {satellite!r}")
    return Home(areas, floors, entities, satellite)


def _entity(
    name: str, domain: str, aliases: Sequence[str] = (), device_class: str | None = None
) -> Entity:
    return Entity((name, *aliases), domain, device_class)


def _named(places: Sequence[str | Mapping[str, Any]]) -> dict[str, str]:
    """Return what each name stands for: places are names, or have a name and aliases."""
    names: dict[str, str] = {}
    for place in places:
        name = place if isinstance(place, str) else str(place["name"])
        aliases = () if isinstance(place, str) else place.get("aliases", ())
        names |= dict.fromkeys((name, *aliases), name)
    return names


# -- the matcher ---------------------------------------------------------------------------


class Matcher:
    """One household in one language: what is said in it, and what Home Assistant makes of it."""

    def __init__(self, language: str, home: Home) -> None:
        import hassil
        from hassil.intents import TextSlotList

        self.language = TEMPLATES.get(language, language)
        self.intents = hassil.Intents.from_dict(_templates(self.language))
        self._recognize = hassil.recognize_best
        names = [
            (name, entity.names[0], entity.context)
            for entity in home.entities
            for name in entity.names
        ]
        self.lists = {
            "name": TextSlotList.from_tuples(names, name="name"),
            "area": TextSlotList.from_tuples(_pairs(home.areas), name="area"),
            "floor": TextSlotList.from_tuples(_pairs(home.floors), name="floor"),
        }
        self._here = {"area": home.satellite}

    def found(self, text: str) -> Any:
        """Return hassil's own result for a text; None where nothing is recognised."""
        return self._recognize(
            text,
            self.intents,
            slot_lists=self.lists,
            intent_context=self._here,
            language=self.language,
            best_slot_name="name",
        )

    @cache  # noqa: B019  (lives as long as the benchmark)
    def understand(self, text: str) -> Meaning | None:
        """Return what a text means, None if nothing to this household."""
        found = self.found(text) if text.strip() else None
        if found is None:
            return None
        slots = {name: _value(entity.value) for name, entity in found.entities.items()}
        return Meaning(found.intent.name, tuple(sorted(slots.items())))


def _templates(language: str) -> dict[str, Any]:
    import home_assistant_intents

    path = Path(home_assistant_intents.__file__).parent / "data" / f"{language}.json"
    templates: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return templates


def _pairs(names: Mapping[str, str]) -> list[tuple[str, str, dict[str, str]]]:
    return [(name, place, {}) for name, place in names.items()]


def _value(value: object) -> str:
    """Return a slot's value for comparing: 50 is 50.0, and Milk is milk."""
    if isinstance(value, int | float):
        return f"{value:g}"
    return " ".join(str(value).casefold().split())


@cache
def matcher(language: str, homes: Path = HOMES) -> Matcher | None:
    """Return the matcher of a language's household; None where there is none. Raises HomeError."""
    path = homes / f"{language}.yaml"
    return Matcher(language, read_home(path)) if path.exists() else None


def meaning(text: str, language: str, homes: Path = HOMES) -> Meaning | None:
    """Return what a text means in the household of a language; None if nothing."""
    home = matcher(language, homes)
    return home.understand(text) if home else None
