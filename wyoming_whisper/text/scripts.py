"""Scripts whose words are not parted by blanks, and texts put together in any script.

Pure text: imports nothing of this package.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

UNPARTED = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
"""Their letters, for a class of a regular expression: Thai, Lao, Burmese, Khmer, Japanese,
Chinese."""

_LAST = re.compile(rf"([{UNPARTED}])[^\w{UNPARTED}]*\Z")
_FIRST = re.compile(rf"[^\w{UNPARTED}]*[{UNPARTED}]")


def seam(before: str, after: str) -> str:
    """Return what parts two texts that follow each other: a blank, or nothing.

    Nothing where either is empty, or both have letters of UNPARTED there, whatever marks stand
    between: a text may be in another script than its language, as translations are.
    """
    if not (before and after):
        return ""
    return "" if _LAST.search(before) and _FIRST.match(after) else " "


def joined(texts: Iterable[str]) -> str:
    """Return texts that follow each other as one."""
    whole = ""
    for text in texts:
        whole += seam(whole, text) + text
    return whole
