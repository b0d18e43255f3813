"""How many texts Home Assistant understands, as Whisper writes them and with our text options.

`python -m benchmarks.intents` draws sentences from Home Assistant's own templates
(home-assistant-intents), writes them in the ways that Whisper does, and has Home Assistant's
matcher (hassil) recognise them. A text is right if it gives the intent and the slots of the
sentence itself, but for capital letters. With `--spoken N`, held-out voices speak N English
sentences to our server, and its transcripts are matched.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report
from benchmarks.client import say
from benchmarks.clips import with_silence
from benchmarks.servers import BenchmarkError, add_arguments, asked, ours, running
from training import speak
from training.text import Templates, normalise
from wyoming_whisper.text import TextStyle, tidy

PROGRESS_EVERY = 25
MAX_DRAWS = 40  # for one sentence that is recognised: most ask for a device that isn't there
NUMBER = re.compile(r"<(-?\d+)>")  # as it is drawn: how it is written comes later

OPTIONS: Mapping[str, TextStyle] = {
    "as written": TextStyle(strip_punctuation=False),
    "strip": TextStyle(),
    "lowercase": TextStyle(strip_punctuation=False, lowercase=True),
    "both": TextStyle(lowercase=True),
}


@dataclass(frozen=True)
class Home:
    """What a household has, and how its language is written."""

    areas: tuple[str, ...]
    devices: Mapping[str, str]
    """Domain of each."""

    things: tuple[str, ...]
    """For lists, timers and searches: what a wildcard matches."""

    quotes: str = "“”"
    """An opening and a closing one."""

    end: str = "."
    comma: str = ", "


HOMES: Mapping[str, Home] = {
    "en": Home(
        ("kitchen", "living room", "bedroom"),
        {
            "desk lamp": "light",
            "left blind": "cover",
            "coffee machine": "switch",
            "radio": "media_player",
        },
        ("milk", "apple juice", "pasta"),
    ),
    "de": Home(
        ("Küche", "Wohnzimmer", "Schlafzimmer"),
        {
            "Leselampe": "light",
            "Rollo links": "cover",
            "Kaffeemaschine": "switch",
            "Radio": "media_player",
        },
        ("Milch", "Apfelsaft", "Nudeln"),
        "„“",
    ),
    "fr": Home(
        ("cuisine", "salon", "chambre"),
        {
            "lampe de bureau": "light",
            "volet gauche": "cover",
            "cafetière": "switch",
            "radio": "media_player",
        },
        ("lait", "jus de pomme", "pâtes"),
        "«»",
    ),
    "es": Home(
        ("cocina", "salón", "dormitorio"),
        {
            "lámpara de mesa": "light",
            "persiana izquierda": "cover",
            "cafetera": "switch",
            "radio": "media_player",
        },
        ("leche", "zumo de manzana", "pasta"),
        "«»",
    ),
    "it": Home(
        ("cucina", "soggiorno", "camera da letto"),
        {
            "lampada da tavolo": "light",
            "tapparella sinistra": "cover",
            "macchina del caffè": "switch",
            "radio": "media_player",
        },
        ("latte", "succo di mela", "pasta"),
    ),
    "nl": Home(
        ("keuken", "woonkamer", "slaapkamer"),
        {
            "bureaulamp": "light",
            "linker gordijn": "cover",
            "koffiemachine": "switch",
            "radio": "media_player",
        },
        ("melk", "appelsap", "pasta"),
    ),
    "pl": Home(
        ("kuchnia", "salon", "sypialnia"),
        {
            "lampka nocna": "light",
            "lewa roleta": "cover",
            "ekspres do kawy": "switch",
            "radio": "media_player",
        },
        ("mleko", "sok jabłkowy", "makaron"),
        "„”",
    ),
    "pt": Home(
        ("cozinha", "sala", "quarto"),
        {
            "candeeiro": "light",
            "estore esquerdo": "cover",
            "máquina de café": "switch",
            "rádio": "media_player",
        },
        ("leite", "sumo de maçã", "massa"),
    ),
    "zh-CN": Home(
        ("厨房", "客厅", "卧室"),
        {"台灯": "light", "左窗帘": "cover", "咖啡机": "switch", "收音机": "media_player"},
        ("牛奶", "苹果汁", "面条"),
        "「」",
        "。",
        "，",  # noqa: RUF001
    ),
}

# -- the matcher ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Understood:
    """What a text means to Home Assistant."""

    intent: str
    slots: tuple[tuple[str, str], ...]
    """Sorted; values in small letters."""

    words: tuple[str, ...]
    """The texts that slots were filled from."""

    def means(self, other: Understood | None) -> bool:
        return other is not None and (self.intent, self.slots) == (other.intent, other.slots)


class Matcher(Templates):
    """One household in one language: its sentences, and what they mean."""

    def __init__(self, language: str, home: Home) -> None:
        import hassil
        from hassil.intents import TextSlotList

        super().__init__(lambda r: r.choice([*home.devices, *home.things]), language)
        self._hassil = hassil
        self.language = language
        self._slots = {
            "area": lambda r: r.choice(home.areas),
            "name": lambda r: r.choice(list(home.devices)),
        }
        devices = [(name, name, {"domain": domain}) for name, domain in home.devices.items()]
        self._lists = {
            "name": TextSlotList.from_tuples(devices, name="name"),
            "area": TextSlotList.from_strings(home.areas, name="area"),
            "floor": TextSlotList.from_strings((), name="floor"),
        }
        self._here = {"area": home.areas[0]}  # of the satellite

    def draw(self, r: random.Random) -> str:
        """Return a sentence that is understood, its numbers in angle brackets. Raises."""
        for _ in range(MAX_DRAWS):
            drawn = " ".join(self.sentence(r).split())
            if self.understand(digits(drawn)):
                return drawn
        raise BenchmarkError(f"{self.language}: none of {MAX_DRAWS} sentences is understood")

    @cache  # noqa: B019  (lives as long as the benchmark)
    def understand(self, text: str) -> Understood | None:
        """Return what Home Assistant takes the text for, None if for nothing."""
        found = self._hassil.recognize_best(
            text,
            self._intents,
            slot_lists=self._lists,
            intent_context=self._here,
            language=self.language,
            best_slot_name="name",
        )
        if found is None:
            return None
        slots = {name: _value(entity.value) for name, entity in found.entities.items()}
        words = tuple(entity.text.strip() for entity in found.entities.values())
        return Understood(found.intent.name, tuple(sorted(slots.items())), words)

    def in_words(self, drawn: str) -> str:
        """Return a drawn sentence with its numbers in the language's words."""
        import unicode_rbnf

        engine = unicode_rbnf.RbnfEngine.for_language(self.language.partition("-")[0])
        return NUMBER.sub(lambda found: str(engine.format_number(int(found[1])).text), drawn)

    def _slot(self, name: str, data: object, r: random.Random) -> str:
        from hassil.intents import RangeSlotList

        values = {**self._intents.slot_lists, **getattr(data, "slot_lists", {})}.get(name)
        if isinstance(values, RangeSlotList):
            return f"<{r.randrange(values.start, values.stop + 1, values.step)}>"
        return super()._slot(name, data, r)


def _value(value: object) -> str:
    """Return a slot's value for comparing: 50 is 50.0, and Milk is milk."""
    return f"{value:g}" if isinstance(value, int | float) else str(value).casefold()


def digits(drawn: str) -> str:
    """Return a drawn sentence with its numbers in digits."""
    return NUMBER.sub(r"\1", drawn)


# -- how Whisper writes --------------------------------------------------------------------


@dataclass(frozen=True)
class Sentence:
    """One that is understood, in all that its ways of writing need."""

    drawn: str
    meaning: Understood
    matcher: Matcher
    home: Home

    @property
    def plain(self) -> str:
        return digits(self.drawn)

    @property
    def written(self) -> str:
        """As Whisper writes it: a capital letter, digits, a mark at the end."""
        text = self.plain[:1].upper() + self.plain[1:]
        if not self.meaning.intent.startswith("HassGet"):
            return text + self.home.end
        if self.home.quotes == "«»" and self.matcher.language == "es":
            return f"¿{text}?"
        return text + "?"

    @property
    def slot(self) -> str:
        """The longest words of a slot that stand in it as they are; empty where none do."""
        return max(
            (words for words in self.meaning.words if words in self.plain), key=len, default=""
        )


def _quoted(sentence: Sentence) -> str:
    return sentence.home.quotes[0] + sentence.written + sentence.home.quotes[1]


def _slot_quoted(sentence: Sentence) -> str:
    words, quotes = sentence.slot, sentence.home.quotes
    return (
        sentence.written.replace(words, quotes[0] + words + quotes[1], 1)
        if words
        else sentence.written
    )


def _comma(sentence: Sentence) -> str:
    at = sentence.written.find(sentence.slot) if sentence.slot else 0
    if at <= 0:
        return sentence.written
    return sentence.written[:at].rstrip() + sentence.home.comma + sentence.written[at:]


WAYS: Mapping[str, Callable[[Sentence], str]] = {
    "as in the templates": lambda sentence: sentence.plain,
    "numbers in words": lambda sentence: sentence.matcher.in_words(sentence.drawn),
    "capital, mark at the end": lambda sentence: sentence.written,
    "and exclamation mark": lambda sentence: sentence.written[:-1] + "!",
    "and ellipsis": lambda sentence: sentence.written[:-1] + "...",
    "and a comma inside": _comma,
    "and a dash before": lambda sentence: "- " + sentence.written,
    "all in quotes": _quoted,
    "a name in quotes": _slot_quoted,
}


def draw(languages: Sequence[str], count: int, seed: int) -> Iterator[tuple[str, Sentence]]:
    """Return (language, sentence), so many of each language and no two alike."""
    for language in languages:
        matcher, home, r = Matcher(language, HOMES[language]), HOMES[language], random.Random(seed)
        found: dict[str, Sentence] = {}
        for _ in range(MAX_DRAWS * count):
            if len(found) == count:
                break
            drawn = matcher.draw(r)
            meaning = matcher.understand(digits(drawn))
            if meaning:
                found[drawn] = Sentence(drawn, meaning, matcher, home)
        print(f"{language}: {len(found)} sentences", file=sys.stderr, flush=True)
        yield from ((language, sentence) for sentence in found.values())


@dataclass(frozen=True)
class Result:
    """What became of one text."""

    language: str
    way: str
    option: str
    text: str
    matched: bool
    right: bool


def judge(
    language: str, way: str, sentence: Sentence, text: str, options: Mapping[str, TextStyle]
) -> Iterator[Result]:
    """Have a text matched with each of the options."""
    for option, style in options.items():
        given = tidy(text, style, language.partition("-")[0])
        meaning = sentence.matcher.understand(given)
        right = sentence.meaning.means(meaning)
        yield Result(language, way, option, given, meaning is not None, right)


def written(sentences: Sequence[tuple[str, Sentence]]) -> list[Result]:
    """Have every sentence matched in every way it may be written."""
    results: list[Result] = []
    for number, (language, sentence) in enumerate(sentences, 1):
        for way, write in WAYS.items():
            results += judge(language, way, sentence, write(sentence), OPTIONS)
        if number % PROGRESS_EVERY == 0 or number == len(sentences):
            print(f"{number} of {len(sentences)} sentences", file=sys.stderr, flush=True)
    return results


# -- spoken --------------------------------------------------------------------------------


def spoken(args: argparse.Namespace) -> list[Result]:
    """Have English sentences spoken to our server, and its transcripts matched."""
    r = random.Random(args.seed)
    sentences = {
        text: sentence
        for _, sentence in draw(["en"], args.spoken, args.seed + 1)
        if (text := normalise(sentence.matcher.in_words(sentence.drawn)))
    }
    jobs = [speak.espeak_job(text, True, r) for text in sentences]
    with ThreadPoolExecutor() as pool:
        said = [pair for batch in pool.map(speak.say, speak.batched(jobs)) for pair in batch]
    results: list[Result] = []
    program = ours(args, "ours", "--no-strip-punctuation")
    with tempfile.TemporaryDirectory() as folder, running([program], Path(folder)) as servers:
        for number, (job, samples) in enumerate(said, 1):
            audio = with_silence((samples / 65536).astype(np.float32))
            heard = asyncio.run(say(servers[0].uri, audio, chunk_ms=args.chunk_ms))
            sentence = sentences[job.text]
            results += judge("en", "said", sentence, job.text, {"": TextStyle()})
            results += judge("en", "transcribed", sentence, heard.text, OPTIONS)
            if number % PROGRESS_EVERY == 0 or number == len(said):
                print(f"{number} of {len(said)} spoken", file=sys.stderr, flush=True)
    return results


# -- report --------------------------------------------------------------------------------


def table(results: Sequence[Result], head: str, by: Callable[[Result], str]) -> str:
    """Return the share that is right with each option, in a row for each value of `by`."""
    options = list(dict.fromkeys(result.option for result in results))
    rows = []
    for name in dict.fromkeys(map(by, results)):
        own = [result for result in results if by(result) == name]
        per_option = [[result for result in own if result.option == option] for option in options]
        shares = [report.percent(sum(x.right for x in some), len(some)) for some in per_option]
        rows.append([name, str(max(map(len, per_option))), *shares])
    return report.table([head, "texts", *options], rows)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.intents", description=__doc__)
    add_arguments(parser)
    parser.add_argument(
        "--languages", nargs="+", choices=HOMES, default=list(HOMES), help="default: all there are"
    )
    parser.add_argument(
        "--sentences", type=int, default=100, metavar="N", help="of each language (default: 100)"
    )
    parser.add_argument("--spoken", type=int, default=0, metavar="N", help="needs espeak-ng")
    parser.add_argument("--seed", type=int, default=2026)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    args = _arguments(argv)
    facts: dict[str, Any] = report.machine()
    packages = {name: version(name) for name in ("hassil", "home-assistant-intents")}
    try:
        results = written(list(draw(args.languages, args.sentences, args.seed)))
        transcribed = spoken(args) if args.spoken else []
    except BenchmarkError as error:
        print(f"benchmarks.intents: {error}", file=sys.stderr)
        return 1
    print(", ".join(f"{name} {number}" for name, number in packages.items()))
    print("", table(results, "written", lambda result: result.way), sep="\n")
    print("", table(results, "language", lambda result: result.language), sep="\n")
    if transcribed:
        own = [result for result in transcribed if result.way == "said"]
        print(
            "", f"Of what was said, {report.percent(sum(x.right for x in own), len(own))} is right."
        )
        rest = [result for result in transcribed if result.way != "said"]
        print("", table(rest, "spoken", lambda result: result.way), sep="\n")
    rows = [asdict(result) for result in (*results, *transcribed)]
    report.write_json(
        args.json, {"machine": facts, "packages": packages, "asked": asked(args), "results": rows}
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
