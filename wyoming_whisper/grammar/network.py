"""A network of letters with slots: what may be said, before the names of a home are in it.

Nodes are numbers; arcs have a letter (its code point) or one of the labels below, and lead to a
node. No arc is empty. Equal nodes are one, so that sentences share their ends.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

GAP = -1
"""A blank, or another mark between words. Several in a row, and such at the ends, are one."""
ANY = -2
"""Any letter but those of a gap: free text."""
FINAL = -3
"""A sentence may end here."""
RETURN = -4
"""A slot's value ends here."""
FIRST_SLOT = -16
"""The label of slot k is FIRST_SLOT - k."""

END = 0
"""The node after a whole sentence."""
RETURNING = 1
"""The node after a slot's value."""

Arc = tuple[int, int]


class TooLargeError(Exception):
    """More nodes than a network may have."""


class NetworkBuilder:
    """Builds a network from its ends to its beginnings."""

    def __init__(self, max_nodes: int) -> None:
        self._max_nodes = max_nodes
        self._arcs: list[frozenset[Arc]] = []
        self._numbers: dict[frozenset[Arc], int] = {}
        self._free: dict[int, int] = {}
        self.node(((FINAL, END), (GAP, END)))
        self.node(((RETURN, RETURNING),))

    def __len__(self) -> int:
        return len(self._arcs)

    def node(self, arcs: Iterable[Arc]) -> int:
        """Return the node that has these arcs. Raises TooLargeError."""
        key = frozenset(arcs)
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = self._append(key)
        return number

    def either(self, nodes: Collection[int]) -> int:
        """Return a node from which all goes on that goes on from one of these."""
        if len(nodes) == 1:
            return next(iter(nodes))
        return self.node(arc for node in nodes for arc in self._arcs[node])

    def text(self, text: str, then: int) -> int:
        """Return the node before a folded text; blanks in it are gaps."""
        for letter in reversed(text):
            then = self.node(((GAP if letter == " " else ord(letter), then),))
        return then

    def slot(self, number: int, then: int) -> int:
        """Return the node before a slot."""
        return self.node(((FIRST_SLOT - number, then),))

    def free_text(self, then: int) -> int:
        """Return the node before one word or more of free text."""
        if then not in self._free:
            inside = self._append(frozenset())
            before = self.node(((ANY, inside),))
            self._arcs[inside] = self._arcs[then] | {(ANY, inside), (GAP, before)}
            self._free[then] = before
        return self._free[then]

    def without(self, node: int, label: int) -> int:
        """Return a node that is like this one but for its arcs with one label."""
        return self.node(arc for arc in self._arcs[node] if arc[0] != label)

    def arcs(self, node: int) -> frozenset[Arc]:
        return self._arcs[node]

    def finish(self, starts: Sequence[int]) -> tuple[Network, list[int]]:
        """Return what is reached from `starts` (and the two ends), and where these are in it."""
        order = [END, RETURNING]
        places = {END: 0, RETURNING: 1}
        for node in starts:
            if places.setdefault(node, len(order)) == len(order):
                order.append(node)
        for node in order:
            for _, target in self._arcs[node]:
                if places.setdefault(target, len(order)) == len(order):
                    order.append(target)
        first, labels, targets = [0], [], []
        for node in order:
            for label, target in sorted(self._arcs[node]):
                labels.append(label)
                targets.append(places[target])
            first.append(len(labels))
        network = Network(*(np.array(part, np.int32) for part in (first, labels, targets)))
        return network, [places[node] for node in starts]

    def _append(self, arcs: frozenset[Arc]) -> int:
        if len(self._arcs) >= self._max_nodes:
            raise TooLargeError(f"more than {self._max_nodes} nodes")
        self._arcs.append(arcs)
        return len(self._arcs) - 1


@dataclass(frozen=True)
class Network:
    """Arcs of node n are those from first[n] to first[n + 1]; all int32."""

    first: NDArray[np.int32]
    labels: NDArray[np.int32]
    targets: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.first) - 1

    def check(self) -> None:
        """Raises ValueError where an arc leads nowhere: the file was none of ours."""
        n_arcs = len(self.labels)
        whole = len(self) >= 2 and self.first[0] == 0 and self.first[-1] == n_arcs
        if not whole or len(self.targets) != n_arcs or (np.diff(self.first) < 0).any():
            raise ValueError("no network")
        if n_arcs and not 0 <= self.targets.min() <= self.targets.max() < len(self):
            raise ValueError("an arc leads nowhere")

    def with_others(self, others: Sequence[Network]) -> tuple[Network, list[int]]:
        """Return one network of all, and by how much the nodes of each of `others` were moved."""
        first, labels, targets = [self.first], [self.labels], [self.targets]
        offsets, n_nodes, n_arcs = [], len(self), len(self.labels)
        for other in others:
            offsets.append(n_nodes)
            first.append(other.first[1:] + n_arcs)
            labels.append(other.labels)
            targets.append(other.targets + n_nodes)
            n_nodes += len(other)
            n_arcs += len(other.labels)
        parts = (np.concatenate(part).astype(np.int32) for part in (first, labels, targets))
        return Network(*parts), offsets

    def pruned(self, passable: Callable[[NDArray[np.int32]], NDArray[np.bool_]]) -> Network:
        """Return the network without ways that lead to no end, and arcs that can't be passed.

        `passable` tells for labels which can be.
        """
        sources = np.repeat(np.arange(len(self), dtype=np.int32), np.diff(self.first))
        kept = passable(self.labels)
        alive = np.zeros(len(self), bool)
        alive[sources[(self.labels == FINAL) | (self.labels == RETURN)]] = True
        while True:
            reached = sources[kept & alive[self.targets]]
            if alive[reached].all():
                break
            alive[reached] = True
        kept &= alive[self.targets]
        counts = np.bincount(sources[kept], minlength=len(self))
        first = np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
        return Network(first, self.labels[kept], self.targets[kept])

    def ends(self) -> NDArray[np.bool_]:
        """Return for each node whether a sentence may end there, gaps left out."""
        sources = np.repeat(np.arange(len(self)), np.diff(self.first))
        final = np.zeros(len(self), bool)
        final[sources[self.labels == FINAL]] = True
        gaps = self.labels == GAP
        while True:
            reached = sources[gaps & final[self.targets]]
            if final[reached].all():
                return final
            final[reached] = True

    def arrays(self) -> tuple[array[int], array[int], array[int]]:
        """Return first, labels and targets for reading one by one, which numpy is slow at."""
        return tuple(array("i", part.tobytes()) for part in (self.first, self.labels, self.targets))  # type: ignore[return-value]


def network_of_texts(texts: Iterable[str], max_nodes: int) -> Network:
    """Return the values of a slot, each a folded text: node 2 is the first. Raises TooLargeError.

    One arc a letter: of the trie of all texts, equal ends are one.
    """
    trie: dict[str, dict] = {}  # type: ignore[type-arg]
    for text in texts:
        node = trie
        for letter in text:
            node = node.setdefault(letter, {})
        node[""] = {}
    builder = NetworkBuilder(max_nodes)
    network, _ = builder.finish([_merged(trie, builder)])
    return network


def _merged(trie: dict, builder: NetworkBuilder) -> int:  # type: ignore[type-arg]
    """Return the node of a trie; texts are short, so that recursion is shallow."""
    return builder.node(
        (RETURN, RETURNING)
        if letter == ""
        else (GAP if letter == " " else ord(letter), _merged(below, builder))
        for letter, below in trie.items()
    )
