"""A language's templates with the names of a home: the grammar that the search walks."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from ..home.inventory import Home
from .automaton import Grammar
from .compounds import Compounds
from .letters import words_of
from .network import ANY, FIRST_SLOT, Network, network_of_texts
from .positions import Letters
from .templates import Slot, Templates
from .vocabulary import Vocabulary

MAX_NAMES = 10_000
"""Of one kind; the others are left out."""

MAX_LETTERS = 80
GERMANIC = ("af", "da", "de", "lb", "nb", "nl", "no", "sv")
MAX_NODES = 1_000_000


def fill(
    templates: Templates, home: Home, vocabulary: Vocabulary | None, *, free_text: bool = True
) -> Grammar:
    """Return the sentences of one home. `free_text`: with those that have wildcards.

    Without a vocabulary they can be recognised, but not searched.
    """
    networks: list[Network] = []
    starts = []
    by_values: dict[tuple[str, ...], int] = {}
    for slot in templates.slots:
        if slot.kind == "values":
            starts.append(slot.node)
            continue
        values = tuple(_values(slot, home))
        if values and values not in by_values:
            by_values[values] = len(networks)
            networks.append(network_of_texts(values, MAX_NODES))
        starts.append(-2 - by_values[values] if values else -1)
    network, offsets = templates.network.with_others(networks)
    slots = [offsets[-2 - start] + 2 if start < -1 else start for start in starts]
    filled = np.array([FIRST_SLOT - k for k, start in enumerate(slots) if start >= 0], np.int32)

    def passable(labels: NDArray[np.int32]) -> NDArray[np.bool_]:
        plain = (labels > FIRST_SLOT) & ((labels != ANY) | free_text)
        return np.asarray(plain | np.isin(labels, filled))

    letters = Letters(
        network.pruned(passable),
        (templates.led, templates.start),
        templates.skip,
        slots,
        unparted=templates.unparted,
    )
    compounds = Compounds(home.names, links=templates.language.partition("-")[0] in GERMANIC)
    return Grammar(letters, vocabulary, compounds)


def unsayable(home: Home) -> list[str]:
    """Return one line for each name of a home that the grammar leaves out."""
    names = [*home.areas, *home.floors, *(name for one in home.entities for name in one.names)]
    left_out = [f"{name[:100]!r}" for name in names if not _sayable(name)]
    return left_out + [f"{len(names) - MAX_NAMES} more names"] * (len(names) > MAX_NAMES)


def _sayable(name: str) -> str:
    """Return a name folded; nothing where it is too long or has neither letters nor digits."""
    folded = words_of(name)
    return folded if len(folded) <= MAX_LETTERS and any(map(str.isalnum, folded)) else ""


def _values(slot: Slot, home: Home) -> Iterable[str]:
    """Return what may stand in a slot, folded, each once."""
    if slot.kind == "name":
        entities = (entity for entity in home.entities if slot.admits(entity.context))
        names: Iterable[str] = (name for entity in entities for name in entity.names)
    else:
        names = home.areas if slot.kind == "area" else home.floors
    folded = (_sayable(name) for name in names)
    return [name for name in dict.fromkeys(folded) if name][:MAX_NAMES]
