"""The steps of greedy search: a pair for each length of window and of cache, one launch each."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial

from ...errors import EngineError
from .cuda import Stream
from .engine import Context
from .memory import Memory, Rows

_LOGGER = logging.getLogger(__name__)

_Launches = list[Callable[[], None]]
"""What runs the half that reads the first set of memory, and what runs the other."""


class Loops:
    """Makes the pairs, and keeps the ones that were used last.

    On TensorRT each half is a CUDA graph that we capture. TensorRT-RTX captures its own, when its
    kernels are the final ones; a captured graph of ours would keep the first, slower ones.
    `cuda_graphs` False queues each kernel by itself. `context` gives a context for steps: one of
    the caller's own, or the one that all may use.
    """

    MAX_LOOPS = 16

    def __init__(
        self,
        memory: Memory,
        stream: Stream,
        context: Callable[[bool], Context],
        *,
        cuda_graphs: bool,
        library_captures: bool,
    ) -> None:
        self._memory = memory
        self._stream = stream
        self._context = context
        self._cuda_graphs = cuda_graphs
        self._library_captures = library_captures
        self._pairs: OrderedDict[tuple[int, int], tuple[_Launches, ExitStack]] = OrderedDict()

    def pair(self, n_ctx: int, n_slots: int, rows: Rows) -> _Launches:
        """Return the pair for positions of the window and slots of the cache in `rows`."""
        key = (n_ctx, n_slots)
        if key not in self._pairs:
            while len(self._pairs) >= self.MAX_LOOPS:
                self._pairs.popitem(last=False)[1][1].close()
            self._pairs[key] = self._make(key, rows)
        self._pairs.move_to_end(key)
        return self._pairs[key][0]

    def close(self) -> None:
        """Let go of all; nothing may be at work."""
        for _, owned in self._pairs.values():
            owned.close()
        self._pairs.clear()

    def _make(self, key: tuple[int, int], rows: Rows) -> tuple[_Launches, ExitStack]:
        if self._cuda_graphs:
            try:
                return self._captured(key, rows)
            except EngineError as error:
                _LOGGER.warning("decoding goes on without CUDA graphs: %s", error)
                self._cuda_graphs = False
                self._stream.synchronize()
        run = partial(self._bind_and_queue, self._context(False), key, rows)
        return [partial(run, half) for half in (0, 1)], ExitStack()

    def _captured(self, key: tuple[int, int], rows: Rows) -> tuple[_Launches, ExitStack]:
        """Return a pair of graphs. A context belongs to one: no other shape is set in it."""
        with ExitStack() as stack:
            launches: _Launches = []
            for half in (0, 1):
                context = stack.enter_context(closing(self._context(True)))
                stack.callback(self._stream.drain)  # a context at work must not be destroyed
                # The first run of a shape can't be captured. It reads the set that is alive,
                # whose token is a real one, and writes the other, where nothing lives.
                self._bind_and_queue(context, key, rows, rows.current)
                self._stream.synchronize()
                if self._library_captures:
                    self._bind(context, key, rows, half)
                    launches.append(partial(self._queue, context, half))
                    continue
                graph = self._stream.capture(
                    partial(self._bind_and_queue, context, key, rows, half)
                )
                stack.enter_context(graph)
                launches.append(partial(graph.launch, self._stream))
            return launches, stack.pop_all()

    def _bind_and_queue(
        self, context: Context, key: tuple[int, int], rows: Rows, half: int
    ) -> None:
        self._bind(context, key, rows, half)
        self._queue(context, half)

    def _bind(self, context: Context, key: tuple[int, int], rows: Rows, half: int) -> None:
        """Have the context read set `half` and write the other."""
        memory, (n_ctx, n_slots) = self._memory, key
        addresses = {
            **memory.at,
            **memory.heads[half].read,
            **memory.heads[half ^ 1].written,
            **rows.reads[half],
            **rows.writes[half ^ 1],
            "parents": memory.at["first_row"],
        }
        context.bind(memory.facts.decoder_shapes(1, 1, n_slots, n_ctx), addresses)

    def _queue(self, context: Context, half: int) -> None:
        """Queue what was bound, and the copy of its result."""
        context.repeat()
        result = self._memory.heads[half ^ 1]
        pinned = self._memory.host_at[f"heads_{half ^ 1}"]
        self._stream.download(pinned, result.tokens, result.n_bytes)
