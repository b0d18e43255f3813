"""What the scripts of all languages have: marks, and words that are not parted by blanks.

Pure text: imports nothing of this package.
"""

# ruff: noqa: RUF001  (marks of all scripts)

from __future__ import annotations

import re
from collections.abc import Iterable

UNPARTED = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
"""Letters of scripts without blanks between words, for a class of a regular expression: Thai, Lao,
Burmese, Khmer, Japanese, Chinese."""

MARKS = ".,;:!?…‥;·。．、，！？；：｡､؟،؛۔।॥։።፣፤፥፧၊။។៕—–―"
"""What ends sentences and their parts, and dashes, which stand where somebody broke off. Not the
hyphen and the apostrophe, which are letters of words."""

QUOTES = "“”„‟«»‹›「」『』〝〞〟"
"""Letters of no word."""


def _seam(before: str, after: str) -> str:
    """Return what parts two texts that follow each other: a blank, or nothing.

    Nothing where either is empty, or both have letters of UNPARTED there, whatever marks stand
    between: a text may be in another script than its language, as translations are.
    """
    if not (before and after):
        return ""
    is_unparted = re.search(rf"[{UNPARTED}][^\w{UNPARTED}]*\Z", before) and re.match(
        rf"[^\w{UNPARTED}]*[{UNPARTED}]", after
    )
    return "" if is_unparted else " "


def joined(texts: Iterable[str]) -> str:
    """Return texts that follow each other as one."""
    whole = ""
    for text in texts:
        whole += _seam(whole, text) + text
    return whole
