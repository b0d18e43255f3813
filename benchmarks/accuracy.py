"""Word error rate and sentence accuracy of whole servers, side by side.

`python -m benchmarks.accuracy --clips DIR` has every server transcribe every clip, one after the
other, as recorded and with noise. Columns: ours with the window that fits the speech, ours with
windows of 30 s, the official server, and that with our beam where its own differs.
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean, median
from typing import Any

from benchmarks import report
from benchmarks.client import Heard, say
from benchmarks.clips import Clip, ClipError, noisy, read_clips, with_silence
from benchmarks.servers import (
    ROOT,
    BenchmarkError,
    Program,
    Server,
    add_arguments,
    asked,
    install_official,
    official,
    official_beam_size,
    ours,
    running,
)
from benchmarks.words import WordErrors, normalised, word_errors
from wyoming_whisper.transcriber import Samples

BUNDLED_CLIPS = ROOT / "tests" / "audio"
NOISY_ALREADY = "noisy"  # the kind of clips that nothing is added to
CLEAN = "as recorded"
PROGRESS_EVERY = 25


@dataclass(frozen=True)
class Result:
    """What one server made of one clip."""

    clip: str
    kind: str
    condition: str
    server: str
    said: str
    written: str
    seconds: float
    error: str | None = None

    @property
    def right(self) -> bool:
        return normalised(self.said) == normalised(self.written)

    @property
    def empty(self) -> bool:
        return not normalised(self.written)


@dataclass
class Score:
    """The results of one server, for one kind of clips under one condition."""

    results: list[Result] = field(default_factory=list)

    @property
    def errors(self) -> WordErrors:
        each = (word_errors(result.said, result.written) for result in self.results)
        return sum(each, WordErrors())

    @property
    def right(self) -> int:
        return sum(result.right for result in self.results)

    @property
    def empty(self) -> int:
        """Nothing written, whether refused or not heard."""
        return sum(result.empty for result in self.results)

    @property
    def wrong(self) -> int:
        """Something written, but not what was said: what switches on the wrong light."""
        return sum(not result.empty and not result.right for result in self.results)

    @property
    def failed(self) -> int:
        return sum(result.error is not None for result in self.results)

    @property
    def mean_seconds(self) -> float:
        return mean(result.seconds for result in self.results)

    @property
    def median_seconds(self) -> float:
        """Without the clips that were tried again and again, which weigh heavily in the mean."""
        return median(result.seconds for result in self.results)


Key = tuple[str, str, str]
"""Kind, condition, server."""


# -- running -------------------------------------------------------------------------------


def conditions(clip: Clip, decibels: float) -> Iterator[tuple[str, Samples]]:
    """Return what is done to a clip: nothing, and noise where there is speech to drown."""
    samples = with_silence(clip.samples)
    yield CLEAN, samples
    if clip.text and clip.kind != NOISY_ALREADY:
        yield f"noise {decibels:g} dB", noisy(samples, decibels, clip.file)


def transcribe_all(
    servers: Sequence[Server], clips: Sequence[Clip], decibels: float, chunk_ms: int
) -> list[Result]:
    """Have every server hear every clip; who hears it first takes turns."""
    results: list[Result] = []
    turn = 0
    for number, clip in enumerate(clips, 1):
        for condition, samples in conditions(clip, decibels):
            turn += 1
            for place in range(len(servers)):
                server = servers[(turn + place) % len(servers)]
                heard = asyncio.run(say(server.uri, samples, chunk_ms=chunk_ms))
                results.append(_result(clip, condition, server, heard))
        if number % PROGRESS_EVERY == 0 or number == len(clips):
            print(f"{number} of {len(clips)} clips", file=sys.stderr, flush=True)
    return results


def _result(clip: Clip, condition: str, server: Server, heard: Heard) -> Result:
    return Result(
        clip=clip.file,
        kind=clip.kind,
        condition=condition,
        server=server.name,
        said=clip.text,
        written=" ".join(heard.text.split()),
        seconds=heard.seconds,
        error=heard.error,
    )


def measure(args: argparse.Namespace, clips: Sequence[Clip]) -> list[Result]:
    """Start all servers, and have them hear all clips."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with running(_our_programs(args), folder / "ours") as servers:
            _warm_up(servers, clips[0])
            others = [] if args.no_official else _official_programs(args, servers[0].beam_size())
            with running(others, folder / "official") as official_servers:
                _warm_up(official_servers, clips[0])
                everyone = [*servers, *official_servers]
                return transcribe_all(everyone, clips, args.noise, args.chunk_ms)


def _warm_up(servers: Sequence[Server], clip: Clip) -> None:
    """Wait until every model is ready: the first command may have to. Then our beam is known."""
    for server in servers:
        heard = asyncio.run(say(server.uri, with_silence(clip.samples)))
        if heard.error:
            raise BenchmarkError(f"{server.name}: {heard.error}")


def _our_programs(args: argparse.Namespace) -> list[Program]:
    return [
        ours(args, "ours", "--audio-context", "auto"),
        ours(args, "ours, 30 s", "--audio-context", "full"),
    ]


def _official_programs(args: argparse.Namespace, our_beam: int) -> list[Program]:
    its_beam = args.beam_size or official_beam_size(platform.machine())
    programs = [official(args)]
    if its_beam != our_beam:
        programs.append(official(args, our_beam))
    return programs


# -- reporting -----------------------------------------------------------------------------


def scores(results: Sequence[Result]) -> dict[Key, Score]:
    """Return the results gathered by kind, condition and server, in the order of the tables."""
    gathered: dict[Key, Score] = {}
    for result in results:
        key = (result.kind, result.condition, result.server)
        gathered.setdefault(key, Score()).results.append(result)
    return dict(sorted(gathered.items(), key=lambda item: _place(item[0])))


_KINDS = ("clean", "natural", "real", "noisy", "long")


def _place(key: Key) -> tuple[int, str, bool, bool, str]:
    """Return where a row goes: spoken clips, then silence; unchanged, then noisy; ours first."""
    kind, condition, server = key
    place = _KINDS.index(kind) if kind in _KINDS else len(_KINDS)
    return place, kind, condition != CLEAN, server.startswith("official"), server


def summary(gathered: dict[Key, Score]) -> str:
    """Return a table with one row for each kind and condition, one column for each server."""
    servers = _names(gathered)
    rows = []
    for kind, condition in dict.fromkeys((kind, condition) for kind, condition, _ in gathered):
        cells = [_cell(gathered[kind, condition, server]) for server in servers]
        clips = len(gathered[kind, condition, servers[0]].results)
        rows.append([kind, condition, str(clips), *cells])
    return report.table(["clips", "condition", "number", *servers], rows)


def _cell(score: Score) -> str:
    right = report.percent(score.right, len(score.results))
    errors = score.errors
    if not errors.words:
        return f"{right} left empty"
    return f"{report.percent(errors.errors, errors.words)} WER, {right} right"


def details(gathered: dict[Key, Score]) -> str:
    """Return a table with one row for each kind, condition and server."""
    first = _names(gathered)[0]
    head = ["clips", "condition", "server", "words", "S", "D", "I", "WER", "right", "empty"]
    head += ["wrong", "failed", "mean s", "median s", "time"]
    rows = []
    for (kind, condition, server), score in gathered.items():
        of_ours = gathered[kind, condition, first].median_seconds
        time = report.times(score.median_seconds, of_ours)
        rows.append([kind, condition, server, *_numbers(score), time])
    return report.table(head, rows)


def _numbers(score: Score) -> list[str]:
    errors = score.errors
    counts = (errors.words, errors.substitutions, errors.deletions, errors.insertions)
    return [
        *map(str, counts),
        report.percent(errors.errors, errors.words),
        report.percent(score.right, len(score.results)),
        *map(str, (score.empty, score.wrong, score.failed)),
        f"{score.mean_seconds:.3f}",
        f"{score.median_seconds:.3f}",
    ]


def _names(gathered: dict[Key, Score]) -> list[str]:
    return list(dict.fromkeys(server for _, _, server in gathered))


def as_json(gathered: dict[Key, Score]) -> list[dict[str, Any]]:
    """Return one row for each kind, condition and server."""
    return [
        {
            "kind": kind,
            "condition": condition,
            "server": server,
            "clips": len(score.results),
            **asdict(score.errors),
            "right": score.right,
            "empty": score.empty,
            "wrong": score.wrong,
            "failed": score.failed,
            "mean_seconds": round(score.mean_seconds, 4),
            "median_seconds": round(score.median_seconds, 4),
        }
        for (kind, condition, server), score in gathered.items()
    ]


# -- the command ---------------------------------------------------------------------------


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    parser.add_argument(
        "--clips",
        type=Path,
        action="append",
        metavar="DIR",
        help="folder with recordings and labels.json; repeatable (default: tests/audio)",
    )
    parser.add_argument("--real", type=Path, metavar="DIR", help="folder of real recordings")
    parser.add_argument(
        "--labels", type=Path, metavar="FILE", help="labels of --real (default: its labels.json)"
    )
    parser.add_argument("--noise", type=float, default=10.0, metavar="DB", help="default: 10")
    parser.add_argument("--limit", type=int, metavar="N", help="clips of a kind (default: all)")
    return parser.parse_args(argv)


def _clips(args: argparse.Namespace) -> list[Clip]:
    folders = args.clips or ([] if args.real else [BUNDLED_CLIPS])
    clips = [clip for folder in folders for clip in read_clips(folder, limit=args.limit)]
    if args.real:
        clips += read_clips(args.real, args.labels, "real", args.limit)
    return clips


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    args = _arguments(argv)
    facts = report.machine()
    try:
        clips = _clips(args)
        runtime = {} if args.no_official else install_official()
        results = measure(args, clips)
    except (BenchmarkError, ClipError) as error:
        print(f"benchmarks.accuracy: {error}", file=sys.stderr)
        return 1
    gathered = scores(results)
    print(report.machine_line(facts), summary(gathered), details(gathered), sep="\n\n")
    written = {
        "machine": facts,
        "official": runtime,
        "asked": asked(args),
        "scores": as_json(gathered),
        "results": [asdict(result) for result in results],
    }
    report.write_json(args.json, written)
    return 0


if __name__ == "__main__":
    sys.exit(main())
