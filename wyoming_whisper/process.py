"""What this process asks of Python, for as long as it serves."""

from __future__ import annotations

import gc


def settle() -> None:
    """Spare what is there now, libraries and model, from being searched for garbage ever again.

    A search through all of it stops every thread for 60 ms (EPYC), in the middle of an answer.
    """
    gc.unfreeze()  # a model that was unloaded since the last time may be garbage by now
    gc.collect()
    gc.freeze()
