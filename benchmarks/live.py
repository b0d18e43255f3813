"""Live text: how many words are out before the speaker has finished, how soon, and at what cost.

`python -m benchmarks.live` speaks clips in real time, then is silent for as long as Home Assistant
listens on, to ours with `--live-text`, to ours without, and to the official server; one after the
other, so that none is in another's way. A server without live text shows all words at its end.

When a word was spoken is not known: a clip's words are laid over its speech in proportion to their
letters, and a word is spoken at the end of its share. In a clip with pauses that is off by as much.
"""

from __future__ import annotations

import argparse
import asyncio
import difflib
import re
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

from wyoming.asr import Transcript, TranscriptChunk
from wyoming.audio import AudioStop
from wyoming.client import AsyncClient
from wyoming.error import Error
from wyoming.info import Describe, Info

from benchmarks import report
from benchmarks.client import ANSWER_SECONDS, command_events, connected
from benchmarks.clips import SECONDS_BEFORE, Clip, ClipError, read_clips
from benchmarks.latency import MeteredServer, followed_by_silence, metered, trimmed
from benchmarks.responsiveness import BUNDLED_CLIPS, SHORT_SECONDS
from benchmarks.servers import (
    BenchmarkError,
    Program,
    add_arguments,
    asked,
    install_official,
    official,
    ours,
)
from wyoming_whisper.transcriber import SAMPLE_RATE, Samples
from wyoming_whisper.vad import SileroVad

LIVE, PLAIN, OFFICIAL = "live text", "without", "official"
SILENCE = 1.29  # the median that Home Assistant listens on by default
SETTLE_SECONDS = 0.1  # before a server's processor time is read: its threads spin for a moment


@dataclass(frozen=True)
class Take:
    """One clip, heard by one server; seconds since its first sample."""

    server: str
    clip: str
    said: str
    ended: float
    """When the speech was over."""
    stopped: float
    """When audio-stop was sent."""
    chunks: list[tuple[float, str]]
    """What came of the text, and when."""
    written: str
    at: float
    """When the transcript came."""
    cpu_seconds: float
    """What the server took for it, all threads."""

    @property
    def is_command(self) -> bool:
        return self.ended < SHORT_SECONDS


@dataclass(frozen=True)
class Words:
    """What became of the words of one take."""

    total: int
    """In the transcript."""
    before_end: int
    """Of these, shown before the speech was over."""
    live: int
    """Of these, shown before the audio was."""
    sent: int
    """Shown before the audio was over, rightly or not."""
    delays: list[float]
    """Seconds from a word's end to its first appearance, of those in the transcript."""

    @property
    def wrong(self) -> int:
        return self.sent - self.live


# -- speaking ------------------------------------------------------------------------------


async def speak(uri: str, samples: Samples, chunk_ms: int) -> tuple[float, list[Any], str, float]:
    """Send a clip as it is spoken; return when audio-stop went, chunks, the text and its time.

    Raises BenchmarkError.
    """
    async with connected(uri) as client:
        begin = time.perf_counter()
        chunks: list[tuple[float, str]] = []
        answer = asyncio.ensure_future(_listen(client, chunks, begin))
        try:
            for number, event in enumerate(command_events(samples, chunk_ms=chunk_ms)):
                # Two events come before the audio; a chunk goes when a microphone has all of it.
                due = begin + max(0, number - 1) * chunk_ms / 1000
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                await client.write_event(event)
            stopped = time.perf_counter() - begin
            await client.write_event(AudioStop().event())
            text, at = await asyncio.wait_for(answer, ANSWER_SECONDS)
        except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError, ValueError) as problem:
            answer.cancel()
            await asyncio.gather(answer, return_exceptions=True)
            raise BenchmarkError(f"no answer: {problem or type(problem).__name__}") from problem
        return stopped, chunks, text, at


async def _listen(
    client: AsyncClient, chunks: list[tuple[float, str]], begin: float
) -> tuple[str, float]:
    while (event := await client.read_event()) is not None:
        now = time.perf_counter() - begin
        if TranscriptChunk.is_type(event.type):
            chunks.append((now, TranscriptChunk.from_event(event).text))
        if Transcript.is_type(event.type):
            return Transcript.from_event(event).text, now
        if Error.is_type(event.type):
            raise ValueError(Error.from_event(event).text)
    raise ConnectionError("the server closed the connection without a transcript")


async def says_it_streams(uri: str) -> bool:
    """Return what the server's info says of live text."""
    async with connected(uri) as client:
        await client.write_event(Describe().event())
        while (event := await asyncio.wait_for(client.read_event(), ANSWER_SECONDS)) is not None:
            if Info.is_type(event.type):
                return bool(Info.from_event(event).asr[0].supports_transcript_streaming)
    raise BenchmarkError("the server does not say what it is")


def measure(servers: Sequence[MeteredServer], clips: Sequence[Clip], chunk_ms: int) -> list[Take]:
    """Have every server hear every clip; who hears it first takes turns."""
    for server in servers:  # nobody pays for being first
        asyncio.run(speak(server.uri, followed_by_silence(clips[0].samples, SILENCE), chunk_ms))
    takes: list[Take] = []
    for number, clip in enumerate(clips):
        for place in range(len(servers)):
            server = servers[(number + place) % len(servers)]
            takes.append(_take(server, clip, chunk_ms))
        print(f"{number + 1} of {len(clips)}  {clip.file}", file=sys.stderr, flush=True)
    return takes


def _take(server: MeteredServer, clip: Clip, chunk_ms: int) -> Take:
    samples = followed_by_silence(clip.samples, SILENCE)
    ended = len(clip.samples) / SAMPLE_RATE
    time.sleep(SETTLE_SECONDS)
    before = server.cpu_seconds()
    heard = asyncio.run(speak(server.uri, samples, chunk_ms))
    time.sleep(SETTLE_SECONDS)
    spent = server.cpu_seconds() - before
    return Take(server.name, clip.file, clip.text, ended, *heard, spent)


# -- what became of the words --------------------------------------------------------------


def judge(take: Take) -> Words:
    """Return which words were shown when, and which of them were wrong."""
    written = plain(take.written)
    shown = [(word, at) for at, text in take.chunks if at < take.stopped for word in plain(text)]
    first = [take.at] * len(written)
    matcher = difflib.SequenceMatcher(None, [word for word, _ in shown], written, autojunk=False)
    for block in matcher.get_matching_blocks():
        for offset in range(block.size):
            first[block.b + offset] = shown[block.a + offset][1]
    spoken = spoken_at(written, SECONDS_BEFORE, take.ended)
    return Words(
        total=len(written),
        before_end=sum(at < take.ended for at in first),
        live=sum(at < take.stopped for at in first),
        sent=len(shown),
        delays=[at - end for at, end in zip(first, spoken, strict=True)],
    )


def plain(text: str) -> list[str]:
    """Return a text's words without marks and capitals."""
    return re.findall(r"[^\W_]+(?:['.][^\W_]+)*", text.casefold().replace("\u2019", "'"))


def spoken_at(words: Sequence[str], begin: float, end: float) -> list[float]:
    """Return when each word has been spoken: `words` laid over the time by their letters."""
    letters = [len(word) + 1 for word in words]  # one for what parts them
    return [
        begin + (end - begin) * sum(letters[: number + 1]) / sum(letters)
        for number in range(len(letters))
    ]


# -- reporting -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """What is shown of one server."""

    server: str
    utterances: int
    streams: bool
    words: int
    before_end: int
    live: int
    sent: int
    wrong: int
    median_delay: float
    p90_delay: float
    median_wait: float
    p95_wait: float
    """Seconds from audio-stop to transcript."""
    cpu_seconds: float


def row(server: str, takes: Sequence[Take], streams: bool) -> Row:
    words = [judge(take) for take in takes]
    delays = [delay for found in words for delay in found.delays] or [0.0]
    waits = [take.at - take.stopped for take in takes]
    return Row(
        server=server,
        utterances=len(takes),
        streams=streams,
        words=sum(found.total for found in words),
        before_end=sum(found.before_end for found in words),
        live=sum(found.live for found in words),
        sent=sum(found.sent for found in words),
        wrong=sum(found.wrong for found in words),
        median_delay=median(delays),
        p90_delay=report.percentile(delays, 90),
        median_wait=median(waits),
        p95_wait=report.percentile(waits, 95),
        cpu_seconds=mean(take.cpu_seconds for take in takes),
    )


def rows_of(takes: Sequence[Take], streams: Mapping[str, bool]) -> list[Row]:
    return [
        row(name, [take for take in takes if take.server == name], says)
        for name, says in streams.items()
    ]


def show(rows: Sequence[Row]) -> str:
    names = [found.server for found in rows]
    cells: dict[str, list[str]] = {
        "utterances": [str(r.utterances) for r in rows],
        "its info says that it sends live text": ["yes" if r.streams else "no" for r in rows],
        "words in the transcripts": [str(r.words) for r in rows],
        "shown before the speech was over": [report.percent(r.before_end, r.words) for r in rows],
        "shown before the audio was over": [report.percent(r.live, r.words) for r in rows],
        "shown, but not in the transcript": [report.percent(r.wrong, r.sent) for r in rows],
        "from a word's end to its appearance, median": [_seconds(r.median_delay) for r in rows],
        "from a word's end to its appearance, 90 %": [_seconds(r.p90_delay) for r in rows],
        "audio-stop to transcript, median": [report.milliseconds(r.median_wait) for r in rows],
        "audio-stop to transcript, 95 %": [report.milliseconds(r.p95_wait) for r in rows],
        "processor time of an utterance": [report.milliseconds(r.cpu_seconds) for r in rows],
    }
    return report.table(["", *names], [[name, *values] for name, values in cells.items()])


def _seconds(value: float) -> str:
    return f"{value:.2f} s"


def different(takes: Sequence[Take]) -> list[dict[str, str]]:
    """Return the clips whose transcript depends on live text: there must be none."""
    texts: dict[str, dict[str, str]] = {}
    for take in takes:
        if take.server in (LIVE, PLAIN):
            texts.setdefault(take.clip, {})[take.server] = take.written
    return [
        {"clip": clip, **both} for clip, both in texts.items() if both.get(LIVE) != both.get(PLAIN)
    ]


# -- the command ---------------------------------------------------------------------------


def programs(args: argparse.Namespace) -> list[Program]:
    found = [ours(args, LIVE, "--live-text"), ours(args, PLAIN)]
    return found if args.no_official else [*found, official(args)]


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument(
        "--clips", type=Path, default=BUNDLED_CLIPS, metavar="DIR", help="default: tests/audio"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="clips of each kind, at most")
    return parser.parse_args(argv)


def _clips(args: argparse.Namespace) -> list[Clip]:
    vad = SileroVad()
    clips = [clip for clip in read_clips(args.clips, limit=args.limit) if clip.text]
    if not clips:
        raise ClipError(f"nobody speaks in {args.clips}")
    return [trimmed(clip, vad) for clip in clips]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write; 1 when that fails, or a transcript depends on live text."""
    args = _arguments(argv)
    facts = report.machine()
    try:
        clips = _clips(args)
        runtime = {} if args.no_official else install_official()
        with (
            tempfile.TemporaryDirectory() as temporary,
            metered(programs(args), Path(temporary)) as servers,
        ):
            takes = measure(servers, clips, args.chunk_ms)
            streams = {server.name: asyncio.run(says_it_streams(server.uri)) for server in servers}
    except (BenchmarkError, ClipError) as error:
        print(f"benchmarks.live: {error}", file=sys.stderr)
        return 1
    parts = {
        "Commands": [take for take in takes if take.is_command],
        "Longer": [take for take in takes if not take.is_command],
    }
    rows = {name: rows_of(part, streams) for name, part in parts.items() if part}
    wrong = different(takes)
    same = f"The same transcript with live text and without: {len(clips) - len(wrong)}"
    lines = [f"{same} of {len(clips)}", *(f"DIFFERENT: {one}" for one in wrong)]
    tables = [f"{name}\n\n{show(found)}" for name, found in rows.items()]
    print(report.machine_line(facts), *tables, "\n".join(lines), sep="\n\n")
    written = {
        "machine": facts,
        "official": runtime,
        "asked": asked(args),
        "rows": {name: [asdict(one) for one in found] for name, found in rows.items()},
        "different": wrong,
        "utterances": [asdict(take) for take in takes],
    }
    report.write_json(args.json, written)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
