"""How true int8 stays to the model: texts of each backend beside those of float32.

`python -m benchmarks.fidelity` hears clips in this process, as they are and with noise 10 dB below
them, and prints how many texts are those that CTranslate2 writes in float32 with the same weights,
how far apart their mean log-probabilities are, and the word errors where the words are known. The
quality gate withholds nothing here. Texts that even the model doubts are tried again at random.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import models
from benchmarks.clips import LABELS, Clip, ClipError, noisy, read_clips
from benchmarks.report import machine, machine_line, percent, table, write_json
from benchmarks.words import WordErrors, word_errors
from wyoming_whisper.backends.faster_whisper import open_faster_whisper
from wyoming_whisper.backends.onnxruntime import choose_arithmetic, cpu_engines
from wyoming_whisper.client import read_audio
from wyoming_whisper.errors import WyomingWhisperError
from wyoming_whisper.settings import Settings
from wyoming_whisper.speech import Speech, span_options
from wyoming_whisper.transcriber import Samples, TranscribeOptions, Transcriber
from wyoming_whisper.vad import SileroVad

CLIPS = Path(__file__).parents[1] / "tests" / "audio"
SOUNDS = (".flac", ".wav")
NOISE_DB = 10.0
REFERENCE = "float32"
FACTS = "wyoming_whisper.json"


@dataclass(frozen=True)
class Text:
    """What one backend wrote of one recording."""

    written: str
    avg_logprob: float


@dataclass(frozen=True)
class Row:
    """One backend beside the reference."""

    name: str
    same: int
    clips: int
    apart: float
    """Mean distance of avg_logprob, of texts that are the same."""
    wer: float | None
    """Of the clips whose words are known."""


def recordings(folders: Sequence[Path], limit: int | None) -> Iterator[Clip]:
    """Yield each folder's clips; those without labels of words have none."""
    for folder in folders:
        try:
            yield from read_clips(folder, limit=limit)
        except ClipError:
            sounds = sorted(file for file in folder.iterdir() if file.suffix in SOUNDS)
            for file in sounds[:limit]:
                yield Clip(file.name, "", folder.name, read_audio(file))


def heard(clips: Sequence[Clip], settings: Settings) -> list[tuple[str, Samples]]:
    """Return (what is said, its speech) of every clip, clean and noisy, where any is found."""
    vad, found = SileroVad(), []
    for clip in clips:
        for samples in (clip.samples, noisy(clip.samples, NOISE_DB, clip.file)):
            speech = Speech(vad, span_options(settings))
            speech.add(samples)
            speech.finish()
            if spans := speech.spans():
                found.append((clip.text, speech.cut(spans)))
    return found


def texts(transcriber: Transcriber, speech: Sequence[tuple[str, Samples]]) -> list[Text]:
    """Have everything transcribed."""
    with closing(transcriber):
        found = (transcriber.transcribe(samples, TranscribeOptions("en")) for _, samples in speech)
        return [Text(one.text, one.avg_logprob) for one in found]


def row(name: str, said: Sequence[str], found: Sequence[Text], reference: Sequence[Text]) -> Row:
    pairs = [(a, b) for a, b in zip(found, reference, strict=True) if a.written == b.written]
    errors = WordErrors()
    for text, one in zip(said, found, strict=True):
        if text:
            errors += word_errors(text, one.written)
    apart = sum(abs(a.avg_logprob - b.avg_logprob) for a, b in pairs) / max(1, len(pairs))
    wer = errors.errors / errors.words if errors.words else None
    return Row(name, len(pairs), len(found), apart, wer)


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


def measure(args: argparse.Namespace, folder: Path) -> list[Row]:
    """Return a row for each backend and arithmetic; graphs are made in `folder`."""
    model = without_gate(args.model, folder / "model")
    settings = Settings(
        model=str(model), language="en", beam_size=args.beam_size, data_dir=(folder,)
    )
    speech = heard(list(recordings(args.clips, args.limit)), settings)
    said = [text for text, _ in speech]
    wide = dataclasses.replace(settings, compute_type="float32")
    reference = texts(open_faster_whisper(wide, model), speech)
    rows = [row(f"faster-whisper, {REFERENCE}", said, reference, reference)]
    found = texts(open_faster_whisper(settings, model), speech)
    rows.append(row("faster-whisper, int8", said, found, reference))
    engines = cpu_engines(settings, model, arithmetic := choose_arithmetic(settings))
    found = texts(engines.open(engines.build(lambda _: None)), speech)
    rows.append(row(f"onnxruntime, {arithmetic}", said, found, reference))
    return rows


def show(rows: Sequence[Row]) -> str:
    head = ["backend", "texts", "those of float32", "share", "log-probabilities apart", "WER"]
    cells = [
        [
            one.name,
            str(one.clips),
            str(one.same),
            percent(one.same, one.clips),
            f"{one.apart:.4f}",
            "-" if one.wer is None else f"{100 * one.wer:.1f} %",
        ]
        for one in rows
    ]
    return table(head, cells)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    models.add_model(parser)
    parser.add_argument(
        "--clips",
        type=Path,
        nargs="+",
        default=[CLIPS],
        metavar="DIR",
        help=f"folders of recordings; a {LABELS} may say what is said (default: tests/audio)",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="at most so many of a kind")
    parser.add_argument("--beam-size", type=int, default=1, help="default: 1")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there, too")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    args = _arguments(argv)
    facts = machine()
    try:
        with tempfile.TemporaryDirectory() as folder:
            rows = measure(args, Path(folder))
    except WyomingWhisperError as error:
        print(f"benchmarks.fidelity: {error}", file=sys.stderr)
        return 1
    print(machine_line(facts), show(rows), sep="\n\n")
    write_json(args.json, {"machine": facts, "rows": [asdict(one) for one in rows]})
    return 0


if __name__ == "__main__":
    sys.exit(main())
