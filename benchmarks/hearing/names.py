"""Names of the home: how many that were misheard are put right, and how often wrongly.

Synthesizers speak commands with the names of an invented household, and commands about things that
are not in it, into --clips DIR (once; --speech-python is a Python that has what lib/synthesizers.py
needs); all of them are transcribed without and with the household's names. `--corpus` adds what
people say there, `--recordings` recordings of which nobody wrote down the words: none of them names
anything of the household. The weights of the server's names were fitted to other names, sentences,
voices and people than these.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import yaml

from benchmarks.lib import report
from benchmarks.lib.clips import Clip, read_clips, with_silence
from benchmarks.lib.corpus import read_corpus, read_recordings
from benchmarks.lib.options import BACKEND, add, add_number, backend_settings
from benchmarks.lib.report import Outcome, progress
from benchmarks.lib.spoken import VOICES, Sentence, speak
from benchmarks.lib.words import word_errors
from wyoming_whisper.audio.speech import Speech
from wyoming_whisper.audio.vad import SileroVad, SpanOptions
from wyoming_whisper.backends import open_transcriber
from wyoming_whisper.grammar.service import HomeTexts
from wyoming_whisper.home.index import NameIndex, fold
from wyoming_whisper.settings.options import Settings
from wyoming_whisper.transcriber import TranscribeOptions

WORDS: Mapping[str, list[str]] = yaml.safe_load(
    Path(__file__).with_name("names.yaml").read_text(encoding="utf-8")
)
"""Lists of names and of commands, by what they are."""

HOMES = {
    "small": [*WORDS["invented"], *WORDS["ordinary"]],
    "large": [
        *(*WORDS["invented"], *WORDS["ordinary"]),
        *(f"{room} {thing}" for room in WORDS["rooms"] for thing in WORDS["things"]),
    ],
    "real": WORDS["real"],
}

PEOPLE = "people"


@dataclass(frozen=True)
class Said:
    """One clip, and what is known of it."""

    clip: Clip
    language: str = "en"
    is_written: bool = True
    """Whether its words are known; else what is written without names is taken for them."""

    @property
    def names(self) -> bool:
        """Whether something of the household is named."""
        return self.clip.kind in ("name", "ordinary")


@dataclass(frozen=True)
class Heard:
    """One clip, transcribed without and with names."""

    clip: Clip
    home: str
    """Of HOMES."""
    without: str
    named: str
    seconds: float
    """That comparing took."""


# -- clips ---------------------------------------------------------------------------------


def make_clips(folder: Path, count: int, n_plain: int, python: str) -> None:
    """Have everything spoken and write it."""
    sets = [
        ("name", _commands("invented", count, 2)),
        ("ordinary", _commands("ordinary", count, 3)),
        ("plain", _commands("absent", n_plain, 32)),
    ]
    sentences = [
        Sentence(kind, text, VOICES[number % len(VOICES)])
        for kind, texts in sets
        for number, text in enumerate(texts)
    ]
    speak(folder, sentences, python)


def read_everything(args: argparse.Namespace) -> list[Said]:
    """Return the clips, and what people say. Raises ClipError."""
    saids = [Said(clip) for clip in read_clips(args.clips)]
    for one in (one for folder in args.corpus for one in read_corpus(folder)):
        if one.part == "report" and one.voice == "human" and one.kind != "noise":
            clip = Clip(one.file, one.text or "", PEOPLE, one.samples())
            saids.append(Said(clip, one.lang, is_written=one.text is not None))
    for file, samples in read_recordings(args.recordings, "report"):
        saids.append(Said(Clip(file.name, "", PEOPLE, samples), is_written=False))
    return saids


def _commands(names_of: str, count: int, seed: int) -> list[str]:
    """Return commands, each name as often as the others, half of them with an article."""
    r, names, commands = random.Random(seed), WORDS[names_of], WORDS["commands"]
    chosen = [names[number % len(names)] for number in range(count)]
    return [r.choice(commands).format(r.choice(["", "the "]) + name) for name in chosen]


# -- transcribing --------------------------------------------------------------------------


class Listener:
    """A backend in this process, asked as the server asks it."""

    def __init__(self, settings: Settings) -> None:
        self._transcriber = open_transcriber(settings, build_missing=False)
        self._vad, self._spans = SileroVad(), SpanOptions.of(settings)

    def hear(self, said: Said, indexes: Mapping[str, NameIndex]) -> list[Heard]:
        """Transcribe a clip without names, and with those of each home."""
        speech = Speech.whole(with_silence(said.clip.samples), self._vad, self._spans)
        language = said.language if said.language in self._transcriber.languages else None
        without = speech.transcribed(self._transcriber, TranscribeOptions(language)).text
        clip = said.clip if said.is_written else replace(said.clip, text=without)
        heard = []
        for home, index in indexes.items():
            options = TranscribeOptions(language, home=HomeTexts(index))
            answer = speech.transcribed(self._transcriber, options)
            heard.append(Heard(clip, home, without, answer.text, answer.stages.get("names", 0.0)))
        return heard

    def close(self) -> None:
        self._transcriber.close()


# -- measuring -----------------------------------------------------------------------------


def has_name(said: str, written: str, names: Sequence[str]) -> bool:
    """Return whether the longest name that was said stands in what was written."""
    said_names = [fold(name) for name in names if f" {fold(name)} " in f" {fold(said)} "]
    return f" {max(said_names, key=len)} " in f" {fold(written)} "


def is_false(heard: Heard) -> bool:
    """Return whether a name was written that nobody said, in what would have been otherwise."""
    if heard.named in ("", heard.without):
        return False
    said, without, named = (
        f" {fold(text)} " for text in (heard.clip.text, heard.without, heard.named)
    )
    spaced = [f" {fold(name)} " for name in HOMES[heard.home]]
    new = [name for name in spaced if name in named and name not in without]
    return bool(new) and not any(name in said for name in new)


def is_spoiled(heard: Heard) -> bool:
    """Return whether a text that was right is so no more."""
    before, after = (word_errors(heard.clip.text, t).errors for t in (heard.without, heard.named))
    return not before and bool(after)


def summary(results: Sequence[Heard]) -> str:
    """Return the tables: sentences with names, those without, and times."""
    rows = []
    for home in HOMES:
        for kind in ("name", "ordinary"):
            heard = [one for one in results if one.clip.kind == kind and one.home == home]
            if heard:
                what = kind.replace("name", "invented")
                if home == "small":  # without names all homes are the same
                    rows.append([what, "none", *_cells(heard, [one.without for one in heard])])
                number = str(len(NameIndex(HOMES[home])))
                rows.append([what, number, *_cells(heard, [one.named for one in heard])])
    headings = ["names said", "names known", "number", "right", "name wrong", "empty"]
    tables = [report.table(headings, rows), _false_table(results)]
    for home in HOMES:
        times = [one.seconds for one in results if one.home == home]
        tables.append(
            f"Comparing with {len(NameIndex(HOMES[home]))} names took "
            f"{report.milliseconds(median(times))} (median), "
            f"{report.milliseconds(report.percentile(times, 95))} (95 %)"
        )
    return "\n\n".join(tables)


def _cells(heard: Sequence[Heard], texts: Sequence[str]) -> list[str]:
    said = [one.clip.text for one in heard]
    right = sum(not word_errors(s, t).errors for s, t in zip(said, texts, strict=True))
    named = sum(
        has_name(one.clip.text, text, HOMES[one.home])
        for one, text in zip(heard, texts, strict=True)
    )
    count = len(heard)
    return [
        str(count),
        report.percent(right, count),
        report.percent(count - named, count),
        report.percent(sum(not text for text in texts), count),
    ]


def _false_table(results: Sequence[Heard]) -> str:
    rows = []
    for kind, what in (("plain", "synthesizers"), (PEOPLE, "people")):
        for home, names in HOMES.items():
            heard = [one for one in results if one.home == home and one.clip.kind == kind]
            if not heard:
                continue
            false = sum(map(is_false, heard))
            rows.append(
                [
                    what,
                    f"{home}: {len(NameIndex(names))}",
                    str(len(heard)),
                    f"{false} ({100 * false / len(heard):.2f} %)",
                    str(sum(map(is_spoiled, heard))),
                ]
            )
    headings = ["sentences without, by", "home, names", "number", "false names", "spoiled"]
    return report.table(headings, rows)


def measure(listener: Listener, saids: Sequence[Said]) -> list[Heard]:
    """Return how everything was heard."""
    results: list[Heard] = []
    homes = {home: NameIndex(names) for home, names in HOMES.items()}
    for number, said in enumerate(saids, 1):
        results += listener.hear(said, {"small": homes["small"]} if said.names else homes)
        if number % 100 == 0:
            progress(f"{number} of {len(saids)} clips")
    return results


# -- the suite -----------------------------------------------------------------------------


def add_options(parser: argparse.ArgumentParser) -> None:
    add(parser, "--clips", required=True, default=None, help="made where it is not there")
    add(parser, "--corpus", "--recordings", *BACKEND)
    parser.add_argument("--speech-python", default=sys.executable, metavar="FILE")
    add_number(parser, "--count", 180, "commands of a kind")
    add_number(parser, "--plain", 120, "that name something else")


def run(args: argparse.Namespace) -> Outcome:
    """Make the clips where there are none, then measure."""
    if not args.clips.exists():
        make_clips(args.clips, args.count, args.plain, args.speech_python)
    saids = read_everything(args)
    with closing(Listener(backend_settings(args))) as listener:
        results = measure(listener, saids)
    clips = [
        {"said": one.clip.text, "kind": one.clip.kind, **vars(one), "clip": one.clip.file}
        for one in results
    ]
    return Outcome([f"{args.model.name}, {args.backend}", summary(results)], {"clips": clips})
