"""Recordings for another judge, as `wyoming-bench` reads them: WAV files with their texts.

Writes a folder for each language.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.lib.clips import write_wav
from benchmarks.lib.corpus import Recording, as_heard, chosen
from benchmarks.lib.options import add_corpus
from benchmarks.lib.report import Outcome


def write_pairs(recordings: Sequence[Recording], folder: Path) -> int:
    """Write each as FOLDER/LANGUAGE/NAME.wav and NAME.txt, but for noise, which has no words.

    Returns how many it wrote. Raises AudioError.
    """
    spoken = [one for one in recordings if one.kind != "noise"]
    for one in spoken:
        file = folder / one.lang / one.file.replace("/", "-")
        file.parent.mkdir(parents=True, exist_ok=True)
        write_wav(file.with_suffix(".wav"), as_heard(one))
        file.with_suffix(".txt").write_text(f"{one.text}\n", encoding="utf-8")
    return len(spoken)


def add_options(parser: argparse.ArgumentParser) -> None:
    add_corpus(parser)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")


def run(args: argparse.Namespace) -> Outcome:
    """Write recordings."""
    count = write_pairs(chosen(args), args.output)
    return Outcome([f"{count} recordings in {args.output}"], {})
