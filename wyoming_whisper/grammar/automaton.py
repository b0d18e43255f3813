"""Which tokens may follow in the sentences of one home.

Letters lead from state to state; tokens are walked byte by byte through the trie of the
vocabulary, since one may end within a letter.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from .compounds import Compounds
from .letters import CLOSING, OPENING, fold, variants, words_of
from .nearest import Nearest
from .positions import REFUSED, Letters
from .vocabulary import Vocabulary

Continuations = tuple[NDArray[np.int32], NDArray[np.int32]]

MAX_STATES = 80_000
"""States by bytes that are kept from one utterance for the next ones, about 80 MB, and states by
letters, about 45 MB."""

MAX_WARM = 200
"""First words after which is found beforehand what may follow: about a second's work."""

_MARKS = frozenset(" " + CLOSING + OPENING)

FIXED_WORDS = 2
"""At the end of a sentence, for it not to end in free text."""

MAX_TEXTS = 2
"""What is compared by spelling: the free text, and the next best."""

MAX_ALIKE = 4
"""Each is scored by the model."""

NO_VOCABULARY = Vocabulary(())
NO_COMPOUNDS = Compounds((), links=False)

MANY = 64
"""More ways on than these in the trie of tokens aren't gone through for free text."""


class Grammar:
    """The sentences of one home, for one vocabulary.

    Any thread may ask about texts, one after the other: `matches`, `ends_freely`, `written`,
    `alike`. What the search asks is for one thread, while no other asks anything. States are
    numbers, valid until the next `begin` or `alike`.
    """

    def __init__(
        self,
        letters: Letters,
        vocabulary: Vocabulary | None,
        compounds: Compounds = NO_COMPOUNDS,
    ) -> None:
        """`letters`: its first start is before what is searched, its last before all sentences.

        Without a vocabulary nothing is asked that has tokens.
        """
        self._letters = letters
        self._compounds = compounds
        self._nearest = Nearest(letters)
        self._vocabulary = vocabulary or NO_VOCABULARY
        self._reading = threading.RLock()
        """Held by who asks about a text: states by letters are made on the way."""
        self.is_searchable = vocabulary is not None
        """Whether its tokens are those of the model that asks."""
        self._clear()

    def with_vocabulary(self, vocabulary: Vocabulary | None) -> Grammar:
        """Return the same sentences for another vocabulary. From any thread."""
        return Grammar(self._letters.fresh(), vocabulary, self._compounds)

    def allow_search(self, vocabulary: Vocabulary | None) -> None:
        """Say which tokens the model has that asks next."""
        self.is_searchable = vocabulary is self._vocabulary

    # -- what the search asks ----------------------------------------------------------------

    @property
    def start(self) -> int:
        """The state before the first token."""
        return 0

    def begin(self) -> int:
        """Return the start state, for a new utterance: all other states may end here."""
        self._make_room()
        return self.start

    def _make_room(self) -> None:
        if max(len(self._states), len(self._letters)) > MAX_STATES:
            self._letters.clear()
            self._clear()

    def continuations(self, state: int) -> Continuations | None:
        """Return text tokens that may follow, and the state after each, both int32.

        None where free text is possible: ask `advance` there.
        """
        if state not in self._continuations:
            self._continuations[state] = self._walk(state)
        return self._continuations[state]

    def is_free(self, state: int) -> bool:
        """Return whether free text may follow, of which `continuations` tells nothing."""
        return self.continuations(state) is None

    def advance(self, state: int, token: int) -> int:
        """Return the state after a token; REFUSED where it may not follow."""
        tokens = self._vocabulary.tokens
        text = tokens[token] if token < len(tokens) else b""
        for byte in text:
            state = self._step(state, byte)
            if state == REFUSED:
                break
        return state if text else REFUSED

    def is_final(self, state: int) -> bool:
        """Return whether a sentence may end here; a mark may follow all the same."""
        letters, begun = self._states[state]
        return not begun and self._letters.is_end(letters)

    def matches(self, text: str) -> bool:
        """Return whether a text is one of the sentences; case, marks and blanks don't count.

        Also of those that begin with free text, which the search leaves out.
        """
        with self._reading:
            state = self._read(text, self._letters.starts[-1])
            return state != REFUSED and self._letters.is_end(state)

    def ends_freely(self, text: str) -> bool:
        """Return whether a text is a sentence only as one that ends in free text: "who is" and
        anything. Of those sentences that the search knows.
        """
        with self._reading:
            state = self._read(text, self._letters.starts[0])
            may_go_on = state != REFUSED and self._letters.spoken[state][1] != REFUSED
            return may_go_on and not self._ends_fixed(words_of(text))

    def _ends_fixed(self, spelled: str) -> bool:
        """Return whether a text is a sentence whose last words are no free text."""
        words = spelled.rsplit(" ", FIXED_WORDS)
        begun = len(words[0]) if len(words) > FIXED_WORDS else 0
        state = self._letters.starts[0]
        for place, letter in enumerate(spelled):
            if state == REFUSED:
                return False
            if place < begun:
                state = self._letters.after(state, letter)
            else:
                state = self._letters.fixed(state).get(letter, REFUSED)
        return state != REFUSED and self._letters.is_end(state)

    def _read(self, text: str, state: int) -> int:
        """Return the state by letters after a text, REFUSED where nothing goes on like that."""
        for letter in words_of(text):
            state = self._letters.after(state, letter)
            if state == REFUSED:
                break
        return state

    def written(self, text: str) -> str | None:
        """Return a text as Home Assistant matches it, names as the home has them.

        None where it is none of the sentences.
        """
        parted = text.replace("-", " ")
        for joined in self._compounds.joined(parted):
            if self.matches(joined):
                return joined
        if parted != text and self.matches(parted):
            return parted
        return text if self.matches(text) else None

    def alike(
        self, texts: Sequence[str], checkpoint: Callable[[], None] = lambda: None
    ) -> list[str]:
        """Return sentences that are spelled much like one of the texts, nearest first.

        `checkpoint` is called at every letter; what it raises ends the work.
        """
        compared = list(dict.fromkeys(texts))[:MAX_TEXTS]
        with self._reading:
            self._make_room()
            costs = self._nearest.find(compared, MAX_ALIKE, checkpoint)
        ranked = sorted(costs, key=costs.__getitem__)[:MAX_ALIKE]
        return [sentence[:1].upper() + sentence[1:] for sentence in ranked]

    @property
    def is_unparted(self) -> bool:
        """Whether words of its language follow each other without blanks."""
        return self._letters.is_unparted

    def spelling(self, token: int) -> bytes:
        """Return what a token adds to a sentence: equal where only capitals and marks differ.

        Marks and blanks are blanks.
        """
        text = self._vocabulary.tokens[token]
        try:
            letters = text.decode()
        except UnicodeDecodeError:
            return text
        return "".join(" " if c in _MARKS else fold(c) for c in letters).encode()

    def warm(self) -> None:
        """Find what may follow at the start, and after first words: before somebody waits."""
        first = self.continuations(self.start)
        states = [] if first is None else dict.fromkeys(first[1].tolist())
        following = self._letters.following
        words = [state for state in states if " " in following[self._states[state][0]][0]]
        for state in words[:MAX_WARM]:
            self.continuations(state)

    # -- states by bytes ---------------------------------------------------------------------

    def _clear(self) -> None:
        self._states: list[tuple[int, bytes]] = []
        """Of each state: the one by letters, and the bytes of a letter that has begun."""
        self._numbers: dict[tuple[int, bytes], int] = {}
        self._moves: dict[int, dict[int, int]] = {}
        self._continuations: dict[int, Continuations | None] = {}
        self._state(self._letters.starts[0])

    def _state(self, letters: int, begun: bytes = b"") -> int:
        key = (letters, begun)
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self._states)
            self._states.append(key)
        return number

    def _is_wild(self, state: int) -> bool:
        return self._letters.following[self._states[state][0]][1] != REFUSED

    def _bytes_after(self, state: int) -> dict[int, int]:
        """Return the states after the bytes of all letters that sentences have here."""
        if state not in self._moves:
            letters, _ = self._states[state]
            moves: dict[int, int] = {}
            for letter, target in self._letters.following[letters][0].items():
                for variant in variants(letter):
                    self._lay(moves, letters, variant.encode(), target)
            self._moves[state] = moves
        return self._moves[state]

    def _lay(self, moves: dict[int, int], letters: int, encoded: bytes, target: int) -> None:
        """Lay the way of one letter's bytes from a state to another."""
        for i, byte in enumerate(encoded[:-1]):
            between = self._state(letters, encoded[: i + 1])
            moves[byte] = between
            moves = self._moves.setdefault(between, {})
        moves[encoded[-1]] = self._state(target)

    def _step(self, state: int, byte: int) -> int:
        """Return the state after a byte; REFUSED where it may not follow."""
        after = self._bytes_after(state).get(byte, REFUSED)
        if after == REFUSED and self._is_wild(state):
            letters, begun = self._states[state]
            return self._free_step(letters, begun + bytes((byte,)))
        return after

    def _free_step(self, letters: int, begun: bytes) -> int:
        try:
            letter = begun.decode()
        except UnicodeDecodeError as error:
            whole = error.reason == "unexpected end of data"
            return self._state(letters, begun) if whole else REFUSED
        after = self._letters.after(letters, fold(letter))
        return after if after == REFUSED else self._state(after)

    # -- tokens ------------------------------------------------------------------------------

    def _walk(self, state: int) -> Continuations | None:
        """Return what `continuations` does: the vocabulary's trie and the automaton together."""
        vocabulary = self._vocabulary
        first, letters, numbers = vocabulary.first, vocabulary.bytes, vocabulary.numbers
        tokens, states = [], []
        todo = [(0, state)]
        while todo:
            node, at = todo.pop()
            begin, end = first[node], first[node + 1]
            if begin == end:
                continue
            if self._is_wild(at):
                if end - begin > MANY:
                    return None
                moves = {byte: self._step(at, byte) for byte in letters[begin:end]}
            else:
                moves = self._bytes_after(at)
            for child in range(begin, end):
                after = moves.get(letters[child], REFUSED)
                if after != REFUSED:
                    todo.append((child, after))
                    if numbers[child] >= 0:
                        tokens.append(numbers[child])
                        states.append(after)
        return np.array(tokens, np.int32), np.array(states, np.int32)
