"""Sentences to train on: Home Assistant's own templates, our commands, and English beyond both.

Everything is written as the model shall write it: lower case, numbers as words, apostrophes kept,
no other punctuation. `python -m training.text --work DIR` prints a sample and writes
DIR/text/{train,dev}.txt.
"""

import argparse
import json
import random
import re
import zlib
from collections.abc import Callable
from pathlib import Path

from training import words

HELD_OUT_SHARE = 25  # one sentence in this many is never trained on
MAX_WORDS = 14
DICTIONARY = Path("/usr/share/dict/words")  # Debian's wamerican-small


def number(n: int) -> str:
    """0 <= n < 1,000,000 in words, as it is spoken: 245 -> "two hundred forty five"."""
    if n < 20:
        return words.ONES[n]
    if n < 100:
        return (words.TENS[n // 10 - 2] + (" " + words.ONES[n % 10] if n % 10 else "")).strip()
    if n < 1000:
        rest = " " + number(n % 100) if n % 100 else ""
        return words.ONES[n // 100] + " hundred" + rest
    rest = " " + number(n % 1000) if n % 1000 else ""
    return number(n // 1000) + " thousand" + rest


def normalise(text: str) -> str:
    """Text as the model writes it, or "" where it cannot be written so."""
    text = text.lower().replace("%", " percent").replace("°", " degrees").replace("-", " ")
    text = re.sub(r"\d+", lambda m: " " + number(int(m[0])) + " " if len(m[0]) < 7 else "#", text)
    text = " ".join(re.sub(r"[,.?!;:]", " ", text).split())
    return text if re.fullmatch(r"[a-z' ]+", text) else ""


def held_out(sentence: str) -> bool:
    """Whether a sentence belongs to the dev set: decided by its own letters, for all seeds."""
    if sentence in words.EVERYDAY:
        return False
    return zlib.crc32(sentence.encode()) % HELD_OUT_SHARE == 0


class Templates:
    """Home Assistant's intent sentences, one at a time, each slot filled at random."""

    def __init__(self, names: Callable[[random.Random], str], language: str = "en") -> None:
        import hassil
        import home_assistant_intents

        path = Path(home_assistant_intents.__file__).parent / "data" / f"{language}.json"
        data = json.loads(path.read_text(encoding="utf-8"))
        self._intents = hassil.Intents.from_dict(data)
        self._names = names
        self._slots: dict[str, Callable[[random.Random], str]] = {}
        if language == "en":
            self._slots = self._english()

    def _english(self) -> dict[str, Callable[[random.Random], str]]:
        return {
            "area": lambda r: r.choice(words.AREAS),
            "floor": lambda r: r.choice(words.FLOORS),
            "name": self._names,
            "shopping_list_item": lambda r: r.choice(words.ITEMS),
            "todo_list_item": lambda r: r.choice(words.ITEMS),
            "timer_name": lambda r: r.choice(words.DISHES),
            "search_query": lambda r: r.choice(words.MUSIC),
            "message": lambda r: general(r),
            "timer_command": lambda r: command(r),
            "zone": lambda r: r.choice(words.PLACES),
        }

    def sentence(self, r: random.Random) -> str:
        """One sentence of a random intent."""
        data = r.choice(r.choice(list(self._intents.intents.values())).data)
        return self._expand(r.choice(list(data.sentences)).expression, data, r)

    def _expand(self, part: object, data: object, r: random.Random) -> str:
        from hassil import expression as ex

        if isinstance(part, ex.TextChunk):
            return str(part.original_text)
        if isinstance(part, ex.Alternative):
            return self._expand(r.choice(part.items), data, r)
        if isinstance(part, ex.Permutation):
            items = r.sample(part.items, len(part.items))
            return " ".join(self._expand(item, data, r) for item in items)
        if isinstance(part, ex.Group):
            return "".join(self._expand(item, data, r) for item in part.items)
        if isinstance(part, ex.RuleReference):
            rules = {**self._intents.expansion_rules, **getattr(data, "expansion_rules", {})}
            return self._expand(rules[part.rule_name].expression, data, r)
        if not isinstance(part, ex.ListReference):
            raise TypeError(f"unexpected part of a template: {part}")
        return self._slot(part.list_name, data, r)

    def _slot(self, name: str, data: object, r: random.Random) -> str:
        from hassil import intents as it

        if name in self._slots:
            return self._slots[name](r)
        values = {**self._intents.slot_lists, **getattr(data, "slot_lists", {})}.get(name)
        if isinstance(values, it.TextSlotList):
            return self._expand(r.choice(values.values).text_in, data, r)
        if isinstance(values, it.RangeSlotList):
            return number(r.randrange(abs(values.start), abs(values.stop) + 1, abs(values.step)))
        return self._names(r)


class Writer:
    """All kinds of sentences, in the shares that train best."""

    def __init__(self, dictionary: Path = DICTIONARY) -> None:
        lines = dictionary.read_text(encoding="utf-8").split()
        self._words = [w for w in lines if re.fullmatch(r"[a-z]{2,9}", w)]
        self._templates = Templates(self.name)

    def name(self, r: random.Random) -> str:
        """A name somebody might give a device: known, built, or two words of the dictionary."""
        kind = r.random()
        if kind < 0.35:
            return r.choice(words.AREAS) + " " + r.choice(words.DEVICES)
        if kind < 0.5:
            return r.choice(words.DEVICES)
        if kind < 0.6:
            return r.choice(words.PEOPLE) + "'s " + r.choice(words.DEVICES)
        if kind < 0.8:
            return r.choice(words.ADJECTIVES) + " " + r.choice(words.DEVICES + words.NOUNS)
        return r.choice(self._words) + " " + r.choice([r.choice(self._words), *words.DEVICES[:8]])

    def sentence(self, r: random.Random) -> str:
        """One normalised sentence of 1 to MAX_WORDS words."""
        while True:
            text = normalise(self._draft(r))
            if text and len(text.split()) <= MAX_WORDS:
                return text

    def _draft(self, r: random.Random) -> str:
        kind = r.random()
        if kind < 0.30:
            return polite(self._templates.sentence(r), r)
        if kind < 0.55:
            return polite(command(r), r)
        if kind < 0.62:
            return named_command(self.name(r), r)
        if kind < 0.84:
            return general(r)
        if kind < 0.87:
            return " ".join(number(r.randint(0, r.choice([10, 100, 3000]))) for _ in range(2))
        return " ".join(r.choice(self._words) for _ in range(r.randint(1, 6)))


def polite(text: str, r: random.Random) -> str:
    """Sometimes the words people put around a command."""
    kind = r.random()
    if kind < 0.06:
        return "please " + text
    if kind < 0.10:
        return text + " please"
    if kind < 0.14:
        return r.choice(["could you ", "can you ", "would you ", "i want you to "]) + text
    return text


def named_command(name: str, r: random.Random) -> str:
    """A command to a device of any name."""
    the = r.choice(["", "the "])
    on = r.choice(["on", "off"])
    return r.choice(
        [
            f"turn {on} {the}{name}",
            f"turn {the}{name} {on}",
            f"switch {on} {the}{name}",
            f"is {the}{name} {on}",
            f"set {the}{name} to {number(r.randint(1, 100))} percent",
            f"where is {the}{name}",
            f"what's the state of {the}{name}",
            f"start {the}{name}",
        ]
    )


def command(r: random.Random) -> str:
    """A command as people say them at home."""
    return r.choice([_lights, _lights, _lights, _climate, _timers, _lists, _media, _house])(r)


def _lights(r: random.Random) -> str:
    area, device, on = r.choice(words.AREAS), r.choice(words.DEVICES), r.choice(["on", "off"])
    light = r.choice(["light", "lights", "lamp", "ceiling light"])
    turn = r.choice(["turn", "turn", "turn", "switch"])
    level = number(r.randint(1, 100))
    colour = r.choice(words.COLOURS)
    return r.choice(
        [
            f"{turn} {on} the {area} {light}",
            f"{turn} {on} the {area} {device}",
            f"{turn} {on} the {device} in the {area}",
            f"{turn} the {area} {device} {on}",
            f"{turn} the {area} {light} {on}",
            f"{turn} {on} the {device}",
            f"{turn} {on} {r.choice(['all the lights', 'everything'])}",
            f"{turn} {on} all lights in the {area}",
            f"set the {area} {light} to {level} percent",
            f"set the brightness of the {area} {light} to {level} percent",
            f"set the {area} brightness to {level} percent",
            f"{r.choice(['dim', 'brighten'])} the {area} {light}",
            f"set the {area} {light} to {colour}",
            f"change the {area} {light} color to {colour}",
            f"make the {area} {colour}",
            f"is the {area} {device} {on}",
            f"how many lights are on in the {area}",
            f"{turn} {on} the {area} {light} and the {r.choice(words.AREAS)} {device}",
            f"{turn} {on} the {area} {device} in {number(r.randint(2, 30))} minutes",
        ]
    )


def _climate(r: random.Random) -> str:
    area, degrees = r.choice(words.AREAS), number(r.randint(5, 35))
    return r.choice(
        [
            f"set the temperature to {degrees} degrees",
            f"set the {area} thermostat to {degrees} degrees",
            f"set the temperature in the {area} to {degrees} degrees",
            f"set the {area} to {degrees} degrees",
            f"what is the temperature in the {area}",
            f"what's the temperature {r.choice(['outside', 'inside', 'in the ' + area])}",
            f"how {r.choice(['warm', 'cold', 'humid', 'hot'])} is it in the {area}",
            f"make it {r.choice(['warmer', 'colder', 'cooler'])} in the {area}",
            f"what's the weather {r.choice(['like', 'forecast', ''])} {r.choice(words.DAYS)}",
            f"will it {r.choice(['rain', 'snow', 'be sunny', 'be windy'])} {r.choice(words.DAYS)}",
            f"what's the weather in {r.choice(words.PLACES)}",
        ]
    )


def _timers(r: random.Random) -> str:
    n, dish = number(r.randint(1, 60)), r.choice(words.DISHES)
    unit = r.choice(["minutes", "minutes", "seconds", "hours"])
    when = r.choice(["", "thirty", "fifteen", "forty five", "o'clock", "in the morning", "tonight"])
    return r.choice(
        [
            f"set a timer for {n} {unit}",
            f"set a {n} minute timer",
            f"start a {n} minute timer for {dish}",
            f"set a timer for {n} {unit} for {dish}",
            f"{r.choice(['cancel', 'pause', 'resume', 'stop'])} the {r.choice(['', dish])} timer",
            "how much time is left on the timer",
            f"add {n} {unit} to the timer",
            f"{r.choice(['wake me up', 'set an alarm'])} at {number(r.randint(1, 12))} {when}",
            f"remind me to {general_action(r)} {r.choice(words.DAYS)}",
            f"remind me to {general_action(r)} at {number(r.randint(1, 12))} {when}",
        ]
    )


def _lists(r: random.Random) -> str:
    item = r.choice(words.ITEMS)
    name = r.choice(["shopping list", "shopping list", "list", "grocery list", "to do list"])
    amount = r.choice(["", "", f"{number(r.randint(2, 12))} ", "some ", "a bottle of ", "more "])
    return r.choice(
        [
            f"add {amount}{item} to my {name}",
            f"add {amount}{item} and {r.choice(words.ITEMS)} to the {name}",
            f"put {amount}{item} on the {name}",
            f"remove {item} from my {name}",
            f"what's on my {name}",
            f"do we need {item}",
        ]
    )


def _media(r: random.Random) -> str:
    area, music = r.choice(words.AREAS), r.choice(words.MUSIC)
    return r.choice(
        [
            f"play {music}",
            f"play {music} in the {area}",
            f"{r.choice(['pause', 'stop', 'resume', 'skip'])} the {r.choice(['music', 'song'])}",
            r.choice(["next song", "previous song", "volume up", "volume down", "mute", "louder"]),
            f"{r.choice(['mute', 'unmute'])} the {r.choice(['television', 'speaker', 'tv'])}",
            f"set the volume to {number(r.randint(1, 100))} percent",
            f"set the {area} speaker volume to {number(r.randint(1, 100))}",
            f"turn {r.choice(['up', 'down'])} the volume in the {area}",
        ]
    )


def _house(r: random.Random) -> str:
    area, cover = r.choice(words.AREAS), r.choice(words.COVERS)
    move, person = r.choice(["open", "close"]), r.choice(words.PEOPLE)
    return r.choice(
        [
            f"{move} the {area} {cover}",
            f"{move} the {cover} in the {area}",
            f"{move} the {cover}",
            f"{r.choice(['lock', 'unlock'])} the {r.choice(words.LOCKS)}",
            f"is the {r.choice(words.LOCKS)} {r.choice(['locked', 'open', 'closed', 'unlocked'])}",
            f"{r.choice(['vacuum', 'clean'])} the {area}",
            f"{r.choice(['start', 'stop'])} the {r.choice(words.DEVICES)}",
            f"activate {r.choice(words.SCENES)} {r.choice(['mode', 'scene'])}",
            f"are any {r.choice(['lights', 'windows', 'doors'])} open in the {area}",
            f"{r.choice(['arm', 'disarm'])} the alarm",
            f"where is {person}",
            f"is {person} {r.choice(['home', 'at home', 'in the ' + area])}",
            f"call {person}",
            f"tell {person} {general(r)}",
            r.choice(words.EVERYDAY),
            r.choice(["i'm leaving", "i'm home", "hello", "help", "yes", "no", "okay", "goodbye"]),
        ]
    )


def _thing(r: random.Random) -> str:
    article = r.choice(["the", "the", "a", "my", "your", "this", "that", "our", "his", "her"])
    adjective = r.choice(words.ADJECTIVES) + " " if r.random() < 0.5 else ""
    return f"{article} {adjective}{r.choice(words.NOUNS)}"


def general_action(r: random.Random) -> str:
    """A verb phrase: "buy the old clock"."""
    return f"{r.choice(words.VERBS)} {_thing(r)}"


def general(r: random.Random) -> str:
    """A short English sentence that is no command."""
    one, two, past = _thing(r), _thing(r), r.choice(words.PAST)
    person, when = r.choice([*words.PEOPLE, "she", "he", "they", "we", "i"]), r.choice(words.TIMES)
    where = f"{r.choice(words.PREPOSITIONS)} {_thing(r)}"
    year = number(r.randint(13, 20)) + " " + number(r.randint(10, 99))
    nouns = r.choice(words.NOUNS) + "s"
    modal = r.choice(["will", "can't", "should", "must", "don't", "might", "could", "wouldn't"])
    return r.choice(
        [
            f"{one} {past} {two}",
            f"{one} {past} {two} {when}",
            f"{person} {past} {two} {when}",
            f"{person} {past} {two} {where}",
            f"{r.choice(words.ADVERBS)} {person} {past} {two}",
            f"{r.choice(['you', 'i', 'we', 'they'])} {modal} {general_action(r)}",
            f"{r.choice(['you', 'i', 'we', 'they'])} {modal} {general_action(r)} {when}",
            f"there {r.choice(['is', 'was'])} {one} {where}",
            f"{one} is {r.choice(words.ADJECTIVES)} and {r.choice(words.ADJECTIVES)}",
            f"{one} was {where}",
            f"{r.choice(words.QUESTIONS)} did {person} {general_action(r)}",
            f"what is the {r.choice(['capital', 'population'])} of {r.choice(words.PLACES)}",
            f"how {r.choice(words.ADJECTIVES)} is {one}",
            f"who {past} {one}",
            f"{number(r.randint(2, 99))} {r.choice(words.ADJECTIVES)} {nouns} {when}",
            f"on {r.choice(words.MONTHS)} {number(r.randint(1, 31))} {year}",
            f"ask not {r.choice(['what', 'how', 'why'])} {one} {past} {two}",
            f"i {r.choice(['think', 'know', 'hope', 'believe'])} {one} {past} {two}",
            f"{r.choice(['may i have', 'i would like', 'give me', 'i need'])} {two}",
            f"{r.choice(['and so', 'but', 'then', 'because', 'if'])} {one} {past} {two}",
        ]
    )


def sentences(count: int, seed: int, dev: bool, writer: Writer | None = None) -> list[str]:
    """`count` different sentences, all of them held out (dev) or none."""
    r = random.Random(seed)
    writer = writer or Writer()
    found = {} if dev else dict.fromkeys(words.EVERYDAY)
    while len(found) < count:
        text = writer.sentence(r)
        if held_out(text) == dev:
            found[text] = None
    chosen = list(found)
    r.shuffle(chosen)
    return chosen


def main() -> None:
    """Write the sentences of both sets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for everything made here")
    parser.add_argument("--train", type=int, default=30000, help="sentences to train on")
    parser.add_argument("--dev", type=int, default=2000, help="sentences held out")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    folder = args.work / "text"
    folder.mkdir(parents=True, exist_ok=True)
    writer = Writer()
    for name, count, dev in (("train", args.train, False), ("dev", args.dev, True)):
        chosen = sentences(count, args.seed + dev, dev, writer)
        (folder / f"{name}.txt").write_text("\n".join(chosen) + "\n", encoding="utf-8")
        print(f"{name}: {len(chosen)} sentences, for example:")
        print("\n".join("  " + text for text in chosen[:5]), flush=True)


if __name__ == "__main__":
    main()
