"""The steps of greedy search: a pair for each length of window and of cache, one launch each."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from typing import Any, Protocol

from ...errors import EngineError
from .cuda import Stream
from .engine import Context

_LOGGER = logging.getLogger(__name__)

_Cache = Any
"""A session's."""
_Launches = list[Callable[[], None]]
"""What runs the half that reads the first set of memory, and what runs the other."""


class _Decoder(Protocol):
    """What queues steps: a TensorRTSession."""

    def step_context(self, *, is_alone: bool) -> Context:
        """Return a context for steps: one of the caller's, or the one that all may use."""

    def bind_step(self, context: Context, cache: _Cache, half: int) -> None:
        """Have the context read set `half` and write the other."""

    def queue_step(self, context: Context, half: int) -> None:
        """Queue what was bound, and the copy of its result."""

    def alive_half(self, cache: _Cache) -> int:
        """Return the set that holds what was said so far."""

    def abandon(self) -> None:
        """Let the GPU come to an end, whatever it reports."""


class Loops:
    """Makes the pairs, and keeps the ones that were used last.

    On TensorRT each half is a CUDA graph that we capture. TensorRT-RTX captures its own, when its
    kernels are the final ones; a captured graph of ours would keep the first, slower ones.
    `cuda_graphs` False queues each kernel by itself.
    """

    MAX_LOOPS = 16

    def __init__(
        self, decoder: _Decoder, stream: Stream, cuda_graphs: bool, library_captures: bool
    ) -> None:
        self._decoder = decoder
        self._stream = stream
        self._cuda_graphs = cuda_graphs
        self._library_captures = library_captures
        self._pairs: OrderedDict[tuple[int, int], tuple[_Launches, ExitStack]] = OrderedDict()

    def pair(self, key: tuple[int, int], cache: _Cache) -> _Launches:
        """Return the pair for `key`, positions of the window and slots of the cache."""
        if key not in self._pairs:
            while len(self._pairs) >= self.MAX_LOOPS:
                self._pairs.popitem(last=False)[1][1].close()
            self._pairs[key] = self._make(cache)
        self._pairs.move_to_end(key)
        return self._pairs[key][0]

    def close(self) -> None:
        """Let go of all; nothing may be at work."""
        for _, owned in self._pairs.values():
            owned.close()
        self._pairs.clear()

    def _make(self, cache: _Cache) -> tuple[_Launches, ExitStack]:
        if self._cuda_graphs:
            try:
                return self._captured(cache)
            except EngineError as error:
                _LOGGER.warning("decoding goes on without CUDA graphs: %s", error)
                self._cuda_graphs = False
                self._stream.synchronize()
        context = self._decoder.step_context(is_alone=False)
        return [partial(self._bind_and_queue, context, cache, half) for half in (0, 1)], ExitStack()

    def _captured(self, cache: _Cache) -> tuple[_Launches, ExitStack]:
        """Return a pair of graphs. A context belongs to one: no other shape is set in it."""
        decoder = self._decoder
        with ExitStack() as stack:
            launches: _Launches = []
            for half in (0, 1):
                context = stack.enter_context(closing(decoder.step_context(is_alone=True)))
                stack.callback(decoder.abandon)  # a context at work must not be destroyed
                # The first run of a shape can't be captured. It reads the set that is alive,
                # whose token is a real one, and writes the other, where nothing lives.
                self._bind_and_queue(context, cache, decoder.alive_half(cache))
                self._stream.synchronize()
                if self._library_captures:
                    decoder.bind_step(context, cache, half)
                    launches.append(partial(decoder.queue_step, context, half))
                    continue
                graph = self._stream.capture(partial(self._bind_and_queue, context, cache, half))
                stack.enter_context(graph)
                launches.append(partial(graph.launch, self._stream))
            return launches, stack.pop_all()

    def _bind_and_queue(self, context: Context, cache: _Cache, half: int) -> None:
        self._decoder.bind_step(context, cache, half)
        self._decoder.queue_step(context, half)
