"""How true 8-bit arithmetic stays to the model: texts of each beside those of float32.

`python -m benchmarks.fidelity --corpus DIR --model DIR` hears recordings in this process, each in
its own language, and prints how many texts are those that CTranslate2 writes in float32 with the
same weights, how far apart their mean log-probabilities are, and the word errors, in all and by
language. A quality gate of the model withholds nothing here. Texts that even the model doubts are
tried again at random. Arithmetics:

fw-TYPE    CTranslate2: float32, int8 and its other types
ort-TYPE   onnxruntime's graphs: float32, int8, uint8
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import models
from benchmarks.clips import ClipError
from benchmarks.corpus import CLEAN, Recording, add_corpus_arguments, as_heard, chosen, condition
from benchmarks.report import NOTHING, machine, machine_line, percent, table, write_json
from benchmarks.words import WordErrors, paired, word_errors
from wyoming_whisper.backends.faster_whisper import open_faster_whisper
from wyoming_whisper.backends.onnxruntime import choose_arithmetic, cpu_engines
from wyoming_whisper.errors import WyomingWhisperError
from wyoming_whisper.settings import Settings
from wyoming_whisper.speech import Speech, span_options
from wyoming_whisper.transcriber import Samples, TranscribeOptions, Transcriber
from wyoming_whisper.vad import SileroVad

REFERENCE = "fw-float32"
ARITHMETIC = re.compile(r"(fw)-(\w+)|(ort)-(float32|int8|uint8)")
FACTS = "wyoming_whisper.json"


@dataclass(frozen=True)
class Spoken:
    """What is heard of one recording."""

    file: str
    lang: str
    said: str
    speech: Samples


@dataclass(frozen=True)
class Text:
    """What one arithmetic made of one recording."""

    written: str
    avg_logprob: float


@dataclass(frozen=True)
class Row:
    """One arithmetic beside the reference."""

    name: str
    same: int
    clips: int
    apart: float
    """Mean distance of avg_logprob, of texts that are the same."""

    errors: Mapping[str, WordErrors]
    """By language."""

    points: float
    """By how much more of the words are wrong than with the reference, in percent; and where that
    lies for 95 % of the draws of as many recordings."""

    low: float
    high: float
    better: int
    """Recordings with fewer word errors than the reference's."""

    worse: int

    @property
    def total(self) -> WordErrors:
        return sum(self.errors.values(), WordErrors())


def heard(recordings: Sequence[Recording], settings: Settings, under: str = CLEAN) -> list[Spoken]:
    """Return the speech in every recording where any is found. Raises AudioError."""
    vad, found = SileroVad(), []
    for one in recordings:
        speech = Speech(vad, span_options(settings))
        speech.add(as_heard(one, under))
        speech.finish()
        if one.text and (spans := speech.spans()):
            found.append(Spoken(one.file, one.lang, one.text, speech.cut(spans)))
    return found


def texts(transcriber: Transcriber, speech: Sequence[Spoken]) -> list[Text]:
    """Have everything transcribed, each in its language."""
    with closing(transcriber):
        found = (transcriber.transcribe(one.speech, TranscribeOptions(one.lang)) for one in speech)
        return [Text(one.text, one.avg_logprob) for one in found]


def row(
    name: str, speech: Sequence[Spoken], found: Sequence[Text], reference: Sequence[Text]
) -> Row:
    """Count one arithmetic's texts beside the reference's, of the same speech."""
    same = [(a, b) for a, b in zip(found, reference, strict=True) if a.written == b.written]
    own, others = _errors(speech, found), _errors(speech, reference)
    by_language: dict[str, WordErrors] = {}
    for one, errors in zip(speech, own, strict=True):
        by_language[one.lang] = by_language.get(one.lang, WordErrors()) + errors
    beside = paired(own, others)
    return Row(
        name=name,
        same=len(same),
        clips=len(found),
        apart=sum(abs(a.avg_logprob - b.avg_logprob) for a, b in same) / max(1, len(same)),
        errors=dict(sorted(by_language.items())),
        points=beside.points,
        low=beside.low,
        high=beside.high,
        better=beside.better,
        worse=beside.worse,
    )


def _errors(speech: Sequence[Spoken], found: Sequence[Text]) -> list[WordErrors]:
    return [
        word_errors(one.said, text.written, one.lang)
        for one, text in zip(speech, found, strict=True)
    ]


def without_gate(model: Path, folder: Path) -> Path:
    """Return a copy of the model's folder, of links, that withholds no doubtful text."""
    folder.mkdir()
    for file in model.iterdir():
        (folder / file.name).symlink_to(file.resolve())
    facts = folder / FACTS
    if facts.exists():
        told = json.loads(facts.read_text(encoding="utf-8"))
        told.pop("min_avg_logprob", None)
        facts.unlink()
        facts.write_text(json.dumps(told), encoding="utf-8")
    return folder


def opened(name: str, settings: Settings, model: Path) -> Transcriber:
    """Return the model in one arithmetic; graphs are made in the settings' folder."""
    found = ARITHMETIC.fullmatch(name)
    if found is None:
        raise ValueError(f"no arithmetic: {name}")
    if found[1]:
        return open_faster_whisper(dataclasses.replace(settings, compute_type=found[2]), model)
    engines = cpu_engines(settings, model, found[4])
    return engines.open(engines.build(lambda _: None))


def measure(
    args: argparse.Namespace, recordings: Sequence[Recording], folder: Path
) -> tuple[list[Row], dict[str, list[Text]], list[Spoken]]:
    """Return a row for each arithmetic, its texts, and what was heard.

    Graphs are made in `folder`. Raises WyomingWhisperError.
    """
    model = without_gate(args.model, folder / "model")
    settings = Settings(model=str(model), beam_size=args.beam_size, data_dir=(folder,))
    speech = heard(recordings, settings, args.condition)
    if not speech:
        raise ClipError("there is no speech in any of the recordings")
    names = args.arithmetics or (REFERENCE, "fw-int8", f"ort-{choose_arithmetic(settings)}")
    found: dict[str, list[Text]] = {}
    for name in names:
        print(f"{name}: {len(speech)} recordings", file=sys.stderr, flush=True)
        found[name] = texts(opened(name, settings, model), speech)
    reference = found[names[0]]
    return [row(name, speech, found[name], reference) for name in names], found, speech


def show(rows: Sequence[Row]) -> str:
    """Return a row for each arithmetic; the first is the reference."""
    head = ["arithmetic", "texts", f"those of {rows[0].name}", "share", "log-probabilities apart"]
    head += ["WER", "points worse", "95 % of draws", "recordings better", "worse"]
    cells = []
    for one in rows:
        interval = NOTHING if one is rows[0] else f"{one.low:+.2f} to {one.high:+.2f}"
        cells.append(
            [
                one.name,
                str(one.clips),
                str(one.same),
                percent(one.same, one.clips),
                f"{one.apart:.4f}",
                percent(one.total.errors, one.total.words),
                NOTHING if one is rows[0] else f"{one.points:+.2f}",
                interval,
                str(one.better),
                str(one.worse),
            ]
        )
    return table(head, cells)


def show_languages(rows: Sequence[Row]) -> str:
    """Return the word errors in a row for each language."""
    head = ["language", "words", *(one.name for one in rows)]
    cells = [
        [language, str(errors.words)]
        + [percent(one.errors[language].errors, one.errors[language].words) for one in rows]
        for language, errors in rows[0].errors.items()
    ]
    return table(head, cells)


# -- the command ---------------------------------------------------------------------------


def _arithmetics(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    for name in names:
        if not ARITHMETIC.fullmatch(name):
            raise argparse.ArgumentTypeError(
                f"{name!r} is no arithmetic: names are such as fw-float32, fw-int8, ort-uint8"
            )
    return names


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks.fidelity",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_corpus_arguments(parser)
    models.add_model(parser)
    parser.add_argument(
        "--arithmetics",
        type=_arithmetics,
        metavar="LIST",
        help=f"the first is the reference (default: {REFERENCE}, fw-int8, and onnxruntime's own)",
    )
    parser.add_argument("--condition", type=condition, default=CLEAN, help=f"default: {CLEAN}")
    parser.add_argument("--beam-size", type=int, default=1, help="default: 1")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there, too")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    args = _arguments(argv)
    facts = machine()
    try:
        with tempfile.TemporaryDirectory() as folder:
            rows, found, speech = measure(args, chosen(args), Path(folder))
    except (WyomingWhisperError, ClipError) as error:
        print(f"benchmarks.fidelity: {error}", file=sys.stderr)
        return 1
    print(machine_line(facts), show(rows), show_languages(rows), sep="\n\n")
    written = {
        "machine": facts,
        "model": args.model.name,
        "rows": [asdict(one) for one in rows],
        "texts": {name: [asdict(text) for text in some] for name, some in found.items()},
        "recordings": [{"file": one.file, "lang": one.lang, "said": one.said} for one in speech],
    }
    write_json(args.json, written)
    return 0


if __name__ == "__main__":
    sys.exit(main())
