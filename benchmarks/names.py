"""Names of the home: how many that were misheard are put right, and how often wrongly.

`python -m benchmarks.names` has voices that `home-en` was never trained on speak commands with the
names of an invented household, and sentences that name nothing in it, into --clips DIR (once), and
transcribes all of them without and with the household's names. It needs what training needs, see
training/README.md. `--fit` finds the weights in names.py anew, from other names, sentences and
voices than it measures with.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import report
from benchmarks.clips import Clip, read_clips
from benchmarks.heldout import Spoken, write
from benchmarks.words import word_errors
from training import speak, text
from wyoming_whisper.backends.faster_whisper import CTranslate2Inference, choose_beam_size
from wyoming_whisper.backends.pipeline import decoding_options, load_tokenizer, noise_mel
from wyoming_whisper.models import BUNDLED, BUNDLED_FOLDER
from wyoming_whisper.names import (
    LEAST_DOUBT,
    LEAST_EXPECTED,
    LEAST_HEARD,
    MIN_EVIDENCE,
    Candidate,
    Evidence,
    NameIndex,
    Snapper,
    fold,
)
from wyoming_whisper.settings import Settings
from wyoming_whisper.whisper.audio import log_mel_spectrogram, silence_level
from wyoming_whisper.whisper.decoding import Decoder, DecodingResult, Hypothesis


def _list(text: str) -> list[str]:
    return text.split(",")


INVENTED = _list(
    "zorbo,nimbus,hedwig,dobby,matilda's lamp,roborock,foyer,lanai,gandalf,pikachu light,monstera,"
    "scullery,ingrid's room,aurora,narnia,gazebo,sherlock,big bertha,yoda lamp,fritz,pergola,"
    "veranda fan,rosie,mudroom,quasimodo,blinky,shelly plug,winnie,cabana,goliath"
)
INVENTED_TO_FIT = _list(
    "gizmo,tobias,lumina,orion lamp,sir spotsalot,bubba,mango tree,bat cave,zephyr,marlene's lamp,"
    "nautilus,hermione,wookie,pixel,kiki's room,moon lamp,hogwarts,captain sparkle,jupiter,"
    "donatello,freya,dojo,ottoman light,mister coffee,nanuk,wendigo,salty dog,tangerine lamp,"
    "rapunzel,orangery"
)
ORDINARY = _list(
    "kitchen,living room,bedroom,bathroom,hallway,garage,office,garden,dining room,guest room,"
    "ceiling light,desk lamp,floor lamp,television,coffee machine,vacuum,dishwasher,"
    "washing machine,thermostat,bedside lamp,front door,garage door,blinds,curtains,speaker,"
    "christmas tree,towel rail,string lights,terrace,nursery"
)
"""Names that homes have anyway, and that the model was trained on."""

ROOMS = _list(
    "kitchen,living room,bedroom,bathroom,hallway,garage,office,attic,cellar,dining room,"
    "guest room,laundry,landing,porch,conservatory,playroom,study,utility room,loft,workshop"
)
THINGS = _list(
    "ceiling light,lamp,blinds,speaker,radiator,fan,sensor,socket,camera,window,heater,spotlights"
)
REAL = _list(
    "hue play left,hue go,tradfri bulb,sonos arc,sonos one,chromecast ultra,samsung tv,lg tv,"
    "apple tv,playstation,roomba,robot mower,nest hub,shelly plug,wled strip,dyson fan,printer,"
    "anna's bedside lamp,tom's desk,kids bathroom,mum's room,baby monitor,grandpa's chair,utility,"
    "downstairs toilet,upstairs landing,hot tub,pool pump,ev charger,solar inverter,heat pump,"
    "water heater,fish tank,aquarium,rice cooker,kettle,espresso machine,bread maker,wine cooler,"
    "freezer,sauna,greenhouse,chicken coop,mailbox,doorbell,sprinkler,awning,skylight,fireplace"
)
"""As people call their things in forums: brands, persons, appliances."""

HOMES = {
    "small": [*INVENTED, *ORDINARY],
    "large": [*INVENTED, *ORDINARY, *(f"{room} {thing}" for room in ROOMS for thing in THINGS)],
    "real": REAL,
}

COMMANDS = _list(
    "turn on {},turn off {},switch on {},set {} to fifty percent,open {},is {} on,"
    "dim {} to twenty percent,close {},start {},make {} blue,what is the status of {},turn {} on,"
    "turn up {},stop {} please,lock {}"
)

VOICES = ("Mike", "paul")
VOICES_TO_FIT = ("Andrea", "f4", "m6")
"""Of espeak-ng's variants that the model was never trained on."""

FALSE_SHARE_TO_FIT = 0.0025  # of sentences without names: half of what is allowed

Floats = npt.NDArray[np.float64]

Correct = Callable[[Any, Sequence[int], str, Hypothesis], Hypothesis]


@dataclass(frozen=True)
class Heard:
    """One clip, transcribed without and with names."""

    clip: Clip
    home: str
    """Of HOMES."""
    without: str
    named: str
    seconds: float
    """Of processor time that comparing took."""
    lost: str
    """Why the name that was said is not there."""


# -- clips ---------------------------------------------------------------------------------


def make_clips(folder: Path, count: int, n_plain: int, processes: int) -> None:
    """Have everything spoken and write it."""
    sets = [
        ("name", _commands(INVENTED, count, 2), VOICES),
        ("ordinary", _commands(ORDINARY, count, 3), VOICES),
        ("plain", text.sentences(n_plain, 32, dev=True), VOICES),
        ("fit-name", _commands(INVENTED_TO_FIT, 2 * count, 1), VOICES_TO_FIT),
        ("fit-plain", text.sentences(n_plain, 31, dev=True), VOICES_TO_FIT),
    ]
    spoken: list[tuple[str, Spoken]] = []
    with ThreadPoolExecutor(processes) as pool:
        for kind, sentences, voices in sets:
            r = random.Random(kind)
            jobs = [
                replace(speak.espeak_job(one, True, r), voice=_voice(voices, r))
                for one in sentences
            ]
            for said in pool.map(speak.say, [[job] for job in jobs]):
                spoken += [(kind, Spoken(job.text, job.label, samples)) for job, samples in said]
            print(f"{kind}: {len(spoken)} clips so far", flush=True)
    write(folder, spoken)


def _voice(variants: Sequence[str], r: random.Random) -> str:
    return f"{r.choice(speak.ACCENTS)}+{r.choice(variants)}"


def _commands(names: Sequence[str], count: int, seed: int) -> list[str]:
    """Return commands, each name as often as the others, half of them with an article."""
    r = random.Random(seed)
    chosen = [names[number % len(names)] for number in range(count)]
    return [r.choice(COMMANDS).format(r.choice(["", "the "]) + name) for name in chosen]


# -- transcribing --------------------------------------------------------------------------


class Model:
    """A model in this process, asked as the server asks it."""

    def __init__(self, path: Path, beam_size: int, threads: int) -> None:
        import ctranslate2

        model = ctranslate2.models.Whisper(
            str(path), device="cpu", compute_type="int8_float32", intra_threads=threads
        )
        settings = Settings(data_dir=(), model=str(path))
        self.options = decoding_options(settings, path, choose_beam_size(beam_size))
        self.inference = CTranslate2Inference(model)
        self.tokenizer = load_tokenizer(path, multilingual=model.is_multilingual)
        self._decoder = Decoder(self.inference, self.tokenizer, ("en",), self.options)
        self._noise = self.inference.encode(noise_mel(self.inference.n_mels, self.options))

    def snapper(self, names: Sequence[str]) -> Snapper:
        """Return what puts these names into texts."""
        index = NameIndex(names)
        return Snapper(self.inference, self.tokenizer, [index], lambda: self._noise)

    def transcribe(self, clip: Clip, correct: Correct | None = None) -> DecodingResult:
        """Return what was said, as `correct` has it."""
        mel = log_mel_spectrogram(clip.samples, self.inference.n_mels)
        return self._decoder.decode(mel, "en", correct=correct)

    def hear(self, clip: Clip, snappers: Mapping[str, Snapper]) -> list[Heard]:
        """Transcribe a clip without names, and with those of each home."""
        found: dict[str, tuple[str, float, str]] = {}

        def compare(
            features: Any, prompt: Sequence[int], language: str, heard: Hypothesis
        ) -> Hypothesis:
            for home, snapper in snappers.items():
                began = time.process_time()
                corrected = snapper(features, prompt, language, heard)
                seconds = time.process_time() - began
                text, lost = self._text(corrected), ""
                if clip.kind != "plain" and not has_name(clip.text, text, HOMES[home]):
                    lost = _lost(clip, home, snapper.weighed(features, prompt, language, heard))
                found[home] = text, seconds, lost
            return heard

        without = self.transcribe(clip, compare).text
        nothing = (without, 0.0, "")  # silence is compared with nothing
        return [Heard(clip, home, without, *found.get(home, nothing)) for home in snappers]

    def scores(self, clip: Clip, texts: Sequence[str]) -> tuple[Floats, Floats]:
        """Return the texts' log-probabilities with the audio, and with noise in its place."""
        mel = log_mel_spectrogram(clip.samples, self.inference.n_mels)
        audio = self.inference.encode(self._decoder.window(mel, 0, silence_level(mel)))
        prompt = self._decoder.prompt((), "en", timestamps=False)
        tokens = [self._decoder.encode_text(text) for text in texts]
        heard, expected = (
            np.array([one.sum() for one in self.inference.score(features, prompt, tokens)])
            for features in (audio, self._noise)
        )
        return heard, expected

    def _text(self, heard: Hypothesis) -> str:
        """Return what the server would write."""
        text = self._decoder.text(heard.tokens)
        return "" if self._decoder.gate(text, heard.avg_logprob) else text


def _lost(clip: Clip, home: str, weighed: Sequence[tuple[float, Candidate, Evidence]]) -> str:
    """Return what kept a name from being written."""
    meant = [w for w, c, _ in weighed if has_name(clip.text, c.text, HOMES[home])]
    if not meant:
        return "no text with it is possible"
    if max(meant) < max(weight for weight, _, _ in weighed):
        return "another name has more evidence"
    return "too little evidence" if max(meant) < MIN_EVIDENCE else "the rest is a guess: withheld"


# -- fitting -------------------------------------------------------------------------------


def fit(model: Model, clips: Sequence[Clip]) -> str:
    """Return the constants of names.py that tell best what was meant from what was not."""
    snapper = model.snapper([*INVENTED_TO_FIT, *ORDINARY])
    rows: list[list[float]] = []
    meant: list[bool] = []
    places: list[int] = []  # of the clip
    for place, clip in enumerate(clips):
        for candidate, evidence, heard in _candidates(model, snapper, clip):
            rows.append(features(candidate, evidence))
            better = (
                word_errors(clip.text, candidate.text).errors < word_errors(clip.text, heard).errors
            )
            meant.append(better and fold(candidate.name) in fold(clip.text))
            places.append(place)
        if place % 100 == 99:
            print(f"{place + 1} of {len(clips)} clips", flush=True)
    x, y = np.array(rows), np.array(meant, np.float64)
    weights = logistic(x, y)
    odds = x @ weights
    # The likeliest candidate of each clip is what would be written.
    best = {place: number for number, place in sorted(enumerate(places), key=lambda i: odds[i[0]])}
    wrong = sorted((odds[n] for n in best.values() if not meant[n]), reverse=True)
    allowed = int(FALSE_SHARE_TO_FIT * sum(clip.kind == "fit-plain" for clip in clips))
    plain = sorted(
        (odds[n] for place, n in best.items() if clips[place].kind == "fit-plain" and not meant[n]),
        reverse=True,
    )
    least = plain[allowed] if len(plain) > allowed else 0.0
    names = _list("BIAS,PER_SIMILARITY,PER_CONTEXT,PER_REST,PER_DOUBT,PER_HEARD,PER_EXPECTED")
    lines = [f"{name} = {weight:.3g}" for name, weight in zip(names, weights, strict=True)]
    n_right = sum(meant[n] and odds[n] > least for n in best.values())
    n_wrong = sum(odd > least for odd in wrong)
    lines.append(f"MIN_EVIDENCE = {least:.2g}")
    return "\n".join([*lines, f"there: {n_right} meant, {n_wrong} not, of {len(rows)} candidates"])


def _candidates(
    model: Model, snapper: Snapper, clip: Clip
) -> list[tuple[Candidate, Evidence, str]]:
    found: list[tuple[Candidate, Evidence, str]] = []

    def note(audio: Any, prompt: Sequence[int], language: str, heard: Hypothesis) -> Hypothesis:
        written = model.tokenizer.decode(heard.tokens)
        weighed = snapper.weighed(audio, prompt, language, heard)
        found.extend((candidate, evidence, written) for _, candidate, evidence in weighed)
        return heard

    model.transcribe(clip, note)
    return found


def features(candidate: Candidate, evidence: Evidence) -> list[float]:
    """Return what Evidence.weigh weighs, in its order."""
    return [
        1.0,
        candidate.similarity,
        candidate.context,
        evidence.rest,
        max(evidence.doubt, LEAST_DOUBT),
        max(evidence.heard, LEAST_HEARD),
        max(evidence.expected, LEAST_EXPECTED),
    ]


def logistic(x: Floats, y: Floats, rounds: int = 50, ridge: float = 0.1) -> Floats:
    """Return the weights of a logistic regression by Newton's method, shape = (x.shape[1],)."""
    weights = np.zeros(x.shape[1])
    for _ in range(rounds):
        p = 1 / (1 + np.exp(-x @ weights))
        slope = x.T @ (y - p) - ridge * weights
        bend = (x * (p * (1 - p))[:, None]).T @ x + ridge * np.eye(x.shape[1])
        weights = weights + np.linalg.solve(bend, slope)
    return weights


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
    """Return the tables: sentences with names, those without, what is lost, and times."""
    rows = []
    for home in HOMES:
        for kind in ("name", "ordinary"):
            heard = [one for one in results if one.clip.kind == kind and one.home == home]
            if heard:
                what = kind.replace("name", "invented")
                if home == "small":
                    rows.append([what, "none", *_cells(heard, [one.without for one in heard])])
                number = str(len(NameIndex(HOMES[home])))
                rows.append([what, number, *_cells(heard, [one.named for one in heard])])
    headings = ["names said", "names known", "number", "right", "name wrong", "empty"]
    tables = [report.table(headings, rows), _false_table(results)]
    reasons = Counter(
        one.lost for one in results if one.lost and (one.clip.kind, one.home) == ("name", "small")
    )
    lost = [[reason, str(number)] for reason, number in reasons.most_common()]
    tables.append(report.table(["invented names not written, of the small home", "number"], lost))
    for home in HOMES:
        times = [one.seconds for one in results if one.home == home]
        tables.append(
            f"Comparing with {len(NameIndex(HOMES[home]))} names took "
            f"{report.milliseconds(median(times))} of processor time (median), "
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
    for home, names in HOMES.items():
        plain = [one for one in results if one.home == home and one.clip.kind == "plain"]
        false = sum(map(is_false, plain))
        rows.append(
            [
                f"{home}: {len(NameIndex(names))}",
                str(len(plain)),
                f"{false} ({100 * false / max(len(plain), 1):.2f} %)",
                str(sum(map(is_spoiled, plain))),
            ]
        )
    return report.table(["home, names", "sentences without", "false names", "spoiled"], rows)


def ranks(model: Model, clips: Sequence[Clip]) -> str:
    """Return how often the name that was said is the best of all, put where it was said.

    That is the most that what the model says of names can give: the rest was heard right.
    """
    names = [fold(name) for name in HOMES["small"]]
    likeliest = told = 0
    for clip in clips:
        said = f" {fold(clip.text)} "
        meant = max((name for name in names if f" {name} " in said), key=len)
        texts = [said.replace(f" {meant} ", f" {name} ").strip() for name in names]
        heard, expected = model.scores(clip, texts)
        place = names.index(meant)
        likeliest += int(np.argmax(heard)) == place
        told += int(np.argmax(heard - expected)) == place
    return (
        f"{len(names)} names put where one was said, in {len(clips)} clips: that one is the "
        f"likeliest in {report.percent(likeliest, len(clips))}, and the one that the audio makes "
        f"likelier than noise by the largest factor in {report.percent(told, len(clips))}"
    )


def scale(n_names: int = 5000) -> str:
    """Return how long a large home takes: making the index, and finding candidates in it."""
    r = random.Random(5)
    parts = [*INVENTED, *INVENTED_TO_FIT, *ORDINARY]
    names = [f"{r.choice(parts)} {r.choice(parts)} {number}" for number in range(n_names)]
    began = time.perf_counter()
    index = NameIndex(names)
    made = time.perf_counter() - began
    texts = [f"turn on the {r.choice(parts)} in the {r.choice(parts)} please" for _ in range(5)]
    began = time.perf_counter()
    index.candidates(texts, "en")
    found = time.perf_counter() - began
    return (
        f"{len(index)} names: index {report.milliseconds(made)} (once, beside the event loop), "
        f"candidates for five texts {report.milliseconds(found)}"
    )


def main() -> None:
    """Make the clips where there are none, then fit or measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=Path, required=True, metavar="DIR")
    parser.add_argument("--model", type=Path, default=BUNDLED_FOLDER, metavar="DIR")
    parser.add_argument("--count", type=int, default=240, help="commands of a kind (240)")
    parser.add_argument("--plain", type=int, default=800, help="sentences without names (800)")
    parser.add_argument("--beam-size", type=int, default=0, metavar="N")
    parser.add_argument("--threads", type=int, default=1, metavar="N")
    parser.add_argument("--processes", type=int, default=2, metavar="N")
    parser.add_argument("--fit", action="store_true", help="find the weights anew")
    parser.add_argument("--ranks", action="store_true", help="what is possible at most")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured")
    args = parser.parse_args()
    if not args.clips.exists():
        make_clips(args.clips, args.count, args.plain, args.processes)
    clips = [clip for clip in read_clips(args.clips) if clip.kind.startswith("fit-") == args.fit]
    model = Model(args.model, args.beam_size, args.threads)
    if args.fit:
        print(fit(model, clips))
        return
    if args.ranks:
        print(ranks(model, [clip for clip in clips if clip.kind == "name"]))
        return
    facts = report.machine()
    results: list[Heard] = []
    snappers = {home: model.snapper(names) for home, names in HOMES.items()}
    invented = {home: one for home, one in snappers.items() if home != "real"}
    for number, clip in enumerate(clips, 1):
        results += model.hear(clip, snappers if clip.kind == "plain" else invented)
        if number % 100 == 0:
            print(f"{number} of {len(clips)} clips", flush=True)
    print(report.machine_line(facts))
    name = BUNDLED if args.model == BUNDLED_FOLDER else args.model.name
    print(f"{name}, beam {model.options.beam_size}\n")
    print(summary(results))
    print(scale())
    shown = [
        {
            "clip": one.clip.file,
            "said": one.clip.text,
            "kind": one.clip.kind,
            "home": one.home,
            "without": one.without,
            "named": one.named,
            "seconds": one.seconds,
            "lost": one.lost,
        }
        for one in results
    ]
    report.write_json(args.json, {"machine": facts, "clips": shown})


if __name__ == "__main__":
    main()
