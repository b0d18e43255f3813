"""What a user may write for a repository of the Hugging Face hub."""

from __future__ import annotations

import re

_ADDRESS = re.compile(
    r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/([^/?#\s]+/[^/?#\s]+)"
    r"(?:/(?:tree|blob)/main(?:/[^?#\s]*)?)?/?(?:[?#]\S*)?",
    re.IGNORECASE,
)


def without_address(name: str) -> str:
    """Return owner/name of a repository's address on the hub; any other name as it is.

    >>> without_address("https://huggingface.co/Systran/faster-whisper-base")
    'Systran/faster-whisper-base'
    """
    address = _ADDRESS.fullmatch(name.strip())
    return address[1] if address else name
