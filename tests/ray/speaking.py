"""People who speak to a front end in real time, while something is lost."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.lib.client import say
from tests.ray.cluster import START_SECONDS
from tests.support import AUDIO, clips
from wyoming_whisper.commands.client import read_audio
from wyoming_whisper.transcriber import Samples


@dataclass
class Spoken:
    """What speakers got."""

    answers: list[float] = field(default_factory=list)
    """Seconds from the end of the audio to its transcript, of each."""

    wrong: list[str] = field(default_factory=list)
    """Errors, and texts that differ from those before the fault."""


async def wait_for_front_end(uri: str) -> None:
    """Return when it answers. Raises TimeoutError."""
    (clip,) = _samples(1)
    end = time.monotonic() + START_SECONDS
    while True:
        if (await say(uri, clip)).error is None:
            return
        if time.monotonic() > end:
            raise TimeoutError(f"{uri} does not answer")
        await asyncio.sleep(0.5)


async def under_load(
    uri: str, n_speakers: int, seconds: float, fault: Callable[[], object]
) -> tuple[Spoken, Spoken]:
    """Have people speak for `seconds`, with the fault after half; return before, after."""
    spoken = [(samples, (await say(uri, samples)).text) for samples in _samples(8)]
    before, after = Spoken(), Spoken()
    end = time.monotonic() + seconds / 3
    await asyncio.gather(*(_speak(uri, spoken, end, before) for _ in range(n_speakers)))
    end = time.monotonic() + seconds * 2 / 3
    speaking = [asyncio.create_task(_speak(uri, spoken, end, after)) for _ in range(n_speakers)]
    await asyncio.sleep(seconds / 6)
    await asyncio.to_thread(fault)
    await asyncio.gather(*speaking)
    return before, after


async def _speak(
    uri: str, spoken: Sequence[tuple[Samples, str]], end: float, result: Spoken
) -> None:
    """Say one command after the other, in real time, until `end`."""
    number = random.randrange(len(spoken))
    while time.monotonic() < end:
        samples, text = spoken[number % len(spoken)]
        number += 1
        heard = await say(uri, samples, chunk_ms=100, in_time=True)
        if heard.error:
            result.wrong.append(heard.error)
            continue
        result.answers.append(heard.seconds)
        if heard.text != text:
            result.wrong.append(f"{heard.text!r} instead of {text!r}")


def _samples(count: int) -> list[Samples]:
    return [read_audio(str(AUDIO / clip.file)) for clip in clips("clean")[:count]]
