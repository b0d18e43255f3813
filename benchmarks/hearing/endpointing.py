"""When the server ends a command: how often too soon, and how long after its last word.

People's speech is heard by the server's own code, with `--endpointing auto` and a fixed wait, on
the clock of the audio, faster than it is spoken. A draft is taken to be there --draft-ms after work
began, which the suite latency measures. With --pause somebody hesitates where each recording is
quietest, in its middle.

The last word ends where the clean recording was last loud for 60 ms; an end before that cuts off.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.lib import report
from benchmarks.lib.clips import as_pcm
from benchmarks.lib.corpus import Recording, read_corpus, read_recordings
from benchmarks.lib.errors import ClipError
from benchmarks.lib.options import BACKEND, add, add_number, backend_settings
from benchmarks.lib.report import Outcome, progress
from wyoming_whisper.audio.pcm import PcmFormat
from wyoming_whisper.audio.vad import SileroVad, SpanOptions, Vad
from wyoming_whisper.backends import open_transcriber
from wyoming_whisper.settings.options import Settings
from wyoming_whisper.text.style import TextStyle
from wyoming_whisper.transcriber import (
    SAMPLE_RATE,
    Samples,
    TranscribeOptions,
    Transcriber,
    Transcription,
)
from wyoming_whisper.utterance import utterance
from wyoming_whisper.utterance.budget import Budget
from wyoming_whisper.utterance.endpointing import Endpointer
from wyoming_whisper.utterance.job import Job, Priority
from wyoming_whisper.utterance.languages import SpokenLanguages
from wyoming_whisper.utterance.service import Service
from wyoming_whisper.utterance.utterance import Utterance

TAIL_SECONDS = 4.0  # of silence after the command: who has not ended by then never does
MAX_SECONDS = 12.0  # what is longer is no command
FRAME = SAMPLE_RATE // 50
LOUD_FRAMES = 3
QUIETER = 10 ** (-24 / 20)  # than the loudest frame is no speech any more
ABOVE_NOISE = 3  # times the noise of the recording itself


@dataclass(frozen=True)
class Command:
    """One recording of one command."""

    group: str
    """What is counted together."""
    file: str
    samples: Samples
    last_word: float
    """Seconds at which it ends."""
    language: str = "en"


@dataclass(frozen=True)
class Take:
    """When somebody took one command for ended."""

    group: str
    who: str
    file: str
    last_word: float
    end: float | None
    """Seconds; None is never."""

    @property
    def late(self) -> float | None:
        """Seconds after the last word; before it is negative."""
        return None if self.end is None else self.end - self.last_word


# -- audio ---------------------------------------------------------------------------------


def read_commands(
    corpora: Sequence[Path], folders: Sequence[Path], part: str, limit: int | None
) -> list[Command]:
    """Return what people say in a part of corpora and folders, `limit` of each group at most.

    Raises ClipError.
    """
    groups: dict[str, list[Command]] = {}
    for one in (one for folder in corpora for one in read_corpus(folder)):
        if one.kind == "noise" or one.voice == "unknown" or part not in (one.part, "all"):
            continue
        samples = one.samples()
        if len(samples) <= MAX_SECONDS * SAMPLE_RATE:
            command = Command(_group(one), one.file, samples, last_word(samples), one.lang)
            groups.setdefault(command.group, []).append(command)
    for file, samples in read_recordings(folders, part):
        group = file.parent.name
        command = Command(group, file.name, samples, last_word(samples))
        groups.setdefault(group, []).append(command)
    return [command for group in groups.values() for command in group[:limit]]


def _group(recording: Recording) -> str:
    """Sentences that are read, and other languages, are no English commands."""
    language = "English" if recording.lang == "en" else "others"
    return f"{recording.voice}, {recording.kind}, {language}"


def last_word(samples: Samples) -> float:
    """Return where speech ends in a clean recording, in seconds."""
    frames = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)
    levels = np.sqrt(np.mean(np.square(frames, dtype=np.float64), axis=1))
    if len(levels) < LOUD_FRAMES:
        return len(samples) / SAMPLE_RATE
    noise = float(np.sort(levels)[len(levels) // 10])
    loud = levels > max(float(levels.max()) * QUIETER, noise * ABOVE_NOISE)
    runs = np.convolve(loud, np.ones(LOUD_FRAMES), "valid") == LOUD_FRAMES
    last = int(np.flatnonzero(runs)[-1]) + LOUD_FRAMES if runs.any() else len(levels)
    return last * FRAME / SAMPLE_RATE


def with_tail(command: Command) -> Samples:
    """Return the command and the silence after it."""
    return np.pad(command.samples, (0, round(TAIL_SECONDS * SAMPLE_RATE)))


def hesitating(command: Command, seconds: float) -> Command:
    """Return the command with a pause where it is quietest, in the middle third of its speech."""
    end = round(command.last_word * SAMPLE_RATE)
    first, last = end // 3 // FRAME, 2 * end // 3 // FRAME
    frames = command.samples[first * FRAME : last * FRAME].reshape(-1, FRAME)
    at = (first + int(np.argmin(np.sum(np.square(frames), axis=1)))) * FRAME + FRAME // 2
    pause = np.zeros(round(seconds * SAMPLE_RATE), np.float32)
    samples = np.concatenate([command.samples[:at], pause, command.samples[at:]])
    return replace(command, samples=samples, last_word=command.last_word + seconds)


# -- ours, on virtual time -----------------------------------------------------------------


class VirtualWorkshop(Service):
    """What an Utterance needs, on the clock of the audio.

    Early work is done after `draft_seconds`; with None there is none.
    """

    text_style = TextStyle()

    def __init__(
        self, vad: Vad, transcriber: Transcriber, settings: Settings, draft_seconds: float | None
    ) -> None:
        self.max_utterance_samples = settings.max_utterance_seconds * SAMPLE_RATE
        self.held_audio = Budget(self.max_utterance_samples, "audio")
        self.deadline_seconds = 0
        self.span_options = SpanOptions.of(settings)
        self.spoken = SpokenLanguages()
        self.eager = draft_seconds is not None
        self.vad = self._loaded_vad = vad
        self._transcriber = transcriber
        self._draft_seconds = draft_seconds or 0.0
        self._now = 0.0
        self._jobs: list[tuple[float, Job]] = []

    async def loaded_vad(self) -> Vad:
        return self._loaded_vad

    def wake(self) -> None: ...

    def submit(self, samples: Samples, options: TranscribeOptions, priority: Priority) -> Job:
        job = Job(samples, options, priority)
        seconds = 0.0 if priority.is_awaited else self._draft_seconds
        self._jobs.append((self._now + seconds, job))
        if priority.is_awaited:
            self.pass_time(0.0)
        return job

    def pass_time(self, seconds: float) -> None:
        """Let the clock go on; what is done by then is answered, unless nobody waits any more."""
        self._now += seconds
        for due, job in self._jobs:
            if due <= self._now and not job.future.done():
                job.future.set_result(self._transcriber.transcribe(job.samples, job.options))
        self._jobs = [(due, job) for due, job in self._jobs if due > self._now]

    def answered(self, answer: object) -> None: ...


class Remembering:
    """A Transcriber that is asked once for the same speech; texts of many policies cost no more."""

    def __init__(self, settings: Settings) -> None:
        self._transcriber = open_transcriber(settings, build_missing=False)
        self.languages = self._transcriber.languages
        self.description = self._transcriber.description
        self._known: dict[tuple[bytes, str | None], Transcription] = {}

    def transcribe(self, samples: Samples, options: TranscribeOptions) -> Transcription:
        key = hashlib.sha256(samples.tobytes()).digest(), options.language
        if key not in self._known:
            self._known[key] = self._transcriber.transcribe(samples, options)
        return self._known[key]

    def close(self) -> None:
        self._transcriber.close()


class Virtual:
    """Ends commands as our server does, faster than they are spoken."""

    def __init__(self, settings: Settings, transcriber: Transcriber, chunk_ms: int) -> None:
        self._settings = settings
        self._vad = SileroVad()
        self._transcriber = transcriber
        self._samples = SAMPLE_RATE * chunk_ms // 1000
        # All of it comes at once, and is to be taken for speech nonetheless.
        utterance.Utterance.MAX_AHEAD_SECONDS = float("inf")

    def end(
        self, audio: Samples, options: Settings, language: str, draft_seconds: float
    ) -> float | None:
        """Return after how many seconds the command is taken for ended; None is never."""
        return asyncio.run(self._end(audio, options, language, draft_seconds))

    async def _end(
        self, audio: Samples, options: Settings, language: str, draft_seconds: float
    ) -> float | None:
        # A fixed wait reads no draft.
        seconds = draft_seconds if options.endpointing == "auto" else None
        workshop = VirtualWorkshop(self._vad, self._transcriber, self._settings, seconds)
        known = language if language in self._transcriber.languages else None
        spoken = Utterance(workshop, TranscribeOptions(language=known), Endpointer(options))
        n_chunks = 0
        for chunk in audio_chunks(audio, self._samples):
            n_chunks += 1
            spoken.add(PcmFormat(SAMPLE_RATE, 2, 1), chunk)
            workshop.pass_time(self._samples / SAMPLE_RATE)
            if spoken.is_over:
                break
        is_over = spoken.is_over
        workshop.pass_time(draft_seconds)  # nobody else would end what is under way
        spoken.drop()
        return n_chunks * self._samples / SAMPLE_RATE if is_over else None


def audio_chunks(audio: Samples, size: int) -> Iterator[bytes]:
    pcm = as_pcm(audio)
    for start in range(0, len(pcm), 2 * size):
        yield pcm[start : start + 2 * size]


# -- all of it -----------------------------------------------------------------------------


def measure(args: argparse.Namespace, virtual: Virtual, commands: list[Command]) -> list[Take]:
    """Have every kind of endpointing end everything."""
    if args.pause:
        commands = [hesitating(command, args.pause) for command in commands]
    waits = [(f"auto, {ms} ms", Settings(endpointing="auto"), ms / 1000) for ms in args.draft_ms]
    waits.append((f"{args.seconds:g} s", Settings(endpointing=str(args.seconds)), 0.0))
    takes = []
    for who, options, draft_seconds in waits:
        progress(f"{who}: {len(commands)} recordings")
        for one in commands:
            end = virtual.end(with_tail(one), options, one.language, draft_seconds)
            takes.append(Take(one.group, who, one.file, one.last_word, end))
    return takes


# -- the report ----------------------------------------------------------------------------


def grouped(takes: Sequence[Take]) -> dict[tuple[str, str], list[Take]]:
    """Return the takes by group and who, in the order of their first."""
    by: dict[tuple[str, str], list[Take]] = {}
    for take in takes:
        by.setdefault((take.group, take.who), []).append(take)
    return by


def cells(takes: Sequence[Take], too_soon: float = 0.03) -> list[str]:
    """Return what was counted and timed of takes; the last word's end is known to `too_soon`."""
    ends = [take.late for take in takes if take.late is not None]
    late = [seconds for seconds in ends if seconds >= -too_soon]
    times = [report.NOTHING] * 2
    if late:
        times = [f"{median(late):.2f} s", f"{report.percentile(late, 90):.2f} s"]
    n_cut = len(ends) - len(late)
    cut_off = f"{n_cut} ({report.percent(n_cut, len(takes))})"
    return [str(len(takes)), cut_off, str(len(takes) - len(ends)), *times]


def table(takes: Sequence[Take]) -> str:
    """Return all rows as Markdown."""
    head = ["speech", "who ends", "number", "cut off", "never", "after the last word", "p90"]
    return report.table(head, [[*key, *cells(own)] for key, own in grouped(takes).items()])


# -- the suite -----------------------------------------------------------------------------


def add_options(parser: argparse.ArgumentParser) -> None:
    add(parser, "--corpus", "--recordings", "--part", *BACKEND)
    add(parser, "--limit", help="recordings of a group at most")
    add(parser, "--chunk-ms", default=32)
    add_number(parser, "--seconds", 0.7, "the fixed wait")
    add_number(parser, "--pause", 0.0, "seconds of a hesitation that is put in")
    parser.add_argument(
        "--draft-ms",
        type=int,
        nargs="+",
        default=[150, 500],
        metavar="MS",
        help="from the start of early work to its result (default: 150 500)",
    )


def run(args: argparse.Namespace) -> Outcome:
    """Have every kind of endpointing end the commands."""
    if not args.corpus and not args.recordings:
        raise ClipError("there is nothing to hear: name a --corpus, or --recordings")
    commands = read_commands(args.corpus, args.recordings, args.part, args.limit)
    settings = backend_settings(args)
    with closing(Remembering(settings)) as transcriber:
        takes = measure(args, Virtual(settings, transcriber, args.chunk_ms), commands)
    return Outcome([table(takes)], {"takes": [asdict(take) for take in takes]})
