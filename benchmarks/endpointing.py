"""When the server ends a command: how often too soon, and how long after its last word.

`python -m benchmarks.endpointing --audio DIR [--audio DIR...]` has recordings of commands heard by
ours (`auto` and a fixed wait) and by the official server's `--vad-endpointing`:

virtual         on the clock of the audio, faster than it is spoken: the servers' own code for the
                end of speech; a draft is taken to be there --draft-ms after work began
hesitations     the same, with a pause put where each command is quietest, in its middle
real-time       a sample, through servers, at the pace of speech: until the transcript is there
home-assistant  a sample, through Home Assistant's own pipeline: until its speech-to-text has ended.
                It needs --ha-client, the script of a Home Assistant installation that prints what
                happened in its pipeline as JSON

The last word ends where the clean recording was last loud for 60 ms; an end before that cuts off.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from wyoming.asr import Transcript
from wyoming.audio import AudioChunk, AudioStop
from wyoming.client import AsyncClient
from wyoming.error import Error

from benchmarks import report
from benchmarks.client import ANSWER_SECONDS, command_events, connected, say
from benchmarks.clips import ClipError, speech_level
from benchmarks.servers import (
    OFFICIAL_VENV,
    BenchmarkError,
    Program,
    Server,
    add_arguments,
    asked,
    install_official,
    official,
    ours,
    running,
)
from wyoming_whisper import utterance
from wyoming_whisper.backends.faster_whisper import open_faster_whisper
from wyoming_whisper.client import read_audio
from wyoming_whisper.endpointing import Endpointer, EndpointOptions
from wyoming_whisper.languages import SpokenLanguages
from wyoming_whisper.scheduler import Job
from wyoming_whisper.settings import Settings
from wyoming_whisper.speech import span_options
from wyoming_whisper.text import TextStyle
from wyoming_whisper.transcriber import SAMPLE_RATE, Samples, TranscribeOptions, Transcriber
from wyoming_whisper.utterance import Limits, Utterance
from wyoming_whisper.vad import SileroVad, Vad

VIRTUAL, HESITATIONS, REAL_TIME, HOME_ASSISTANT = PARTS = (
    "virtual",
    "hesitations",
    "real-time",
    "home-assistant",
)
AUTO, OFFICIAL, NOBODY = "ours, auto", "official", "ours, off"

SUFFIXES = (".flac", ".wav", ".ogg", ".mp3")
TAIL_SECONDS = 4.0  # of silence, or noise, after the command: who has not ended by then never does
SLOW_SECONDS = 15.0  # no transcription of a command takes longer
FRAME = SAMPLE_RATE // 50
LOUD_FRAMES = 3
QUIETER = 10 ** (-24 / 20)  # than the loudest frame is no speech any more
ABOVE_NOISE = 3  # times the noise of the recording itself

PAUSES = (0.5, 0.8, 1.2)
"""Seconds; hesitations put into commands."""


@dataclass(frozen=True)
class Command:
    """One recording of one command."""

    folder: str
    file: str
    samples: Samples
    last_word: float
    """Seconds at which it ends."""


@dataclass(frozen=True)
class Take:
    """When somebody took one command for ended."""

    part: str
    folder: str
    noise: str
    who: str
    file: str
    last_word: float
    end: float | None
    """Seconds; None is never."""
    text: str = ""

    @property
    def late(self) -> float | None:
        """Seconds after the last word; before it is negative."""
        return None if self.end is None else self.end - self.last_word


# -- audio ---------------------------------------------------------------------------------


def read_commands(folders: Sequence[Path], limit: int | None) -> list[Command]:
    """Return every recording in the folders, `limit` of each at most. Raises ClipError."""
    found: list[Command] = []
    for folder in folders:
        files = sorted(file for file in folder.glob("*") if file.suffix in SUFFIXES)
        if not files:
            raise ClipError(f"{folder} holds no recordings")
        for file in files[:limit]:
            samples = read_audio(file)
            found.append(Command(folder.name, file.name, samples, last_word(samples)))
    return found


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


def with_tail(command: Command, noise: Samples | None, decibels: float | None) -> Samples:
    """Return the command and what comes after it, in noise so far below its speech."""
    audio = np.pad(command.samples, (0, round(TAIL_SECONDS * SAMPLE_RATE)))
    if noise is None or decibels is None:
        return audio
    generator = np.random.default_rng(sum(command.file.encode()))
    start = int(generator.integers(0, max(1, len(noise) - len(audio))))
    heard = np.resize(noise[start:], len(audio))
    gain = speech_level(command.samples) * 10 ** (-decibels / 20) / max(1e-9, rms(heard))
    mixed = audio + heard * gain
    return (mixed / max(1.0, float(np.abs(mixed).max()))).astype(np.float32)


def rms(samples: Samples) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


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


class VirtualWorkshop:
    """What an Utterance needs, on the clock of the audio.

    Early work is done after `draft_seconds`; with None there is none.
    """

    def __init__(
        self, vad: Vad, transcriber: Transcriber, settings: Settings, draft_seconds: float | None
    ) -> None:
        self.limits = Limits()
        self.span_options = span_options(settings)
        self.text_style = TextStyle()
        self.spoken = SpokenLanguages()
        self.eager = draft_seconds is not None
        self.vad = vad
        self._transcriber = transcriber
        self._draft_seconds = draft_seconds or 0.0
        self._now = 0.0
        self._jobs: list[tuple[float, Job]] = []

    async def loaded_vad(self) -> Vad:
        return self.vad

    def wake(self) -> None: ...

    def submit(self, samples: Samples, options: TranscribeOptions, *, eager: bool) -> Job:
        job = Job(samples, options, eager=eager)
        self._jobs.append((self._now + self._draft_seconds if eager else self._now, job))
        if not eager:
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


class Virtual:
    """Ends commands as our server does, faster than they are spoken."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._settings = Settings(
            data_dir=(Path(),), cpu_threads=args.threads, compute_type=args.compute_type
        )
        self._vad = SileroVad()
        self._transcriber = open_faster_whisper(self._settings, args.model)
        self._draft_seconds = args.draft_ms / 1000
        self._samples = SAMPLE_RATE * args.chunk_ms // 1000
        # All of it comes at once, and is to be taken for speech nonetheless.
        utterance.MAX_AHEAD_SECONDS = float("inf")

    def end(self, audio: Samples, options: EndpointOptions) -> tuple[float | None, str]:
        """Return after how many seconds the command is taken for ended, and what was written."""
        return asyncio.run(self._end(audio, options))

    async def _end(self, audio: Samples, options: EndpointOptions) -> tuple[float | None, str]:
        # A fixed wait reads no draft.
        draft_seconds = self._draft_seconds if options.seconds is None else None
        workshop = VirtualWorkshop(self._vad, self._transcriber, self._settings, draft_seconds)
        spoken = Utterance(workshop, TranscribeOptions(language="en"), Endpointer(options))
        n_chunks = 0
        for chunk in audio_chunks(audio, self._samples):
            n_chunks += 1
            spoken.add(chunk)
            workshop.pass_time(self._samples / SAMPLE_RATE)
            if spoken.is_over:
                break
        end = n_chunks * self._samples / SAMPLE_RATE if spoken.is_over else None
        text = (await spoken.transcription()).text if end and workshop.eager else ""
        spoken.drop()
        return end, text


def audio_chunks(audio: Samples, size: int) -> Iterator[AudioChunk]:
    pcm = as_pcm(audio)
    for start in range(0, len(pcm), 2 * size):
        yield AudioChunk(SAMPLE_RATE, 2, 1, pcm[start : start + 2 * size])


def as_pcm(samples: Samples) -> bytes:
    return np.clip(np.round(samples * 32768), -32768, 32767).astype("<i2").tobytes()


# -- the official server's, on virtual time ------------------------------------------------

_OFFICIAL_CODE = """
import json, sys
from wyoming_faster_whisper.endpointing import SileroEndpointDetector
seconds, size, files = float(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
for file in files:
    audio = open(file, "rb").read()
    detector = SileroEndpointDetector(seconds)
    ends = (at for at in range(0, len(audio), 2 * size)
            if not detector.process(audio[at : at + 2 * size]))
    end = next(ends, None)
    print(json.dumps(None if end is None else (end // 2 + size) / 16000), flush=True)
"""


def official_ends(audio: Sequence[Samples], seconds: float, size: int) -> list[float | None]:
    """Return when the official server's own code ends each, in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{number:06}.pcm" for number in range(len(audio))]
        for file, samples in zip(files, audio, strict=True):
            file.write_bytes(as_pcm(samples))
        python = str(OFFICIAL_VENV / "bin" / "python")
        command = [python, "-c", _OFFICIAL_CODE, str(seconds), str(size), *map(str, files)]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise BenchmarkError(f"the official server's code failed:\n{done.stderr[-2000:]}")
    return [json.loads(line) for line in done.stdout.splitlines()]


# -- the parts on virtual time -------------------------------------------------------------


def measure_virtual(args: argparse.Namespace, commands: Sequence[Command]) -> list[Take]:
    """Return all takes of the clean commands, and of those in noise."""
    virtual = Virtual(args)
    noise = read_audio(args.noise) if args.noise else None
    takes: list[Take] = []
    for decibels in [None, *(args.snr if args.noise else ())]:
        name = "none" if decibels is None else f"{decibels:g} dB"
        audio = [with_tail(command, noise, decibels) for command in commands]
        takes += _heard(VIRTUAL, name, args, virtual, commands, audio)
    return takes


def measure_hesitations(args: argparse.Namespace, commands: Sequence[Command]) -> list[Take]:
    """Return all takes of commands with a pause in them; its length stands for the noise."""
    virtual = Virtual(args)
    takes: list[Take] = []
    for seconds in PAUSES:
        spoken = [hesitating(command, seconds) for command in commands]
        audio = [with_tail(command, None, None) for command in spoken]
        takes += _heard(HESITATIONS, f"{seconds:g} s", args, virtual, spoken, audio)
    return takes


def _heard(
    part: str,
    noise: str,
    args: argparse.Namespace,
    virtual: Virtual,
    commands: Sequence[Command],
    audio: Sequence[Samples],
) -> list[Take]:
    _tell(f"{part}, {noise}: {len(commands)} commands")
    fixed = EndpointOptions(args.seconds)
    found: dict[str, list[tuple[float | None, str]]] = {}
    for who, options in ((AUTO, EndpointOptions()), (_fixed(args), fixed)):
        found[who] = []
        for number, samples in enumerate(audio, 1):
            found[who].append(virtual.end(samples, options))
            if number % 50 == 0:
                _tell(f"  {who}: {number}")
    if not args.no_official:
        ends = official_ends(audio, args.seconds, SAMPLE_RATE * args.chunk_ms // 1000)
        found[OFFICIAL] = [(end, "") for end in ends]
    return [
        Take(part, command.folder, noise, who, command.file, command.last_word, end, text)
        for who, ends_and_texts in found.items()
        for command, (end, text) in zip(commands, ends_and_texts, strict=True)
    ]


def _fixed(args: argparse.Namespace) -> str:
    return f"ours, {args.seconds:g} s"


# -- through servers -----------------------------------------------------------------------


def programs(args: argparse.Namespace) -> list[Program]:
    """Return the servers that end commands."""
    seconds = f"{args.seconds:g}"
    found = [
        ours(args, AUTO, "--endpointing", "auto"),
        ours(args, _fixed(args), "--endpointing", seconds),
    ]
    if not args.no_official:
        theirs = official(args)
        command = (*theirs.command, "--vad-endpointing", seconds)
        found.append(replace(theirs, command=command))
    return found


def measure_real_time(
    args: argparse.Namespace, commands: Sequence[Command], folder: Path
) -> list[Take]:
    """Return a sample's takes: each server hears each command at the pace of speech."""
    takes: list[Take] = []
    sample = spread(commands, args.sample)
    with running(programs(args), folder) as servers:
        _warm_up(servers, sample[0])
        for number, command in enumerate(sample, 1):
            audio = with_tail(command, None, None)
            for server in servers:
                end, text = asyncio.run(hear_in_time(server.uri, audio, args.chunk_ms))
                place = (REAL_TIME, command.folder, "none", server.name, command.file)
                takes.append(Take(*place, command.last_word, end, text))
            _tell(f"{REAL_TIME}: {number} of {len(sample)}")
    return takes


async def hear_in_time(uri: str, audio: Samples, chunk_ms: int) -> tuple[float | None, str]:
    """Speak until a transcript comes; return when, on the clock of the audio, and what it says.

    None where it needed an audio-stop.
    """
    events = list(command_events(audio, chunk_ms=chunk_ms))
    async with connected(uri) as client:
        answer = asyncio.ensure_future(_transcript(client))
        begin = time.perf_counter()
        for number, event in enumerate(events):
            due = begin + max(0, number - 1) * chunk_ms / 1000
            done, _ = await asyncio.wait({answer}, timeout=max(0.0, due - time.perf_counter()))
            if done:
                text, at = answer.result()
                return at - begin, text
            await client.write_event(event)
        done, _ = await asyncio.wait({answer}, timeout=SLOW_SECONDS)
        if done:  # it had ended, but its transcription took long
            text, at = answer.result()
            return at - begin, text
        await client.write_event(AudioStop().event())
        text, _ = await asyncio.wait_for(answer, ANSWER_SECONDS)
        return None, text


async def _transcript(client: AsyncClient) -> tuple[str, float]:
    while (event := await client.read_event()) is not None:
        if Transcript.is_type(event.type):
            return Transcript.from_event(event).text, time.perf_counter()
        if Error.is_type(event.type):
            raise BenchmarkError(Error.from_event(event).text)
    raise BenchmarkError("the server closed the connection without a transcript")


def _warm_up(servers: Sequence[Server], command: Command) -> None:
    for server in servers:
        heard = asyncio.run(say(server.uri, command.samples))
        if heard.error:
            raise BenchmarkError(f"{server.name}: {heard.error}")


def spread(commands: Sequence[Command], count: int) -> list[Command]:
    """Return `count` commands, evenly from all."""
    step = max(1.0, len(commands) / max(1, count))
    return [commands[int(number * step)] for number in range(min(count, len(commands)))]


# -- through Home Assistant ----------------------------------------------------------------


def measure_home_assistant(
    args: argparse.Namespace, commands: Sequence[Command], folder: Path
) -> list[Take]:
    """Return a sample's takes: the end is when Home Assistant's speech-to-text has ended."""
    sample = spread(commands, args.sample)
    waves = folder / "waves"
    waves.mkdir()
    for number, command in enumerate(sample):
        write_wave(waves / f"{number:04}.wav", command.samples)
    found = [ours(args, NOBODY), *programs(args)[:2]]
    takes: list[Take] = []
    for program in found:
        with running([program], folder / "servers") as (server,):
            _warm_up([server], sample[0])
            _tell(f"{HOME_ASSISTANT}, {program.name}: {len(sample)} commands in real time")
            results = pipeline_results(args.ha_client, server.uri, sorted(waves.glob("*.wav")))
        for command, result in zip(sample, results, strict=True):
            place = (HOME_ASSISTANT, command.folder, "none", program.name, command.file)
            end = result.get("events", {}).get("stt-end", result.get("events", {}).get("error"))
            takes.append(Take(*place, command.last_word, end, result.get("transcript") or ""))
    return takes


def pipeline_results(script: Path, uri: str, waves: Sequence[Path]) -> list[dict[str, Any]]:
    """Have Home Assistant hear the files, one after the other; return what it says of each."""
    host, _, port = uri.removeprefix("tcp://").rpartition(":")
    command = [sys.executable, str(script), host, port, *map(str, waves)]
    command += ["--pipeline", "--vad", "default", "--flows", "user"]
    done = subprocess.run(command, capture_output=True, text=True)
    try:
        results = json.loads(done.stdout)["results"]
    except (ValueError, KeyError) as error:
        raise BenchmarkError(f"{script.name} failed:\n{done.stderr[-2000:]}") from error
    if not isinstance(results, list) or len(results) != len(waves):
        raise BenchmarkError(f"{script.name} did not report on every command")
    return results


def write_wave(path: Path, samples: Samples) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(as_pcm(samples))


# -- the report ----------------------------------------------------------------------------

TOO_SOON = 0.03  # the last word's end is known to a frame or two


@dataclass(frozen=True)
class Row:
    """What one line of the table is made of."""

    takes: list[Take]

    @property
    def cut_off(self) -> int:
        return sum(take.late is not None and take.late < -TOO_SOON for take in self.takes)

    @property
    def never(self) -> int:
        return sum(take.end is None for take in self.takes)

    @property
    def late(self) -> list[float]:
        """Of those not cut off, seconds."""
        return _late(self.takes)

    @property
    def written(self) -> list[float]:
        """Of those, where there is a text: the others were withheld, or nobody transcribed them."""
        return _late([take for take in self.takes if take.text])

    def cells(self) -> list[str]:
        """Return what was counted and timed, for a table."""
        late = self.late
        times = [report.NOTHING, report.NOTHING]
        if late:
            times = [f"{median(late):.2f} s", f"{report.percentile(late, 90):.2f} s"]
        found = self.written
        times.append(f"{median(found):.2f} s ({len(found)})" if found else report.NOTHING)
        number = len(self.takes)
        cut = f"{self.cut_off} ({report.percent(self.cut_off, number)})"
        return [str(number), cut, str(self.never), *times]


def _late(takes: Sequence[Take]) -> list[float]:
    found = [take.late for take in takes if take.late is not None]
    return [late for late in found if late >= -TOO_SOON]


def rows(takes: Sequence[Take]) -> dict[tuple[str, str, str, str], Row]:
    """Return the takes by part, folder, noise and who, in the order of their first."""
    found: dict[tuple[str, str, str, str], Row] = {}
    for take in takes:
        key = (take.part, take.folder, take.noise, take.who)
        found.setdefault(key, Row([])).takes.append(take)
    return found


def table(takes: Sequence[Take]) -> str:
    """Return all rows as Markdown."""
    head = ["part", "audio", "noise or pause", "who ends", "commands", "cut off", "never"]
    head += ["after the last word", "p90", "with a text (number)"]
    return report.table(head, [[*key, *row.cells()] for key, row in rows(takes).items()])


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.endpointing",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--audio", type=Path, action="append", required=True, help="folder of recordings"
    )
    parser.add_argument("--limit", type=int, help="recordings of each folder (default: all)")
    parser.add_argument("--noise", type=Path, help="recording of noise to mix in")
    parser.add_argument(
        "--snr", type=float, nargs="+", default=[20.0, 10.0], help="decibels (default: 20 10)"
    )
    parser.add_argument(
        "--seconds", type=float, default=0.7, help="the fixed wait of ours and the official's"
    )
    parser.add_argument(
        "--draft-ms",
        type=int,
        default=150,
        help="virtual: from the start of early work to its result (default: 150)",
    )
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=[VIRTUAL], help="(default: virtual)"
    )
    parser.add_argument(
        "--sample", type=int, default=20, help="commands in real time (default: 20)"
    )
    parser.add_argument("--ha-client", type=Path, help="the script for the part home-assistant")
    add_arguments(parser)
    args = parser.parse_args()
    if HOME_ASSISTANT in args.parts and not args.ha_client:
        parser.error("the part home-assistant needs --ha-client")
    return args


def _measure(args: argparse.Namespace, commands: Sequence[Command], folder: Path) -> list[Take]:
    measures: dict[str, Callable[[], list[Take]]] = {
        VIRTUAL: lambda: measure_virtual(args, commands),
        HESITATIONS: lambda: measure_hesitations(args, commands),
        REAL_TIME: lambda: measure_real_time(args, commands, folder / "real-time"),
        HOME_ASSISTANT: lambda: measure_home_assistant(args, commands, folder),
    }
    return [take for part in args.parts for take in measures[part]()]


def main() -> int:
    """Measure, print the table, write the JSON."""
    args = _arguments()
    facts = report.machine()
    try:
        versions = {} if args.no_official else install_official()
        commands = read_commands(args.audio, args.limit)
        with tempfile.TemporaryDirectory() as folder:
            takes = _measure(args, commands, Path(folder))
    except (BenchmarkError, ClipError) as error:
        print(error, file=sys.stderr)
        return 1
    print(table(takes), report.machine_line(facts), sep="\n\n")
    summary = [
        {
            **dict(zip(("part", "audio", "noise", "who"), key, strict=True)),
            "commands": len(row.takes),
            "cut_off": row.cut_off,
            "never": row.never,
            "median_seconds": median(row.late) if row.late else None,
            "with_text": len(row.written),
            "median_seconds_with_text": median(row.written) if row.written else None,
        }
        for key, row in rows(takes).items()
    ]
    report.write_json(
        args.json,
        {
            "machine": facts,
            "official": versions,
            "arguments": asked(args),
            "rows": summary,
            "takes": [asdict(take) for take in takes],
        },
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
