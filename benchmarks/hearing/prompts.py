"""What a prompt does to commands: those that it contains, and those that it doesn't.

Hears each command (and other speech in the same language) after a prompt of three commands: once
with its own text among them, once with others alone. Counted are the texts that are right, those of
its own words that are withheld, and those that are the prompt's and not the speaker's.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.lib import report
from benchmarks.lib.corpus import Recording, as_heard, chosen
from benchmarks.lib.options import add_corpus, add_models
from benchmarks.lib.report import Outcome, progress
from benchmarks.lib.words import normalised, word_errors
from wyoming_whisper.audio.speech import span_options, transcribe_speech
from wyoming_whisper.audio.vad import SileroVad
from wyoming_whisper.backends.faster_whisper import open_faster_whisper
from wyoming_whisper.settings.options import Settings
from wyoming_whisper.transcriber import TranscribeOptions, Transcriber

CONDITIONS = ("clean", "noise10", "noise0", "quiet45")
OWN, OTHER = "its own", "others"
N_SENTENCES = 3


@dataclass(frozen=True)
class Case:
    """A recording after a prompt, and what became of it."""

    model: str
    prompt: str
    """OWN or OTHER."""
    condition: str
    file: str
    said: str
    answered: str
    withheld: bool
    is_right: bool
    is_echo: bool
    """Whether the answer is wrong, and the prompt has it word for word."""


def prompts(recording: Recording, commands: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield (OWN or OTHER, prompt); the same for a recording always."""
    language = recording.lang
    own = set(normalised(recording.text or "", language))
    others = [text for text in commands if not own & set(normalised(text, language))]
    sentences = random.Random(recording.file).sample(others, min(N_SENTENCES, len(others)))
    yield OTHER, " ".join(map(_sentence, sentences))
    if recording.kind == "command":
        among = [*sentences[:1], recording.text or "", *sentences[2:]]
        yield OWN, " ".join(map(_sentence, among))


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".?!") + "."


def hear(
    name: str, transcriber: Transcriber, recordings: Sequence[Recording], vad: SileroVad
) -> Iterator[Case]:
    """Yield a case for each recording, prompt and condition."""
    spans = span_options(Settings(data_dir=()))
    commands = sorted({one.text or "" for one in recordings if one.kind == "command"})
    for recording in recordings:
        for condition in CONDITIONS:
            samples = as_heard(recording, condition)
            for kind, prompt in prompts(recording, commands):
                options = TranscribeOptions(recording.lang, prompt=prompt)
                answer = transcribe_speech(samples, transcriber, options, vad, spans)
                yield _case(name, kind, condition, recording, answer.text, prompt, answer.rejected)


def _case(
    model: str,
    kind: str,
    condition: str,
    recording: Recording,
    answered: str,
    prompt: str,
    rejected: str | None,
) -> Case:
    said, language = recording.text or "", recording.lang
    is_right = not word_errors(said, answered, language).errors
    answer = " ".join(normalised(answered, language))
    has_it = f" {answer} " in f" {' '.join(normalised(prompt, language))} "
    return Case(
        model,
        kind,
        condition,
        recording.file,
        said,
        answered,
        withheld=bool(rejected),
        is_right=is_right,
        is_echo=bool(answer) and not is_right and has_it,
    )


HEAD = ["model", "prompt", "condition", "heard", "right", "withheld", "the prompt's"]


def rows(cases: Sequence[Case]) -> list[list[str]]:
    """Return a row for each model, prompt and condition."""
    groups = dict.fromkeys((case.model, case.prompt, case.condition) for case in cases)
    table = []
    for key in sorted(groups, key=lambda key: (key[0], key[1], CONDITIONS.index(key[2]))):
        group = [case for case in cases if (case.model, case.prompt, case.condition) == key]
        counts = (
            len(group),
            sum(case.is_right for case in group),
            sum(case.withheld for case in group),
            sum(case.is_echo for case in group),
        )
        table.append([*key, *map(str, counts)])
    return table


def wrong(cases: Sequence[Case]) -> Iterator[str]:
    """Yield a line for each text that is withheld, or the prompt's."""
    for case in cases:
        if case.withheld or case.is_echo:
            where = f"{case.model}, {case.prompt}, {case.condition}: {case.file}"
            yield f"{where} ({case.said!r}): {case.answered!r}"


def measure(path: Path, recordings: Sequence[Recording], folder: Path) -> list[Case]:
    """Return what the model at `path` makes of the recordings. Raises WyomingWhisperError."""
    settings = Settings(model=str(path), data_dir=(folder,), cpu_threads=1)
    with closing(open_faster_whisper(settings, path)) as transcriber:
        spoken = [one for one in recordings if one.lang in transcriber.languages]
        progress(f"{path.name}: {len(spoken)} recordings")
        return list(hear(path.name, transcriber, spoken, SileroVad()))


# -- the suite -----------------------------------------------------------------------------


def add_options(parser: argparse.ArgumentParser) -> None:
    add_corpus(parser)
    parser.set_defaults(kinds=("command", "speech"), languages=("en",))
    add_models(parser, "base,tiny.en")
    parser.add_argument("--show", action="store_true", help="print what is withheld or echoed")


def run(args: argparse.Namespace) -> Outcome:
    """Hear everything with every model."""
    recordings, cases = chosen(args), list[Case]()
    with tempfile.TemporaryDirectory() as folder:
        for path in args.models:
            cases += measure(path, recordings, Path(folder))
    shown = [report.table(HEAD, rows(cases))]
    if args.show:
        shown.append("\n".join(wrong(cases)))
    return Outcome(shown, {"cases": [asdict(case) for case in cases]})
