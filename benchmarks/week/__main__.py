"""A household's week, compressed: nothing is lost, nothing unhandled, nothing grows.

`python -m benchmarks.week` runs our server with stock `tiny.en` in a house. Home Assistant asks
every 30 s on a new connection what it is; three satellites say 200 commands a day, some at the same
time; the page, Prometheus and a program for OpenAI's API ask, too; a client sends garbage, another
keeps its connection for days. At night, and often by day, the model is unloaded.

What goes wrong: at the first start the hub can't be reached. Home Assistant restarts and goes with
the commands that are under way, and comes back with other names; clients vanish while they speak;
an upstream comes and goes, and is killed; the disk is full for an hour; the server is restarted
without a hub, and by a power cut; its clock jumps; its address changes.

Every command must have the text that the same server wrote in quiet, or an error that one of these
asks for. The log may hold no exception, and at WARNING or above only what is asked for
(`benchmarks.week.records.ALLOWED_LINES`). At rest the process must hold no more at the end than
after its first hour, but for the tolerances in `benchmarks.week.records`.

For root all runs in a network namespace of its own, in which the server is announced (zeroconf),
and the disk is a tmpfs; else it is not announced, and the disk is a folder that can't be written.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks import models, report
from benchmarks.clips import LABELS, ClipError, read_clips
from benchmarks.corpus import MANIFEST, read_corpus
from benchmarks.responsiveness import BUNDLED_CLIPS
from benchmarks.servers import BenchmarkError
from benchmarks.week import life, plan, records, surroundings
from benchmarks.week.house import MODEL, Options
from wyoming_whisper.client import read_audio
from wyoming_whisper.errors import WyomingWhisperError
from wyoming_whisper.transcriber import Samples

MAX_OF_CORPUS = 100
DETAILS = 10  # of each kind of failure
AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")


def clips_of(corpora: Sequence[Path]) -> dict[str, Samples]:
    """Return the recordings of tests/audio and those of the folders. Raises ClipError."""
    clips = {clip.file: clip.samples for clip in read_clips(BUNDLED_CLIPS)}
    for folder in corpora:
        clips |= _recordings(folder)
    return clips


def _recordings(folder: Path) -> Mapping[str, Samples]:
    """Read a folder: as its manifest or labels say, or all of its audio files."""
    if (folder / MANIFEST).is_file():
        return {one.file: one.samples() for one in read_corpus(folder)[:MAX_OF_CORPUS]}
    if (folder / LABELS).is_file():
        return {clip.file: clip.samples for clip in read_clips(folder)[:MAX_OF_CORPUS]}
    files = sorted(path for path in folder.iterdir() if path.suffix in AUDIO_SUFFIXES)
    if not files:
        raise ClipError(f"{folder} holds no recordings")
    return {path.name: read_audio(path) for path in files[:MAX_OF_CORPUS]}


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.week",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=Options.minutes, help="default: 45")
    parser.add_argument("--days", type=int, default=Options.days, help="default: 7")
    parser.add_argument(
        "--commands", type=int, default=plan.COMMANDS_A_DAY, help="a day (default: 200)"
    )
    parser.add_argument(
        "--corpus",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="recordings to say besides those of tests/audio",
    )
    parser.add_argument("--log", type=Path, metavar="FILE", help="keep the server's log there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there, too")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Live the week, print, write; return 1 if a promise was broken."""
    argv = sys.argv[1:] if argv is None else argv
    args = arguments().parse_args(argv)
    status = surroundings.in_own_network(argv)
    if status is not None:
        return status
    facts = report.machine()
    options = Options(days=args.days, minutes=args.minutes, commands_a_day=args.commands)
    try:
        with tempfile.TemporaryDirectory() as folder:
            try:
                week = asyncio.run(
                    life.lived(
                        Path(folder) / "house",
                        options,
                        models.stock(MODEL),
                        clips_of(args.corpus),
                        _tell,
                    )
                )
            finally:
                _keep_log(Path(folder), args.log)
    except (BenchmarkError, ClipError, WyomingWhisperError, OSError) as error:
        print(f"benchmarks.week: {error}", file=sys.stderr)
        return 1
    print(report.machine_line(facts), records.show(week), sep="\n\n")
    asked = {"days": args.days, "minutes": args.minutes, "commands": args.commands}
    report.write_json(args.json, {"machine": facts, "asked": asked, **asdict(week)})
    for line in week.details(DETAILS):
        print(f"  {line}", file=sys.stderr)
    for sentence in week.failures:
        print(f"benchmarks.week: {sentence}", file=sys.stderr)
    return 1 if week.failures else 0


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _keep_log(folder: Path, to: Path | None) -> None:
    log = folder / "house" / "server" / "server.log"
    if to is not None and log.exists():
        to.write_bytes(log.read_bytes())


if __name__ == "__main__":
    sys.exit(main())
