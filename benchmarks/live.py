"""Live text: how many words are out before the speaker has finished, how soon, and at what cost.

`python -m benchmarks.live --corpus DIR` speaks what people say there in real time, then is silent
for as long as Home Assistant listens on, to ours with `--live-text`, to ours without, and to the
official server; one after the other, so that none is in another's way. A server without live text
shows all words at its end.

With `--agreeing 1,2,3` nothing is spoken: clips are followed on virtual time, on which a
transcription takes the processor time that it took. That shows, on a busy machine too, what comes
of so many transcriptions that have to agree.

When a word was spoken is not known: a clip's words are laid over its speech in proportion to their
letters, and a word is spoken at the end of its share. In a clip with pauses that is off by as much.
"""

from __future__ import annotations

import argparse
import asyncio
import difflib
import hashlib
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
from benchmarks.corpus import PARTS, read_corpus, select
from benchmarks.latency import MeteredServer, followed_by_silence, metered, trimmed
from benchmarks.responsiveness import SHORT_SECONDS
from benchmarks.servers import (
    BenchmarkError,
    Program,
    add_arguments,
    asked,
    install_official,
    official,
    ours,
)
from wyoming_whisper.backends import open_transcriber
from wyoming_whisper.live import LiveText
from wyoming_whisper.scheduler import Job
from wyoming_whisper.settings import Settings
from wyoming_whisper.speech import Speech, span_options
from wyoming_whisper.text import finished, text_style
from wyoming_whisper.transcriber import (
    SAMPLE_RATE,
    Samples,
    TranscribeOptions,
    Transcriber,
    Transcription,
)
from wyoming_whisper.utterance import HEAR_SAMPLES
from wyoming_whisper.vad import SileroVad, Vad

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


def measure(
    servers: Sequence[MeteredServer], clips: Sequence[Clip], chunk_ms: int, silence: float
) -> list[Take]:
    """Have every server hear every clip; who hears it first takes turns."""
    for server in servers:  # nobody pays for being first
        asyncio.run(speak(server.uri, followed_by_silence(clips[0].samples, SILENCE), chunk_ms))
    takes: list[Take] = []
    for number, clip in enumerate(clips):
        for place in range(len(servers)):
            server = servers[(number + place) % len(servers)]
            takes.append(_take(server, clip, chunk_ms, silence))
        print(f"{number + 1} of {len(clips)}  {clip.file}", file=sys.stderr, flush=True)
    return takes


def _take(server: MeteredServer, clip: Clip, chunk_ms: int, silence: float) -> Take:
    samples = followed_by_silence(clip.samples, silence)
    ended = len(clip.samples) / SAMPLE_RATE
    time.sleep(SETTLE_SECONDS)
    before = server.cpu_seconds()
    heard = asyncio.run(speak(server.uri, samples, chunk_ms))
    time.sleep(SETTLE_SECONDS)
    spent = server.cpu_seconds() - before
    return Take(server.name, clip.file, clip.text, ended, *heard, spent)


# -- on virtual time -----------------------------------------------------------------------


class VirtualMachine:
    """A model with one thread, on a clock that goes on when it is told to."""

    def __init__(self, transcriber: Transcriber) -> None:
        self.now = 0.0
        self.spent = 0.0
        self._transcriber = transcriber
        self._known: dict[bytes, tuple[Transcription, float]] = {}
        self._job: Job | None = None
        self._done = 0.0
        self._result = Transcription("")

    def spare(self, samples: Samples, options: TranscribeOptions) -> Job | None:
        """Begin what gives way to other work; see Scheduler.spare."""
        return None if self._job else self.submit(samples, options)

    def submit(self, samples: Samples, options: TranscribeOptions) -> Job:
        """Begin at once; what was under way is broken off."""
        self._result, cost = self.transcribe(samples, options)
        self.spent += cost
        self._done = self.now + cost
        self._job = Job(samples, options, eager=True)
        return self._job

    def advance(self, seconds: float) -> None:
        self.now += seconds
        if self._job and self.now >= self._done:
            self._job.future.set_result(self._result)
            self._job = None

    def rest(self) -> None:
        """Be done with an utterance."""
        self.now, self.spent, self._job = 0.0, 0.0, None

    def transcribe(
        self, samples: Samples, options: TranscribeOptions
    ) -> tuple[Transcription, float]:
        """Return what is said, and the processor time that took when it was first asked."""
        key = hashlib.sha256(samples.tobytes()).digest()
        if key not in self._known:
            before = time.process_time()
            found = self._transcriber.transcribe(samples, options)
            self._known[key] = found, time.process_time() - before
        return self._known[key]


def follow(
    machine: VirtualMachine, clip: Clip, vad: Vad, settings: Settings, n: int, silence: float
) -> Take:
    """Return how live text with `n` transcriptions that agree follows a clip."""
    machine.rest()
    options, style = TranscribeOptions(settings.language), text_style(settings)
    live = LiveText(machine.spare, options, style, lambda: machine.now, n)
    speech = Speech(vad, span_options(settings))
    samples = followed_by_silence(clip.samples, silence)
    chunks: list[tuple[float, str]] = []
    early: Job | None = None
    paused = -1
    for start in range(0, len(samples), HEAR_SAMPLES):
        part = samples[start : start + HEAR_SAMPLES]
        machine.advance(len(part) / SAMPLE_RATE)
        speech.add(part)
        if speech.last_voiced != paused:
            early, paused = None, speech.last_voiced
        if early is None and speech.has_paused and (spans := speech.spans()):
            early = machine.submit(speech.cut(spans), options)
        live.follow(speech, early)
        if text := live.take():
            chunks.append((machine.now, text))
    speech.finish()
    final, _ = machine.transcribe(speech.cut(speech.spans()), options)
    written = finished(final, speech.voicing, style).text
    ended, stopped = len(clip.samples) / SAMPLE_RATE, machine.now
    name = f"{n} agree"
    return Take(name, clip.file, clip.text, ended, stopped, chunks, written, stopped, machine.spent)


def measure_virtually(args: argparse.Namespace, clips: Sequence[Clip]) -> list[Take]:
    """Return the takes of every clip, by how many transcriptions have to agree."""
    settings = Settings(
        model=str(args.model.resolve()),
        language="en",
        data_dir=(args.data_dir,),
        backend=args.backend,
        strict_backend=True,
        cpu_threads=args.threads,
        beam_size=args.beam_size,
        compute_type=args.compute_type,
    )
    machine, vad, takes = VirtualMachine(open_transcriber(settings)), SileroVad(), list[Take]()
    for number, clip in enumerate(clips):
        takes += [follow(machine, clip, vad, settings, n, args.silence) for n in args.agreeing]
        print(f"{number + 1} of {len(clips)}  {clip.file}", file=sys.stderr, flush=True)
    return takes


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


def show(rows: Sequence[Row], *, spoken: bool = True) -> str:
    """Return a table; what only servers have is left out where clips were not spoken to any."""
    names = [found.server for found in rows]
    cells: dict[str, list[str]] = {
        "utterances": [str(r.utterances) for r in rows],
        "words in the transcripts": [str(r.words) for r in rows],
        "shown before the speech was over": [report.percent(r.before_end, r.words) for r in rows],
        "shown before the audio was over": [report.percent(r.live, r.words) for r in rows],
        "shown, but not in the transcript": [report.percent(r.wrong, r.sent) for r in rows],
        "from a word's end to its appearance, median": [_seconds(r.median_delay) for r in rows],
        "from a word's end to its appearance, 90 %": [_seconds(r.p90_delay) for r in rows],
        "processor time of an utterance": [report.milliseconds(r.cpu_seconds) for r in rows],
    }
    if spoken:
        cells |= {
            "its info says that it sends live text": ["yes" if r.streams else "no" for r in rows],
            "audio-stop to transcript, median": [report.milliseconds(r.median_wait) for r in rows],
            "audio-stop to transcript, 95 %": [report.milliseconds(r.p95_wait) for r in rows],
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
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--corpus", type=Path, metavar="DIR", help="speech, see corpus.py")
    source.add_argument("--clips", type=Path, metavar="DIR", help="clips with a labels.json")
    parser.add_argument("--part", choices=PARTS, default="report", help="(default: report)")
    parser.add_argument(
        "--agreeing", type=_numbers, metavar="LIST", help="on virtual time, such as 1,2,3"
    )
    parser.add_argument("--backend", default="faster-whisper", help="on virtual time")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), metavar="DIR")
    parser.add_argument(
        "--silence",
        type=float,
        default=SILENCE,
        metavar="SECONDS",
        help=f"before audio-stop (default: {SILENCE})",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="clips of each kind, at most")
    return parser.parse_args(argv)


def _numbers(text: str) -> list[int]:
    numbers = [int(item) for item in text.split(",")]
    if min(numbers) < 1:
        raise ValueError
    return numbers


def _clips(args: argparse.Namespace) -> list[Clip]:
    vad = SileroVad()
    if args.clips:
        clips = [clip for clip in read_clips(args.clips, limit=args.limit) if clip.text]
    else:
        people = [one for one in read_corpus(args.corpus) if one.voice == "human"]
        spoken = select(people, args.part, ("command", "speech"), ("en",), args.limit)
        clips = [Clip(one.file, one.text or "", one.kind, one.samples()) for one in spoken]
    found: list[Clip] = []
    for clip in clips:
        try:
            found.append(trimmed(clip, vad))
        except ClipError as error:  # a single word that the VAD takes for none
            print(f"left out: {error}", file=sys.stderr)
    if not found:
        raise ClipError(f"nobody speaks in {args.clips or args.corpus}")
    return found


def _measured(
    args: argparse.Namespace, clips: Sequence[Clip]
) -> tuple[list[Take], dict[str, bool]]:
    """Return all takes, and of each server whether it says that it sends live text."""
    if args.agreeing:
        takes = measure_virtually(args, clips)
        return takes, {take.server: True for take in takes}
    with (
        tempfile.TemporaryDirectory() as temporary,
        metered(programs(args), Path(temporary)) as servers,
    ):
        takes = measure(servers, clips, args.chunk_ms, args.silence)
        return takes, {server.name: asyncio.run(says_it_streams(server.uri)) for server in servers}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write; 1 when that fails, or a transcript depends on live text."""
    args = _arguments(argv)
    facts = report.machine()
    try:
        clips = _clips(args)
        runtime = {} if args.no_official or args.agreeing else install_official()
        takes, streams = _measured(args, clips)
    except (BenchmarkError, ClipError) as error:
        print(f"benchmarks.live: {error}", file=sys.stderr)
        return 1
    parts = {
        "Commands": [take for take in takes if take.is_command],
        "Longer": [take for take in takes if not take.is_command],
    }
    rows = {name: rows_of(part, streams) for name, part in parts.items() if part}
    tables = [f"{name}\n\n{show(found, spoken=not args.agreeing)}" for name, found in rows.items()]
    print(report.machine_line(facts), *tables, sep="\n\n")
    wrong = different(takes)
    if not args.agreeing:
        same = f"The same transcript with live text and without: {len(clips) - len(wrong)}"
        print(f"\n{same} of {len(clips)}", *(f"DIFFERENT: {one}" for one in wrong), sep="\n")
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
