"""What decoding a window once gave, and where audio is quiet enough to be cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .audio import Array

if TYPE_CHECKING:
    from .inference import Hypothesis
QUIET_FRAMES = 20  # a pause between sentences lasts this long at least


@dataclass(frozen=True)
class Attempt:
    """What decoding a window once gave, and what speaks against it."""

    hypothesis: Hypothesis
    temperature: float
    text: str
    repetitive: bool
    unlikely: bool
    silent: bool
    endless: bool
    """No end token came, or the same few tokens came again and again."""
    unfinished: bool
    """No end token came where one was due: more was written than can be said in that time."""
    doubled: bool
    """All of it was written twice, or more often."""

    @property
    def doubtful(self) -> bool:
        """Whether it looks like a window cut too tight."""
        return self.endless or self.doubled or not self.good

    @property
    def failed(self) -> bool:
        """Whether it is no answer as it is: it goes round, or never ends."""
        return not self.silent and (self.repetitive or self.unfinished)

    @property
    def has_ended(self) -> bool:
        """Whether nothing speaks against it but that it repeats itself."""
        return not (self.unfinished or self.unlikely)

    @property
    def good(self) -> bool:
        return self.silent or not (self.failed or self.unlikely)


def quiet_pieces(mel: Array, longest: int) -> list[tuple[int, int]]:
    """Return (first, last + 1) frames of pieces that end where it is quietest."""
    loudness = np.convolve(mel.mean(axis=0), np.ones(QUIET_FRAMES) / QUIET_FRAMES, mode="same")
    pieces, start, n_frames = [], 0, mel.shape[1]
    while n_frames - start > longest:
        # Not too early either: a piece of speech is more than a word.
        first = start + longest // 3
        end = first + int(np.argmin(loudness[first : start + longest]))
        pieces.append((start, end))
        start = end
    return [*pieces, (start, n_frames)]


def quietest(mel: Array) -> int:
    """Return the frame of the quietest moment in the middle third of `mel`."""
    n_frames: int = mel.shape[1]
    loudness = np.convolve(mel.mean(axis=0), np.ones(QUIET_FRAMES) / QUIET_FRAMES, mode="same")
    return int(np.argmin(loudness[n_frames // 3 : 2 * n_frames // 3])) + n_frames // 3
