"""A household's week, compressed: nothing is lost, nothing unhandled, nothing grows.

`python -m benchmarks week` runs our server with stock `tiny.en` in a house. Home Assistant asks
every 30 s on a new connection what it is; three satellites say 200 commands a day, some at the same
time; the page, Prometheus and a program for OpenAI's API ask, too; a client sends garbage, another
keeps its connection for days. At night, and often by day, the model is unloaded.

What goes wrong: at the first start the hub can't be reached. Home Assistant restarts and goes with
the commands that are under way, and comes back with other names; clients vanish while they speak;
an upstream comes and goes, and is killed; the disk is full for an hour; the server is restarted
without a hub, and by a power cut; its clock jumps; its address changes.

Every command must have the text that the same server wrote in quiet, or an error that one of these
asks for. The log may hold no exception, and at WARNING or above only what is asked for
(ALLOWED_LINES in `benchmarks.siege.week.records`). At rest the process must hold no more at the end
than after its first hour, but for the tolerances there.

For root all runs in a network namespace of its own, in which the server is announced (zeroconf),
and the disk is a tmpfs; else it is not announced, and the disk is a folder that can't be written.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.lib import models, report
from benchmarks.lib.clips import BUNDLED_CLIPS, LABELS, read_clips
from benchmarks.lib.corpus import MANIFEST, SUFFIXES, read_corpus
from benchmarks.lib.errors import ClipError
from benchmarks.lib.options import add_number
from benchmarks.lib.report import Outcome
from benchmarks.siege.week import life, plan, records, surroundings
from benchmarks.siege.week.house import MODEL, Options
from wyoming_whisper.commands.client import read_audio
from wyoming_whisper.transcriber import Samples

MAX_OF_CORPUS = 100
DETAILS = 10  # of each kind of failure


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
    files = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)
    if not files:
        raise ClipError(f"{folder} holds no recordings")
    return {path.name: read_audio(path) for path in files[:MAX_OF_CORPUS]}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--minutes", type=float, default=Options.minutes, help="default: 45")
    add_number(parser, "--days", Options.days)
    add_number(parser, "--commands", plan.COMMANDS_A_DAY, "a day")
    parser.add_argument(
        "--corpus",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="recordings to say besides those of tests/audio",
    )
    parser.add_argument("--log", type=Path, metavar="FILE", help="keep the server's log there")


def run(args: argparse.Namespace) -> Outcome:
    """Live the week; for root, in another process with a network of its own, as which this ends."""
    status = surroundings.in_own_network(args.command_line)
    if status is not None:
        raise SystemExit(status)
    options = Options(days=args.days, minutes=args.minutes, commands_a_day=args.commands)
    with tempfile.TemporaryDirectory() as folder:
        try:
            week = asyncio.run(
                life.lived(
                    Path(folder) / "house",
                    options,
                    models.stock(MODEL),
                    clips_of(args.corpus),
                    report.progress,
                )
            )
        finally:
            _keep_log(Path(folder), args.log)
    for line in week.details(DETAILS):
        report.progress(f"  {line}")
    return Outcome([records.show(week)], asdict(week), week.failures)


def _keep_log(folder: Path, to: Path | None) -> None:
    log = folder / "house" / "server" / "server.log"
    if to is not None and log.exists():
        to.write_bytes(log.read_bytes())
