"""Where recordings are cut: words lost and wrong, and the time it takes, by the rule.

Recordings of the corpus are joined to longer ones, which are heard as those of OpenAI's API are:
decoded, cut, transcribed piece by piece in the benchmark's own process. What is written is compared
with what was said. Beside the rules stand each recording alone, and faster-whisper's own
transcription of the whole, which seeks by the timestamps that Whisper writes.

A rule is SHORTEST-LONGEST/PAUSE[+WHOLE], in seconds, as `pieces.Cutting` has them: 2-12/0.3+30.
"""

from __future__ import annotations

import argparse
import re
import time
import wave
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.hearing.dictation import HELD_OUT, MIN_CLIP_SECONDS, PAUSES
from benchmarks.lib import report
from benchmarks.lib.clips import BUNDLED_CLIPS, read_clips
from benchmarks.lib.corpus import part_of, read_corpus
from benchmarks.lib.options import add_decoding, add_folders, add_model, add_number, add_part, names
from benchmarks.lib.report import Outcome
from benchmarks.lib.words import WordErrors, word_errors
from wyoming_whisper.audio.pieces import MAX_PIECE_SECONDS, Cutting
from wyoming_whisper.audio.recording import Recording
from wyoming_whisper.audio.speech import span_options
from wyoming_whisper.audio.vad import SileroVad
from wyoming_whisper.backends import open_transcriber
from wyoming_whisper.settings.options import Settings
from wyoming_whisper.text.style import TextStyle, finished
from wyoming_whisper.transcriber import SAMPLE_RATE, Samples, TranscribeOptions, Transcriber

KINDS = ("speakers", "voice", "unbroken", "short", "short-voice")
VOICES = (
    "dataset-voice-kathleen",
    "ljspeech",
    "sense_and_sensibility",
    "speech-to-text-finetune",
    "dataset-voice-kerstin",
    "dataset-voice-nathalie",
)
"""Of which several recordings are of one voice, by a part of their source."""

SHORT_SECONDS = 28.0  # with the padding still below what Whisper hears at once
ALONE, FASTER_WHISPER = "alone", "faster-whisper"
RULES = (
    ALONE,
    "10-30/inf+30",
    "2-12/0.3+30",
    "2-12/0.3+12",
    "5-15/0.5+30",
    "5-15/0.5+15",
    "5-30/0.5+30",
    FASTER_WHISPER,
)
_RULE = re.compile(r"([\d.]+)-([\d.]+)/([\d.]+|inf)(?:\+([\d.]+))?")


@dataclass(frozen=True)
class Part:
    """One recording of the corpus."""

    source: str
    lang: str
    text: str
    samples: Samples = field(repr=False)


@dataclass(frozen=True)
class Joined:
    """Several as one recording."""

    kind: str
    parts: list[Part]
    samples: Samples = field(repr=False)

    @property
    def lang(self) -> str:
        return self.parts[0].lang

    @property
    def text(self) -> str:
        return " ".join(part.text for part in self.parts)

    @property
    def seconds(self) -> float:
        return len(self.samples) / SAMPLE_RATE


def cutting(text: str) -> Cutting:
    """Read a rule. Raises ValueError."""
    match = _RULE.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r} is no rule such as 2-12/0.3+30")
    shortest, longest, pause, whole = match.groups()
    return Cutting(float(shortest), float(longest), float(pause), float(whole or MAX_PIECE_SECONDS))


# -- recordings ----------------------------------------------------------------------------


def read_parts(folders: Sequence[Path], part: str, languages: Sequence[str]) -> list[Part]:
    """Return what recordings are made of. Raises ClipError, AudioError."""
    parts = [
        Part(clip.file, "en", clip.text, clip.samples)
        for clip in read_clips(BUNDLED_CLIPS)
        if clip.kind in ("clean", "human", "long") and clip.text
    ]
    parts += [
        Part(one.source, one.lang, one.text, one.samples())
        for folder in folders
        for one in read_corpus(folder)
        if one.text and one.lang in languages and not any(name in one.source for name in HELD_OUT)
    ]
    return [
        one
        for one in parts
        if part in (part_of(one.source), "all")
        and len(one.samples) >= MIN_CLIP_SECONDS * SAMPLE_RATE
    ]


def join(
    kind: str, parts: Sequence[Part], pauses: tuple[float, float], longest: float = np.inf
) -> Iterator[Joined]:
    """Join recordings of one language, with pauses, into as many of `longest` as it takes."""
    rng = np.random.default_rng(0)
    taken: list[Part] = []
    pieces: list[Samples] = []
    for one in parts:
        n_samples = sum(map(len, pieces)) + len(one.samples)
        if taken and n_samples > longest * SAMPLE_RATE:
            yield Joined(kind, taken, np.concatenate(pieces))
            taken, pieces = [], []
        pause = np.zeros(round(rng.uniform(*pauses) * SAMPLE_RATE), np.float32)
        taken.append(one)
        pieces += [one.samples, pause]
    if taken:
        yield Joined(kind, taken, np.concatenate(pieces))


def recordings(kinds: Sequence[str], parts: Sequence[Part], n_orders: int) -> list[Joined]:
    """Return what is heard of each kind; speakers follow each other in so many orders."""
    english = [one for one in parts if one.lang == "en"]
    rng = np.random.default_rng(0)
    orders = [[english[i] for i in rng.permutation(len(english))] for _ in range(n_orders)]
    voices = [[one for one in parts if voice in one.source] for voice in VOICES]
    made = [
        Joined(one.source, [one], one.samples)
        for one in parts
        if len(one.samples) > 30 * SAMPLE_RATE
    ]
    joined = {
        "speakers": [one for order in orders for one in join("speakers", order, PAUSES)],
        "voice": [one for voice in voices for one in join("voice", voice, PAUSES)],
        "unbroken": [
            *(Joined("unbroken", one.parts, one.samples) for one in made),
            *(one for voice in voices for one in join("unbroken", voice, (0.0, 0.0))),
        ],
        "short": [one for order in orders for one in join("short", order, PAUSES, SHORT_SECONDS)],
        "short-voice": [
            one for voice in voices for one in join("short-voice", voice, PAUSES, SHORT_SECONDS)
        ],
    }
    return [one for kind in kinds for one in joined[kind]]


# -- hearing -------------------------------------------------------------------------------

Hear = Callable[[Joined], tuple[str, int]]
"""Returns what is written of a recording, and in how many pieces."""


class Ours:
    """The model as the API has it."""

    def __init__(self, settings: Settings, *, timestamps: bool) -> None:
        self._transcriber: Transcriber = open_transcriber(settings, build_missing=False)
        self._vad, self._spans = SileroVad(), span_options(settings)
        self._timestamps = timestamps
        self._known: dict[str, str] = {}

    def alone(self, joined: Joined) -> tuple[str, int]:
        texts = [self._alone(part) for part in joined.parts]
        return " ".join(texts), len(texts)

    def _alone(self, part: Part) -> str:
        if part.source not in self._known:
            self._known[part.source] = self._heard(part.samples, part.lang, Cutting())[0]
        return self._known[part.source]

    def by(self, rule: Cutting) -> Hear:
        return lambda joined: self._heard(joined.samples, joined.lang, rule)

    def _heard(self, samples: Samples, lang: str, rule: Cutting) -> tuple[str, int]:
        options = TranscribeOptions(language=lang, timestamps=self._timestamps)
        verbatim = TextStyle(strip_punctuation=False, hass_wording=False, language=lang)
        recording = Recording(as_wav(samples), self._vad, self._spans, np.inf, rule)
        texts: list[str] = []
        while not recording.is_over:
            for piece in recording.step():
                found = self._transcriber.transcribe(piece.samples, options)
                texts.append(finished(found, piece.voicing, verbatim).text)
        return " ".join(text for text in texts if text), len(texts)


def faster_whisper(settings: Settings) -> Hear:
    """Return what hears a recording as faster-whisper does by itself."""
    from faster_whisper import WhisperModel

    model: Any = WhisperModel(
        settings.model, device="cpu", compute_type="int8", cpu_threads=settings.cpu_threads
    )

    def heard(joined: Joined) -> tuple[str, int]:
        segments, _ = model.transcribe(
            joined.samples, language=joined.lang, beam_size=settings.beam_size or 5
        )
        return "".join(segment.text for segment in segments), 1

    return heard


def as_wav(samples: Samples) -> bytes:
    """Return a WAV file of them."""
    file = BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        out.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return file.getvalue()


# -- the suite -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Heard:
    """What one rule made of the recordings of a kind."""

    kind: str
    rule: str
    errors: WordErrors
    n_pieces: int
    seconds: float
    """Of the processor."""
    audio_seconds: float
    texts: list[str]


def measure(kind: str, rule: str, hear: Hear, among: Sequence[Joined]) -> Heard:
    """Hear recordings, and count."""
    errors, n_pieces, texts = WordErrors(), 0, []
    start = time.process_time()
    for one in among:
        text, n = hear(one)
        errors += word_errors(one.text, text, one.lang)
        n_pieces += n
        texts.append(text)
    took = time.process_time() - start
    return Heard(kind, rule, errors, n_pieces, took, sum(one.seconds for one in among), texts)


def row(heard: Heard) -> list[str]:
    errors = heard.errors
    return [
        heard.kind,
        heard.rule,
        str(heard.n_pieces),
        str(errors.words),
        str(errors.deletions),
        str(errors.insertions),
        str(errors.substitutions),
        report.percent(errors.errors, errors.words),
        f"{60 * heard.seconds / heard.audio_seconds:.1f} s",
    ]


HEAD = ["kind", "rule", "pieces", "words", "lost", "added", "changed", "wrong", "a minute takes"]


def add_options(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_folders(parser)
    add_part(parser)
    add_decoding(parser, beam_size=1)
    parser.add_argument("--kinds", type=names, default=KINDS, metavar="LIST", help=", ".join(KINDS))
    parser.add_argument("--rules", type=names, default=RULES, metavar="LIST", help=", ".join(RULES))
    parser.add_argument("--languages", type=names, default=("en",), metavar="LIST")
    add_number(parser, "--orders", 3, "in which speakers follow each other")
    parser.add_argument("--timestamps", action="store_true", help="as for srt and verbose_json")


def run(args: argparse.Namespace) -> Outcome:
    """Hear every recording by every rule."""
    settings = Settings(
        model=str(args.model),
        backend="faster-whisper",
        compute_type=args.compute_type,
        cpu_threads=args.threads,
        beam_size=args.beam_size,
    )
    ours = Ours(settings, timestamps=args.timestamps)
    joined = recordings(args.kinds, read_parts(args.corpus, args.part, args.languages), args.orders)
    results: list[Heard] = []
    for rule in args.rules:
        if rule == ALONE:
            hear: Hear = ours.alone
        elif rule == FASTER_WHISPER:
            hear = faster_whisper(settings)
        else:
            hear = ours.by(cutting(rule))
        for kind in args.kinds:
            among = [one for one in joined if one.kind == kind]
            if among:
                results.append(measure(kind, rule, hear, among))
                print(*row(results[-1]), flush=True)
    results.sort(key=lambda heard: args.kinds.index(heard.kind))
    table = report.table(HEAD, [row(heard) for heard in results])
    return Outcome([table], {"heard": [asdict(heard) for heard in results]})
