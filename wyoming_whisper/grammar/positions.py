"""The network of a home, letter by letter: an automaton, made as it is walked.

A state is a set of positions in the network; what was found of a state is kept.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

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
        self._ends = network.ends().tolist()
        self._start_nodes = tuple(starts)
        self._skip = skip
        self._slots = tuple(slots)
        self.is_unparted = unparted
        self.clear()

    def __len__(self) -> int:
        return len(self._kernels)

    def clear(self) -> None:
        """Forget all states."""
        self._kernels: list[frozenset[int]] = []
        self._numbers: dict[frozenset[int], int] = {}
        self._is_end: dict[int, bool] = {}
        self._following: dict[int, tuple[dict[str, int], int]] = {}
        self._spoken: dict[int, list[tuple[str, int]]] = {}
        self._fixed: dict[int, dict[str, int]] = {}
        self._returns: list[tuple[int, ...]] = [()]
        self._return_numbers: dict[tuple[int, ...], int] = {(): 0}
        self.starts = tuple(map(self._begin, self._start_nodes))
        """The states before `starts`."""

    def _begin(self, start: int) -> int:
        kernel = set()
        for flag in (_FRESH, _MARKED):  # Whisper's first token begins with a blank, mostly
            kernel.add(self._position(start, flag))
            if self._skip >= 0:
                kernel.add(self._position(self._skip, flag, (_SKIPPED, start)))
        return self._state(kernel)

    def following(self, state: int) -> tuple[dict[str, int], int]:
        """Return the states after the folded letters and marks that may follow, and another.

        That is the state after any letter else; REFUSED where there is no free text.
        """
        if state not in self._following:
            self._following[state] = self._find_following(state)
        return self._following[state]

    def spoken(self, state: int) -> list[tuple[str, int]]:
        """Return the letters and blanks that may follow, and the states after them.

        Other marks say nothing.
        """
        if state not in self._spoken:
            states = self.following(state)[0].items()
            self._spoken[state] = [(c, to) for c, to in states if c in " '" or c.isalnum()]
        return self._spoken[state]

    def fixed(self, state: int) -> dict[str, int]:
        """Return the states after what may follow, free text left out."""
        if state not in self._fixed:
            states, other = self.following(state)
            if other != REFUSED:
                states = self._states(self._kernels_after(state)[0])
            self._fixed[state] = states
        return self._fixed[state]

    def is_end(self, state: int) -> bool:
        """Return whether a sentence may end here."""
        if state not in self._is_end:
            nodes = (position >> _FLAG_BITS for position in self._closed(self._kernels[state]))
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
        key = frozenset(kernel)
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self._kernels)
            self._kernels.append(key)
        return number

    def _closed(self, kernel: Iterable[int]) -> set[int]:
        """Return the positions of a kernel, and those that are reached without a letter."""
        closed: set[int] = set()
        entered: dict[tuple[int, int], set[int]] = {}
        todo = [*kernel]
        while todo or entered:
            if not todo:
                # One position for all places in sentences that the same names may follow.
                todo = [self._position(node, flag, to) for (node, flag), to in entered.items()]
                entered = {}
            position = todo.pop()
            if position not in closed:
                closed.add(position)
                if position & _FLAG_MASK != _MARKED:
                    todo += self._silent(position, entered)
        return closed

    def _silent(self, position: int, entered: dict[tuple[int, int], set[int]]) -> list[int]:
        """Return where a position leads without a letter; note in `entered` which slots begin."""
        flag, node = position & _FLAG_MASK, position >> _FLAG_BITS & _NODE_MASK
        returns = position >> _FLAG_BITS + _NODE_BITS
        reached = []
        for i in range(self._first[node], self._first[node + 1]):
            label = self._labels[i]
            if label == GAP and flag == _FRESH:
                reached.append(position + ((self._targets[i] - node) << _FLAG_BITS))
            elif label == RETURN:
                reached += self._after_slot(flag, self._returns[returns])
            elif label <= FIRST_SLOT and flag != _WHOLE and not returns:
                start = self._slots[FIRST_SLOT - label]
                if start >= 0:
                    entered.setdefault((start, flag), set()).add(self._targets[i])
        if self.is_unparted and self._skip >= 0 and node == END and not returns:
            reached.append(self._position(self._skip, flag, (_SKIPPED, END)))
        return reached

    def _after_slot(self, flag: int, nodes: Sequence[int]) -> list[int]:
        if nodes and nodes[0] == _SKIPPED:
            flag, nodes = (_FRESH if self.is_unparted else _WHOLE), nodes[1:]
        return [node << _FLAG_BITS | flag for node in nodes]

    def _find_following(self, state: int) -> tuple[dict[str, int], int]:
        kernels, free = self._kernels_after(state)
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

    def _kernels_after(self, state: int) -> tuple[dict[str, set[int]], set[int]]:
        """Return the kernels after letters and marks of fixed text, and after free text."""
        closed = self._closed(self._kernels[state])
        letters: dict[int, set[int]] = {}
        free: set[int] = set()
        for position in closed:
            flag, node = position & _FLAG_MASK, position >> _FLAG_BITS & _NODE_MASK
            if flag in (_MARKED, _WHOLE):
                continue
            within = position - flag - (node << _FLAG_BITS)
            for i in range(self._first[node], self._first[node + 1]):
                label = self._labels[i]
                if label >= 0:
                    letters.setdefault(label, set()).add(within + (self._targets[i] << _FLAG_BITS))
                elif label == ANY:
                    free.add(within + (self._targets[i] << _FLAG_BITS))
        if ord(APOSTROPHE) in letters:  # "l'entrata" is two words
            letters[ord(APOSTROPHE)] |= {at | _FRESH for at in letters[ord(APOSTROPHE)]}
        kernels = {chr(label): kernel for label, kernel in letters.items()}
        for mark, kernel in self._after_marks(closed).items():
            kernels[mark] = kernels[mark] | kernel if mark in kernels else kernel
        return kernels, free

    def _after_marks(self, closed: set[int]) -> dict[str, set[int]]:
        """Return the kernels after blanks and marks between words."""
        fresh = {position for position in closed if position & _FLAG_MASK == _FRESH}
        if self.is_unparted:
            after = {position & ~_FLAG_MASK | _FRESH for position in closed - fresh}
            kernels = dict.fromkeys(" " + CLOSING, after)
        else:
            blank, mark = self._after_gap(closed)
            hyphen = {position ^ _MARKED ^ _FRESH for position in mark}
            kernels = {
                " ": blank,
                HYPHEN: hyphen,
                **dict.fromkeys(CLOSING, mark),
            }
        return {**kernels, **dict.fromkeys(OPENING, fresh)}

    def _after_gap(self, closed: set[int]) -> tuple[set[int], set[int]]:
        """Return the kernels after a blank and after a mark."""
        blank, mark, before = set(), set(), set()
        for position in closed:
            flag, node = position & _FLAG_MASK, position >> _FLAG_BITS & _NODE_MASK
            if flag == _FRESH:
                continue
            if flag == _MARKED:
                blank.add(position ^ _MARKED ^ _FRESH)
                continue
            for i in range(self._first[node], self._first[node + 1]):
                if self._labels[i] == GAP:
                    at = position - flag + ((self._targets[i] - node) << _FLAG_BITS)
                    blank.add(at | _FRESH)
                    mark.add(at | _MARKED)
                    if position >> _FLAG_BITS <= _NODE_MASK:
                        before.add(node)
        if before and self._skip >= 0:
            returns = (_SKIPPED, *before)
            blank.add(self._position(self._skip, _FRESH, returns))
            mark.add(self._position(self._skip, _MARKED, returns))
        return blank, mark
