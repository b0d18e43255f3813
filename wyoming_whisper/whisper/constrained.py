"""Search inside a grammar: the likeliest of the sentences that a home understands.

The free text has been found already and guides the search: as far as it is the beginning of such a
sentence, and everything else is far less likely, its logits are computed in one run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ..transcriber import go_on
from .audio import Array
from .options import N_TEXT_CTX
from .session import ElasticSession, Session, Tokens


class Constraint(Protocol):
    """The sentences that are allowed, as an automaton over tokens."""

    @property
    def start(self) -> int:
        """The state before the first token."""

    def continuations(self, state: int) -> tuple[Tokens, Tokens] | None:
        """Return (tokens, next states) of all tokens that may follow.

        None where nearly all may, as in free text between fixed words: ask `advance` of each.
        """

    def advance(self, state: int, token: int) -> int:
        """Return the state after `token`, -1 where it may not follow."""

    def is_final(self, state: int) -> bool:
        """Whether a sentence may end here."""

    def spelling(self, token: int) -> bytes:
        """Return what `token` adds to a sentence: equal where only capitals and marks differ.

        Marks and blanks are blanks.
        """


@dataclass(frozen=True)
class ConstrainedOptions:
    """How to search."""

    beam_size: int
    max_new_tokens: int
    suppressed_tokens: Sequence[int]
    margin: float = 8.0
    """Nats: a beginning this much less likely than the likeliest is given up."""
    n_best: int = 4
    least_logprob: float = -np.inf
    """Of a sentence's tokens and its end, in all: what can't be as likely is given up."""
    checkpoint: Callable[[], None] = field(default=go_on, repr=False, compare=False)
    """Called between tokens; what it raises ends the work."""


@dataclass(frozen=True)
class Sentence:
    """One of the grammar's sentences, as the model would write it."""

    tokens: list[int]
    logprobs: list[float]
    """Of each token, and of the end after them."""

    @property
    def total_logprob(self) -> float:
        return sum(self.logprobs)


class Steps(Protocol):
    """The decoder over beginnings that grow by a token at a time."""

    def start(self, guide: Sequence[int]) -> Array:
        """Return logits after the prompt and each token of `guide`, shape = (1..n + 1, n_vocab).

        Those after the prompt at least.
        """

    def extend(self, parents: Sequence[int], tokens: Sequence[int], position: int) -> Array:
        """Return logits after one more token of each row, shape = (len(tokens), n_vocab).

        Row i continues row `parents[i]` of the rows before, which is 0 after `start`; `position`
        is how many tokens of the sentence come before these.
        """


class ElasticSteps:
    """Steps over an ElasticSession: as many rows as there are beginnings."""

    def __init__(self, session: ElasticSession, audio_features: Any, prompt: Sequence[int]) -> None:
        self._session = session
        self._prompt = list(prompt)
        self._bias = session.bias(())
        self._cache = session.open_cache(audio_features, 1, N_TEXT_CTX)

    def start(self, guide: Sequence[int]) -> Array:
        """See Steps: all of them at once."""
        first = len(self._prompt) - 1
        tokens = np.array([[*self._prompt, *guide]], np.int32)
        wanted = range(first, first + len(guide) + 1)
        output = self._session.step(self._cache, tokens, 0, self._bias, wanted=wanted)
        return np.asarray(output.wanted_logits()[0])

    def extend(self, parents: Sequence[int], tokens: Sequence[int], position: int) -> Array:
        """See Steps."""
        column = np.array(tokens, np.int32)[:, None]
        output = self._session.step(
            self._cache,
            column,
            len(self._prompt) + position,
            self._bias,
            np.array(parents, np.int32),
        )
        return output.logits()


class FixedSteps:
    """Steps over a session whose shapes are laid out ahead: always the rows that `cache` has."""

    def __init__(self, session: Session, cache: Any, prompt: Sequence[int], n_rows: int) -> None:
        self._session = session
        self._prompt = list(prompt)
        self._n_rows = n_rows
        self._bias = session.bias(())
        self._cache = cache

    def start(self, guide: Sequence[int]) -> Array:
        """See Steps: those after the prompt alone."""
        tokens = np.array([self._prompt] * self._n_rows, np.int32)
        return self._session.step(self._cache, tokens, 0, self._bias).logits()[:1]

    def extend(self, parents: Sequence[int], tokens: Sequence[int], position: int) -> Array:
        """See Steps."""
        n_spare = self._n_rows - len(tokens)
        column = np.array([*tokens, *[tokens[0]] * n_spare], np.int32)[:, None]
        rows = np.array([*parents, *[parents[0]] * n_spare], np.int32)
        at = len(self._prompt) + position
        # One row has one parent, and sessions of one row take none.
        continued = rows if self._n_rows > 1 else None
        output = self._session.step(self._cache, column, at, self._bias, continued)
        return output.logits()[: len(tokens)]


def search(
    steps: Steps,
    constraint: Constraint,
    eot: int,
    options: ConstrainedOptions,
    guide: Sequence[int] = (),
) -> list[Sentence]:
    """Return the likeliest sentences, best first, none where the beam leads to no end.

    `guide` are the tokens of what the model writes without a grammar.
    """
    guide = list(guide)[: options.max_new_tokens]
    guided = steps.start(guide)
    beams, rows = [_Beginning([], [], constraint.start)], guided[:1]
    finished: dict[bytes, Sentence] = {}
    for position in range(options.max_new_tokens + 1):
        options.checkpoint()
        logits = rows.copy()  # what a session returns is good until its next step
        logits[:, list(options.suppressed_tokens)] = -np.inf
        normalizers = _log_sum_exp(logits)
        last = position == options.max_new_tokens
        ranked: list[_Beginning] = []
        for row, beam in enumerate(beams):
            logprobs = logits[row] - normalizers[row]
            if position and constraint.is_final(beam.state):
                _finish(finished, beam, float(logprobs[eot]))
            if not last:
                ranked += _following(beam, row, logprobs, constraint, options, eot)
        ends = sorted((one.total_logprob for one in finished.values()), reverse=True)
        beams = _best(ranked, options, ends)
        if not beams:
            break
        tokens = [beam.tokens[-1] for beam in beams]
        is_guided = len(beams) == 1 and beams[0].tokens == guide[: position + 1]
        if is_guided and position + 1 < len(guided):
            rows = guided[position + 1 : position + 2]
        else:
            rows = steps.extend([beam.parent for beam in beams], tokens, position)
            guided = guided[:1]
    ranking = sorted(finished.values(), key=lambda one: one.total_logprob, reverse=True)
    return ranking[: options.n_best]


@dataclass(frozen=True)
class _Beginning:
    """A sentence on its way."""

    tokens: list[int]
    logprobs: list[float]
    state: int
    parent: int = 0
    """The row that it continues."""
    total_logprob: float = 0.0
    spelling: bytes = b""
    """Without blanks at its ends; see Constraint."""


def _finish(finished: dict[bytes, Sentence], beam: _Beginning, logprob: float) -> None:
    """Add a sentence, unless the same one is there already and likelier."""
    sentence = Sentence(beam.tokens, [*beam.logprobs, logprob])
    key = beam.spelling.strip()
    if key not in finished or finished[key].total_logprob < sentence.total_logprob:
        finished[key] = sentence


def _following(
    beam: _Beginning,
    row: int,
    logprobs: Array,
    constraint: Constraint,
    options: ConstrainedOptions,
    eot: int,
) -> Iterator[_Beginning]:
    """Yield the likeliest ways on: as many as there are beams, and no less likely than margin."""
    allowed = constraint.continuations(beam.state)
    if allowed is None:
        allowed = _tried(beam.state, logprobs[:eot], constraint, 8 * options.beam_size)
    tokens, states = allowed
    found = logprobs[tokens]
    for place in _largest(found, 2 * options.beam_size):
        logprob = float(found[place])
        yield _Beginning(
            [*beam.tokens, int(tokens[place])],
            [*beam.logprobs, logprob],
            int(states[place]),
            row,
            beam.total_logprob + logprob,
            _spelled(beam.spelling, constraint.spelling(int(tokens[place]))),
        )


def _spelled(before: bytes, added: bytes) -> bytes:
    """Return both, blanks in a row being one."""
    return before + (added.lstrip() if before[-1:] in (b"", b" ") else added)


def _tried(
    state: int, logprobs: Array, constraint: Constraint, n_tokens: int
) -> tuple[Tokens, Tokens]:
    """Return (tokens, next states) of those among the likeliest tokens that may follow."""
    tokens = _largest(logprobs, n_tokens).astype(np.int32)
    states = np.array([constraint.advance(state, int(token)) for token in tokens], np.int32)
    return tokens[states >= 0], states[states >= 0]


def _best(
    ranked: list[_Beginning], options: ConstrainedOptions, ends: list[float]
) -> list[_Beginning]:
    """Return the beginnings that are followed, of equal ones the likeliest.

    `ends` are the logprobs of whole sentences, best first: what can't become one of n_best any
    more, or as likely as least_logprob, is given up.
    """
    ranked.sort(key=lambda beam: beam.total_logprob, reverse=True)
    if not ranked:
        return []
    lowest = max([ranked[0].total_logprob, *ends[:1]]) - options.margin
    lowest = max(lowest, options.least_logprob)
    if len(ends) >= options.n_best:
        lowest = max(lowest, ends[options.n_best - 1])
    different: dict[tuple[int, bytes], _Beginning] = {}
    for beam in ranked:
        if beam.total_logprob < lowest or len(different) == options.beam_size:
            break
        different.setdefault((beam.state, beam.spelling), beam)
    return list(different.values())


def _largest(values: Array, n_values: int) -> Tokens:
    """Return the indices of the largest values, largest first."""
    if len(values) > n_values:
        places = np.argpartition(-values, n_values - 1)[:n_values]
    else:
        places = np.arange(len(values))
    return np.asarray(places[np.argsort(-values[places], kind="stable")])


def _log_sum_exp(logits: Array) -> Array:
    highest = logits.max(axis=-1)
    return np.asarray(highest + np.log(np.exp(logits - highest[:, None]).sum(axis=-1)))
