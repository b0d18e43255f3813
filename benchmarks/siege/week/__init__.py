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
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.lib import models, report
from benchmarks.lib.clips import BUNDLED_CLIPS, LABELS, Clip, read_clips
from benchmarks.lib.corpus import MANIFEST, read_corpus, read_recordings
from benchmarks.lib.options import add_folders, add_number
from benchmarks.lib.report import Outcome
from benchmarks.siege.week import life, plan, records, surroundings
from benchmarks.siege.week.house import MODEL, Options


def clips_of(corpora: Sequence[Path]) -> list[Clip]:
    """Return the recordings of tests/audio, and 100 of each folder. Raises ClipError."""
    clips = read_clips(BUNDLED_CLIPS)
    for folder in corpora:
        if (folder / MANIFEST).is_file():
            recordings = read_corpus(folder)[:100]
            clips += [Clip(one.file, one.text or "", one.kind, one.samples()) for one in recordings]
        elif (folder / LABELS).is_file():
            clips += read_clips(folder)[:100]
        else:
            files = list(read_recordings([folder], "all"))[:100]
            clips += [Clip(file.name, "", "", samples) for file, samples in files]
    return clips


def add_options(parser: argparse.ArgumentParser) -> None:
    add_number(parser, "--minutes", Options.minutes)
    add_number(parser, "--days", Options.days)
    add_number(parser, "--commands", plan.COMMANDS_A_DAY, "a day")
    add_folders(parser)
    parser.add_argument("--log", type=Path, metavar="FILE", help="keep the server's log there")


def run(args: argparse.Namespace) -> Outcome:
    """Live the week; for root, in another process with a network of its own, as which this ends."""
    status = surroundings.in_own_network(args.command_line)
    if status is not None:
        raise SystemExit(status)
    options = Options(days=args.days, minutes=args.minutes, commands_a_day=args.commands)
    with tempfile.TemporaryDirectory() as folder:
        home, model = Path(folder) / "house", models.stock(MODEL)
        clips, log = clips_of(args.corpus), home / "server" / "server.log"
        try:
            week = asyncio.run(life.lived(home, options, model, clips, report.progress))
        finally:
            if args.log and log.exists():
                args.log.write_bytes(log.read_bytes())
    for line in week.details(10):
        report.progress(f"  {line}")
    return Outcome([records.show(week)], asdict(week), week.failures)
