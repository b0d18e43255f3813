"""People who say commands, each after the answer to the one before, and know the right texts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median

from benchmarks.lib import report
from benchmarks.lib.client import SATELLITE_CHUNK_MS, Heard, say, steady_texts
from benchmarks.lib.clips import Clip, with_silence


@dataclass
class Toll:
    """What came of commands."""

    seconds: list[float] = field(default_factory=list)
    """From audio-stop to what came, of each."""
    lost: list[str] = field(default_factory=list)
    """What came instead of a transcript."""
    wrong: list[str] = field(default_factory=list)
    """Transcripts that were others than the first."""

    @property
    def failures(self) -> list[str]:
        """Promises that were broken, a sentence each."""
        return report.counted({"lost": self.lost, "wrong": self.wrong})

    @property
    def times(self) -> list[str]:
        """The cells of a median and of what 95 % don't exceed."""
        if not self.seconds:
            return [report.NOTHING] * 2
        most = report.percentile(self.seconds, 95)
        return [report.milliseconds(seconds) for seconds in (median(self.seconds), most)]


class Speakers:
    """Who says clips to a server whose answers to each are known."""

    def __init__(self, uri: str, clips: Sequence[Clip], texts: dict[str, str]) -> None:
        """`texts` are those that are right, by the clips' files; other clips are not said."""
        self._uri = uri
        self._texts = texts
        self.clips = [clip for clip in clips if clip.file in texts]

    @classmethod
    async def who_know(cls, uri: str, clips: Sequence[Clip]) -> Speakers:
        """Return who have said every clip before. Raises BenchmarkError."""
        return cls(uri, clips, await steady_texts(uri, clips))

    async def say(self, clip: Clip, *, in_time: bool = False) -> Heard:
        """Say a clip at once, or at the pace of speech."""
        samples = with_silence(clip.samples)
        return await say(self._uri, samples, chunk_ms=SATELLITE_CHUNK_MS, in_time=in_time)

    async def speak(
        self, clips: Iterable[Clip], toll: Toll, *, in_time: bool = False, after: float = 0.0
    ) -> None:
        """Say clips, beginning after so many seconds, and take in what comes."""
        await asyncio.sleep(after)
        for clip in clips:
            heard, right = await self.say(clip, in_time=in_time), self._texts[clip.file]
            if heard.error or not heard.text:
                toll.lost.append(f"{clip.file}: {heard.error or 'an empty text'}")
            elif heard.text != right:
                toll.wrong.append(f"{clip.file}: {heard.text!r}, not {right!r}")
            toll.seconds.append(heard.seconds)
