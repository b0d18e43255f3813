"""How options speak of what was written: shortened, listed, and what may have been meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


def shortened(raw: object) -> str:
    shown_length = 80
    text = "on" if raw is True else "off" if raw is False else repr(raw)
    return text if len(text) <= shown_length else text[:shown_length] + "..."


def listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def did_you_mean(word: object, known: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(str(word), sorted(known), n=1)
    return f"; did you mean {nearest[0]}?" if nearest else ""
