"""The tokens of a model as a trie of their bytes."""

from __future__ import annotations

from array import array
from collections.abc import Sequence


class Vocabulary:
    """Text tokens of a model. Children of node n are those from first[n] to first[n + 1]."""

    def __init__(self, tokens: Sequence[bytes]) -> None:
        """`tokens`: the bytes of each text token by its number; empty ones are left out."""
        self.tokens = tuple(tokens)
        ordered = sorted((token, number) for number, token in enumerate(tokens) if token)
        self.first = array("i", [1])
        self.bytes = bytearray()
        self.numbers = array("i")
        """The token that ends at a node; -1 where none does."""
        self._build([token for token, _ in ordered], [number for _, number in ordered])

    def _build(self, tokens: list[bytes], numbers: list[int]) -> None:
        """Lay the nodes out by depth; `spans` are the tokens below each, what is left to do."""
        self.bytes.append(0)
        self.numbers.append(-1)
        spans = [(0, len(tokens), 0)]
        for begin, end, depth in spans:
            i = begin
            while i < end and len(tokens[i]) == depth:
                i += 1  # the node's own token
            while i < end:
                byte, j = tokens[i][depth], i
                while j < end and tokens[j][depth] == byte:
                    j += 1
                self.bytes.append(byte)
                own = len(tokens[i]) == depth + 1
                self.numbers.append(numbers[i] if own else -1)
                spans.append((i, j, depth + 1))
                i = j
            self.first.append(len(self.bytes))

    def __len__(self) -> int:
        return len(self.bytes)
