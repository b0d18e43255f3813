"""The network of a home, letter by letter: an automaton, made as it is walked.

A state is a set of positions in the network; what was found of a state is kept.
"""

from __future__ import annotations

import copy
from array import array
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from .letters import CLOSING, OPENING
from .network import ANY, END, FIRST_SLOT, GAP, RETURN, Network

REFUSED = -1

HYPHEN = "-"
APOSTROPHE = "'"
BETWEEN = frozenset(" " + CLOSING + HYPHEN)
"""What is no letter of a word of free text."""
_MARKS = BETWEEN | frozenset(OPENING)

# How a position goes on.
_WITHIN = 0  # in any way
_MARKED = 1  # by a blank: a mark like "," was there
_FRESH = 2  # by a letter, it is the beginning of a word: gaps are behind it
_WHOLE = 3  # by a gap: a word that means nothing was there

_FLAG_BITS = 2
_NODE_BITS = 26
_FLAG_MASK = (1 << _FLAG_BITS) - 1
_NODE_MASK = (1 << _NODE_BITS) - 1

_SKIPPED = -1  # among the nodes that are returned to: the slot is a word that means nothing


_Value = TypeVar("_Value")


class OnDemand(dict[int, _Value]):
    """Values by number, each computed when it is first asked for."""

    def __init__(self, compute: Callable[[int], _Value]) -> None:
        super().__init__()
        self._compute = compute

    def __missing__(self, number: int) -> _Value:
        self[number] = value = self._compute(number)
        return value


# Plain tuples and bytes below: the garbage collector passes over them, and there are many.
Moves = tuple[dict[str, int], int]
"""The states after the folded letters and marks that may follow, and the one after any letter
else: REFUSED where there is no free text."""


class _Arcs(NamedTuple):
    """The arcs of a node: (label, target) of letters and of slots, targets of the others."""

    letters: list[tuple[int, int]]
    free: list[int]
    gaps: list[int]
    silent: list[tuple[int, int]]
    """Of slots, and of the ends of their values."""


class _Kernels(NamedTuple):
    """The kernels after a state."""

    by_label: dict[int, set[int]]
    """Of fixed text, by code point."""
    free: set[int]
    blank: set[int]
    mark: set[int]
    """After a mark that closes a word."""


class Letters:
    """States by letters. Used from one thread."""

    def __init__(
        self,
        network: Network,
        starts: Sequence[int],
        skip: int,
        slots: Sequence[int],
        *,
        unparted: bool,
    ) -> None:
        """`starts`: the nodes before all sentences of some kinds.

        `skip`, `slots`: the nodes that their values begin with, -1 where there are none.
        """
        self._first, self._labels, self._targets = network.arrays()
        self._are_plain, self._are_silent = _kinds(network)
        self._ends = network.ends().tolist()
        self._start_nodes = tuple(starts)
        self._skip = skip
        self._slots = tuple(slots)
        self.is_unparted = unparted
        self.clear()

    def __len__(self) -> int:
        return len(self._kernels)

    def fresh(self) -> Letters:
        """Return the same sentences, without the states: for another thread, or another use."""
        letters = copy.copy(self)
        letters.clear()
        return letters

    def clear(self) -> None:
        """Forget all states."""
        self._kernels: list[bytes] = []
        self._numbers: dict[bytes, int] = {}
        self._is_end: dict[int, bool] = {}
        self._arcs = OnDemand(self._arcs_of)
        self._fixed: dict[int, dict[str, int]] = {}
        self._returns: list[tuple[int, ...]] = [()]
        self._return_numbers: dict[tuple[int, ...], int] = {(): 0}
        self.following = OnDemand(self._find_following)
        """By state: what follows it, marks included."""
        self.spoken = OnDemand(self._find_spoken)
        """By state: the letters, blanks and apostrophes that follow; other marks say nothing."""
        self.starts = tuple(map(self._begin, self._start_nodes))
        """The states before `starts`."""

    def _begin(self, start: int) -> int:
        kernel = set()
        for flag in (_FRESH, _MARKED):  # Whisper's first token begins with a blank, mostly
            kernel.add(self._position(start, flag))
            if self._skip >= 0:
                kernel.add(self._position(self._skip, flag, (_SKIPPED, start)))
        return self._state(kernel)

    def after(self, state: int, letter: str) -> int:
        """Return the state after a folded letter or mark; REFUSED where it may not follow."""
        states, other = self.spoken[state] if is_spoken(letter) else self.following[state]
        return states.get(letter, REFUSED if letter in BETWEEN else other)

    def fixed(self, state: int) -> dict[str, int]:
        """Return the states after what may follow, free text left out."""
        if state not in self._fixed:
            states, other = self.following[state]
            if other != REFUSED:
                closed = self._closed(state)
                kernels = self._kernels_after(closed)
                states = self._states(self._with_marks(kernels, closed))
            self._fixed[state] = states
        return self._fixed[state]

    def is_end(self, state: int) -> bool:
        """Return whether a sentence may end here."""
        if state not in self._is_end:
            nodes = (position >> _FLAG_BITS for position in self._closed(state))
            self._is_end[state] = any(node <= _NODE_MASK and self._ends[node] for node in nodes)
        return self._is_end[state]

    def _position(self, node: int, flag: int, returns: Collection[int] = ()) -> int:
        """Return a position: a node, how it goes on, and the nodes that its slot returns to."""
        key = tuple(sorted(returns))
        number = self._return_numbers.get(key)
        if number is None:
            number = self._return_numbers[key] = len(self._returns)
            self._returns.append(key)
        return ((number << _NODE_BITS) | node) << _FLAG_BITS | flag

    def _state(self, kernel: Iterable[int]) -> int:
        key = array("q", sorted(kernel)).tobytes()
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self._kernels)
            self._kernels.append(key)
        return number

    def _arcs_of(self, node: int) -> _Arcs:
        arcs = _Arcs([], [], [], [])
        for i in range(self._first[node], self._first[node + 1]):
            label, target = self._labels[i], self._targets[i]
            if label >= 0:
                arcs.letters.append((label, target))
            elif label == ANY:
                arcs.free.append(target)
            elif label == GAP:
                arcs.gaps.append(target)
            elif label == RETURN or label <= FIRST_SLOT:
                arcs.silent.append((label, target))
        return arcs

    def _closed(self, state: int) -> set[int]:
        """Return the positions of a state, with those that are reached without a letter."""
        closed: set[int] = set()
        entered: dict[tuple[int, int], set[int]] = {}
        todo = array("q", self._kernels[state]).tolist()
        while todo or entered:
            if not todo:
                # One position for all places in sentences that the same names may follow.
                todo = [self._position(node, flag, to) for (node, flag), to in entered.items()]
                entered = {}
            position = todo.pop()
            if position not in closed:
                closed.add(position)
                if self._are_silent[position >> _FLAG_BITS & _NODE_MASK]:
                    todo += self._silent(position, entered)
        return closed

    def _silent(self, position: int, entered: dict[tuple[int, int], set[int]]) -> list[int]:
        """Return where a position leads without a letter; note in `entered` which slots begin."""
        flag, node = position & _FLAG_MASK, position >> _FLAG_BITS & _NODE_MASK
        returns = position >> _FLAG_BITS + _NODE_BITS
        if flag == _MARKED:
            return []
        arcs = self._arcs[node]
        gaps = arcs.gaps if flag == _FRESH else ()
        reached = [position + ((target - node) << _FLAG_BITS) for target in gaps]
        for label, target in arcs.silent:
            if label == RETURN:
                reached += self._after_slot(flag, self._returns[returns])
            elif flag != _WHOLE and not returns:
                start = self._slots[FIRST_SLOT - label]
                if start >= 0:
                    entered.setdefault((start, flag), set()).add(target)
        if self.is_unparted and self._skip >= 0 and node == END and not returns:
            reached.append(self._position(self._skip, flag, (_SKIPPED, END)))
        return reached

    def _after_slot(self, flag: int, nodes: Sequence[int]) -> list[int]:
        if nodes and nodes[0] == _SKIPPED:
            flag, nodes = (_FRESH if self.is_unparted else _WHOLE), nodes[1:]
        return [node << _FLAG_BITS | flag for node in nodes]

    def _find_following(self, state: int) -> Moves:
        closed = self._closed(state)
        kernels = self._kernels_after(closed)
        return self._moves(self._with_marks(kernels, closed), kernels.free)

    def _find_spoken(self, state: int) -> Moves:
        if state in self.following:
            states, other = self.following[state]
            return {letter: to for letter, to in states.items() if is_spoken(letter)}, other
        kernels = self._kernels_after(self._closed(state))
        by_letter = {chr(label): kernel for label, kernel in kernels.by_label.items()}
        spoken = {letter: kernel for letter, kernel in by_letter.items() if is_spoken(letter)}
        spoken[" "] = kernels.blank
        return self._moves(spoken, kernels.free)

    def _moves(self, kernels: Mapping[str, set[int]], free: set[int]) -> Moves:
        if free:
            kernels = {c: k if c in _MARKS else k | free for c, k in kernels.items()}
        return self._states(kernels), self._state(free) if free else REFUSED

    def _states(self, kernels: Mapping[str, set[int]]) -> dict[str, int]:
        numbers: dict[int, int] = {}  # most marks have the same kernel
        states = {}
        for letter, kernel in kernels.items():
            if kernel:
                if id(kernel) not in numbers:
                    numbers[id(kernel)] = self._state(kernel)
                states[letter] = numbers[id(kernel)]
        return states

    def _kernels_after(self, closed: set[int]) -> _Kernels:
        """Return the kernels after the positions of a state."""
        first, labels, targets = self._first, self._labels, self._targets
        after = _Kernels({}, set(), set(), set())
        by_label, before = after.by_label, set()
        for position in closed:
            flag, node = position & _FLAG_MASK, position >> _FLAG_BITS & _NODE_MASK
            if flag in (_WITHIN, _FRESH) and self._are_plain[node]:
                arc = first[node]
                label = labels[arc]
                at = position - flag + ((targets[arc] - node) << _FLAG_BITS)
                if label in by_label:
                    by_label[label].add(at)
                else:
                    by_label[label] = {at}
            elif flag == _MARKED:
                after.blank.add(position ^ _MARKED ^ _FRESH)
            elif self._add_after(after, position) and position >> _FLAG_BITS <= _NODE_MASK:
                before.add(node)
        if (apostrophe := by_label.get(ord(APOSTROPHE))) is not None:
            apostrophe |= {at | _FRESH for at in apostrophe}  # "l'entrata" is two words
        if self.is_unparted:
            every = {at & ~_FLAG_MASK | _FRESH for at in closed if at & _FLAG_MASK != _FRESH}
            return after._replace(blank=every, mark=every)
        if before and self._skip >= 0:
            after.blank.add(self._position(self._skip, _FRESH, (_SKIPPED, *before)))
            after.mark.add(self._position(self._skip, _MARKED, (_SKIPPED, *before)))
        return after

    def _add_after(self, after: _Kernels, position: int) -> bool:
        """Add to the kernels what follows a position; return whether a word ends there."""
        flag, node = position & _FLAG_MASK, position >> _FLAG_BITS & _NODE_MASK
        arcs, within = self._arcs[node], position - flag - (node << _FLAG_BITS)
        if flag != _WHOLE:
            for label, target in arcs.letters:
                after.by_label.setdefault(label, set()).add(within + (target << _FLAG_BITS))
            after.free.update([within + (target << _FLAG_BITS) for target in arcs.free])
        if flag == _FRESH:
            return False
        for target in arcs.gaps:
            after.blank.add(within + (target << _FLAG_BITS) | _FRESH)
            after.mark.add(within + (target << _FLAG_BITS) | _MARKED)
        return bool(arcs.gaps)

    def _with_marks(self, kernels: _Kernels, closed: set[int]) -> dict[str, set[int]]:
        """Return the kernels after letters of fixed text, blanks and marks between words."""
        fresh = {position for position in closed if position & _FLAG_MASK == _FRESH}
        marks = {" ": kernels.blank, **dict.fromkeys(CLOSING, kernels.mark)}
        if not self.is_unparted:
            marks[HYPHEN] = {position ^ _MARKED ^ _FRESH for position in kernels.mark}
        marks.update(dict.fromkeys(OPENING, fresh))
        by_letter = {chr(label): kernel for label, kernel in kernels.by_label.items()}
        both = {c: by_letter[c] | marks[c] for c in by_letter if c in marks}
        return {**by_letter, **marks, **both}


def _kinds(network: Network) -> tuple[bytes, bytes]:
    """Return two flags by node: one letter alone follows; something may follow without a letter."""
    counts = np.diff(network.first)
    sources = np.repeat(np.arange(len(network)), counts)
    n_letters = np.bincount(sources[network.labels >= 0], minlength=len(network))
    silent = np.isin(network.labels, (GAP, RETURN)) | (network.labels <= FIRST_SLOT)
    are_silent = np.bincount(sources[silent], minlength=len(network)) > 0
    are_silent[END] = True
    return ((counts == 1) & (n_letters == 1)).tobytes(), are_silent.tobytes()


def is_spoken(letter: str) -> bool:
    """Return whether a folded letter or mark is heard: letters, digits, blanks, apostrophes."""
    return letter in " '" or letter.isalnum()
