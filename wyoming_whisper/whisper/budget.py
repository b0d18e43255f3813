"""How long a text can be, by the seconds in which it was said."""

from __future__ import annotations

# Recordings in 16 languages have 3 to 6 tokens a second, 8.6 at most. Nobody says twice as much,
# and a loop ends after a fraction of the decoder's whole context.
TOKENS_PER_SECOND = 20
SPARE_TOKENS = 32

# Of scripts that the vocabulary spells, more or less, byte by byte.
SPELLED_TOKENS_PER_SECOND = 40
_INDIC = ("as", "bn", "gu", "hi", "kn", "ml", "mr", "ne", "pa", "sa", "si", "ta", "te")
_OTHERS = ("am", "ba", "bo", "hy", "ka", "kk", "km", "lo", "mn", "my", "ps", "sd", "tg", "th", "tt")
SPELLED = frozenset((*_INDIC, *_OTHERS, "ur", "yi"))


def room(seconds: float, language: str) -> int:
    """Return how many tokens a text has at most, generously; `language` is Whisper's code."""
    rate = SPELLED_TOKENS_PER_SECOND if language in SPELLED else TOKENS_PER_SECOND
    return SPARE_TOKENS + round(seconds * rate)
