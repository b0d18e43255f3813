"""Names of the home that may have been meant where others were heard: by letters and by sound.

Data in, candidates out: which of them was meant, the audio decides (snapper.py).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from ..languages.words import language_words


@dataclass(frozen=True)
class Candidate:
    """A text with a name in the place of what was written there."""

    text: str
    name: str
    start: int
    """The name's place in `text`, in words."""
    replaced: tuple[int, int]
    """The words of the first text that are not in this one."""
    similarity: float
    """Of the name and what one of the texts has in its place, 0..1."""
    context: float
    """Of the name and what the first text has there, 0..1."""


class NameIndex:
    """Names, ready to be compared with what was heard. Made once, as it takes its time."""

    MAX_WORDS = 40  # of a text; names are for commands
    MAX_NAMES = 10_000
    MAX_NAME_CHARS = 80
    MIN_NAME_LETTERS = 4  # "TV" is like too many things
    MAX_EXTRA_WORDS = 2  # more than the name has
    MAX_CANDIDATES = 12  # each costs two passes of the decoder over the text at most

    # How alike, by letters and sound, a name must be at least to be looked at.
    MIN_SIMILARITY = 0.3

    def __init__(self, names: Iterable[str]) -> None:
        names_by_folded: dict[str, str] = {}
        for name in names:
            folded = _without_article(fold(name))
            letters = folded.replace(" ", "")
            if len(letters) >= self.MIN_NAME_LETTERS and len(name) <= self.MAX_NAME_CHARS:
                names_by_folded.setdefault(folded, _without_article(" ".join(name.split())))
            if len(names_by_folded) == self.MAX_NAMES:
                break
        self.names = tuple(names_by_folded.values())
        self._folded = tuple(names_by_folded)
        self._folded_set = frozenset(names_by_folded)
        if names_by_folded:
            from .likeness import Likeness

            self._likeness = Likeness(self._folded)

    def __len__(self) -> int:
        return len(self.names)

    def candidates(self, texts: Sequence[str], language: str | None = None) -> list[Candidate]:
        """Return what may have been meant by the first text, best first, MAX_CANDIDATES at most.

        The other texts are what else the model could have written.
        """
        if not self.names or not texts or len(texts[0].split()) > self.MAX_WORDS:
            return []
        best = _Text(texts[0])
        in_best = (" ".join(best.folded[start:end]) for start, end in best.spans())
        heard_well = [span for span in in_best if span in self._folded_set]
        common = _command_words(language)
        spans: dict[str, list[tuple[_Text, int, int]]] = {}
        for text in dict.fromkeys(texts):
            other = _Text(text)
            for start, end in other.spans():
                span = " ".join(other.folded[start:end])
                # Common words say what they say.
                if not all(word in common or word.isdigit() for word in span.split()):
                    spans.setdefault(span, []).append((other, start, end))
        candidates: dict[str, Candidate] = {}
        for similarity, span, number in self._likeness.alike(list(spans), self.MIN_SIMILARITY):
            for other, start, end in spans[span]:
                candidate = self._candidate(best, other, start, end, number, similarity)
                if candidate is not None and not _loses(best, candidate, heard_well):
                    candidates.setdefault(fold(candidate.text), candidate)
            if len(candidates) >= self.MAX_CANDIDATES:
                break
        return list(candidates.values())[: self.MAX_CANDIDATES]

    def _candidate(
        self, best: _Text, other: _Text, start: int, end: int, number: int, similarity: float
    ) -> Candidate | None:
        """Return `other` with a name in place of a span; None where that is no candidate."""
        folded = self._folded[number]
        words = folded.split()
        if end - start > len(words) + self.MAX_EXTRA_WORDS or best.has(folded):
            return None
        if end - start == len(other.words):  # a name alone is no command: it fits any noise
            return None
        first, last = best.replaced_by([*other.folded[:start], *words, *other.folded[end:]])
        # What is not the name has to be what the model wrote: its second thoughts are of no use.
        if last - first > max(len(words), end - start) + self.MAX_EXTRA_WORDS:
            return None
        replaced = " ".join(best.folded[first:last])
        if not replaced:
            return None
        return Candidate(
            text=other.with_name(self.names[number], start, end),
            name=self.names[number],
            start=start,
            replaced=(first, last),
            similarity=similarity,
            context=self._likeness.of(replaced, folded),
        )


def _loses(best: _Text, candidate: Candidate, heard_well: Iterable[str]) -> bool:
    """Whether a name that was heard well would be replaced."""
    replaced = f" {' '.join(best.folded[slice(*candidate.replaced)])} "
    return any(f" {name} " in replaced for name in heard_well)


class _Text:
    """A text by words, as it is and as it is compared."""

    MAX_SPAN_WORDS = 6  # in a row, that may be one name misheard

    def __init__(self, text: str) -> None:
        self.words = text.split()
        self.folded = [fold(word) for word in self.words]

    def spans(self) -> Iterator[tuple[int, int]]:
        for start in range(len(self.words)):
            for end in range(start + 1, min(start + self.MAX_SPAN_WORDS, len(self.words)) + 1):
                yield start, end

    def has(self, folded: str) -> bool:
        return f" {folded} " in f" {' '.join(self.folded)} "

    def replaced_by(self, changed: list[str]) -> tuple[int, int]:
        """Return which words of this text are not in the other one: first, last + 1."""
        words = self.folded
        shortest = min(len(words), len(changed))
        start = next((n for n in range(shortest) if words[n] != changed[n]), shortest)
        rest = shortest - start
        end = next((n for n in range(rest) if words[-1 - n] != changed[-1 - n]), rest)
        return start, len(words) - end

    def with_name(self, name: str, start: int, end: int) -> str:
        """Return the text with a name there, written as the text is: case and punctuation."""
        last = self.words[end - 1]
        tail = last[len(last.rstrip(".,;:!?…\"'”’»)")) :]  # noqa: RUF001
        small = not any(word[0].isupper() for word in self.words)
        written = name.casefold() if small else name
        return " ".join([*self.words[:start], written + tail, *self.words[end:]])


def fold(text: str) -> str:
    """Return a text as it is compared: small letters and digits without accents, single spaces."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    letters = (
        letter if letter.isalnum() else "" if _is_mark(letter) else " " for letter in decomposed
    )
    return " ".join("".join(letters).split())


def _is_mark(letter: str) -> bool:
    return letter in "'’" or unicodedata.combining(letter) > 0  # noqa: RUF001


def _without_article(name: str) -> str:
    article, _, rest = name.partition(" ")
    return rest if rest and article.casefold() in ("the", "der", "die", "das") else name


@cache
def _command_words(language: str | None) -> frozenset[str]:
    """Return words of which commands are made: alone they are never a name misheard."""
    words = language_words(language)
    return frozenset(map(fold, words["command_words"])) if words else frozenset()
